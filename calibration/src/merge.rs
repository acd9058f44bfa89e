//! Merging: the statistics of two texts as if they had been measured on both together.

use std::collections::HashSet;
use std::sync::Arc;

use formats::metadata::Metadata;

use crate::error::{Error, Fault, Result};
use crate::statistics::{CHUNK_SIZE, Entry, Statistics, Unit};

impl Statistics {
    /// Whether both are of the same measurements: the same mean squares of the same tensors, but for the rounding of a file
    /// that holds sums of chunks. No two texts give these, so the sum of both would count one text twice.
    pub fn is_of_the_same(&self, other: &Self) -> bool {
        const ROUNDING: f32 = 1e-5;
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= ROUNDING * a.max(*b);
        self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(|((name, a), (other_name, b))| {
                let same = name == other_name && a.sums().len() == b.sums().len();
                same && a.means().iter().zip(&b.means()).all(near)
            })
    }

    /// Adds measurements of the same model on another text: sums and counts, entry by entry. Entries of only one of the two
    /// are kept. `file` stays the same.
    ///
    /// * Counts of chunks become tokens, with a note, if the other counts are tokens or chunks of another size. An unknown
    ///   size is assumed to be that of the other file, or [`CHUNK_SIZE`].
    /// * If one file has one count for several matrices and the other one for each, it is the count of each of them. In a
    ///   `.dat`, all experts share a count, and those that were never used have means of 1, which are averaged as if
    ///   measured.
    /// * The texts are those of both, each once. The number of chunks is unknown if it is in either file; so is their size,
    ///   also, with a note, if the sizes differ.
    /// * Keys of [`Statistics::metadata`] are kept if both have the same value: the hash of one text is not that of both.
    ///
    /// # Errors
    /// [`Fault::Unlike`] if an entry has different sizes in the two, [`Fault::Overflow`] if a sum is too large for f32. In both
    /// cases nothing is changed.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let same_unit =
            self.unit == other.unit && (self.unit == Unit::Tokens || self.chunk_size == other.chunk_size);
        let mut notes = self.notes.clone();
        let mut converted = |s: &Self, to: &Self| {
            if same_unit || s.unit == Unit::Tokens {
                return s.clone();
            }
            let tokens = s.in_tokens_or(to.chunk_size.unwrap_or(CHUNK_SIZE)).into_owned();
            let size = tokens.chunk_size.unwrap_or_default();
            let why = match (s.chunk_size, to.chunk_size) {
                (None, Some(_)) => format!("to match {}", to.file),
                (None, None) => "which llama-imatrix takes by default: neither file says the number".into(),
                (Some(_), _) => {
                    format!("as it says, since {} counts tokens, or chunks of another length", to.file)
                }
            };
            notes.push(format!("{}: a chunk is counted as {size} tokens, {why}", s.file));
            tokens
        };
        let (mut sum, other) = (converted(self, other), converted(other, self));
        for (name, theirs) in &other.entries {
            match sum.entries.get_mut(name) {
                Some(mine) => *mine = Arc::new(added([mine, theirs], name, [&self.file, &other.file])?),
                None => drop(sum.entries.insert(name.clone(), theirs.clone())),
            }
        }
        let own: HashSet<&String> = sum.datasets.iter().collect();
        let new: Vec<String> = other.datasets.into_iter().filter(|text| !own.contains(text)).collect();
        sum.datasets.extend(new);
        sum.chunks = sum.chunks.zip(other.chunks).map(|(a, b)| a.saturating_add(b));
        if let (Some(a), Some(b)) = (sum.chunk_size, other.chunk_size)
            && a != b
        {
            notes.push(format!("{}: chunks have {a} tokens, those of {} have {b}", self.file, other.file));
        }
        sum.chunk_size = sum.chunk_size.filter(|_| sum.chunk_size == other.chunk_size);
        let mut both = Metadata::new();
        let mut left_out = Vec::new();
        for (key, value) in self.metadata.iter() {
            if other.metadata.get(key) == Some(value) {
                both.set(key, value.clone());
            } else {
                left_out.push(key);
            }
        }
        notes.extend(note_of_keys(&left_out, &self.file, &other.file));
        let theirs = other.metadata.iter().map(|(key, _)| key);
        left_out = theirs.filter(|key| self.metadata.get(key).is_none()).collect();
        notes.extend(note_of_keys(&left_out, &other.file, &self.file));
        sum.metadata = both;
        for note in other.notes {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        sum.notes = notes;
        *self = sum;
        Ok(())
    }
}

/// What is said of the keys of `file` that are not kept.
fn note_of_keys(keys: &[&str], file: &str, other: &str) -> Option<String> {
    match keys {
        [] => None,
        [key] => Some(format!("{file}: {key} is left out, as it differs in {other}")),
        [key, ..] => {
            let n = keys.len();
            Some(format!("{file}: {n} keys are left out, as they differ in {other} (the first is {key})"))
        }
    }
}

/// The sum of the entries of a name in two files.
fn added(entries: [&Entry; 2], name: &str, files: [&str; 2]) -> Result<Entry> {
    let fail = |fault| Err(Error::new(files[0], None, fault));
    let [a, b] = entries;
    let [values, other_values] = entries.map(|e| e.sums().len() as u64);
    let [counts, other_counts] = entries.map(|e| e.counts().len() as u64);
    let matrices = counts.max(other_counts);
    let goes = |n: u64| n == matrices || n == 1;
    if values != other_values || !goes(counts) || !goes(other_counts) {
        let (entry, other) = (name.to_string(), files[1].to_string());
        return fail(Fault::Unlike { entry, values, counts, other, other_values, other_counts });
    }
    let cols = a.sums().len() / matrices as usize;
    let count = |e: &Entry, matrix: usize| e.counts()[if e.counts().len() == 1 { 0 } else { matrix }];
    // The sums of a matrix that was not measured mean nothing.
    let sum = |e: &Entry, i: usize| if count(e, i / cols) == 0 { 0.0 } else { e.sums()[i] };
    let sums: Vec<f32> = (0..a.sums().len()).map(|i| sum(a, i) + sum(b, i)).collect();
    if let Some(i) = sums.iter().position(|x| !x.is_finite()) {
        return fail(Fault::Overflow {
            entry: name.to_string(),
            index: i as u64,
            other: files[1].to_string(),
        });
    }
    let counts = (0..matrices as usize).map(|i| count(a, i).saturating_add(count(b, i))).collect();
    Ok(Entry::new(sums, counts).expect("sums of what entries hold, as many as theirs"))
}

#[cfg(test)]
mod tests {
    use formats::metadata::Value;
    use proptest::prelude::*;

    use super::*;
    use crate::imatrix::HASH;

    fn statistics(file: &str, entries: &[(&str, &[f32], &[u64])]) -> Statistics {
        let entry = |&(name, sums, counts): &(&str, &[f32], &[u64])| {
            (name.to_string(), Arc::new(Entry::new(sums.to_vec(), counts.to_vec()).unwrap()))
        };
        let mut metadata = Metadata::new();
        metadata.set(HASH, Value::text(file));
        metadata.set("general.name", Value::text("m"));
        Statistics {
            file: file.into(),
            entries: entries.iter().map(entry).collect(),
            datasets: vec![file.into(), "both".into()],
            chunks: Some(3),
            chunk_size: Some(100),
            metadata,
            notes: vec!["a note".into()],
            ..Statistics::default()
        }
    }

    fn is(s: &Statistics, name: &str, sums: &[f32], counts: &[u64]) {
        assert_eq!((s.entries[name].sums(), s.entries[name].counts()), (sums, counts), "{name}");
    }

    #[test]
    fn the_same_measurements_are_known_in_every_kind_of_file() {
        let a = statistics("a", &[("x", &[1.0, 2.0, 0.0], &[3]), ("y", &[5.0, 0.0], &[0])]);
        let mut tokens = statistics("b", &[("x", &[0.999_999, 2.0, 0.0], &[3]), ("y", &[7.0, 1.0], &[0])]);
        assert!(a.is_of_the_same(&a) && a.is_of_the_same(&tokens) && tokens.is_of_the_same(&a));
        // Counted twice, and in chunks.
        tokens.merge(&a).unwrap();
        assert!(a.is_of_the_same(&tokens));
        for other in [
            statistics("c", &[("x", &[1.0, 2.0, 0.0], &[4]), ("y", &[5.0, 0.0], &[0])]),
            statistics("c", &[("x", &[1.0, 2.0, 1e-9], &[3]), ("y", &[5.0, 0.0], &[0])]),
            statistics("c", &[("x", &[1.0, 2.0, 0.0], &[3])]),
            statistics("c", &[("x", &[1.0, 2.0, 0.0], &[3]), ("z", &[5.0, 0.0], &[0])]),
            statistics("c", &[("x", &[1.0, 2.0, 0.0], &[3]), ("y", &[5.0, 0.0, 0.0], &[0])]),
        ] {
            assert!(!a.is_of_the_same(&other) && !other.is_of_the_same(&a), "{other:?}");
        }
    }

    #[test]
    fn keys_that_differ_are_counted() {
        let mut a = statistics("a", &[("x", &[1.0], &[4])]);
        let mut b = a.clone();
        (0..1000).for_each(|i| b.metadata.set(&format!("k{i}"), Value::U8(0)));
        a.merge(&b).unwrap();
        assert_eq!(a.notes, ["a note", "a: 1000 keys are left out, as they differ in a (the first is k0)"]);
    }

    #[test]
    fn merging_adds_sums_and_counts() {
        let mut a = statistics("a", &[("x", &[1.0, 2.0], &[4]), ("y", &[1.0], &[2])]);
        let b = statistics("b", &[("x", &[10.0, 0.0], &[1]), ("z", &[5.0], &[9])]);
        a.merge(&b).unwrap();
        is(&a, "x", &[11.0, 2.0], &[5]);
        is(&a, "y", &[1.0], &[2]);
        is(&a, "z", &[5.0], &[9]);
        assert_eq!((a.file.as_str(), a.chunks, a.chunk_size), ("a", Some(6), Some(100)));
        assert_eq!(a.datasets, ["a", "both", "b"]);
        assert_eq!(a.metadata.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["general.name"]);
        assert_eq!(a.notes, ["a note", "a: ggufkit.calibration.hash is left out, as it differs in b"]);
    }

    #[test]
    fn an_unknown_number_of_chunks_stays_unknown_and_other_sizes_are_noted() {
        let (mut a, mut b) = (statistics("a", &[]), statistics("a", &[]));
        (a.chunks, b.chunk_size) = (None, Some(256));
        a.merge(&b).unwrap();
        assert_eq!((a.chunks, a.chunk_size), (None, None));
        assert_eq!(a.notes, ["a note", "a: chunks have 100 tokens, those of a have 256"]);
    }

    #[test]
    fn a_shared_count_applies_to_every_matrix() {
        let one = statistics("a", &[("x", &[1.0, 2.0, 3.0, 4.0], &[5])]);
        let each = statistics("b", &[("x", &[1.0, 1.0, 9.0, 9.0], &[2, 0])]);
        for (mut a, b) in [(one.clone(), &each), (each.clone(), &one)] {
            a.merge(b).unwrap();
            is(&a, "x", &[2.0, 3.0, 3.0, 4.0], &[7, 5]);
        }
    }

    #[test]
    fn merging_chunks_with_tokens_converts_chunks() {
        let tokens = statistics("t", &[("x", &[100.0], &[50])]);
        let mut chunks = statistics("c", &[("x", &[3.0], &[2])]);
        (chunks.unit, chunks.chunk_size) = (Unit::Chunks, None);
        for (mut a, b) in [(tokens.clone(), &chunks), (chunks.clone(), &tokens)] {
            a.merge(b).unwrap();
            is(&a, "x", &[400.0], &[250]);
            assert_eq!((a.unit, a.chunk_size), (Unit::Tokens, Some(100)));
            assert!(
                a.notes.contains(&"c: a chunk is counted as 100 tokens, to match t".into()),
                "{:?}",
                a.notes
            );
        }
        let mut both = chunks.clone();
        both.merge(&chunks).unwrap();
        is(&both, "x", &[6.0], &[4]);
        assert_eq!((both.unit, both.chunk_size), (Unit::Chunks, None));
    }

    #[test]
    fn merge_errors_name_both_files_and_change_nothing() {
        let whole = statistics("a", &[("x", &[1.0; 6], &[1, 1]), ("w", &[f32::MAX], &[1])]);
        let fails = |entries: &[(&str, &[f32], &[u64])]| {
            let mut a = whole.clone();
            let error = a.merge(&statistics("b", entries)).unwrap_err().to_string();
            assert_eq!(a, whole);
            error
        };
        assert_eq!(
            fails(&[("w", &[1.0], &[1]), ("x", &[1.0; 4], &[1, 1])]),
            "a: x has 6 values and 2 counts, but in b 4 and 2"
        );
        assert_eq!(
            fails(&[("x", &[1.0; 6], &[1, 1, 1])]),
            "a: x has 6 values and 2 counts, but in b 6 and 3"
        );
        assert_eq!(
            fails(&[("w", &[f32::MAX], &[1])]),
            "a: the sum of value 0 of w and the one in b is too large for f32"
        );
    }

    proptest! {
        /// Squares that are whole numbers add up without rounding, wherever they are cut in two.
        #[test]
        fn merging_two_halves_gives_the_whole(
            tokens in proptest::collection::vec((0..3usize, proptest::collection::vec(0..60u16, 4)), 1..40),
            cut in 0..40usize,
        ) {
            let measured = |tokens: &[(usize, Vec<u16>)]| {
                let (mut sums, mut counts) = (vec![0.0; 12], vec![0; 3]);
                for (expert, x) in tokens {
                    counts[*expert] += 1;
                    x.iter().enumerate().for_each(|(i, &x)| sums[4 * expert + i] += f32::from(x).powi(2));
                }
                statistics("a", &[("x", &sums, &counts)])
            };
            let cut = cut.min(tokens.len());
            let mut first = measured(&tokens[..cut]);
            first.merge(&measured(&tokens[cut..])).unwrap();
            prop_assert_eq!(&first.entries, &measured(&tokens).entries);
        }
    }
}
