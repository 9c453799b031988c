//! Action distributions against enumeration, quadrature and finite differences.

use pgrad_math::dist::{ActionDist, Actions, ActionsMut};
use pgrad_num::{Cols, ColsMut, Real, Stream};
use pgrad_testkit::{Dense, SplitMix, assert_gradient, finite_difference_jvp};

/// More than one block of columns, and a last block that is not full.
const COLS: usize = 67;

/// A distribution, raw outputs, an optional mask and actions, all for `cols` samples.
#[derive(Clone)]
struct Case {
    dist: ActionDist,
    cols: usize,
    raw: Vec<f64>,
    mask: Option<Vec<bool>>,
    index: Vec<u32>,
    real: Vec<f64>,
}

impl Case {
    fn new(dist: ActionDist, cols: usize, masked: bool, seed: u64) -> Self {
        let mut random = SplitMix::new(seed);
        let n = dist.n_outputs();
        let raw = (0..n * cols).map(|_| random.uniform_in(-2.0, 2.0)).collect();
        let (choices, masks) = (choices(&dist), dist.mask_rows());
        let mut mask = masked.then(|| (0..masks * cols).map(|_| random.chance(0.6)).collect::<Vec<bool>>());
        let real = (0..dist.real_rows() * cols).map(|_| random.uniform_in(-3.0, 3.0)).collect();
        let mut index = vec![0; choices.len() * cols];
        for (k, choice) in choices.iter().enumerate() {
            for c in 0..cols {
                let a = random.below(choice.n);
                index[k * cols + c] = a as u32;
                if let (Some(mask), Some(row)) = (&mut mask, choice.mask) {
                    // An action that was taken was allowed.
                    mask[(row + a) * cols + c] = true;
                }
            }
        }
        Self { dist, cols, raw, mask, index, real }
    }
    fn params_of<R: Real>(&self, raw: &[f64]) -> Vec<R> {
        let mut out: Vec<R> = raw.iter().map(|x| R::of(*x)).collect();
        let n = self.dist.n_outputs();
        let mask = self.mask.as_ref().map(|m| Cols::new(m, self.dist.mask_rows(), self.cols));
        self.dist.prepare(ColsMut::new(&mut out, n, self.cols), mask);
        out
    }
    fn params(&self) -> Vec<f64> {
        self.params_of(&self.raw)
    }
    fn cols<'a, R>(&self, data: &'a [R]) -> Cols<'a, R> {
        Cols::new(data, self.dist.n_outputs(), self.cols)
    }
    fn cols_mut<'a, R>(&self, data: &'a mut [R]) -> ColsMut<'a, R> {
        ColsMut::new(data, self.dist.n_outputs(), self.cols)
    }
    fn actions(&self) -> Actions<'_, f64> {
        Actions {
            index: Cols::new(&self.index, self.dist.index_rows(), self.cols),
            real: Cols::new(&self.real, self.dist.real_rows(), self.cols),
        }
    }
    fn logp(&self, params: &[f64]) -> Vec<f64> {
        let mut out = vec![f64::NAN; self.cols];
        self.dist.logp(self.cols(params), self.actions(), &mut out);
        out
    }
    fn entropy(&self, params: &[f64]) -> Vec<f64> {
        let mut out = vec![f64::NAN; self.cols];
        self.dist.entropy(self.cols(params), &mut out);
        out
    }
    fn kl(&self, old: &[f64], new: &[f64]) -> Vec<f64> {
        let mut out = vec![f64::NAN; self.cols];
        self.dist.kl(self.cols(old), self.cols(new), &mut out);
        out
    }
    /// Raw outputs near this case's, for a second policy under the same mask.
    fn other_raw(&self, seed: u64) -> Vec<f64> {
        let mut random = SplitMix::new(seed);
        self.raw.iter().map(|x| x + random.uniform_in(-0.7, 0.7)).collect()
    }
}

/// A choice or a bit of a distribution, as the test sees it.
#[derive(Clone)]
struct Choice {
    /// Alternatives.
    n: usize,
    /// First row of its outputs: a bit has one, of alternative 1.
    output: usize,
    /// First row of its mask; a bit has none.
    mask: Option<usize>,
}

fn choices(dist: &ActionDist) -> Vec<Choice> {
    let starts = |nvec: &[usize]| {
        let starts = (0..nvec.len()).map(|k| nvec[..k].iter().sum::<usize>());
        starts.zip(nvec).map(|(at, n)| Choice { n: *n, output: at, mask: Some(at) }).collect()
    };
    match dist {
        ActionDist::Categorical { n } => starts(&[*n]),
        ActionDist::MultiCategorical { nvec } => starts(nvec),
        ActionDist::Bernoulli { n } => (0..*n).map(|i| Choice { n: 2, output: i, mask: None }).collect(),
        ActionDist::DiagGaussian { .. } => vec![],
        ActionDist::Product { parts } => {
            let (mut outputs, mut masks, mut all) = (0, 0, vec![]);
            for part in parts {
                all.extend(choices(part).into_iter().map(|c| Choice {
                    output: outputs + c.output,
                    mask: c.mask.map(|m| masks + m),
                    ..c
                }));
                outputs += part.n_outputs();
                masks += part.mask_rows();
            }
            all
        }
    }
}

/// Choices, bits and numbers, in an order that moves every kind of row.
fn hybrid() -> ActionDist {
    ActionDist::Product {
        parts: vec![
            ActionDist::Bernoulli { n: 2 },
            ActionDist::Categorical { n: 3 },
            ActionDist::DiagGaussian { dim: 2 },
            ActionDist::MultiCategorical { nvec: vec![2, 3] },
            ActionDist::DiagGaussian { dim: 1 },
        ],
    }
}

fn discrete_dists() -> Vec<(ActionDist, bool)> {
    let multi = ActionDist::MultiCategorical { nvec: vec![2, 4, 3] };
    let product = ActionDist::Product {
        parts: vec![
            ActionDist::Bernoulli { n: 2 },
            ActionDist::Categorical { n: 3 },
            ActionDist::MultiCategorical { nvec: vec![2, 3] },
        ],
    };
    vec![
        (ActionDist::Categorical { n: 2 }, false),
        (ActionDist::Categorical { n: 5 }, false),
        (ActionDist::Categorical { n: 5 }, true),
        (multi.clone(), false),
        (multi, true),
        (ActionDist::Bernoulli { n: 3 }, false),
        (product.clone(), false),
        (product, true),
    ]
}

fn all_dists() -> Vec<(ActionDist, bool)> {
    let mut all = discrete_dists();
    all.push((ActionDist::DiagGaussian { dim: 1 }, false));
    all.push((ActionDist::DiagGaussian { dim: 3 }, false));
    all.push((hybrid(), false));
    all.push((hybrid(), true));
    all
}

fn all_cases() -> Vec<Case> {
    all_dists().into_iter().enumerate().map(|(i, (d, masked))| Case::new(d, COLS, masked, i as u64)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Probabilities of every alternative of every choice of sample `c`, straight from the definitions.
fn marginals(case: &Case, raw: &[f64], c: usize) -> Vec<Vec<f64>> {
    let at = |r: usize| raw[r * case.cols + c];
    let of = |choice: &Choice| {
        let Some(mask) = choice.mask else {
            let p = 1.0 / (1.0 + (-at(choice.output)).exp());
            return vec![1.0 - p, p];
        };
        let allowed = |i: usize| case.mask.as_ref().is_none_or(|m| m[(mask + i) * case.cols + c]);
        let w: Vec<f64> =
            (0..choice.n).map(|i| if allowed(i) { at(choice.output + i).exp() } else { 0.0 }).collect();
        w.iter().map(|x| x / w.iter().sum::<f64>()).collect()
    };
    choices(&case.dist).iter().map(of).collect()
}

/// Every joint action with its probability.
fn joint(marginals: &[Vec<f64>]) -> Vec<(Vec<u32>, f64)> {
    let mut all = vec![(vec![], 1.0)];
    for p in marginals {
        all = all
            .iter()
            .flat_map(|(a, pa)| {
                p.iter().enumerate().map(move |(i, pi)| {
                    let mut a: Vec<u32> = a.clone();
                    a.push(i as u32);
                    (a, pa * pi)
                })
            })
            .collect();
    }
    all
}

#[test]
fn discrete_logp_entropy_and_kl_agree_with_enumeration() {
    for (i, (dist, masked)) in discrete_dists().into_iter().enumerate() {
        let mut case = Case::new(dist, COLS, masked, 100 + i as u64);
        let new_raw = case.other_raw(9);
        let (old, new) = (case.params(), case.params_of::<f64>(&new_raw));
        let (entropy, kl, kl_back) = (case.entropy(&old), case.kl(&old, &new), case.kl(&new, &old));
        let rows = case.dist.index_rows();
        for c in 0..COLS {
            let p = joint(&marginals(&case, &case.raw, c));
            let q = joint(&marginals(&case, &new_raw, c));
            for (a, p) in &p {
                for k in 0..rows {
                    case.index[k * COLS + c] = a[k];
                }
                let logp = case.logp(&old)[c];
                if *p == 0.0 {
                    assert_eq!(logp, f64::NEG_INFINITY);
                } else {
                    assert!((logp - p.ln()).abs() < 1e-13, "{:?}: {logp} {}", case.dist, p.ln());
                }
            }
            let plogp = |p: f64| if p == 0.0 { 0.0 } else { p * p.ln() };
            let divergence = |p: &[(Vec<u32>, f64)], q: &[(Vec<u32>, f64)]| -> f64 {
                p.iter().zip(q).map(|(p, q)| if p.1 == 0.0 { 0.0 } else { p.1 * (p.1 / q.1).ln() }).sum()
            };
            let slow_entropy = -p.iter().map(|(_, p)| plogp(*p)).sum::<f64>();
            assert!((entropy[c] - slow_entropy).abs() < 1e-13, "{:?}", case.dist);
            assert!((kl[c] - divergence(&p, &q)).abs() < 1e-13, "{:?}", case.dist);
            assert!((kl_back[c] - divergence(&q, &p)).abs() < 1e-13, "{:?}", case.dist);
        }
        // The two directions are different numbers, so that the lines above can tell them apart.
        assert!(kl.iter().zip(&kl_back).any(|(a, b)| (a - b).abs() > 1e-3), "{:?}", case.dist);
    }
}

/// `∫ f` over `mean ± 14 std` by Simpson's rule.
fn integrate(mean: f64, std: f64, f: impl Fn(f64) -> f64) -> f64 {
    let (n, low, h) = (4000, mean - 14.0 * std, 28.0 * std / 4000.0);
    (0..=n)
        .map(|i| {
            let weight = if i == 0 || i == n { 1.0 } else { 2.0 + 2.0 * f64::from(i % 2) };
            weight * f(low + h * f64::from(i)) * h / 3.0
        })
        .sum()
}

fn density(x: f64, mean: f64, std: f64) -> f64 {
    (-((x - mean) / std).powi(2) / 2.0).exp() / (std * std::f64::consts::TAU.sqrt())
}

#[test]
fn gaussian_logp_entropy_and_kl_agree_with_quadrature() {
    let dim = 2;
    let case = Case::new(ActionDist::DiagGaussian { dim }, COLS, false, 5);
    let new_raw = case.other_raw(6);
    let (entropy, kl) = (case.entropy(&case.raw), case.kl(&case.raw, &new_raw));
    let logp = case.logp(&case.raw);
    for c in 0..COLS {
        let (mut slow_logp, mut slow_entropy, mut slow_kl) = (0.0, 0.0, 0.0);
        for i in 0..dim {
            let (mean, std) = (case.raw[i * COLS + c], case.raw[(dim + i) * COLS + c].exp());
            let (mean_new, std_new) = (new_raw[i * COLS + c], new_raw[(dim + i) * COLS + c].exp());
            slow_logp += density(case.real[i * COLS + c], mean, std).ln();
            // Logarithms of the densities as polynomials: the densities themselves underflow in the tails.
            let ln = |x: f64, m: f64, s: f64| {
                -((x - m) / s).powi(2) / 2.0 - (s * std::f64::consts::TAU.sqrt()).ln()
            };
            slow_entropy -= integrate(mean, std, |x| density(x, mean, std) * ln(x, mean, std));
            slow_kl += integrate(mean, std, |x| {
                density(x, mean, std) * (ln(x, mean, std) - ln(x, mean_new, std_new))
            });
        }
        assert!((logp[c] - slow_logp).abs() < 1e-10 * (1.0 + slow_logp.abs()));
        assert!((entropy[c] - slow_entropy).abs() < 1e-10);
        assert!((kl[c] - slow_kl).abs() < 1e-10 * (1.0 + slow_kl), "{} {slow_kl}", kl[c]);
    }
}

#[test]
fn a_product_is_its_parts() {
    for masked in [false, true] {
        let case = Case::new(hybrid(), COLS, masked, 90);
        let ActionDist::Product { parts } = &case.dist else { panic!() };
        let (old, new) = (case.params(), case.params_of::<f64>(&case.other_raw(2)));
        let mut rngs: Vec<Stream> = (0..COLS).map(|c| Stream::new(6, 0, c as u32)).collect();
        let mut part_rngs = rngs.clone();
        let (index_rows, real_rows) = (case.dist.index_rows(), case.dist.real_rows());
        let (mut index, mut real) = (vec![9; index_rows * COLS], vec![f64::NAN; real_rows * COLS]);
        let mut draw = |sampling: bool| {
            let view = ActionsMut {
                index: ColsMut::new(&mut index, index_rows, COLS),
                real: ColsMut::new(&mut real, real_rows, COLS),
            };
            match sampling {
                true => case.dist.sample(case.cols(&old), &mut rngs, view),
                false => case.dist.mode(case.cols(&old), view),
            }
            (index.clone(), real.clone())
        };
        let (drawn, modes) = (draw(true), draw(false));
        let [mut logp, mut entropy, mut kl] = [(); 3].map(|()| vec![0.0; COLS]);
        let (mut outputs, mut masks, mut indices, mut reals) = (0, 0, 0, 0);
        for part in parts {
            // The part alone, on its own rows.
            let own = |x: &[f64]| x[outputs * COLS..(outputs + part.n_outputs()) * COLS].to_vec();
            let n = part.n_outputs();
            let mut raw = own(&case.raw);
            let mask = case.mask.as_ref().filter(|_| part.mask_rows() > 0);
            let mask = mask.map(|m| m[masks * COLS..(masks + part.mask_rows()) * COLS].to_vec());
            part.prepare(
                ColsMut::new(&mut raw, n, COLS),
                mask.as_ref().map(|m| Cols::new(m, part.mask_rows(), COLS)),
            );
            assert_eq!(raw, own(&old), "{part:?}");
            let (i, r) = (part.index_rows(), part.real_rows());
            let actions = Actions {
                index: Cols::new(&case.index[indices * COLS..(indices + i) * COLS], i, COLS),
                real: Cols::new(&case.real[reals * COLS..(reals + r) * COLS], r, COLS),
            };
            let params = Cols::new(&raw, n, COLS);
            let add = |sum: &mut [f64], of: &mut dyn FnMut(&mut [f64])| {
                let mut x = vec![f64::NAN; COLS];
                of(&mut x);
                sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
            };
            add(&mut logp, &mut |x| part.logp(params, actions, x));
            add(&mut entropy, &mut |x| part.entropy(params, x));
            add(&mut kl, &mut |x| part.kl(params, Cols::new(&own(&new), n, COLS), x));
            for (sampling, (index, real)) in [(true, &drawn), (false, &modes)] {
                let (mut own_index, mut own_real) = (vec![9; i * COLS], vec![f64::NAN; r * COLS]);
                let view = ActionsMut {
                    index: ColsMut::new(&mut own_index, i, COLS),
                    real: ColsMut::new(&mut own_real, r, COLS),
                };
                match sampling {
                    // A stream goes from part to part.
                    true => part.sample(params, &mut part_rngs, view),
                    false => part.mode(params, view),
                }
                assert_eq!(own_index, index[indices * COLS..(indices + i) * COLS], "{part:?}");
                assert_eq!(own_real, real[reals * COLS..(reals + r) * COLS], "{part:?}");
            }
            outputs += n;
            masks += part.mask_rows();
            indices += i;
            reals += r;
        }
        let close =
            |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12 * (1.0 + b.abs()));
        assert!(close(&case.logp(&old), &logp));
        assert!(close(&case.entropy(&old), &entropy));
        assert!(close(&case.kl(&old, &new), &kl));
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    for case in all_cases() {
        let mut random = SplitMix::new(17);
        let n = case.dist.n_outputs();
        let (w, h) = (random.vector(COLS), random.vector(COLS));
        let params = case.params();
        let before = random.vector(n * COLS);
        let added = |out: &[f64]| out.iter().zip(&before).map(|(o, b)| o - b).collect::<Vec<f64>>();

        let mut d = before.clone();
        case.dist.logp_vjp(case.cols(&params), case.actions(), &w, case.cols_mut(&mut d));
        assert_gradient(|x| dot(&case.logp(&case.params_of(x)), &w), &case.raw, &added(&d), 1e-7);

        let mut d = before.clone();
        case.dist.entropy_vjp(case.cols(&params), &h, case.cols_mut(&mut d));
        assert_gradient(|x| dot(&case.entropy(&case.params_of(x)), &h), &case.raw, &added(&d), 1e-7);

        let mut d = before.clone();
        case.dist.logp_entropy_vjp(case.cols(&params), case.actions(), &w, &h, case.cols_mut(&mut d));
        let both = |x: &[f64]| {
            let p = case.params_of(x);
            dot(&case.logp(&p), &w) + dot(&case.entropy(&p), &h)
        };
        assert_gradient(both, &case.raw, &added(&d), 1e-7);

        let new_raw = case.other_raw(3);
        let new = case.params_of::<f64>(&new_raw);
        let mut d = before.clone();
        case.dist.kl_vjp(case.cols(&params), case.cols(&new), &w, case.cols_mut(&mut d));
        assert_gradient(|x| dot(&case.kl(&params, &case.params_of(x)), &w), &new_raw, &added(&d), 1e-7);
    }
}

#[test]
fn forbidden_alternatives_get_nothing() {
    for (i, (dist, masked)) in discrete_dists().into_iter().enumerate() {
        if !masked {
            continue;
        }
        let mut case = Case::new(dist, COLS, true, 40 + i as u64);
        let mask = case.mask.clone().unwrap();
        assert!(mask.iter().any(|m| !m));
        // Which outputs are of allowed alternatives; a bit's always is.
        let mut allowed = vec![true; case.dist.n_outputs() * COLS];
        for choice in choices(&case.dist) {
            let Some(row) = choice.mask else { continue };
            let n = choice.n * COLS;
            allowed[choice.output * COLS..][..n].copy_from_slice(&mask[row * COLS..][..n]);
        }
        for (z, allowed) in case.raw.iter_mut().zip(&allowed) {
            if !allowed {
                *z = 50.0; // would win everything
            }
        }
        let (n, rows) = (case.dist.n_outputs(), case.dist.index_rows());
        let params = case.params();
        let new = case.params_of::<f64>(&case.other_raw(1));
        let ones = vec![1.0; COLS];
        let mut d = vec![0.0; n * COLS];
        case.dist.logp_entropy_vjp(case.cols(&params), case.actions(), &ones, &ones, case.cols_mut(&mut d));
        case.dist.kl_vjp(case.cols(&params), case.cols(&new), &ones, case.cols_mut(&mut d));
        let mut f = vec![f64::NAN; n * COLS];
        case.dist.fisher_mul(case.cols(&params), case.cols(&vec![3.0; n * COLS]), case.cols_mut(&mut f));
        for (j, allowed) in allowed.iter().enumerate() {
            assert_eq!(params[j] == f64::NEG_INFINITY, !allowed);
            assert!(*allowed || (d[j] == 0.0 && f[j] == 0.0));
            assert!(d[j].is_finite() && f[j].is_finite());
        }
        let mut rngs: Vec<Stream> = (0..COLS).map(|c| Stream::new(1, 0, c as u32)).collect();
        let mut a = vec![0; rows * COLS];
        let check = |a: &[u32]| {
            for (k, choice) in choices(&case.dist).into_iter().enumerate() {
                let Some(row) = choice.mask else { continue };
                for c in 0..COLS {
                    assert!(mask[(row + a[k * COLS + c] as usize) * COLS + c]);
                }
            }
        };
        for _ in 0..200 {
            let view: ActionsMut<'_, f64> = ActionsMut::index(ColsMut::new(&mut a, rows, COLS));
            case.dist.sample(case.cols(&params), &mut rngs, view);
            check(&a);
        }
        let view: ActionsMut<'_, f64> = ActionsMut::index(ColsMut::new(&mut a, rows, COLS));
        case.dist.mode(case.cols(&params), view);
        check(&a);
        // The gradient of a forbidden action (old data under a new mask) stays out of its own logit too.
        let forbidden_row = (0..n).find(|r| !allowed[r * COLS]).unwrap();
        for (k, choice) in choices(&case.dist).into_iter().enumerate() {
            if choice.mask.is_some() && (choice.output..choice.output + choice.n).contains(&forbidden_row) {
                case.index[k * COLS] = (forbidden_row - choice.output) as u32;
            }
        }
        assert_eq!(case.logp(&params)[0], f64::NEG_INFINITY);
        let mut d = vec![0.0; n * COLS];
        case.dist.logp_vjp(case.cols(&params), case.actions(), &ones, case.cols_mut(&mut d));
        assert_eq!(d[forbidden_row * COLS], 0.0);
    }
}

#[test]
fn a_choice_without_alternatives_is_found_and_becomes_nan() {
    let dist = ActionDist::MultiCategorical { nvec: vec![2, 3] };
    let mut mask = vec![true; 5 * 4];
    mask[1] = false; // choice 0 of sample 1 keeps an alternative
    assert_eq!(dist.first_empty_choice(Cols::new(&mask, 5, 4)), None);
    for r in 2..5 {
        mask[r * 4 + 3] = false;
    }
    assert_eq!(dist.first_empty_choice(Cols::new(&mask, 5, 4)), Some((3, 1)));
    let mut out = vec![0.5f32; 5 * 4];
    dist.prepare(ColsMut::new(&mut out, 5, 4), Some(Cols::new(&mask, 5, 4)));
    let mut entropy = [0.0f32; 4];
    dist.entropy(Cols::new(&out, 5, 4), &mut entropy);
    assert!(entropy[..3].iter().all(|h| h.is_finite()) && entropy[3].is_nan());
    // In a product the rows of the mask are those of the choices alone.
    let product = ActionDist::Product {
        parts: vec![ActionDist::Bernoulli { n: 2 }, ActionDist::Categorical { n: 2 }, dist.clone()],
    };
    let wide = [vec![true; 2 * 4], mask.clone()].concat();
    assert_eq!(product.first_empty_choice(Cols::new(&wide, 7, 4)), Some((3, 2)));
    // Sampling stays in range all the same.
    let mut a = [9u32; 8];
    let mut rngs: Vec<Stream> = (0..4).map(|c| Stream::new(1, 0, c)).collect();
    dist.sample(Cols::new(&out, 5, 4), &mut rngs, ActionsMut::<f32>::index(ColsMut::new(&mut a, 2, 4)));
    assert!(a[..4].iter().all(|a| *a < 2) && a[4..].iter().all(|a| *a < 3));
}

#[test]
fn kl_is_infinite_where_new_forbids_what_old_allows_and_zero_at_equality() {
    let dist = ActionDist::Categorical { n: 3 };
    let case = |mask: [bool; 3]| {
        let mut p = vec![0.3f32, -0.2, 1.0];
        dist.prepare(ColsMut::new(&mut p, 3, 1), Some(Cols::new(&mask, 3, 1)));
        p
    };
    let (wide, narrow) = (case([true, true, true]), case([true, false, true]));
    let kl = |a: &[f32], b: &[f32]| {
        let mut out = [f32::NAN];
        dist.kl(Cols::new(a, 3, 1), Cols::new(b, 3, 1), &mut out);
        out[0]
    };
    assert_eq!(kl(&wide, &narrow), f32::INFINITY);
    assert!(kl(&narrow, &wide).is_finite() && kl(&narrow, &wide) > 0.1);
    assert_eq!(kl(&narrow, &narrow), 0.0);
}

/// Fisher matrix of one sample, read off `fisher_mul`.
fn fisher(case: &Case, params: &[f64], c: usize) -> Dense {
    let n = case.dist.n_outputs();
    Dense::of_operator(n, n, |v, out| {
        let (mut batch, mut product) = (vec![0.0; n * COLS], vec![f64::NAN; n * COLS]);
        for r in 0..n {
            batch[r * COLS + c] = v[r];
        }
        case.dist.fisher_mul(case.cols(params), case.cols(&batch), case.cols_mut(&mut product));
        for (j, x) in product.iter().enumerate() {
            if j % COLS == c {
                out[j / COLS] = *x;
            } else {
                assert_eq!(*x, 0.0, "samples do not mix");
            }
        }
    })
}

#[test]
fn fisher_is_the_covariance_of_the_score() {
    for (i, (dist, masked)) in discrete_dists().into_iter().enumerate() {
        let mut case = Case::new(dist, COLS, masked, 70 + i as u64);
        let (n, rows, params) = (case.dist.n_outputs(), case.dist.index_rows(), case.params());
        for c in [0, 15, 63, 64, 66] {
            let mut dense = Dense::zeros(n, n);
            for (a, p) in joint(&marginals(&case, &case.raw, c)) {
                for k in 0..rows {
                    case.index[k * COLS + c] = a[k];
                }
                let mut g = vec![0.0; n * COLS];
                case.dist.logp_vjp(
                    case.cols(&params),
                    case.actions(),
                    &vec![1.0; COLS],
                    case.cols_mut(&mut g),
                );
                for i in 0..n {
                    for j in 0..n {
                        let add = if p == 0.0 { 0.0 } else { p * g[i * COLS + c] * g[j * COLS + c] };
                        dense.set(i, j, dense.at(i, j) + add);
                    }
                }
            }
            let difference = fisher(&case, &params, c).max_difference(&dense);
            assert!(difference < 1e-14, "{:?}: {difference}", case.dist);
        }
    }
}

#[test]
fn gaussian_fisher_is_the_covariance_of_the_score() {
    let case = Case::new(ActionDist::DiagGaussian { dim: 1 }, COLS, false, 80);
    for c in [0, 66] {
        let (mean, std) = (case.raw[c], case.raw[COLS + c].exp());
        let score = |x: f64| {
            let mut at = case.clone();
            at.real[c] = x;
            let mut g = vec![0.0; 2 * COLS];
            at.dist.logp_vjp(at.cols(&at.raw), at.actions(), &vec![1.0; COLS], at.cols_mut(&mut g));
            [g[c], g[COLS + c]]
        };
        let dense = Dense::from_fn(2, 2, |i, j| {
            integrate(mean, std, |x| density(x, mean, std) * score(x)[i] * score(x)[j])
        });
        let f = fisher(&case, &case.raw, c);
        assert!(f.max_difference(&dense) < 1e-9 * (1.0 + dense.at(0, 0)), "{f:?} {dense:?}");
    }
}

#[test]
fn fisher_is_the_hessian_of_the_kl_at_equality_and_not_elsewhere() {
    for case in all_cases() {
        let n = case.dist.n_outputs();
        let params = case.params();
        let v = SplitMix::new(4).vector(n * COLS);
        let mut product = vec![f64::NAN; n * COLS];
        case.dist.fisher_mul(case.cols(&params), case.cols(&v), case.cols_mut(&mut product));
        let gradient = |x: &[f64], out: &mut [f64]| {
            let new = case.params_of::<f64>(x);
            case.dist.kl_vjp(case.cols(&params), case.cols(&new), &vec![1.0; COLS], case.cols_mut(out));
        };
        let worst = |at: &[f64]| {
            let hessian_v = finite_difference_jvp(gradient, at, &v, n * COLS);
            hessian_v.iter().zip(&product).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        let scale = product.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
        assert!(worst(&case.raw) < 1e-8 * scale, "{:?}: {}", case.dist, worst(&case.raw));
        assert!(worst(&case.other_raw(8)) > 1e-3, "{:?}", case.dist);
    }
}

#[test]
fn sampling_frequencies_are_the_probabilities() {
    for (i, (dist, masked)) in discrete_dists().into_iter().enumerate() {
        let cols = 3;
        let case = Case::new(dist, cols, masked, 200 + i as u64);
        let params: Vec<f32> = case.params_of(&case.raw);
        let rows = case.dist.index_rows();
        let mut rngs: Vec<Stream> = (0..cols).map(|c| Stream::new(3, 0, c as u32)).collect();
        let n = 40_000;
        let mut counts = vec![vec![[0u32; 8]; rows]; cols];
        let mut a = vec![0; rows * cols];
        for _ in 0..n {
            let view: ActionsMut<'_, f32> = ActionsMut::index(ColsMut::new(&mut a, rows, cols));
            case.dist.sample(case.cols(&params), &mut rngs, view);
            for c in 0..cols {
                for k in 0..rows {
                    counts[c][k][a[k * cols + c] as usize] += 1;
                }
            }
        }
        for c in 0..cols {
            for (k, p) in marginals(&case, &case.raw, c).iter().enumerate() {
                for (i, p) in p.iter().enumerate() {
                    let f = f64::from(counts[c][k][i]) / f64::from(n);
                    let se = (p * (1.0 - p) / f64::from(n)).sqrt();
                    assert!((f - p).abs() <= 4.5 * se, "{:?} choice {k} of {c}: {f} {p}", case.dist);
                }
            }
            // One word a choice, whatever was drawn.
            assert_eq!(rngs[c].position().0, u64::from(n as u32) * rows as u64);
        }
    }
}

#[test]
fn gaussian_samples_have_their_moments() {
    let (dim, cols, n) = (2, 2, 40_000);
    let case = Case::new(ActionDist::DiagGaussian { dim }, cols, false, 300);
    let mut rngs: Vec<Stream> = (0..cols).map(|c| Stream::new(3, 0, c as u32)).collect();
    let mut words = Stream::new(0, 0, 0);
    words.normal();
    let mut sums = vec![[0.0f64; 2]; dim * cols];
    let mut cross = vec![0.0; cols];
    let mut a = vec![0.0; dim * cols];
    for _ in 0..n {
        let view = ActionsMut::real(ColsMut::new(&mut a, dim, cols));
        case.dist.sample(case.cols(&case.raw), &mut rngs, view);
        let z: Vec<f64> =
            (0..dim * cols).map(|j| (a[j] - case.raw[j]) / case.raw[dim * cols + j].exp()).collect();
        for (s, z) in sums.iter_mut().zip(&z) {
            s[0] += z;
            s[1] += z * z;
        }
        for c in 0..cols {
            cross[c] += z[c] * z[cols + c];
        }
    }
    let n = f64::from(n);
    for s in sums {
        assert!((s[0] / n).abs() < 4.5 / n.sqrt(), "{s:?}");
        assert!((s[1] / n - 1.0).abs() < 4.5 * (2.0 / n).sqrt(), "{s:?}");
    }
    assert!(cross.iter().all(|x| (x / n).abs() < 4.5 / n.sqrt()), "{cross:?}");
    assert_eq!(rngs[0].position().0, words.position().0 * n as u64 * dim as u64);
}

#[test]
fn a_column_uses_its_own_stream_only() {
    for (dist, masked) in all_dists() {
        let case = Case::new(dist, COLS, masked, 1);
        let (n, params) = (case.dist.n_outputs(), case.params());
        let (index_rows, real_rows) = (case.dist.index_rows(), case.dist.real_rows());
        let draw = |params: Cols<'_, f64>, rngs: &mut [Stream]| {
            let cols = rngs.len();
            let (mut index, mut real) = (vec![0u32; index_rows * cols], vec![0.0; real_rows * cols]);
            let view = ActionsMut {
                index: ColsMut::new(&mut index, index_rows, cols),
                real: ColsMut::new(&mut real, real_rows, cols),
            };
            case.dist.sample(params, rngs, view);
            (index, real)
        };
        let mut rngs: Vec<Stream> = (0..COLS).map(|c| Stream::new(5, 0, c as u32)).collect();
        let (index, real) = draw(case.cols(&params), &mut rngs);
        for c in 0..COLS {
            let own: Vec<f64> = (0..n).map(|r| params[r * COLS + c]).collect();
            let (index_1, real_1) = draw(Cols::new(&own, n, 1), &mut [Stream::new(5, 0, c as u32)]);
            assert!((0..index_rows).all(|k| index_1[k] == index[k * COLS + c]));
            assert!((0..real_rows).all(|k| real_1[k] == real[k * COLS + c]));
        }
    }
}

#[test]
fn rounding_never_draws_an_impossible_alternative() {
    // Probabilities that sum to one half: half of the draws fall beyond the sum.
    let dist = ActionDist::Categorical { n: 4 };
    let params = [f32::NEG_INFINITY, 0.25f32.ln(), 0.25f32.ln(), f32::NEG_INFINITY];
    let mut rng = [Stream::new(1, 0, 0)];
    let mut counts = [0; 4];
    for _ in 0..1000 {
        let mut a = [0];
        let view: ActionsMut<'_, f32> = ActionsMut::index(ColsMut::new(&mut a, 1, 1));
        dist.sample(Cols::new(&params, 4, 1), &mut rng, view);
        counts[a[0] as usize] += 1;
    }
    assert_eq!((counts[0], counts[3]), (0, 0));
    assert!((200..300).contains(&counts[1]), "{counts:?}");
}

#[test]
fn mode_is_the_first_of_the_most_probable() {
    let dist = ActionDist::MultiCategorical { nvec: vec![3, 2] };
    // Samples in columns.
    let params: Vec<f32> = vec![
        -1.0, -3.0, -1.0, //
        -2.0, -0.5, -1.0, //
        -3.0, -2.0, -1.0, //
        -0.1, -4.0, -1.0, //
        -2.0, -0.1, -1.0,
    ];
    let mut a = [9; 6];
    dist.mode(Cols::new(&params, 5, 3), ActionsMut::<f32>::index(ColsMut::new(&mut a, 2, 3)));
    assert_eq!(a, [0, 1, 0, 0, 1, 0]);
    let dist = ActionDist::Bernoulli { n: 1 };
    let mut a = [9; 3];
    dist.mode(Cols::new(&[-0.1f32, 0.0, 0.1], 1, 3), ActionsMut::<f32>::index(ColsMut::new(&mut a, 1, 3)));
    assert_eq!(a, [0, 0, 1]);
    let dist = ActionDist::DiagGaussian { dim: 1 };
    let mut a = [9.0f32; 2];
    dist.mode(Cols::new(&[0.5f32, -0.25, 1.0, 1.0], 2, 2), ActionsMut::real(ColsMut::new(&mut a, 1, 2)));
    assert_eq!(a, [0.5, -0.25]);
}

#[test]
fn extreme_logits_stay_finite() {
    for (dist, _) in discrete_dists().into_iter().filter(|(_, masked)| !masked) {
        let (n, rows, cols) = (dist.n_outputs(), dist.index_rows(), 4);
        // Columns: all +1e4, all -1e4, alternating, one far above the rest.
        let mut p: Vec<f32> = (0..n * cols)
            .map(|j| match (j % cols, j / cols) {
                (0, _) | (3, 0) => 1e4,
                (2, r) if r % 2 == 0 => 1e4,
                _ => -1e4,
            })
            .collect();
        dist.prepare(ColsMut::new(&mut p, n, cols), None);
        let params = Cols::new(&p, n, cols);
        let ones = vec![1.0f32; cols];
        let finite = |x: &[f32]| assert!(x.iter().all(|v| v.is_finite()), "{dist:?}: {x:?}");
        finite(&p);
        let mut lowest = 0.0f32;
        for a in 0..2 {
            let index = vec![a; rows * cols];
            let actions = Actions::index(Cols::new(&index, rows, cols));
            let (mut logp, mut h, mut kl) = (ones.clone(), ones.clone(), ones.clone());
            dist.logp(params, actions, &mut logp);
            dist.entropy(params, &mut h);
            finite(&logp);
            finite(&h);
            assert!(logp.iter().all(|l| *l <= 0.0), "{logp:?}");
            lowest = logp.iter().fold(lowest, |m, l| m.min(*l));
            assert!(h.iter().all(|h| *h >= 0.0), "{h:?}");
            let mut d = vec![0.0; n * cols];
            dist.logp_entropy_vjp(params, actions, &ones, &ones, ColsMut::new(&mut d, n, cols));
            finite(&d);
            let mut shifted: Vec<f32> = p.iter().rev().copied().collect();
            dist.prepare(ColsMut::new(&mut shifted, n, cols), None);
            dist.kl(params, Cols::new(&shifted, n, cols), &mut kl);
            finite(&kl);
            assert!(kl.iter().all(|k| *k >= 0.0), "{kl:?}");
        }
        assert!(lowest < -9e3, "{dist:?}: {lowest}");
    }
}

#[test]
fn single_precision_agrees_with_double() {
    for case in all_cases() {
        let n = case.dist.n_outputs();
        let new_raw = case.other_raw(2);
        let (p64, p64_new) = (case.params(), case.params_of::<f64>(&new_raw));
        let (p32, p32_new) = (case.params_of::<f32>(&case.raw), case.params_of::<f32>(&new_raw));
        let real: Vec<f32> = case.real.iter().map(|x| *x as f32).collect();
        let actions = Actions {
            index: Cols::new(&case.index, case.dist.index_rows(), COLS),
            real: Cols::new(&real, case.dist.real_rows(), COLS),
        };
        let close = |x: &[f32], y: &[f64], what: &str| {
            for (x, y) in x.iter().zip(y) {
                let same = f64::from(*x) == *y || (f64::from(*x) - y).abs() < 2e-5 * (1.0 + y.abs());
                assert!(same, "{what} of {:?}: {x} {y}", case.dist);
            }
        };
        close(&p32, &p64, "parameters");
        let (mut x, w32, w64) = (vec![0.0f32; COLS], vec![0.7f32; COLS], vec![0.7f64; COLS]);
        case.dist.logp(case.cols(&p32), actions, &mut x);
        close(&x, &case.logp(&p64), "logp");
        case.dist.entropy(case.cols(&p32), &mut x);
        close(&x, &case.entropy(&p64), "entropy");
        case.dist.kl(case.cols(&p32), case.cols(&p32_new), &mut x);
        close(&x, &case.kl(&p64, &p64_new), "kl");
        let (mut d32, mut d64) = (vec![0.0f32; n * COLS], vec![0.0f64; n * COLS]);
        case.dist.logp_entropy_vjp(case.cols(&p32), actions, &w32, &w32, case.cols_mut(&mut d32));
        case.dist.logp_entropy_vjp(case.cols(&p64), case.actions(), &w64, &w64, case.cols_mut(&mut d64));
        case.dist.kl_vjp(case.cols(&p32), case.cols(&p32_new), &w32, case.cols_mut(&mut d32));
        case.dist.kl_vjp(case.cols(&p64), case.cols(&p64_new), &w64, case.cols_mut(&mut d64));
        close(&d32, &d64, "gradients");
        let (v32, v64) = (vec![0.3f32; n * COLS], vec![0.3f64; n * COLS]);
        case.dist.fisher_mul(case.cols(&p32), case.cols(&v32), case.cols_mut(&mut d32));
        case.dist.fisher_mul(case.cols(&p64), case.cols(&v64), case.cols_mut(&mut d64));
        close(&d32, &d64, "Fisher products");
    }
}

#[test]
#[should_panic(expected = "action 3 of choice 1")]
fn an_action_out_of_range_is_refused() {
    let dist = ActionDist::MultiCategorical { nvec: vec![5, 3] };
    let mut logp = [0.0f32];
    dist.logp(Cols::new(&[0.0; 8], 8, 1), Actions::index(Cols::new(&[4, 3], 2, 1)), &mut logp);
}
