//! Files that others have made, for the tests that need them: CONTRIBUTING.md says where they come from.

use std::path::{Path, PathBuf};

/// The path of a file or folder in the folder of published files, which is beside the repository or where
/// `GGUFKIT_SHARED` says.
pub fn path(name: &str) -> PathBuf {
    let folder = std::env::var_os("GGUFKIT_SHARED").map_or_else(beside, PathBuf::from);
    let path = folder.join(name);
    assert!(path.exists(), "there is no {}: see CONTRIBUTING.md, or set GGUFKIT_SHARED", path.display());
    path
}

/// The bytes of such a file.
pub fn read(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The folder of that name beside the repository, from wherever in it the tests are built.
fn beside() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let repository = here.ancestors().find(|a| a.join("Cargo.lock").exists()).unwrap_or(here);
    repository.with_file_name("shared")
}
