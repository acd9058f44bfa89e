//! Authorship, license and sampling parameters of a checkpoint as GGUF's `general.*` keys, from the model card
//! (`README.md`), `generation_config.json`, the name in `config.json` and the folder's name.
//!
//! Keys, value types and their order are those of llama.cpp's convert_hf_to_gguf.py. Where that stops at an invalid
//! card, this leaves the invalid value out with a note, so that nobody has to edit a README to convert weights.

mod made;
mod name;
mod sampling;
#[cfg(test)]
mod tests;
mod yaml;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use formats::metadata::{Array, Metadata, Value};

use crate::disk;
use crate::text;
use crate::text_file;
pub use made::{Made, made};
use name::Id;
pub use sampling::write as write_sampling;
use yaml::Node;

/// The largest number of base models, and of data sets, that are written: each has keys of its own.
const SOURCES: usize = 1000;

/// The largest number of notes.
const NOTES: usize = 20;

/// Keys under `general.` that have one text, with the card's fields for it. Of several fields, the first that is there counts,
/// and the first is written.
const TEXTS: [(&str, &[&str]); 15] = [
    ("license", &["license"]),
    ("license.name", &["license_name"]),
    ("license.link", &["license_link"]),
    ("name", &["name", "model_name"]),
    ("author", &["author", "model_author", "model_creator"]),
    ("version", &["version", "model_version"]),
    ("organization", &["organization", "model_organization"]),
    ("finetune", &["finetune", "model_finetune"]),
    ("basename", &["basename", "model_basename", "model_type"]),
    ("description", &["description", "model_description"]),
    ("size_label", &["size_label", "model_size_label"]),
    // The card's links lead to the model that is converted, not to the GGUF.
    ("source.url", &["url", "model_url"]),
    ("source.doi", &["doi", "model_doi"]),
    ("source.uuid", &["uuid", "model_uuid"]),
    ("source.repo_url", &["repo_url", "model_repo_url"]),
];

/// Keys under `general.` that have a list of texts, with the card's fields, whose texts are put together, and the one of
/// these that is written.
const LISTS: [(&str, &[&str], &str); 2] =
    [("tags", &["tags", "pipeline_tag"], "tags"), ("languages", &["languages", "language"], "language")];

/// The same for lists of models and data sets, which have several keys for each; the first field that is there counts. The
/// first holds ids on the hub, the last descriptions as well.
const DESCRIBED: [(&str, [&str; 3]); 2] = [
    ("base_model", ["base_model", "base_models", "base_model_sources"]),
    ("dataset", ["datasets", "dataset", "dataset_sources"]),
];

/// What is said of each model or data set.
const PARTS: [&str; 9] =
    ["name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url"];

/// The card's fields for a key with one text.
fn fields(key: &str) -> &'static [&'static str] {
    TEXTS.iter().find(|(own, _)| *own == key).map_or(&[], |(_, fields)| fields)
}

/// What is known of a checkpoint besides the files that are read here.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The checkpoint's folder.
    pub folder: &'a Path,
    /// Its `config.json`.
    pub config: &'a serde_json::Value,
    /// The number of weights, or 0 if that is not known.
    pub parameters: u64,
    /// How the weights are distributed, in a mixture of experts.
    pub experts: Option<Experts>,
}

/// The numbers of weights in a mixture of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// The number of experts in a layer.
    pub count: u64,
    /// Weights outside of the experts.
    pub shared: u64,
    /// Weights of one expert, in all layers.
    pub each: u64,
}

/// The metadata that was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Card {
    /// The `general.*` keys in the order in which they are written, without the architecture, the file type and the
    /// quantization version.
    pub metadata: Metadata,
    /// Notes about values that could not be used.
    pub notes: Vec<String>,
    /// Notes on what a GGUF cannot say.
    pub of_gguf: Vec<String>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

/// Reads the metadata of a checkpoint's folder. Values that cannot be read are left out with a note.
pub fn read(about: &About) -> Card {
    let mut card = Card::default();
    let front = card.front_matter(about.folder);
    card.metadata.set("general.type", Value::text("model"));
    sampling::read(&mut card, about.folder);
    card.identity(&front, about);
    card.license(&front);
    for key in ["source.url", "source.doi", "source.uuid", "source.repo_url"] {
        let value = card.field(&front, key);
        card.set(key, value);
    }
    for (key, fields) in DESCRIBED {
        card.sources(&front, &fields, key, about);
    }
    for (key, fields, _) in LISTS {
        card.list(&front, fields, key);
    }
    card.tidy();
    card
}

impl Card {
    /// Up to `limit` bytes of a file of the folder, and whether that is the whole file. `None` if there is no such
    /// file, or with a note if it cannot be read.
    fn load(&mut self, folder: &Path, name: &str, limit: usize) -> Option<(Vec<u8>, bool)> {
        debug_assert!(
            disk::part(name).is_some(),
            "{name} is read as a part of a model, and is none in disk::part"
        );
        let path = folder.join(name);
        // Opening a named pipe would block.
        if !path.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes));
        match read {
            Ok(n) => {
                bytes.truncate(limit);
                self.files.push(path);
                Some((bytes, n <= limit))
            }
            Err(fault) => {
                self.notes.push(format!("{name}: cannot read: {fault}"));
                None
            }
        }
    }

    /// Limits the number of notes, and escapes control characters: notes quote the files.
    fn tidy(&mut self) {
        let more = self.notes.len().saturating_sub(NOTES);
        self.notes.truncate(NOTES);
        for note in &mut self.notes {
            *note = text::visible(note);
        }
        if more > 0 {
            self.notes.push(format!("README.md: {more} more values are left out"));
        }
    }

    /// The front matter of the model card, a YAML mapping; `Null` if there is none.
    fn front_matter(&mut self, folder: &Path) -> Node {
        const NAME: &str = "README.md";
        // It may say anything, which would be published with the GGUF.
        if disk::leads_out(folder, &folder.join(NAME)) {
            self.notes.push(format!("{NAME}: is a link that leads out of the folder: not read"));
            return Node::Null;
        }
        let Some((head, whole)) = self.load(folder, NAME, yaml::LIMIT) else { return Node::Null };
        // Of a text that says its encoding, and may be cut off at the limit.
        let head = text_file::by_mark(NAME, &head).map_or(head, |decoded| decoded.text.into_bytes());
        let node = match yaml::front_matter(&head, whole) {
            Ok(Some(text)) => yaml::parse(&text),
            Ok(None) => Ok(Node::Null),
            Err(why) => Err(why),
        };
        match node {
            Ok(node @ (Node::Map(_) | Node::Null)) => return node,
            Ok(_) => self.notes.push(format!("{NAME}: the front matter is not a mapping: left out")),
            Err(why) => self.notes.push(format!("{NAME}: the front matter is left out: {why}")),
        }
        Node::Null
    }

    /// Sets `general.KEY` if there is a value.
    fn set(&mut self, key: &str, value: Option<String>) {
        if let Some(value) = value {
            self.metadata.set(&format!("general.{key}"), Value::text(&value));
        }
    }

    /// The text of the first of a key's fields that has one.
    fn field(&mut self, node: &Node, key: &str) -> Option<String> {
        self.text(node, fields(key))
    }

    /// The text of the first of these fields that has one.
    fn text(&mut self, node: &Node, fields: &[&str]) -> Option<String> {
        for key in fields {
            match node.get(key) {
                None | Some(Node::Null) => {}
                Some(Node::Text(text)) if text.trim().is_empty() => {}
                Some(Node::Text(text)) => return Some(text.clone()),
                Some(_) => self.notes.push(format!("README.md: {key} is not text: left out")),
            }
        }
        None
    }

    /// Sets name, author, version, organization and so on: from the card, or else from the names in `config.json` and
    /// of the folder.
    fn identity(&mut self, front: &Node, about: &About) {
        let ids = [config_id(about.config), folder_id(about.folder)]
            .map(|id| id.map_or_else(Id::default, |id| Id::of(&id, about.parameters)));
        let guess = |part: fn(&Id) -> &Option<String>| ids.iter().find_map(|id| part(id).clone());
        let titled = |part| guess(part).map(|text| name::title(&text)).filter(|text| !text.is_empty());
        let counted = || {
            (about.parameters > 0).then(|| match about.experts.filter(|experts| experts.count > 0) {
                Some(e) => format!("{}x{}", e.count, name::size_label(e.shared.saturating_add(e.each))),
                None => name::size_label(about.parameters),
            })
        };

        let name = self.field(front, "name").or_else(|| titled(|id| &id.name));
        self.set("name", name);
        let author = self.field(front, "author");
        self.set("author", author);
        let version = self.field(front, "version").or_else(|| guess(|id| &id.version));
        self.set("version", version);
        let organization = self.field(front, "organization");
        self.set("organization", organization.or_else(|| titled(|id| &id.organization)));
        let finetune = self.field(front, "finetune");
        self.set("finetune", finetune.or_else(|| guess(|id| &id.finetune)));
        let basename = self.field(front, "basename");
        self.set("basename", basename.or_else(|| guess(|id| &id.basename)));
        let description = self.field(front, "description");
        self.set("description", description);
        let size = self.field(front, "size_label");
        self.set("size_label", size.or_else(|| guess(|id| &id.size_label)).or_else(counted));
    }

    /// Sets the license, its name and its link.
    fn license(&mut self, front: &Node) {
        let license = match front.get("license") {
            Some(Node::List(items)) => {
                let texts = self.texts(items, "license");
                (!texts.is_empty()).then(|| texts.join(","))
            }
            _ => self.field(front, "license"),
        };
        self.set("license", license);
        for key in ["license.name", "license.link"] {
            let value = self.field(front, key);
            self.set(key, value);
        }
    }

    /// The items of a list that are text.
    fn texts<'n>(&mut self, items: &'n [Node], key: &str) -> Vec<&'n str> {
        let texts: Vec<&str> = items
            .iter()
            .filter_map(|item| match item {
                Node::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        if texts.len() < items.len() {
            let odd = items.len() - texts.len();
            self.notes.push(format!("README.md: {odd} of {key} are not text: left out"));
        }
        texts
    }

    /// Sets `general.KEY` to the texts of several fields, each of which is one text or a list.
    fn list(&mut self, front: &Node, fields: &[&str], key: &str) {
        let mut all = Vec::new();
        for field in fields {
            match front.get(field) {
                None | Some(Node::Null) => {}
                Some(Node::List(items)) => all.extend(self.texts(items, field)),
                Some(Node::Text(text)) => all.push(text.as_str()),
                Some(Node::Map(_)) => self.notes.push(format!("README.md: {field} is not a list: left out")),
            }
        }
        if !all.is_empty() {
            self.metadata.set(&format!("general.{key}"), Value::Array(Array::of_strings(all)));
        }
    }

    /// Sets `general.KEY.count` and `general.KEY.N.*` to the models or data sets that the first of these fields
    /// lists.
    fn sources(&mut self, front: &Node, fields: &[&str], key: &str, about: &About) {
        let Some((field, node)) = fields.iter().find_map(|f| Some((f, front.get(f)?))) else { return };
        let listed = match node {
            Node::Null => &[],
            Node::List(items) => &items[..],
            one => std::slice::from_ref(one),
        };
        let mut sources = Vec::new();
        if listed.len() > SOURCES {
            self.notes.push(format!("README.md: only the first {SOURCES} of {field} are listed"));
        }
        for item in listed.iter().take(SOURCES) {
            match item {
                Node::Text(id) => sources.push(source(id, about.parameters)),
                Node::Map(_) => sources.push(self.described(item)),
                _ => self
                    .notes
                    .push(format!("README.md: an item of {field} is neither text nor a mapping: left out")),
            }
        }
        self.metadata.set(&format!("general.{key}.count"), Value::U32(sources.len() as u32));
        for (i, source) in sources.into_iter().enumerate() {
            for (part, text) in source {
                self.set(&format!("{key}.{i}.{part}"), Some(text));
            }
        }
    }

    /// The parts of a base model or data set that the card gives as a mapping.
    fn described(&mut self, node: &Node) -> Vec<(&'static str, String)> {
        PARTS.into_iter().filter_map(|part| Some((part, self.text(node, &[part])?))).collect()
    }
}

/// The parts of a base model or data set that the card gives as an id or a URL. Its number of weights is taken to be
/// that of the model.
fn source(id: &str, parameters: u64) -> Vec<(&'static str, String)> {
    let is_url = ["http://", "https://", "ssh://"].iter().any(|scheme| id.starts_with(scheme));
    let on_hub = if is_url { hub_id(id) } else { Some(id) };
    let Id { name, organization, version, .. } = on_hub.map_or_else(Id::default, |id| Id::of(id, parameters));
    let repo_url = match (&organization, &name) {
        _ if is_url => Some(id.to_string()),
        (Some(organization), Some(name)) => Some(format!("https://huggingface.co/{organization}/{name}")),
        _ => None,
    };
    let title = |text: Option<String>| text.map(|text| name::title(&text)).filter(|text| !text.is_empty());
    [
        ("name", title(name)),
        ("version", version),
        ("organization", title(organization)),
        ("repo_url", repo_url),
    ]
    .into_iter()
    .filter_map(|(part, text)| Some((part, text?)))
    .collect()
}

/// The `organization/name` of a URL on the hub.
fn hub_id(url: &str) -> Option<&str> {
    let id =
        ["http://huggingface.co/", "https://huggingface.co/"].iter().find_map(|h| url.strip_prefix(h))?;
    let (organization, name) = id.split_once('/')?;
    (!organization.is_empty() && !name.is_empty() && !name.contains('/')).then_some(id)
}

/// The name in `config.json`, unless it is a local path or has no letters.
fn config_id(config: &serde_json::Value) -> Option<String> {
    let id = config.get("_name_or_path")?.as_str()?;
    let is_path = id.matches('/').count() > 1 || id.starts_with('/') || id.contains('\\');
    (!is_path && id.contains(char::is_alphanumeric)).then(|| id.to_string())
}

/// The name of the folder. A snapshot in the hub's cache is `models--organization--name/snapshots/hash`, and has the
/// name three levels up.
fn folder_id(folder: &Path) -> Option<String> {
    // A symbolic link's own name says more than that of its target, so links are followed only if the path has no last
    // component. An empty path is the folder of a file that is given without one.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let path = match folder.file_name() {
        Some(_) => std::path::absolute(folder),
        None => folder.canonicalize(),
    };
    let path = path.unwrap_or_else(|_| folder.to_path_buf());
    let above = |n| path.ancestors().nth(n).and_then(Path::file_name).map(|name| name.to_string_lossy());
    if above(1).is_some_and(|name| name == "snapshots") {
        let cached =
            above(2).and_then(|name| name.strip_prefix("models--").map(|id| id.replacen("--", "/", 1)));
        if cached.is_some() {
            return cached;
        }
    }
    above(0).map(std::borrow::Cow::into_owned)
}
