//! Episodes that are lost because their environment failed: their steps are no steps, and nothing that was
//! gathered in them goes on into the next episode. Every method.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_algos::{Algorithm, REGISTRY, Setup};
use pgrad_engine::Cpu;
use pgrad_env::{Action, BatchResult, BoxSpace, Each, End, Env, EnvSpec, Obs, Space, Step, spec_of};
use pgrad_num::Stream;
use pgrad_settings::apply_pair;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Episodes of 7 steps; of all the steps of an environment, some fail.
struct Fails {
    /// Steps of all environments, and how many failed.
    taken: Arc<[AtomicU64; 2]>,
    lost: &'static [u64],
    own: u64,
    t: u32,
}

impl Env for Fails {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Fails".into(),
            observation: BoxSpace::unbounded(2).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: None,
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.t = 0;
        obs.write_f64(&[rng.normal(), 1.0]);
    }
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write_f64(&[rng.normal(), 0.5]);
        let fails = self.lost.contains(&self.own);
        self.taken[0].fetch_add(1, Relaxed);
        self.taken[1].fetch_add(u64::from(fails), Relaxed);
        self.own += 1;
        self.t += 1;
        let end = match self.t {
            _ if fails => End::Lost,
            7 => End::Terminated,
            _ => End::Running,
        };
        Step { reward: 1.0 + action.index() as f64, end }
    }
}

/// A method by name on such environments, what they count, and how many steps an environment fails in.
fn build(name: &str, pairs: &[&str], lost: &'static [u64]) -> (Box<dyn Algorithm>, Arc<[AtomicU64; 2]>) {
    let mut config = (pgrad_algos::find(name).unwrap().config)();
    for pair in pairs {
        apply_pair(pair, "test", &mut config.parts_mut()).unwrap();
    }
    let taken = Arc::<[AtomicU64; 2]>::default();
    let counted = Arc::clone(&taken);
    let make = Each::maker(move || Fails { taken: Arc::clone(&counted), lost, own: 0, t: 0 });
    let make: &dyn Fn(usize) -> BatchResult = &make;
    let setup = Setup {
        spec: &spec_of(make).unwrap(),
        make_env: make,
        seed: 2,
        total_steps: 100_000,
        cpu: Cpu::new(1).unwrap(),
    };
    let mut algo = config.build(&setup).unwrap();
    algo.start().unwrap();
    (algo, taken)
}

#[test]
fn steps_that_were_taken_are_learnt_from_or_lost() {
    let rollout: &[&str] = &["n_envs=3", "n_steps=16", "hidden=4"];
    let one: &[&str] = &["workers=1", "steps_per_iteration=60"];
    for entry in REGISTRY {
        let variants: Vec<Vec<&str>> = match entry.name {
            "a2c" | "acktr" => vec![rollout.to_vec()],
            "ppo" => vec![[rollout, &["minibatch_size=16"]].concat()],
            // An environment of its own for each shard: none plays in vain while another is not done.
            "npg" | "trpo" => vec![
                [rollout, &["minibatch_size=16"]].concat(),
                vec!["n_envs=3", "n_episodes=9", "batch=episodes", "envs_per_shard=1", "minibatch_size=16"],
            ],
            "reinforce" => vec![vec!["n_envs=3", "n_episodes=9", "envs_per_shard=1"]],
            // Its steps are those of the episodes that make its scores, and the others are no loss.
            "cem" => continue,
            "a3c" | "async-q" | "async-sarsa" | "async-nstep-q" => vec![one.to_vec()],
            _ => vec![vec!["n_envs=3", "n_steps=16"]],
        };
        for pairs in variants {
            let (mut algo, taken) = build(entry.name, &pairs, &[3, 9, 10, 29]);
            for _ in 0..4 {
                algo.iterate().unwrap();
            }
            let [taken, failed] = [0, 1].map(|i| taken[i].load(Relaxed));
            let name = format!("{} {pairs:?}", entry.name);
            assert!(failed >= 3 && algo.lost_steps() >= failed, "{name}: {failed} {}", algo.lost_steps());
            assert_eq!(algo.steps() + algo.lost_steps(), taken, "{name}");
            if pairs[..] == ["n_envs=3", "n_steps=16"] {
                assert_eq!(
                    algo.lost_steps(),
                    failed,
                    "{name}: the steps before were learnt from when they came"
                );
            }
        }
    }
}

#[test]
fn traces_do_not_go_on_behind_a_lost_step() {
    let soft = ["behaviour=soft-target", "behaviour_epsilon=0", "lambda=0.9"];
    for (name, pairs, traces) in [
        ("td-ac", &["lambda_policy=0.9", "lambda_value=0.9"][..], &["z_theta", "z_w"][..]),
        ("off-pac", &soft, &["e_v", "e_u"]),
        ("q-lambda", &soft, &["e"]),
        ("greedy-gq", &soft, &["e"]),
        ("softmax-gq", &soft, &["e"]),
    ] {
        let pairs = [&["n_envs=1", "n_steps=1", "gamma=0.9"], pairs].concat();
        // The fifth step of the first episode fails.
        let (mut algo, _) = build(name, &pairs, &[4]);
        for _ in 0..4 {
            algo.iterate().unwrap();
        }
        let before = algo.save();
        algo.iterate().unwrap();
        let after = algo.save();
        assert_eq!((algo.steps(), algo.lost_steps()), (4, 1), "{name}");
        for key in traces {
            let zeros = vec![0.0; before.get(key).unwrap().len()];
            assert_ne!(before.f32s(key, zeros.len()).unwrap(), &zeros[..], "{name}: {key}");
            assert_eq!(after.f32s(key, zeros.len()).unwrap(), &zeros[..], "{name}: {key}");
        }
        if name == "td-ac" {
            // The weight of the policy's gradient, by hand: four steps are done, and another episode begins.
            assert!((before.f32s("discount", 1).unwrap()[0] - 0.9f32.powi(4)).abs() < 1e-6);
            assert_eq!(after.f32s("discount", 1), Ok(&[1.0][..]));
        }
        for learnt in ["theta", "w"].into_iter().filter(|key| before.get(key).is_ok()) {
            assert_eq!(
                before.get(learnt),
                after.get(learnt),
                "{name}: a step that did not happen teaches {learnt}"
            );
        }
    }
}
