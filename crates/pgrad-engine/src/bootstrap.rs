//! The one place that turns endings into bootstrap values.
//!
//! A return looks one step ahead at two things, and both depend on how the step ended:
//!
//! | ending of step `t` | `v_next[t]` | `carry[t]` |
//! |---|---|---|
//! | `Running` | `V(s_{t+1})` | 1 |
//! | `Running`, last row of the rollout | `V(s_T)`, of the observation after it | 0 |
//! | `Terminated` | 0 | 0 |
//! | `Truncated` | `V(final observation)` | 0 |
//! | `Lost` | 0, never looked at: the step did not happen | 0 |
//!
//! Everything else (`gae`, `n_step`, ...) knows only `v_next` and `carry`. The value of the *next row* must
//! never be used at an ending: that row already belongs to the next episode.

use pgrad_env::End;
use pgrad_num::{Tb, TbMut};

/// Writes `v_next` and `carry`, `[T, B]`, from the values `v` of the rows, the values `v_last` of the
/// observations after the last row, and the values of the final observations of truncated steps
/// (`v_cut`, one for each entry of `cut`, the flat indices `t·B + b` of those steps in ascending order).
///
/// `bootstrap_truncated = false` takes 0 instead, as if the time limit were an end of the task: the common
/// mistake, kept so that its effect can be shown.
///
/// # Panics
/// When the shapes differ, or `cut` does not list exactly the truncated steps.
pub fn resolve(
    ends: &[End],
    v: Tb<'_, f32>,
    v_last: &[f32],
    cut: &[u32],
    v_cut: &[f32],
    bootstrap_truncated: bool,
    mut v_next: TbMut<'_, f32>,
    mut carry: TbMut<'_, f32>,
) {
    let (rows, b) = (v.t(), v.b());
    assert_eq!(ends.len(), rows * b);
    assert_eq!((v_last.len(), v_cut.len()), (b, cut.len()));
    for t in 0..rows {
        let last = t + 1 == rows;
        let follow = if last { v_last } else { v.row(t + 1) };
        let goes_on = if last { 0.0 } else { 1.0 };
        let (next, carry) = (v_next.row_mut(t), carry.row_mut(t));
        for (i, end) in ends[t * b..(t + 1) * b].iter().enumerate() {
            let running = *end == End::Running;
            next[i] = if running { follow[i] } else { 0.0 };
            carry[i] = if running { goes_on } else { 0.0 };
        }
    }
    let truncated = ends.iter().filter(|e| **e == End::Truncated).count();
    assert_eq!(truncated, cut.len(), "every truncated step comes with its final observation");
    for (i, value) in cut.iter().zip(v_cut) {
        assert_eq!(ends[*i as usize], End::Truncated);
        v_next.data_mut()[*i as usize] = if bootstrap_truncated { *value } else { 0.0 };
    }
}

/// `v_next` of a single step, for methods that learn at every step: `v_after` is the value of the observation
/// that followed it, the final one where the episode ended. `bootstrap_truncated` as in [`resolve`].
#[must_use]
pub fn after_step(end: End, v_after: f32, bootstrap_truncated: bool) -> f32 {
    match end {
        End::Running => v_after,
        End::Truncated if bootstrap_truncated => v_after,
        End::Truncated | End::Terminated | End::Lost => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ending_gets_its_own_bootstrap_value() {
        use End::{Running as R, Terminated as X, Truncated as C};
        // T = 3 steps of B = 3 environments: one that runs on, one that dies at t = 0 and is cut at t = 2,
        // one that is cut at t = 1.
        let ends = [R, X, R, R, R, C, R, C, R];
        let v = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        let v_last = [10.0, 11.0, 12.0];
        let (cut, v_cut) = ([5u32, 7], [50.0, 70.0]);
        let run = |bootstrap| {
            let (mut next, mut carry) = ([f32::NAN; 9], [f32::NAN; 9]);
            resolve(
                &ends,
                Tb::new(&v, 3, 3),
                &v_last,
                &cut,
                &v_cut,
                bootstrap,
                TbMut::new(&mut next, 3, 3),
                TbMut::new(&mut carry, 3, 3),
            );
            (next, carry)
        };
        let carry = [1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(run(true), ([4.0, 0.0, 6.0, 7.0, 8.0, 50.0, 10.0, 70.0, 12.0], carry));
        assert_eq!(run(false), ([4.0, 0.0, 6.0, 7.0, 8.0, 0.0, 10.0, 0.0, 12.0], carry));
    }
}
