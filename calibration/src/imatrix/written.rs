//! Written files: read again, and compared with files of llama-imatrix.

use std::path::{Path, PathBuf};

use formats::metadata::Value;
use proptest::prelude::*;

use super::*;
use crate::statistics::{CHUNK_SIZE, Statistics};
use crate::summary::FEW_TOKENS;

fn statistics(entries: Vec<(String, Entry)>, chunks: Option<u64>, chunk_size: Option<u64>) -> Statistics {
    let mut metadata = Metadata::new();
    metadata.set(HASH, Value::text("sha256:00"));
    Statistics {
        file: "x".into(),
        entries: entries.into_iter().map(|(name, entry)| (name, Arc::new(entry))).collect(),
        datasets: vec!["some/text.txt".into(), "b".into()],
        chunks,
        chunk_size,
        metadata,
        ..Statistics::default()
    }
}

/// A file of llama-imatrix, from the folder of published files: beside the repository, or where `GGUFKIT_SHARED` says.
fn real(name: &str) -> Vec<u8> {
    let shared = std::env::var_os("GGUFKIT_SHARED").map_or_else(beside, PathBuf::from);
    let path = shared.join("data/imatrix").join(name);
    std::fs::read(&path)
        .unwrap_or_else(|e| panic!("{}: {e}: see CONTRIBUTING.md, or set GGUFKIT_SHARED", path.display()))
}

/// The folder of that name beside the repository, from wherever in it the tests are built.
fn beside() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let repository = here.ancestors().find(|a| a.join("Cargo.lock").exists()).unwrap_or(here);
    repository.with_file_name("shared")
}

const OLD: &str = "tinyllama-1.1b.imatrix.dat";
const NEW: &str = "derived-tinyllama-1.1b.imatrix.gguf";

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn a_published_gguf_is_written_byte_for_byte() {
    let bytes = real(NEW);
    let statistics = read(NEW, &bytes).unwrap();
    assert_eq!(statistics.entries.len(), 154);
    assert!(write(&statistics).unwrap() == bytes);
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn a_published_dat_becomes_the_gguf_that_llama_imatrix_makes_of_it() {
    let (old, new) = (real(OLD), real(NEW));
    let (old, twin) = (read(OLD, &old).unwrap(), read(NEW, &new).unwrap());
    assert_eq!((old.unit, old.chunks, old.chunk_size), (Unit::Chunks, Some(365), None));
    assert_eq!((twin.unit, twin.chunks, twin.chunk_size), (Unit::Tokens, Some(365), Some(512)));
    for (name, entry) in &old.entries {
        assert_eq!(entry.means(), twin.entries[name].means(), "{name}");
    }
    assert_eq!(old.in_tokens().entries, twin.entries);
    assert!(write(&old).unwrap() == new);
    assert_eq!(old.summaries(), twin.summaries());
    assert!(old.warnings(FEW_TOKENS).is_empty());
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn a_published_dat_keeps_its_numbers() {
    let (old, new) = (real(OLD), real(NEW));
    let statistics = read(OLD, &old).unwrap();
    let written = legacy::write(&statistics).unwrap();
    // llama.cpp of that time wrote entries in the order of a hash table.
    assert_eq!(written.len(), old.len());
    assert_eq!(read(OLD, &written).unwrap(), statistics);
    // From counts in tokens, means are rounded once more.
    let twin = read(NEW, &new).unwrap();
    let again = read(OLD, &legacy::write(&twin).unwrap()).unwrap();
    assert_eq!((again.chunks, &again.datasets), (twin.chunks, &twin.datasets));
    for (name, entry) in &twin.entries {
        assert_eq!(again.entries[name].counts(), [365]);
        let means = again.entries[name].means();
        assert!(
            means.iter().zip(entry.means()).all(|(a, b)| a.to_bits().abs_diff(b.to_bits()) <= 1),
            "{name}"
        );
    }
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn a_published_file_merged_with_itself_has_the_same_means() {
    let bytes = real(NEW);
    let once = read(NEW, &bytes).unwrap();
    let mut twice = once.clone();
    twice.merge(&once).unwrap();
    assert_eq!((twice.chunks, &twice.datasets), (Some(730), &once.datasets));
    for (name, entry) in &once.entries {
        assert_eq!(twice.entries[name].means(), entry.means(), "{name}");
        assert_eq!(twice.entries[name].counts()[0], 2 * entry.counts()[0]);
    }
}

#[test]
fn statistics_that_readers_refuse_are_not_written() {
    let entry = |name: &str, count| (name.to_string(), Entry::new(vec![1.0], vec![count]).unwrap());
    let both = |s: &Statistics| [write(s), legacy::write(s)].map(|r| r.unwrap_err().to_string());
    let why = |why: &str| format!("x: cannot be written: {why}");
    let nothing = why("nothing was measured");
    assert_eq!(both(&statistics(vec![], None, None)), [nothing.clone(), nothing.clone()]);
    let nameless = why("an entry has no name");
    assert_eq!(both(&statistics(vec![entry("", 1)], None, None)), [nameless.clone(), nameless]);
    // Tensors of image models have names that are longer than llama.cpp's.
    let s = statistics(vec![entry(&"n".repeat(56), 1)], None, None);
    assert!(write(&s).is_ok() && legacy::write(&s).is_ok());
    let s = statistics(vec![entry("a", 1)], Some(1 << 31), None);
    assert_eq!(
        legacy::write(&s).unwrap_err().to_string(),
        why("the number of chunks is 2147483648, expected at most 2147483647 in a .dat")
    );
    // Matrices that were not measured are kept in files with counts.
    let s = statistics(vec![entry("a", 0)], None, None);
    assert_eq!(read("x", &write(&s).unwrap()).unwrap().entries, s.entries);
    assert_eq!(legacy::write(&s).unwrap_err().to_string(), nothing);
}

#[test]
fn keys_of_the_layout_are_not_to_be_overwritten() {
    let entry = Entry::new(vec![1.0], vec![1]).unwrap();
    let mut s = statistics(vec![("a".into(), entry)], None, None);
    let layout = [gguf::ALIGNMENT_KEY].into_iter().chain(gguf::SPLIT_KEYS);
    OWN_KEYS.into_iter().chain(layout).for_each(|key| s.metadata.set(key, Value::U32(7)));
    let again = read("x", &write(&s).unwrap()).unwrap();
    assert_eq!(again.metadata.iter().collect::<Vec<_>>(), [(HASH, &Value::text("sha256:00"))]);
    assert_eq!((again.datasets, again.chunks), (s.datasets, None));
}

fn an_entry() -> impl Strategy<Value = Entry> {
    (1..5usize, 1..9usize).prop_flat_map(|(matrices, cols)| {
        let sums =
            proptest::collection::vec(prop_oneof![Just(0f32), 0f32..1e9, 0f32..1e-30], matrices * cols);
        // f32 represents all integers up to 2^24.
        let counts = proptest::collection::vec(prop_oneof![1 => Just(0u64), 9 => 1..=1u64 << 24], matrices);
        (sums, counts).prop_map(|(sums, counts)| Entry::new(sums, counts).unwrap())
    })
}

fn any_statistics() -> impl Strategy<Value = Statistics> {
    let entries = proptest::collection::vec(("[a-z.]{1,20}", an_entry()), 1..6);
    let number = || proptest::option::of(1..=u64::from(u16::MAX));
    (entries, number(), number()).prop_map(|(entries, chunks, size)| statistics(entries, chunks, size))
}

proptest! {
    #[test]
    fn a_gguf_round_trip_keeps_everything(s in any_statistics()) {
        let bytes = write(&s).unwrap();
        let mut again = read("x", &bytes).unwrap();
        prop_assert_eq!(write(&again).unwrap(), bytes);
        again.notes.clear();
        prop_assert_eq!(again, s);
    }

    #[test]
    fn chunks_are_written_as_tokens(mut s in any_statistics()) {
        // Counts that stay below 2^24 in tokens, and a size that rounds nothing.
        (s.unit, s.chunk_size) = (Unit::Chunks, s.chunk_size.map(|_| 256));
        for entry in s.entries.values_mut() {
            let counts = entry.counts().iter().map(|n| n >> 9).collect();
            *entry = Arc::new(Entry::new(entry.sums().to_vec(), counts).unwrap());
        }
        let mut again = read("x", &write(&s).unwrap()).unwrap();
        again.notes.clear();
        prop_assert_eq!(&again, &*s.in_tokens());
        for (name, entry) in &s.entries {
            prop_assert_eq!(again.entries[name].means(), entry.means());
        }
    }

    #[test]
    fn a_dat_round_trip_keeps_means_and_chunks(s in any_statistics()) {
        let measured: Vec<_> = s.entries.iter().filter(|(_, e)| e.counts().iter().any(|&n| n > 0)).collect();
        prop_assume!(!measured.is_empty());
        let again = read("x", &legacy::write(&s).unwrap()).unwrap();
        prop_assert_eq!((again.chunks, &again.datasets[..]), (s.chunks, &s.datasets[1..]));
        prop_assert_eq!(again.entries.len(), measured.len());
        for (name, entry) in measured {
            let most = entry.counts().iter().max().unwrap();
            prop_assert_eq!(again.entries[name].counts(), [most.div_ceil(s.chunk_size.unwrap_or(CHUNK_SIZE))]);
            for (a, b) in again.entries[name].means().into_iter().zip(entry.means()) {
                prop_assert!((a - b).abs() <= b * f32::EPSILON + 1e-44, "{a} {b}");
            }
        }
        // With counts in chunks, nothing is rounded.
        let third = read("x", &legacy::write(&again).unwrap()).unwrap();
        prop_assert_eq!(third, again);
    }

    #[test]
    fn damage_to_written_files_never_panics(
        s in any_statistics(),
        old in proptest::bool::ANY,
        changes in proptest::collection::vec((0usize..1 << 16, 0u8..=255), 1..6),
        cut in 0usize..1 << 16,
    ) {
        let Ok(mut bytes) = (if old { legacy::write(&s) } else { write(&s) }) else { return Ok(()) };
        for (at, to) in changes {
            let at = at % bytes.len();
            bytes[at] = to;
        }
        let cut = cut % bytes.len();
        for bytes in [&bytes[..], &bytes[..cut]] {
            let Ok(mut s) = read("x", bytes) else { continue };
            // Whatever it contains now, nothing that is done with it panics.
            let _ = (s.summaries(), s.warnings(FEW_TOKENS), write(&s), legacy::write(&s), s.merge(&s.clone()));
        }
    }
}
