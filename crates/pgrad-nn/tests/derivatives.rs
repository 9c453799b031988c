//! `forward` against a loop written from the definition, `vjp` against finite differences, `jvp` against
//! `vjp` by the adjoint law, for every shape of network that the library builds.

#![expect(clippy::unwrap_used, reason = "helpers of tests may stop a test")]

use pgrad_nn::{Activation, Head, Init, Network};
use pgrad_num::{Cols, ColsMut, Stream};
use pgrad_testkit::{assert_adjoint, assert_gradient};

fn heads(kind: usize) -> Vec<Head> {
    let linear = |name, rows, gain| Head::Linear { name, rows, gain };
    match kind {
        0 => vec![linear("logits", 3, 0.01)],
        1 => vec![linear("mean", 2, 0.5), Head::Free { name: "log_std", rows: 2, value: -0.3 }],
        _ => vec![
            linear("value", 1, 1.0),
            linear("mean", 2, 0.5),
            Head::Free { name: "log_std", rows: 2, value: 0.1 },
        ],
    }
}

/// All networks: depth 0 to 3, both activations, all heads.
fn networks() -> Vec<Network> {
    let mut all = Vec::new();
    for hidden in [&[][..], &[5], &[7, 4], &[17, 16, 3]] {
        for activation in [Activation::Tanh, Activation::Relu] {
            for kind in 0..3 {
                all.push(Network::mlp(4, hidden, activation, heads(kind)).unwrap());
            }
        }
    }
    all
}

struct Case {
    theta: Vec<f64>,
    x: Vec<f64>,
    d_out: Vec<f64>,
}

fn case(net: &Network, cols: usize, seed: u64) -> Case {
    let mut rng = Stream::new(seed, 0, 0);
    let mut normal = |n: usize, scale: f64| (0..n).map(|_| scale * rng.normal()).collect::<Vec<f64>>();
    Case {
        theta: normal(net.n_params(), 0.7),
        x: normal(net.n_inputs() * cols, 1.0),
        d_out: normal(net.n_outputs() * cols, 1.0),
    }
}

/// The definition, one number at a time, through the named views.
fn slow_forward(net: &Network, activation: Activation, theta: &[f64], x: &[f64], cols: usize) -> Vec<f64> {
    let views = net.views();
    let get = |name: &str| {
        views.iter().find(|v| v.name == name).map(|v| (&theta[v.range.clone()], v.shape.clone()))
    };
    let affine = |w: (&[f64], Vec<usize>), b: &[f64], h: &[f64], c: usize| -> Vec<f64> {
        let (rows, inner) = (w.1[0], w.1[1]);
        (0..rows)
            .map(|r| b[r] + (0..inner).map(|i| w.0[r * inner + i] * h[i * cols + c]).sum::<f64>())
            .collect()
    };
    let mut h = x.to_vec();
    for l in 0.. {
        let Some(w) = get(&format!("hidden.{l}.weight")) else { break };
        let b = get(&format!("hidden.{l}.bias")).unwrap().0;
        let rows = w.1[0];
        let mut next = vec![0.0; rows * cols];
        for c in 0..cols {
            for (r, z) in affine(w.clone(), b, &h, c).into_iter().enumerate() {
                next[r * cols + c] = match activation {
                    Activation::Tanh => z.tanh(),
                    Activation::Relu => z.max(0.0),
                };
            }
        }
        h = next;
    }
    let mut out = Vec::new();
    for name in ["value", "logits", "mean"] {
        if let Some(w) = get(&format!("{name}.weight")) {
            let b = get(&format!("{name}.bias")).unwrap().0;
            let columns: Vec<Vec<f64>> = (0..cols).map(|c| affine(w.clone(), b, &h, c)).collect();
            for r in 0..b.len() {
                out.extend(columns.iter().map(|column| column[r]));
            }
        }
    }
    if let Some((values, _)) = get("log_std") {
        for v in values {
            out.extend(std::iter::repeat_n(*v, cols));
        }
    }
    out
}

#[test]
fn forward_is_the_definition() {
    for (i, hidden) in [&[][..], &[5], &[7, 4], &[17, 16, 3]].into_iter().enumerate() {
        for activation in [Activation::Tanh, Activation::Relu] {
            for kind in 0..3 {
                let net = Network::mlp(4, hidden, activation, heads(kind)).unwrap();
                for cols in [1, 5, 64] {
                    let case = case(&net, cols, i as u64);
                    let mut tape = net.tape(64);
                    let out = net.forward(&case.theta, Cols::new(&case.x, 4, cols), &mut tape);
                    let slow = slow_forward(&net, activation, &case.theta, &case.x, cols);
                    let out = out.into_data();
                    assert_eq!(out.len(), slow.len());
                    assert!(out.iter().zip(&slow).all(|(a, b)| (a - b).abs() < 1e-12));
                }
            }
        }
    }
}

#[test]
fn vjp_agrees_with_finite_differences_in_parameters_and_input() {
    for (i, net) in networks().iter().enumerate() {
        for cols in [1, 3] {
            let Case { theta, x, d_out } = case(net, cols, 40 + i as u64);
            let (n_in, n_out) = (net.n_inputs(), net.n_outputs());
            let mut tape = net.tape(cols);
            // <d_out, f(theta, x)>, whose gradient is what vjp returns.
            let mut value = |theta: &[f64], x: &[f64]| -> f64 {
                let y = net.forward(theta, Cols::new(x, n_in, cols), &mut tape);
                y.into_data().iter().zip(&d_out).map(|(a, b)| a * b).sum()
            };
            let mut tape2 = net.tape(cols);
            net.forward(&theta, Cols::new(&x, n_in, cols), &mut tape2);
            let (mut d_theta, mut d_x) = (vec![0.0; net.n_params()], vec![0.0; n_in * cols]);
            net.vjp(
                &theta,
                Cols::new(&x, n_in, cols),
                &mut tape2,
                Cols::new(&d_out, n_out, cols),
                &mut d_theta,
                Some(ColsMut::new(&mut d_x, n_in, cols)),
            );
            assert_gradient(|t| value(t, &x), &theta, &d_theta, 1e-6);
            assert_gradient(|z| value(&theta, z), &x, &d_x, 1e-6);
        }
    }
}

#[test]
fn vjp_adds_to_what_is_there() {
    let net = Network::mlp(4, &[5], Activation::Tanh, heads(1)).unwrap();
    let Case { theta, x, d_out } = case(&net, 3, 7);
    let mut tape = net.tape(3);
    net.forward(&theta, Cols::new(&x, 4, 3), &mut tape);
    let mut once = vec![0.0; net.n_params()];
    net.vjp(&theta, Cols::new(&x, 4, 3), &mut tape, Cols::new(&d_out, 4, 3), &mut once, None);
    let mut twice = once.clone();
    net.vjp(&theta, Cols::new(&x, 4, 3), &mut tape, Cols::new(&d_out, 4, 3), &mut twice, None);
    assert!(once.iter().zip(&twice).all(|(a, b)| (2.0 * a - b).abs() < 1e-12));
}

#[test]
fn jvp_is_the_adjoint_of_vjp() {
    for (i, net) in networks().iter().enumerate() {
        let cols = 5;
        let Case { theta, x, .. } = case(net, cols, 90 + i as u64);
        let (n_in, n_out) = (net.n_inputs(), net.n_outputs());
        let mut forward_tape = net.tape(cols);
        net.forward(&theta, Cols::new(&x, n_in, cols), &mut forward_tape);
        let mut backward_tape = forward_tape.clone();
        assert_adjoint(
            |v, out| {
                let out = ColsMut::new(out, n_out, cols);
                net.jvp(&theta, Cols::new(&x, n_in, cols), &mut forward_tape, v, out);
            },
            |u, out| {
                out.fill(0.0);
                let u = Cols::new(u, n_out, cols);
                net.vjp(&theta, Cols::new(&x, n_in, cols), &mut backward_tape, u, out, None);
            },
            net.n_params(),
            n_out * cols,
            1e-12,
        );
    }
}

#[test]
fn single_precision_follows_double_precision() {
    let net = Network::mlp(4, &[64, 64], Activation::Tanh, heads(2)).unwrap();
    let Case { theta, x, .. } = case(&net, 64, 5);
    let (theta32, x32): (Vec<f32>, Vec<f32>) =
        (theta.iter().map(|v| *v as f32).collect(), x.iter().map(|v| *v as f32).collect());
    let (mut tape, mut tape32) = (net.tape(64), net.tape(64));
    let y = net.forward(&theta, Cols::new(&x, 4, 64), &mut tape).into_data();
    let y32 = net.forward(&theta32, Cols::new(&x32, 4, 64), &mut tape32).into_data();
    assert!(y.iter().zip(y32.iter()).all(|(a, b)| (a - f64::from(*b)).abs() < 1e-4));
}

#[test]
fn initial_parameters_follow_the_heads() {
    let net = Network::mlp(4, &[6], Activation::Tanh, heads(2)).unwrap();
    let theta: Vec<f64> = net.init(Init { orthogonal: true, span: None }, &mut Stream::new(1, 0, 0));
    assert_eq!(theta.len(), net.n_params());
    for view in net.views() {
        let part = &theta[view.range.clone()];
        let norm = part.iter().map(|x| x * x).sum::<f64>();
        match view.name.as_str() {
            "hidden.0.weight" => assert!((norm - 4.0 * 2.0).abs() < 1e-9, "4 columns of squared norm 2"),
            "value.weight" => assert!((norm - 1.0).abs() < 1e-9),
            "mean.weight" => assert!((norm - 2.0 * 0.25).abs() < 1e-9, "2 rows of norm 1/2"),
            "log_std" => assert_eq!(part, [0.1, 0.1]),
            bias => assert!(part.iter().all(|x| *x == 0.0), "{bias}"),
        }
    }
}

#[test]
fn impossible_networks_are_refused() {
    let linear = Head::Linear { name: "mean", rows: 1, gain: 1.0 };
    assert!(Network::mlp(0, &[], Activation::Tanh, vec![linear.clone()]).is_err());
    assert!(Network::mlp(3, &[4, 0], Activation::Tanh, vec![linear.clone()]).is_err());
    assert!(Network::mlp(3, &[], Activation::Tanh, vec![]).is_err());
    let free = Head::Free { name: "log_std", rows: 1, value: 0.0 };
    assert!(Network::mlp(3, &[], Activation::Tanh, vec![free, linear]).is_err());
}

#[test]
fn products_by_the_slopes_of_the_outputs_are_the_same() {
    for net in networks() {
        // Fewer samples than there is room for, and then as many.
        let (mut tape, mut jacobian) = (net.tape(7), net.jacobian(7));
        for cols in [3, 7] {
            let Case { theta, x, d_out } = case(&net, cols, 3);
            let v = case(&net, cols, 4).theta;
            let x = Cols::new(&x, net.n_inputs(), cols);
            let d_out = Cols::new(&d_out, net.n_outputs(), cols);
            net.forward(&theta, x, &mut tape);
            net.linearize(&theta, &tape, &mut jacobian);
            let (mut slow, mut fast) = (vec![0.0; net.n_outputs() * cols], vec![9.0; net.n_outputs() * cols]);
            net.jvp(&theta, x, &mut tape, &v, ColsMut::new(&mut slow, net.n_outputs(), cols));
            net.jvp_by(&jacobian, x, &mut tape, &v, ColsMut::new(&mut fast, net.n_outputs(), cols));
            assert!(slow.iter().zip(&fast).all(|(a, b)| (a - b).abs() < 1e-12), "{slow:?} {fast:?}");
            // Both add to what is there.
            let (mut slow, mut fast) = (v.clone(), v.clone());
            net.vjp(&theta, x, &mut tape, d_out, &mut slow, None);
            net.vjp_by(&jacobian, x, &mut tape, d_out, &mut fast);
            assert!(slow.iter().zip(&fast).all(|(a, b)| (a - b).abs() < 1e-12), "{slow:?} {fast:?}");
            assert_ne!(slow, v);
        }
    }
}

#[test]
fn slopes_are_kept_where_there_are_few_outputs_and_layers_to_be_saved() {
    let net = |hidden: &[usize], rows| {
        let heads =
            vec![Head::Linear { name: "y", rows, gain: 1.0 }, Head::Free { name: "z", rows: 9, value: 0.0 }];
        Network::mlp(4, hidden, Activation::Tanh, heads).unwrap()
    };
    for (hidden, rows, pays) in [
        (&[64, 64][..], 2, true),
        (&[64, 64], 4, true),
        (&[64, 64], 5, false),
        (&[64], 2, false),
        (&[], 1, false),
    ] {
        assert_eq!(net(hidden, rows).jacobian_pays(), pays, "{hidden:?} {rows}");
    }
    assert_eq!(net(&[64, 32], 3).jacobian_len(), 3 * 96);
}
