//! Central finite differences.

/// Relative step. The error of a central difference is about `h² f'''/6` from cutting the series and
/// `2^-53 |f| / h` from rounding; `1e-5` makes both about `1e-11`.
const STEP: f64 = 1e-5;

fn step_at(x: f64) -> f64 {
    STEP * x.abs().max(1.0)
}

/// Gradient of `f` at `x` by central differences, `(f(x + h e_i) - f(x - h e_i)) / 2h` with
/// `h = 1e-5 max(1, |x_i|)`: good to about `1e-10` of the size of `f` where `f` is smooth within `h`.
#[must_use]
pub fn finite_difference_gradient(mut f: impl FnMut(&[f64]) -> f64, x: &[f64]) -> Vec<f64> {
    let mut at = x.to_vec();
    (0..x.len())
        .map(|i| {
            let h = step_at(x[i]);
            let (up, down) = (x[i] + h, x[i] - h);
            at[i] = up;
            let f_up = f(&at);
            at[i] = down;
            let f_down = f(&at);
            at[i] = x[i];
            (f_up - f_down) / (up - down)
        })
        .collect()
}

/// Directional derivative of the map `f: x -> out` (`m` numbers) at `x` along `v`, by a central
/// difference. `f` writes its result into the slice it is given.
///
/// # Panics
/// When `x` and `v` differ in length.
#[must_use]
pub fn finite_difference_jvp(
    mut f: impl FnMut(&[f64], &mut [f64]),
    x: &[f64],
    v: &[f64],
    m: usize,
) -> Vec<f64> {
    assert_eq!(x.len(), v.len(), "a direction has as many numbers as the point");
    let mut eval = |h: f64| {
        let at: Vec<f64> = x.iter().zip(v).map(|(x, v)| x + h * v).collect();
        let mut out = vec![0.0; m];
        f(&at, &mut out);
        out
    };
    let (up, down) = (eval(STEP), eval(-STEP));
    up.iter().zip(&down).map(|(u, d)| (u - d) / (2.0 * STEP)).collect()
}

/// What [`check_gradient`] saw at the worst element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientCheck {
    /// Element with the largest relative error; `None` for an empty gradient.
    pub worst_index: Option<usize>,
    /// The derivative under test, there.
    pub analytic: f64,
    /// The finite difference, there.
    pub numeric: f64,
    /// `|analytic - numeric| / max(|analytic|, |numeric|, 1e-3 max_i |numeric_i|, 1e-2)`; infinite when
    /// either is NaN. The last two terms keep rounding in a tiny element from looking like an error.
    pub relative_error: f64,
}

/// Compares the gradient `analytic` of `f` at `x` with finite differences and reports the worst element.
///
/// # Panics
/// When `analytic` and `x` differ in length.
#[must_use]
pub fn check_gradient(f: impl FnMut(&[f64]) -> f64, x: &[f64], analytic: &[f64]) -> GradientCheck {
    assert_eq!(x.len(), analytic.len(), "a gradient has as many numbers as the point");
    let numeric = finite_difference_gradient(f, x);
    let largest = numeric.iter().fold(0.0f64, |m, n| m.max(n.abs()));
    let floor = (1e-3 * largest).max(1e-2);
    let mut worst = GradientCheck { worst_index: None, analytic: 0.0, numeric: 0.0, relative_error: 0.0 };
    for (i, (a, n)) in analytic.iter().zip(&numeric).enumerate() {
        let error = (a - n).abs() / a.abs().max(n.abs()).max(floor);
        let relative_error = if error.is_nan() { f64::INFINITY } else { error };
        if worst.worst_index.is_none() || relative_error > worst.relative_error {
            worst = GradientCheck { worst_index: Some(i), analytic: *a, numeric: *n, relative_error };
        }
    }
    worst
}

/// [`check_gradient`], and a panic that names the worst element when its error is above `tolerance`.
///
/// # Panics
/// When the gradient is wrong, or when `analytic` and `x` differ in length.
#[track_caller]
pub fn assert_gradient(f: impl FnMut(&[f64]) -> f64, x: &[f64], analytic: &[f64], tolerance: f64) {
    let worst = check_gradient(f, x, analytic);
    assert!(
        worst.relative_error <= tolerance,
        "element {} of the gradient is {:e}, finite differences give {:e}: relative error {:e} above {tolerance:e}",
        worst.worst_index.unwrap_or(0),
        worst.analytic,
        worst.numeric,
        worst.relative_error,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f(x: &[f64]) -> f64 {
        x[0].sin() * x[1].exp() + 1e3 * x[2] * x[2]
    }
    fn grad(x: &[f64]) -> Vec<f64> {
        vec![x[0].cos() * x[1].exp(), x[0].sin() * x[1].exp(), 2e3 * x[2]]
    }

    #[test]
    fn accepts_the_right_gradient() {
        let x = [0.3, -1.2, 0.01];
        assert_gradient(f, &x, &grad(&x), 1e-8);
    }

    #[test]
    fn names_the_wrong_element() {
        let x = [0.3, -1.2, 0.01];
        let mut g = grad(&x);
        g[1] *= 1.0 + 1e-5;
        let check = check_gradient(f, &x, &g);
        assert_eq!(check.worst_index, Some(1));
        assert!((0.5e-5..2e-5).contains(&check.relative_error), "{check:?}");
        g[2] = f64::NAN;
        let check = check_gradient(f, &x, &g);
        assert_eq!((check.worst_index, check.relative_error), (Some(2), f64::INFINITY));
    }

    #[test]
    fn a_directional_derivative_is_the_gradient_along_the_direction() {
        let (x, v) = ([0.3, -1.2, 0.01], [1.0, -2.0, 0.5]);
        let jvp = finite_difference_jvp(|x, out| out[0] = f(x), &x, &v, 1);
        let exact: f64 = grad(&x).iter().zip(&v).map(|(g, v)| g * v).sum();
        assert!((jvp[0] - exact).abs() < 1e-8);
    }
}
