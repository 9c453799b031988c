//! Gymnasium's spaces: what lies where in a row of bytes, and how it becomes the numbers that are learnt
//! from.

use crate::recipe::MaskSource;
use pgrad_env::{Actions, BoxSpace, Dtype, ObsSpace, Part, Space};
use serde::Deserialize;

/// The type of numpy's `dtype.str`: byte order, kind, bytes. None for what cannot be read here.
fn dtype(text: &str) -> Option<Dtype> {
    let (order, rest) = text.split_at_checked(1)?;
    let native = if cfg!(target_endian = "little") { "<" } else { ">" };
    if order != "|" && order != native {
        return None;
    }
    Some(match rest {
        "b1" => Dtype::Bool,
        "u1" => Dtype::U8,
        "u2" => Dtype::U16,
        "u4" => Dtype::U32,
        "u8" => Dtype::U64,
        "i1" => Dtype::I8,
        "i2" => Dtype::I16,
        "i4" => Dtype::I32,
        "i8" => Dtype::I64,
        "f2" => Dtype::F16,
        "f4" => Dtype::F32,
        "f8" => Dtype::F64,
        _ => return None,
    })
}

/// The number whose bytes these are.
#[inline]
fn number(dtype: Dtype, bytes: &[u8]) -> f64 {
    fn all<const N: usize>(bytes: &[u8]) -> [u8; N] {
        std::array::from_fn(|i| bytes[i])
    }
    match dtype {
        Dtype::F16 => half(u16::from_ne_bytes(all(bytes))),
        Dtype::F32 => f64::from(f32::from_ne_bytes(all(bytes))),
        Dtype::F64 => f64::from_ne_bytes(all(bytes)),
        Dtype::I8 => f64::from(i8::from_ne_bytes(all(bytes))),
        Dtype::I16 => f64::from(i16::from_ne_bytes(all(bytes))),
        Dtype::I32 => f64::from(i32::from_ne_bytes(all(bytes))),
        Dtype::I64 => i64::from_ne_bytes(all(bytes)) as f64,
        Dtype::Bool | Dtype::U8 => f64::from(bytes[0]),
        Dtype::U16 => f64::from(u16::from_ne_bytes(all(bytes))),
        Dtype::U32 => f64::from(u32::from_ne_bytes(all(bytes))),
        Dtype::U64 => u64::from_ne_bytes(all(bytes)) as f64,
    }
}

/// The bytes of a number, rounded to one of this type.
fn write(dtype: Dtype, x: f64, to: &mut [u8]) {
    match dtype {
        Dtype::F16 => to.copy_from_slice(&to_half(x).to_ne_bytes()),
        Dtype::F32 => to.copy_from_slice(&(x as f32).to_ne_bytes()),
        Dtype::F64 => to.copy_from_slice(&x.to_ne_bytes()),
        // Little end first or last: the low bytes of the widest number.
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => copy_low(&(x.round() as i64).to_ne_bytes(), to),
        Dtype::Bool | Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => {
            copy_low(&(x.round() as u64).to_ne_bytes(), to);
        }
    }
}

fn copy_low(wide: &[u8; 8], to: &mut [u8]) {
    let n = to.len();
    to.copy_from_slice(if cfg!(target_endian = "little") { &wide[..n] } else { &wide[8 - n..] });
}

/// A number of IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let (sign, exponent, mantissa) =
        (if bits >> 15 == 1 { -1.0 } else { 1.0 }, i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    sign * match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        e => (1.0 + mantissa / 1024.0) * 2f64.powi(e - 15),
    }
}

/// The nearest number of binary16, towards 0 where two are as near.
fn to_half(x: f64) -> u16 {
    let sign = u16::from(x.is_sign_negative()) << 15;
    // The magnitudes of binary16 are in the order of their bits.
    let (mut low, mut high) = (0u16, 0x7bff);
    while low < high {
        let middle = low + (high - low) / 2;
        // Whether the magnitude is nearer to what comes after `middle`.
        if x.abs() > f64::midpoint(half(middle), half(middle + 1)) { low = middle + 1 } else { high = middle }
    }
    sign | low
}

/// One part of a space, as the worker describes it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct LeafText {
    name: String,
    kind: String,
    dtype: String,
    shape: Vec<usize>,
    count: usize,
    #[serde(default)]
    low: Vec<String>,
    #[serde(default)]
    high: Vec<String>,
    #[serde(default)]
    n: Vec<i64>,
    #[serde(default)]
    start: Vec<i64>,
}

/// What an environment is, as the worker describes it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct SpecText {
    pub(crate) reward_threshold: Option<f64>,
    pub(crate) max_episode_steps: Option<u64>,
    pub(crate) observation: Vec<LeafText>,
    pub(crate) action: Vec<LeafText>,
    /// Whether observations have parts; whether actions do.
    pub(crate) composite: bool,
    pub(crate) action_composite: bool,
    pub(crate) masks: MaskSource,
    /// What is to be told when it was looked at.
    pub(crate) note: Option<String>,
    pub(crate) versions: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// Numbers between bounds; `inside` are the bounds of what lies inside but for rounding.
    Box { low: Vec<f64>, high: Vec<f64>, inside: Vec<[f64; 2]> },
    /// Choices of `n[i]` alternatives from `start[i]` on, written one-hot.
    Choices { n: Vec<i64>, start: Vec<i64> },
    /// Switches.
    Bits,
}

/// One part of a space.
#[derive(Clone, Debug, PartialEq)]
struct Leaf {
    /// Keys and numbers on the way to it, with dots between; empty for a whole space.
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Numbers in the row of bytes.
    count: usize,
    kind: Kind,
}

/// What is wrong with a row of an observation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RowError {
    /// It must not be learnt from.
    Refused(String),
    /// It lies outside the bounds of its space.
    OutOfBounds(String),
}

fn numbers(texts: &[String], count: usize, what: &str) -> Result<Vec<f64>, String> {
    let all: Result<Vec<f64>, _> = texts.iter().map(|t| t.parse()).collect();
    match all {
        Ok(one) if one.len() == 1 => Ok(vec![one[0]; count]),
        Ok(all) if all.len() == count => Ok(all),
        Ok(all) => Err(format!("it has {} {what} bounds for {count} numbers", all.len())),
        Err(e) => Err(format!("a {what} bound is no number: {e}")),
    }
}

impl Leaf {
    fn new(text: &LeafText) -> Result<Self, String> {
        let dtype = dtype(&text.dtype).ok_or_else(|| format!("numbers of `{}`", text.dtype))?;
        if text.shape.iter().product::<usize>() != text.count {
            return Err(format!("shape {:?} for {} numbers", text.shape, text.count));
        }
        let kind = match text.kind.as_str() {
            "box" => {
                let low = numbers(&text.low, text.count, "lower")?;
                let high = numbers(&text.high, text.count, "upper")?;
                let pairs = low.iter().zip(&high);
                let loose = |(low, high): (&f64, &f64)| {
                    let slack = dtype.slack(*low, *high);
                    [low - slack, high + slack]
                };
                let inside = pairs.map(loose).collect();
                Kind::Box { low, high, inside }
            }
            "multi-binary" => Kind::Bits,
            "discrete" | "multi-discrete" => {
                if text.n.len() != text.count || text.start.len() != text.count {
                    return Err(format!("{} choices for {} numbers", text.n.len(), text.count));
                }
                if let Some(n) = text.n.iter().find(|n| !(1..=1 << 24).contains(*n)) {
                    return Err(format!("a choice of {n} alternatives"));
                }
                Kind::Choices { n: text.n.clone(), start: text.start.clone() }
            }
            other => return Err(format!("a space of the kind `{other}`")),
        };
        Ok(Self { name: text.name.clone(), dtype, shape: text.shape.clone(), count: text.count, kind })
    }
    fn bytes(&self) -> usize {
        self.dtype.size() * self.count
    }
    /// Numbers that are learnt from.
    fn dim(&self) -> usize {
        match &self.kind {
            Kind::Choices { n, .. } => n.iter().sum::<i64>() as usize,
            _ => self.count,
        }
    }
    fn space(&self) -> Space {
        match &self.kind {
            Kind::Box { low, high, .. } => {
                let f32s = |x: &[f64]| x.iter().map(|x| *x as f32).collect();
                Space::Box(BoxSpace::new(f32s(low), f32s(high)).shaped(&self.shape, self.dtype))
            }
            Kind::Choices { n, .. } if n.len() == 1 => Space::Discrete { n: n[0] as usize },
            Kind::Choices { n, .. } => Space::MultiDiscrete { nvec: n.iter().map(|n| *n as usize).collect() },
            Kind::Bits => Space::MultiBinary { n: self.count },
        }
    }
    fn part(&self) -> Part {
        Part { name: self.name.clone(), space: self.space() }
    }
    fn number_name(&self, i: usize) -> String {
        format!("{} of the observation", ObsSpace::of_parts(vec![self.part()]).component(i))
    }
    /// Writes the numbers of a row of bytes.
    fn decode(&self, bytes: &[u8], to: &mut [f32]) -> Result<(), RowError> {
        let size = self.dtype.size();
        match &self.kind {
            Kind::Box { low, high, inside: bounds } => {
                let mut inside = true;
                if self.dtype == Dtype::F32 {
                    for ((b, x), [low, high]) in bytes.chunks_exact(4).zip(to.iter_mut()).zip(bounds) {
                        *x = f32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
                        let wide = f64::from(*x);
                        // Bounds that are infinite hold no number back: they must not let an infinity
                        // through.
                        inside &= (wide >= *low) & (wide <= *high) & x.is_finite();
                    }
                } else {
                    for ((b, x), [low, high]) in bytes.chunks_exact(size).zip(to.iter_mut()).zip(bounds) {
                        let wide = number(self.dtype, b);
                        *x = wide as f32;
                        inside &= (wide >= *low) & (wide <= *high) & x.is_finite();
                    }
                }
                if inside { Ok(()) } else { Err(self.box_error(bytes, to, low, high, bounds)) }
            }
            Kind::Choices { n, start } => {
                to.fill(0.0);
                let mut at = 0;
                for (i, b) in bytes.chunks_exact(size).enumerate() {
                    let x = number(self.dtype, b) - start[i] as f64;
                    if !(0.0..n[i] as f64).contains(&x) {
                        let (first, last) = (start[i], start[i] + n[i] - 1);
                        return Err(RowError::Refused(format!(
                            "{} is {}, its space has {first} to {last}",
                            self.number_name(i),
                            number(self.dtype, b)
                        )));
                    }
                    to[at + x as usize] = 1.0;
                    at += n[i] as usize;
                }
                Ok(())
            }
            Kind::Bits => {
                for (i, (b, x)) in bytes.chunks_exact(size).zip(to.iter_mut()).enumerate() {
                    *x = number(self.dtype, b) as f32;
                    if *x != 0.0 && *x != 1.0 {
                        let name = self.number_name(i);
                        return Err(RowError::Refused(format!("{name} is {x}, its space has 0 and 1")));
                    }
                }
                Ok(())
            }
        }
    }
    /// What is wrong with the first bad number; what is not finite comes first.
    #[cold]
    fn box_error(
        &self,
        bytes: &[u8],
        to: &[f32],
        low: &[f64],
        high: &[f64],
        inside: &[[f64; 2]],
    ) -> RowError {
        let size = self.dtype.size();
        let number = |i: usize| number(self.dtype, &bytes[i * size..(i + 1) * size]);
        if let Some(i) = to.iter().position(|x| !x.is_finite()) {
            let value = number(i);
            let lossy = if value.is_finite() { ", which single precision cannot hold" } else { "" };
            return RowError::Refused(format!("{} is {value:?}{lossy}", self.number_name(i)));
        }
        let is_inside = |i: &usize| (inside[*i][0]..=inside[*i][1]).contains(&number(*i));
        let i = (0..to.len()).find(|i| !is_inside(i)).unwrap_or(0);
        let (value, low, high) = (number(i), low[i], high[i]);
        RowError::OutOfBounds(format!(
            "{} is {value:?}, its space has {low:?} to {high:?}",
            self.number_name(i)
        ))
    }
}

/// Bytes of the widest numbers: where an action has parts, each begins at a multiple of this.
const WIDEST: usize = 8;

/// The spaces of an environment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spaces {
    observation: Vec<Leaf>,
    action: Vec<Leaf>,
    composite: bool,
    action_composite: bool,
    /// Entries of an action mask; none where there are no masks.
    mask_dim: usize,
}

impl Spaces {
    /// # Errors
    /// What cannot be used.
    pub(crate) fn new(text: &SpecText) -> Result<Self, String> {
        let observation: Result<Vec<_>, _> = text.observation.iter().map(Leaf::new).collect();
        let observation = observation.map_err(|e| format!("the observation space cannot be used: {e}"))?;
        let action: Result<Vec<_>, _> = text.action.iter().map(Leaf::new).collect();
        let action = action.map_err(|e| format!("the action space cannot be used: {e}"))?;
        if observation.iter().all(|leaf| leaf.count == 0) || action.is_empty() {
            return Err("a space without numbers cannot be used".to_owned());
        }
        if let Some(leaf) = action.iter().find(|leaf| leaf.count == 0) {
            let part = if leaf.name.is_empty() { "it".to_owned() } else { format!("`{}`", leaf.name) };
            return Err(format!("the action space cannot be used: {part} has no numbers"));
        }
        let (composite, action_composite) = (text.composite, text.action_composite);
        let mut spaces = Self { observation, action, composite, action_composite, mask_dim: 0 };
        if text.masks.python().is_some() {
            spaces.mask_dim = spaces.action().mask_dim();
        }
        Ok(spaces)
    }
    /// The space of observations.
    pub(crate) fn observation(&self) -> ObsSpace {
        match (&self.observation[..], self.composite) {
            ([leaf], false) => leaf.space().into(),
            (leaves, _) => ObsSpace::of_parts(leaves.iter().map(Leaf::part).collect()),
        }
    }
    /// The space of actions.
    pub(crate) fn action(&self) -> Space {
        match (&self.action[..], self.action_composite) {
            ([leaf], false) => leaf.space(),
            (leaves, _) => Space::Product { parts: leaves.iter().map(Leaf::part).collect() },
        }
    }
    /// Bytes of one environment's rows, part after part.
    pub(crate) fn observation_bytes(&self) -> impl Iterator<Item = usize> + '_ {
        self.observation.iter().map(Leaf::bytes)
    }
    /// Entries of an action mask, a byte each; none where there are no masks.
    pub(crate) fn mask_dim(&self) -> usize {
        self.mask_dim
    }
    /// Bytes of one environment's action.
    pub(crate) fn action_bytes(&self) -> usize {
        match &self.action[..] {
            [leaf] => leaf.bytes(),
            leaves => leaves.iter().map(|leaf| leaf.bytes().next_multiple_of(WIDEST)).sum(),
        }
    }
    /// Where the parts of an action begin in its row of bytes.
    pub(crate) fn action_places(&self) -> impl Iterator<Item = usize> + '_ {
        self.action.iter().scan(0, |next, leaf| {
            let place = *next;
            *next += leaf.bytes().next_multiple_of(WIDEST);
            Some(place)
        })
    }
    /// Writes the numbers of an observation from its parts' rows of bytes, one after the other.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place. What lies outside its bounds is written all the same.
    pub(crate) fn decode(&self, mut bytes: &[u8], mut to: &mut [f32]) -> Result<(), RowError> {
        let mut result = Ok(());
        for leaf in &self.observation {
            let (row, rest) = bytes.split_at(leaf.bytes());
            let (own, others) = std::mem::take(&mut to).split_at_mut(leaf.dim());
            match leaf.decode(row, own) {
                Ok(()) => {}
                Err(e @ RowError::Refused(_)) => return Err(e),
                Err(e) => result = result.and(Err(e)),
            }
            (bytes, to) = (rest, others);
        }
        result
    }
    /// Writes the row of bytes of environment `b`'s action. Numbers are brought inside their bounds as the
    /// environment's own type holds them.
    pub(crate) fn encode(&self, actions: Actions<'_>, b: usize, to: &mut [u8]) {
        let (mut index, mut real) = (0, 0);
        for (leaf, at) in self.action.iter().zip(self.action_places()) {
            let size = leaf.dtype.size();
            for (i, to) in to[at..at + leaf.bytes()].chunks_exact_mut(size).enumerate() {
                let x = match &leaf.kind {
                    Kind::Box { low, high, .. } => {
                        real += 1;
                        f64::from(actions.real.at(real - 1, b)).max(low[i]).min(high[i])
                    }
                    kind => {
                        index += 1;
                        let start = if let Kind::Choices { start, .. } = kind { start[i] } else { 0 };
                        (start + i64::from(actions.index.at(index - 1, b))) as f64
                    }
                };
                write(leaf.dtype, x, to);
            }
        }
    }
}
