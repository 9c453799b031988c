//! A trainer without a run folder does what a run does, bit for bit.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod driver_common;

use driver_common::{METHODS, Runner, custom, result};
use pgrad_env::{Action, BoxSpace, End, Env, EnvSpec, Obs, Space, Step};
use pgrad_num::Stream;
use pgrad_run::config::env_maker;
use pgrad_run::metrics::TIME_PREFIX;
use pgrad_run::tensors;
use pgrad_run::trainer::Trainer;
use tempfile::tempdir;

/// As [`result`] of a run's folder, of a trainer that is taken to its end.
fn learnt(trainer: &mut Trainer) -> driver_common::Result_ {
    let mut rows = Vec::new();
    while !trainer.is_done() {
        trainer.iterate().unwrap();
        let row = trainer.row();
        assert!(row.values.iter().all(|(name, _)| !name.starts_with(TIME_PREFIX)));
        rows.push((row.step, row.values.iter().map(|(n, v)| ((*n).to_owned(), v.to_bits())).collect()));
    }
    (trainer.policy(1).to_bytes().unwrap(), rows)
}

#[test]
fn a_trainer_alone_has_the_bits_of_a_run() {
    for m in METHODS {
        let (env, pairs) = m.variants[0];
        let config = || m.config(env, &[&["steps=700"], pairs].concat());
        let dir = tempdir().unwrap();
        let run = dir.path().join("run");
        Runner::default().train(&run, config()).unwrap();
        let mut trainer = Trainer::new(config(), 2).unwrap();
        let ((policy, rows), (policy_of_run, rows_of_run)) = (learnt(&mut trainer), result(&run));
        assert!(policy == policy_of_run, "{} {env}", m.algo);
        assert_eq!(rows.len(), rows_of_run.len());
        for ((step, row), (step_of_run, row_of_run)) in rows.iter().zip(&rows_of_run) {
            assert_eq!((step, row.len()), (step_of_run, row_of_run.len()));
            for ((name, value), (other_name, other)) in row.iter().zip(row_of_run) {
                // The reader of JSON may be one unit in the last place off.
                assert!(
                    name == other_name && value.abs_diff(*other) <= 1,
                    "{} {env}, {step}: {name}",
                    m.algo
                );
            }
        }
    }
}

#[test]
fn what_was_saved_goes_on_in_another_trainer() {
    for m in METHODS {
        let (env, pairs) = m.variants[0];
        let config = || m.config(env, &[&["steps=700"], pairs].concat());
        let mut first = Trainer::new(config(), 1).unwrap();
        first.iterate().unwrap();
        let bytes = tensors::encode(&first.save(), None).unwrap();
        let mut second = Trainer::new(config(), 2).unwrap();
        assert!(second.load(&tensors::decode(&bytes).unwrap().0).unwrap(), "{} {env}", m.algo);
        assert_eq!((second.steps(), second.iterations()), (first.steps(), 1));
        assert!(learnt(&mut second) == learnt(&mut first), "{} {env}", m.algo);
        assert!(second.episodes() > 0 && second.episodes() == first.episodes(), "{} {env}", m.algo);
    }
}

/// Episodes of three steps, whose returns count up: 0, 1, 2, ...
struct Counting {
    episode: f64,
    step: u32,
}

impl Env for Counting {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Counting".into(),
            observation: BoxSpace::unbounded(1).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: None,
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        (self.episode, self.step) = (self.episode + 1.0, 0);
        obs.write_f64(&[0.0]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.step += 1;
        obs.write_f64(&[f64::from(self.step)]);
        let over = self.step == 3;
        Step {
            reward: if over { self.episode } else { 0.0 },
            end: if over { End::Terminated } else { End::Running },
        }
    }
}

#[test]
fn the_mean_return_is_that_of_the_last_100_episodes() {
    let make = env_maker(|| Counting { episode: -1.0, step: 0 });
    let pairs = ["n_envs=1", "envs_per_shard=1", "n_steps=30", "minibatch_size=30", "steps=450"];
    let mut trainer = Trainer::new(custom("Counting", make, &pairs), 1).unwrap();
    assert_eq!((trainer.return_mean_100(), trainer.episodes()), (None, 0));
    let mut done = 0;
    while !trainer.is_done() {
        trainer.iterate().unwrap();
        done += trainer.finished().count() as u64;
        assert_eq!(trainer.episodes(), done);
        let last: Vec<f64> = (done.saturating_sub(100)..done).map(|e| e as f64).collect();
        assert_eq!(trainer.return_mean_100(), Some(last.iter().sum::<f64>() / last.len() as f64));
        assert_eq!(trainer.length_mean_100(), Some(3.0));
    }
    assert_eq!(done, 150);
}

#[test]
fn a_trainer_can_be_handed_to_another_thread() {
    fn movable<T: Send>() {}
    movable::<Trainer>();
}
