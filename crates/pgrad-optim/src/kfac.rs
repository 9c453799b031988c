//! Kronecker-factored curvature.

use pgrad_num::cholesky::{Cholesky, NotPositiveDefinite};
use pgrad_num::{Record, RecordError, kernels};
use std::ops::Range;

/// K-FAC's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KfacParams {
    /// Damping `λ`: shared between the two factors of a block (Martens and Grosse 2015, section 6.3).
    pub damping: f64,
    /// Decay of the running averages of the factors.
    pub stats_decay: f64,
}

/// A block of the curvature: a layer `Z = [W b] [X; 1]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KroneckerBlock {
    /// Outputs.
    pub rows: usize,
    /// Inputs, without the constant one that the biases belong to.
    pub cols: usize,
    /// Where the weights lie, `[rows x cols]`, row after row.
    pub weight: Range<usize>,
    /// Where the biases lie.
    pub bias: Range<usize>,
}

#[derive(Clone, Debug)]
struct Factors {
    block: KroneckerBlock,
    /// Running averages of `E[x̄ x̄ᵀ]`, `[(cols+1)²]` with the constant last, and of `E[g gᵀ]`, `[rows²]`.
    inputs: Vec<f64>,
    cotangents: Vec<f64>,
    input_factor: Cholesky,
    cotangent_factor: Cholesky,
}

/// K-FAC (Martens and Grosse 2015, arXiv:1503.05671): the Fisher matrix of each layer is taken for `A ⊗ G`
/// with `A = E[x̄ x̄ᵀ]` of the layer's inputs and `G = E[g gᵀ]` of the cotangents of its outputs, so that
/// `F⁻¹ ∇ = G⁻¹ ∇_W A⁻¹`. Damping makes it `(A + π√λ I) ⊗ (G + √λ/π I)` with
/// `π² = (tr A / dim A) / (tr G / dim G)`.
#[derive(Clone, Debug)]
pub struct Kfac {
    params: KfacParams,
    layers: Vec<Factors>,
    /// What the running averages have taken in: `1 − decay^t`.
    weight: f64,
    work: [Vec<f64>; 2],
}

impl Kfac {
    /// No curvature yet, for these blocks.
    #[must_use]
    pub fn new(blocks: Vec<KroneckerBlock>, params: KfacParams) -> Self {
        let largest = blocks.iter().map(|b| b.rows * (b.cols + 1)).max().unwrap_or(0);
        let layers = blocks
            .into_iter()
            .map(|block| Factors {
                inputs: vec![0.0; (block.cols + 1).pow(2)],
                cotangents: vec![0.0; block.rows.pow(2)],
                input_factor: Cholesky::default(),
                cotangent_factor: Cholesky::default(),
                block,
            })
            .collect();
        Self { params, layers, weight: 0.0, work: [vec![0.0; largest], vec![0.0; largest]] }
    }

    /// Takes in the factors of a batch, in the order of the blocks: `moments(i)` gives `E[x̄ x̄ᵀ]`
    /// (`[(cols+1)²]`, the constant last) and `E[g gᵀ]` (`[rows²]`) of block `i`.
    ///
    /// # Panics
    /// When a factor has another size.
    pub fn observe<'m>(&mut self, mut moments: impl FnMut(usize) -> [&'m [f64]; 2]) {
        let keep = self.params.stats_decay;
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let [inputs, cotangents] = moments(i);
            for (mean, new) in [(&mut layer.inputs, inputs), (&mut layer.cotangents, cotangents)] {
                assert_eq!(mean.len(), new.len());
                mean.iter_mut().zip(new).for_each(|(m, x)| *m = keep * *m + (1.0 - keep) * x);
            }
        }
        self.weight = keep * self.weight + (1.0 - keep);
    }

    /// Factors the damped curvature; [`Kfac::precondition`] uses it from then on.
    ///
    /// # Errors
    /// When a factor is not positive definite, in spite of its damping: something in it was not finite.
    pub fn factor(&mut self) -> Result<(), NotPositiveDefinite> {
        for layer in &mut self.layers {
            let (d_in, d_out) = (layer.block.cols + 1, layer.block.rows);
            let mean_diagonal = |m: &[f64], d: usize| (0..d).map(|i| m[i * (d + 1)]).sum::<f64>() / d as f64;
            let (a, g) = (mean_diagonal(&layer.inputs, d_in), mean_diagonal(&layer.cotangents, d_out));
            // A layer that nothing flows through has no scale of its own.
            let pi = if a > 0.0 && g > 0.0 { (a / g).sqrt() } else { 1.0 };
            // The averages start from zero: dividing by what they took in makes them means, and so does
            // multiplying the damping of both.
            let root = self.params.damping.sqrt() * self.weight;
            layer.input_factor.factor(&layer.inputs, d_in, pi * root)?;
            layer.cotangent_factor.factor(&layer.cotangents, d_out, root / pi)?;
        }
        Ok(())
    }

    /// `out = F⁻¹ gradient`, block by block; what belongs to no block stays as it is in `out`.
    ///
    /// # Panics
    /// When [`Kfac::factor`] has not succeeded before.
    pub fn precondition(&mut self, gradient: &[f32], out: &mut [f32]) {
        // Both factors are kept without their division by the weight of the averages.
        let scale = self.weight * self.weight;
        for layer in &self.layers {
            let KroneckerBlock { rows, cols, weight, bias } = &layer.block;
            let (rows, wide) = (*rows, cols + 1);
            let [v, vt] = &mut self.work;
            let (v, vt) = (&mut v[..rows * wide], &mut vt[..rows * wide]);
            for r in 0..rows {
                for c in 0..*cols {
                    v[r * wide + c] = f64::from(gradient[weight.start + r * cols + c]);
                }
                v[r * wide + cols] = f64::from(gradient[bias.start + r]);
            }
            layer.cotangent_factor.solve(v, wide);
            for r in 0..rows {
                for c in 0..wide {
                    vt[c * rows + r] = v[r * wide + c];
                }
            }
            layer.input_factor.solve(vt, rows);
            for r in 0..rows {
                for c in 0..*cols {
                    out[weight.start + r * cols + c] = (scale * vt[c * rows + r]) as f32;
                }
                out[bias.start + r] = (scale * vt[cols * rows + r]) as f32;
            }
        }
    }

    /// Saves the running averages.
    #[must_use]
    pub fn save(&self) -> Record {
        let mut r = Record::new();
        r.put("weight", vec![self.weight]);
        for (i, layer) in self.layers.iter().enumerate() {
            r.put(&format!("inputs{i}"), layer.inputs.clone());
            r.put(&format!("cotangents{i}"), layer.cotangents.clone());
        }
        r
    }
    /// Restores what [`Kfac::save`] saved; [`Kfac::factor`] is to be called before the next direction.
    ///
    /// # Errors
    /// When an entry is missing, has another size, or is not finite.
    pub fn load(&mut self, from: &Record) -> Result<(), RecordError> {
        let weight = from.f64("weight")?;
        let mut loaded = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            for (name, len) in [("inputs", layer.inputs.len()), ("cotangents", layer.cotangents.len())] {
                let name = format!("{name}{i}");
                let values = from.f64s(&name, len)?;
                if !kernels::all_finite(values) {
                    return Err(RecordError::Value { name, reason: "a moment is finite".into() });
                }
                loaded.push(values);
            }
        }
        for (layer, pair) in self.layers.iter_mut().zip(loaded.chunks_exact(2)) {
            layer.inputs.copy_from_slice(pair[0]);
            layer.cotangents.copy_from_slice(pair[1]);
        }
        self.weight = weight;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrad_num::Stream;
    use pgrad_testkit::Dense;

    const ROWS: usize = 3;
    const COLS: usize = 4;
    const DAMPING: f64 = 0.02;
    const DECAY: f64 = 0.7;

    fn blocks() -> Vec<KroneckerBlock> {
        let weights = ROWS * COLS;
        vec![
            KroneckerBlock { rows: ROWS, cols: COLS, weight: 0..weights, bias: weights..weights + ROWS },
            KroneckerBlock { rows: 2, cols: 0, weight: 15..15, bias: 15..17 },
        ]
    }

    fn spd(n: usize, seed: u64) -> Vec<f64> {
        let m = Dense::random_spd(n, 0.1, seed);
        (0..n * n).map(|k| m.at(k / n, k % n)).collect()
    }

    fn kfac() -> (Kfac, Vec<[Vec<f64>; 2]>) {
        let mut kfac = Kfac::new(blocks(), KfacParams { damping: DAMPING, stats_decay: DECAY });
        let batch = |seed| vec![[spd(COLS + 1, seed), spd(ROWS, seed + 1)], [vec![1.0], spd(2, seed + 2)]];
        let (first, second) = (batch(1), batch(11));
        for moments in [&first, &second] {
            kfac.observe(|i| [&moments[i][0], &moments[i][1]]);
        }
        // The average of two batches with weights d(1-d) and (1-d), made to sum to one.
        let (w1, w2) = (DECAY / (1.0 + DECAY), 1.0 / (1.0 + DECAY));
        let mix = |a: &Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(x, y)| w1 * x + w2 * y).collect();
        let mean = first.iter().zip(&second).map(|(a, b)| [mix(&a[0], &b[0]), mix(&a[1], &b[1])]).collect();
        (kfac, mean)
    }

    /// `(A + π√λ I) ⊗ (G + √λ/π I)` over `[W b]`, column after column.
    fn dense(a: &[f64], g: &[f64]) -> Dense {
        let (n, m) = (a.len().isqrt(), g.len().isqrt());
        let trace = |x: &[f64], d: usize| (0..d).map(|i| x[i * d + i]).sum::<f64>() / d as f64;
        let pi = (trace(a, n) / trace(g, m)).sqrt();
        let damped =
            |x: &[f64], d: usize, s: f64, i: usize, j: usize| x[i * d + j] + if i == j { s } else { 0.0 };
        Dense::from_fn(n * m, n * m, |p, q| {
            damped(a, n, pi * DAMPING.sqrt(), p / m, q / m) * damped(g, m, DAMPING.sqrt() / pi, p % m, q % m)
        })
    }

    #[test]
    fn the_direction_solves_the_dense_system() {
        let (mut kfac, mean) = kfac();
        kfac.factor().unwrap();
        let mut rng = Stream::new(3, 0, 0);
        let gradient: Vec<f32> = (0..17).map(|_| rng.normal() as f32).collect();
        let mut out = vec![0.0f32; 17];
        kfac.precondition(&gradient, &mut out);
        for (block, [a, g]) in blocks().iter().zip(&mean) {
            // F times the direction is the gradient again.
            let place = |p: usize| {
                let (c, r) = (p / block.rows, p % block.rows);
                if c < block.cols { block.weight.start + r * block.cols + c } else { block.bias.start + r }
            };
            let n = block.rows * (block.cols + 1);
            let direction: Vec<f64> = (0..n).map(|p| f64::from(out[place(p)])).collect();
            let back = dense(a, g).mul(&direction);
            for (p, b) in back.iter().enumerate() {
                assert!(
                    (b - f64::from(gradient[place(p)])).abs() < 1e-4,
                    "{b} is not {}",
                    gradient[place(p)]
                );
            }
        }
    }

    #[test]
    fn a_saved_state_gives_the_same_direction() {
        let (mut a, _) = kfac();
        let mut b = Kfac::new(blocks(), KfacParams { damping: DAMPING, stats_decay: DECAY });
        b.load(&a.save()).unwrap();
        let mut outs = [vec![0.0f32; 17], vec![0.0f32; 17]];
        for (kfac, out) in [&mut a, &mut b].into_iter().zip(&mut outs) {
            kfac.factor().unwrap();
            kfac.precondition(&[0.3; 17], out);
        }
        assert_eq!(outs[0], outs[1]);
        a.layers[1].inputs[0] = f64::NAN;
        assert!(b.load(&a.save()).is_err());
    }
}
