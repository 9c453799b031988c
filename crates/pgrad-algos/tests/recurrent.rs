//! The recurrent methods: they learn what needs a memory and nothing else can; the ratio of a first pass is
//! exactly 1; what cannot be recurrent says so.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_algos::{AlgoConfig, Algorithm, BuildError, Setup};
use pgrad_engine::Cpu;
use pgrad_env::{BatchResult, Each, probe::RememberedSign, spec_of};
use pgrad_model::ActionValue;
use pgrad_num::{Cols, ColsMut};
use pgrad_settings::apply_pair;

/// A method that can be recurrent, and how it learns a small task.
struct Method {
    algo: &'static str,
    pairs: &'static [&'static str],
    /// Iterations.
    budget: usize,
}

static METHODS: &[Method] = &[
    Method {
        algo: "ppo",
        pairs: &["n_envs=16", "n_steps=12", "minibatch_size=48", "learning_rate=0.01", "max_grad_norm=none"],
        budget: 60,
    },
    Method {
        algo: "a2c",
        pairs: &[
            "n_envs=16",
            "n_steps=12",
            "learning_rate=0.01",
            "max_grad_norm=none",
            "rmsprop_decay=0.9",
            "entropy_coef=0.001",
        ],
        budget: 250,
    },
    Method {
        algo: "a3c",
        pairs: &[
            "workers=1",
            "n_steps=3",
            "steps_per_iteration=2000",
            "learning_rate=0.01",
            "entropy_coef=0.001",
        ],
        budget: 15,
    },
    Method { algo: "trpo", pairs: NATURAL, budget: 80 },
    Method { algo: "npg", pairs: NATURAL, budget: 80 },
];

const NATURAL: &[&str] = &[
    "n_envs=16",
    "n_steps=12",
    "minibatch_size=48",
    "critic_learning_rate=0.02",
    "critic_hidden=8",
    "cg_damping=0.01",
    "delta=0.01",
];

/// Methods that have the setting, and a network for each of actor and critic or one for both.
fn variants(algo: &str) -> Vec<Vec<&'static str>> {
    let trunks: &[&[&str]] = if (config(algo).parts().iter()).any(|p| p.declaration("trunk").is_some()) {
        &[&["trunk=separate"], &["trunk=shared"]]
    } else {
        &[&[]]
    };
    let cells = ["recurrent=lstm", "recurrent=gru"];
    cells.iter().flat_map(|cell| trunks.iter().map(move |t| [&[*cell], *t].concat())).collect()
}

fn config(algo: &str) -> Box<dyn AlgoConfig> {
    (pgrad_algos::find(algo).unwrap().config)()
}

fn make(n: usize) -> BatchResult {
    Ok(Box::new(Each::new(n, RememberedSign::default)))
}

fn build(algo: &str, pairs: &[&str]) -> Result<Box<dyn Algorithm>, BuildError> {
    let mut config = config(algo);
    for pair in ["gamma=0.9", "hidden=8", "recurrent_size=8"].iter().chain(pairs) {
        apply_pair(pair, "test", &mut config.parts_mut()).unwrap();
    }
    let setup = Setup {
        spec: &spec_of(&make).unwrap(),
        make_env: &make,
        seed: 1,
        total_steps: 1_000_000,
        cpu: Cpu::new(2).unwrap(),
    };
    let mut algo = config.build(&setup)?;
    algo.start().unwrap();
    Ok(algo)
}

fn train(m: &Method, pairs: &[&str], iterations: usize) -> Box<dyn Algorithm> {
    let mut algo = build(m.algo, &[m.pairs, pairs].concat()).unwrap();
    for _ in 0..iterations {
        algo.iterate().unwrap();
    }
    algo
}

/// Probability of action 1 at the last step, and the values of all steps, after a first observation `first`.
fn after(algo: &dyn Algorithm, first: f32) -> (f64, Vec<f64>) {
    let (model, mut values) = (algo.model(), Vec::new());
    let mut policy = algo.policy(1);
    policy.reset();
    let part = model.critic();
    let (mut tape, mut state) = (part.net.tape(1), vec![0.0; part.net.state_rows()]);
    let mut logits = [0.0f32; 2];
    for obs in [first, 0.0, 0.0] {
        let x = Cols::new(std::slice::from_ref(&obs), 1, 1);
        if !state.is_empty() {
            tape.begin(1, Cols::new(&state, state.len(), 1), &[false]);
        }
        values.push(f64::from(model.values(x, &mut tape)[0]));
        if !state.is_empty() {
            let rows = state.len();
            tape.last_state(ColsMut::new(&mut state, rows, 1));
        }
        policy.outputs(x, ColsMut::new(&mut logits, 2, 1));
        assert!(matches!(policy.act(&[obs]).unwrap(), ActionValue::Discrete(_)));
    }
    (1.0 / (1.0 + f64::from(logits[0] - logits[1]).exp()), values)
}

#[test]
fn every_recurrent_method_learns_to_remember() {
    for m in METHODS {
        for variant in variants(m.algo) {
            let algo = train(m, &variant, m.budget);
            for (first, action) in [(1.0, 1.0), (-1.0, 0.0)] {
                let (p, values) = after(&*algo, first);
                let name = format!("{} {variant:?}, {first}: {p}, {values:?}", m.algo);
                assert!((p - action).abs() < 0.1, "{name}");
                for (v, expected) in values.iter().zip([0.81, 0.9, 1.0]) {
                    assert!((v - expected).abs() < 0.15, "{name}");
                }
            }
        }
    }
}

#[test]
fn without_a_memory_the_same_cannot_be_learnt() {
    for m in METHODS {
        let algo = train(m, &[], m.budget);
        let ((p, _), (q, _)) = (after(&*algo, 1.0), after(&*algo, -1.0));
        assert!((p - q).abs() < 1e-6, "{}: the last step looks the same", m.algo);
        let returns: Vec<f64> = algo.episodes().map(|e| e.episode_return).collect();
        let mean = returns.iter().sum::<f64>() / returns.len() as f64;
        assert!(returns.len() >= 48 && mean.abs() < 0.5, "{}: {mean}", m.algo);
    }
}

/// One epoch of one minibatch: nothing has moved when the losses are computed. With more of them the
/// library's own assertion looks at the first minibatch.
#[test]
fn on_the_first_pass_the_ratio_is_exactly_one() {
    const { assert!(cfg!(debug_assertions), "the library asserts it in these tests") }
    for variant in variants("ppo") {
        let pairs = ["n_envs=13", "n_steps=12", "epochs=1", "minibatch_size=156", "hidden=8,8"];
        let mut ppo = build("ppo", &[&pairs[..], &variant].concat()).unwrap();
        for _ in 0..4 {
            let report = ppo.iterate().unwrap();
            assert_eq!(report.get("learn/kl"), Some(0.0));
            assert_eq!(report.get("learn/clip_fraction"), Some(0.0));
        }
    }
    for variant in variants("a2c") {
        for advantage in ["advantage=gae", "advantage=vtrace"] {
            let pairs = ["n_envs=13", "n_steps=12", advantage];
            let mut a2c = build("a2c", &[&pairs[..], &variant].concat()).unwrap();
            for _ in 0..3 {
                a2c.iterate().unwrap();
            }
        }
    }
}

/// Whatever others have made of `θ` meanwhile, an actor-learner computes with the copy that it acted with:
/// the library's own assertion compares. Segments of 2 steps end in the middle of episodes of 3.
#[test]
fn actor_learners_learn_from_the_log_probabilities_that_they_acted_with() {
    for variant in variants("a3c") {
        let pairs = ["workers=2", "n_steps=2", "steps_per_iteration=600", "hidden=8,8"];
        let mut a3c = build("a3c", &[&pairs[..], &variant].concat()).unwrap();
        a3c.iterate().unwrap();
    }
}

/// The natural methods compute log-probabilities once, at the parameters that drew the data: the library's
/// own assertion compares them with the rollout's. Some of the sequences make the metric.
#[test]
fn the_natural_methods_go_on_from_the_rollouts_own_log_probabilities() {
    for algo in ["trpo", "npg"] {
        for variant in variants(algo) {
            let pairs = ["n_envs=13", "n_steps=12", "minibatch_size=24", "hidden=8,8", "fisher_every=3"];
            let mut natural = build(algo, &[&pairs[..], &variant].concat()).unwrap();
            for _ in 0..3 {
                natural.iterate().unwrap();
            }
        }
    }
}

#[test]
fn what_does_not_go_with_a_memory_is_refused() {
    for (algo, pair) in [("trpo", "batch=episodes"), ("npg", "batch=episodes"), ("trpo", "sampling=vine")] {
        let refused = build(algo, &["recurrent=lstm", pair]).map(|_| ()).unwrap_err();
        assert!(matches!(refused, BuildError::Inconsistent { key: "recurrent", .. }), "{refused}");
    }
    for algo in ["trpo", "npg", "a2c"] {
        let refused =
            build(algo, &["recurrent=gru", "n_steps=64", "sequence_length=5"]).map(|_| ()).unwrap_err();
        assert!(matches!(refused, BuildError::Inconsistent { key: "sequence_length", .. }), "{refused}");
    }
}

#[test]
fn every_method_with_the_setting_has_a_row_and_the_others_refuse_it() {
    for entry in pgrad_algos::REGISTRY {
        let mut config = (entry.config)();
        let given = apply_pair("recurrent=lstm", "test", &mut config.parts_mut());
        let row = METHODS.iter().any(|m| m.algo == entry.name);
        assert_eq!(given.is_ok(), row, "{}", entry.name);
        if let Err(e) = given {
            assert!(e.to_string().contains("recurrent"), "{e}");
        }
    }
}
