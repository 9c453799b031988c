//! The step that REINFORCE takes against its equation: whole episodes as the environments saw them, weights
//! summed from the definitions, finite differences in `f64`. A test for each setting, by name, and none may
//! be missing.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[path = "../../pgrad-collect/tests/common/mod.rs"]
mod common;

use common::{Batch, OBS, Seen, Task, relative_difference, tasks, wide};
use pgrad_algos::{AlgoConfig, Algorithm, BuildError, Groups, ReinforceConfig, Report, Setup};
use pgrad_engine::Cpu;
use pgrad_env::{Action, BatchResult, BoxSpace, Each, End, Env, EnvSpec, Obs, Space, Step, spec_of};
use pgrad_model::ActorCritic;
use pgrad_num::Stream;
use pgrad_settings::{apply_pair, check_given};
use pgrad_testkit::finite_difference_gradient;

/// Three environments in two shards play seven episodes; one plain step of size 1.
const SMALL: &[&str] = &[
    "n_envs=3",
    "n_episodes=7",
    "envs_per_shard=2",
    "hidden=5",
    "gamma=0.9",
    "learning_rate=1",
    "value_learning_rate=1",
];
const SHARE: [usize; 3] = [3, 2, 2];

fn config(pairs: &[&str]) -> ReinforceConfig {
    let mut c = ReinforceConfig::default();
    for pair in SMALL.iter().chain(pairs) {
        let ReinforceConfig { episodes, reinforce, model, normalize } = &mut c;
        apply_pair(pair, "test", &mut [episodes, reinforce, model, normalize]).unwrap();
    }
    c
}

/// What one iteration did.
struct Trained {
    before: ActorCritic,
    after: ActorCritic,
    report: Report,
    algo: Box<dyn Algorithm>,
    episodes: usize,
    samples: usize,
}

fn train_on(make: &dyn Fn(usize) -> BatchResult, config: &ReinforceConfig, seed: u64) -> Trained {
    let setup = Setup {
        spec: &spec_of(make).unwrap(),
        make_env: make,
        seed,
        total_steps: 1_000_000,
        cpu: Cpu::new(1).unwrap(),
    };
    let mut algo = config.build(&setup).unwrap();
    let before = algo.model().clone();
    algo.start().unwrap();
    let report = algo.iterate().unwrap();
    let (after, episodes) = (algo.model().clone(), algo.episodes().count());
    Trained { before, after, report, episodes, samples: algo.steps() as usize, algo }
}

fn train(pairs: &[&str], task: &Task) -> Trained {
    task.log.lock().unwrap().clear();
    train_on(&task.make(), &config(pairs), 2)
}

impl Trained {
    /// `θ_before − θ_after`.
    fn step(&self) -> Vec<f64> {
        wide(&self.before.theta).iter().zip(wide(&self.after.theta)).map(|(b, a)| b - a).collect()
    }
    fn policy_step(&self) -> Vec<f64> {
        self.step()[self.before.actor().params.clone()].to_vec()
    }
    fn value_step(&self) -> Vec<f64> {
        self.step()[self.before.critic().params.clone()].to_vec()
    }
    fn get(&self, name: &str) -> f64 {
        self.report.get(name).unwrap()
    }
}

/// The first episodes of each environment, from what it logged.
fn episodes(task: &Task, share: &[usize]) -> Vec<Vec<Seen>> {
    let log = task.log.lock().unwrap();
    let mut all = Vec::new();
    for (seen, share) in log.iter().zip(share) {
        all.extend(seen.split_inclusive(|s| s.end != End::Running).take(*share).map(<[Seen]>::to_vec));
    }
    all
}

/// The gradient that should have been followed down.
fn expected(pairs: &[&str], task: &Task, model: &ActorCritic) -> Vec<f64> {
    let c = config(pairs);
    let (psi_form, gamma) = (format!("{:?}", c.reinforce.psi), c.episodes.gamma);
    let episodes = episodes(task, &SHARE);
    assert_eq!(episodes.len(), 7);
    let k = episodes.len() as f64;
    let batch = Batch::new(&episodes.concat(), task.masked);
    let old = wide(&model.theta);
    let zeros = vec![0.0; batch.n];
    let values = |theta: &[f64], obs: &[f64]| {
        if model.has_critic() { batch.values(model, theta, obs) } else { zeros.clone() }
    };
    let (v, next) = (values(&old, &batch.obs), values(&old, &batch.next));
    let (mut psi, mut targets, mut first) = (Vec::new(), Vec::new(), 0);
    for episode in &episodes {
        let last = first + episode.len() - 1;
        let tail = match (episode.last().unwrap().end, psi_form.as_str()) {
            (End::Truncated, "Baseline") if c.reinforce.bootstrap_time_limit => next[last],
            _ => 0.0,
        };
        // Σ_{k ≥ t} γ^{k−t} r_k, and what a time limit cut off.
        let to_go = |t: usize| -> f64 {
            let sum: f64 = (t..episode.len()).map(|k| gamma.powi((k - t) as i32) * episode[k].reward).sum();
            sum + gamma.powi((episode.len() - t) as i32) * tail
        };
        for t in 0..episode.len() {
            let weight = if c.reinforce.discount_states { gamma.powi(t as i32) } else { 1.0 };
            targets.push(to_go(t));
            psi.push(match psi_form.as_str() {
                "Total" => to_go(0),
                "ToGo" => weight * to_go(t),
                _ => weight * (to_go(t) - v[first + t]),
            });
        }
        first += episode.len();
    }
    if c.reinforce.normalize_psi {
        let n = psi.len() as f64;
        let mean = psi.iter().sum::<f64>() / n;
        let std = (psi.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
        psi.iter_mut().for_each(|x| *x = (*x - mean) / std);
    }
    let loss = |theta: &[f64]| {
        let (logp, entropy) = batch.policy(model, theta);
        let v = values(theta, &batch.obs);
        (0..batch.n)
            .map(|i| {
                let error = if model.has_critic() { 0.5 * (targets[i] - v[i]).powi(2) } else { 0.0 };
                -psi[i] * logp[i] - c.reinforce.entropy_coef * entropy[i] + error
            })
            .sum::<f64>()
            / k
    };
    finite_difference_gradient(loss, &old)
}

/// The step is the gradient of the equation.
fn check(pairs: &[&str], task: &Task) -> Trained {
    let trained = train(pairs, task);
    let expected = expected(pairs, task, &trained.before);
    assert_eq!(trained.episodes, 7);
    let error = relative_difference(&trained.step(), &expected);
    assert!(error < 1e-4, "{} masked {} {pairs:?}: {error:e}", task.action, task.masked);
    trained
}

#[test]
fn follows_the_equation_for_every_action_space_and_psi() {
    for task in tasks(Some(9)) {
        for psi in ["psi=total", "psi=to-go", "psi=baseline"] {
            let trained = check(&[psi], &task);
            assert_eq!(trained.before.has_critic(), psi == "psi=baseline");
            let ends: Vec<End> = episodes(&task, &SHARE).iter().map(|e| e.last().unwrap().end).collect();
            assert!(ends.contains(&End::Terminated) && ends.contains(&End::Truncated), "{ends:?}");
        }
    }
}

macro_rules! settings_that_are_tested {
    ($($key:ident => $body:block)*) => {
        $(#[test] fn $key() $body)*
        const TESTED: &[&str] = &[$(stringify!($key)),*];
    };
}

#[test]
fn no_setting_is_without_a_test() {
    let config = ReinforceConfig::default();
    let mut declared: Vec<&str> =
        config.parts().iter().flat_map(|p| p.declarations().iter().map(|s| s.key)).collect();
    declared.sort_unstable();
    let mut tested = TESTED.to_vec();
    tested.sort_unstable();
    assert_eq!(tested, declared);
}

fn discrete() -> Task {
    tasks(Some(9)).remove(0)
}

fn continuous() -> Task {
    tasks(Some(9)).remove(5)
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[track_caller]
fn close(got: f64, expected: f64) {
    assert!((got - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{got}, expected {expected}");
}

/// Always this observation, and a reward that the action does not change; `length` steps.
#[derive(Clone)]
struct Fixed {
    obs: f32,
    reward: f64,
    length: u32,
    step: u32,
}

impl Env for Fixed {
    fn spec(&self) -> EnvSpec {
        EnvSpec {
            id: "Fixed".into(),
            observation: BoxSpace::unbounded(OBS).into(),
            action: Space::Discrete { n: 2 },
            max_episode_steps: None,
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        self.step = 0;
        obs.write(&[self.obs; OBS]);
    }
    fn step(&mut self, _: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        self.step += 1;
        obs.write(&[self.obs; OBS]);
        let end = if self.step == self.length { End::Terminated } else { End::Running };
        Step { reward: self.reward, end }
    }
}

fn fixed(obs: f32, reward: f64, length: u32, pairs: &[&str]) -> Trained {
    let env = Fixed { obs, reward, length, step: 0 };
    train_on(&Each::maker(move || env.clone()), &config(pairs), 2)
}

settings_that_are_tested! {
    n_envs => {
        // Each environment has its own stream: one alone plays other episodes than three do.
        let one = train(&["n_envs=1"], &discrete());
        let three = train(&["n_envs=3"], &discrete());
        assert_eq!((one.episodes, three.episodes), (7, 7));
        assert_ne!(one.step(), three.step());
        let setup_fails = |pairs: &[&str]| {
            let task = discrete();
            let make = task.make();
            let setup = Setup { spec: &spec_of(&make).unwrap(), make_env: &make, seed: 1, total_steps: 1, cpu: Cpu::new(1).unwrap() };
            config(pairs).build(&setup).map(|_| ()).unwrap_err()
        };
        let e = setup_fails(&["n_envs=8"]);
        assert!(matches!(e, BuildError::Inconsistent { key: "n_episodes", .. }), "{e}");
    }
    n_episodes => {
        for k in [3, 11] {
            let trained = fixed(1.0, 1.0, 4, &[&format!("n_episodes={k}")]);
            assert_eq!((trained.episodes, trained.samples), (k, 4 * k));
        }
    }
    envs_per_shard => {
        // What a shard does while it waits moves the environments' streams on.
        let after_two = |shard: &str| {
            let task = discrete();
            let mut t = train(&[shard], &task);
            t.algo.iterate().unwrap();
            wide(&t.algo.model().theta)
        };
        assert_ne!(after_two("envs_per_shard=1"), after_two("envs_per_shard=3"));
        assert_eq!(after_two("envs_per_shard=3"), after_two("envs_per_shard=none"));
    }
    gamma => {
        let of = |gamma: &str| check(&["psi=to-go", gamma], &discrete()).step();
        assert_ne!(of("gamma=0.5"), of("gamma=1"));
        check(&["psi=total", "gamma=0.5"], &continuous());
        check(&["psi=baseline", "gamma=0.5"], &continuous());
    }
    psi => {
        let of = |psi: &str| check(&[psi], &continuous()).policy_step();
        let steps = [of("psi=total"), of("psi=to-go"), of("psi=baseline")];
        assert!(steps[0] != steps[1] && steps[1] != steps[2] && steps[0] != steps[2]);
        // Without a learnt baseline there are no settings of one.
        for key in ["value_learning_rate=0.1", "bootstrap_time_limit=false"] {
            for (psi, accepted) in [("psi=total", false), ("psi=to-go", false), ("psi=baseline", true)] {
                let mut c = config(&[psi]);
                let given = apply_pair(key, "--set", &mut c.parts_mut()).unwrap();
                assert_eq!(check_given(&[given], &c.parts()).is_ok(), accepted, "{psi} {key}");
            }
        }
    }
    optimizer => {
        // The first step of Adam goes as far as the step size says, in every coordinate that has a gradient.
        let pairs = ["optimizer=adam", "learning_rate=0.01", "value_learning_rate=0.02"];
        let trained = train(&pairs, &discrete());
        let gradient = expected(&pairs, &discrete_as(&trained), &trained.before);
        let (actor, critic) = (trained.before.actor().params.clone(), trained.before.critic().params.clone());
        for (part, alpha) in [(actor, 0.01), (critic, 0.02)] {
            let mut moved = 0;
            for i in part {
                if gradient[i].abs() > 1e-3 {
                    moved += 1;
                    assert!((trained.step()[i] - alpha * gradient[i].signum()).abs() < 1e-3 * alpha);
                }
            }
            assert!(moved > 10);
        }
    }
    adam_epsilon => {
        // ε far above the gradient: the step is α g / ε.
        let pairs = ["optimizer=adam", "adam_epsilon=1e6", "learning_rate=1e6", "value_learning_rate=1e6"];
        let task = discrete();
        let trained = train(&pairs, &task);
        let error = relative_difference(&trained.step(), &expected(&pairs, &task, &trained.before));
        assert!(error < 1e-3, "{error:e}");
    }
    learning_rate => {
        let of = |rate: &str| train(&[rate], &discrete());
        let (one, tenth) = (of("learning_rate=1"), of("learning_rate=0.1"));
        close(norm(&tenth.policy_step()), 0.1 * norm(&one.policy_step()));
        assert_eq!(tenth.value_step(), one.value_step(), "the baseline has a step size of its own");
        assert_eq!(tenth.get("learn/learning_rate"), 0.1);
    }
    value_learning_rate => {
        let of = |rate: &str| train(&[rate], &discrete());
        let (one, tenth) = (of("value_learning_rate=1"), of("value_learning_rate=0.1"));
        close(norm(&tenth.value_step()), 0.1 * norm(&one.value_step()));
        assert_eq!(tenth.policy_step(), one.policy_step());
        assert_eq!(tenth.get("learn/value_learning_rate"), 0.1);
    }
    learning_rate_schedule => {
        // 28 steps of 56 done: half of the step sizes is left.
        for (schedule, left) in [("constant", 1.0), ("linear", 0.5)] {
            let env = Fixed { obs: 1.0, reward: 1.0, length: 4, step: 0 };
            let make = Each::maker(move || env.clone());
            let setup = Setup { spec: &spec_of(&make).unwrap(), make_env: &make, seed: 2, total_steps: 56, cpu: Cpu::new(1).unwrap() };
            let pairs = [&*format!("learning_rate_schedule={schedule}"), "learning_rate=0.5"];
            let mut algo = config(&pairs).build(&setup).unwrap();
            algo.start().unwrap();
            algo.iterate().unwrap();
            let before = wide(&algo.model().theta);
            let report = algo.iterate().unwrap();
            close(report.get("learn/learning_rate").unwrap(), 0.5 * left);
            close(report.get("learn/value_learning_rate").unwrap(), left);
            let part = algo.model().critic().params.clone();
            let after = wide(&algo.model().theta);
            let step: Vec<f64> = part.map(|i| after[i] - before[i]).collect();
            close(norm(&step), left * report.get("learn/value_grad_norm").unwrap());
        }
    }
    bootstrap_time_limit => {
        let of = |setting: &str| check(&[setting], &discrete()).step();
        assert_ne!(of("bootstrap_time_limit=true"), of("bootstrap_time_limit=false"));
    }
    discount_states => {
        for psi in ["psi=to-go", "psi=baseline"] {
            let of = |setting: &str| check(&[psi, setting], &discrete()).policy_step();
            assert_ne!(of("discount_states=true"), of("discount_states=false"));
        }
        let mut c = config(&["psi=total"]);
        let given = apply_pair("discount_states=true", "--set", &mut c.parts_mut()).unwrap();
        assert!(check_given(&[given], &c.parts()).is_err(), "the total return has the weight in it");
    }
    normalize_psi => {
        for psi in ["psi=total", "psi=to-go", "psi=baseline"] {
            check(&[psi, "normalize_psi=true", "entropy_coef=0.1"], &continuous());
        }
    }
    entropy_coef => {
        let of = |setting: &str| check(&["psi=to-go", setting], &continuous()).step();
        assert_ne!(of("entropy_coef=0.5"), of("entropy_coef=0"));
        check(&["psi=baseline", "entropy_coef=2"], &discrete());
    }
    max_grad_norm => {
        let free = train(&[], &discrete());
        let bound = train(&["max_grad_norm=0.01"], &discrete());
        close(norm(&bound.policy_step()), 0.01);
        close(norm(&bound.value_step()), 0.01);
        assert!(free.get("learn/grad_norm") > 0.1);
        assert_eq!(free.get("learn/grad_norm"), bound.get("learn/grad_norm"), "reported before the bound");
        close(free.get("learn/grad_norm"), norm(&free.policy_step()));
        close(free.get("learn/value_grad_norm"), norm(&free.value_step()));
    }
    hidden => {
        for (hidden, sizes) in [("hidden=", vec![]), ("hidden=6,4", vec![6, 4])] {
            let trained = check(&[hidden], &discrete());
            assert_eq!(trained.before.shape().hidden, sizes);
        }
    }
    activation => {
        let of = |setting: &str| check(&[setting], &discrete()).step();
        assert_ne!(of("activation=relu"), of("activation=tanh"));
    }
    orthogonal_init => {
        let norms = |setting: &str| {
            let model = train(&["hidden=16", setting], &discrete()).before;
            let view = model.views().into_iter().find(|v| v.name.ends_with("value.weight")).unwrap();
            norm(&wide(&model.theta[view.range]))
        };
        close(norms("orthogonal_init=true"), 1.0);
        assert!((norms("orthogonal_init=false") - 1.0).abs() > 0.01);
    }
    log_std_init => {
        let model = train(&["log_std_init=-1.5"], &continuous()).before;
        let view = model.views().into_iter().find(|v| v.name.ends_with("log_std")).unwrap();
        assert!(model.theta[view.range].iter().all(|x| *x == -1.5));
    }
    rescale_actions => {
        let space = Space::Box(BoxSpace::new(vec![0.0, -1.0, 0.0], vec![255.0, 1.0, f32::INFINITY]));
        let task = Task::new(space, false, Some(9));
        let numbers = |how: &str| train(&[how], &task).before.rescaled().to_vec();
        assert_eq!(numbers("rescale_actions=far"), [true, false, false]);
        assert_eq!(numbers("rescale_actions=all"), [true, true, false]);
        assert_eq!(numbers("rescale_actions=none"), [false; 0]);
    }
    normalize_obs => {
        let count = |setting: &str| {
            let t = train(&[setting], &discrete());
            (t.algo.obs_norm().map(|n| n.save().f64("count").unwrap()), t.samples)
        };
        assert_eq!(count("normalize_obs=false").0, None);
        let (seen, samples) = count("normalize_obs=true");
        assert_eq!(seen, Some(samples as f64), "what it saw while it waited does not count");
    }
    clip_obs => {
        // Before the first batch the normaliser does nothing but clip: observations of 5 become 2.
        let of = |obs, pairs: &[&str]| fixed(obs, 1.0, 4, pairs).step();
        let clipped = of(5.0, &["normalize_obs=true", "clip_obs=2"]);
        assert_eq!(clipped, of(2.0, &[]));
        assert_ne!(clipped, of(5.0, &["normalize_obs=true", "clip_obs=10"]));
    }
    normalize_reward => {
        let psi = |pairs: &[&str]| fixed(1.0, 8.0, 4, &[&["psi=to-go"], pairs].concat()).get("learn/psi_mean");
        let plain = psi(&[]);
        // Discounted sums so far, of four steps of 8.
        let sums: Vec<f64> = (1..=4).map(|n| 8.0 * (1.0 - 0.9f64.powi(n)) / 0.1).collect();
        let mean = sums.iter().sum::<f64>() / 4.0;
        let std = (sums.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4.0).sqrt();
        close(psi(&["normalize_reward=true"]), plain / std);
    }
    clip_reward => {
        // Rewards of 8 / 6.8 are cut at 0.5.
        let got = fixed(1.0, 8.0, 1, &["psi=to-go", "normalize_reward=true", "clip_reward=0.5"]);
        close(got.get("learn/psi_mean"), 0.5);
    }
}

/// The task whose log `trained` left behind, played again.
fn discrete_as(trained: &Trained) -> Task {
    let task = discrete();
    let again = train(&["optimizer=adam"], &task);
    assert_eq!((again.samples, &again.before.theta), (trained.samples, &trained.before.theta));
    task
}

#[test]
fn reports_what_it_says() {
    let task = discrete();
    let t = train(&["psi=baseline", "entropy_coef=0.25"], &task);
    let seen = episodes(&task, &SHARE).concat();
    let batch = Batch::new(&seen, false);
    let theta = wide(&t.before.theta);
    let (_, entropy) = batch.policy(&t.before, &theta);
    let n = seen.len() as f64;
    close(t.get("learn/batch_steps"), n);
    close(t.get("learn/entropy"), entropy.iter().sum::<f64>() / n);
    // Plain rewards-to-go, where a cut episode is an ended one.
    let t = train(&["psi=to-go"], &task);
    let (mut to_go, mut ahead) = (vec![0.0; seen.len()], 0.0);
    for i in (0..seen.len()).rev() {
        ahead = seen[i].reward + if seen[i].end == End::Running { 0.9 * ahead } else { 0.0 };
        to_go[i] = ahead;
    }
    let mean = to_go.iter().sum::<f64>() / n;
    close(t.get("learn/psi_mean"), mean);
    close(t.get("learn/psi_std"), (to_go.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt());
    let (logp, _) = batch.policy(&t.before, &wide(&t.before.theta));
    close(t.get("learn/policy_loss"), -logp.iter().zip(&to_go).map(|(l, g)| l * g).sum::<f64>() / 7.0);
    assert_eq!(t.report.get("learn/value_loss"), None);
}
