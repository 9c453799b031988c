//! Methods that learn at every step, against their equations: a recorded run is recomputed in `f64`, with
//! gradients by finite differences, terminations and truncations included, for every setting.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[path = "../../pgrad-collect/tests/common/mod.rs"]
mod common;

use common::{Batch, OBS, Seen, Task, relative_difference, tasks, wide};
use pgrad_algos::{
    AlgoConfig, Algorithm, BuildError, Groups, NacConfig, OnlineSettings, QacConfig, Report, Schedule, Setup,
    TdAcConfig,
};
use pgrad_engine::Cpu;
use pgrad_env::{
    Action, BatchResult, BoxSpace, Each, End, Env, EnvError, EnvSpec, Obs, Space, Step,
    probe::{ActionKind, EndlessReward},
    spec_of,
};
use pgrad_model::{ActorCritic, AgentError, Trunk};
use pgrad_nn::Activation;
use pgrad_num::{Cols, Record, Stream};
use pgrad_settings::apply_pair;
use pgrad_testkit::{Dense, finite_difference_gradient};

/// Steps of each environment that are recomputed.
const STEPS: usize = 40;
/// Steps of the whole run that schedules refer to.
const TOTAL: u64 = 150;

/// A method as its paper has it.
trait Equations: AlgoConfig + Default {
    fn online(&self) -> &OnlineSettings;
    /// Learns from one step of every environment, and from what each did next.
    fn follow(&self, slow: &mut Slow, now: &[Seen], next: &[Seen]);
    /// What is reported, besides what every method does.
    fn check_report(&self, _slow: &Slow, _report: &Report) {}
}

/// The state of a recomputation, in `f64`.
struct Slow {
    model: ActorCritic,
    masked: bool,
    theta: Vec<f64>,
    /// Per environment.
    z_theta: Vec<Vec<f64>>,
    z_w: Vec<Vec<f64>>,
    i: Vec<f64>,
    /// Parameters of the advantage.
    w: Vec<f64>,
    /// `γ`, the factor on the step sizes, bootstrap at time limits.
    gamma: f64,
    factor: f64,
    bootstrap: bool,
}

impl Slow {
    /// `log π_θ(a|s)` and its gradient.
    fn score(&self, seen: &Seen) -> Vec<f64> {
        let batch = Batch::new(std::slice::from_ref(seen), self.masked);
        let g = finite_difference_gradient(|x| batch.policy(&self.model, x).0[0], &self.theta);
        g[self.model.actor().params.clone()].to_vec()
    }
    /// `Σ_a π(a|s') Q(s', a)` over what is allowed: the probability of each action is asked for by itself.
    fn expected(&self, after: &Seen, mask: &[bool]) -> f64 {
        let q = self.values(&self.theta, &after.next);
        let probability = |a: usize| {
            let asked =
                Seen { obs: after.next.clone(), mask: mask.to_vec(), index: vec![a as u32], ..after.clone() };
            Batch::new(&[asked], self.masked).policy(&self.model, &self.theta).0[0].exp()
        };
        (0..q.len()).filter(|a| mask[*a]).map(|a| probability(a) * q[a]).sum()
    }
    /// All outputs of the critic.
    fn values(&self, theta: &[f64], obs: &[f32]) -> Vec<f64> {
        let part = self.model.critic();
        let mut tape = part.net.tape::<f64>(1);
        let x = wide(obs);
        part.net.forward(&theta[part.params.clone()], Cols::new(&x, OBS, 1), &mut tape).into_data().to_vec()
    }
    fn value_gradient(&self, obs: &[f32], i: usize) -> Vec<f64> {
        let g = finite_difference_gradient(|x| self.values(x, obs)[i], &self.theta);
        g[self.model.critic().params.clone()].to_vec()
    }
    /// Whether the value of `s'` counts.
    fn follows(&self, end: End) -> bool {
        end == End::Running || end == End::Truncated && self.bootstrap
    }
    fn add(&mut self, critic: bool, factor: f64, x: &[f64]) {
        let params =
            if critic { self.model.critic().params.clone() } else { self.model.actor().params.clone() };
        for (t, x) in self.theta[params].iter_mut().zip(x) {
            *t += factor * x;
        }
    }
}

impl Equations for TdAcConfig {
    fn online(&self) -> &OnlineSettings {
        &self.online
    }
    fn follow(&self, slow: &mut Slow, now: &[Seen], _: &[Seen]) {
        let (c, gamma) = (&self.td_ac, slow.gamma);
        let mut steps = Vec::new();
        for (b, seen) in now.iter().enumerate() {
            let v = |obs: &[f32]| slow.values(&slow.theta, obs)[0];
            let delta =
                seen.reward + if slow.follows(seen.end) { gamma * v(&seen.next) } else { 0.0 } - v(&seen.obs);
            let (grad_v, score) = (slow.value_gradient(&seen.obs, 0), slow.score(seen));
            let i = if c.discount_policy { slow.i[b] } else { 1.0 };
            for (z, g) in slow.z_w[b].iter_mut().zip(&grad_v) {
                *z = gamma * c.lambda_value * *z + g;
            }
            for (z, g) in slow.z_theta[b].iter_mut().zip(&score) {
                *z = gamma * c.lambda_policy * *z + i * g;
            }
            steps.push((delta, slow.z_w[b].clone(), slow.z_theta[b].clone()));
            slow.i[b] *= gamma;
            if seen.end != End::Running {
                slow.i[b] = 1.0;
                slow.z_w[b].fill(0.0);
                slow.z_theta[b].fill(0.0);
            }
        }
        for (delta, z_w, z_theta) in steps {
            slow.add(true, slow.factor * c.alpha_w * delta, &z_w);
            slow.add(false, slow.factor * c.alpha_theta * delta, &z_theta);
        }
    }
}

impl Equations for QacConfig {
    fn online(&self) -> &OnlineSettings {
        &self.online
    }
    fn follow(&self, slow: &mut Slow, now: &[Seen], next: &[Seen]) {
        let mut steps = Vec::new();
        for (seen, next) in now.iter().zip(next) {
            let q = slow.values(&slow.theta, &seen.obs)[seen.index[0] as usize];
            let q_next = match seen.end {
                End::Running => slow.values(&slow.theta, &seen.next)[next.index[0] as usize],
                _ if slow.follows(seen.end) => slow.expected(seen, &seen.next_mask),
                _ => 0.0,
            };
            let delta = seen.reward + slow.gamma * q_next - q;
            steps.push((delta, q, slow.value_gradient(&seen.obs, seen.index[0] as usize), slow.score(seen)));
        }
        for (delta, q, grad_q, score) in steps {
            slow.add(true, slow.factor * self.qac.alpha_w * delta, &grad_q);
            slow.add(false, slow.factor * self.qac.alpha_theta * q, &score);
        }
    }
}

impl Equations for NacConfig {
    fn online(&self) -> &OnlineSettings {
        &self.online
    }
    fn follow(&self, slow: &mut Slow, now: &[Seen], _: &[Seen]) {
        let c = &self.nac;
        let mut steps = Vec::new();
        for seen in now {
            let v = |obs: &[f32]| slow.values(&slow.theta, obs)[0];
            let v_next = if slow.follows(seen.end) { v(&seen.next) } else { 0.0 };
            let delta = seen.reward + slow.gamma * v_next - v(&seen.obs);
            let psi = slow.score(seen);
            let fitted: f64 = psi.iter().zip(&slow.w).map(|(p, w)| p * w).sum();
            steps.push((delta, delta - fitted, slow.value_gradient(&seen.obs, 0), psi));
        }
        for (delta, error, grad_v, psi) in steps {
            slow.add(true, slow.factor * c.alpha_w * delta, &grad_v);
            for (w, p) in slow.w.iter_mut().zip(&psi) {
                *w += slow.factor * c.alpha_advantage * error * p;
            }
        }
        slow.add(false, slow.factor * c.alpha_theta, &slow.w.clone());
    }
}

fn config<C: Equations>(pairs: &[&str]) -> C {
    let mut c = C::default();
    let small = ["n_envs=2", "n_steps=1", "gamma=0.9", "hidden=4", "log_std_init=-0.2"];
    for pair in small.iter().chain(pairs) {
        apply_pair(pair, "test", &mut c.parts_mut()).unwrap();
    }
    c
}

fn build(config: &dyn AlgoConfig, make: &dyn Fn(usize) -> BatchResult, threads: usize) -> Box<dyn Algorithm> {
    let mut algo = config
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

fn iterate(algo: &mut dyn Algorithm) -> Report {
    algo.iterate().unwrap()
}

fn change(now: &[f64], before: &[f64]) -> Vec<f64> {
    now.iter().zip(before).map(|(n, b)| n - b).collect()
}

/// Runs the method and recomputes every parameter.
fn follows_its_equations<C: Equations>(pairs: &[&str], task: &Task) {
    let c: C = config(pairs);
    let (online, make) = (c.online().clone(), task.make());
    let mut algo = config::<C>(pairs)
        .build(&Setup {
            spec: &spec_of(&make).unwrap(),
            make_env: &make,
            seed: 2,
            total_steps: TOTAL,
            cpu: Cpu::new(1).unwrap(),
        })
        .unwrap();
    task.log.lock().unwrap().clear();
    algo.start().unwrap();
    let model = algo.model().clone();
    let zeros = |n: usize| vec![vec![0.0; n]; online.n_envs];
    let mut slow = Slow {
        theta: wide(&model.theta),
        masked: task.masked,
        z_theta: zeros(model.actor().params.len()),
        z_w: zeros(model.critic().params.len()),
        i: vec![1.0; online.n_envs],
        w: vec![0.0; model.actor().params.len()],
        gamma: online.gamma,
        factor: 1.0,
        bootstrap: online.bootstrap_time_limit,
        model,
    };
    let first = slow.theta.clone();
    assert_eq!(online.n_steps, 1, "a report a step");
    iterate(&mut *algo);
    let mut ends = [0; 3];
    for t in 0..STEPS {
        let theta = wide(&algo.model().theta);
        // One step more, to see which action followed.
        let report = iterate(&mut *algo);
        let log = task.log.lock().unwrap();
        let of = |t: usize| log.iter().map(|steps| steps[t].clone()).collect::<Vec<_>>();
        if online.step_size_schedule == Schedule::Linear {
            slow.factor = 1.0 - (t * online.n_envs) as f64 / TOTAL as f64;
        }
        c.follow(&mut slow, &of(t), &of(t + 1));
        of(t).iter().for_each(|s| ends[s.end as usize] += 1);
        let error = relative_difference(&change(&theta, &first), &change(&slow.theta, &first));
        assert!(error < 2e-4, "{pairs:?} on {}, step {t}: {error:e}", task.action);
        c.check_report(&slow, &report);
    }
    assert!(ends[End::Terminated as usize] > 0 && ends[End::Truncated as usize] > 0, "{ends:?}");
}

#[test]
fn td_ac_follows_its_equations_for_every_action_space() {
    for task in tasks(Some(9)) {
        let pairs = ["lambda_policy=0.8", "lambda_value=0.6", "alpha_theta=0.02", "alpha_w=0.05"];
        follows_its_equations::<TdAcConfig>(&pairs, &task);
    }
}

#[test]
fn qac_follows_its_equations_with_and_without_masks() {
    for task in tasks(Some(9)) {
        let pairs = ["alpha_theta=0.02", "alpha_w=0.05"];
        if matches!(task.action, Space::Discrete { .. }) {
            follows_its_equations::<QacConfig>(&pairs, &task);
            continue;
        }
        // The critic has an output for each action.
        let error = config::<QacConfig>(&pairs).check(&spec_of(&task.make()).unwrap()).unwrap_err();
        assert!(matches!(error, BuildError::Environment { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("Discrete") && said.contains(&task.action.to_string()), "{said}");
        assert!(said.contains("td-ac"), "{said}");
    }
}

#[test]
fn nac_follows_its_equations_for_every_action_space() {
    for task in tasks(Some(9)) {
        let pairs = ["alpha_theta=0.02", "alpha_w=0.05", "alpha_advantage=0.03"];
        follows_its_equations::<NacConfig>(&pairs, &task);
    }
}

/// A test for each setting of a method, called like it, and the list of them.
macro_rules! settings_that_are_tested {
    ($method:ident: $config:ty { $($key:ident => $body:block)* }) => {
        mod $method {
            use super::*;
            type Config = $config;
            $(#[test] fn $key() $body)*

            #[test]
            fn no_setting_is_without_a_test() {
                let config = Config::default();
                let mut declared: Vec<&str> =
                    config.parts().iter().flat_map(|p| p.declarations().iter().map(|s| s.key)).collect();
                declared.sort_unstable();
                let mut tested = [$(stringify!($key)),*];
                tested.sort_unstable();
                assert_eq!(tested[..], declared);
            }
        }
    };
}

fn discrete() -> Task {
    Task::new(Space::Discrete { n: 4 }, false, Some(9))
}

fn real() -> Task {
    Task::new(Space::Box(BoxSpace::unbounded(2)), false, Some(9))
}

/// Follows its equations with each of the values.
fn each_value<C: Equations>(key: &str, values: &[&str], others: &[&str]) {
    for value in values {
        let pair = format!("{key}={value}");
        follows_its_equations::<C>(&[others, &[&pair]].concat(), &discrete());
    }
}

fn model_with<C: Equations>(pairs: &[&str], task: &Task) -> ActorCritic {
    build(&config::<C>(pairs), &task.make(), 1).model().clone()
}

fn parameters(model: &ActorCritic, name: &str) -> Vec<f64> {
    let view = model.views().into_iter().find(|v| v.name == name).unwrap();
    wide(&model.theta[view.range])
}

fn n_envs_is_obeyed<C: Equations>() {
    for n in [1, 3] {
        let (pair, task) = (format!("n_envs={n}"), discrete());
        follows_its_equations::<C>(&[&pair], &task);
        assert_eq!(task.log.lock().unwrap().len(), n);
        let algo = build(&config::<C>(&[&pair, "n_steps=7"]), &task.make(), 1);
        assert_eq!(algo.steps_per_iteration(), 7 * n as u64);
    }
}

fn n_steps_has_no_effect_on_learning<C: Equations>() {
    let after = |n: usize| {
        let pair = format!("n_steps={n}");
        let c = config::<C>(&[&pair, "step_size_schedule=linear"]);
        let mut algo = build(&c, &discrete().make(), 1);
        while algo.steps() < 120 {
            iterate(&mut *algo);
        }
        (algo.steps(), algo.model().theta.clone())
    };
    assert_eq!(after(1), after(20));
    assert_eq!(after(20), after(60));
    // The last iteration is finished.
    assert_eq!(after(50).0, 200);
}

fn hidden_is_obeyed<C: Equations>() {
    for (value, hidden) in [("", vec![]), ("3", vec![3]), ("5,2", vec![5, 2])] {
        let pair = format!("hidden={value}");
        assert_eq!(model_with::<C>(&[&pair], &discrete()).shape().hidden, hidden);
        follows_its_equations::<C>(&[&pair], &discrete());
    }
}

fn activation_is_obeyed<C: Equations>() {
    for (pair, activation) in [("activation=tanh", Activation::Tanh), ("activation=relu", Activation::Relu)] {
        let shape = model_with::<C>(&[pair], &discrete()).shape().clone();
        assert_eq!((shape.activation, shape.trunk), (activation, Trunk::Separate));
    }
}

fn orthogonal_init_is_obeyed<C: Equations>() {
    let dot = |pair| {
        let model = model_with::<C>(&[pair, "hidden=3"], &discrete());
        let w = parameters(&model, "actor.hidden.0.weight");
        (0..OBS).map(|i| w[i] * w[OBS + i]).sum::<f64>()
    };
    assert!(dot("orthogonal_init=true").abs() < 1e-6);
    assert!(dot("orthogonal_init=false").abs() > 1e-3);
}

fn rescale_actions_is_obeyed<C: Equations>() {
    let space = Space::Box(BoxSpace::new(vec![0.0, -1.0, 0.0], vec![255.0, 1.0, f32::INFINITY]));
    let task = Task::new(space, false, Some(9));
    let numbers = |how: &str| model_with::<C>(&[how], &task).rescaled().to_vec();
    assert_eq!(numbers("rescale_actions=far"), [true, false, false]);
    assert_eq!(numbers("rescale_actions=all"), [true, true, false]);
    assert_eq!(numbers("rescale_actions=none"), [false; 0]);
}

settings_that_are_tested! { td_ac: TdAcConfig {
    n_envs => { n_envs_is_obeyed::<Config>(); }
    n_steps => { n_steps_has_no_effect_on_learning::<Config>(); }
    gamma => { each_value::<Config>("gamma", &["0", "0.5", "1"], &["lambda_value=0.7", "lambda_policy=0.7"]); }
    bootstrap_time_limit => { each_value::<Config>("bootstrap_time_limit", &["true", "false"], &[]); }
    step_size_schedule => { each_value::<Config>("step_size_schedule", &["constant", "linear"], &[]); }
    alpha_theta => { each_value::<Config>("alpha_theta", &["0.1", "0.01"], &[]); }
    alpha_w => { each_value::<Config>("alpha_w", &["0.1", "0.01"], &[]); }
    lambda_policy => { each_value::<Config>("lambda_policy", &["0", "0.5", "1"], &["lambda_value=0.3"]); }
    lambda_value => { each_value::<Config>("lambda_value", &["0", "0.5", "1"], &["lambda_policy=0.3"]); }
    discount_policy => { each_value::<Config>("discount_policy", &["true", "false"], &["lambda_policy=0.5"]); }
    hidden => { hidden_is_obeyed::<Config>(); }
    activation => { activation_is_obeyed::<Config>(); }
    orthogonal_init => { orthogonal_init_is_obeyed::<Config>(); }
    log_std_init => {
        let model = model_with::<Config>(&["log_std_init=-1.5"], &real());
        assert_eq!(parameters(&model, "actor.log_std"), [-1.5, -1.5]);
    }
    rescale_actions => { rescale_actions_is_obeyed::<Config>(); }
}}

settings_that_are_tested! { qac: QacConfig {
    n_envs => { n_envs_is_obeyed::<Config>(); }
    n_steps => { n_steps_has_no_effect_on_learning::<Config>(); }
    gamma => { each_value::<Config>("gamma", &["0", "0.5", "1"], &[]); }
    bootstrap_time_limit => { each_value::<Config>("bootstrap_time_limit", &["true", "false"], &[]); }
    step_size_schedule => { each_value::<Config>("step_size_schedule", &["constant", "linear"], &[]); }
    alpha_theta => { each_value::<Config>("alpha_theta", &["0.1", "0.01"], &[]); }
    alpha_w => { each_value::<Config>("alpha_w", &["0.1", "0.01"], &[]); }
    hidden => { hidden_is_obeyed::<Config>(); }
    activation => { activation_is_obeyed::<Config>(); }
    orthogonal_init => { orthogonal_init_is_obeyed::<Config>(); }
    log_std_init => {
        // Its policies are never Gaussian.
        let [a, b] = ["-1.5", "0"].map(|x| model_with::<Config>(&[&format!("log_std_init={x}")], &discrete()).theta);
        assert_eq!(a, b);
    }
    rescale_actions => {
        // Its actions are never numbers.
        for how in ["far", "all", "none"] {
            let model = model_with::<Config>(&[&format!("rescale_actions={how}")], &discrete());
            assert!(model.rescaled().is_empty(), "{how}");
        }
    }
}}

settings_that_are_tested! { nac: NacConfig {
    n_envs => { n_envs_is_obeyed::<Config>(); }
    n_steps => { n_steps_has_no_effect_on_learning::<Config>(); }
    gamma => { each_value::<Config>("gamma", &["0", "0.5", "1"], &[]); }
    bootstrap_time_limit => { each_value::<Config>("bootstrap_time_limit", &["true", "false"], &[]); }
    step_size_schedule => { each_value::<Config>("step_size_schedule", &["constant", "linear"], &[]); }
    alpha_theta => { each_value::<Config>("alpha_theta", &["0.1", "0.01"], &[]); }
    alpha_w => { each_value::<Config>("alpha_w", &["0.1", "0.01"], &[]); }
    alpha_advantage => { each_value::<Config>("alpha_advantage", &["0.1", "0.01"], &["alpha_theta=0.05"]); }
    hidden => { hidden_is_obeyed::<Config>(); }
    activation => { activation_is_obeyed::<Config>(); }
    orthogonal_init => { orthogonal_init_is_obeyed::<Config>(); }
    log_std_init => {
        let model = model_with::<Config>(&["log_std_init=-1.5"], &real());
        assert_eq!(parameters(&model, "actor.log_std"), [-1.5, -1.5]);
    }
    rescale_actions => { rescale_actions_is_obeyed::<Config>(); }
}}

/// Every method, with traces where it has them.
const METHODS: &[(&str, &[&str])] = &[
    ("qac", &["alpha_theta=0.01", "alpha_w=0.01"]),
    ("td-ac", &["lambda_policy=0.9", "lambda_value=0.9", "alpha_theta=0.01", "alpha_w=0.01"]),
    ("nac", &["alpha_theta=0.001", "alpha_w=0.01"]),
];

/// A method by name on an endless task of which each episode is cut after 7 steps.
fn on_endless(name: &str, pairs: &[&str], seed: u64, threads: usize) -> Box<dyn Algorithm> {
    let make = Each::maker(|| EndlessReward::new(ActionKind::Discrete, 7));
    let mut c = (pgrad_algos::find(name).unwrap().config)();
    for pair in
        ["n_envs=2", "n_steps=3", "gamma=0.9", "hidden=4", "step_size_schedule=linear"].iter().chain(pairs)
    {
        apply_pair(pair, "test", &mut c.parts_mut()).unwrap();
    }
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
    for (name, pairs) in METHODS {
        let after = |seed, threads| {
            let mut algo = on_endless(name, pairs, seed, threads);
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
    for (name, pairs) in METHODS {
        let mut whole = on_endless(name, pairs, 1, 1);
        for done in 1..=6 {
            iterate(&mut *whole);
            // 3 steps an iteration, 7 an episode: all but one of these are in the middle of one.
            let mut resumed = on_endless(name, pairs, 1, 1);
            assert!(resumed.load(&whole.save()).unwrap(), "{name}");
            let mut apart = on_endless(name, pairs, 1, 1);
            for _ in 0..done {
                iterate(&mut *apart);
            }
            for _ in 0..5 {
                assert_eq!(iterate(&mut *resumed), iterate(&mut *apart), "{name}");
            }
            assert_eq!(resumed.save(), apart.save(), "{name}");
        }
    }
}

#[test]
fn traces_do_not_survive_into_new_episodes_of_an_environment_that_cannot_be_saved() {
    for (name, pairs) in METHODS {
        let mut c = (pgrad_algos::find(name).unwrap().config)();
        for pair in ["n_steps=30", "hidden=4"].iter().chain(*pairs) {
            apply_pair(pair, "test", &mut c.parts_mut()).unwrap();
        }
        let task = Task::new(Space::Discrete { n: 4 }, false, None);
        let mut algo = build(&*c, &task.make(), 1);
        // Stop in the middle of an episode.
        while task.log.lock().unwrap().last().unwrap().last().is_none_or(|s| s.end != End::Running) {
            iterate(&mut *algo);
        }
        let before = algo.save();
        assert!(!algo.load(&before).unwrap(), "new episodes are started");
        let after = algo.save();
        for (key, _) in before.iter().filter(|(k, _)| k.starts_with("z_")) {
            let zeros = vec![0.0; before.get(key).unwrap().len()];
            assert_ne!(before.f32s(key, zeros.len()).unwrap(), &zeros[..], "{name}: {key}");
            assert_eq!(after.f32s(key, zeros.len()).unwrap(), &zeros[..], "{name}: {key}");
        }
        if let Ok(discount) = after.f32s("discount", 1) {
            assert_eq!(discount, [1.0]);
        }
        assert_eq!(
            after.u8s("experience.drawn", 1),
            Ok(&[0][..]),
            "what was drawn for the old state is not taken"
        );
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
        EnvSpec {
            id: "Third".into(),
            observation: BoxSpace::unbounded(1).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: None,
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        self.step = 0;
        obs.write(&[0.5]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.step += 1;
        let third = self.step == 3;
        obs.write(&[if third { self.obs } else { 0.5 }]);
        Step { reward: if third { self.reward } else { 1.0 }, end: End::Running }
    }
}

/// What is learnt: everything that is saved but for the environments.
fn learnt(algo: &dyn Algorithm) -> Record {
    let mut r = Record::new();
    algo.save().iter().filter(|(k, _)| !k.starts_with("experience")).for_each(|(k, a)| r.put(k, a.clone()));
    r
}

/// Five iterations of a step each: the error, and what was learnt before and after the iteration that failed.
fn until_it_fails(name: &str, pairs: &[&str], reward: f64, obs: f32) -> Option<(AgentError, Record, Record)> {
    let make = Each::maker(move || Third { reward, obs, step: 0 });
    let mut c = (pgrad_algos::find(name).unwrap().config)();
    for pair in ["n_envs=2", "n_steps=1", "hidden="].iter().chain(pairs) {
        apply_pair(pair, "test", &mut c.parts_mut()).unwrap();
    }
    let mut algo = build(&*c, &make, 1);
    for _ in 0..5 {
        let before = learnt(&*algo);
        if let Err(e) = algo.iterate() {
            return Some((e, before, learnt(&*algo)));
        }
    }
    None
}

#[test]
fn what_is_not_finite_stops_before_anything_is_learnt_from_it() {
    for (name, pairs) in METHODS {
        assert!(until_it_fails(name, pairs, 1.0, 0.5).is_none());
        let (e, before, after) = until_it_fails(name, pairs, f64::NAN, 0.5).unwrap();
        assert!(matches!(e, AgentError::Env(EnvError::Reward { env: 0, episode: 0, step: 3, .. })), "{e}");
        assert_eq!(before, after, "{name}");
        let (e, before, after) = until_it_fails(name, pairs, 1.0, f32::NAN).unwrap();
        assert!(matches!(e, AgentError::Env(EnvError::Observation { env: 0, step: 3, .. })), "{e}");
        assert_eq!(before, after, "{name}");
        // A TD error that is finite, times a trace, a step size of 10 and the observation, is not.
        let (e, before, after) =
            until_it_fails(name, &[*pairs, &["alpha_w=1e3"]].concat(), 3e38, 0.5).unwrap();
        assert!(
            matches!(e, AgentError::Update { ref tensor, step: 4, .. } if tensor.starts_with("critic.")),
            "{e}"
        );
        assert_eq!(before.get("theta"), after.get("theta"), "{name}");
        // A value that is not.
        let (e, before, after) =
            until_it_fails(name, &[*pairs, &["alpha_w=1e10"]].concat(), 1.0, 3e38).unwrap();
        assert!(matches!(e, AgentError::Step { what: "value", env: 0, episode: 0, step: 2, .. }), "{e}");
        assert_eq!(before, after, "{name}");
    }
}

/// Four states on a line, `x` = -1 ... 3.5, two actions, a chain with known probabilities, and rewards that
/// make `V^π` linear in `x`, so that a linear critic can tell it exactly, for one policy `π`.
#[derive(Clone)]
struct Line {
    reward: [[f64; 2]; 4],
    state: usize,
}

impl Line {
    /// Probability that the state `s` is followed by `0..4`, or that the episode ends (`4`).
    const NEXT: [[[f64; 5]; 2]; 4] = [
        [[0.1, 0.5, 0.1, 0.1, 0.2], [0.3, 0.1, 0.3, 0.2, 0.1]],
        [[0.4, 0.1, 0.2, 0.1, 0.2], [0.1, 0.2, 0.1, 0.5, 0.1]],
        [[0.2, 0.3, 0.1, 0.2, 0.2], [0.1, 0.1, 0.2, 0.1, 0.5]],
        [[0.1, 0.1, 0.6, 0.1, 0.1], [0.5, 0.1, 0.1, 0.0, 0.3]],
    ];
    fn x(s: usize) -> f64 {
        1.5 * s as f64 - 1.0
    }
    /// Advantages of zero mean under `policy`, and `V(x) = 1 + x/2`.
    fn new(policy: &[[f64; 2]; 4]) -> Self {
        let v = |s: usize| if s == 4 { 0.0 } else { 1.0 + 0.5 * Self::x(s) };
        let wanted = [2.0, -1.0, 0.5, 1.5];
        let reward = std::array::from_fn(|s| {
            std::array::from_fn(|a| {
                let advantage = wanted[s] * if a == 1 { policy[s][0] } else { -policy[s][1] };
                advantage + v(s) - (0..5).map(|n| Self::NEXT[s][a][n] * v(n)).sum::<f64>()
            })
        });
        Self { reward, state: 0 }
    }
    /// Expected return of `policy` from a uniform first state, and how often it is in each state.
    fn exact(&self, policy: &[[f64; 2]; 4]) -> (f64, Vec<f64>) {
        let step = |s: usize, n: usize| (0..2).map(|a| policy[s][a] * Self::NEXT[s][a][n]).sum::<f64>();
        // (I - Pᵀ) visits = first
        let system = Dense::from_fn(4, 4, |i, j| f64::from(u8::from(i == j)) - step(j, i));
        let visits = system.solve(&[0.25; 4]);
        let reward = |s: usize| (0..2).map(|a| policy[s][a] * self.reward[s][a]).sum::<f64>();
        ((0..4).map(|s| visits[s] * reward(s)).sum(), visits)
    }
}

impl Env for Line {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Line".into(),
            observation: BoxSpace::unbounded(1).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: None,
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, rng: &mut Stream, obs: &mut Obs<'_>) {
        self.state = rng.below(4) as usize;
        obs.write_f64(&[Self::x(self.state)]);
    }
    fn step(&mut self, action: Action<'_>, rng: &mut Stream, obs: &mut Obs<'_>) -> Step {
        let a = action.index();
        let reward = self.reward[self.state][a];
        let (mut u, mut next) = (rng.uniform(), 0);
        while next < 4 && u >= Self::NEXT[self.state][a][next] {
            u -= Self::NEXT[self.state][a][next];
            next += 1;
        }
        let end = if next == 4 { End::Terminated } else { End::Running };
        self.state = next.min(3);
        obs.write_f64(&[Self::x(self.state)]);
        Step { reward, end }
    }
}

/// `π(a|x)` of a linear softmax: two weights, two biases.
fn policy(theta: &[f64]) -> [[f64; 2]; 4] {
    std::array::from_fn(|s| {
        let z: [f64; 2] = std::array::from_fn(|a| theta[a] * Line::x(s) + theta[2 + a]);
        let p = 1.0 / (1.0 + (z[0] - z[1]).exp());
        [1.0 - p, p]
    })
}

#[test]
fn the_parameters_of_the_advantage_go_to_the_natural_gradient() {
    let theta = [0.4, -0.3, 0.1, 0.2];
    let line = Line::new(&policy(&theta));
    let (_, visits) = line.exact(&policy(&theta));
    let length: f64 = visits.iter().sum();

    // The oracle: the gradient by differences of the exact return, the Fisher matrix from its definition.
    let gradient = finite_difference_gradient(|t| line.exact(&policy(t)).0, &theta);
    let mut fisher = Dense::zeros(4, 4);
    for s in 0..4 {
        for a in 0..2 {
            let psi = finite_difference_gradient(|t| policy(t)[s][a].ln(), &theta);
            let weight = visits[s] / length * policy(&theta)[s][a];
            for i in 0..4 {
                for j in 0..4 {
                    // Equal logits shift nothing: the least solution is wanted of the many.
                    let least = if i == j && s + a == 0 { 1e-9 } else { 0.0 };
                    fisher.set(i, j, fisher.at(i, j) + weight * psi[i] * psi[j] + least);
                }
            }
        }
    }
    let natural = fisher.solve(&gradient.iter().map(|g| g / length).collect::<Vec<_>>());
    // No multiple of the plain gradient would do.
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let nearest = dot(&gradient, &natural) / dot(&gradient, &gradient);
    let plain: Vec<f64> = gradient.iter().map(|g| nearest * g).collect();
    assert!(relative_difference(&plain, &natural) > 0.2, "{plain:?}, {natural:?}");

    // The method, with a policy that stands still.
    let mut c = NacConfig::default();
    let pairs = ["hidden=", "gamma=1", "step_size_schedule=linear", "alpha_theta=1e-30"];
    for pair in pairs.iter().chain(&["alpha_w=0.02", "alpha_advantage=0.02", "n_steps=20000"]) {
        apply_pair(pair, "test", &mut c.parts_mut()).unwrap();
    }
    let make = Each::maker(|| line.clone());
    let total_steps = 300_000;
    let mut w = [0.0; 4];
    for seed in 1..=4 {
        let mut algo = c
            .build(&Setup {
                spec: &spec_of(&make).unwrap(),
                make_env: &make,
                seed,
                total_steps,
                cpu: Cpu::new(1).unwrap(),
            })
            .unwrap();
        algo.start().unwrap();
        let mut record = Record::new();
        for (key, array) in algo.save().iter() {
            let mut all = algo.model().theta.clone();
            all[..4].iter_mut().zip(theta).for_each(|(t, x)| *t = x as f32);
            record.put(key, if key == "theta" { all.into() } else { array.clone() });
        }
        algo.load(&record).unwrap();
        algo.start().unwrap();
        while algo.steps() < total_steps {
            iterate(&mut *algo);
        }
        assert!(
            relative_difference(&wide(&algo.model().theta[..4]), &theta) < 1e-6,
            "the policy stood still"
        );
        let fitted = wide(algo.save().f32s("w", 4).unwrap());
        w.iter_mut().zip(fitted).for_each(|(mean, w)| *mean += w / 4.0);
    }
    let error = relative_difference(&w, &natural);
    assert!(error < 0.03, "{w:?}, expected {natural:?}: {error}");
}
