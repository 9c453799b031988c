//! What is told of actions that are numbers: how they are bounded, and how often a policy leaves the bounds.

use pgrad_env::Space;
use pgrad_model::{Bounded, action_bounds};

/// Numbers that a message names one by one.
const NAMED: usize = 4;
/// Share of an iteration's numbers outside their bounds from which it counts ...
const MOST: f64 = 0.5;
/// ... and iterations in a row after which it is told.
const IN_A_ROW: u32 = 10;

/// What somebody who trains on actions of this space should know; `rescaled` are the numbers that are
/// rescaled.
#[must_use]
pub fn notes(space: &Space, rescaled: &[bool]) -> Vec<String> {
    let bounded: Vec<Bounded> = action_bounds(space).map(|(low, high)| Bounded::of(low, high)).collect();
    let is_rescaled = |i: usize| rescaled.get(i).is_some_and(|r| *r);
    let of = |kind: Bounded, as_is: bool| {
        let own = |i: &usize| bounded[*i] == kind && is_rescaled(*i) != as_is;
        let which: Vec<usize> = (0..bounded.len()).filter(own).collect();
        (!which.is_empty()).then(|| numbers(&which, bounded.len(), space))
    };
    let half = of(Bounded::Half, true).map(|which| {
        format!(
            "actions with one bound are not rescaled ({which}): the policy starts near 0 with a standard deviation \
             of 1 (`log_std_init`), and what it chooses beyond the bound is clipped"
        )
    });
    let none = of(Bounded::Not, true).map(|which| {
        format!(
            "actions without bounds are not rescaled ({which}): the policy starts near 0 with a standard deviation \
             of 1 (`log_std_init`); if useful actions are of another size, scale them in the environment"
        )
    });
    let far = of(Bounded::Far, true).map(|which| {
        format!(
            "actions far from [-1, 1] are not rescaled ({which}): the policy starts near 0 with a standard deviation \
             of 1 (`log_std_init`) and may never leave the edge of its range; set `rescale_actions` to `far`"
        )
    });
    half.into_iter().chain(none).chain(far).collect()
}

/// What is said of the numbers that are rescaled, if there are any.
#[must_use]
pub fn rescaled_note(space: &Space, rescaled: &[bool]) -> Option<String> {
    let which: Vec<usize> = (0..rescaled.len()).filter(|i| rescaled[*i]).collect();
    (!which.is_empty()).then(|| {
        format!(
            "actions far from [-1, 1] are rescaled in training ({}): the policy chooses them in units of their range, \
             -1 for the lower and 1 for the upper bound (`rescale_actions`)",
            numbers(&which, rescaled.len(), space)
        )
    })
}

/// "number 2 of `Box(...)`".
fn numbers(which: &[usize], all: usize, space: &Space) -> String {
    let named: Vec<String> = which.iter().take(NAMED).map(usize::to_string).collect();
    match which {
        _ if which.len() == all => format!("`{space}`"),
        [one] => format!("number {one} of `{space}`"),
        _ if which.len() > NAMED => {
            format!("numbers {} and {} others of `{space}`", named.join(", "), which.len() - NAMED)
        }
        _ => format!("numbers {} of `{space}`", named.join(", ")),
    }
}

/// Watches for a policy that is clipped in most of its actions.
#[derive(Debug, Default)]
pub(crate) struct ClippingWatch {
    in_a_row: u32,
}

impl ClippingWatch {
    /// Takes the share of an iteration; what there is to tell, once.
    pub(crate) fn look(&mut self, share: Option<f64>) -> Option<String> {
        let share = share?;
        self.in_a_row = match (share > MOST, self.in_a_row) {
            (_, IN_A_ROW) => return None,
            (true, n) => n + 1,
            (false, _) => 0,
        };
        (self.in_a_row == IN_A_ROW).then(|| {
            format!(
                "most of what the policy chooses is outside the bounds of its actions ({:.0} % in this iteration, more \
                 than half in each of the last {IN_A_ROW}) and is clipped, which says nothing of how far to go; look \
                 at the action space, `rescale_actions` and `log_std_init`",
                100.0 * share
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrad_env::BoxSpace;
    use pgrad_model::Rescale;

    #[test]
    fn every_kind_of_bounds_is_told_with_its_numbers() {
        let inf = f32::INFINITY;
        let space = Space::Box(BoxSpace::new(
            vec![-1.0, 0.0, 500.0, -inf, 1.0, -inf, -inf, -inf, -inf],
            vec![1.0, inf, 1000.0, inf, inf, inf, inf, inf, inf],
        ));
        let rescaled = Rescale::Far.numbers(&space);
        let [half, none] = &notes(&space, &rescaled)[..] else { panic!() };
        assert!(half.starts_with("actions with one bound are not rescaled (numbers 1, 4 of `Box("), "{half}");
        let begin = "actions without bounds are not rescaled (numbers 3, 5, 6, 7 and 1 others of `Box(";
        assert!(none.starts_with(begin), "{none}");
        let note = rescaled_note(&space, &rescaled).unwrap_or_default();
        assert!(
            note.starts_with("actions far from [-1, 1] are rescaled in training (number 2 of `Box("),
            "{note}"
        );
        let [_, _, far] = &notes(&space, &[])[..] else { panic!() };
        assert!(
            far.contains("are not rescaled (number 2 of") && far.contains("set `rescale_actions`"),
            "{far}"
        );
        let near = Space::Box(BoxSpace::uniform(-2.0, 2.0, 3));
        assert!(notes(&near, &[]).is_empty() && rescaled_note(&near, &[]).is_none());
        let far = Space::Box(BoxSpace::uniform(0.0, 255.0, 2));
        assert!(notes(&far, &[])[0].contains("(`Box(0.0, 255.0, (2,), float32)`)"), "all of them");
        assert!(notes(&Space::Discrete { n: 2 }, &[]).is_empty());
    }

    #[test]
    fn clipping_is_told_once_when_it_lasts() {
        let mut watch = ClippingWatch::default();
        let mut told =
            |share: f64, n: u32| (0..n).filter_map(|_| watch.look(Some(share))).collect::<Vec<_>>();
        assert!(told(0.9, 9).is_empty() && told(0.5, 1).is_empty() && told(0.9, 9).is_empty());
        let [once] = &told(0.97, 30)[..] else { panic!() };
        assert!(once.contains("97 % in this iteration"), "{once}");
        assert_eq!(ClippingWatch::default().look(None), None, "of actions that are no numbers");
    }
}
