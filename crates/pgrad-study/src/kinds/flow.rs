//! Ordinary differential equations of two unknowns, until something happens.

/// A point of a solution: time and state.
pub(super) type Point = (f64, [f64; 2]);

/// Error of a step that is accepted, relative to `1 + |x|`.
const TOLERANCE: f64 = 1e-10;
/// Steps after which it is given up.
const MAX_STEPS: usize = 100_000;

/// Coefficients of Dormand and Prince's pair of orders 5 and 4 (J. Comp. Appl. Math. 6, 1980): rows of the
/// stages; the last row is also the solution of order 5.
const A: [[f64; 6]; 6] = [
    [1.0 / 5.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [3.0 / 40.0, 9.0 / 40.0, 0.0, 0.0, 0.0, 0.0],
    [44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0, 0.0, 0.0, 0.0],
    [19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0, 0.0, 0.0],
    [9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0, 0.0],
    [35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
];
/// Order 5 minus order 4.
const E: [f64; 7] =
    [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339_200.0, 22.0 / 525.0, -1.0 / 40.0];

/// One step of length `h` from `x`: the state after it, and its error in units of the tolerance.
fn step(f: &impl Fn([f64; 2]) -> [f64; 2], x: [f64; 2], h: f64) -> ([f64; 2], f64) {
    let mut k = [[0.0; 2]; 7];
    k[0] = f(x);
    let mut to = x;
    for (stage, row) in A.iter().enumerate() {
        to = std::array::from_fn(|i| x[i] + h * (0..=stage).map(|s| row[s] * k[s][i]).sum::<f64>());
        k[stage + 1] = f(to);
    }
    let error = |i: usize| h * (0..7).map(|s| E[s] * k[s][i]).sum::<f64>();
    let scaled = (0..2).map(|i| error(i).abs() / (TOLERANCE * (1.0 + x[i].abs().max(to[i].abs()))));
    (to, scaled.fold(0.0, |a, b| if b.is_finite() { f64::max(a, b) } else { f64::INFINITY }))
}

/// The solution of `x' = f(x)` from `x` at time 0, with steps as long as the error allows, up to the time at
/// which `margin`, negative at first, reaches 0: that is the last point.
///
/// # Errors
/// When it does not reach 0 before time `limit`, or in a hundred thousand steps: where it was then.
pub(super) fn until(
    f: impl Fn([f64; 2]) -> [f64; 2],
    x: [f64; 2],
    margin: impl Fn([f64; 2]) -> f64,
    limit: f64,
) -> Result<Vec<Point>, String> {
    let mut points = vec![(0.0, x)];
    let (mut t, mut x, mut h) = (0.0, x, 1e-3);
    for _ in 0..MAX_STEPS {
        if t >= limit {
            break;
        }
        let (to, error) = step(&f, x, h);
        let factor = if error > 0.0 { (0.9 * error.powf(-0.2)).clamp(0.2, 5.0) } else { 5.0 };
        if error > 1.0 {
            h *= factor;
            continue;
        }
        if margin(to) >= 0.0 {
            // Where in this step: halve until time cannot tell the ends apart.
            let (mut before, mut after) = (0.0, h);
            while t + before < t + after && after - before > 1e-14 * (t + after) {
                let middle = 0.5 * (before + after);
                if margin(step(&f, x, middle).0) >= 0.0 { after = middle } else { before = middle }
            }
            points.push((t + after, step(&f, x, after).0));
            return Ok(points);
        }
        (t, x) = (t + h, to);
        points.push((t, x));
        h *= factor;
    }
    Err(format!("not reached: at time {t:.4e} the flow was at ({:.4e}, {:.4e})", x[0], x[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oscillation_crosses_when_it_should() {
        // x = cos t, v = -sin t: x falls to -1/2 at t = 2π/3.
        let points = until(|[x, v]| [v, -x], [1.0, 0.0], |[x, _]| -0.5 - x, 10.0).unwrap();
        let (t, [x, v]) = points[points.len() - 1];
        let exact = 2.0 * std::f64::consts::FRAC_PI_3;
        assert!((t - exact).abs() < 1e-8 && (x + 0.5).abs() < 1e-8, "{t}");
        assert!((v + exact.sin()).abs() < 1e-8);
        assert!(points.iter().all(|(t, [x, _])| (x - t.cos()).abs() < 1e-8));
        assert!(points.windows(2).all(|w| w[1].0 > w[0].0));
    }

    #[test]
    fn slow_flows_take_long_steps() {
        // x' = 1 / (2 x): x = sqrt(1 + t).
        let points = until(|[x, _]| [0.5 / x, 0.0], [1.0, 0.0], |[x, _]| x - 1e4, 1e9).unwrap();
        let t = points[points.len() - 1].0;
        assert!((t / (1e8 - 1.0) - 1.0).abs() < 1e-6, "{t}");
        assert!(points.len() < 1000, "{}", points.len());
    }

    #[test]
    fn what_is_not_reached_is_said() {
        let e = until(|[x, _]| [-x, 0.0], [1.0, 0.0], |[x, _]| x - 2.0, 5.0).unwrap_err();
        assert!(e.contains("not reached"), "{e}");
        // Not finite: no step is good.
        assert!(until(|_| [f64::NAN, 0.0], [1.0, 0.0], |[x, _]| x - 2.0, 5.0).is_err());
    }
}
