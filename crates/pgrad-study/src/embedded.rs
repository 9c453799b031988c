//! The studies that come with pgrad, and the text of one by its name or file.

use crate::StudyError;
use pgrad_run::storage::{FsStorage, Storage};
use std::path::Path;

/// Largest file that is read.
const MAX_LEN: u64 = 1 << 20;

/// A study that comes with pgrad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedStudy {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub toml: &'static str,
}

/// All studies that come with pgrad.
pub static STUDIES: &[EmbeddedStudy] = &[
    EmbeddedStudy { name: "acktr-classic", toml: include_str!("../../../studies/acktr-classic.toml") },
    EmbeddedStudy { name: "journey", toml: include_str!("../../../studies/journey.toml") },
    EmbeddedStudy { name: "ppo-classic", toml: include_str!("../../../studies/ppo-classic.toml") },
    EmbeddedStudy { name: "lunar-lander", toml: include_str!("../../../studies/lunar-lander.toml") },
    EmbeddedStudy { name: "bipedal-walker", toml: include_str!("../../../studies/bipedal-walker.toml") },
    EmbeddedStudy { name: "online-classic", toml: include_str!("../../../studies/online-classic.toml") },
    EmbeddedStudy { name: "trpo-classic", toml: include_str!("../../../studies/trpo-classic.toml") },
    EmbeddedStudy { name: "trpo-cartpole", toml: include_str!("../../../studies/trpo-cartpole.toml") },
    EmbeddedStudy { name: "ppo-kl", toml: include_str!("../../../studies/ppo-kl.toml") },
    EmbeddedStudy { name: "a2c-classic", toml: include_str!("../../../studies/a2c-classic.toml") },
    EmbeddedStudy { name: "reinforce", toml: include_str!("../../../studies/reinforce.toml") },
    EmbeddedStudy { name: "short-corridor", toml: include_str!("../../../studies/short-corridor.toml") },
    EmbeddedStudy { name: "variance", toml: include_str!("../../../studies/variance.toml") },
    EmbeddedStudy { name: "minatar-ppo", toml: include_str!("../../../studies/minatar-ppo.toml") },
    EmbeddedStudy { name: "off-pac", toml: include_str!("../../../studies/off-pac.toml") },
    EmbeddedStudy { name: "gae-cartpole", toml: include_str!("../../../studies/gae-cartpole.toml") },
    EmbeddedStudy { name: "async-speedup", toml: include_str!("../../../studies/async-speedup.toml") },
    EmbeddedStudy { name: "async-classic", toml: include_str!("../../../studies/async-classic.toml") },
    EmbeddedStudy { name: "async-minatar", toml: include_str!("../../../studies/async-minatar.toml") },
    EmbeddedStudy { name: "a3c-vs-a2c", toml: include_str!("../../../studies/a3c-vs-a2c.toml") },
    EmbeddedStudy { name: "recurrent", toml: include_str!("../../../studies/recurrent.toml") },
    EmbeddedStudy { name: "kakade", toml: include_str!("../../../studies/kakade.toml") },
    #[cfg(feature = "mujoco")]
    EmbeddedStudy { name: "ppo-table1", toml: include_str!("../../../studies/ppo-table1.toml") },
    #[cfg(feature = "mujoco")]
    EmbeddedStudy { name: "mujoco-v4", toml: include_str!("../../../studies/mujoco-v4.toml") },
    #[cfg(feature = "mujoco")]
    EmbeddedStudy { name: "mujoco-v5", toml: include_str!("../../../studies/mujoco-v5.toml") },
    #[cfg(feature = "mujoco")]
    EmbeddedStudy { name: "mujoco-npg-a2c", toml: include_str!("../../../studies/mujoco-npg-a2c.toml") },
];

/// The text of a study with its origin.
pub(crate) fn text_of(name_or_file: &str) -> Result<(String, String), StudyError> {
    if let Some(EmbeddedStudy { name, toml }) = STUDIES.iter().find(|s| s.name == name_or_file) {
        return Ok(((*toml).to_owned(), format!("studies/{name}.toml")));
    }
    let path = Path::new(name_or_file);
    if FsStorage.kind(path)?.is_none() {
        let names = || STUDIES.iter().map(|s| s.name);
        return Err(StudyError::Unknown {
            name: name_or_file.to_owned(),
            known: names().collect::<Vec<_>>().join(", "),
            suggestion: pgrad_settings::suggest(name_or_file, names()).map(str::to_owned),
        });
    }
    let bytes = FsStorage.read(path, MAX_LEN)?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), name_or_file.to_owned()))
}
