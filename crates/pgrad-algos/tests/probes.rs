//! Every method on tasks with known answers, each of which can fail for one reason only.
//!
//! A method is a row of [`METHODS`]; what it does not define (a critic of states, real actions) is left out
//! of its row, with the reason beside it.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_algos::{Algorithm, Setup};
use pgrad_engine::Cpu;
use pgrad_env::{
    Action, BoxSpace, Each, End, Env, EnvSpec, Obs, Step,
    probe::{
        ActionKind, ActionReward, ConstantReward, DelayedReward, EndlessReward, MaskedAction,
        ObservedActionReward, ObservedReward, RightChoices, RightSwitches,
    },
    spec_of,
};
use pgrad_model::{ActionValue, Critic};
use pgrad_num::{Cols, Stream};
use pgrad_settings::apply_pair;
use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed};

/// How a method learns the probes.
struct Method {
    algo: &'static str,
    /// Its settings for tasks this small.
    pairs: &'static [&'static str],
    /// What is tried beside each other.
    variants: &'static [&'static [&'static str]],
    /// Environment steps, as a multiple of those that PPO gets.
    budget: f64,
    /// Settings for the endless task under a time limit: iterations of whole paths.
    endless: &'static [&'static str],
    /// Switches the bootstrap at time limits off.
    no_bootstrap: &'static [&'static str],
    /// Kinds of actions that it is defined for.
    kinds: &'static [ActionKind],
    /// Whether it is defined for several choices at once. Masks are for all of them.
    structured: bool,
}

const BOTH: &[ActionKind] = &[ActionKind::Discrete, ActionKind::Continuous];

/// Settings of NPG and TRPO for tasks this small. Every step of NPG is as long as it may be: on a task
/// without noise longer ones would make the standard deviation of a Gaussian so small that rounding is all
/// that is left to learn from.
const NATURAL: &[&str] = &[
    "n_envs=16",
    "n_steps=8",
    "minibatch_size=64",
    "critic_learning_rate=0.02",
    "hidden=16",
    "critic_hidden=16",
    "cg_damping=0.01",
    "delta=0.005",
];

/// Settings of TRPO's vine: half of the steps are the trunk's, and those of rollouts are as many.
macro_rules! vine {
    ($sampling:literal) => {
        &[
            concat!("sampling=", $sampling),
            "n_envs=16",
            "n_steps=4",
            "vine_states=16",
            "vine_length=3",
            "hidden=16",
            "cg_damping=0.01",
            "delta=0.01",
        ]
    };
}

/// The same under a time limit: whole paths.
const NATURAL_ENDLESS: &[&str] = &["n_steps=40", "n_envs=4", "minibatch_size=40", "lambda=1"];

/// Methods that ask for the best action in the next state, whose mask they cannot know.
const WITHOUT_MASKS: &[&str] =
    &["q-lambda", "greedy-gq", "softmax-gq", "async-q", "async-sarsa", "async-nstep-q"];

/// Settings of asynchronous methods that learn action values.
const ASYNC_VALUES: &[&str] = &[
    "workers=1",
    "steps_per_iteration=512",
    "hidden=16",
    "learning_rate=0.005",
    "rmsprop_decay=0.9",
    "epsilon_steps=2000",
    "target_steps=100",
];

/// A network with a memory, which these tasks have no use for: it must not stand in the way.
const GRU: &[&str] = &["recurrent=gru", "recurrent_size=16"];
const LSTM: &[&str] = &["recurrent=lstm", "recurrent_size=16"];

static METHODS: &[Method] = &[
    Method {
        algo: "a2c",
        pairs: &[
            "n_envs=16",
            "n_steps=8",
            "hidden=16",
            "learning_rate=0.01",
            "max_grad_norm=none",
            "entropy_coef=0.001",
            // From a mean square of 1 to one of this size within the first part of a short run.
            "rmsprop_decay=0.9",
        ],
        variants: &[
            &["trunk=separate"],
            &["trunk=shared"],
            &["advantage=gae", "lambda=0.9"],
            &["advantage=vtrace"],
            GRU,
        ],
        budget: 3.0,
        endless: &["n_steps=40", "n_envs=4"],
        no_bootstrap: &["bootstrap_time_limit=false"],
        kinds: BOTH,
        structured: true,
    },
    Method {
        algo: "acktr",
        pairs: &[
            "n_envs=16",
            "n_steps=8",
            "hidden=16",
            "lambda=0.95",
            "trust_region=0.01",
            "learning_rate=0.7",
            "stats_decay=0.9",
            "momentum=0",
            "max_grad_norm=none",
            "entropy_coef=0.001",
        ],
        variants: &[&["trunk=separate"], &["trunk=shared"]],
        budget: 1.0,
        endless: &["n_steps=40", "n_envs=4", "lambda=1"],
        no_bootstrap: &["bootstrap_time_limit=false"],
        kinds: BOTH,
        structured: true,
    },
    Method {
        algo: "off-pac",
        pairs: &["n_envs=4", "n_steps=16", "alpha_v=0.2", "alpha_u=1", "step_size_schedule=linear"],
        variants: &[&["hidden="], &["hidden=16", "lambda=0.4", "behaviour=soft-target", "alpha_w=0.001"]],
        budget: 4.0,
        endless: &["n_envs=1", "lambda=0.9", "alpha_v=0.1"],
        no_bootstrap: &[],
        // The paper's method is for alternatives.
        kinds: &[ActionKind::Discrete],
        structured: false,
    },
    Method {
        algo: "q-lambda",
        pairs: &["n_envs=4", "n_steps=16", "alpha=0.2", "step_size_schedule=linear"],
        variants: &[&["hidden="], &["hidden=16", "lambda=0"]],
        budget: 4.0,
        endless: &[],
        no_bootstrap: &[],
        kinds: &[ActionKind::Discrete],
        structured: false,
    },
    Method {
        algo: "greedy-gq",
        pairs: &["n_envs=4", "n_steps=16", "alpha_theta=0.2", "alpha_w=0.01", "step_size_schedule=linear"],
        variants: &[&["hidden="], &["hidden=16", "lambda=0"]],
        budget: 4.0,
        endless: &[],
        no_bootstrap: &[],
        kinds: &[ActionKind::Discrete],
        structured: false,
    },
    Method {
        algo: "softmax-gq",
        pairs: &["n_envs=4", "n_steps=16", "alpha_theta=0.2", "alpha_w=0.01", "step_size_schedule=linear"],
        variants: &[&["hidden="], &["hidden=16", "lambda=0"]],
        budget: 4.0,
        endless: &[],
        no_bootstrap: &[],
        kinds: &[ActionKind::Discrete],
        structured: false,
    },
    Method {
        algo: "ppo",
        pairs: &[
            "n_envs=16",
            "n_steps=8",
            "minibatch_size=64",
            "learning_rate=0.01",
            "hidden=16",
            "learning_rate_schedule=linear",
        ],
        variants: &[
            &["trunk=separate"],
            &["trunk=shared"],
            &["objective=kl-adaptive"],
            &["objective=kl-fixed", "kl_coef=3"],
            // Nothing bounds the step but its size: one pass.
            &["objective=none", "epochs=1", "learning_rate=0.02"],
            &["advantage=vtrace", "recompute_advantage=true"],
            GRU,
            LSTM,
        ],
        budget: 1.0,
        endless: &["n_steps=40", "n_envs=4", "minibatch_size=40", "lambda=1", "learning_rate=0.02"],
        no_bootstrap: &["bootstrap_time_limit=false"],
        kinds: BOTH,
        structured: true,
    },
    Method {
        algo: "reinforce",
        pairs: &[
            "n_envs=16",
            "n_episodes=16",
            "optimizer=adam",
            "learning_rate=0.01",
            "hidden=16",
            "learning_rate_schedule=linear",
        ],
        // Only the learnt baseline has a value to look at, and its step size.
        variants: &[
            &["psi=total"],
            &["psi=to-go"],
            &["psi=to-go", "discount_states=true"],
            &["psi=baseline", "value_learning_rate=0.02"],
        ],
        budget: 1.0,
        endless: &["n_envs=4", "n_episodes=4", "psi=baseline", "value_learning_rate=0.05"],
        no_bootstrap: &["bootstrap_time_limit=false"],
        kinds: BOTH,
        structured: true,
    },
    Method {
        algo: "cem",
        // Judged by several episodes: by one, the candidates that met the better state would be the elite.
        pairs: &["population=40", "hidden=", "extra_iterations=10", "episodes_per_candidate=8"],
        variants: &[&[], &["hidden=4"]],
        budget: 2.0,
        endless: &[],
        // No critic, so nothing to bootstrap.
        no_bootstrap: &[],
        kinds: BOTH,
        structured: true,
    },
    Method {
        algo: "npg",
        pairs: NATURAL,
        variants: &[&[], &["fisher=empirical"], GRU],
        budget: 1.0,
        endless: NATURAL_ENDLESS,
        no_bootstrap: &["bootstrap_time_limit=false"],
        kinds: BOTH,
        structured: true,
    },
    Method {
        algo: "trpo",
        pairs: NATURAL,
        variants: &[&[], &["constraint=max-kl", "delta=0.1"], &["constraint=penalty", "penalty_coef=5"], GRU],
        budget: 1.0,
        endless: NATURAL_ENDLESS,
        no_bootstrap: &["bootstrap_time_limit=false"],
        kinds: BOTH,
        structured: true,
    },
    Method {
        algo: "trpo",
        pairs: vine!("vine"),
        variants: &[&[]],
        budget: 2.0,
        // No critic, so nothing to bootstrap.
        endless: &[],
        no_bootstrap: &[],
        kinds: BOTH,
        structured: true,
    },
    Method {
        algo: "trpo",
        pairs: vine!("vine-uniform"),
        variants: &[&[]],
        budget: 2.0,
        endless: &[],
        no_bootstrap: &[],
        // Real numbers have no uniform distribution.
        kinds: &[ActionKind::Discrete],
        structured: true,
    },
    Method {
        algo: "trpo",
        pairs: vine!("vine-every"),
        variants: &[&[]],
        budget: 2.0,
        endless: &[],
        no_bootstrap: &[],
        // Every alternative of one choice.
        kinds: &[ActionKind::Discrete],
        structured: false,
    },
    Method {
        algo: "qac",
        pairs: &[
            "n_envs=4",
            "n_steps=16",
            "hidden=16",
            "alpha_theta=0.01",
            "alpha_w=0.05",
            "step_size_schedule=linear",
        ],
        variants: &[&[]],
        budget: 4.0,
        endless: &[],
        no_bootstrap: &[],
        // Its critic has an output for each action.
        kinds: &[ActionKind::Discrete],
        structured: false,
    },
    Method {
        algo: "td-ac",
        pairs: &[
            "n_envs=4",
            "n_steps=16",
            "hidden=16",
            "alpha_theta=0.01",
            "alpha_w=0.05",
            "step_size_schedule=linear",
        ],
        variants: &[
            &["lambda_policy=0", "lambda_value=0"],
            &["lambda_policy=0.8", "lambda_value=0.8", "discount_policy=false"],
        ],
        budget: 4.0,
        // From whole returns: every step of the trace counts, so that each may be smaller.
        endless: &["n_envs=1", "lambda_value=1", "alpha_w=0.005"],
        no_bootstrap: &["bootstrap_time_limit=false"],
        kinds: BOTH,
        structured: true,
    },
    Method {
        algo: "nac",
        pairs: &[
            "n_envs=1",
            "n_steps=64",
            // Linear: the features of a network change with its parameters, and a step along them may be far
            // too large.
            "hidden=",
            "alpha_theta=0.001",
            "alpha_w=0.05",
            "alpha_advantage=0.004",
            "step_size_schedule=linear",
        ],
        variants: &[&[]],
        budget: 1.5,
        endless: &[],
        no_bootstrap: &[],
        kinds: BOTH,
        structured: true,
    },
    Method {
        algo: "a3c",
        pairs: &[
            "workers=1",
            "steps_per_iteration=512",
            "n_steps=8",
            "hidden=16",
            "learning_rate=0.005",
            "rmsprop_decay=0.9",
            "entropy_coef=0.001",
        ],
        // With two actor-learners as they happen to race.
        variants: &[&["trunk=separate"], &["trunk=shared"], &["workers=2"], GRU],
        budget: 3.0,
        endless: &["n_steps=40"],
        no_bootstrap: &["bootstrap_time_limit=false"],
        kinds: BOTH,
        structured: true,
    },
    Method {
        algo: "async-q",
        pairs: ASYNC_VALUES,
        variants: &[&[], &["workers=2"]],
        budget: 1.0,
        endless: &[],
        no_bootstrap: &[],
        kinds: &[ActionKind::Discrete],
        structured: false,
    },
    Method {
        algo: "async-sarsa",
        pairs: ASYNC_VALUES,
        variants: &[&[], &["workers=2"]],
        budget: 1.0,
        endless: &[],
        no_bootstrap: &[],
        kinds: &[ActionKind::Discrete],
        structured: false,
    },
    Method {
        algo: "async-nstep-q",
        pairs: ASYNC_VALUES,
        variants: &[&[], &["workers=2"]],
        budget: 1.0,
        endless: &[],
        no_bootstrap: &[],
        kinds: &[ActionKind::Discrete],
        structured: false,
    },
];

/// Steps of the first budget: `iterations` of 128.
fn steps(iterations: u64) -> u64 {
    128 * iterations
}

fn train<E: Env + Clone + 'static>(m: &Method, env: &E, steps: u64, pairs: &[&str]) -> Box<dyn Algorithm> {
    let mut algo = untrained(m, env, steps, pairs);
    while algo.steps() < (steps as f64 * m.budget) as u64 {
        algo.iterate().unwrap();
    }
    algo
}

fn untrained<E: Env + Clone + 'static>(
    m: &Method,
    env: &E,
    steps: u64,
    pairs: &[&str],
) -> Box<dyn Algorithm> {
    let mut config = (pgrad_algos::find(m.algo).unwrap().config)();
    // A method without a critic may have no discount either: it climbs the plain return.
    let discounts = config.parts().iter().any(|p| p.declaration("gamma").is_some());
    let applies = |pair: &&&str| discounts || !pair.starts_with("gamma=");
    for pair in ["gamma=0.9"].iter().chain(m.pairs).chain(pairs).filter(applies) {
        apply_pair(pair, "test", &mut config.parts_mut()).unwrap();
    }
    let make = Each::maker(|| env.clone());
    let total_steps = (steps as f64 * m.budget) as u64;
    let threads = config.threads(1);
    let setup = Setup {
        spec: &spec_of(&make).unwrap(),
        make_env: &make,
        seed: 1,
        total_steps,
        cpu: Cpu::new(threads).unwrap(),
    };
    let mut algo = config.build(&setup).unwrap();
    algo.start().unwrap();
    algo
}

/// Trains with every variant and lets `check` see what came of it.
fn each_variant<E: Env + Clone + 'static>(
    m: &Method,
    env: &E,
    iterations: u64,
    pairs: &[&str],
    check: impl Fn(&dyn Algorithm),
) {
    for variant in m.variants {
        check(&*train(m, env, steps(iterations), &[pairs, variant].concat()));
    }
}

/// `V(s)`, where the method learns it, at the end of a path of `steps` steps from the start of an episode: a
/// network with a memory has seen them all. `path` is `[obs_dim x steps]`.
fn value(algo: &dyn Algorithm, path: &[f32], steps: usize) -> Option<f64> {
    let model = algo.model();
    if model.shape().critic != Critic::State {
        return None;
    }
    let net = &model.critic().net;
    let mut tape = net.tape_of(steps, 1);
    if model.recurrence().is_some() {
        let nothing = vec![0.0; net.state_rows()];
        let fresh: Vec<bool> = (0..steps).map(|t| t == 0).collect();
        tape.begin(steps, Cols::new(&nothing, nothing.len(), 1), &fresh);
    }
    let values = model.values(Cols::new(path, path.len() / steps, steps), &mut tape);
    Some(f64::from(values[steps - 1]))
}

#[track_caller]
fn close(algo: &dyn Algorithm, got: f64, expected: f64, tolerance: f64) {
    let name = algo.model().shape();
    assert!((got - expected).abs() <= tolerance, "{got}, expected {expected} ± {tolerance} ({name:?})");
}

/// The value where an episode begins.
#[track_caller]
fn value_is(algo: &dyn Algorithm, obs: &[f32], expected: f64, tolerance: f64) {
    if let Some(got) = value(algo, obs, 1) {
        close(algo, got, expected, tolerance);
    }
}

/// The value after a path of numbers.
#[track_caller]
fn value_after(algo: &dyn Algorithm, path: &[f32], expected: f64, tolerance: f64) {
    if let Some(got) = value(algo, path, path.len()) {
        close(algo, got, expected, tolerance);
    }
}

fn number(algo: &dyn Algorithm, obs: f32) -> f64 {
    match algo.policy(1).act(&[obs]).unwrap() {
        ActionValue::Box(a) => f64::from(a[0]),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn acts(algo: &dyn Algorithm, obs: f32, expected: usize) {
    assert_eq!(algo.policy(1).act(&[obs]).unwrap(), ActionValue::Discrete(expected));
}

#[test]
fn the_value_of_a_constant_reward() {
    for m in METHODS {
        for kind in m.kinds {
            each_variant(m, &ConstantReward::new(*kind), 60, &[], |a| value_is(a, &[0.0], 1.0, 0.01));
        }
    }
}

#[test]
fn a_value_that_depends_on_the_observation() {
    for m in METHODS {
        for kind in m.kinds {
            each_variant(m, &ObservedReward::new(*kind), 60, &[], |a| {
                value_is(a, &[1.0], 1.0, 0.02);
                value_is(a, &[-1.0], -1.0, 0.02);
            });
        }
    }
}

#[test]
fn a_reward_that_comes_later_is_discounted() {
    for m in METHODS {
        for kind in m.kinds {
            for gamma in [0.9, 0.3] {
                each_variant(m, &DelayedReward::new(*kind), 80, &[&format!("gamma={gamma}")], |a| {
                    value_is(a, &[0.0], gamma, 0.02);
                    value_after(a, &[0.0, 1.0], 1.0, 0.02);
                });
            }
        }
    }
}

#[test]
fn the_better_action_is_found() {
    for m in METHODS {
        for kind in m.kinds {
            match kind {
                ActionKind::Discrete => each_variant(m, &ActionReward::new(*kind), 60, &[], |a| {
                    acts(a, 0.0, 1);
                    value_is(a, &[0.0], 1.0, 0.05);
                }),
                ActionKind::Continuous => each_variant(m, &ActionReward::new(*kind), 300, &[], |a| {
                    close(a, number(a, 0.0), 2.0, 0.1);
                    value_is(a, &[0.0], 0.0, 0.3);
                }),
                ActionKind::Hybrid => unreachable!("not among the kinds of a row"),
            }
        }
    }
}

#[test]
fn the_better_action_depends_on_the_observation() {
    for m in METHODS {
        for kind in m.kinds {
            match kind {
                ActionKind::Discrete => each_variant(m, &ObservedActionReward::new(*kind), 60, &[], |a| {
                    acts(a, 1.0, 1);
                    acts(a, -1.0, 0);
                    value_is(a, &[1.0], 1.0, 0.1);
                }),
                ActionKind::Continuous => {
                    each_variant(m, &ObservedActionReward::new(*kind), 300, &[], |a| {
                        close(a, number(a, 1.0), 2.0, 0.15);
                        close(a, number(a, -1.0), -2.0, 0.15);
                        value_is(a, &[-1.0], 0.0, 0.4);
                    });
                }
                ActionKind::Hybrid => unreachable!("not among the kinds of a row"),
            }
        }
    }
}

/// Mean of `(1 − γⁿ)/(1 − γ)` over the steps `n` = 1 to `limit` left.
fn value_without_bootstrap(gamma: f64, limit: i32) -> f64 {
    (1..=limit).map(|n| (1.0 - gamma.powi(n)) / (1.0 - gamma)).sum::<f64>() / f64::from(limit)
}

#[test]
fn a_time_limit_is_not_the_end_of_the_task() {
    assert!(value_without_bootstrap(0.9, 20) < 6.1, "the wrong answer is far from 10");
    for m in METHODS {
        for kind in m.kinds {
            let env = EndlessReward::new(*kind, 20);
            each_variant(m, &env, 200, m.endless, |a| value_after(a, &[0.0; 10], 10.0, 0.1));
            if !m.no_bootstrap.is_empty() {
                // Iterations are of whole episodes of 20: without bootstrap the targets are what is left of
                // them.
                let wrong = train(m, &env, steps(200), &[m.endless, m.no_bootstrap].concat());
                value_is(&*wrong, &[0.0], value_without_bootstrap(0.9, 20), 0.15);
            }
        }
    }
}

/// One step, actions in `Box(500, 1000)`: reward `-((a - 850)/125)^2`. Counts the actions, and those at a
/// bound.
#[derive(Clone, Default)]
struct FarAction(Arc<[AtomicU64; 2]>);
impl Env for FarAction {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "FarAction".into(),
            observation: BoxSpace::uniform(-1.0, 1.0, 1).into(),
            action: BoxSpace::uniform(500.0, 1000.0, 1).into(),
            max_episode_steps: None,
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        obs.write(&[0.0]);
    }
    fn step(&mut self, action: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        obs.write(&[0.0]);
        let a = action.values()[0];
        self.0[0].fetch_add(1, Relaxed);
        self.0[1].fetch_add(u64::from([500.0, 1000.0].contains(&a)), Relaxed);
        Step { reward: -((f64::from(a) - 850.0) / 125.0).powi(2), end: End::Terminated }
    }
    fn save(&self) -> Option<Vec<f64>> {
        Some(Vec::new())
    }
    fn load(&mut self, state: &[f64]) -> bool {
        state.is_empty()
    }
}

#[test]
fn the_better_action_is_found_far_from_0() {
    for m in METHODS.iter().filter(|m| m.kinds.contains(&ActionKind::Continuous)) {
        // Without noise, steps that are always as long as they may be soon leave no spread.
        let iterations = if m.pairs == NATURAL { 100 } else { 300 };
        let algo = train(m, &FarAction::default(), steps(iterations), &[]);
        close(&*algo, number(&*algo, 0.0), 850.0, 25.0);
    }
    let ppo = METHODS.iter().find(|m| m.algo == "ppo").unwrap();
    let raw = train(ppo, &FarAction::default(), steps(300), &["rescale_actions=none"]);
    assert_eq!(number(&*raw, 0.0), 500.0, "in its own units it never leaves the edge");
}

#[test]
fn actions_outside_their_bounds_are_counted() {
    for m in METHODS.iter().filter(|m| m.kinds == BOTH) {
        let env = FarAction::default();
        let mut algo = untrained(m, &env, steps(2), &["log_std_init=0.5"]);
        for _ in 0..2 {
            let report = algo.iterate().unwrap();
            let [steps, at_bound] = [0, 1].map(|i| env.0[i].swap(0, Relaxed) as f64);
            assert_eq!(report.get("learn/action_clipped"), Some(at_bound / steps), "{}", m.algo);
        }
    }
    let discrete = untrained(&METHODS[0], &ActionReward::default(), steps(2), &[]).iterate();
    assert_eq!(discrete.unwrap().get("learn/action_clipped"), None);
}

#[test]
fn several_choices_and_switches_are_learnt_at_once() {
    for m in METHODS.iter().filter(|m| m.structured) {
        let algo = train(m, &RightChoices, steps(120), &[]);
        let found = algo.policy(1).act(&[0.0]).unwrap();
        assert_eq!(found, ActionValue::MultiDiscrete(RightChoices::ANSWER.to_vec()), "{}", m.algo);
        value_is(&*algo, &[0.0], 1.0, 0.1);
        let algo = train(m, &RightSwitches, steps(120), &[]);
        let found = algo.policy(1).act(&[0.0]).unwrap();
        assert_eq!(found, ActionValue::MultiBinary(RightSwitches::ANSWER.to_vec()), "{}", m.algo);
        value_is(&*algo, &[0.0], 1.0, 0.1);
    }
}

#[test]
fn a_choice_and_a_number_are_learnt_at_once() {
    for m in METHODS.iter().filter(|m| m.structured && m.kinds == BOTH) {
        // Plain steps of one error for both parts: they are as long as what both get wrong together.
        let pairs: &[&str] = if m.algo == "td-ac" { &["alpha_theta=0.002", "alpha_w=0.02"] } else { &[] };
        each_variant(m, &ObservedActionReward::new(ActionKind::Hybrid), 300, pairs, |a| {
            for right in [1.0, -1.0] {
                let ActionValue::Product(parts) = a.policy(1).act(&[right]).unwrap() else { panic!() };
                let [(side, ActionValue::Discrete(chosen)), (number, ActionValue::Box(x))] = &parts[..]
                else {
                    panic!("{parts:?}");
                };
                assert_eq!((&side[..], &number[..]), ("side", "number"));
                assert_eq!(*chosen, usize::from(right > 0.0), "{}", m.algo);
                let best = 2.0 * f64::from(right);
                assert!((f64::from(x[0]) - best).abs() < 0.2, "{}: {x:?}, best is {best}", m.algo);
            }
            value_is(a, &[-1.0], 1.0, 0.5);
        });
    }
}

#[test]
fn a_mask_is_obeyed_while_learning() {
    for m in METHODS.iter().filter(|m| !WITHOUT_MASKS.contains(&m.algo)) {
        // A forbidden action has no reward, and would stop the run.
        let algo = train(m, &MaskedAction::default(), steps(150), &[]);
        let mut policy = algo.policy(1);
        assert_eq!(policy.act_masked(&[1.0, 0.0], &[true; 3]).unwrap(), ActionValue::Discrete(2));
        assert_eq!(policy.act_masked(&[0.0, 1.0], &[true, true, false]).unwrap(), ActionValue::Discrete(1));
        value_is(&*algo, &[1.0, 0.0], 1.0, 0.1);
        value_is(&*algo, &[0.0, 1.0], 0.5, 0.1);
    }
}

#[test]
fn every_method_has_a_row() {
    for entry in pgrad_algos::REGISTRY {
        assert!(METHODS.iter().any(|m| m.algo == entry.name), "{} has no row", entry.name);
    }
}
