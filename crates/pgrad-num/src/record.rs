//! A bag of named arrays: the form in which every part of a run saves its state.

use std::collections::BTreeMap;
use thiserror::Error;

/// One named array of a [`Record`].
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
    /// Counters, positions, indices.
    U64(Vec<u64>),
    /// Small enumerations and flags.
    U8(Vec<u8>),
}

impl Array {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::U8(v) => v.len(),
        }
    }
    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Name of the element type.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::U64(_) => "u64",
            Self::U8(_) => "u8",
        }
    }
}

impl From<Vec<f32>> for Array {
    fn from(v: Vec<f32>) -> Self {
        Self::F32(v)
    }
}
impl From<Vec<f64>> for Array {
    fn from(v: Vec<f64>) -> Self {
        Self::F64(v)
    }
}
impl From<Vec<u64>> for Array {
    fn from(v: Vec<u64>) -> Self {
        Self::U64(v)
    }
}
impl From<Vec<u8>> for Array {
    fn from(v: Vec<u8>) -> Self {
        Self::U8(v)
    }
}

/// Named arrays in name order. Nested parts use dotted names (`adam.m`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    entries: BTreeMap<String, Array>,
}

/// What is wrong with a saved record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// An entry that the reader needs is not there.
    #[error("the saved state has no entry `{name}`")]
    Missing {
        /// Name of the entry.
        name: String,
    },
    /// An entry has another length.
    #[error("entry `{name}` of the saved state has {got} elements, expected {expected}")]
    Length {
        /// Name of the entry.
        name: String,
        /// Length that the reader needs.
        expected: usize,
        /// Length found.
        got: usize,
    },
    /// An entry has another element type.
    #[error("entry `{name}` of the saved state holds {got}, expected {expected}")]
    Type {
        /// Name of the entry.
        name: String,
        /// Type that the reader needs.
        expected: &'static str,
        /// Type found.
        got: &'static str,
    },
    /// An entry has a value that cannot be.
    #[error("entry `{name}` of the saved state: {reason}")]
    Value {
        /// Name of the entry.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

macro_rules! typed {
    ($get:ident, $variant:ident, $ty:ty) => {
        /// The entry `name` as a slice of exactly `len` elements.
        ///
        /// # Errors
        /// When it is missing, of another type, or of another length.
        pub fn $get(&self, name: &str, len: usize) -> Result<&[$ty], RecordError> {
            match self.get(name)? {
                Array::$variant(v) if v.len() == len => Ok(v),
                Array::$variant(v) => {
                    Err(RecordError::Length { name: name.into(), expected: len, got: v.len() })
                }
                other => Err(RecordError::Type {
                    name: name.into(),
                    expected: stringify!($ty),
                    got: other.type_name(),
                }),
            }
        }
    };
}

impl Record {
    /// An empty record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds an entry.
    ///
    /// # Panics
    /// When the name is taken: two parts would overwrite each other's state.
    pub fn put(&mut self, name: &str, array: impl Into<Array>) {
        let old = self.entries.insert(name.to_owned(), array.into());
        assert!(old.is_none(), "two parts of the state are both called `{name}`");
    }
    /// Adds all entries of `inner` under `prefix.`.
    pub fn put_record(&mut self, prefix: &str, inner: Record) {
        for (name, array) in inner.entries {
            self.put(&format!("{prefix}.{name}"), array);
        }
    }
    /// The entries under `prefix.`, without the prefix.
    #[must_use]
    pub fn record(&self, prefix: &str) -> Record {
        let head = format!("{prefix}.");
        let entries = self
            .entries
            .range(head.clone()..)
            .take_while(|(k, _)| k.starts_with(&head))
            .map(|(k, v)| (k[head.len()..].to_owned(), v.clone()))
            .collect();
        Record { entries }
    }
    /// The entry `name`.
    ///
    /// # Errors
    /// When it is missing.
    pub fn get(&self, name: &str) -> Result<&Array, RecordError> {
        self.entries.get(name).ok_or_else(|| RecordError::Missing { name: name.to_owned() })
    }
    typed!(f32s, F32, f32);
    typed!(f64s, F64, f64);
    typed!(u64s, U64, u64);
    typed!(u8s, U8, u8);
    /// A single counter.
    ///
    /// # Errors
    /// As [`Record::u64s`].
    pub fn u64(&self, name: &str) -> Result<u64, RecordError> {
        Ok(self.u64s(name, 1)?[0])
    }
    /// A single number.
    ///
    /// # Errors
    /// As [`Record::f64s`].
    pub fn f64(&self, name: &str) -> Result<f64, RecordError> {
        Ok(self.f64s(name, 1)?[0])
    }
    /// All entries in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Array)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_records_come_back_whole() {
        let mut inner = Record::new();
        inner.put("m", vec![1.0f32, 2.0]);
        let mut outer = Record::new();
        outer.put("step", vec![3u64]);
        outer.put_record("adam", inner.clone());
        assert_eq!(outer.record("adam"), inner);
        assert_eq!(outer.u64("step"), Ok(3));
        assert_eq!(outer.f32s("adam.m", 2), Ok(&[1.0f32, 2.0][..]));
    }

    #[test]
    fn every_mismatch_is_named() {
        let mut r = Record::new();
        r.put("x", vec![1.0f32]);
        assert_eq!(r.f32s("y", 1), Err(RecordError::Missing { name: "y".into() }));
        assert_eq!(r.f32s("x", 2), Err(RecordError::Length { name: "x".into(), expected: 2, got: 1 }));
        assert_eq!(r.u64s("x", 1), Err(RecordError::Type { name: "x".into(), expected: "u64", got: "f32" }));
    }
}
