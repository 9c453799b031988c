//! A [`Record`] as the bytes of a `.safetensors` file, and back.
//!
//! The format is an 8-byte header length, a JSON header with name, element type, shape and place of each
//! tensor, and the raw little-endian numbers. It holds no code and no class names, and NumPy, PyTorch and
//! JAX read it. Every array here has one dimension; the reader of a record knows the shapes.
//!
//! Equal records give equal bytes: tensors stand in order of element type, then name, and of metadata there
//! is at most the note (the crate keeps metadata in a hash map, whose order is random).
//!
//! A file that stands alone, without a manifest that lists its digest, is sealed: its metadata begin with the
//! BLAKE3 digest of the whole file, in which the 64 letters of the digest itself are zeros.

use pgrad_num::{Array, Record};
use safetensors::{
    SafeTensorError, SafeTensors,
    tensor::{Dtype, TensorView},
};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::{collections::BTreeSet, fmt};
use thiserror::Error;

/// Longest accepted header: some 200 000 tensors.
pub const MAX_HEADER_LEN: u64 = 16 << 20;

/// The one key of metadata.
const NOTE_KEY: &str = "pgrad";
/// The name that the format keeps for metadata.
const RESERVED: &str = "__metadata__";
/// How the header of a file with a note begins.
const BEGIN: &str = "{\"__metadata__\":{";
/// How that of a sealed file goes on.
const DIGEST: &str = "\"digest\":\"";
/// What follows the digest: with it, the whole fills 80 bytes, and tensors stay aligned to 8.
const DIGEST_END: &str = "\",    ";
/// Letters of a digest.
const DIGEST_LEN: usize = 64;

/// What is wrong with the bytes of a tensor file, or with a record that should become one.
#[derive(Debug, Error)]
pub enum TensorsError {
    /// A name that the format does not allow.
    #[error("invalid tensor name `{name}`: it is empty or reserved by the format")]
    Name {
        /// The name.
        name: String,
    },
    /// Fewer bytes than the header's length takes.
    #[error("a tensor file starts with 8 bytes of header length, but this one has only {len} bytes")]
    TooShort {
        /// Bytes there.
        len: usize,
    },
    /// A header beyond the limit or beyond the end of the file.
    #[error(
        "the header claims {claimed} bytes, but the file has room for {room} and the limit is \
         {MAX_HEADER_LEN}"
    )]
    HeaderLen {
        /// Claimed length.
        claimed: u64,
        /// Bytes behind the length field.
        room: u64,
    },
    /// A name that stands in the header more than once.
    #[error("the header names the tensor `{name}` twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A header that is not the JSON that the format asks for, or tensors that do not fill the file
    /// exactly.
    #[error("not a valid safetensors file: {reason}")]
    Format {
        /// What the parser found.
        reason: String,
    },
    /// An element type that a record does not have.
    #[error("tensor `{name}` holds {dtype}; only F32, F64, U64 and U8 are supported")]
    Dtype {
        /// Name of the tensor.
        name: String,
        /// Its element type.
        dtype: String,
    },
    /// A file that stands alone and does not say what its bytes should be.
    #[error("the file has no digest: it is from an older version, or another program wrote it")]
    Unsealed,
    /// A file that is not what was written.
    #[error(
        "the file was damaged or changed after it was written: its digest is {got}, but it says {written}"
    )]
    Seal {
        /// The digest of the file.
        got: String,
        /// The digest that stands in it.
        written: String,
    },
    /// A shape that a record does not have.
    #[error("tensor `{name}` has {dims} dimensions, but saved arrays have one")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Its number of dimensions.
        dims: usize,
    },
}

impl From<SafeTensorError> for TensorsError {
    fn from(e: SafeTensorError) -> Self {
        Self::Format { reason: e.to_string() }
    }
}

fn le_bytes(array: &Array) -> (Dtype, Vec<u8>) {
    match array {
        Array::F32(v) => (Dtype::F32, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Array::F64(v) => (Dtype::F64, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Array::U64(v) => (Dtype::U64, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Array::U8(v) => (Dtype::U8, v.clone()),
    }
}

/// The bytes of a tensor file with this record, and with a note (any text, as a rule JSON) when one is
/// given. Equal arguments give equal bytes.
///
/// # Errors
/// When a name is empty or reserved.
pub fn encode(record: &Record, note: Option<&str>) -> Result<Vec<u8>, TensorsError> {
    let mut arrays = Vec::new();
    for (name, array) in record.iter() {
        if name.is_empty() || name == RESERVED {
            return Err(TensorsError::Name { name: name.to_owned() });
        }
        let (dtype, bytes) = le_bytes(array);
        arrays.push((name, dtype, array.len(), bytes));
    }
    let views = arrays
        .iter()
        .map(|(name, dtype, len, bytes)| Ok((*name, TensorView::new(*dtype, vec![*len], bytes)?)))
        .collect::<Result<Vec<_>, SafeTensorError>>()?;
    let metadata = note.map(|text| [(NOTE_KEY.to_owned(), text.to_owned())].into_iter().collect());
    let bytes = safetensors::serialize(views, metadata)?;
    check_header_len(&bytes)?;
    Ok(bytes)
}

/// [`encode`] for a file that stands alone: sealed with a digest of all its bytes.
///
/// # Errors
/// As [`encode`].
pub fn seal(record: &Record, note: &str) -> Result<Vec<u8>, TensorsError> {
    let mut bytes = encode(record, Some(note))?;
    let at = 8 + BEGIN.len();
    let room = format!("{DIGEST}{}{DIGEST_END}", "0".repeat(DIGEST_LEN));
    // The crate writes metadata first.
    if bytes.get(8..at) != Some(BEGIN.as_bytes()) {
        return Err(TensorsError::Format { reason: "metadata do not come first".into() });
    }
    let header = check_header_len(&bytes)?.len() + room.len();
    bytes[..8].copy_from_slice(&(header as u64).to_le_bytes());
    bytes.splice(at..at, room.into_bytes());
    check_header_len(&bytes)?;
    let digest = blake3::hash(&bytes).to_hex();
    bytes[at + DIGEST.len()..][..DIGEST_LEN].copy_from_slice(digest.as_bytes());
    Ok(bytes)
}

/// [`decode`] for what [`seal`] wrote.
///
/// # Errors
/// As [`decode`], and when there is no digest or it is not that of the bytes.
pub fn unseal(bytes: &[u8]) -> Result<(Record, Option<String>), TensorsError> {
    let header = check_header_len(bytes)?;
    let before = BEGIN.len() + DIGEST.len();
    let Some(written) = header
        .strip_prefix(BEGIN.as_bytes())
        .and_then(|h| h.strip_prefix(DIGEST.as_bytes()))
        .and_then(|h| h.get(..DIGEST_LEN))
    else {
        // What is no tensor file at all is called that.
        return decode(bytes).and(Err(TensorsError::Unsealed));
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..8 + before]);
    hasher.update(&[b'0'; DIGEST_LEN]);
    hasher.update(&bytes[8 + before + DIGEST_LEN..]);
    let got = hasher.finalize().to_hex();
    if got.as_bytes() != written {
        let written = String::from_utf8_lossy(written).escape_debug().to_string();
        return Err(TensorsError::Seal { got: got.to_string(), written });
    }
    decode(bytes)
}

/// The record in the bytes of a tensor file, and its note.
///
/// Time and memory are proportional to the number of bytes, whatever they say.
///
/// # Errors
/// When the bytes are not a tensor file, do not fill it exactly, name a tensor twice, or hold anything that
/// [`encode`] does not write.
pub fn decode(bytes: &[u8]) -> Result<(Record, Option<String>), TensorsError> {
    let header = check_header_len(bytes)?;
    check_names(header)?;
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let note = metadata.metadata().as_ref().and_then(|m| m.get(NOTE_KEY)).cloned();
    let tensors = SafeTensors::deserialize(bytes)?;
    let mut views: Vec<(&str, TensorView<'_>)> = tensors.iter().collect();
    views.sort_by(|a, b| a.0.cmp(b.0));
    let mut record = Record::new();
    for (name, view) in views {
        if name.is_empty() {
            return Err(TensorsError::Name { name: name.to_owned() });
        }
        if view.shape().len() != 1 {
            return Err(TensorsError::Shape { name: name.to_owned(), dims: view.shape().len() });
        }
        let data = view.data();
        let array = match view.dtype() {
            Dtype::F32 => Array::F32(numbers(data, f32::from_le_bytes)),
            Dtype::F64 => Array::F64(numbers(data, f64::from_le_bytes)),
            Dtype::U64 => Array::U64(numbers(data, u64::from_le_bytes)),
            Dtype::U8 => Array::U8(data.to_vec()),
            other => {
                return Err(TensorsError::Dtype { name: name.to_owned(), dtype: format!("{other:?}") });
            }
        };
        record.put(name, array);
    }
    Ok((record, note))
}

fn numbers<T, const N: usize>(bytes: &[u8], from_le: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|c| from_le(*c)).collect()
}

/// The header's bytes, when its length is believable.
fn check_header_len(bytes: &[u8]) -> Result<&[u8], TensorsError> {
    let Some((head, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(TensorsError::TooShort { len: bytes.len() });
    };
    let claimed = u64::from_le_bytes(*head);
    let room = rest.len() as u64;
    if claimed > MAX_HEADER_LEN || claimed > room {
        return Err(TensorsError::HeaderLen { claimed, room });
    }
    Ok(&rest[..claimed as usize])
}

/// Refuses a name that stands twice: the crate's own parser would keep the last of them.
fn check_names(header: &[u8]) -> Result<(), TensorsError> {
    struct Names(Option<String>);
    impl<'de> Visitor<'de> for &mut Names {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map from names to tensors")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut seen = BTreeSet::new();
            while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                if let Some(twice) = seen.replace(name) {
                    self.0 = Some(twice);
                }
            }
            Ok(())
        }
    }
    let mut names = Names(None);
    serde_json::Deserializer::from_slice(header)
        .deserialize_map(&mut names)
        .map_err(|e| TensorsError::Format { reason: format!("the header: {e}") })?;
    match names.0 {
        Some(name) => Err(TensorsError::Duplicate { name }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        let mut r = Record::new();
        r.put("policy.w", vec![1.5f32, -0.0, f32::NAN, f32::INFINITY]);
        r.put("moments.mean", vec![1e-300f64, 3.25]);
        r.put("steps", vec![u64::MAX, 7]);
        r.put("flags", vec![0u8, 1, 255]);
        r.put("none", Vec::<f32>::new());
        r
    }

    /// A file with this header and `data` zero bytes of tensors.
    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    #[test]
    fn a_record_comes_back_bit_for_bit() {
        let bytes = encode(&sample(), Some("{\"step\":3}")).unwrap();
        let (back, note) = decode(&bytes).unwrap();
        assert_eq!(note.as_deref(), Some("{\"step\":3}"));
        // NaN is not equal to itself: compare what a second encoding gives.
        assert_eq!(encode(&back, note.as_deref()).unwrap(), bytes);
        let w = back.f32s("policy.w", 4).unwrap();
        assert_eq!(w[1].to_bits(), (-0.0f32).to_bits());
        assert_eq!(back.u64s("steps", 2).unwrap(), [u64::MAX, 7]);
        assert!(back.get("none").unwrap().is_empty());
    }

    #[test]
    fn the_order_of_insertion_does_not_show() {
        let mut reversed = Record::new();
        let sample = sample();
        let mut entries: Vec<_> = sample.iter().collect();
        entries.reverse();
        for (name, array) in entries {
            reversed.put(name, array.clone());
        }
        assert_eq!(encode(&reversed, Some("n")).unwrap(), encode(&sample, Some("n")).unwrap());
    }

    #[test]
    fn numbers_stand_where_the_format_says() {
        let mut r = Record::new();
        r.put("x", vec![1.0f32, 2.0]);
        let bytes = encode(&r, None).unwrap();
        assert_eq!(bytes[bytes.len() - 8..], [0, 0, 128, 63, 0, 0, 0, 64]);
        let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
        assert_eq!(header, serde_json::json!({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}));
    }

    #[test]
    fn hostile_files_are_refused() {
        let huge = u64::MAX.to_le_bytes().to_vec();
        assert!(matches!(decode(&huge), Err(TensorsError::HeaderLen { claimed: u64::MAX, room: 0 })));
        let mut over = (MAX_HEADER_LEN + 1).to_le_bytes().to_vec();
        over.resize(8 + MAX_HEADER_LEN as usize + 1, b' ');
        assert!(matches!(decode(&over), Err(TensorsError::HeaderLen { .. })));
        for n in 0..8 {
            assert!(matches!(decode(&huge[..n]), Err(TensorsError::TooShort { len }) if len == n));
        }
        let x = r#""x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        assert!(decode(&file(&format!("{{{x}}}"), 4)).is_ok());
        assert!(matches!(
            decode(&file(&format!("{{{x},{x}}}"), 4)),
            Err(TensorsError::Duplicate { name }) if name == "x"
        ));
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for (header, data) in [
            (format!("{{{x}}}"), 3),
            (format!("{{{x}}}"), 5),
            (format!("{{{x}}}"), 0),
            (r#"{"x":{"dtype":"F32","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,4]}}"#.into(), 4),
            (r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#.into(), 4),
            (r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}"#.into(), 4),
            (r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"y":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#.into(), 6),
            (r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#.into(), 8),
            (r#"{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#.into(), 4),
            (r#"{"x":{"dtype":"Q32","shape":[1],"data_offsets":[0,4]}}"#.into(), 4),
            (r#"{"x":3}"#.into(), 4),
            ("[]".into(), 0),
            (deep, 4),
            ("{".into(), 0),
        ] {
            let got = decode(&file(&header, data));
            assert!(matches!(got, Err(TensorsError::Format { .. })), "{header:.80}: {got:?}");
        }
        let two_dims = r#"{"x":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}"#;
        assert!(matches!(decode(&file(two_dims, 4)), Err(TensorsError::Shape { dims: 2, .. })));
        let half = r#"{"x":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#;
        assert!(matches!(decode(&file(half, 4)), Err(TensorsError::Dtype { .. })));
        let unnamed = r#"{"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        assert!(matches!(decode(&file(unnamed, 4)), Err(TensorsError::Name { .. })));
    }

    #[test]
    fn reserved_and_empty_names_are_refused_when_writing() {
        for name in ["", RESERVED] {
            let mut r = Record::new();
            r.put(name, vec![1u64]);
            assert!(matches!(encode(&r, None), Err(TensorsError::Name { .. })));
        }
    }

    #[test]
    fn a_sealed_file_is_a_tensor_file_and_every_change_of_it_is_refused() {
        let note = "{\"a\":\"\\\"digest\\\":\\\"\"}";
        let bytes = seal(&sample(), note).unwrap();
        let (back, read) = unseal(&bytes).unwrap();
        assert_eq!((seal(&back, note).unwrap(), read.as_deref()), (bytes.clone(), Some(note)));
        let (plain, read) = decode(&bytes).unwrap();
        assert_eq!(
            (encode(&plain, None).unwrap(), read.as_deref()),
            (encode(&back, None).unwrap(), Some(note))
        );
        let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert_eq!(header_len % 8, 0, "tensors are aligned");
        for n in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[n] ^= 1 << bit;
                assert!(unseal(&flipped).is_err(), "bit {bit} of byte {n}");
            }
        }
        let mut other = bytes.clone();
        *other.last_mut().unwrap() ^= 1;
        let told = unseal(&other).unwrap_err().to_string();
        assert!(told.contains("damaged or changed after it was written"), "{told}");
        for unsealed in [encode(&sample(), Some(note)).unwrap(), encode(&sample(), None).unwrap()] {
            assert!(matches!(unseal(&unsealed), Err(TensorsError::Unsealed)));
        }
    }

    #[test]
    fn no_flip_and_no_truncation_panics() {
        let bytes = encode(&sample(), Some("note")).unwrap();
        for n in 0..bytes.len() {
            assert!(decode(&bytes[..n]).is_err(), "cut to {n}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[n] ^= 1 << bit;
                // Some flips (a number, a letter of a name) give another valid file; the digest in a
                // checkpoint's manifest is what catches those.
                let _ = decode(&flipped);
            }
        }
    }
}
