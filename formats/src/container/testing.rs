//! Helpers for the tests of several containers.

use super::Layout;

/// The files of a layout. Each tensor's bytes count up from its index in the layout.
pub fn materialise(layout: &Layout) -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = layout.files.iter().map(|f| vec![0; f.len as usize]).collect();
    for (file, out) in files.iter_mut().zip(&layout.files) {
        for (at, bytes) in &out.fixed {
            file[*at as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }
    for (i, t) in layout.tensors.iter().enumerate() {
        let bytes = &mut files[t.location.file][t.location.offset as usize..][..t.location.len as usize];
        bytes.iter_mut().enumerate().for_each(|(j, b)| *b = (i + j) as u8);
    }
    files
}
