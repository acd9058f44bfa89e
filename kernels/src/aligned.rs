//! Buffers that begin with a cache line, so that no load of a register crosses into the next one.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Numbers that an [`Aligned`] slice can hold.
///
/// # Safety
/// Every pattern of bits, all zeros among them, is a value; a value has no padding, is aligned to no more than 64 bytes,
/// and 64 bytes hold a whole number of values.
pub unsafe trait Plain: Copy + Send + Sync + sealed::Sealed + 'static {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! plain {
    ($($t:ty)*) => {$(
        impl sealed::Sealed for $t {}
        const _: () = assert!(64 % size_of::<$t>() == 0 && align_of::<$t>() <= 64);
        // SAFETY: integers and floats may have any bits; sizes are asserted above.
        unsafe impl Plain for $t {}
    )*};
}
plain!(i8 i16 i32 f32 u16);

/// A slice of numbers that begins at a multiple of 64 bytes. It can be made longer and shorter, and keeps its memory.
///
/// ```
/// let mut scores = kernels::Aligned::<f32>::default();
/// scores.resize(100);
/// scores[99] = 1.0;
/// assert_eq!(scores.as_ptr() as usize % 64, 0);
/// ```
pub struct Aligned<T> {
    lines: Vec<Line>,
    /// There are lines for so many numbers, at least.
    len: usize,
    of: PhantomData<T>,
}

impl<T: Plain> Default for Aligned<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), len: 0, of: PhantomData }
    }
}

impl<T: Plain> Clone for Aligned<T> {
    fn clone(&self) -> Self {
        // Not the lines behind the last number.
        let lines = (self.len * size_of::<T>()).div_ceil(64);
        Self { lines: self.lines[..lines].to_vec(), len: self.len, of: PhantomData }
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for Aligned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&**self).finish()
    }
}

impl<T: Plain> Aligned<T> {
    /// Makes it `len` numbers long. What was there stays; what is new is zero, or what stood there when it was longer.
    ///
    /// # Panics
    /// If so many numbers are more bytes than an address can tell apart. As with `Vec`, memory that cannot be had ends the
    /// program.
    pub fn resize(&mut self, len: usize) {
        let bytes = len.checked_mul(size_of::<T>()).filter(|&bytes| bytes <= isize::MAX as usize - 63);
        let bytes = bytes.unwrap_or_else(|| panic!("{len} numbers are more than memory can hold"));
        let lines = bytes.div_ceil(64);
        if lines > self.lines.len() {
            self.lines.resize(lines, Line([0; 64]));
        }
        self.len = len;
    }
}

impl<T: Plain> Deref for Aligned<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `resize`, which alone sets `len`, and `clone` see to it that there are lines for `len` numbers, all of
        // whose bytes are initialized and whose number does not overflow; a `Plain` type may have any bits and needs no
        // stricter alignment than a line. An empty vector's pointer is aligned to a line too.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; the lines are borrowed mutably, and whatever is written is bytes.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_numbers_and_alignment() {
        let mut x = Aligned::<i16>::default();
        assert!(x.is_empty());
        for len in [1, 31, 32, 33, 1000, 3, 0, 70] {
            x.resize(len);
            assert_eq!(x.len(), len);
            assert_eq!(x.as_ptr() as usize % 64, 0);
            x.iter_mut().enumerate().for_each(|(i, x)| *x = i as i16);
            let y = x.clone();
            assert_eq!(*x, *y);
            assert_eq!(y.as_ptr() as usize % 64, 0);
        }
        fn shared<T: Send + Sync>(_: &T) {}
        shared(&x);
    }

    #[test]
    #[should_panic(expected = "more than memory can hold")]
    fn lengths_whose_bytes_overflow_are_refused() {
        // Four times this is 0 in as many bits as an address has.
        Aligned::<f32>::default().resize(1 << (usize::BITS - 2));
    }

    #[test]
    #[should_panic(expected = "more than memory can hold")]
    fn lengths_beyond_half_the_addresses_are_refused() {
        Aligned::<i8>::default().resize(isize::MAX as usize);
    }

    #[test]
    fn a_refused_length_changes_nothing() {
        let mut x = Aligned::<i32>::default();
        x.resize(5);
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| x.resize(usize::MAX)));
        assert!(refused.is_err());
        assert_eq!(*x, [0; 5]);
    }
}
