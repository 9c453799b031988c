//! The summaries that are kept with pgrad say of their numbers what this program would.
//!
//! Where the rules changed, `PGRAD_RETELL=1 cargo test -p pgrad-study --test stored` writes them again.

use pgrad_study::{SUMMARY_JSON, SUMMARY_MD, retold};
use std::{env, fs, path::Path};

#[test]
fn stored_verdicts_are_those_of_today() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../studies/results");
    let again = env::var_os("PGRAD_RETELL").is_some();
    let mut stale = Vec::new();
    let mut folders: Vec<_> = fs::read_dir(root).unwrap().map(|d| d.unwrap().path()).collect();
    folders.sort();
    for folder in folders.iter().filter(|f| f.join(SUMMARY_JSON).exists()) {
        let [markdown, text] =
            [SUMMARY_MD, SUMMARY_JSON].map(|name| fs::read_to_string(folder.join(name)).unwrap());
        let summary = serde_json::from_str(&text).unwrap();
        let (new_markdown, new_summary) =
            retold(&markdown, &summary).unwrap_or_else(|| panic!("{}", folder.display()));
        let new_text = format!("{new_summary:#}\n");
        if (&new_markdown, &new_text) != (&markdown, &text) {
            stale.push(folder.file_name().unwrap().to_owned());
            if again {
                fs::write(folder.join(SUMMARY_MD), new_markdown).unwrap();
                fs::write(folder.join(SUMMARY_JSON), new_text).unwrap();
            }
        }
    }
    assert!(folders.len() > 20);
    assert!(stale.is_empty(), "PGRAD_RETELL=1 mends {stale:?}");
}
