//! Published files.

use std::path::PathBuf;

use crate::container;
use crate::container::safetensors::{Options, layout};
use crate::model::{Format, Input};
use crate::published;

fn files() -> Vec<PathBuf> {
    let mut found = [
        "data/h256/model.safetensors",
        "data/vintage/null-metadata-lora.safetensors",
        "data/vintage/weight-inspect-tiny.safetensors",
    ]
    .map(published::path)
    .to_vec();
    let checkpoints = std::fs::read_dir(published::path("data/reference-logits")).unwrap();
    let models = checkpoints.map(|d| d.unwrap().path().join("model.safetensors"));
    let before = found.len();
    found.extend(models.filter(|path| path.is_file()));
    assert!(found.len() > before, "there are no checkpoints");
    found
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn published_files_read_as_the_crate_reads_them() {
    for path in files() {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.display().to_string();
        // The header alone is enough.
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let model = container::read(&Input { name: &name, bytes: &bytes[..header], len: bytes.len() as u64 });
        if name.ends_with("weight-inspect-tiny.safetensors") {
            // There is padding between header and data, which belongs to neither.
            let e = model.unwrap_err();
            assert!(e.to_string().contains("5 bytes follow"), "{e}");
            assert!(safetensors::SafeTensors::deserialize(&bytes).is_err());
            continue;
        }
        let model = model.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(model.format, Format::Safetensors);
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(model.tensors.len(), theirs.len());
        for t in &model.tensors {
            let view = theirs.tensor(&t.name).unwrap();
            let shape: Vec<u64> = view.shape().iter().map(|&d| d as u64).collect();
            assert_eq!(t.shape, shape);
            let ours = &bytes[t.location.offset as usize..][..t.location.len as usize];
            assert!(std::ptr::eq(ours, view.data()), "{name}: {}", t.name);
        }
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let theirs = header.metadata().clone().unwrap_or_default();
        assert_eq!(model.metadata.len(), theirs.len());
        for (key, value) in model.metadata.iter() {
            assert_eq!(value.as_str(), theirs.get(key).map(String::as_str));
        }
        layout(&name, &model.metadata, &model.tensors, Options::default(), &|_, _| name.clone()).unwrap();
    }
}
