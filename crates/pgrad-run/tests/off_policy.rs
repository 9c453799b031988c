//! A run whose behaviour policy comes from the file of another run, on tile-coded observations.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod driver_common;

use driver_common::Runner;
use pgrad_model::Policy;
use pgrad_run::{
    config::RunConfig,
    driver::RunError,
    eval::{EvalOptions, evaluate_run},
};
use std::path::Path;
use tempfile::tempdir;

const ENV: &str = "tiles:DegrisMountainCar-v0";

fn off_pac(pairs: &[&str]) -> RunConfig {
    let mut config = RunConfig::new("off-pac", ENV).unwrap();
    for pair in ["steps=3000", "n_steps=500", "seed=3"].iter().chain(pairs) {
        config.apply_pair(pair, "test").unwrap();
    }
    config
}

fn bytes(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("policy.safetensors")).unwrap()
}

#[test]
fn a_stored_policy_behaves_and_another_one_is_learnt() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    Runner::default().train(&at("first"), off_pac(&[])).unwrap();
    let file = at("first").join("policy.safetensors");
    let named = format!("behaviour_policy=\"{}\"", file.display());
    let second = || off_pac(&["behaviour=policy", &named]);
    Runner::default().train(&at("second"), second()).unwrap();
    assert_ne!(bytes(&at("second")), bytes(&at("first")));

    // Stopped and resumed: the same bits; the file is read again.
    let mut runner = Runner { stop_after: Some(2), ..Runner::default() };
    assert!(runner.train(&at("third"), second()).unwrap().stopped);
    let first = bytes(&at("first"));
    std::fs::write(&file, bytes(&at("second"))).unwrap();
    let error = Runner::default().resume(&at("third")).unwrap_err();
    assert!(error.to_string().contains("has changed since the run began"), "{error}");
    std::fs::write(&file, first).unwrap();
    Runner::default().resume(&at("third")).unwrap();
    assert_eq!(bytes(&at("third")), bytes(&at("second")));

    // Its file tells the tiled task, and it is evaluated there.
    let policy = Policy::from_bytes(&bytes(&at("second"))).unwrap();
    assert_eq!(policy.env_id(), ENV);
    let options = EvalOptions { episodes: 2, ..EvalOptions::default() };
    let found = evaluate_run(policy, &second(), &options).unwrap();
    assert!(found.returns.iter().all(|r| (-5000.0..0.0).contains(r)), "{:?}", found.returns);
}

#[test]
fn a_behaviour_policy_that_is_not_there_is_refused_before_anything_is_made() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    for (pairs, part) in [
        (
            &["behaviour=policy", "behaviour_policy=no/such/policy.safetensors"][..],
            "no/such/policy.safetensors",
        ),
        (&["behaviour=policy"], "needs the path of a finished run's"),
        (&["behaviour_policy=x"], "behaviour"),
    ] {
        let error: RunError = Runner::default().train(&run, off_pac(pairs)).unwrap_err();
        assert_eq!(error.exit_code(), 64, "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(!run.exists());
    }
}
