//! What is in a folder in which no weights are found: the same weights under a name or in a folder where they are not looked
//! for, a part of a download, an archive, a format that is not read. The user is told what it is, and the way to a model.

use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::{self, CONFIG, InFile, Part};
use crate::kind::{Class, Kind};
use crate::order;

/// What is in a folder in place of a model's weights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instead {
    /// What there is: "model.safetensors.gz (a gzip archive) and 1 more"; empty if nothing is known.
    pub what: String,
    /// The way from there to a model; empty if there is none.
    pub hint: String,
}

/// What there is, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Gguf,
    BrokenLink,
    /// A file that a download has not finished.
    Unfinished,
    /// Parts of PyTorch's or DeepSpeed's distributed checkpoints, with the command that puts them together.
    Distributed(&'static str),
    /// Weights by their content, with a name that is not looked for.
    Weights,
    /// A folder with weights.
    Folder,
    /// The same without its own settings.
    FolderWithoutSettings,
    /// An archive, with how it is unpacked.
    Packed(&'static str),
    /// Weights in another format.
    Foreign,
    /// A name that files of PyTorch have.
    Torch,
    /// What trainers leave beside the weights.
    Training,
}

/// A file or folder.
struct Seen {
    group: Group,
    /// Relative to the folder that is looked into, with `/`.
    name: String,
    /// More about it, in words; may be empty.
    about: String,
    path: PathBuf,
}

/// The most entries of a folder, and files by their content, that are looked at.
const MOST_ENTRIES: usize = 4096;
const MOST_CONTENTS: usize = 64;

/// How programs that download files end the names of those that are not complete.
const UNFINISHED: [&str; 10] = [
    "incomplete",
    "part",
    "partial",
    "filepart",
    "crdownload",
    "opdownload",
    "download",
    "aria2",
    "tmp",
    "!qb",
];

/// Endings of files that are no weights, and need not be opened.
const TEXTS: [&str; 18] = [
    "json", "jsonl", "txt", "md", "py", "jinja", "model", "yaml", "yml", "toml", "csv", "html", "xml", "log",
    "lock", "sh", "ipynb", "bak",
];

const DISTRIBUTED: Group = Group::Distributed(
    "PyTorch puts the parts of such a checkpoint together: python -m torch.distributed.checkpoint.format_utils dcp_to_torch \
     FOLDER pytorch_model.bin",
);
const DEEPSPEED: Group = Group::Distributed(
    "DeepSpeed puts the parts of such a checkpoint together, with a script that it writes beside them: python zero_to_fp32.py \
     FOLDER OUT",
);

impl Instead {
    /// What is in this folder.
    pub fn of(folder: &Path) -> Self {
        let mut look = Look { seen: Vec::new(), contents: 0 };
        look.at(folder, "", 0);
        let mut seen = look.seen;
        order::by(&mut seen, |a, b| {
            let step = |s: &Seen| if s.group == Group::Folder { number(&s.name) } else { 0 };
            a.group.cmp(&b.group).then_with(|| step(a).cmp(&step(b))).then_with(|| a.name.cmp(&b.name))
        });
        let Some(first) = seen.first() else {
            let hint = match folder.join("snapshots").is_dir() {
                true => {
                    "this is the hub's cache, and no model is in its snapshots/: download the model again"
                        .into()
                }
                false => String::new(),
            };
            return Self { what: String::new(), hint };
        };
        let group: Vec<&Seen> = seen.iter().filter(|s| s.group == first.group).collect();
        let about = if first.about.is_empty() { String::new() } else { format!(" ({})", first.about) };
        let more = if group.len() > 1 { format!(" and {} more", group.len() - 1) } else { String::new() };
        Self { what: format!("{}{about}{more}", first.name), hint: hint(folder, &group) }
    }
}

/// What to do about entries of one group; at least one.
fn hint(folder: &Path, group: &[&Seen]) -> String {
    let (first, several) = (group[0].path.display(), group.len() > 1);
    // The last of a training's steps.
    let last = group[group.len() - 1].path.display();
    match group[0].group {
        Group::Gguf => format!("name the GGUF itself: {first}"),
        Group::BrokenLink => "a link that leads nowhere has no weights: the file that it leads to was removed, or its download did \
                              not end; download the model again"
            .into(),
        Group::Unfinished => {
            "the download is not complete: let the program that made these files finish, or download the model again".into()
        }
        Group::Distributed(how) => {
            let parts = group[0].path.parent().unwrap_or(folder);
            let step = parts.file_name().is_some_and(|name| name.to_string_lossy().starts_with("global_step"));
            let parts = if step { parts.parent().unwrap_or(folder) } else { parts };
            how.replace("FOLDER", &parts.display().to_string())
        }
        Group::Weights if several => format!("name the file that is meant: {first}"),
        Group::Weights => format!("name the file itself: {first}"),
        Group::Folder if several => format!("name the folder that is meant: {last}"),
        Group::Folder => format!("name that folder: {first}"),
        Group::FolderWithoutSettings => {
            format!("put {CONFIG} and the tokenizer's files beside the weights, into {last}, and name that folder")
        }
        // What follows is about archives that are given as texts.
        Group::Packed(how) => {
            how.split(" (").next().unwrap_or(how).replace("FILE", &first.to_string())
        }
        Group::Foreign => {
            "weights are read from safetensors, GGUF, PyTorch and llama2.c files; take the model's .safetensors".into()
        }
        Group::Torch => "name the file itself if it is a PyTorch or llama2.c checkpoint; transformers writes safetensors: \
                         AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)"
            .into(),
        Group::Training => "training leaves such files beside a model; its weights are another file: model.safetensors, \
                            pytorch_model.bin or the parts of these"
            .into(),
    }
}

/// The number at the end of a name: that of a step of training.
fn number(name: &str) -> u64 {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    name[name.len() - digits..].parse().unwrap_or(0)
}

/// The ending of a name in small letters; empty without a dot.
fn ending(name: &str) -> String {
    name.rsplit_once('.').map_or(String::new(), |(_, ending)| ending.to_ascii_lowercase())
}

/// Whether files with this name are looked for as weights.
fn is_looked_for(name: &str) -> bool {
    let small = name.to_ascii_lowercase();
    small.ends_with(".safetensors") || small.starts_with("pytorch_model") && small.ends_with(".bin")
}

/// The names in a folder, sorted, without hidden ones.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(MOST_ENTRIES);
    let mut names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// The names of the files in a folder that have weights in a format that is not looked for in folders, by their endings.
pub fn other_weights(folder: &Path) -> Vec<String> {
    let mut names = names(folder);
    names.retain(|name| is_torch(&ending(name)) || is_foreign(&ending(name)));
    names
}

fn is_torch(ending: &str) -> bool {
    ["bin", "pth", "pt", "ckpt"].contains(&ending)
}

fn is_foreign(ending: &str) -> bool {
    ["h5", "keras", "msgpack", "onnx", "npz", "tflite", "mlmodel"].contains(&ending)
}

struct Look {
    seen: Vec<Seen>,
    /// Files whose contents were looked at.
    contents: usize,
}

impl Look {
    /// Looks into a folder, whose names begin with `prefix`.
    fn at(&mut self, folder: &Path, prefix: &str, depth: usize) {
        let names = names(folder);
        let is_cache = names.iter().any(|name| name == "snapshots");
        // What is in the blobs of the hub's cache, its snapshots lead to.
        for name in names.into_iter().filter(|name| !(is_cache && name == "blobs")) {
            let path = folder.join(&name);
            let named = format!("{prefix}{name}");
            match fs::metadata(&path) {
                Err(_) if disk::part(&name).is_none_or(|part| part == Part::Weights) => {
                    if let Ok(to) = fs::read_link(&path) {
                        let about = format!("a link to {}, which is not there", to.display());
                        self.seen.push(Seen { group: Group::BrokenLink, name: named, about, path });
                    }
                }
                Ok(meta) if meta.is_dir() => self.folder(&path, &name, &named, depth),
                Ok(meta) if meta.is_file() => {
                    if let Some((group, about)) = self.file(&path, &name) {
                        self.seen.push(Seen { group, name: named, about, path });
                    }
                }
                _ => {}
            }
        }
    }

    /// A folder in the one that is looked into.
    fn folder(&mut self, path: &Path, name: &str, named: &str, depth: usize) {
        let names = names(path);
        if names.iter().any(|name| is_looked_for(name) && path.join(name).is_file()) {
            let group =
                if path.join(CONFIG).is_file() { Group::Folder } else { Group::FolderWithoutSettings };
            let about = "a folder".into();
            self.seen.push(Seen { group, name: named.into(), about, path: path.into() });
        } else if depth == 0 || name == "snapshots" {
            // Of the revisions of a model in the hub's cache, the one that was downloaded last.
            let main = InFile::open(&path.with_file_name("refs").join("main"), false);
            let main =
                main.and_then(|file| Ok(file.read(0, file.len.min(100))?.to_vec())).unwrap_or_default();
            let main = String::from_utf8_lossy(&main);
            let main = main.trim();
            match name == "snapshots" && names.iter().any(|name| name == main) {
                true => self.folder(&path.join(main), main, &format!("{named}/{main}"), depth + 1),
                false => self.at(path, &format!("{named}/"), depth + 1),
            }
        }
    }

    /// What a file is, and more about it.
    fn file(&mut self, path: &Path, name: &str) -> Option<(Group, String)> {
        let ending = ending(name);
        let said = |group| Some((group, String::new()));
        let begins = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
        let by_name = match &*ending {
            "gguf" => return said(Group::Gguf),
            "distcp" => return said(DISTRIBUTED),
            ending if UNFINISHED.contains(&ending) => return said(Group::Unfinished),
            _ if begins(&["training_args", "optimizer", "scheduler", "rng_state", "random_states"]) => {
                return said(Group::Training);
            }
            _ if begins(&["zero_pp_rank", "bf16_zero_pp_rank", "fp16_zero_pp_rank"]) => {
                return said(DEEPSPEED);
            }
            ending if is_torch(ending) && !name.starts_with("openvino") => Some(Group::Torch),
            ending if is_foreign(ending) || ending == "bin" => Some(Group::Foreign),
            _ => None,
        };
        // What belongs to a model besides its weights, and other texts.
        if disk::part(name).is_some_and(|part| part != Part::Weights) || TEXTS.contains(&&*ending) {
            return None;
        }
        self.contents += 1;
        if self.contents > MOST_CONTENTS {
            return by_name.map(|group| (group, String::new()));
        }
        let found = InFile::open(path, false).ok().and_then(|file| file.kind());
        match found {
            Some(Kind { class: Class::Model, what: "a model (GGUF)", .. }) => {
                Some((Group::Gguf, "a GGUF by its content".into()))
            }
            Some(Kind { class: Class::Model, what, hint: "" }) => {
                // "a file of weights (safetensors)"
                let format = what.split_once('(').map_or(what, |(_, rest)| rest.trim_end_matches(')'));
                Some((Group::Weights, format!("{format} by its content")))
            }
            // Some formats are archives themselves.
            Some(Kind { class: Class::Model | Class::Other, what, hint })
                if hint.starts_with("unpack") && by_name != Some(Group::Foreign) =>
            {
                Some((Group::Packed(hint), what.into()))
            }
            Some(Kind { class: Class::Model, what, hint }) if !hint.starts_with("unpack") => {
                Some((Group::Foreign, what.into()))
            }
            _ => by_name.map(|group| (group, String::new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        dir
    }

    /// The bytes of a safetensors file without tensors.
    const SAFETENSORS: &[u8] = b"\x02\0\0\0\0\0\0\0{}";
    const GZIP: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\0";

    #[test]
    fn what_is_there_is_named_with_the_way_out() {
        for (files, what, hint) in [
            (&[][..], "", ""),
            (&[("config.json", &b"{}"[..]), ("notes.txt", b"x"), ("README.md", b"x")], "", ""),
            (&[("weights", SAFETENSORS)], "weights (safetensors by its content)", "name the file itself: "),
            (
                &[("model.safetensors.1", SAFETENSORS), ("z", SAFETENSORS)],
                "model.safetensors.1",
                "/model.safetensors.1",
            ),
            (&[("model.safetensors.crdownload", b"x")], "model.safetensors.crdownload", "not complete"),
            (&[("m.bin.aria2", b"x"), ("n.part", b"x")], "m.bin.aria2 and 1 more", "not complete"),
            (&[("weights.npz", b"PK\x03\x04")], "weights.npz", "take the model's .safetensors"),
            (&[("m.zip", b"PK\x03\x04")], "m.zip (a zip archive)", "/m.zip"),
            (&[("m.safetensors.GZ", GZIP)], "m.safetensors.GZ (a gzip archive)", "gunzip -c "),
            (&[("last", b"GGUF\x03\0\0\0")], "last (a GGUF by its content)", "name the GGUF itself: "),
            (
                &[
                    ("step-9/model.safetensors", b"x"),
                    ("step-9/config.json", b"{}"),
                    ("step-10/config.json", b"{}"),
                    ("step-10/pytorch_model.bin", b"x"),
                ],
                "step-9 (a folder) and 1 more",
                "/step-10",
            ),
            (&[("hf/model-00001-of-00001.safetensors", b"x")], "hf (a folder)", "put config.json"),
            (&[("fsdp_0/__0_0.distcp", b"x")], "fsdp_0/__0_0.distcp", "/fsdp_0 pytorch_model.bin"),
            (
                &[("global_step7/zero_pp_rank_0_mp_rank_00_optim_states.pt", b"x")],
                "global_step7/",
                "zero_to_fp32.py",
            ),
            (&[("onnx/model.onnx", b"x")], "onnx/model.onnx", "take the model's .safetensors"),
            (
                &[("openvino_model.bin", b"\x01\x02\x03")],
                "openvino_model.bin",
                "take the model's .safetensors",
            ),
            (
                &[("optimizer.pt", b"x"), ("training_args.bin", b"x")],
                "optimizer.pt and 1 more",
                "beside a model",
            ),
            (&[("snapshots/a/x.txt", b"x")], "", "no model is in its snapshots/"),
            (
                &[
                    ("models--a--b/snapshots/1/model.safetensors", b"x"),
                    ("models--a--b/snapshots/1/config.json", b"{}"),
                    ("models--a--b/snapshots/2/model.safetensors", b"x"),
                    ("models--a--b/snapshots/2/config.json", b"{}"),
                    ("models--a--b/refs/main", b"1\n"),
                    ("models--a--b/blobs/4f", SAFETENSORS),
                ],
                "models--a--b/snapshots/1 (a folder)",
                "models--a--b/snapshots/1",
            ),
        ] {
            let dir = folder(files);
            let found = Instead::of(dir.path());
            assert!(found.what.starts_with(what) && found.what.is_empty() == what.is_empty(), "{found:?}");
            assert!(found.hint.contains(hint) && found.hint.is_empty() == hint.is_empty(), "{found:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_nowhere_are_seen() {
        let dir = folder(&[("config.json", b"{}")]);
        std::os::unix::fs::symlink("../../blobs/4f", dir.path().join("model.safetensors")).unwrap();
        let found = Instead::of(dir.path());
        assert_eq!(found.what, "model.safetensors (a link to ../../blobs/4f, which is not there)");
        assert!(found.hint.contains("download the model again"), "{found:?}");
    }
}
