//! Numbers that begin with a line of the cache.

use std::ops::{Deref, DerefMut};

/// Bytes of a line of the cache, and of the widest vector.
const LINE: usize = 64;

/// A slice of fixed length whose first number begins a line of the cache.
///
/// Of a slice that an allocator hands out, every vector of 64 bytes lies across two lines, and takes two
/// turns to read or to write: a pass over memory, or a product with few rows, takes half as long again.
#[derive(Debug)]
pub struct Aligned<R> {
    data: Vec<R>,
    from: usize,
    len: usize,
}

impl<R: Copy + Default> Aligned<R> {
    /// `len` times the default, 0.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let spare = LINE / size_of::<R>().clamp(1, LINE) - 1;
        let data = vec![R::default(); len + spare];
        // Where there is no such place, any will do.
        let from = Some(data.as_ptr().align_offset(LINE)).filter(|from| *from <= spare).unwrap_or(0);
        Self { data, from, len }
    }
}

impl<R: Copy + Default> Default for Aligned<R> {
    fn default() -> Self {
        Self::new(0)
    }
}

impl<R: Copy + Default> Clone for Aligned<R> {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl<R> Deref for Aligned<R> {
    type Target = [R];
    fn deref(&self) -> &[R] {
        &self.data[self.from..self.from + self.len]
    }
}

impl<R> DerefMut for Aligned<R> {
    fn deref_mut(&mut self) -> &mut [R] {
        &mut self.data[self.from..self.from + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begins_a_line<R: Copy + Default + PartialEq>(one: R) {
        for len in [0, 1, 15, 16, 17, 1000] {
            let mut x = Aligned::<R>::new(len);
            assert!(x.len() == len && x.iter().all(|x| *x == R::default()));
            x.fill(one);
            let kept: Vec<_> = (0..10).map(|_| x.clone()).collect();
            for x in kept.iter().chain([&x]) {
                assert!(x.len() == len && x.iter().all(|x| *x == one));
                assert_eq!(x.as_ptr() as usize % 64, 0);
            }
        }
    }

    #[test]
    fn numbers_of_any_size_begin_a_line() {
        begins_a_line(1u8);
        begins_a_line(1.0f32);
        begins_a_line(1.0f64);
    }
}
