//! The law that ties `jvp` to `vjp`.

use crate::SplitMix;

/// What [`adjoint_law`] saw in the worst of its trials.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdjointCheck {
    /// `<u, J v>`.
    pub forward: f64,
    /// `<Jᵀ u, v>`.
    pub backward: f64,
    /// `|forward - backward|`, divided by the larger of `|u| |J v|` and `|Jᵀ u| |v|`.
    pub relative_error: f64,
}

/// Tests `<u, J v> = <Jᵀ u, v>` for random `v` (`n` numbers) and `u` (`m` numbers).
///
/// `jvp(v, out)` writes `J v` (`m` numbers), `vjp(u, out)` writes `Jᵀ u` (`n` numbers) into an `out` that
/// starts at zero (so closures that add are fine). Reports the worst of `trials` trials.
#[must_use]
pub fn adjoint_law(
    mut jvp: impl FnMut(&[f64], &mut [f64]),
    mut vjp: impl FnMut(&[f64], &mut [f64]),
    n: usize,
    m: usize,
    trials: usize,
    seed: u64,
) -> AdjointCheck {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let norm = |a: &[f64]| dot(a, a).sqrt();
    let mut random = SplitMix::new(seed);
    let mut worst = AdjointCheck { forward: 0.0, backward: 0.0, relative_error: 0.0 };
    for _ in 0..trials {
        let (v, u) = (random.vector(n), random.vector(m));
        let (mut j_v, mut jt_u) = (vec![0.0; m], vec![0.0; n]);
        jvp(&v, &mut j_v);
        vjp(&u, &mut jt_u);
        let (forward, backward) = (dot(&u, &j_v), dot(&jt_u, &v));
        let scale = (norm(&u) * norm(&j_v)).max(norm(&jt_u) * norm(&v));
        let error = if forward == backward { 0.0 } else { (forward - backward).abs() / scale };
        let relative_error = if error.is_nan() { f64::INFINITY } else { error };
        if relative_error >= worst.relative_error {
            worst = AdjointCheck { forward, backward, relative_error };
        }
    }
    worst
}

/// [`adjoint_law`] with 5 trials, and a panic when the error is above `tolerance` or when `J v` was zero
/// in every trial (then nothing was tested).
///
/// # Panics
/// When the law does not hold.
#[track_caller]
pub fn assert_adjoint(
    mut jvp: impl FnMut(&[f64], &mut [f64]),
    vjp: impl FnMut(&[f64], &mut [f64]),
    n: usize,
    m: usize,
    tolerance: f64,
) {
    let mut any = false;
    let worst = adjoint_law(
        |v, out| {
            jvp(v, out);
            any |= out.iter().any(|x| *x != 0.0);
        },
        vjp,
        n,
        m,
        5,
        1,
    );
    assert!(any, "J v was zero in every trial: nothing was tested");
    assert!(worst.relative_error <= tolerance, "the adjoint law fails: {worst:?}, tolerance {tolerance:e}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dense;

    #[test]
    fn holds_for_a_matrix_and_its_transpose_only() {
        let a = Dense::from_fn(3, 5, |i, j| (i as f64 - 0.3) * (j as f64 + 1.1).sin());
        let t = a.transpose();
        assert_adjoint(|v, o| a.mul_into(v, o), |u, o| t.mul_into(u, o), 5, 3, 1e-14);
        let mut wrong = t.clone();
        wrong.set(4, 2, wrong.at(4, 2) + 1e-6);
        let check = adjoint_law(|v, o| a.mul_into(v, o), |u, o| wrong.mul_into(u, o), 5, 3, 5, 1);
        assert!(check.relative_error > 1e-8, "{check:?}");
    }

    #[test]
    fn nan_is_an_infinite_error() {
        let check = adjoint_law(|_, o| o[0] = f64::NAN, |_, _| (), 1, 1, 2, 1);
        assert_eq!(check.relative_error, f64::INFINITY);
    }

    #[test]
    #[should_panic(expected = "nothing was tested")]
    fn a_map_that_is_always_zero_is_no_test() {
        assert_adjoint(|_, _| (), |_, _| (), 2, 2, 1e-9);
    }
}
