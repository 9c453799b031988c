//! A step whose parameters are shared out among threads.

use pgrad_num::Team;

/// Parameters, their gradient, and up to two vectors of a rule's state; one that the rule has not is empty.
type Vectors<'a, R> = (&'a mut [R], &'a [R], &'a mut [R], &'a mut [R]);

/// Parts of a step, at most: networks of a model.
const MAX_PARTS: usize = 4;

/// Calls `f` with the entries up to each of `ends`, part by part on the threads of `team`. Allocates nothing.
///
/// # Panics
/// With more than four parts, and when `ends` does not rise to the number of parameters.
pub(crate) fn each<R: Copy + Send + Sync>(
    team: &Team,
    ends: &[usize],
    (mut theta, mut gradient, mut first, mut second): Vectors<'_, R>,
    f: impl Fn(Vectors<'_, R>) + Sync,
) {
    assert!(ends.len() <= MAX_PARTS, "a step of at most {MAX_PARTS} parts, not {}", ends.len());
    assert_eq!(ends.last(), Some(&theta.len()), "the last part ends where the parameters do");
    let mut parts: [Vectors<'_, R>; MAX_PARTS] = Default::default();
    let mut start = 0;
    for (part, end) in parts.iter_mut().zip(ends) {
        let n = end - start;
        *part = (
            split(&mut theta, n),
            gradient.split_off(..n).expect("as long as the parameters"),
            split(&mut first, n),
            split(&mut second, n),
        );
        start = *end;
    }
    team.each_near(&mut parts[..ends.len()], |_, (theta, gradient, first, second)| {
        f((theta, gradient, first, second));
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
    use crate::{Adam, AdamParams, RmsProp, RmsPropParams};
    use pgrad_num::Team;

    const N: usize = 37;

    fn gradient(k: usize) -> Vec<f32> {
        (0..N).map(|i| ((i * 7 + k * 13) as f32 * 0.37 + 0.2).sin()).collect()
    }

    /// A step in parts, with a scale, is the step of the scaled gradient, bit for bit, for any number of threads.
    #[test]
    fn parts_make_the_whole_step() {
        for threads in [1, 2, 3] {
            let team = Team::new(threads).unwrap();
            for ends in [&[N][..], &[20, N], &[1, 20, N]] {
                let (mut whole, mut parts) = (vec![0.5f32; N], vec![0.5f32; N]);
                let mut adam = Adam::new(N, AdamParams::default());
                let mut adam_parts = adam.clone();
                let mut rms = RmsProp::new(N, RmsPropParams::default());
                let mut rms_parts = rms.clone();
                for k in 0..5 {
                    let g = gradient(k);
                    let scaled: Vec<f32> = g.iter().map(|g| g * 0.3).collect();
                    let before = whole.clone();
                    adam.step(&mut whole, &scaled, 0.01);
                    adam_parts.step_parts(&team, ends, &mut parts, &g, f64::from(0.3f32), 0.01);
                    assert_eq!(whole, parts, "{threads} threads, {ends:?}");
                    assert!(whole.iter().zip(&before).all(|(a, b)| a != b), "every parameter moves");
                    rms.step(&mut whole, &scaled, 0.02);
                    rms_parts.step_parts(&team, ends, &mut parts, &g, f64::from(0.3f32), 0.02);
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
        adam.step_parts(&team, &[20], &mut [0.0f32; N], &gradient(0), 1.0, 0.01);
    }
}
