//! Memory that is shared with another process.
//!
//! The only file of this crate with `unsafe`. The other side may write at any time, also when it should not
//! (it may be broken), so no reference into the memory is ever made: numbers are copied in and out through
//! raw pointers, and what was copied out is looked at before it is used.

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::fs::File;
use std::io;

/// A piece of memory that another process can have, too.
#[derive(Debug)]
pub(crate) struct Shared {
    map: MmapRaw,
}

/// A file in memory, not yet of any size.
///
/// # Errors
/// When the system has none left.
pub(crate) fn memory_file() -> io::Result<File> {
    Ok(File::from(memfd_create("pgrad-gym", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?))
}

/// Numbers that may be copied from and to shared memory: every pattern of bits is one.
pub(crate) trait Plain: Copy + Default {}
impl Plain for u8 {}
impl Plain for i32 {}
impl Plain for f32 {}
impl Plain for i64 {}
impl Plain for f64 {}

impl Shared {
    /// The first `size` bytes of `file`, which is made as long, and cannot be made shorter then: touching
    /// what was cut off would end this process.
    ///
    /// # Errors
    /// When the file cannot be made as long, or not be mapped.
    pub(crate) fn new(file: &File, size: usize) -> io::Result<Self> {
        file.set_len(size as u64)?;
        fcntl_add_seals(file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { map: MmapOptions::new().len(size).map_raw(file)? })
    }
    /// Copies the numbers at `offset` bytes.
    ///
    /// # Panics
    /// When they do not lie inside.
    #[expect(unsafe_code, reason = "memory that another process may write to cannot be a slice")]
    pub(crate) fn read<T: Plain>(&self, offset: usize, to: &mut [T]) {
        self.check(offset, size_of_val(to));
        // SAFETY: the source lies inside the map (checked), which stays mapped as long as `self`; the target
        // is a slice of our own, so they do not overlap; bytes are copied, so nothing need be aligned; and
        // every pattern of bits is a `T`, whatever the other process writes meanwhile.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.map.as_ptr().add(offset),
                to.as_mut_ptr().cast::<u8>(),
                size_of_val(to),
            );
        }
    }
    /// Copies numbers to `offset` bytes.
    ///
    /// # Panics
    /// When they do not fit inside.
    #[expect(unsafe_code, reason = "memory that another process may write to cannot be a slice")]
    pub(crate) fn write<T: Plain>(&self, offset: usize, from: &[T]) {
        self.check(offset, size_of_val(from));
        // SAFETY: as in `read`, the other way round. Nobody holds a reference into the map, and no two
        // threads of ours use one map at once: it belongs to one worker, which is asked by `&mut`.
        unsafe {
            std::ptr::copy_nonoverlapping(
                from.as_ptr().cast::<u8>(),
                self.map.as_mut_ptr().add(offset),
                size_of_val(from),
            );
        }
    }
    fn check(&self, offset: usize, size: usize) {
        let end = offset.checked_add(size);
        assert!(end.is_some_and(|end| end <= self.map.len()), "{size} bytes at {offset} lie outside");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_maps_of_one_file_are_one_memory() {
        let file = memory_file().unwrap();
        let a = Shared::new(&file, 100).unwrap();
        let b = Shared { map: MmapOptions::new().len(100).map_raw(&file).unwrap() };
        assert!(file.set_len(0).is_err() && file.set_len(101).is_err());
        a.write(3, &[1.5f64, -2.5]);
        let mut read = [0.0f64; 2];
        b.read(3, &mut read);
        assert_eq!(read, [1.5, -2.5]);
        let outside = std::panic::catch_unwind(|| a.write(93, &[0.0f64]));
        assert!(outside.is_err());
    }
}
