//! Bounding the length of a step.

use pgrad_num::{Real, kernels};

/// Scales `gradient` to the norm `max_norm` if it is longer, and returns the norm it had.
///
/// The norm is that of the whole vector (Pascanu et al. 2013, arXiv:1211.5063), so the direction is kept;
/// clipping element by element would change it. A norm that is not finite is returned as it is and the
/// gradient left alone: the caller must not use it.
pub fn clip_global_norm<R: Real>(gradient: &mut [R], max_norm: f64) -> f64 {
    let norm = kernels::sum_of_squares(gradient, 0.0).sqrt();
    let scale = clip_scale(norm, max_norm);
    if scale < 1.0 {
        kernels::scale(R::of(scale), gradient);
    }
    norm
}

/// What a gradient of norm `norm` is multiplied by to be no longer than `max_norm`: at most 1, and 1 for a
/// norm that is not finite.
#[must_use]
pub fn clip_scale(norm: f64, max_norm: f64) -> f64 {
    if norm.is_finite() && norm > max_norm { max_norm / norm } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_is_bounded_and_the_direction_kept() {
        let mut g = [3.0f64, -4.0];
        assert_eq!(clip_global_norm(&mut g, 10.0), 5.0);
        assert_eq!(g, [3.0, -4.0]);
        assert_eq!(clip_global_norm(&mut g, 1.0), 5.0);
        assert!((g[0] - 0.6).abs() < 1e-12 && (g[1] + 0.8).abs() < 1e-12);
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_reported_and_left_alone() {
        let mut g = [1.0f32, f32::INFINITY];
        assert!(!clip_global_norm(&mut g, 1.0).is_finite());
        assert_eq!(g, [1.0, f32::INFINITY]);
    }
}
