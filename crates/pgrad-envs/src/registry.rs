//! Environments by name.

use pgrad_env::{
    BatchEnv, BatchResult, EnvMaker, EnvSpec, MakeError, TILES_PREFIX, TileCoded, TileCoding, TileError,
    spec_of,
};
use std::sync::Arc;
use thiserror::Error;

/// An environment that can be made by its name.
#[derive(Clone, Copy, Debug)]
pub struct EnvEntry {
    /// Its name.
    pub id: &'static str,
    /// What it is, in one line.
    pub title: &'static str,
    source: Source,
    /// The same with tile-coded observations, `tiles:` before its name. [`find`] gives it only where the
    /// observations can be tile-coded: making it panics elsewhere. None where they are bits, or without
    /// bounds.
    pub tiled: Option<&'static EnvEntry>,
}

/// Where an environment comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// From its own code.
    Code(fn(usize) -> Box<dyn BatchEnv>),
    /// From a model file, which is read first.
    #[cfg(feature = "mujoco")]
    Mujoco,
}

impl EnvEntry {
    /// Whether it needs something beside its code.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.code().is_none()
    }
    /// What makes it, where its code is enough.
    fn code(&self) -> Option<fn(usize) -> Box<dyn BatchEnv>> {
        match self.source {
            Source::Code(make) => Some(make),
            #[cfg(feature = "mujoco")]
            Source::Mujoco => None,
        }
    }
    /// Reads what the environment needs beside its code, if anything; what is returned makes batches of it.
    ///
    /// # Errors
    /// When something that it needs is missing, or cannot be used.
    pub fn open(&self) -> Result<EnvMaker, MakeError> {
        match self.source {
            Source::Code(make) => Ok(Arc::new(move |n| Ok(make(n)))),
            #[cfg(feature = "mujoco")]
            Source::Mujoco => crate::mujoco::open(self.id),
        }
    }
    /// A batch of `n` copies.
    ///
    /// # Errors
    /// As [`EnvEntry::open`], which is the better choice for more than one batch.
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn make(&self, n: usize) -> BatchResult {
        self.open()?(n)
    }
    /// What the environment is.
    ///
    /// # Errors
    /// As [`EnvEntry::open`].
    pub fn spec(&self) -> Result<EnvSpec, MakeError> {
        spec_of(&*self.open()?)
    }
}

macro_rules! entry {
    ($id:literal, $batch:ty, $title:literal) => {
        EnvEntry {
            id: $id,
            title: $title,
            source: Source::Code(|n| Box::new(<$batch>::new(n))),
            tiled: Some(&EnvEntry {
                id: concat!("tiles:", $id),
                title: concat!($title, "; tile-coded"),
                source: Source::Code(|n| tile_coded(Box::new(<$batch>::new(n)))),
                tiled: None,
            }),
        }
    };
}

fn tile_coded(task: Box<dyn BatchEnv>) -> Box<dyn BatchEnv> {
    match TileCoded::new(task, TileCoding::default()) {
        Ok(coded) => Box::new(coded),
        Err(e) => panic!("`find` refuses a task that cannot be tile-coded: {e}"),
    }
}

macro_rules! minatar {
    ($id:literal, $game:ident, $minimal:literal, $title:literal) => {
        EnvEntry {
            id: $id,
            title: $title,
            source: Source::Code(|n| {
                use crate::minatar::{MinAtar, Rules, $game};
                Box::new(MinAtar::<$game>::new(n, Rules { minimal_actions: $minimal, ..Rules::default() }))
            }),
            // Bits have no range to be tiled.
            tiled: None,
        }
    };
}

macro_rules! t_maze {
    ($id:literal, $length:literal, $title:literal) => {
        EnvEntry {
            id: $id,
            title: $title,
            source: Source::Code(|n| Box::new(crate::TMaze::new(n, $length))),
            tiled: Some(&EnvEntry {
                id: concat!("tiles:", $id),
                title: concat!($title, "; tile-coded"),
                source: Source::Code(|n| tile_coded(Box::new(crate::TMaze::new(n, $length)))),
                tiled: None,
            }),
        }
    };
}

#[cfg(feature = "mujoco")]
macro_rules! mujoco {
    ($id:literal, $title:literal) => {
        // Observations without bounds have no range to be tiled.
        EnvEntry { id: $id, title: $title, source: Source::Mujoco, tiled: None }
    };
}

/// The tasks of the feature `mujoco`, each as v5 and v4.
const MUJOCO_TASKS: [&str; 11] = [
    "HalfCheetah",
    "Hopper",
    "Walker2d",
    "Ant",
    "Humanoid",
    "HumanoidStandup",
    "Swimmer",
    "Reacher",
    "Pusher",
    "InvertedPendulum",
    "InvertedDoublePendulum",
];

/// A feature that a program can be built with.
#[derive(Debug, PartialEq, Eq)]
pub struct MissingFeature {
    /// Its name.
    pub name: &'static str,
    /// How to get it.
    pub how: &'static str,
}

/// What has those tasks.
static MUJOCO: MissingFeature = MissingFeature {
    name: "mujoco",
    how: "`cargo xtask mujoco` gets MuJoCo; then `cargo run --release --features mujoco -- ...`",
};

/// All environments, in the order in which they are listed.
pub static REGISTRY: &[EnvEntry] = &[
    entry!("CartPole-v1", crate::CartPole, "balance a pole on a cart by pushing left or right"),
    entry!("Acrobot-v1", crate::Acrobot, "swing the tip of a two-link arm above a line"),
    entry!("MountainCar-v0", crate::MountainCar, "swing an underpowered car out of a valley"),
    entry!(
        "MountainCarContinuous-v0",
        crate::MountainCarContinuous,
        "swing a car out of a valley with as little push as possible"
    ),
    entry!("Pendulum-v1", crate::Pendulum, "swing a pendulum up and hold it there"),
    entry!(
        "CartPoleNoVel-v1",
        crate::NoVelocity::<crate::CartPole>,
        "balance a pole on a cart without seeing velocities"
    ),
    entry!(
        "PendulumNoVel-v1",
        crate::NoVelocity::<crate::Pendulum>,
        "swing a pendulum up without seeing its velocity"
    ),
    entry!(
        "MountainCarContinuousNoVel-v0",
        crate::NoVelocity::<crate::MountainCarContinuous>,
        "swing a car out of a valley without seeing its velocity"
    ),
    t_maze!("TMaze10-v0", 10, "turn at the end of a corridor of 10 steps as a sign at its start says"),
    t_maze!("TMaze50-v0", 50, "turn at the end of a corridor of 50 steps as a sign at its start says"),
    t_maze!("TMaze100-v0", 100, "turn at the end of a corridor of 100 steps as a sign at its start says"),
    entry!(
        "DegrisMountainCar-v0",
        crate::DegrisMountainCar,
        "the mountain car of Off-PAC: one first state, a goal further up"
    ),
    entry!(
        "DegrisPendulum-v0",
        crate::DegrisPendulum,
        "the pendulum of Off-PAC: three torques, the cosine of the angle as reward"
    ),
    entry!(
        "ContinuousGridWorld-v0",
        crate::ContinuousGridWorld,
        "the grid world of Off-PAC: walk to a corner around smooth puddles"
    ),
    entry!(
        "ShortCorridor-v0",
        crate::ShortCorridor,
        "leave three places that look alike, one of them switched"
    ),
    entry!("KakadeMdp-v0", crate::KakadeMdp, "two states: cross to the one where staying pays more"),
    entry!("KakadeLqg-v0", crate::KakadeLqg, "keep a number near 0 that noise drives away"),
    entry!("BartoCartPole-v0", crate::BartoCartPole, "balance a pole on a cart with a push of any size"),
    minatar!("MinAtar/Breakout-v1", Breakout, true, "break bricks with a ball, minimal action set"),
    minatar!("MinAtar/Breakout-v0", Breakout, false, "break bricks with a ball, all six actions"),
    minatar!("MinAtar/Asterix-v1", Asterix, true, "gather gold among enemies, minimal action set"),
    minatar!("MinAtar/Asterix-v0", Asterix, false, "gather gold among enemies, all six actions"),
    minatar!("MinAtar/Freeway-v1", Freeway, true, "cross eight lanes of cars, minimal action set"),
    minatar!("MinAtar/Freeway-v0", Freeway, false, "cross eight lanes of cars, all six actions"),
    minatar!(
        "MinAtar/SpaceInvaders-v1",
        SpaceInvaders,
        true,
        "shoot the aliens before they land, minimal action set"
    ),
    minatar!(
        "MinAtar/SpaceInvaders-v0",
        SpaceInvaders,
        false,
        "shoot the aliens before they land, all six actions"
    ),
    minatar!("MinAtar/Seaquest-v1", Seaquest, true, "rescue divers and come up for air, minimal action set"),
    minatar!("MinAtar/Seaquest-v0", Seaquest, false, "rescue divers and come up for air, all six actions"),
    #[cfg(feature = "mujoco")]
    mujoco!("HalfCheetah-v5", "run as fast as a flat cheetah can"),
    #[cfg(feature = "mujoco")]
    mujoco!("HalfCheetah-v4", "run as fast as a flat cheetah can, version 4"),
    #[cfg(feature = "mujoco")]
    mujoco!("Hopper-v5", "hop forward on one leg without falling"),
    #[cfg(feature = "mujoco")]
    mujoco!("Hopper-v4", "hop forward on one leg without falling, version 4"),
    #[cfg(feature = "mujoco")]
    mujoco!("Walker2d-v5", "walk forward on two flat legs without falling"),
    #[cfg(feature = "mujoco")]
    mujoco!("Walker2d-v4", "walk forward on two flat legs without falling, version 4"),
    #[cfg(feature = "mujoco")]
    mujoco!("Ant-v5", "walk forward on four legs"),
    #[cfg(feature = "mujoco")]
    mujoco!("Ant-v4", "walk forward on four legs, version 4"),
    #[cfg(feature = "mujoco")]
    mujoco!("Humanoid-v5", "walk forward as a human figure without falling"),
    #[cfg(feature = "mujoco")]
    mujoco!("Humanoid-v4", "walk forward as a human figure without falling, version 4"),
    #[cfg(feature = "mujoco")]
    mujoco!("HumanoidStandup-v5", "get up from the floor as a human figure"),
    #[cfg(feature = "mujoco")]
    mujoco!("HumanoidStandup-v4", "get up from the floor as a human figure, version 4"),
    #[cfg(feature = "mujoco")]
    mujoco!("Swimmer-v5", "swim with three links in a viscous plane"),
    #[cfg(feature = "mujoco")]
    mujoco!("Swimmer-v4", "swim with three links in a viscous plane, version 4"),
    #[cfg(feature = "mujoco")]
    mujoco!("Reacher-v5", "reach for a target with an arm of two joints"),
    #[cfg(feature = "mujoco")]
    mujoco!("Reacher-v4", "reach for a target with an arm of two joints, version 4"),
    #[cfg(feature = "mujoco")]
    mujoco!("Pusher-v5", "push a cylinder to a goal with an arm of seven joints"),
    #[cfg(feature = "mujoco")]
    mujoco!("Pusher-v4", "push a cylinder to a goal with an arm of seven joints, version 4"),
    #[cfg(feature = "mujoco")]
    mujoco!("InvertedPendulum-v5", "keep a pole on a cart upright with a force of any size"),
    #[cfg(feature = "mujoco")]
    mujoco!("InvertedPendulum-v4", "keep a pole on a cart upright with a force of any size, version 4"),
    #[cfg(feature = "mujoco")]
    mujoco!("InvertedDoublePendulum-v5", "keep two poles, one on the other, upright on a cart"),
    #[cfg(feature = "mujoco")]
    mujoco!("InvertedDoublePendulum-v4", "keep two poles, one on the other, upright on a cart, version 4"),
];

/// A name that no environment has.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("there is no environment `{id}`{}", why(untiled.as_ref(), near, *feature))]
pub struct UnknownEnv {
    /// The name asked for.
    pub id: String,
    /// Names that may have been meant, the nearest first.
    pub near: Vec<&'static str>,
    /// Why a task that exists has no tile-coded form, when that was asked for.
    pub untiled: Option<TileError>,
    /// The feature that has it, and that this program was built without.
    pub feature: Option<&'static MissingFeature>,
}

fn why(
    untiled: Option<&TileError>,
    near: &[&'static str],
    feature: Option<&'static MissingFeature>,
) -> String {
    match (untiled, feature) {
        (Some(reason), _) => format!(": {reason}"),
        (None, Some(MissingFeature { name, how })) => format!(": it needs the feature `{name}`; {how}"),
        (None, None) => did_you_mean(near).map_or_else(String::new, |question| format!("; {question}")),
    }
}

/// ``did you mean `A` or `B`?``; nothing without names.
#[must_use]
pub fn did_you_mean(names: &[&str]) -> Option<String> {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| format!("did you mean {}?", names.join(" or ")))
}

/// The candidates that `id` may have been meant to be, the nearest first, three at most. A name without its
/// version or without the family before its slash counts as the name; case does not count.
pub fn nearest<'a>(id: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let plain =
        |s: &str| s.to_lowercase().split("-v").next().unwrap_or_default().replace(['-', '_', ' '], "");
    let asked = plain(id);
    let limit = (asked.chars().count() / 3).max(1);
    let distance = |id: &str| {
        let own = id.rsplit('/').next().unwrap_or_default();
        [id, own].map(|name| strsim::damerau_levenshtein(&asked, &plain(name))).into_iter().min()
    };
    let mut near: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter_map(|id| Some((distance(id)?, id)))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    near.sort_by_key(|(distance, _)| *distance);
    // Beside the name itself, or its other versions, nothing else was meant.
    let exact = near.first().is_some_and(|(distance, _)| *distance == 0);
    near.into_iter().filter(|(distance, _)| !exact || *distance == 0).map(|(_, id)| id).take(3).collect()
}

impl UnknownEnv {
    fn new(id: &str) -> Self {
        let unknown = |near, feature| Self { id: id.to_owned(), near, untiled: None, feature };
        if let Some(name) = id.strip_prefix(TILES_PREFIX) {
            let tiled = |near: &str| Some(find(near).ok()?.tiled?.id);
            return unknown(Self::new(name).near.into_iter().filter_map(tiled).collect(), None);
        }
        let name = id.strip_suffix("-v5").or_else(|| id.strip_suffix("-v4"));
        let of_mujoco = name.is_some_and(|name| MUJOCO_TASKS.contains(&name));
        if of_mujoco && !cfg!(feature = "mujoco") {
            return unknown(Vec::new(), Some(&MUJOCO));
        }
        unknown(nearest(id, REGISTRY.iter().map(|e| e.id)), None)
    }
}

/// The registered environment called `id`; with `tiles:` before the name, the same with tile-coded
/// observations.
///
/// # Errors
/// When no environment has that name, or it has no bounded observations to be tile-coded.
pub fn find(id: &str) -> Result<&'static EnvEntry, UnknownEnv> {
    let unknown = || UnknownEnv::new(id);
    let named = |name: &str| REGISTRY.iter().find(|e| e.id == name).ok_or_else(unknown);
    let Some(name) = id.strip_prefix(TILES_PREFIX) else { return named(id) };
    let entry = named(name)?;
    let plain = entry.code().ok_or_else(unknown)?;
    TileCoded::coder_for(plain(1).spec(), TileCoding::default())
        .map_err(|e| UnknownEnv { untiled: Some(e), ..unknown() })?;
    entry.tiled.ok_or_else(unknown)
}

/// Why an environment could not be made by its name.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum MakeByNameError {
    /// No environment has that name.
    #[error(transparent)]
    Unknown(#[from] UnknownEnv),
    /// It cannot be made here.
    #[error(transparent)]
    Make(#[from] MakeError),
}

/// A batch of `n` copies of the environment called `id`.
///
/// # Errors
/// When no environment has that name, or it cannot be made here.
///
/// # Panics
/// When `n` is 0.
pub fn make(id: &str, n: usize) -> Result<Box<dyn BatchEnv>, MakeByNameError> {
    Ok(find(id)?.make(n)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_makes_what_it_says() {
        for e in REGISTRY {
            let env = make(e.id, 3).unwrap();
            assert_eq!((env.spec().id.as_str(), env.len()), (e.id, 3));
            assert!(!e.title.is_empty());
            assert_eq!(REGISTRY.iter().filter(|other| other.id == e.id).count(), 1);
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_ones() {
        let message = |id: &str| match make(id, 1) {
            Ok(_) => panic!("{id} exists"),
            Err(e) => e.to_string(),
        };
        for (wrong, meant) in [
            ("CartPole", "CartPole-v1"),
            ("cartpole-v1", "CartPole-v1"),
            ("CartPole-v0", "CartPole-v1"),
            ("Carpole-v1", "CartPole-v1"),
            ("mountain car", "MountainCar-v0"),
            ("MountainCarContinous-v0", "MountainCarContinuous-v0"),
            ("Acrobat-v1", "Acrobot-v1"),
            ("minatar/breakout", "MinAtar/Breakout-v1"),
            ("MinAtar/SpaceInvader-v1", "MinAtar/SpaceInvaders-v1"),
            ("space_invaders", "MinAtar/SpaceInvaders-v1"),
            ("Seaquest-v5", "MinAtar/Seaquest-v1"),
        ] {
            let m = message(wrong);
            assert!(
                m.starts_with(&format!("there is no environment `{wrong}`; did you mean `{meant}`")),
                "{m}"
            );
            assert!(m.matches('`').count() <= 8, "three names at most: {m}");
        }
        assert!(!message("Blackjack-v1").contains("did you mean"));
        if !cfg!(feature = "mujoco") {
            for id in MUJOCO_TASKS.iter().flat_map(|task| [format!("{task}-v4"), format!("{task}-v5")]) {
                let expected = format!("there is no environment `{id}`: it needs the feature `mujoco`; ");
                assert_eq!(message(&id).strip_prefix(&expected), Some(MUJOCO.how));
            }
        }
        assert!(message("tiles:MountainCar").ends_with("; did you mean `tiles:MountainCar-v0`?"));
        let m = message("tiles:CartPole-v1");
        assert!(m.ends_with("component 1 of the observation is in [-inf, inf]"), "{m}");
    }

    #[test]
    fn a_name_with_tiles_before_it_is_the_same_task() {
        for e in REGISTRY {
            let Some(tiled) = e.tiled else {
                let error = find(&format!("tiles:{}", e.id)).unwrap_err();
                let bits = matches!(error.untiled, Some(TileError::NotBox { .. }));
                assert!(bits || MUJOCO_TASKS.iter().any(|task| e.id.starts_with(task)), "{error}");
                continue;
            };
            assert_eq!(tiled.id, format!("tiles:{}", e.id));
            let Ok(found) = find(tiled.id) else { continue };
            let (env, plain) = (found.make(2).unwrap(), e.make(2).unwrap());
            assert_eq!((env.spec().id.as_str(), env.len()), (tiled.id, 2));
            assert_eq!(env.spec().action, plain.spec().action);
            assert_eq!(env.spec().max_episode_steps, plain.spec().max_episode_steps);
            assert_ne!(env.spec().observation, plain.spec().observation);
        }
        assert!(find("tiles:MountainCar-v0").is_ok() && find("tiles:tiles:MountainCar-v0").is_err());
    }
}
