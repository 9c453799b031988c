//! TensorBoard event files, written by hand: records framed with checksums, each a small protobuf message.
//!
//! A record is the length (`u64`, little-endian), the masked CRC-32C of those 8 bytes, the data, and the
//! masked CRC-32C of the data (`tensorflow/core/lib/io/record_writer.h`). The data is an `Event`
//! (`tensorboard/compat/proto/event.proto`) with fields `wall_time = 1`, `step = 2`, `file_version = 3`,
//! `summary = 5` and `session_log = 7`; a summary holds pairs of a tag and a single-precision value.
//!
//! A resumed run adds a file. Its second record is the start of a session at the first step that is still
//! to come: readers then forget what earlier files said from there on.

use super::{Appender, MetricsError, MetricsRow, MetricsSink};
use crate::clock::Clock;
use crate::storage::{Storage, parent_of};
use std::path::Path;
use std::sync::Arc;

/// CRC-32C (Castagnoli), reflected, as in RFC 3720 section 12.1.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1));
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0u32, |crc, b| (crc >> 8) ^ TABLE[((crc ^ u32::from(*b)) & 0xff) as usize])
}

/// The checksum as the record format stores it: rotated and shifted, so that a checksum of data that holds
/// checksums stays useful.
#[must_use]
pub fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Field number and wire type: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
fn key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(out, field << 3 | wire_type);
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(out, field, 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn frame(out: &mut Vec<u8>, data: &[u8]) {
    let len = (data.len() as u64).to_le_bytes();
    out.extend_from_slice(&len);
    out.extend_from_slice(&masked_crc32c(&len).to_le_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(&masked_crc32c(data).to_le_bytes());
}

/// An `Event` up to its content.
fn event(wall_secs: f64, step: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    key(&mut out, 1, 1);
    out.extend_from_slice(&wall_secs.to_le_bytes());
    key(&mut out, 2, 0);
    varint(&mut out, step);
    out
}

/// Writes one event file.
pub struct TensorBoardWriter {
    file: Appender,
    clock: Arc<dyn Clock>,
    record: Vec<u8>,
}

impl std::fmt::Debug for TensorBoardWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorBoardWriter").field("file", &self.file).finish_non_exhaustive()
    }
}

impl TensorBoardWriter {
    /// Begins the event file of a new run in the folder `dir`.
    ///
    /// # Errors
    /// When storage fails.
    pub fn create(
        storage: Arc<dyn Storage>,
        dir: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, MetricsError> {
        Self::begin(storage, dir, clock, None)
    }

    /// Begins a further event file in `dir`; readers drop what earlier files hold beyond `step`.
    ///
    /// # Errors
    /// When storage fails.
    pub fn resume(
        storage: Arc<dyn Storage>,
        dir: &Path,
        clock: Arc<dyn Clock>,
        step: u64,
    ) -> Result<Self, MetricsError> {
        Self::begin(storage, dir, clock, Some(step))
    }

    fn begin(
        storage: Arc<dyn Storage>,
        dir: &Path,
        clock: Arc<dyn Clock>,
        resumed_at: Option<u64>,
    ) -> Result<Self, MetricsError> {
        const PREFIX: &str = "events.out.tfevents.";
        const SUFFIX: &str = ".pgrad";
        // Readers take the files in the order of their names, which must not depend on the wall clock.
        let last = storage
            .list(dir)?
            .into_iter()
            .filter_map(|entry| entry.name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse::<u64>().ok());
        let after_last = last.max().map_or(0, |secs| secs.saturating_add(1));
        let wall_secs = clock.wall().unix_secs();
        let stamp = after_last.max(wall_secs as u64);
        let path = dir.join(format!("{PREFIX}{stamp:010}{SUFFIX}"));

        let mut first = Vec::new();
        let mut version = event(wall_secs, resumed_at.map_or(0, |s| s + 1));
        bytes_field(&mut version, 3, b"brain.Event:2");
        frame(&mut first, &version);
        if let Some(step) = resumed_at {
            const START: u64 = 1;
            let mut session = Vec::new();
            key(&mut session, 1, 0);
            varint(&mut session, START);
            let mut start = event(wall_secs, step + 1);
            bytes_field(&mut start, 7, &session);
            frame(&mut first, &start);
        }
        storage.write_new(&path, &first)?;
        storage.sync_dir(parent_of(&path))?;
        let file = Appender::new(storage, &path, first.len() as u64);
        Ok(Self { file, clock, record: Vec::new() })
    }
}

impl MetricsSink for TensorBoardWriter {
    fn write(&mut self, row: &MetricsRow) -> Result<(), MetricsError> {
        let mut summary = Vec::new();
        let mut value = Vec::new();
        for (tag, number) in &row.values {
            value.clear();
            bytes_field(&mut value, 1, tag.as_bytes());
            key(&mut value, 2, 5);
            value.extend_from_slice(&(*number as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &value);
        }
        let mut event = event(self.clock.wall().unix_secs(), row.step);
        bytes_field(&mut event, 5, &summary);
        self.record.clear();
        frame(&mut self.record, &event);
        Ok(self.file.append(&self.record)?)
    }

    fn sync(&mut self) -> Result<(), MetricsError> {
        Ok(self.file.sync()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, section B.4, and the check value of the CRC catalogue.
    #[test]
    fn crc32c_gives_the_published_values() {
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        let read_pdu: [u8; 48] = [
            0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0, 0, 0, 0,
            0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&rising), 0x46dd_794e);
        assert_eq!(crc32c(&falling), 0x113f_db5c);
        assert_eq!(crc32c(&read_pdu), 0xd996_3a56);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    /// The protobuf guide's example: 150 is `96 01`.
    #[test]
    fn integers_are_coded_as_protobuf_says() {
        for (value, coded) in [
            (0, vec![0]),
            (1, vec![1]),
            (127, vec![0x7f]),
            (128, vec![0x80, 1]),
            (150, vec![0x96, 1]),
            (u64::MAX, [vec![0xff; 9], vec![1]].concat()),
        ] {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out, coded);
        }
    }

    #[test]
    fn a_frame_is_length_checksum_data_checksum() {
        let mut out = Vec::new();
        frame(&mut out, b"123456789");
        assert_eq!(out.len(), 8 + 4 + 9 + 4);
        assert_eq!(out[..8], 9u64.to_le_bytes());
        assert_eq!(&out[12..21], b"123456789");
        // (crc >> 15 | crc << 17) + 0xa282ead8 of 0xe3069283, by hand: 0x2507c60d + 0xa282ead8.
        assert_eq!(out[21..], 0xc78a_b0e5u32.to_le_bytes());
        assert_eq!(out[8..12], masked_crc32c(&out[..8]).to_le_bytes());
    }
}
