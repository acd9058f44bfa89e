//! What a run writes under the names that its user gave, and what is there already: a result of one kind takes the place of
//! another, but not of a model. And what a file is that a run was to read, and could not.

#![deny(unsafe_code)]

use std::io::Read;
use std::path::Path;

use super::{InFile, Part, part};
use crate::error::{Error, Result};
use crate::kind::{self, Class, Wanted};

/// A file that a run writes under a name that its user gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// What names it, for messages: `--report`.
    pub option: &'static str,
    /// What it is, as an object: "an importance matrix".
    pub what: &'static str,
    /// A usual name of such a file.
    pub usual: &'static str,
    /// Whether it may take the place of a model.
    over_model: bool,
}

/// A note on files that a run replaces, or would replace, if it is a dry run.
pub fn replaced_note(files: &str, dry_run: bool) -> String {
    let is = if dry_run { "would be" } else { "is" };
    format!("an existing file {is} replaced when all is done: {files}")
}

/// A file that is replaced, in words: with what it leads to, if the user has named a link.
pub fn replaced_name(path: &Path, named: bool) -> String {
    match std::fs::canonicalize(path) {
        Ok(real) if named && path.is_symlink() => {
            format!("{} (a link to {})", path.display(), real.display())
        }
        _ => path.display().to_string(),
    }
}

impl Output {
    /// A model. It takes the place of any file but a text.
    pub const fn model(option: &'static str) -> Self {
        Self { option, what: "a model", usual: "model.gguf", over_model: true }
    }

    /// Anything else, which does not take the place of a model. `what` and `usual` are the fields.
    pub const fn result(option: &'static str, what: &'static str, usual: &'static str) -> Self {
        Self { option, what, usual, over_model: false }
    }

    /// Looks at what is at the path of a file that is to be written: says whether a file is replaced.
    ///
    /// # Errors
    /// [`Error::Refused`] for a model where something else is to be written; [`Error::Usage`] for a text or a result of another
    /// kind, if the user has named it, and for a file that is write-protected.
    pub(super) fn replaces(self, path: &Path, named: bool) -> Result<bool> {
        if !path.is_file() {
            return Ok(false);
        }
        let shown = path.display();
        let replace = |found| format!("{shown}: is {found}, and {} would replace it", self.what);
        let hint = || format!("choose another name ({}), or remove the file first", self.option);
        if !self.over_model
            && let Some(found) = model_at(path)
        {
            return Err(Error::refused(replace(found)).or(hint()));
        }
        if named && let Some(found) = self.other_at(path) {
            return Err(Error::usage(replace(found)).or(hint()));
        }
        if path.metadata().is_ok_and(|meta| meta.permissions().readonly()) {
            let hint =
                format!("choose another name ({}), or allow that the file is written first", self.option);
            return Err(Error::usage(replace("write-protected")).or(hint));
        }
        Ok(true)
    }

    /// What a file is, if it is not an earlier one of the kind that is to be written: a text that somebody has written, a result
    /// of another kind, a file of another program.
    fn other_at(self, path: &Path) -> Option<&'static str> {
        // What a checkpoint cannot be read without is refused where a model's place is known.
        if self.over_model && !matches!(part(path.file_name()?.to_str()?), None | Some(Part::Text)) {
            return None;
        }
        if let Some(text) = text_at(path, ending(Path::new(self.usual))) {
            return Some(text).filter(|_| !self.is_again(path));
        }
        let found = InFile::open(path, false).ok()?.kind()?;
        let own = match ending(Path::new(self.usual)).as_str() {
            _ if self.over_model => Class::Model,
            "toml" => Class::Recipe,
            "json" => Class::Sensitivities,
            "html" => Class::Other,
            _ if self.usual.starts_with("imatrix") => Class::Imatrix,
            _ => Class::Logits,
        };
        let other = match found.class {
            Class::Imatrix | Class::Logits | Class::Sensitivities | Class::Recipe => true,
            // By their content, small models may look like these, and the other way round.
            Class::Other if found.what.starts_with("a file of logits") => true,
            Class::Tokenizer | Class::Settings | Class::Other => {
                !["gguf", "safetensors", "bin"].contains(&&*ending(path))
            }
            Class::Model | Class::Text | Class::Empty => false,
        };
        // Logits of both commands are as good as each other's.
        let again = found.class == own || own == Class::Logits && found.what.starts_with("a file of logits");
        (other && !again).then_some(found.what)
    }

    /// Whether a text is an earlier one of the kind that is to be written: recipes may have any name.
    fn is_again(self, path: &Path) -> bool {
        let is_recipe =
            |start: Vec<u8>| start.split(|&b| b == b'\n').any(|line| line.starts_with(b"base = "));
        self.usual.ends_with(".toml") && start_of(path).is_some_and(is_recipe)
    }
}

/// The endings of names of texts that somebody has written, prose, programs and settings.
const TEXTS: [&str; 34] = [
    "txt", "md", "rst", "csv", "tsv", "log", "org", "tex", "adoc", "py", "ipynb", "sh", "bat", "ps1", "rs",
    "c", "h", "cc", "cpp", "js", "ts", "html", "htm", "css", "xml", "json", "jsonl", "yaml", "yml", "toml",
    "ini", "cfg", "conf", "jinja",
];

/// How a name ends, in small letters.
fn ending(path: &Path) -> String {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase()
}

/// The first bytes of a file.
fn start_of(path: &Path) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    std::fs::File::open(path).ok()?.take(4096).read_to_end(&mut start).ok()?;
    Some(start)
}

/// What a file is, if by its name and its content it is a text that somebody has written. Of names that end as those of the
/// results that replace it do, that is not known.
fn text_at(path: &Path, usual: String) -> Option<&'static str> {
    let ending = ending(path);
    if ending == usual {
        return None;
    }
    let is_named = path.file_name().and_then(|n| n.to_str()).and_then(part) == Some(Part::Text);
    if !is_named && !TEXTS.contains(&&*ending) {
        return None;
    }
    let start = start_of(path)?;
    let is_text = !start.is_empty()
        && !start.contains(&0)
        && std::str::from_utf8(&start).map_or_else(|e| e.error_len().is_none(), |_| true);
    is_text.then_some("a text")
}

/// What a file is, if it is a model or a part of one: by its content, and where that does not say it, by the name that parts
/// of checkpoints have. `None` for anything else, also if it cannot be read.
fn model_at(path: &Path) -> Option<&'static str> {
    let by_name = || match part(path.file_name()?.to_str()?)? {
        Part::Settings => Some("the settings of a checkpoint"),
        Part::Weights => Some("a file of a checkpoint's weights"),
        Part::Companion | Part::AsFiled => Some("a file of a checkpoint (its tokenizer or settings)"),
        Part::Text => None,
    };
    let file = match InFile::open(path, false) {
        // A clone without Git LFS has these in place of the weights.
        Err(Error::LfsPointer { .. }) => return Some("a Git LFS pointer to a model's file"),
        Err(_) => return by_name(),
        Ok(file) => file,
    };
    of_content(&file).or_else(by_name)
}

/// What a file is by its content, if that is a model or a part of one.
fn of_content(file: &InFile) -> Option<&'static str> {
    let found = file.kind()?;
    matches!(found.class, Class::Model | Class::Tokenizer | Class::Settings).then_some(found.what)
}

/// The error for a file that was to be `wanted` and was refused: what it is instead, by its content. `error` is what its
/// reader said, and remains if the file is of the kind that is wanted, or of none that is known, or could not be read.
pub fn instead(path: &Path, wanted: Wanted, error: Error) -> Error {
    if matches!(error, Error::WouldOverwrite { .. } | Error::Changed { .. } | Error::LfsPointer { .. }) {
        return error;
    }
    let is = |what: &str, hint: String| {
        Error::refused(format!("{}: is {what}, not {}", path.display(), wanted.what)).or(hint)
    };
    if path.is_dir() {
        return is("a folder", wanted.hint.into());
    }
    let Some(found) = InFile::open(path, false).ok().and_then(|file| file.kind()) else { return error };
    match found.class {
        class if class == wanted.class => error,
        // What is wrong in a text that may be of the kind, its reader knows.
        Class::Text
            if found.what == kind::TEXT
                && matches!(wanted.class, Class::Recipe | Class::Sensitivities | Class::Tokenizer) =>
        {
            error
        }
        _ if found.hint.is_empty() || !found.hint.starts_with("unpack") => is(found.what, wanted.hint.into()),
        _ => is(found.what, found.hint.replace("FILE", &path.display().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn models_are_known_by_their_content_and_results_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let safetensors = |names: &[&str]| {
            let tensor =
                |name: &&str| format!(r#""{name}":{{"dtype":"I8","shape":[0],"data_offsets":[0,0]}}"#);
            let header = format!("{{{}}}", names.iter().map(tensor).collect::<Vec<_>>().join(","));
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
        };
        let is_model = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            let report = Output::result("--report", "the page", "report.html");
            assert!(Output::model("OUT").replaces(&path, false).unwrap(), "a model replaces any");
            match report.replaces(&path, true) {
                Ok(replaced) => {
                    assert!(replaced, "{name}");
                    false
                }
                Err(e) => {
                    assert!(e.to_string().contains("the page would replace it"), "{e}");
                    assert!(e.hint().unwrap().contains("--report"), "{e}");
                    true
                }
            }
        };
        for (name, bytes) in [
            ("x", b"GGUF\x03\0\0\0 damaged".to_vec()),
            ("x", safetensors(&["a"])),
            ("x", safetensors(&["ids", "logits", "more"])),
            ("x", b"PK\x03\x04 and so on".to_vec()),
            ("x", b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9".to_vec()),
            ("x.json", br#"{"model_type": "llama"}"#.to_vec()),
            ("x.json", br#" {"version": "1.0", "added_tokens": [], "model": {"a": [1, {"b": 2}]}}"#.to_vec()),
            ("x.json", br#"{"metadata": {}, "weight_map": {"a": "b"}}"#.to_vec()),
            ("x.json", br#"{"tokenizer_class": "x"}"#.to_vec()),
            ("x", b"\x0a\x05\x0a\x03abc\x0a\x05\x0a\x03abd".to_vec()),
            ("merges.txt", b"#version: 0.2\na b\n".to_vec()),
            ("tokenizer.model", b"anything".to_vec()),
            ("config.json", b"{".to_vec()),
            ("x", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 988\n".to_vec()),
        ] {
            assert!(is_model(name, &bytes), "{name}: {}", String::from_utf8_lossy(&bytes));
        }
        for (name, bytes) in
            [("x.html", b"<!doctype html><p>x".to_vec()), ("x", b"{ not JSON".to_vec()), ("x", Vec::new())]
        {
            assert!(!is_model(name, &bytes), "{name}: {}", String::from_utf8_lossy(&bytes));
        }
        // Texts are kept from both, by their names: what is called otherwise is taken for an earlier result.
        let recipe = Output::result("--write-recipe", "a recipe", "recipe.toml");
        for (name, text, wanted) in [
            ("notes.txt", "mine", [true, true, true]),
            ("README.md", "# Mine\n", [true, true, true]),
            ("LICENSE", "All mine.\n", [true, true, true]),
            ("again.txt", "name = \"x\"\nbase = \"q4_0\"\nrules = []\n", [true, true, false]),
            ("empty.txt", "", [false; 3]),
            ("bytes.txt", "GGUF\0\0", [false, true, true]),
            ("mine", "mine", [false; 3]),
        ] {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            let outputs = [Output::model("OUT"), Output::result("-o", "logits", "base.kld"), recipe];
            assert_eq!(outputs.map(|o| o.replaces(&path, true).is_err()), wanted, "{name}");
        }
        // Nor does a result take the place of one of another kind.
        let sensitivities =
            br#"{"format": "ggufkit sensitivity 1", "origin": {}, "cache": {}, "matrices": []}"#;
        for (name, bytes, wanted) in [
            ("s.json", &sensitivities[..], [true, true, true, false]),
            ("s", sensitivities, [true, true, true, false]),
            ("b.kld", b"_logits_\x03\0\0\0\x03\0\0\0\x01\0\0\0", [true, false, true, true]),
            ("l.safetensors", &safetensors(&["ids", "logits"]), [true, false, true, true]),
            ("r.toml", b"base = \"q4_0\"\n", [true, true, false, true]),
            ("own.py", b"print(1)\n", [true; 4]),
            ("own.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", [true; 4]),
        ] {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            let outputs = [
                Output::model("OUT"),
                Output::result("-o", "logits", "base.kld"),
                recipe,
                Output::result("-o", "a sensitivity file", "sensitivity.json"),
            ];
            assert_eq!(outputs.map(|o| o.replaces(&path, true).is_err()), wanted, "{name}");
        }
        let kept = dir.path().join("kept.gguf");
        fs::write(&kept, "GGUF\x03\0\0\0").unwrap();
        let mut rights = fs::metadata(&kept).unwrap().permissions();
        rights.set_readonly(true);
        fs::set_permissions(&kept, rights).unwrap();
        let error = Output::model("OUT").replaces(&kept, true).unwrap_err();
        assert!(error.to_string().contains("is write-protected, and a model would replace it"), "{error}");
        let nothing = dir.path().join("nothing");
        assert!(!Output::result("-o", "x", "x").replaces(&nothing, true).unwrap());
    }
}
