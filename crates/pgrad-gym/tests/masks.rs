//! Action masks of Gymnasium's environments.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[expect(dead_code, reason = "what other tests use")]
mod common;

use common::{open, settings};
use pgrad_env::{Actions, End, EnvError, RandomActions, VecEnv};
use pgrad_gym::{ActionMasks, Gym, GymSettings, OnEnvError};
use pgrad_num::{Cols, ColsMut};
use serde_json::{Value, json};

/// An environment that raises at what its mask forbids, and the run with it.
fn masked(kwargs: &Value) -> Gym {
    open("Masked-v0", &strict(kwargs))
}

fn strict(kwargs: &Value) -> GymSettings {
    GymSettings { on_env_error: OnEnvError::Stop, env_workers: 2, ..settings(kwargs) }
}

/// Steps three environments with random allowed actions.
fn run(gym: &Gym, steps: usize) -> Result<VecEnv, EnvError> {
    let n = 3;
    let mut env = VecEnv::new(gym.make(n), 7, 0);
    let dim = env.spec().action.mask_dim();
    let mut random = RandomActions::new(&env.spec().action, n, 1, 0);
    let (mut masks, mut scratch) = (vec![true; dim * n], Vec::new());
    env.start()?;
    for _ in 0..steps {
        env.action_masks(ColsMut::new(&mut masks, dim, n), &mut scratch)?;
        let Actions { index, real } = random.draw_allowed(Cols::new(&masks, dim, n));
        env.step(Actions { index, real })?;
    }
    Ok(env)
}

#[test]
fn masks_of_both_conventions_and_every_form_are_obeyed() {
    for kind in ["discrete", "multi", "dict"] {
        for source in ["info", "method"] {
            for case in ["", "sampled"] {
                let gym = masked(&json!({"kind": kind, "source": source, "case": case}));
                assert!(gym.spec().masks_actions, "{kind} {source}");
                let said = if source == "info" { "info[\"action_mask\"]" } else { "action_masks()" };
                assert_eq!(gym.masks(), Some(said));
                // Three episodes of each, the later ones begun by the worker.
                let env = run(&gym, 15).unwrap_or_else(|e| panic!("{kind} {source} {case}: {e}"));
                assert_eq!(env.finished().len(), 9, "{kind} {source} {case}");
                assert!(env.finished().iter().all(|e| e.episode_return == 5.0));
                let notices = gym.news().notices;
                assert!(matches!(&notices[..], [one] if one.contains(said)), "{notices:?}");
            }
        }
    }
}

#[test]
fn a_bad_mask_is_refused_with_its_place() {
    for (case, source, said) in [
        (
            "shape",
            "info",
            "`info[\"action_mask\"]` is ndarray of shape (2,) and dtype bool, its action space \
          MultiDiscrete([2 3]) has 5 alternatives",
        ),
        (
            "nothing",
            "info",
            "`info[\"action_mask\"]` allows no action for choice 1; at least one must be allowed",
        ),
        ("missing", "info", "`info[\"action_mask\"]` is missing, which was there after the first reset"),
        (
            "numbers",
            "method",
            "`action_masks()` is ndarray of shape (5,) and dtype float64; a mask has numbers of type",
        ),
        ("seven", "method", "`action_masks()` has other numbers than 0 and 1"),
        ("forgotten", "method", "`action_masks()` is None"),
        ("raises", "method", "it raised during"),
    ] {
        for at in [0, 2] {
            if case == "missing" && at == 0 {
                continue;
            }
            let kwargs = json!({"kind": "multi", "source": source, "case": case, "at": at});
            let error = run(&masked(&kwargs), 15).map(drop).unwrap_err().to_string();
            assert!(error.contains(said), "{case}: {error}");
            assert!(error.contains(&format!("step {at}: ")), "{case}: {error}");
        }
    }
}

#[test]
fn the_parts_of_a_mask_have_the_names_of_the_space() {
    let error =
        run(&masked(&json!({"kind": "dict", "case": "misspelt"})), 15).map(drop).unwrap_err().to_string();
    let said = "has no `gear`; its action space has the parts ['gas', 'gear', 'grip', 'lamps']";
    assert!(error.contains(said), "{error}");
}

/// An environment that allows nothing any more where it is cut: what follows is valued all the same.
#[test]
fn the_mask_of_a_last_state_allows_something() {
    for source in ["info", "method"] {
        let gym = masked(&json!({"kind": "multi", "source": source, "cut": true}));
        let env = run(&gym, 15).unwrap();
        assert_eq!(env.finished().len(), 9);
        assert!(env.finished().iter().all(|e| e.end == End::Truncated));
        for choice in [0..2, 2..5] {
            for b in 0..3 {
                assert!(choice.clone().any(|i| env.final_mask(b)[i]), "{source}");
            }
        }
    }
}

#[test]
fn masks_that_could_not_be_looked_for_are_told() {
    let gym = open("Masked-v0", &strict(&json!({"case": "raises", "at": 0})));
    let notices = gym.news().notices;
    assert!(matches!(&notices[..], [one] if one.contains("ConnectionError: no server")), "{notices:?}");
}

#[test]
fn masks_are_ignored_where_they_are_not_wanted_or_mean_nothing() {
    let wanted = strict(&json!({}));
    let gym = open("Masked-v0", &GymSettings { action_masks: ActionMasks::Ignore, ..wanted });
    assert!(!gym.spec().masks_actions && gym.masks().is_none());
    let error = run(&gym, 15).map(drop).unwrap_err().to_string();
    assert!(error.contains("AssertionError"), "the environment raises at what it forbids: {error}");
    let gym = masked(&json!({"kind": "box"}));
    assert!(!gym.spec().masks_actions && gym.news().notices.is_empty());
}
