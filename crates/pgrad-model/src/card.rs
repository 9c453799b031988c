//! How spaces are described in the file of a policy.

use pgrad_env::{BoxSpace, Dtype, ObsSpace, Part, Space};
use serde::{Deserialize, Serialize};

/// One part of the observations or of the actions.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartCard {
    name: String,
    kind: String,
    /// Alternatives, switches, or the shape of a box.
    sizes: Vec<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dtype: Option<String>,
    /// Bounds as text, since JSON has no infinity; one where all are alike.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    low: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    high: Vec<String>,
}

/// The kind of a space that has parts.
pub(crate) const PRODUCT: &str = "product";

/// Kind and sizes of a space.
pub(crate) fn kind_of(space: &Space) -> (&'static str, Vec<usize>) {
    match space {
        Space::Discrete { n } => ("discrete", vec![*n]),
        Space::MultiDiscrete { nvec } => ("multi-discrete", nvec.clone()),
        Space::MultiBinary { n } => ("multi-binary", vec![*n]),
        Space::Box(b) => ("box", b.shape.clone()),
        // Its parts have cards of their own.
        Space::Product { .. } => (PRODUCT, Vec::new()),
    }
}

/// The space of a kind with these sizes; `bounds` has those of a box of so many numbers.
pub(crate) fn space_of<E>(
    kind: &str,
    sizes: &[usize],
    dtype: Option<&str>,
    bounds: impl FnOnce(usize) -> Result<[Vec<f32>; 2], E>,
) -> Result<Option<Space>, E> {
    Ok(match (kind, sizes) {
        ("discrete", [n]) => Some(Space::Discrete { n: *n }),
        ("multi-binary", [n]) => Some(Space::MultiBinary { n: *n }),
        ("multi-discrete", nvec) => Some(Space::MultiDiscrete { nvec: nvec.to_vec() }),
        ("box", shape) => {
            let dim = shape.iter().try_fold(1usize, |dim, n| dim.checked_mul(*n));
            let dtype = dtype.map_or(Some(Dtype::default()), Dtype::named);
            let (Some(dim), Some(dtype)) = (dim, dtype) else { return Ok(None) };
            let [low, high] = bounds(dim)?;
            let fits = low.len() == dim && high.len() == dim && low.iter().zip(&high).all(|(l, h)| l <= h);
            fits.then(|| Space::Box(BoxSpace::new(low, high).shaped(shape, dtype)))
        }
        _ => None,
    })
}

/// The description of spaces with names.
pub(crate) fn cards(parts: &[Part]) -> Vec<PartCard> {
    let texts = |x: &[f32]| {
        let alike = x.len() > 1 && x.iter().all(|v| *v == x[0]);
        x[..if alike { 1 } else { x.len() }].iter().map(f32::to_string).collect()
    };
    let card = |part: &Part| {
        let (kind, sizes) = kind_of(&part.space);
        let (dtype, low, high) = match &part.space {
            Space::Box(b) => (Some(b.dtype.to_string()), texts(&b.low), texts(&b.high)),
            _ => (None, Vec::new(), Vec::new()),
        };
        PartCard { name: part.name.clone(), kind: kind.to_owned(), sizes, dtype, low, high }
    };
    parts.iter().map(card).collect()
}

/// The spaces that are described, of up to `most` numbers each; None when one cannot be.
pub(crate) fn parts(cards: &[PartCard], most: usize) -> Option<Vec<Part>> {
    let part = |card: &PartCard| {
        if card.sizes.iter().any(|n| *n > most) {
            return None;
        }
        let texts = |texts: &[String], dim: usize| {
            let x: Vec<f32> = texts.iter().map(|t| t.parse().ok()).collect::<Option<_>>()?;
            // What is more than the network has would only take memory.
            Some(if x.len() == 1 && dim <= most { vec![x[0]; dim] } else { x })
        };
        let bounds = |dim| -> Result<_, ()> {
            Ok([texts(&card.low, dim).ok_or(())?, texts(&card.high, dim).ok_or(())?])
        };
        let space = space_of(&card.kind, &card.sizes, card.dtype.as_deref(), bounds).ok()??;
        Some(Part { name: card.name.clone(), space })
    };
    cards.iter().map(part).collect()
}

/// The space of observations of so many numbers that is described; None when it cannot be.
pub(crate) fn observation(cards: &[PartCard], obs_dim: usize) -> Option<ObsSpace> {
    let space = ObsSpace::of_parts(parts(cards, obs_dim)?);
    (space.obs_dim() == obs_dim).then_some(space)
}

/// The action space of these parts, of up to `most` numbers each; None when it cannot be.
pub(crate) fn product(cards: &[PartCard], most: usize) -> Option<Space> {
    let parts = parts(cards, most)?;
    let chooses = |part: &Part| part.space.action_dim() > 0 && !part.space.choices().contains(&0);
    (!parts.is_empty() && parts.iter().all(chooses)).then_some(Space::Product { parts })
}

/// Two parts, for tests.
#[cfg(test)]
pub(crate) fn parts_of_three() -> ObsSpace {
    let part = |name: &str, space: Space| Part { name: name.to_owned(), space };
    let pixels = BoxSpace::uniform(0.0, f32::INFINITY, 2).shaped(&[2, 1], Dtype::U8);
    ObsSpace::of_parts(vec![part("pixels", pixels.into()), part("switch", Space::MultiBinary { n: 1 })])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_that_cannot_be_is_refused() {
        let changed = |change: fn(&mut PartCard)| {
            let mut cards = cards(parts_of_three().parts());
            change(&mut cards[0]);
            observation(&cards, 3)
        };
        assert_eq!(changed(|_| ()), Some(parts_of_three()));
        let changes: [fn(&mut PartCard); 7] = [
            |c| c.sizes = vec![3, 1],
            |c| c.sizes = vec![usize::MAX, usize::MAX],
            |c| c.low = vec!["NaN".into(); 2],
            |c| c.high = vec!["-1".into()],
            |c| c.low = vec!["low".into()],
            |c| c.dtype = Some("float".into()),
            |c| c.kind = "discrete".into(),
        ];
        for (i, change) in changes.into_iter().enumerate() {
            assert_eq!(changed(change), None, "{i}");
        }
    }
}
