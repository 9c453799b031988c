//! The space of observations.

use crate::{BoxSpace, Space};
use std::fmt;
use std::ops::Range;

/// One part of an observation, or of an action.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its key, or the way to it with dots between; empty where it is all that there is.
    pub name: String,
    /// What it is.
    pub space: Space,
}

impl Part {
    /// Writes several as Gymnasium does: a `Tuple` where their names are their numbers, or else a `Dict`.
    pub(crate) fn write_all(parts: &[Self], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbered = parts.iter().enumerate().all(|(i, part)| part.name == i.to_string());
        f.write_str(if numbered { "Tuple(" } else { "Dict(" })?;
        for (i, part) in parts.iter().enumerate() {
            f.write_str(if i > 0 { ", " } else { "" })?;
            if !numbered {
                write!(f, "'{}': ", part.name)?;
            }
            write!(f, "{}", part.space)?;
        }
        f.write_str(")")
    }
}

/// The space of observations: parts that lie one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct ObsSpace {
    parts: Vec<Part>,
}

/// A number outside its space.
#[derive(Clone, Debug, PartialEq)]
pub struct Outside {
    /// Which of all numbers.
    pub index: usize,
    /// What its space says of it.
    pub expected: String,
}

impl ObsSpace {
    /// Parts with names of their own.
    #[must_use]
    pub fn of_parts(parts: Vec<Part>) -> Self {
        Self { parts }
    }
    /// The parts, in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
    /// The space, where it is one without a name.
    #[must_use]
    pub fn single(&self) -> Option<&Space> {
        match &self.parts[..] {
            [part] if part.name.is_empty() => Some(&part.space),
            _ => None,
        }
    }
    /// How many numbers an observation has as network input.
    #[must_use]
    pub fn obs_dim(&self) -> usize {
        self.parts.iter().map(|p| p.space.obs_dim()).sum()
    }
    /// The parts, each with the numbers that are its own.
    fn placed(&self) -> impl Iterator<Item = (&Part, Range<usize>)> {
        self.parts.iter().scan(0, |from, part| {
            let range = *from..*from + part.space.obs_dim();
            *from = range.end;
            Some((part, range))
        })
    }
    /// Component `index` of all as messages name it: `component 3`, ``component [0, 12, 2] of `image` ``.
    #[must_use]
    pub fn component(&self, index: usize) -> String {
        match self.placed().find(|(_, range)| range.contains(&index)) {
            Some((part, range)) => {
                let of = if part.name.is_empty() { String::new() } else { format!(" of `{}`", part.name) };
                format!("component {}{of}", part.space.index(index - range.start))
            }
            None => format!("component {index}"),
        }
    }
    /// The first number of an observation that lies outside its space.
    ///
    /// # Panics
    /// When `obs` has not [`ObsSpace::obs_dim`] numbers.
    #[must_use]
    pub fn outside(&self, obs: &[f32]) -> Option<Outside> {
        self.placed().find_map(|(part, range)| {
            let (i, expected) = part.space.outside(&obs[range.clone()])?;
            Some(Outside { index: range.start + i, expected })
        })
    }
}

impl From<Space> for ObsSpace {
    fn from(space: Space) -> Self {
        Self { parts: vec![Part { name: String::new(), space }] }
    }
}

impl From<BoxSpace> for ObsSpace {
    fn from(space: BoxSpace) -> Self {
        Space::Box(space).into()
    }
}

impl fmt::Display for ObsSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(space) = self.single() {
            return write!(f, "{space}");
        }
        Part::write_all(&self.parts, f)
    }
}
