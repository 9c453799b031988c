//! Off-PAC and its rivals against their equations: a recorded run is recomputed in `f64` with gradients by
//! finite differences, terminations and truncations included, for every setting and every behaviour policy.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[path = "../../pgrad-collect/tests/common/mod.rs"]
mod common;

use common::{OBS, Seen, Task, relative_difference, wide};
use pgrad_algos::{AlgoConfig, Algorithm, Setup};
use pgrad_engine::Cpu;
use pgrad_env::{
    Action, BatchResult, BoxSpace, Each, End, Env, EnvSpec, Obs, Space, Step,
    probe::{ActionKind, EndlessReward},
    spec_of,
};
use pgrad_model::{ActorCritic, AgentError, Critic, Policy};
use pgrad_nn::Activation;
use pgrad_num::{Array, Cols, Record, Stream};
use pgrad_settings::{Value, apply_pair};
use pgrad_testkit::finite_difference_gradient;

/// Steps of each environment that are recomputed.
const STEPS: usize = 40;
/// Steps of the whole run that schedules refer to.
const TOTAL: u64 = 150;
const ALGOS: [&str; 4] = ["off-pac", "q-lambda", "greedy-gq", "softmax-gq"];

fn config(name: &str, pairs: &[&str]) -> Box<dyn AlgoConfig> {
    let mut c = (pgrad_algos::find(name).unwrap().config)();
    let main: &[&str] = match name {
        "off-pac" => &["alpha_v=0.1", "alpha_w=0.2", "alpha_u=0.3", "lambda=0.4"],
        "q-lambda" => &["alpha=0.2", "lambda=0.6"],
        "greedy-gq" => &["alpha_theta=0.2", "alpha_w=0.2", "lambda=0.4"],
        _ => &["alpha_theta=0.2", "alpha_w=0.2", "lambda=0.4", "temperature=0.3"],
    };
    for pair in ["n_envs=2", "n_steps=1", "gamma=0.9", "hidden=4"].iter().chain(main).chain(pairs) {
        apply_pair(pair, "test", &mut c.parts_mut()).unwrap();
    }
    c.take_file(&behaviour_file());
    c
}

fn value(c: &dyn AlgoConfig, key: &str) -> Option<Value> {
    c.parts().iter().find_map(|p| p.get(key))
}

fn number(c: &dyn AlgoConfig, key: &str) -> f64 {
    match value(c, key) {
        Some(Value::Float(x)) => x,
        Some(Value::Int(i)) => i as f64,
        other => panic!("{key}: {other:?}"),
    }
}

fn is(c: &dyn AlgoConfig, key: &str, text: &str) -> bool {
    match value(c, key) {
        Some(Value::Text(t)) => t == text,
        Some(Value::Bool(b)) => b == (text == "true"),
        other => panic!("{key}: {other:?}"),
    }
}

/// A policy with other hidden layers than what is learnt.
fn stored() -> Policy {
    let shape = pgrad_model::ModelShape {
        obs_dim: OBS,
        action: Space::Discrete { n: 4 },
        hidden: vec![3],
        activation: Activation::Tanh,
        trunk: pgrad_model::Trunk::Separate,
        critic: Critic::None,
        log_std_init: 0.0,
    };
    let mut model = ActorCritic::new(shape, true, 9).unwrap();
    // Far from uniform.
    model.theta.iter_mut().enumerate().for_each(|(i, x)| *x += (i as f32 * 1.7).sin());
    Policy::new("Recorder", model, None, 1)
}

fn behaviour_file() -> Vec<u8> {
    stored().to_bytes().unwrap()
}

fn task(masked: bool) -> Task {
    Task::new(Space::Discrete { n: 4 }, masked, Some(9))
}

/// Raw outputs of a policy's network.
fn outputs(model: &ActorCritic, theta: &[f64], obs: &[f32]) -> Vec<f64> {
    let part = model.actor();
    let (mut tape, x) = (part.net.tape::<f64>(1), wide(obs));
    part.net.forward(&theta[part.params.clone()], Cols::new(&x, OBS, 1), &mut tape).into_data().to_vec()
}

/// `exp(y_a / T) / Σ`, over what is allowed.
fn softmax(y: &[f64], temperature: f64, mask: &[bool]) -> Vec<f64> {
    let weights: Vec<f64> =
        y.iter().zip(mask).map(|(y, m)| if *m { (y / temperature).exp() } else { 0.0 }).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}

fn best(y: &[f64]) -> usize {
    (0..y.len()).fold(0, |best, a| if y[a] > y[best] { a } else { best })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The state of a recomputation, in `f64`.
struct Slow<'c> {
    name: &'static str,
    c: &'c dyn AlgoConfig,
    model: ActorCritic,
    masked: bool,
    theta: Vec<f64>,
    w: Vec<f64>,
    /// Traces of values and of the policy, per environment.
    e: Vec<Vec<f64>>,
    e_u: Vec<Vec<f64>>,
    factor: f64,
}

impl Slow<'_> {
    fn value(&self, theta: &[f64], obs: &[f32]) -> f64 {
        let part = self.model.critic();
        let (mut tape, x) = (part.net.tape::<f64>(1), wide(obs));
        part.net.forward(&theta[part.params.clone()], Cols::new(&x, OBS, 1), &mut tape).into_data()[0]
    }
    fn gradient(&self, critic: bool, f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        let params =
            if critic { self.model.critic().params.clone() } else { self.model.actor().params.clone() };
        finite_difference_gradient(f, &self.theta)[params].to_vec()
    }
    /// The policy that is learnt.
    fn target(&self, y: &[f64], mask: &[bool]) -> Vec<f64> {
        match self.name {
            "off-pac" => softmax(y, 1.0, mask),
            "softmax-gq" => softmax(y, number(self.c, "temperature"), mask),
            _ => (0..y.len()).map(|a| if a == best(y) { 1.0 } else { 0.0 }).collect(),
        }
    }
    /// `b(·|s)`.
    fn behaviour(&self, seen: &Seen, mask: &[bool]) -> Vec<f64> {
        let allowed = |b: Vec<f64>| softmax(&b.iter().map(|p| p.ln()).collect::<Vec<_>>(), 1.0, mask);
        if is(self.c, "behaviour", "uniform") {
            return allowed(vec![0.25; 4]);
        }
        if is(self.c, "behaviour", "policy") {
            let bytes = behaviour_file();
            let mut policy = Policy::from_bytes(&bytes).unwrap().with_batch(1);
            let mut out = [0.0f32; 4];
            policy.outputs(Cols::new(&seen.obs, OBS, 1), pgrad_num::ColsMut::new(&mut out, 4, 1));
            return softmax(&wide(&out), 1.0, mask);
        }
        let epsilon = number(self.c, "behaviour_epsilon");
        let pi = self.target(&outputs(&self.model, &self.theta, &seen.obs), &[true; 4]);
        allowed(pi.iter().map(|p| (1.0 - epsilon) * p + epsilon / 4.0).collect())
    }
    /// Learns from one step of every environment.
    fn follow(&mut self, now: &[Seen]) {
        let (c, gamma, lambda) = (self.c, number(self.c, "gamma"), number(self.c, "lambda"));
        let step = |key: &str| number(c, key) * self.factor;
        let mut d_theta = vec![0.0; self.theta.len()];
        let mut add = |from: usize, factor: f64, x: &[f64]| {
            d_theta[from..].iter_mut().zip(x).for_each(|(d, x)| *d += factor * x);
        };
        for (b, seen) in now.iter().enumerate() {
            let mask = if self.masked { seen.mask.clone() } else { vec![true; 4] };
            let a = seen.index[0] as usize;
            let y = outputs(&self.model, &self.theta, &seen.obs);
            let rho = self.target(&y, &mask)[a] / self.behaviour(seen, &mask)[a];
            let follows = seen.end == End::Running
                || seen.end == End::Truncated && is(c, "bootstrap_time_limit", "true");
            let gamma_next = if follows { gamma } else { 0.0 };
            let is_off_pac = self.name == "off-pac";
            let (delta, phi, phi_next);
            if is_off_pac {
                delta = seen.reward + gamma_next * self.value(&self.theta, &seen.next)
                    - self.value(&self.theta, &seen.obs);
                phi = self.gradient(true, |x| self.value(x, &seen.obs));
                phi_next = self.gradient(true, |x| self.value(x, &seen.next));
            } else {
                let y_next = outputs(&self.model, &self.theta, &seen.next);
                let pi = self.target(&y_next, &[true; 4]);
                delta = seen.reward + gamma_next * dot(&pi, &y_next) - y[a];
                phi = self.gradient(false, |x| outputs(&self.model, x, &seen.obs)[a]);
                phi_next = self.gradient(false, |x| dot(&pi, &outputs(&self.model, x, &seen.next)));
            }
            let norm = if is(c, "normalize_step", "true") { dot(&phi, &phi) } else { 1.0 };
            let at = if is_off_pac { self.model.critic().params.start } else { 0 };
            let (decay, weight) = match self.name {
                "off-pac" => (rho * gamma * lambda, rho),
                "q-lambda" => (if y[a] == y[best(&y)] { gamma * lambda } else { 0.0 }, 1.0),
                _ => (rho * gamma * lambda, 1.0),
            };
            self.e[b].iter_mut().zip(&phi).for_each(|(e, g)| *e = decay * *e + weight * g);
            if self.name == "q-lambda" {
                add(0, step("alpha") / norm * delta, &self.e[b]);
            } else {
                let alpha_v = step(if is_off_pac { "alpha_v" } else { "alpha_theta" }) / norm;
                let alpha_w = step("alpha_w") / norm;
                let correction = gamma_next * (1.0 - lambda) * dot(&self.w, &self.e[b]);
                add(at, alpha_v * delta, &self.e[b]);
                add(at, -alpha_v * correction, &phi_next);
                let w_phi = dot(&self.w, &phi);
                for ((w, e), g) in self.w.iter_mut().zip(&self.e[b]).zip(&phi) {
                    *w += alpha_w * (delta * e - w_phi * g);
                }
            }
            if is_off_pac {
                let psi = self
                    .gradient(false, |x| softmax(&outputs(&self.model, x, &seen.obs), 1.0, &mask)[a].ln());
                self.e_u[b].iter_mut().zip(&psi).for_each(|(e, g)| *e = rho * (gamma * lambda * *e + g));
                add(0, step("alpha_u") / norm * delta, &self.e_u[b]);
            }
            if seen.end != End::Running {
                self.e[b].fill(0.0);
                self.e_u[b].fill(0.0);
            }
        }
        self.theta.iter_mut().zip(d_theta).for_each(|(t, d)| *t += d);
    }
}

fn change(now: &[f64], before: &[f64]) -> Vec<f64> {
    now.iter().zip(before).map(|(n, b)| n - b).collect()
}

fn build(c: &dyn AlgoConfig, make: &dyn Fn(usize) -> BatchResult, threads: usize) -> Box<dyn Algorithm> {
    let mut algo = c
        .build(&Setup {
            spec: &spec_of(make).unwrap(),
            make_env: make,
            seed: 2,
            total_steps: TOTAL,
            cpu: Cpu::new(threads).unwrap(),
        })
        .unwrap();
    algo.start().unwrap();
    algo
}

fn iterate(algo: &mut dyn Algorithm) {
    algo.iterate().unwrap();
}

/// Runs the method and recomputes every parameter.
fn follows_its_equations(name: &'static str, pairs: &[&str], task: &Task) {
    let (c, make) = (config(name, pairs), task.make());
    task.log.lock().unwrap().clear();
    let mut algo = build(&*c, &make, 1);
    let model = algo.model().clone();
    let n_envs = number(&*c, "n_envs") as usize;
    let values = if name == "off-pac" { model.critic() } else { model.actor() }.params.len();
    let mut slow = Slow {
        name,
        c: &*c,
        masked: task.masked,
        theta: wide(&model.theta),
        w: vec![0.0; values],
        e: vec![vec![0.0; values]; n_envs],
        e_u: vec![vec![0.0; model.actor().params.len()]; n_envs],
        factor: 1.0,
        model,
    };
    let first = slow.theta.clone();
    let mut ends = [0; 3];
    for t in 0..STEPS {
        iterate(&mut *algo);
        let now: Vec<Seen> = task.log.lock().unwrap().iter().map(|steps| steps[t].clone()).collect();
        if is(&*c, "step_size_schedule", "linear") {
            slow.factor = 1.0 - (t * n_envs) as f64 / TOTAL as f64;
        }
        slow.follow(&now);
        now.iter().for_each(|s| ends[s.end as usize] += 1);
        let error =
            relative_difference(&change(&wide(&algo.model().theta), &first), &change(&slow.theta, &first));
        assert!(error < 5e-4, "{name} {pairs:?}, step {t}: {error:e}");
        if name != "q-lambda" {
            let saved = algo.save();
            let w = wide(saved.f32s("w", values).unwrap());
            let error = relative_difference(&w, &slow.w);
            assert!(w == slow.w || error < 5e-4, "{name} {pairs:?}, w, step {t}: {error:e}");
        }
    }
    assert!(ends[End::Terminated as usize] > 0 && ends[End::Truncated as usize] > 0, "{ends:?}");
}

#[test]
fn every_method_follows_its_equations_under_every_behaviour() {
    for name in ALGOS {
        for behaviour in ["uniform", "policy", "soft-target"] {
            for hidden in ["hidden=", "hidden=4"] {
                follows_its_equations(name, &[&format!("behaviour={behaviour}"), hidden], &task(false));
            }
        }
    }
}

#[test]
fn off_pac_obeys_masks() {
    for behaviour in ["uniform", "policy", "soft-target"] {
        follows_its_equations("off-pac", &[&format!("behaviour={behaviour}")], &task(true));
    }
    for name in &ALGOS[1..] {
        let error = config(name, &[]).check(&spec_of(&task(true).make()).unwrap()).unwrap_err().to_string();
        assert!(error.contains("cannot know which are allowed"), "{error}");
    }
}

/// Values of each setting that are tried, with what must be given beside it.
const TRIED: &[(&str, &[&str])] = &[
    ("n_envs", &["1", "3"]),
    ("gamma", &["0.5", "1"]),
    ("bootstrap_time_limit", &["false"]),
    ("step_size_schedule", &["linear"]),
    ("alpha_v", &["0.3"]),
    ("alpha_w", &["0", "0.5"]),
    ("alpha_u", &["1"]),
    ("alpha", &["0.4"]),
    ("alpha_theta", &["0.4"]),
    ("lambda", &["0", "1"]),
    ("temperature", &["2"]),
    ("behaviour", &["policy", "soft-target"]),
    ("behaviour_epsilon", &["0.1", "1"]),
    ("normalize_step", &["false"]),
    ("hidden", &["", "3,2"]),
    ("activation", &["relu"]),
];
/// Settings that have a test of their own below.
const APART: &[&str] = &["n_steps", "behaviour_policy"];

#[test]
fn every_setting_is_obeyed() {
    for name in ALGOS {
        let c = config(name, &[]);
        for s in c.parts().iter().flat_map(|p| p.declarations()) {
            if APART.contains(&s.key) {
                continue;
            }
            let values = TRIED.iter().find(|(key, _)| *key == s.key).unwrap_or_else(|| panic!("{}", s.key)).1;
            for value in values {
                let behaviour =
                    if s.key == "behaviour_epsilon" { "behaviour=soft-target" } else { "n_steps=1" };
                let pair = format!("{}={value}", s.key);
                follows_its_equations(name, &[behaviour, &pair], &task(false));
            }
        }
    }
}

fn theta_after(c: &dyn AlgoConfig, iterations: usize) -> Vec<f32> {
    let mut algo = build(c, &task(false).make(), 1);
    (0..iterations).for_each(|_| iterate(&mut *algo));
    algo.model().theta.clone()
}

#[test]
fn n_steps_has_no_effect_on_learning() {
    for name in ALGOS {
        assert_eq!(theta_after(&*config(name, &[]), 20), theta_after(&*config(name, &["n_steps=5"]), 4));
    }
}

#[test]
fn hidden_and_activation_shape_the_functions() {
    for name in ALGOS {
        let shape = |pairs: &[&str]| build(&*config(name, pairs), &task(false).make(), 1).model().clone();
        assert_eq!(shape(&["hidden=5,6"]).shape().hidden, [5, 6]);
        assert_eq!(shape(&["activation=relu"]).shape().activation, Activation::Relu);
        let linear = shape(&["hidden="]);
        assert!(linear.theta.iter().all(|x| *x == 0.0), "{name}: a linear function starts at 0");
        assert_eq!(linear.actor().params.len(), 4 * OBS + 4);
    }
}

#[test]
fn the_behaviour_policy_is_read_checked_and_remembered() {
    let spec = spec_of(&task(false).make()).unwrap();
    for name in ALGOS {
        let mut c = config(name, &["behaviour=policy", "behaviour_policy=some/policy.safetensors"]);
        assert_eq!(c.file(), Some(("behaviour_policy", "some/policy.safetensors")));
        assert_eq!(config(name, &["behaviour_policy=some/policy.safetensors"]).file(), None);
        assert!(c.check(&spec).is_ok());
        let mut algo = build(&*c, &task(false).make(), 1);
        let saved = algo.save();
        assert!(algo.load(&saved).is_ok());
        // Another file than the run began with.
        let mut other = stored();
        let shape = ActorCritic::new(other_shape(), true, 1).unwrap();
        c.take_file(&Policy::new("Recorder", shape, None, 1).to_bytes().unwrap());
        assert!(
            build(&*c, &task(false).make(), 1)
                .load(&saved)
                .unwrap_err()
                .to_string()
                .contains("has changed since")
        );
        // Bytes that are no policy, and a policy for something else.
        c.take_file(b"nothing");
        assert!(c.check(&spec).unwrap_err().to_string().starts_with("`behaviour_policy` = `some/policy"));
        c.take_file(&behaviour_file());
        let elsewhere = EnvSpec { action: Space::Discrete { n: 3 }, ..spec.clone() };
        let error = c.check(&elsewhere).unwrap_err().to_string();
        assert!(error.contains("Discrete(4)") && error.contains("Discrete(3)"), "{error}");
        // No file at all.
        let mut none = (pgrad_algos::find(name).unwrap().config)();
        apply_pair("behaviour=policy", "test", &mut none.parts_mut()).unwrap();
        assert!(none.check(&spec).unwrap_err().to_string().contains("needs the path of"));
        let real = EnvSpec { action: Space::Box(BoxSpace::uniform(-1.0, 1.0, 1)), ..spec.clone() };
        assert!(config(name, &[]).check(&real).unwrap_err().to_string().contains("`Discrete` action space"));
        assert!(other.act(&[0.0; OBS]).is_ok());
    }
}

fn other_shape() -> pgrad_model::ModelShape {
    pgrad_model::ModelShape {
        obs_dim: OBS,
        action: Space::Discrete { n: 4 },
        hidden: vec![],
        activation: Activation::Tanh,
        trunk: pgrad_model::Trunk::Separate,
        critic: Critic::None,
        log_std_init: 0.0,
    }
}

#[test]
fn with_equal_policies_off_pac_is_the_td_lambda_actor_critic() {
    // b = π: all weights are 1. Without auxiliary weights the critic is TD(λ).
    let pairs = ["behaviour=soft-target", "behaviour_epsilon=0", "alpha_w=0", "normalize_step=false"];
    let off = theta_after(&*config("off-pac", &pairs), STEPS);
    let mut on = (pgrad_algos::find("td-ac").unwrap().config)();
    for pair in [
        "n_envs=2",
        "n_steps=1",
        "gamma=0.9",
        "hidden=4",
        "alpha_w=0.1",
        "alpha_theta=0.3",
        "lambda_policy=0.4",
        "lambda_value=0.4",
        "discount_policy=false",
    ] {
        apply_pair(pair, "test", &mut on.parts_mut()).unwrap();
    }
    let on = theta_after(&*on, STEPS);
    let error = relative_difference(&wide(&off), &wide(&on));
    assert!(error < 1e-4, "{error:e}");
    // With random actions the weights matter.
    let other = theta_after(&*config("off-pac", &["alpha_w=0", "normalize_step=false"]), STEPS);
    assert!(relative_difference(&wide(&other), &wide(&on)) > 1e-2);
}

/// Baird's counterexample: seven states, eight features. Action 0 leads to one of the upper six states,
/// action 1 to the lower one.
#[derive(Clone, Default)]
struct Baird {
    state: usize,
}

impl Baird {
    fn features(state: usize) -> [f32; 8] {
        let mut x = [0.0; 8];
        (x[state], x[7]) = if state < 6 { (2.0, 1.0) } else { (1.0, 2.0) };
        x
    }
}

impl Env for Baird {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Baird".into(),
            observation: BoxSpace::uniform(0.0, 2.0, 8).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: None,
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.state = rng.below(7) as usize;
        obs.write(&Self::features(self.state));
    }
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.state = if action.index() == 1 { 6 } else { rng.below(6) as usize };
        obs.write(&Self::features(self.state));
        Step { reward: 0.0, end: End::Running }
    }
}

/// The largest value of a state, and the norm of the mean update of TD(0), `‖E_b[ρ δ φ]‖`.
fn baird(alpha_w: &str) -> (f64, f64) {
    // b takes action 0 six times out of seven; the target is action 1, always.
    let shape = pgrad_model::ModelShape { obs_dim: 8, action: Space::Discrete { n: 2 }, ..other_shape() };
    let mut b = ActorCritic::new(shape, true, 1).unwrap();
    b.theta.fill(0.0);
    b.theta[16] = 6f32.ln();
    let mut c = config(
        "off-pac",
        &[
            "n_envs=1",
            "n_steps=20000",
            "gamma=0.99",
            "hidden=",
            "behaviour=policy",
            "normalize_step=false",
            "lambda=0",
            "alpha_v=0.005",
            "alpha_u=1e-30",
        ],
    );
    apply_pair(&format!("alpha_w={alpha_w}"), "test", &mut c.parts_mut()).unwrap();
    c.take_file(&Policy::new("Baird", b, None, 1).to_bytes().unwrap());
    let make = Each::maker(Baird::default);
    let mut algo = build(&*c, &make, 1);
    let mut start = Record::new();
    for (key, array) in algo.save().iter() {
        let array = match (key, array) {
            ("theta", Array::F32(theta)) => {
                let mut theta = theta.clone();
                // The actor: 2 x 8 weights, 2 biases. Then the critic: 8 weights, a bias.
                theta[17] = 30.0;
                theta[18..26].fill(1.0);
                theta[24] = 10.0;
                Array::F32(theta)
            }
            _ => array.clone(),
        };
        start.put(key, array);
    }
    algo.load(&start).unwrap();
    algo.start().unwrap();
    iterate(&mut *algo);
    let v = wide(&algo.model().theta[18..27]);
    let x = |s: usize| Baird::features(s).iter().map(|x| f64::from(*x)).chain([1.0]).collect::<Vec<f64>>();
    let value = |s: usize| dot(&x(s), &v);
    let mut update = vec![0.0; 9];
    for s in 0..7 {
        // ρ is 7 with probability 1/7, else 0.
        let delta = 0.99 * value(6) - value(s);
        update.iter_mut().zip(x(s)).for_each(|(u, x)| *u += delta * x / 7.0);
    }
    ((0..7).map(|s| value(s).abs()).fold(0.0, f64::max), dot(&update, &update).sqrt())
}

#[test]
fn gtd_converges_on_bairds_counterexample_where_td_diverges() {
    // At the start: a largest value of 12 and a mean update of 12.4.
    let (largest, update) = baird("0.05");
    assert!(largest < 6.0 && update < 0.05, "GTD: {largest}, {update}");
    let (largest, _) = baird("0");
    assert!(largest > 1e6, "TD: {largest}");
}

/// A method on an endless task of which each episode is cut after 7 steps.
fn on_endless(name: &str, seed: u64, threads: usize) -> Box<dyn Algorithm> {
    let make = Each::maker(|| EndlessReward::new(ActionKind::Discrete, 7));
    let pairs = ["n_steps=3", "step_size_schedule=linear", "behaviour=soft-target", "lambda=0.9"];
    let c = config(name, &pairs);
    let mut algo = c
        .build(&Setup {
            spec: &spec_of(&make).unwrap(),
            make_env: &make,
            seed,
            total_steps: TOTAL,
            cpu: Cpu::new(threads).unwrap(),
        })
        .unwrap();
    algo.start().unwrap();
    algo
}

#[test]
fn the_number_of_threads_changes_nothing_and_the_seed_everything() {
    for name in ALGOS {
        let after = |seed, threads| {
            let mut algo = on_endless(name, seed, threads);
            for _ in 0..10 {
                algo.iterate().unwrap();
            }
            algo.save()
        };
        let one = after(1, 1);
        assert!(after(1, 2) == one && after(1, 4) == one, "{name}");
        assert_ne!(after(2, 1).get("theta"), one.get("theta"), "{name}");
    }
}

#[test]
fn stopped_in_the_middle_of_an_episode_and_resumed_gives_the_same_bits() {
    for name in ALGOS {
        let mut whole = on_endless(name, 1, 1);
        for done in 1..=6 {
            iterate(&mut *whole);
            // 3 steps an iteration, 7 an episode: all but one of these are in the middle of one.
            let mut resumed = on_endless(name, 1, 1);
            assert!(resumed.load(&whole.save()).unwrap(), "{name}");
            let mut apart = on_endless(name, 1, 1);
            (0..done).for_each(|_| iterate(&mut *apart));
            (0..5).for_each(|_| {
                iterate(&mut *resumed);
                iterate(&mut *apart);
            });
            assert_eq!(resumed.save(), apart.save(), "{name}");
        }
    }
}

#[test]
fn traces_do_not_survive_into_new_episodes_of_an_environment_that_cannot_be_saved() {
    for name in ALGOS {
        let task = Task::new(Space::Discrete { n: 4 }, false, None);
        // Every action is the target's: no trace is cut.
        let pairs = ["n_envs=1", "n_steps=30", "behaviour=soft-target", "behaviour_epsilon=0"];
        let mut algo = build(&*config(name, &pairs), &task.make(), 1);
        while task.log.lock().unwrap().last().unwrap().last().is_none_or(|s| s.end != End::Running) {
            iterate(&mut *algo);
        }
        let before = algo.save();
        assert!(!algo.load(&before).unwrap(), "new episodes are started");
        let after = algo.save();
        let mut traces = 0;
        for (key, _) in before.iter().filter(|(k, _)| *k == "e" || k.starts_with("e_")) {
            traces += 1;
            let zeros = vec![0.0; before.get(key).unwrap().len()];
            assert_ne!(before.f32s(key, zeros.len()).unwrap(), &zeros[..], "{name}: {key}");
            assert_eq!(after.f32s(key, zeros.len()).unwrap(), &zeros[..], "{name}: {key}");
        }
        assert!(traces > 0);
    }
}

/// Reward 1 and observation 0.5, but in step 3.
#[derive(Clone)]
struct Third {
    reward: f64,
    obs: f32,
    step: u32,
}

impl Env for Third {
    fn spec(&self) -> EnvSpec {
        EnvSpec { id: "Third".into(), ..Baird::default().spec() }
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        self.step = 0;
        obs.write(&[0.5; 8]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.step += 1;
        let third = self.step == 3;
        obs.write(&[if third { self.obs } else { 0.5 }; 8]);
        Step { reward: if third { self.reward } else { 1.0 }, end: End::Running }
    }
}

#[test]
fn what_is_not_finite_stops_before_anything_is_learnt_from_it() {
    let fails = |name: &str, reward: f64, obs: f32, pairs: &[&str]| {
        let make = Each::maker(move || Third { reward, obs, step: 0 });
        let mut algo = build(&*config(name, &[&["n_envs=1", "hidden="], pairs].concat()), &make, 1);
        for _ in 0..30 {
            let before = algo.model().theta.clone();
            if let Err(e) = algo.iterate() {
                assert_eq!(algo.model().theta, before, "{name}: {e}");
                return Some(e);
            }
        }
        None
    };
    for name in ALGOS {
        assert!(fails(name, 1.0, 0.5, &[]).is_none(), "{name}");
        let e = fails(name, f64::NAN, 0.5, &[]).unwrap();
        assert!(matches!(e, AgentError::Env(_)), "{name}: {e}");
        let e = fails(name, 1.0, f32::NAN, &[]).unwrap();
        assert!(matches!(e, AgentError::Env(_)), "{name}: {e}");
        // A TD error that is finite, times a step size of 1e3 and the features, is not.
        let step = match name {
            "off-pac" => "alpha_v=1e3",
            "q-lambda" => "alpha=1e3",
            _ => "alpha_theta=1e3",
        };
        let e = fails(name, 3e38, 0.5, &[step, "normalize_step=false"]).unwrap();
        assert!(matches!(e, AgentError::Update { .. } | AgentError::Step { .. }), "{name}: {e}");
        // A value that is not.
        let e = fails(name, 1.0, 3e38, &[step, "normalize_step=false"]).unwrap();
        assert!(matches!(e, AgentError::Step { .. } | AgentError::Update { .. }), "{name}: {e}");
        // Auxiliary weights that are not.
        if name != "q-lambda" {
            let mut saved = Record::new();
            for (key, array) in on_endless(name, 1, 1).save().iter() {
                let bad = Array::F32(vec![f32::NAN; array.len()]);
                saved.put(key, if key == "w" { bad } else { array.clone() });
            }
            assert!(on_endless(name, 1, 1).load(&saved).unwrap_err().to_string().contains("finite"));
            let e = fails(name, 1.0, 0.5, &["alpha_w=1e6", "normalize_step=false"]);
            assert!(e.is_some(), "{name}");
        }
    }
}

#[test]
fn the_policy_of_softmax_gq_has_its_temperature() {
    let c = config("softmax-gq", &["temperature=0.3"]);
    let mut algo = build(&*c, &task(false).make(), 1);
    (0..STEPS).for_each(|_| iterate(&mut *algo));
    let obs = [0.3, -1.0, 0.4];
    let q = outputs(algo.model(), &wide(&algo.model().theta), &obs);
    let mut logits = [0.0f32; 4];
    algo.policy(1).outputs(Cols::new(&obs, OBS, 1), pgrad_num::ColsMut::new(&mut logits, 4, 1));
    assert!(q.iter().any(|q| q.abs() > 0.01));
    let expected: Vec<f64> = q.iter().map(|q| q / 0.3).collect();
    assert!(relative_difference(&wide(&logits), &expected) < 1e-5, "{logits:?}");
}
