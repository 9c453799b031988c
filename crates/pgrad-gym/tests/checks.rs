//! What an environment returns is looked at before it is used.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[expect(dead_code, reason = "what other tests use")]
mod common;

use common::{open, python, run, settings};
use pgrad_env::{Actions, BoxSpace, Dtype, End, EnvError, MakeErrorKind, ObsSpace, Part, Space, VecEnv};
use pgrad_gym::{Gym, GymSettings, OnEnvError, OnOutOfBounds};
use pgrad_num::Cols;
use serde_json::json;

/// Cases of `Wrong`, and what is said of each.
const REFUSED: &[(&str, &str)] = &[
    ("shape (1,)", "shape (1,) and dtype float32, its space has shape (4,)"),
    ("shape (2, 2)", "shape (2, 2) and dtype float32, its space has shape (4,)"),
    ("shape (5,)", "shape (5,)"),
    ("shape ()", "shape () and dtype float32"),
    ("float64", "dtype float64, its space has shape (4,) and dtype float32"),
    ("float64 1e300", "dtype float64"),
    ("int64", "dtype int64"),
    ("list", "the observation is list [0.0"),
    ("none", "the observation is NoneType"),
    ("text", "the observation is str"),
    ("nan", "component 2 of the observation is NaN"),
    ("inf", "component 2 of the observation is inf"),
    ("-inf", "component 2 of the observation is -inf"),
    ("discrete:3", "the observation is 3, its space has 0 to 2"),
    ("discrete:-1", "the observation is -1, its space has 0 to 2"),
    ("discrete:1.5", "the observation is float 1.5"),
    ("discrete:huge", "is 1180591620717411303424, its space has 0 to 2"),
    ("multi-discrete:2", "component 0 of the observation is 2, its space has 0 to 1"),
    ("multi-discrete:float", "dtype float64"),
    ("multi-binary:2", "component 0 of the observation is 2, its space has 0 and 1"),
    ("multi-binary:-1", "component 0 of the observation is -1"),
    ("dict:missing", "the parts ['p'], its space has ['p', 'q']"),
    ("dict:more", "the parts ['p', 'q', 'r']"),
    ("dict:shape", "`p` of the observation is ndarray of shape (3,)"),
    ("dict:nan", "component 1 of `p` of the observation is NaN"),
    ("dict:array", "the observation has the parts ndarray"),
    ("tuple:short", "the observation has the parts 1, its space has 2"),
    ("tuple:range", "`1` of the observation is 2, its space has 0 to 1"),
    ("wide:1e300", "component 1 of the observation is 1e300, which single precision cannot hold"),
    ("reward nan", "the reward is NaN"),
    ("reward inf", "the reward is inf"),
    ("reward 1e300", "the reward is 1"),
    ("reward none", "the reward is NoneType"),
    ("reward text", "the reward is str"),
    ("reward array", "the reward is ndarray of shape (1,)"),
    ("reward vector", "the reward is ndarray of shape (2,)"),
    ("terminated none", "`terminated` is NoneType"),
    ("terminated text", "`terminated` is str 'False'"),
    ("truncated array", "`truncated` is ndarray"),
    ("truncated nan", "`truncated` is float nan"),
    ("four values", "it returned 4 values"),
    ("no tuple", "it returned NoneType"),
];

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    // All cases are environments of their own; a few at a time, as they wait for Python to start.
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some((case, said)) =
                    REFUSED.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    // In a step in the middle; observations also in the first reset and in the final
                    // observation.
                    let at: &[u32] = if case.starts_with(['s', 'n']) && !case.contains("no t") {
                        &[3, 0, 8]
                    } else {
                        &[3]
                    };
                    for at in at {
                        let gym = open(
                            "Wrong-v0",
                            &GymSettings { env_workers: 1, ..settings(&json!({"case": case, "at": at})) },
                        );
                        let error = run(&gym, 2, 10, 1).map(drop).unwrap_err();
                        let text = error.to_string();
                        assert!(text.contains(said), "{case} at {at}: {text}");
                        let place = format!(
                            "environment 0 (`gym:tests.misbehaving:Wrong-v0`), episode 0, step {at}: "
                        );
                        assert!(text.starts_with(&place), "{case} at {at}: {text}");
                    }
                }
            });
        }
    });
}

#[test]
fn numbers_and_flags_of_every_type_are_taken() {
    let gym = open("Kinds-v0", &GymSettings { env_workers: 1, ..settings(&json!({})) });
    let (trace, _) = run(&gym, 2, 18, 1).unwrap();
    for seen in &trace {
        let rewards: Vec<f64> = seen.iter().map(|s| s.reward).collect();
        assert_eq!(rewards, [1.0, 1.0, 0.0, 2.0, 0.5, 0.25, 3.0, 0.75, 4.0].repeat(2));
        let ends: Vec<usize> = (0..18).filter(|t| seen[*t].end != End::Running).collect();
        assert_eq!(ends, [8, 17]);
        assert_eq!(seen[8].end, End::Terminated);
    }
}

/// What JSON has no place for: infinities, and names of files that are not UTF-8.
#[test]
fn what_an_environment_says_of_itself_arrives() {
    let own = GymSettings { on_env_error: OnEnvError::Stop, ..settings(&json!({})) };
    let gym = open("Unspeakable-v0", &own);
    assert_eq!((gym.spec().reward_threshold, gym.own_limit()), (None, Some(10_000_000_000)));
    let error = run(&gym, 1, 3, 1).map(drop).unwrap_err().to_string();
    assert!(error.contains("No such file or directory: '/no\\udcff'"), "{error}");
}

#[test]
fn limits_that_are_none_are_none_and_others_are_refused() {
    let own = |limit: serde_json::Value, threshold: serde_json::Value| {
        let own = settings(&json!({"limit": limit, "threshold": threshold}));
        Gym::open("gym:tests.misbehaving:Limits-v0", &own)
    };
    for (limit, expected) in [
        (json!(7), Some(7)),
        (json!(7.5), Some(7)),
        (json!("inf"), None),
        (json!("nan"), None),
        (json!(0), None),
        (json!("huge"), Some(i64::MAX as u64)),
    ] {
        assert_eq!(own(limit.clone(), json!(1.5)).unwrap().own_limit(), expected, "{limit}");
    }
    let error = own(json!("many"), json!(null)).map(drop).unwrap_err();
    assert!(error.message.contains("`max_episode_steps` is str 'many', not a number of steps"), "{error}");
    for (threshold, expected) in [(json!(1.5), Some(1.5)), (json!("high"), None), (json!(null), None)] {
        assert_eq!(own(json!(7), threshold).unwrap().spec().reward_threshold, expected);
    }
}

#[test]
fn what_lies_outside_its_bounds_is_counted_and_reported_once_or_stops() {
    let rounding = open("Wrong-v0", &settings(&json!({"case": "rounding", "at": 3})));
    let (trace, _) = run(&rounding, 2, 24, 1).unwrap();
    assert!(trace[0][3].obs[2] > 1.0 && rounding.news().notices.is_empty());
    let wrong = settings(&json!({"case": "out of bounds", "at": 3}));
    let gym = open("Wrong-v0", &wrong);
    let (trace, _) = run(&gym, 2, 24, 1).unwrap();
    assert_eq!(trace[0][3].obs[2], 1e9);
    let news = gym.news();
    assert_eq!(news.notices.len(), 1, "{:?}", news.notices);
    let said = "environment 0 (`gym:tests.misbehaving:Wrong-v0`), episode 0, step 3: component 2 of the observation is \
                1000000000.0, its space has -1.0 to 1.0";
    assert!(news.notices[0].starts_with(said), "{}", news.notices[0]);
    assert!(
        news.metrics.contains(&("env/out_of_bounds", 6.0)),
        "3 episodes of 2 environments: {:?}",
        news.metrics
    );
    let strict = GymSettings { on_out_of_bounds: OnOutOfBounds::Stop, ..wrong };
    let error = run(&open("Wrong-v0", &strict), 2, 24, 1).map(drop).unwrap_err();
    assert!(
        matches!(&error, EnvError::Failed { step: 3, reason, .. } if reason.contains("its space has -1.0 to 1.0")),
        "{error}"
    );
}

#[test]
fn spaces_are_flattened_as_gymnasium_does_with_named_parts() {
    let gym = open("Parts-v0", &settings(&json!({})));
    let parts = [
        ("a", Space::Discrete { n: 3 }),
        ("b", BoxSpace::new(vec![-1.0, 0.0], vec![1.0, f32::INFINITY]).shaped(&[2], Dtype::F64).into()),
        ("c.0", Space::MultiDiscrete { nvec: vec![2, 3] }),
        ("c.1", Space::MultiBinary { n: 4 }),
        ("d", BoxSpace::uniform(0.0, 255.0, 4).shaped(&[2, 1, 2], Dtype::U8).into()),
    ];
    let parts = parts.map(|(name, space)| Part { name: name.to_owned(), space });
    let observation = &gym.spec().observation;
    assert_eq!(observation.parts(), parts);
    assert_eq!(observation.component(17), "component [1, 0, 1] of `d`");
    assert_eq!(
        observation.to_string(),
        "Dict('a': Discrete(3), 'b': Box([-1.0 0.0], [1.0 inf], (2,), float64), 'c.0': MultiDiscrete([2 3]), \
         'c.1': MultiBinary(4), 'd': Box(0, 255, (2, 1, 2), uint8))"
    );
    let (trace, _) = run(&gym, 3, 4, 1).unwrap();
    // What `gymnasium.spaces.flatten` says of the same observations.
    let script = "import numpy as np, tests.misbehaving as m\n\
                  from gymnasium.spaces import flatten\n\
                  e = m.Parts(); obs, _ = e.reset(seed=1)\n\
                  print(*flatten(e.observation_space, obs))\n\
                  obs = e.step(np.int64(2))[0]; print(*flatten(e.observation_space, obs))";
    let out = std::process::Command::new(python()).args(["-c", script]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let expected: Vec<Vec<f32>> =
        text.lines().map(|l| l.split(' ').map(|x| x.parse().unwrap()).collect()).collect();
    assert_eq!(expected.len(), 2, "{}", String::from_utf8_lossy(&out.stderr));
    for seen in &trace {
        assert_eq!(seen[0].obs, expected[0]);
        assert_eq!(seen[1].obs, expected[1]);
        assert_eq!((seen[2].end, seen[2].last.as_ref()), (End::Truncated, Some(&expected[1])));
        assert_eq!(seen[3].obs, expected[0], "the next episode");
    }
}

#[test]
fn spaces_are_written_as_gymnasium_writes_them() {
    let boxed = |low, high, shape: &[usize], dtype| -> Space {
        BoxSpace::uniform(low, high, shape.iter().product()).shaped(shape, dtype).into()
    };
    let spaces = [
        boxed(0.0, 255.0, &[84, 84, 4], Dtype::U8),
        boxed(-1.0, 1.5, &[3], Dtype::F32),
        boxed(f32::NEG_INFINITY, f32::INFINITY, &[], Dtype::F64),
        boxed(0.0, 1.0, &[10, 10, 4], Dtype::Bool),
        Space::Discrete { n: 5 },
        Space::MultiDiscrete { nvec: vec![2, 3] },
        Space::MultiBinary { n: 4 },
    ];
    let parts = || {
        let space = Space::Discrete { n: 2 };
        vec![
            Part { name: "a".to_owned(), space: boxed(-0.5, 2.0, &[2], Dtype::F16) },
            Part { name: "b".to_owned(), space },
        ]
    };
    let script = "import numpy as np\n\
                  from gymnasium.spaces import *\n\
                  print(Box(0, 255, (84, 84, 4), np.uint8)); print(Box(-1, 1.5, (3,), np.float32))\n\
                  print(Box(-np.inf, np.inf, (), np.float64)); print(Box(0, 1, (10, 10, 4), bool))\n\
                  print(Discrete(5)); print(MultiDiscrete([2, 3])); print(MultiBinary(4))\n\
                  print(Dict({'a': Box(-0.5, 2, (2,), np.float16), 'b': Discrete(2)}))";
    let out = std::process::Command::new(python()).args(["-W", "ignore", "-c", script]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let ours: Vec<String> = spaces.iter().map(Space::to_string).collect();
    let ours = [ours, vec![ObsSpace::of_parts(parts()).to_string()]].concat();
    assert_eq!(text.lines().collect::<Vec<_>>(), ours, "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn every_action_is_inside_its_space_and_arrives() {
    let product = |parts: Vec<(&str, Space)>| {
        let part = |(name, space): (&str, Space)| Part { name: name.to_owned(), space };
        Space::Product { parts: parts.into_iter().map(part).collect() }
    };
    let boxed = |low, high, shape: &[usize], dtype| {
        Space::Box(BoxSpace::uniform(low, high, shape.iter().product()).shaped(shape, dtype))
    };
    for (action, space) in [
        ("discrete", Space::Discrete { n: 3 }),
        ("multi-discrete", Space::MultiDiscrete { nvec: vec![2, 3] }),
        ("multi-binary", Space::MultiBinary { n: 3 }),
        ("box", Space::Box(BoxSpace::new(vec![-0.1, 0.0], vec![0.1, 2.0]).shaped(&[2], Dtype::F64))),
        ("box32", Space::Box(BoxSpace::uniform(-1.0, 1.0, 4).shaped(&[2, 2], Dtype::F32))),
        ("int", Space::Box(BoxSpace::uniform(-2.0, 3.0, 2).shaped(&[2], Dtype::I16))),
        ("half", Space::Box(BoxSpace::uniform(-1.5, 1.5, 2).shaped(&[2], Dtype::F16))),
        ("tuple", product(vec![("0", Space::Discrete { n: 3 }), ("1", boxed(-0.5, 0.5, &[2], Dtype::F64))])),
        (
            "dict",
            product(vec![
                ("gas", boxed(0.0, 9.0, &[], Dtype::I32)),
                ("gear", Space::Discrete { n: 4 }),
                ("lamps.0", Space::MultiBinary { n: 3 }),
                ("lamps.1", Space::MultiDiscrete { nvec: vec![2, 5] }),
                ("turn", boxed(-1.0, 1.0, &[2, 1], Dtype::F16)),
            ]),
        ),
    ] {
        let gym = open("Parts-v0", &GymSettings { env_workers: 1, ..settings(&json!({"action": action})) });
        assert_eq!(gym.spec().action, space, "{action}");
        // The environment itself refuses what its space does not contain, and pays the sum of what it got.
        let (trace, _) = run(&gym, 2, 12, 1).unwrap_or_else(|e| panic!("{action}: {e}"));
        let rewards: Vec<f64> = trace.iter().flatten().map(|s| s.reward).collect();
        let (min, max) = rewards.iter().fold((f64::MAX, f64::MIN), |(a, b), r| (a.min(*r), b.max(*r)));
        assert!(min < max && gym.news().notices.is_empty(), "{action}: {rewards:?}");
        if action == "discrete" {
            assert!(rewards.iter().all(|r| [2.0, 3.0, 4.0].contains(r)), "{rewards:?}");
        }
    }
}

#[test]
fn parts_of_an_observation_are_left_out() {
    let open = |parts: &str| {
        let own = settings(&json!({"case": "text in dict"}));
        Gym::open("gym:tests.misbehaving:Unusable-v0", &GymSettings { obs_parts: parts.into(), ..own })
    };
    for (parts, space) in [
        ("image, more.x", "Dict('image': Box(-1.0, 1.0, (2,), float32), 'more.x': Discrete(3))"),
        ("more.x,image", "Dict('image': Box(-1.0, 1.0, (2,), float32), 'more.x': Discrete(3))"),
        ("image", "Dict('image': Box(-1.0, 1.0, (2,), float32))"),
        ("more.x", "Dict('more.x': Discrete(3))"),
    ] {
        let gym = open(parts).unwrap();
        assert_eq!(gym.spec().observation.to_string(), space);
        let (trace, _) = run(&gym, 2, 4, 1).unwrap_or_else(|e| panic!("{parts}: {e}"));
        let both = [0.5, -0.5, 0.0, 1.0, 0.0];
        let expected = match parts {
            "image" => &both[..2],
            "more.x" => &both[2..],
            _ => &both[..],
        };
        assert!(trace.iter().flatten().all(|seen| seen.obs == expected), "{parts}: {trace:?}");
    }
    for (parts, said) in [
        (
            "picture",
            "`obs_parts` has `picture`; the observation has the parts `image`, `mission`, `more.x`, `more.y`",
        ),
        ("more", "the observation space cannot be used: `more.y` is a Text space"),
        ("mission", "the observation space cannot be used: `mission` is a Text space"),
    ] {
        let error = open(parts).map(drop).unwrap_err();
        let usage = parts == "picture";
        assert_eq!(error.kind == MakeErrorKind::Usage, usage, "{parts}: {error}");
        assert!(error.message.contains(said), "{parts}: {error}");
    }
    let own = GymSettings { obs_parts: "x".into(), ..settings(&json!({})) };
    let error = Gym::open("gym:CartPole-v1", &own).map(drop).unwrap_err();
    assert!(error.message.contains("`obs_parts` has `x`; the observation has no parts"), "{error}");
}

#[test]
fn each_part_of_an_action_arrives_where_it_belongs() {
    let gym = open("Parts-v0", &settings(&json!({"action": "dict"})));
    let mut env = VecEnv::new(gym.make(1), 1, 0);
    env.start().unwrap();
    let paid = |env: &mut VecEnv, index: [u32; 6], real: [f32; 3]| {
        env.step(Actions { index: Cols::new(&index, 6, 1), real: Cols::new(&real, 3, 1) }).unwrap();
        env.rewards()[0]
    };
    // The sum of all numbers, of which each has a start of its own: gear -1; lamps; 1, -2. Numbers are
    // brought inside their bounds, and integers rounded.
    assert_eq!(paid(&mut env, [0; 6], [0.0; 3]), -1.0 + 1.0 - 2.0);
    assert_eq!(paid(&mut env, [3, 1, 0, 1, 1, 4], [6.4, 0.5, -2.0]), 2.0 + 2.0 + 2.0 + 2.0 + 6.0 + 0.5 - 1.0);
    assert_eq!(
        gym.spec().action.to_string(),
        "Dict('gas': Box(0, 9, (), int32), 'gear': Discrete(4), 'lamps.0': MultiBinary(3), 'lamps.1': \
         MultiDiscrete([2 5]), 'turn': Box(-1.0, 1.0, (2, 1), float16))"
    );
}

#[test]
fn what_cannot_be_used_or_made_says_why() {
    let fails = |id: &str, settings: GymSettings| Gym::open(id, &settings).map(drop).unwrap_err();
    for (case, said) in [
        ("text", "the observation space cannot be used: it is a Text space"),
        ("sequence in dict", "the observation space cannot be used: `s` is a Sequence space"),
        ("text in dict", "`mission` is a Text space"),
        ("text in dict", "; `obs_parts=image,more.x` uses the others"),
        ("text in dict action", "the action space cannot be used: `t` is a Text space"),
        ("empty tuple action", "a space without numbers cannot be used"),
        ("part without numbers", "the action space cannot be used: `none` has no numbers"),
    ] {
        let e = fails("gym:tests.misbehaving:Unusable-v0", settings(&json!({"case": case})));
        assert!(e.kind == MakeErrorKind::Data && e.message.contains(said), "{case}: {e}");
    }
    let usual = || settings(&json!({}));
    let e = fails("gym:NoSuchEnv-v0", usual());
    assert!(e.kind == MakeErrorKind::Usage && e.message.contains("NoSuchEnv"), "{e}");
    let e = fails("gym:no_such_module:E-v0", usual());
    assert!(e.kind == MakeErrorKind::Usage && e.message.contains("has no module `no_such_module`"), "{e}");
    let e = fails("gym:CartPole-v1", GymSettings { python: "/no/such/python".into(), ..usual() });
    assert!(e.kind == MakeErrorKind::Usage && e.message.contains("cannot start `/no/such/python`"), "{e}");
    assert!(e.hint.unwrap_or_default().contains("--python"));
    let e = fails("gym:CartPole-v1", settings(&json!({"no_such_argument": 1})));
    assert!(e.kind == MakeErrorKind::Usage && e.message.contains("no_such_argument"), "{e}");
    let e = fails("gym:CartPole-v1", GymSettings { env_kwargs: "7".into(), ..usual() });
    assert!(e.kind == MakeErrorKind::Usage && e.message.contains("env_kwargs"), "{e}");
    for name in ["gym:", "gym:a b", "gym:a:b:c", "gym:;x"] {
        assert_eq!(fails(name, usual()).kind, MakeErrorKind::Usage, "{name}");
    }
    // What is written arrives, to any depth; what has no counterpart is refused by its name.
    let given = |text: &str| {
        fails("gym:tests.misbehaving:Echo-v0", GymSettings { env_kwargs: text.into(), ..usual() }).message
    };
    let message =
        given("{ z = [0.7, inf], n = { a = -inf, b = 1, c = 1.0, d = \"x\", e = [nan] }, f = true }");
    let arrived =
        "given {'f': True, 'n': {'a': -inf, 'b': 1, 'c': 1.0, 'd': 'x', 'e': [nan]}, 'z': [0.7, inf]}";
    assert!(message.contains(arrived), "{message}");
    assert!(
        given(r#"{"n": 123456789012345678901, "x": 2.0}"#).contains("{'n': 123456789012345678901, 'x': 2.0}")
    );
    assert!(given("{ n = { day = 2024-05-01 } }").contains("`n.day`"));
    // A TOML table does as well.
    let toml = GymSettings { env_kwargs: "{ sutton_barto_reward = true }".into(), ..usual() };
    assert_eq!(Gym::open("gym:CartPole-v1", &toml).unwrap().own_limit(), Some(500));
}
