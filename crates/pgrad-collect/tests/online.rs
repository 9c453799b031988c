//! Steps one at a time, against what the environments themselves remember, and gradients at single states
//! against finite differences in `f64`.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod common;

use common::{Batch, OBS, Task, relative_difference, tasks, wide};
use pgrad_collect::Stepper;
use pgrad_engine::{PointGradients, Traces, bootstrap::after_step};
use pgrad_env::{
    Action, BatchResult, BoxSpace, Each, End, Env, EnvError, EnvSpec, Obs, Space, Step,
    probe::{ActionKind, EndlessReward, MaskedAction},
    spec_of,
};
use pgrad_math::dist::{ActionDist, Actions};
use pgrad_model::{ActorCritic, AgentError, Critic, ModelShape, Trunk};
use pgrad_nn::Activation;
use pgrad_num::{Array, Record, Stream};
use pgrad_testkit::{assert_allocates_nothing, finite_difference_gradient};

#[global_allocator]
static ALLOCATOR: pgrad_testkit::CountingAllocator = pgrad_testkit::CountingAllocator;

const N: usize = 3;

fn model(obs_dim: usize, action: Space, hidden: &[usize], critic: Critic) -> ActorCritic {
    let shape = ModelShape {
        obs_dim,
        action,
        hidden: hidden.to_vec(),
        activation: Activation::Tanh,
        trunk: Trunk::Separate,
        critic,
        log_std_init: -0.3,
    };
    let mut model = ActorCritic::new(shape, true, 3).unwrap();
    // Far from the nearly uniform first policy, and with no parameter at 0.
    let mut rng = Stream::new(8, 0, 0);
    model.theta.iter_mut().for_each(|x| *x = 0.4 * rng.normal() as f32);
    model
}

fn numbers(action: Actions<'_, f32>) -> (Vec<u32>, Vec<f32>) {
    (action.index.data().to_vec(), action.real.data().to_vec())
}

#[test]
fn transitions_are_what_the_environments_saw() {
    for task in tasks(Some(7)) {
        let model = model(OBS, task.action.clone(), &[4], Critic::State);
        let mut stepper = Stepper::new(N, task.make(), &model, 5, 0).unwrap();
        task.log.lock().unwrap().clear();
        stepper.start().unwrap();
        let (mut logp, mut ends) = (Vec::new(), [0; 3]);
        let mut at = [(0u64, 0u32); N];
        for t in 0..120 {
            stepper.act(&model).unwrap();
            stepper.advance().unwrap();
            // Drawing the next actions changes nothing of the last transition.
            if t % 2 == 0 {
                stepper.act(&model).unwrap();
            }
            let log = task.log.lock().unwrap();
            for b in 0..N {
                let (got, seen) = (stepper.transition(b), log[b].last().unwrap());
                assert_eq!((got.env, got.episode, got.step), (b, at[b].0, at[b].1));
                assert_eq!((got.obs.data(), got.next_obs.data()), (&seen.obs[..], &seen.next[..]));
                assert_eq!(got.mask.map(|m| m.data().to_vec()), task.masked.then(|| seen.mask.clone()));
                assert_eq!(numbers(got.action), (seen.index.clone(), seen.real.clone()));
                assert_eq!((got.reward, got.end), (seen.reward as f32, seen.end));
                let ended = seen.end != End::Running;
                let next_mask = (task.masked && ended).then(|| seen.next_mask.clone());
                assert_eq!(got.next_mask.map(|m| m.data().to_vec()), next_mask);
                assert_eq!(got.continues(), seen.end == End::Running);
                ends[seen.end as usize] += 1;
                at[b] = if got.continues() { (at[b].0, at[b].1 + 1) } else { (at[b].0 + 1, 0) };
                if b == 0 {
                    logp.push(f64::from(got.logp));
                }
            }
        }
        assert!(ends.iter().all(|n| *n > 8), "every kind of ending: {ends:?}");
        let log = task.log.lock().unwrap();
        let expected = Batch::new(&log[0], task.masked).policy(&model, &wide(&model.theta)).0;
        assert!(relative_difference(&logp, &expected) < 1e-5, "{}", task.action);
        let counted = log.iter().flatten().filter(|s| s.end != End::Running).count();
        assert_eq!(stepper.episodes().count(), counted);
        drop(log);
        stepper.clear_episodes();
        assert_eq!(stepper.episodes().count(), 0);
    }
}

#[test]
fn actions_are_drawn_once_and_then_taken() {
    let task = Task::new(Space::Discrete { n: 4 }, false, None);
    let model = model(OBS, task.action.clone(), &[], Critic::None);
    let mut stepper = Stepper::new(N, task.make(), &model, 5, 0).unwrap();
    stepper.start().unwrap();
    for _ in 0..50 {
        stepper.act(&model).unwrap();
        let drawn: Vec<_> = (0..N).map(|b| numbers(stepper.drawn(b))).collect();
        stepper.act(&model).unwrap();
        assert_eq!((0..N).map(|b| numbers(stepper.drawn(b))).collect::<Vec<_>>(), drawn);
        stepper.advance().unwrap();
        assert_eq!((0..N).map(|b| numbers(stepper.transition(b).action)).collect::<Vec<_>>(), drawn);
    }
}

#[test]
fn another_policy_may_act() {
    let task = Task::new(Space::Discrete { n: 4 }, true, Some(9));
    let model = model(OBS, task.action.clone(), &[], Critic::None);
    let mut stepper = Stepper::new(N, task.make(), &model, 5, 0).unwrap();
    stepper.start().unwrap();
    let mut taken = [0; 4];
    for _ in 0..400 {
        // b(a|s) ∝ (1, 2, 3, 4) among what is allowed.
        let weights = [1.0f32, 2.0, 3.0, 4.0];
        stepper
            .act_with(&ActionDist::Categorical { n: 4 }, |obs, mut out| {
                assert_eq!((obs.rows(), obs.cols()), (OBS, N));
                (0..4).for_each(|a| out.row_mut(a).fill(weights[a].ln()));
            })
            .unwrap();
        stepper.advance().unwrap();
        for b in 0..N {
            let t = stepper.transition(b);
            let a = numbers(t.action).0[0] as usize;
            let allowed: f32 =
                t.mask.unwrap().data().iter().zip(weights).map(|(m, w)| if *m { w } else { 0.0 }).sum();
            assert!((t.logp - (weights[a] / allowed).ln()).abs() < 1e-5);
            taken[a] += 1;
        }
    }
    assert!(taken.windows(2).all(|w| w[1] > w[0] + 50), "{taken:?}");
}

#[test]
fn scores_and_value_gradients_are_those_of_finite_differences() {
    for task in tasks(Some(9)) {
        for hidden in [&[][..], &[5], &[4, 3]] {
            let model = model(OBS, task.action.clone(), hidden, Critic::State);
            let mut stepper = Stepper::new(N, task.make(), &model, 6, 0).unwrap();
            let mut point = PointGradients::new(&model);
            task.log.lock().unwrap().clear();
            stepper.start().unwrap();
            for _ in 0..4 {
                stepper.act(&model).unwrap();
                stepper.advance().unwrap();
            }
            let (theta, actor) = (wide(&model.theta), model.actor().params.clone());
            for b in 0..N {
                let seen = task.log.lock().unwrap()[b].last().unwrap().clone();
                let batch = Batch::new(&[seen], task.masked);
                let t = stepper.transition(b);

                // What is there beforehand is overwritten.
                let mut score = vec![7.0; actor.len()];
                let logp = point.score(&model, &t, &mut score);
                let expected = finite_difference_gradient(|x| batch.policy(&model, x).0[0], &theta);
                assert!(relative_difference(&wide(&score), &expected[actor.clone()]) < 1e-4);
                assert!((f64::from(logp) - batch.policy(&model, &theta).0[0]).abs() < 1e-5);

                let critic = model.critic().params.clone();
                let mut gradient = vec![7.0; critic.len()];
                let v = point.value_gradient(&model, t.next_obs, 0, &mut gradient);
                let value = |x: &[f64]| batch.values(&model, x, &batch.next)[0];
                assert!((f64::from(v) - value(&theta)).abs() < 1e-5);
                assert_eq!(point.values(&model, t.next_obs), [v]);
                let expected = finite_difference_gradient(value, &theta);
                assert!(relative_difference(&wide(&gradient), &expected[critic]) < 1e-4);
            }
        }
    }
}

#[test]
fn the_gradient_of_one_actions_value_leaves_the_others_out() {
    let model = model(1, Space::Discrete { n: 3 }, &[], Critic::Action);
    let mut point = PointGradients::new(&model);
    let x = [2.0];
    let obs = pgrad_num::Cols::new(&x, 1, 1);
    let q = point.values(&model, obs).to_vec();
    for a in 0..3 {
        let mut gradient = vec![7.0; model.critic().params.len()];
        assert_eq!(point.value_gradient(&model, obs, a, &mut gradient), q[a]);
        // Weights of the three actions, then their biases.
        let expected: Vec<f32> =
            [2.0, 1.0].iter().flat_map(|g| (0..3).map(move |i| if i == a { *g } else { 0.0 })).collect();
        assert_eq!(gradient, expected);
    }
}

#[test]
fn the_expected_value_is_the_slow_sum() {
    let model = model(2, Space::Discrete { n: 3 }, &[4], Critic::Action);
    let mut point = PointGradients::new(&model);
    let x = [0.3, -1.2];
    let obs = pgrad_num::Cols::new(&x, 2, 1);
    let q = wide(point.values(&model, obs));
    let mut tape = model.actor().net.tape(1);
    let z = wide(model.policy_outputs(obs, &mut tape).as_cols().data());
    for allowed in [[true; 3], [true, false, true], [false, true, false]] {
        let p: Vec<f64> = (0..3).map(|a| if allowed[a] { z[a].exp() } else { 0.0 }).collect();
        let slow = p.iter().zip(&q).map(|(p, q)| p * q).sum::<f64>() / p.iter().sum::<f64>();
        let got = point.expected_value(&model, obs, Some(pgrad_num::Cols::new(&allowed, 3, 1)));
        assert!((f64::from(got) - slow).abs() < 1e-5, "{got}, {slow}");
        if allowed == [true; 3] {
            assert_eq!(point.expected_value(&model, obs, None), got);
        }
    }
    assert!(point.expected_value(&model, obs, Some(pgrad_num::Cols::new(&[false; 3], 3, 1))).is_nan());
}

#[test]
fn traces_are_the_slow_sum() {
    let mut rng = Stream::new(2, 0, 0);
    let mut traces = Traces::new(2, 5);
    let mut added: Vec<Vec<(f64, Vec<f64>)>> = vec![Vec::new(); 2];
    for t in 0..40 {
        let b = t % 2;
        let (decay, weight) = (0.9f32, rng.normal() as f32);
        let g: Vec<f32> = (0..5).map(|_| rng.normal() as f32).collect();
        let returned = traces.accumulate(b, decay, weight, &g).to_vec();
        assert_eq!(returned, traces.get(b));
        added[b].push((f64::from(weight), wide(&g)));
        let slow: Vec<f64> = (0..5)
            .map(|i| {
                let age = |k: usize| (added[b].len() - 1 - k) as i32;
                added[b].iter().enumerate().map(|(k, (w, g))| 0.9f64.powi(age(k)) * w * g[i]).sum()
            })
            .collect();
        assert!(relative_difference(&wide(&returned), &slow) < 1e-5);
        if t == 20 {
            traces.reset(0);
            added[0].clear();
            assert!(traces.get(0).iter().all(|z| *z == 0.0) && traces.get(1).iter().all(|z| *z != 0.0));
        }
    }
    let mut r = Record::new();
    traces.save("z", &mut r);
    let mut other = Traces::new(2, 5);
    other.load("z", &r).unwrap();
    assert_eq!(other, traces);
    assert!(Traces::new(2, 4).load("z", &r).is_err());
    let mut bad = Record::new();
    bad.put("z", vec![f32::NAN; 10]);
    assert!(other.load("z", &bad).is_err());
    assert_eq!(other, traces);
    other.clear();
    assert_eq!(other, Traces::new(2, 5));
}

#[test]
fn each_ending_has_its_value_of_what_follows() {
    for (end, on, off) in [(End::Running, 3.0, 3.0), (End::Terminated, 0.0, 0.0), (End::Truncated, 3.0, 0.0)]
    {
        assert_eq!((after_step(end, 3.0, true), after_step(end, 3.0, false)), (on, off));
    }
}

/// Everything of a transition, to compare.
fn whole(stepper: &Stepper) -> Vec<String> {
    (0..stepper.n_envs()).map(|b| format!("{:?}", stepper.transition(b))).collect()
}

#[test]
fn a_saved_stepper_continues_exactly_also_between_drawing_and_stepping() {
    let masked = Each::maker(MaskedAction::default);
    let endless = Each::maker(|| EndlessReward::new(ActionKind::Continuous, 5));
    let makes: [&dyn Fn(usize) -> BatchResult; 2] = [&masked, &endless];
    for make in makes {
        let spec = spec_of(make).unwrap();
        let model = model(spec.observation.obs_dim(), spec.action.clone(), &[3], Critic::State);
        for drawn in [false, true] {
            let mut one = Stepper::new(N, make, &model, 5, 0).unwrap();
            one.start().unwrap();
            for _ in 0..13 {
                one.act(&model).unwrap();
                one.advance().unwrap();
            }
            if drawn {
                one.act(&model).unwrap();
            }
            let mut two = Stepper::new(N, make, &model, 5, 0).unwrap();
            assert!(two.load(&one.save()).unwrap());
            assert_eq!(two.save(), one.save());
            // Drawn under the old parameters: they must not be drawn again.
            let mut other = model.clone();
            other.theta.iter_mut().for_each(|x| *x = -*x);
            for _ in 0..20 {
                for s in [&mut one, &mut two] {
                    s.act(&other).unwrap();
                    s.advance().unwrap();
                }
                assert_eq!(whole(&one), whole(&two));
            }
        }
    }
}

#[test]
fn a_record_that_does_not_fit_is_refused() {
    let make = Each::maker(MaskedAction::default);
    let model = model(2, Space::Discrete { n: 3 }, &[], Critic::State);
    let mut stepper = Stepper::new(N, make, &model, 5, 0).unwrap();
    stepper.start().unwrap();
    stepper.act(&model).unwrap();
    let good = stepper.save();
    let bad: [(&str, Array); 4] = [
        ("drawn_index", vec![0u64, 3, 0].into()),
        ("drawn_index", vec![0u64; 2].into()),
        ("drawn_logp", vec![0.0f32, f32::NAN, 0.0].into()),
        ("actions", vec![0u64; 2].into()),
    ];
    for (name, array) in bad {
        let mut record = Record::new();
        for (key, old) in good.iter() {
            record.put(key, if key == name { array.clone() } else { old.clone() });
        }
        assert!(stepper.load(&record).is_err(), "{name}");
    }
    assert!(stepper.load(&good).unwrap());
}

/// Shows 0.5 and gives 1, but for its third step.
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
            action: Space::Box(BoxSpace::uniform(-0.1, 0.1, 1)),
            max_episode_steps: None,
            reward_threshold: None,
            masks_actions: false,
        }
    }
    fn reset(&mut self, _: &mut Stream, obs: &mut Obs<'_>) {
        obs.write(&[0.5]);
    }
    fn step(&mut self, action: Action<'_>, _: &mut Stream, obs: &mut Obs<'_>) -> Step {
        assert!(matches!(action, Action::Box([a]) if a.abs() <= 0.1), "clipped to the bounds");
        self.step += 1;
        let third = self.step == 3;
        obs.write(&[if third { self.obs } else { 0.5 }]);
        Step { reward: if third { self.reward } else { 1.0 }, end: End::Running }
    }
}

#[test]
fn what_is_not_finite_is_named_and_goes_no_further() {
    let run = |reward: f64, obs: f32, log_std: f32, weight: f32| {
        let make = Each::maker(move || Third { reward, obs, step: 0 });
        let mut model = model(1, Space::Box(BoxSpace::uniform(-0.1, 0.1, 1)), &[], Critic::None);
        model.theta.copy_from_slice(&[weight, 0.0, log_std]);
        let mut stepper = Stepper::new(2, make, &model, 5, 0).unwrap();
        stepper.start().unwrap();
        for _ in 0..5 {
            let before = whole(&stepper);
            if let Err(e) = stepper.act(&model).and_then(|()| stepper.advance()) {
                assert_eq!(whole(&stepper), before, "the last good transition is still there");
                return Some(e);
            }
            // Drawn far outside, remembered as drawn.
            let drawn = numbers(stepper.transition(0).action).1[0];
            assert!(drawn.abs() > 0.1 || log_std > 80.0, "{drawn}");
        }
        None
    };
    assert_eq!(run(1.0, 0.5, 3.0, 50.0), None);
    let e = run(f64::NAN, 0.5, 3.0, 50.0);
    assert!(
        matches!(e, Some(AgentError::Env(EnvError::Reward { env: 0, episode: 0, step: 3, .. }))),
        "{e:?}"
    );
    let e = run(1.0, f32::INFINITY, 3.0, 50.0);
    assert!(
        matches!(&e, Some(AgentError::Env(EnvError::Observation { env: 0, step: 3, component, .. })) if &**component == "component 0"),
        "{e:?}"
    );
    let e = run(1.0, 0.5, 3.0, f32::INFINITY);
    assert!(
        matches!(e, Some(AgentError::Output { network: "policy", env: 0, step: 0, index: 0, .. })),
        "{e:?}"
    );
    let e = run(1.0, 0.5, 90.0, 0.0);
    assert!(matches!(e, Some(AgentError::Action { index: 0, step: 0, .. })), "{e:?}");
    let (make, m) = (
        Task::new(Space::Discrete { n: 2 }, false, None),
        model(OBS, Space::Discrete { n: 2 }, &[], Critic::None),
    );
    let mut stepper = Stepper::new(1, make.make(), &m, 5, 0).unwrap();
    stepper.start().unwrap();
    stepper.act(&m).unwrap();
    stepper.advance().unwrap();
    let t = stepper.transition(0);
    assert_eq!(t.finite("value", 2.0), Ok(2.0));
    let e = t.finite("value", f32::INFINITY).unwrap_err();
    assert_eq!(e.to_string(), "environment 0, episode 0, step 0: the value is inf");
}

#[test]
fn a_step_allocates_nothing() {
    let make = Each::maker(MaskedAction::default);
    let model = model(2, Space::Discrete { n: 3 }, &[], Critic::State);
    let mut stepper = Stepper::new(N, make, &model, 5, 300 * N).unwrap();
    let mut point = PointGradients::new(&model);
    let mut traces = Traces::new(N, model.actor().params.len());
    let (mut score, mut gradient) =
        (vec![0.0; model.actor().params.len()], vec![0.0; model.critic().params.len()]);
    stepper.start().unwrap();
    let mut step = |stepper: &mut Stepper| {
        stepper.act(&model).unwrap();
        stepper.advance().unwrap();
        for b in 0..N {
            let t = stepper.transition(b);
            point.score(&model, &t, &mut score);
            point.value_gradient(&model, t.obs, 0, &mut gradient);
            traces.accumulate(b, 0.9, 1.0, &score);
        }
    };
    step(&mut stepper);
    assert_allocates_nothing(|| (0..100).for_each(|_| step(&mut stepper)));
    assert!(stepper.episodes().count() > 100);
}
