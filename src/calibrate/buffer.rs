//! The activations of many tokens, in memory or in an unnamed file.

use std::path::Path;

use crate::disk::Scratch;
use crate::error::Result;

/// Activations, `[tokens, width]`.
pub struct ActivationBuffer {
    width: usize,
    storage: Storage,
}

enum Storage {
    Memory(Vec<f32>),
    File(Scratch),
}

impl ActivationBuffer {
    /// Zeros, in memory or in an unnamed file in the folder `scratch`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the file cannot be created.
    pub fn new(tokens: usize, width: usize, scratch: Option<&Path>) -> Result<Self> {
        let storage = match scratch {
            Some(folder) => Storage::File(Scratch::new(folder)?),
            None => Storage::Memory(vec![0.0; tokens * width]),
        };
        Ok(Self { width, storage })
    }

    /// The activations of `count` tokens from `first` on.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the file cannot be read.
    pub fn read(&self, first: usize, count: usize) -> Result<Vec<f32>> {
        match &self.storage {
            Storage::Memory(all) => Ok(all[first * self.width..][..count * self.width].to_vec()),
            Storage::File(file) => {
                let mut x = vec![0f32; count * self.width];
                file.read((first * self.width * 4) as u64, bytemuck::cast_slice_mut(&mut x))?;
                Ok(x)
            }
        }
    }

    /// Stores activations from token `first` on.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the file cannot be written.
    pub fn write(&mut self, first: usize, x: &[f32]) -> Result<()> {
        match &mut self.storage {
            Storage::Memory(all) => all[first * self.width..][..x.len()].copy_from_slice(x),
            Storage::File(file) => file.write((first * self.width * 4) as u64, bytemuck::cast_slice(x))?,
        }
        Ok(())
    }
}
