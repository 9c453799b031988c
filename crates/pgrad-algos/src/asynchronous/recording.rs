//! What lets another run follow a recorded one.

use pgrad_model::tensors;
use pgrad_num::Array;
use pgrad_settings::{Settings, to_toml};

/// The settings that a recording and the run that follows it agree in.
pub(super) fn comparable(parts: &[&dyn Settings]) -> String {
    let own = |line: &&str| !line.starts_with("record =") && !line.starts_with("replay =");
    to_toml(parts, false).lines().filter(own).map(|line| format!("{line}\n")).collect()
}

/// The turns and the settings of a recording.
pub(super) fn read_recording(bytes: &[u8]) -> Result<(Vec<u8>, String), String> {
    let (record, note) = tensors::unseal(bytes).map_err(|e| e.to_string())?;
    match record.get("turns") {
        Ok(Array::U8(turns)) => Ok((turns.clone(), note.unwrap_or_default())),
        Ok(_) => Err("its turns are not bytes".into()),
        Err(e) => Err(e.to_string()),
    }
}
