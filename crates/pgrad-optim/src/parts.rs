//! A step whose parameters are cut into parts, so that each can be taken where its gradient is.

/// Parameters, their gradient, and up to two vectors of a rule's state; one that the rule has not is empty.
#[derive(Debug, Default)]
pub struct Part<'a, R> {
    theta: &'a mut [R],
    gradient: &'a [R],
    first: &'a mut [R],
    second: &'a mut [R],
}

impl<'a, R> Part<'a, R> {
    /// All parameters.
    pub(crate) fn whole(
        theta: &'a mut [R],
        gradient: &'a [R],
        first: &'a mut [R],
        second: &'a mut [R],
    ) -> Self {
        Self { theta, gradient, first, second }
    }
    /// Takes the first `n` parameters off.
    fn split_off(&mut self, n: usize) -> Self {
        Self {
            theta: split(&mut self.theta, n),
            gradient: self.gradient.split_off(..n).unwrap_or_default(),
            first: split(&mut self.first, n),
            second: split(&mut self.second, n),
        }
    }
}

/// Who takes the parts of a step.
pub trait RunParts {
    /// Calls `step` once for each part, in any order and on any thread.
    fn run(&self, parts: &mut [Part<'_, f32>], step: &(dyn Fn(&mut Part<'_, f32>) + Sync));
}

/// Optimiser of the policy and the baseline.
pub trait StepRule {
    /// One step of size `alpha` down `scale` times the gradient. `on` takes the parameters up to each of
    /// `ends` as parts of their own; the bits are those of the whole step of the scaled gradient. Allocates
    /// nothing.
    ///
    /// # Panics
    /// When the sizes differ from the number of parameters, with more than four parts, and when `ends` does
    /// not rise to the number of parameters.
    fn step_parts(
        &mut self,
        ends: &[usize],
        theta: &mut [f32],
        gradient: &[f32],
        scale: f64,
        alpha: f64,
        on: &impl RunParts,
    );
}

/// Parts of a step, at most: networks of a model.
const MAX_PARTS: usize = 4;

/// Cuts `whole` at `ends` and lets `on` call `step` for each part.
///
/// # Panics
/// As [`StepRule::step_parts`].
pub(crate) fn each(
    mut whole: Part<'_, f32>,
    ends: &[usize],
    on: &impl RunParts,
    step: impl Fn(&mut [f32], &[f32], &mut [f32], &mut [f32]) + Sync,
) {
    assert!(ends.len() <= MAX_PARTS, "a step of at most {MAX_PARTS} parts, not {}", ends.len());
    assert_eq!(ends.last(), Some(&whole.theta.len()), "the last part ends where the parameters do");
    let mut parts: [Part<'_, f32>; MAX_PARTS] = Default::default();
    let mut start = 0;
    for (part, end) in parts.iter_mut().zip(ends) {
        *part = whole.split_off(end - start);
        start = *end;
    }
    on.run(&mut parts[..ends.len()], &|Part { theta, gradient, first, second }| {
        step(theta, gradient, first, second);
    });
}

/// Takes the first `n` off, or nothing off an empty vector.
fn split<'a, R>(rest: &mut &'a mut [R], n: usize) -> &'a mut [R] {
    let n = if rest.is_empty() { 0 } else { n };
    let (part, left) = std::mem::take(rest).split_at_mut(n);
    *rest = left;
    part
}

#[cfg(test)]
mod tests {
    use super::{Part, RunParts};
    use crate::{Adam, AdamParams, RmsProp, RmsPropForm, RmsPropParams, StepRule};
    use pgrad_num::Team;

    impl RunParts for Team {
        fn run(&self, parts: &mut [Part<'_, f32>], step: &(dyn Fn(&mut Part<'_, f32>) + Sync)) {
            self.each_near(parts, |_, part| step(part));
        }
    }

    const N: usize = 37;

    fn gradient(k: usize) -> Vec<f32> {
        (0..N).map(|i| ((i * 7 + k * 13) as f32 * 0.37 + 0.2).sin()).collect()
    }

    /// A step in parts, with a scale, is the step of the scaled gradient, bit for bit, for any number of
    /// threads.
    #[test]
    fn parts_make_the_whole_step() {
        for threads in [1, 2, 3] {
            let team = Team::new(threads).unwrap();
            for ends in [&[N][..], &[20, N], &[1, 20, N]] {
                let (mut whole, mut parts) = (vec![0.5f32; N], vec![0.5f32; N]);
                let mut adam = Adam::new(N, AdamParams::default());
                let mut adam_parts = adam.clone();
                let mut rms = RmsProp::new(N, RmsPropParams::default(), RmsPropForm::default());
                let mut rms_parts = rms.clone();
                for k in 0..5 {
                    let g = gradient(k);
                    let scaled: Vec<f32> = g.iter().map(|g| g * 0.3).collect();
                    let before = whole.clone();
                    adam.step(&mut whole, &scaled, 0.01);
                    adam_parts.step_parts(ends, &mut parts, &g, f64::from(0.3f32), 0.01, &team);
                    assert_eq!(whole, parts, "{threads} threads, {ends:?}");
                    assert!(whole.iter().zip(&before).all(|(a, b)| a != b), "every parameter moves");
                    rms.step(&mut whole, &scaled, 0.02);
                    rms_parts.step_parts(ends, &mut parts, &g, f64::from(0.3f32), 0.02, &team);
                    assert_eq!(whole, parts, "{threads} threads, {ends:?}");
                }
                assert_eq!(adam, adam_parts);
                assert_eq!(rms, rms_parts);
            }
        }
    }

    #[test]
    #[should_panic(expected = "the last part ends where the parameters do")]
    fn parts_that_leave_some_out_are_refused() {
        let team = Team::new(1).unwrap();
        let mut adam = Adam::new(N, AdamParams::default());
        adam.step_parts(&[20], &mut [0.0f32; N], &gradient(0), 1.0, 0.01, &team);
    }
}
