use super::*;
use pgrad_num::Moments;

fn policy(action: Space, trunk: Trunk, normalised: bool) -> Policy {
    policy_with(None, action, trunk, normalised)
}

fn policy_with(cell: Option<Cell>, action: Space, trunk: Trunk, normalised: bool) -> Policy {
    let shape = ModelShape {
        obs_dim: 3,
        action,
        hidden: vec![5, 4],
        activation: Activation::Tanh,
        trunk,
        critic: Critic::State,
        log_std_init: -0.5,
    };
    let memory = cell.map(|cell| Recurrence { cell, size: 6, sequence_length: 3, span: None });
    let model = ActorCritic::with_memory(shape, vec![5, 4], memory, true, 9).unwrap();
    let norm = normalised.then(|| {
        let mut norm = ObsNormalizer::new(3, 5.0);
        let mut seen = Moments::new(3);
        seen.add_cols(Cols::new(&[1.0, 2.0, 5.0, 7.0, -1.0, 4.0], 3, 2));
        norm.merge(&seen);
        norm
    });
    Policy::new("Test-v0", model, norm, 1).with_observation(card::parts_of_three())
}

fn spaces() -> Vec<Space> {
    vec![
        Space::Discrete { n: 4 },
        Space::MultiDiscrete { nvec: vec![2, 3] },
        Space::MultiBinary { n: 3 },
        Space::Box(BoxSpace::new(vec![-1.0, f32::NEG_INFINITY], vec![0.5, f32::INFINITY])),
        Space::Box(BoxSpace::uniform(-1.0, 1.0, 2).shaped(&[1, 2], pgrad_env::Dtype::F64)),
        hybrid(),
    ]
}

fn hybrid() -> Space {
    let part = |(name, space): (&str, Space)| Part { name: name.to_owned(), space };
    let parts = [
        ("lamps", Space::MultiBinary { n: 2 }),
        ("aim.x", Space::Box(BoxSpace::uniform(0.0, 500.0, 1).shaped(&[], pgrad_env::Dtype::F64))),
        ("gear", Space::Discrete { n: 3 }),
        ("push", Space::Box(BoxSpace::new(vec![-1.0, f32::NEG_INFINITY], vec![1.0, f32::INFINITY]))),
    ];
    Space::Product { parts: parts.map(part).to_vec() }
}

#[test]
fn an_action_with_parts_names_them_and_stays_inside_their_bounds() {
    let mut p = policy(hybrid(), Trunk::Separate, false);
    let mut rng = Stream::new(2, 0, 0);
    let mut gears = [0; 3];
    for _ in 0..300 {
        let ActionValue::Product(parts) = p.sample(&[0.5, 1.0, -1.0], &mut rng).unwrap() else { panic!() };
        let names: Vec<&str> = parts.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, ["lamps", "aim.x", "gear", "push"]);
        let [
            (_, ActionValue::MultiBinary(lamps)),
            (_, ActionValue::Box(aim)),
            (_, ActionValue::Discrete(gear)),
            (_, ActionValue::Box(push)),
        ] = &parts[..]
        else {
            panic!("{parts:?}");
        };
        assert!(lamps.len() == 2 && lamps.iter().all(|x| *x < 2));
        assert!(aim.len() == 1 && (0.0..=500.0).contains(&aim[0]));
        assert!(push.len() == 2 && (-1.0..=1.0).contains(&push[0]));
        gears[*gear] += 1;
    }
    assert!(gears.iter().all(|n| *n > 50), "{gears:?}");
    // A mask has the entries of the one choice.
    let ActionValue::Product(parts) = p.act_masked(&[0.5, 1.0, -1.0], &[false, false, true]).unwrap() else {
        panic!()
    };
    assert_eq!(parts[2], ("gear".to_owned(), ActionValue::Discrete(2)));
    assert!(p.act_masked(&[0.5, 1.0, -1.0], &[false; 3]).is_err());
}

#[test]
fn a_policy_comes_back_from_its_bytes_and_acts_the_same() {
    for space in spaces() {
        for trunk in [Trunk::Separate, Trunk::Shared] {
            for normalised in [false, true] {
                let mut a = policy(space.clone(), trunk, normalised);
                let bytes = a.to_bytes().unwrap();
                let mut b = Policy::from_bytes(&bytes).unwrap();
                assert_eq!(b.to_bytes().unwrap(), bytes);
                assert_eq!(b.env_id(), "Test-v0");
                assert_eq!((b.action_space(), b.observation_space()), (&space, &card::parts_of_three()));
                let obs = [0.3, -2.0, 8.0];
                assert_eq!(a.act(&obs).unwrap(), b.act(&obs).unwrap());
                let (mut r, mut s) = (Stream::new(1, 0, 0), Stream::new(1, 0, 0));
                for _ in 0..20 {
                    assert_eq!(a.sample(&obs, &mut r).unwrap(), b.sample(&obs, &mut s).unwrap());
                }
            }
        }
    }
}

#[test]
fn a_recurrent_policy_comes_back_and_remembers_and_forgets() {
    for cell in [Cell::Lstm, Cell::Gru] {
        for space in spaces() {
            for trunk in [Trunk::Separate, Trunk::Shared] {
                let mut a = policy_with(Some(cell), space.clone(), trunk, true);
                let bytes = a.to_bytes().unwrap();
                let mut b = Policy::from_bytes(&bytes).unwrap();
                assert!(b.is_recurrent() && b.to_bytes().unwrap() == bytes);
                let outputs = |p: &mut Policy| {
                    let mut out = vec![0.0; p.model.dist().n_outputs()];
                    let rows = out.len();
                    p.outputs(Cols::new(&[0.3, -2.0, 8.0], 3, 1), ColsMut::new(&mut out, rows, 1));
                    out
                };
                let fresh = outputs(&mut a);
                assert_eq!(outputs(&mut a), fresh, "to look changes nothing");
                for obs in [[1.0, 2.0, 3.0], [-3.0, 0.5, 4.0]] {
                    assert_eq!(a.act(&obs).unwrap(), b.act(&obs).unwrap());
                }
                assert_ne!(outputs(&mut a), fresh, "it remembers");
                assert_eq!(outputs(&mut a), outputs(&mut b));
                a.reset();
                b.reset_one(0);
                assert_eq!((outputs(&mut a), outputs(&mut b)), (fresh.clone(), fresh));
            }
        }
    }
}

#[test]
fn each_observation_of_a_batch_is_remembered_by_itself() {
    let single = |seen: &[[f32; 3]]| {
        let mut p = policy_with(Some(Cell::Lstm), Space::Discrete { n: 4 }, Trunk::Separate, true);
        seen.iter().for_each(|obs| drop(p.act(obs).unwrap()));
        p.states
    };
    let mut p = policy_with(Some(Cell::Lstm), Space::Discrete { n: 4 }, Trunk::Separate, true).with_batch(3);
    let mut actions = [0; 3];
    let mut act = |p: &mut Policy, obs: [[f32; 3]; 3]| {
        let x: Vec<f32> = (0..9).map(|i| obs[i % 3][i / 3]).collect();
        let to = ActionsMut::index(ColsMut::new(&mut actions, 1, 3));
        p.act_batch(Cols::new(&x, 3, 3), None, None, to);
    };
    let [a, b, c, d] = [[1.0, 0.0, 2.0], [0.0, 3.0, 1.0], [5.0, 1.0, 1.0], [2.0, 2.0, -4.0]];
    act(&mut p, [a, b, c]);
    p.reset_one(1);
    act(&mut p, [d, c, a]);
    let expected = [single(&[a, d]), single(&[c]), single(&[c, a])].concat();
    assert_eq!(p.states, expected);
}

#[test]
fn real_actions_stay_inside_their_bounds() {
    let mut p = policy(spaces().remove(3), Trunk::Separate, false);
    let mut rng = Stream::new(4, 0, 0);
    let mut beyond = 0;
    for _ in 0..500 {
        let ActionValue::Box(a) = p.sample(&[0.0, 0.0, 0.0], &mut rng).unwrap() else { panic!() };
        assert!((-1.0..=0.5).contains(&a[0]));
        beyond += usize::from(a[1].abs() > 0.7);
    }
    assert!(beyond > 50, "the unbounded number is not clipped");
}

#[test]
fn a_rescaled_policy_comes_back_and_acts_in_the_units_of_its_environment() {
    let space = Space::Box(BoxSpace::new(vec![500.0, -1.0, 0.0], vec![1000.0, 1.0, f32::INFINITY]));
    let raw = policy(space.clone(), Trunk::Separate, false);
    let mut a = policy(space.clone(), Trunk::Separate, false);
    a.model = a.model.with_rescaled(crate::Rescale::Far.numbers(&space));
    let mut a = a.with_batch(1);
    let bytes = a.to_bytes().unwrap();
    let mut b = Policy::from_bytes(&bytes).unwrap();
    assert_eq!(b.to_bytes().unwrap(), bytes);
    assert!(String::from_utf8_lossy(&bytes).contains("\\\"rescaled\\\":[true,false,false]"));
    let old = raw.to_bytes().unwrap();
    assert!(!String::from_utf8_lossy(&old).contains("rescaled"), "as before where nothing is rescaled");
    let mut raw = Policy::from_bytes(&old).unwrap();
    let obs = [0.3, -2.0, 8.0];
    let mut mean = [0.0; 6];
    raw.outputs(Cols::new(&obs, 3, 1), ColsMut::new(&mut mean, 6, 1));
    let expected = (750.0 + 250.0 * f64::from(mean[0])) as f32;
    let ActionValue::Box(scaled) = a.act(&obs).unwrap() else { panic!() };
    assert_eq!(scaled[0].to_bits(), expected.to_bits());
    assert_eq!(b.act(&obs).unwrap(), ActionValue::Box(scaled.clone()));
    let plain = ActionValue::Box(vec![500.0, scaled[1], scaled[2]]);
    assert_eq!(raw.act(&obs).unwrap(), plain, "without the field nothing is rescaled");
    let (record, note) = tensors::decode(&bytes).unwrap();
    let forged = note.unwrap().replace("[true,false,false]", "[true,false,true]");
    let forged = Policy::from_bytes(&tensors::seal(&record, &forged).unwrap());
    assert!(matches!(forged, Err(PolicyError::Card(_))), "no range: {forged:?}");
}

#[test]
fn a_mask_is_obeyed_and_an_empty_one_refused() {
    let mut p = policy(Space::Discrete { n: 4 }, Trunk::Separate, false);
    for only in 0..4 {
        let mask: Vec<bool> = (0..4).map(|i| i == only).collect();
        assert_eq!(p.act_masked(&[1.0, 0.0, 0.0], &mask).unwrap(), ActionValue::Discrete(only));
    }
    for bad in [&[false; 4][..], &[true; 3]] {
        assert!(matches!(p.act_masked(&[1.0, 0.0, 0.0], bad), Err(PolicyError::Mask { expected: 4 })));
    }
}

#[test]
fn wrong_observations_are_refused() {
    let mut p = policy(Space::Discrete { n: 2 }, Trunk::Separate, true);
    assert!(matches!(p.act(&[1.0]), Err(PolicyError::Observation { expected: 3, got: 1 })));
    assert!(matches!(p.act(&[1.0, f32::NAN, 0.0]), Err(PolicyError::NonFinite { index: 1, .. })));
}

#[test]
fn damage_is_refused_and_nothing_that_is_forged_panics() {
    let two = || Space::Discrete { n: 2 };
    for (cell, space, format) in
        [(None, two(), FORMAT_PLAIN), (Some(Cell::Lstm), two(), FORMAT_PLAIN), (None, hybrid(), FORMAT)]
    {
        let bytes = policy_with(cell, space, Trunk::Separate, true).to_bytes().unwrap();
        for len in 0..bytes.len() {
            assert!(Policy::from_bytes(&bytes[..len]).is_err(), "cut to {len}");
        }
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 0x10;
            assert!(Policy::from_bytes(&damaged).is_err(), "byte {i}");
            // As if somebody had made it so on purpose: what it says may be wrong in every way.
            if let Ok((record, Some(note))) = tensors::decode(&damaged) {
                drop(Policy::from_bytes(&tensors::seal(&record, &note).unwrap()));
            }
        }
        let unsealed = tensors::decode(&bytes).unwrap();
        let unsealed = Policy::from_bytes(&tensors::encode(&unsealed.0, unsealed.1.as_deref()).unwrap());
        assert!(matches!(unsealed, Err(PolicyError::Tensors(TensorsError::Unsealed))), "of an older version");
        let readable = String::from_utf8_lossy(&bytes).contains(&format!("\\\"format\\\":{format}"));
        assert!(readable, "the description is readable in the header");
    }
}
