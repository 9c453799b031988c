//! `Jᵀ F_out J` against a dense matrix put together from its definition, and against the change of the mean
//! divergence's gradient.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_engine::PolicyMetric;
use pgrad_math::dist::{ActionDist, Actions};
use pgrad_nn::{Activation, Head, Network};
use pgrad_num::{Cols, ColsMut, Stream, linop::LinOp};
use pgrad_testkit::{Dense, finite_difference_jvp, random_vector};

const SAMPLES: usize = 7;
const OBS: usize = 3;

struct Case {
    net: Network,
    dist: ActionDist,
    theta: Vec<f64>,
    x: Vec<f64>,
}

fn cases() -> Vec<Case> {
    let dists = [
        ActionDist::Categorical { n: 4 },
        ActionDist::MultiCategorical { nvec: vec![2, 3] },
        ActionDist::Bernoulli { n: 3 },
        ActionDist::DiagGaussian { dim: 2 },
        ActionDist::Product {
            parts: vec![
                ActionDist::Bernoulli { n: 1 },
                ActionDist::Categorical { n: 3 },
                ActionDist::DiagGaussian { dim: 2 },
            ],
        },
    ];
    let mut cases = Vec::new();
    for dist in dists {
        for hidden in [&[][..], &[5], &[6, 4]] {
            let linear = |name, rows| Head::Linear { name, rows, gain: 1.0 };
            let dim = dist.real_rows();
            let logits = dist.n_outputs() - 2 * dim;
            let mut heads = Vec::new();
            if logits > 0 {
                heads.push(linear("logits", logits));
            }
            if dim > 0 {
                heads.extend([linear("mean", dim), Head::Free { name: "log_std", rows: dim, value: 0.0 }]);
            }
            let net = Network::mlp(OBS, hidden, Activation::Tanh, heads).unwrap();
            let theta = random_vector(1, net.n_params()).iter().map(|v| 0.8 * v).collect();
            cases.push(Case { theta, x: random_vector(2, OBS * SAMPLES), net, dist: dist.clone() });
        }
    }
    cases
}

/// `E[∇ log π ∇ log πᵀ]` with respect to the outputs of one sample with these parameters.
fn exact_fisher(dist: &ActionDist, params: &[f64]) -> Dense {
    let m = dist.n_outputs();
    if let ActionDist::Product { parts } = dist {
        // Parts are independent: a block each.
        let (mut fisher, mut from) = (Dense::zeros(m, m), 0);
        for part in parts {
            let n = part.n_outputs();
            let own = exact_fisher(part, &params[from..from + n]);
            for i in 0..n {
                for j in 0..n {
                    fisher.set(from + i, from + j, own.at(i, j));
                }
            }
            from += n;
        }
        return fisher;
    }
    let counts = match dist {
        ActionDist::Categorical { n } => vec![*n],
        ActionDist::MultiCategorical { nvec } => nvec.clone(),
        ActionDist::Bernoulli { n } => vec![2; *n],
        ActionDist::DiagGaussian { dim } => {
            return Dense::from_fn(m, m, |i, j| match (i == j, i < *dim) {
                (false, _) => 0.0,
                (true, true) => (-2.0 * params[dim + i]).exp(),
                (true, false) => 2.0,
            });
        }
        ActionDist::Product { .. } => unreachable!("above"),
    };
    let mut fisher = Dense::zeros(m, m);
    let mut total = 0.0;
    for mut code in 0..counts.iter().product::<usize>() {
        let action: Vec<u32> = counts
            .iter()
            .map(|n| {
                let a = code % n;
                code /= n;
                a as u32
            })
            .collect();
        let actions = || Actions::index(Cols::new(&action, action.len(), 1));
        let params = Cols::new(params, m, 1);
        let (mut logp, mut g) = ([0.0], vec![0.0; m]);
        dist.logp(params, actions(), &mut logp);
        dist.logp_vjp(params, actions(), &[1.0], ColsMut::new(&mut g, m, 1));
        total += logp[0].exp();
        for i in 0..m {
            for j in 0..m {
                fisher.set(i, j, fisher.at(i, j) + logp[0].exp() * g[i] * g[j]);
            }
        }
    }
    assert!((total - 1.0).abs() < 1e-12, "probabilities of all actions sum to {total}");
    fisher
}

impl Case {
    /// Raw outputs of sample `s`.
    fn outputs(&self, theta: &[f64], s: usize) -> Vec<f64> {
        let x: Vec<f64> = (0..OBS).map(|d| self.x[d * SAMPLES + s]).collect();
        let mut tape = self.net.tape(1);
        self.net.forward(theta, Cols::new(&x, OBS, 1), &mut tape).into_data().to_vec()
    }
    /// The Jacobian of sample `s`'s outputs, by finite differences.
    fn jacobian(&self, s: usize) -> Dense {
        let m = self.dist.n_outputs();
        Dense::of_operator(m, self.theta.len(), |v, out| {
            let jv = finite_difference_jvp(|t, o| o.copy_from_slice(&self.outputs(t, s)), &self.theta, v, m);
            out.copy_from_slice(&jv);
        })
    }
    /// `E[∇ log π ∇ log πᵀ]` with respect to sample `s`'s outputs: a sum over all actions, or the textbook's
    /// matrix of a Gaussian.
    fn output_fisher(&self, s: usize) -> Dense {
        let (dist, m) = (&self.dist, self.dist.n_outputs());
        let mut params = self.outputs(&self.theta, s);
        dist.prepare(ColsMut::new(&mut params, m, 1), None);
        exact_fisher(dist, &params)
    }
    /// Gradient of the mean `KL(π_old ‖ π_θ)`, with `old` at [`Case::theta`].
    fn kl_gradient(&self, theta: &[f64]) -> Vec<f64> {
        let m = self.dist.n_outputs();
        let x = Cols::new(&self.x, OBS, SAMPLES);
        let mut tape = self.net.tape(SAMPLES);
        let mut prepared = |theta: &[f64]| {
            let mut out = self.net.forward(theta, x, &mut tape).into_data().to_vec();
            self.dist.prepare(ColsMut::new(&mut out, m, SAMPLES), None);
            out
        };
        let (old, new) = (prepared(&self.theta), prepared(theta));
        let mut d_out = vec![0.0; m * SAMPLES];
        self.dist.kl_vjp(
            Cols::new(&old, m, SAMPLES),
            Cols::new(&new, m, SAMPLES),
            &[1.0 / SAMPLES as f64; SAMPLES],
            ColsMut::new(&mut d_out, m, SAMPLES),
        );
        let mut g = vec![0.0; theta.len()];
        self.net.vjp(theta, x, &mut tape, Cols::new(&d_out, m, SAMPLES), &mut g, None);
        g
    }
}

#[test]
fn agrees_with_the_dense_matrix() {
    for case in cases() {
        let n = case.net.n_params();
        for damping in [0.0, 0.1] {
            let mut expected = Dense::from_fn(n, n, |i, j| if i == j { damping } else { 0.0 });
            for s in 0..SAMPLES {
                let j = case.jacobian(s);
                let f = j.transpose().matmul(&case.output_fisher(s)).matmul(&j);
                expected = Dense::from_fn(n, n, |i, k| expected.at(i, k) + f.at(i, k) / SAMPLES as f64);
            }
            let x = Cols::new(&case.x, OBS, SAMPLES);
            let mut metric = PolicyMetric::new(&case.net, &case.dist, &case.theta, x, damping);
            assert_eq!(metric.dim(), n);
            // What stood in `out` before must not matter.
            let got = Dense::of_operator(n, n, |v, out| {
                out.fill(f64::NAN);
                metric.apply(v, out);
            });
            let error = got.max_difference(&expected);
            assert!(error < 1e-9, "{:?}, {} parameters: {error:e}", case.dist, n);
            assert!(got.max_difference(&got.transpose()) < 1e-12, "symmetric");
        }
    }
}

#[test]
fn is_the_hessian_of_the_mean_divergence() {
    for case in cases() {
        let n = case.net.n_params();
        let x = Cols::new(&case.x, OBS, SAMPLES);
        let mut metric = PolicyMetric::new(&case.net, &case.dist, &case.theta, x, 0.0);
        assert!(case.kl_gradient(&case.theta).iter().all(|g| g.abs() < 1e-12), "flat at the old policy");
        for seed in 0..5 {
            let v = random_vector(seed, n);
            let mut got = vec![0.0; n];
            metric.apply(&v, &mut got);
            let expected =
                finite_difference_jvp(|t, o| o.copy_from_slice(&case.kl_gradient(t)), &case.theta, &v, n);
            let error = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            assert!(largest > 1e-2 && error < 1e-7 * largest.max(1.0), "{:?}: {error:e}", case.dist);
        }
    }
}

#[test]
fn single_precision_agrees_with_double() {
    for case in cases() {
        let n = case.net.n_params();
        let narrow = |x: &[f64]| x.iter().map(|v| *v as f32).collect::<Vec<f32>>();
        let (theta, x) = (narrow(&case.theta), narrow(&case.x));
        let mut single = PolicyMetric::new(&case.net, &case.dist, &theta, Cols::new(&x, OBS, SAMPLES), 0.01);
        let x = Cols::new(&case.x, OBS, SAMPLES);
        let mut double = PolicyMetric::new(&case.net, &case.dist, &case.theta, x, 0.01);
        let mut rng = Stream::new(4, 0, 0);
        let v: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let (mut a, mut b) = (vec![0.0f32; n], vec![0.0f64; n]);
        single.apply(&narrow(&v), &mut a);
        double.apply(&v, &mut b);
        let largest = b.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        let error = a.iter().zip(&b).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        assert!(error < 1e-5 * largest, "{:?}: {error:e} of {largest}", case.dist);
    }
}
