//! The moments of each layer against gradients of single samples: `vjp` of one column gives `g xᵀ` and `g`.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop a test")]

use pgrad_nn::{Activation, Head, LayerSums, Network};
use pgrad_num::{Cols, Stream};

fn networks() -> Vec<Network> {
    let heads = || {
        vec![
            Head::Linear { name: "value", rows: 1, gain: 1.0 },
            Head::Linear { name: "mean", rows: 2, gain: 0.5 },
            Head::Free { name: "log_std", rows: 2, value: 0.1 },
        ]
    };
    let logits = || vec![Head::Linear { name: "logits", rows: 3, gain: 0.5 }];
    let mut all = Vec::new();
    for hidden in [&[][..], &[5], &[6, 4], &[7, 3, 5]] {
        for activation in [Activation::Tanh, Activation::Relu] {
            all.push(Network::mlp(4, hidden, activation, heads()).unwrap());
            all.push(Network::mlp(4, hidden, activation, logits()).unwrap());
        }
    }
    all
}

fn close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    for (x, y) in a.iter().zip(b) {
        assert!((x - y).abs() < 1e-10 * (1.0 + y.abs()), "{x} is not {y}");
    }
}

#[test]
fn the_layers_tile_the_parameters() {
    for net in networks() {
        let mut covered = vec![0; net.n_params()];
        for layer in net.affine() {
            assert_eq!(layer.weight.len(), layer.rows * layer.cols);
            assert_eq!(layer.bias.len(), layer.rows);
            layer.weight.clone().chain(layer.bias.clone()).for_each(|i| covered[i] += 1);
        }
        assert!(covered.iter().all(|n| *n == 1));
    }
}

#[test]
fn moments_are_those_of_single_samples() {
    const N: usize = 6;
    for net in networks() {
        let mut rng = Stream::new(5, 0, 0);
        let mut normal = |n: usize| (0..n).map(|_| 0.7 * rng.normal()).collect::<Vec<f64>>();
        let (theta, x) = (normal(net.n_params()), normal(net.n_inputs() * N));
        let d_out = normal(net.n_outputs() * N);
        let layers = net.affine();
        let mut sums: Vec<LayerSums<f64>> = layers.iter().map(LayerSums::new).collect();
        let mut tape = net.tape(N);
        let x_all = Cols::new(&x, net.n_inputs(), N);
        net.forward(&theta, x_all, &mut tape);
        net.add_input_moments(x_all, &tape, &mut sums);
        net.add_cotangent_moments(&theta, x_all, &mut tape, Cols::new(&d_out, net.n_outputs(), N), &mut sums);

        let mut slow: Vec<LayerSums<f64>> = layers.iter().map(LayerSums::new).collect();
        let mut one = net.tape(1);
        for j in 0..N {
            let column = |a: &[f64], rows: usize| (0..rows).map(|r| a[r * N + j]).collect::<Vec<f64>>();
            let (xj, dj) = (column(&x, net.n_inputs()), column(&d_out, net.n_outputs()));
            let xj = Cols::new(&xj, net.n_inputs(), 1);
            net.forward(&theta, xj, &mut one);
            let mut gradient = vec![0.0; net.n_params()];
            net.vjp(&theta, xj, &mut one, Cols::new(&dj, net.n_outputs(), 1), &mut gradient, None);
            for (layer, sum) in layers.iter().zip(&mut slow) {
                let g = &gradient[layer.bias.clone()];
                let w = &gradient[layer.weight.clone()];
                for (k, out) in sum.cotangents.iter_mut().enumerate() {
                    *out += g[k / layer.rows] * g[k % layer.rows];
                }
                sum.samples += 1;
                // x = (g xᵀ)ᵀ g / |g|²: where no cotangent comes through (dead units) x cannot be seen.
                let norm: f64 = g.iter().map(|v| v * v).sum();
                let x: Vec<f64> = (0..layer.cols)
                    .map(|c| (0..layer.rows).map(|r| w[r * layer.cols + c] * g[r]).sum::<f64>() / norm)
                    .collect();
                for c in 0..layer.cols {
                    sum.input_sum[c] += x[c];
                    for d in 0..layer.cols {
                        sum.inputs[c * layer.cols + d] += x[c] * x[d];
                    }
                }
            }
        }
        for (got, expected) in sums.iter().zip(&slow) {
            assert_eq!(got.samples, expected.samples);
            close(&got.cotangents, &expected.cotangents);
            if expected.input_sum.iter().all(|v| v.is_finite()) {
                close(&got.input_sum, &expected.input_sum);
                close(&got.inputs, &expected.inputs);
            }
        }
    }
}
