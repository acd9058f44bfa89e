//! Vectors of many tokens, in memory or in a file without a name.

use std::path::Path;

use zerocopy::IntoBytes;

use crate::disk::Scratch;
use crate::error::Result;

/// `[tokens, width]` floats.
pub struct Stream {
    width: usize,
    kept: Kept,
}

enum Kept {
    Memory(Vec<f32>),
    File(Scratch),
}

impl Stream {
    /// Zeros, in memory or in a scratch file of a folder.
    ///
    /// # Errors
    /// The system's.
    pub fn new(tokens: usize, width: usize, scratch: Option<&Path>) -> Result<Self> {
        let kept = match scratch {
            Some(folder) => Kept::File(Scratch::new(folder)?),
            None => Kept::Memory(vec![0.0; tokens * width]),
        };
        Ok(Self { width, kept })
    }

    /// The vectors of `count` tokens from `first` on.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&self, first: usize, count: usize) -> Result<Vec<f32>> {
        match &self.kept {
            Kept::Memory(all) => Ok(all[first * self.width..][..count * self.width].to_vec()),
            Kept::File(file) => {
                let mut x = vec![0f32; count * self.width];
                file.read((first * self.width * 4) as u64, x.as_mut_bytes())?;
                Ok(x)
            }
        }
    }

    /// Puts vectors in their place.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&mut self, first: usize, x: &[f32]) -> Result<()> {
        match &mut self.kept {
            Kept::Memory(all) => all[first * self.width..][..x.len()].copy_from_slice(x),
            Kept::File(file) => file.write((first * self.width * 4) as u64, x.as_bytes())?,
        }
        Ok(())
    }
}
