//! The tokens with a role (BOS, EOS, padding, ...), and which of them are added to every text.
//!
//! Files are read in convert_hf_to_gguf.py's order: tokenizer.json's post-processor says what is added to a text;
//! tokenizer_config.json names the tokens, whose ids are in tokenizer.json; config.json has ids. If none of them has
//! BOS or EOS, three more files are tried, since llama.cpp would take token 11 for both: tokenizer_config.json's own
//! list of ids, special_tokens_map.json and generation_config.json.

use std::collections::HashSet;

use formats::metadata::{Metadata, Value as Meta};
use serde_json::Value;

use crate::arch::settings::wrong;
use crate::checkpoint::CONFIG;
use crate::checkpoint::vocab::files::{Folder, switch, unfit};
use crate::checkpoint::vocab::json::Json;
use crate::checkpoint::vocab::tokens::{Added, Tokens};
use crate::error::Result;
use crate::text::{first_of, visible};
use crate::tokenizer::Tokenizer;

/// The roles in the order in which they are looked for, with their keys in a GGUF. `cls` has none: it is only another
/// name for BOS.
const ROLES: [(&str, &str); 9] = [
    ("bos", "bos_token_id"),
    ("eos", "eos_token_id"),
    ("unk", "unknown_token_id"),
    ("sep", "seperator_token_id"), // llama.cpp's spelling
    ("pad", "padding_token_id"),
    ("cls", ""),
    ("mask", "mask_token_id"),
    ("eot", "eot_token_id"),
    ("eom", "eom_token_id"),
];
/// The number of roles that are always looked for; the others only if a post-processor shows that they exist.
const USUAL: usize = 7;

/// The roles that were found, in the order in which they are written.
#[derive(Debug, Default, PartialEq)]
pub struct Special {
    ids: Vec<(&'static str, u32)>,
    add: Vec<(&'static str, bool)>,
}

/// The texts of tokens with a role: tokenizer_config.json's, as corrected by the post-processor.
struct Names<'a> {
    config: Option<&'a Value>,
    /// Texts that replace the config's.
    changed: Vec<(&'static str, Option<String>)>,
    roles: usize,
}

impl Names<'_> {
    /// The text of the token with this role.
    fn get(&self, role: &str) -> Option<String> {
        match self.changed.iter().rev().find(|(r, _)| *r == role) {
            Some((_, name)) => name.clone(),
            None => name_of(self.config?, role),
        }
    }

    fn set(&mut self, role: &'static str, name: Option<String>) {
        self.changed.push((role, name));
    }
}

/// The token of a role in tokenizer_config.json: a string, or an object whose `content` is the token.
fn name_of(config: &Value, role: &str) -> Option<String> {
    let entry = config.get(format!("{role}_token"))?;
    entry.as_str().or_else(|| entry.get("content")?.as_str()).filter(|n| !n.is_empty()).map(str::to_string)
}

/// The texts of all tokens with any role in tokenizer_config.json.
pub fn named(config: Option<&Value>) -> Vec<String> {
    let Some(config) = config else { return Vec::new() };
    let roles = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"];
    let mut names: Vec<String> = roles.iter().filter_map(|role| name_of(config, role)).collect();
    for key in ["additional_special_tokens", "extra_special_tokens"] {
        let list = config.get(key).and_then(Value::as_array).into_iter().flatten();
        names.extend(
            list.filter_map(|t| t.as_str().or_else(|| t.get("content")?.as_str())).map(str::to_string),
        );
    }
    names
}

impl Special {
    /// Finds the roles. `listed` are the added tokens of tokenizer_config.json.
    ///
    /// # Errors
    /// [`Error::Format`](crate::Error::Format) for values that are no ids, switches that are not true or false, and
    /// invalid JSON.
    pub fn find(
        folder: &mut Folder,
        json: Option<&Json>,
        tokenizer_config: Option<&Value>,
        config: &Value,
        listed: &[Added],
        tokens: &Tokens,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let mut special = Self::default();
        let mut names = Names { config: tokenizer_config, changed: Vec::new(), roles: USUAL };
        if let Some(json) = json {
            special.post_processor(&json.post_processor, &mut names);
        }
        let added = json.map_or(&[][..], |j| &j.added);
        let id_of = |added: &[Added], name: &str| added.iter().find(|a| a.text == name).map(|a| a.id);
        for (role, _) in &ROLES[..names.roles] {
            if let Some(says) = switch(folder, tokenizer_config, &format!("add_{role}_token"))? {
                special.add_default(role, says);
            }
            // A token without a row is noted, whatever file has it.
            let find = |name: String| id_of(added, &name).or_else(|| tokens.left_out(&name));
            if tokenizer_config.is_some()
                && let Some(id) = names.get(role).and_then(find)
            {
                special.set(role, id, tokens, notes);
            }
        }
        for (role, _) in &ROLES[..names.roles] {
            let key = format!("{role}_token_id");
            let found = config.get(&key).filter(|id| !id.is_null());
            let found = found.or_else(|| config.get("text_config")?.get(&key));
            if let Some(id) = id(&folder.name(CONFIG), &key, found)? {
                special.set(role, id, tokens, notes);
            }
        }
        for role in ["bos", "eos"] {
            if special.ids.iter().any(|(r, _)| *r == role) {
                continue;
            }
            let by_name = names.get(role).and_then(|name| id_of(listed, &name));
            let found = match by_name {
                Some(id) => Some(id),
                None => elsewhere(folder, role, added, listed, config)?,
            };
            if let Some(id) = found {
                special.set(role, id, tokens, notes);
            }
        }
        Ok(special)
    }

    /// Reads which tokens tokenizer.json's post-processor adds to a text. Templates are understood as far as
    /// convert_hf_to_gguf.py does: a token at the start, one at the end, one or two between the texts of a pair.
    fn post_processor(&mut self, post: &Value, names: &mut Names) {
        let known = names.config.is_some();
        let mut bos = names.get("bos");
        let mut eos = names.get("eos");
        let mut cls = names.get("cls");
        let mut sep = names.get("sep");
        if known && bos.is_none() && cls.is_some() {
            bos = cls.clone();
            names.set("bos", bos.clone());
        }
        if known && eos.is_none() && sep.is_some() {
            eos = sep.clone();
            names.set("eos", eos.clone());
        }
        let steps = match post.get("processors").and_then(Value::as_array) {
            Some(steps) => steps.iter().collect(),
            None => vec![post],
        };
        for step in steps {
            match step.get("type").and_then(Value::as_str) {
                Some("ByteLevel") => {
                    self.add_default("bos", false);
                    self.add_default("eos", false);
                }
                Some("RobertaProcessing") => {
                    for role in ["bos", "eos", "sep"] {
                        self.add(role, true);
                    }
                    let first = |key| step.get(key)?.get(0)?.as_str().map(str::to_string);
                    if known && cls.is_none() {
                        cls = first("cls").or_else(|| bos.clone());
                        names.set("cls", cls.clone());
                    }
                    if known && sep.is_none() {
                        sep = first("sep").or_else(|| eos.clone());
                        names.set("sep", sep.clone());
                    }
                }
                Some("TemplateProcessing") => {
                    let list = |key| step.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                    let (single, pair) = (list("single"), list("pair"));
                    let (mut first, mut last) = (None, None);
                    if single.len() > 1 {
                        first = single.first().and_then(|t| part(t, "SpecialToken"));
                        last = single.last().and_then(|t| part(t, "SpecialToken"));
                    }
                    if let Some(first) = &first {
                        if !known {
                            bos = Some(first.clone());
                        } else if Some(first) != bos.as_ref() && Some(first) != cls.as_ref() {
                            if bos.is_none() {
                                bos = Some(first.clone());
                                names.set("bos", bos.clone());
                            }
                            if cls.is_none() {
                                cls = Some(first.clone());
                                names.set("cls", cls.clone());
                            }
                        }
                        self.add("bos", Some(first) == bos.as_ref() || Some(first) == cls.as_ref());
                    }
                    if let Some(last) = &last {
                        if known && Some(last) != eos.as_ref() {
                            // The template's last token is EOS; the token that was named EOS ends a turn (EOT).
                            if names.roles < ROLES.len() {
                                names.set(ROLES[names.roles].0, eos.clone());
                                names.roles += 1;
                            }
                            names.set("eos", Some(last.clone()));
                        }
                        eos = Some(last.clone());
                        self.add("eos", true);
                    }
                    let is_separator =
                        |name: &Option<String>| name.is_some() && (*name == sep || *name == eos);
                    if let Some(add) = separator(pair, &first, &last, is_separator) {
                        self.add("sep", add);
                        if add && sep.is_none() && known {
                            names.set("sep", eos.clone());
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn add(&mut self, role: &'static str, yes: bool) {
        match self.add.iter_mut().find(|(r, _)| *r == role) {
            Some((_, old)) => *old = yes,
            None => self.add.push((role, yes)),
        }
    }

    fn add_default(&mut self, role: &'static str, yes: bool) {
        if !self.add.iter().any(|(r, _)| *r == role) {
            self.add.push((role, yes));
        }
    }

    /// Gives a role its token, unless it has one.
    fn set(&mut self, role: &'static str, id: u32, tokens: &Tokens, notes: &mut Vec<String>) {
        if !tokens.fits(id) {
            let rows = tokens.rows();
            let note = format!("{role} is token {id}, but the embedding has {rows} rows: left out");
            if !notes.contains(&note) {
                notes.push(note);
            }
        } else if !self.ids.iter().any(|(r, _)| *r == role) {
            self.ids.push((role, id));
        }
    }

    /// Writes the roles' keys.
    pub fn write(&self, metadata: &mut Metadata) {
        for (role, id) in &self.ids {
            if let Some((_, key)) = ROLES.iter().find(|(r, key)| r == role && !key.is_empty()) {
                metadata.set(&format!("tokenizer.ggml.{key}"), Meta::U32(*id));
            }
        }
        for (role, yes) in self.add.iter().filter(|(role, _)| ["bos", "eos", "sep"].contains(role)) {
            metadata.set(&format!("tokenizer.ggml.add_{role}_token"), Meta::Bool(*yes));
        }
    }
}

/// The id in an entry of a template: `{"SpecialToken": {"id": ...}}` or `{"Sequence": {"id": ...}}`.
fn part(entry: &Value, kind: &str) -> Option<String> {
    entry.get(kind)?.get("id")?.as_str().filter(|id| !id.is_empty()).map(str::to_string)
}

/// Whether a template for pairs puts a separator between the two texts; `None` if the template is not understood.
fn separator(
    pair: &[Value],
    first: &Option<String>,
    last: &Option<String>,
    is_separator: impl Fn(&Option<String>) -> bool,
) -> Option<bool> {
    let token = |entry: Option<&Value>| entry.and_then(|e| part(e, "SpecialToken"));
    let mut inner = pair;
    if first.is_some() && token(inner.first()) == *first {
        inner = inner.get(1..)?;
    }
    if last.is_some() && token(inner.last()) == *last {
        inner = inner.get(..inner.len().checked_sub(1)?)?;
    }
    let text = |entry: Option<&Value>| entry.and_then(|e| part(e, "Sequence"));
    if text(inner.first()).as_deref() != Some("A") || text(inner.last()).as_deref() != Some("B") {
        return None;
    }
    let inner = inner.get(1..inner.len().checked_sub(1)?).filter(|i| !i.is_empty())?;
    let one = last.is_none() && is_separator(&token(inner.first()));
    let two = inner.len() == 2 && is_separator(&token(inner.get(1)));
    Some(one || two)
}

/// An id in a JSON file; `None` for null, for lists, which [`elsewhere`] reads, and for -1, with which the first
/// conversions of Llama and what was trained from them say that there is no such token, and -100, which PyTorch's loss
/// passes over.
fn id(file: &str, key: &str, value: Option<&Value>) -> Result<Option<u32>> {
    let none = |v: &&Value| v.is_null() || v.is_array() || **v == -1 || **v == -100 || **v == false;
    let Some(value) = value.filter(|v| !none(v)) else { return Ok(None) };
    // Python's programs write computed integers as floats.
    let float = || value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(x));
    match value.as_u64().or_else(|| float().map(|x| x as u64)).and_then(|id| u32::try_from(id).ok()) {
        Some(id) => Ok(Some(id)),
        None => Err(unfit(file, wrong(key, "a token id", value))),
    }
}

/// Writes the further tokens that end generation: those that generation_config.json or config.json lists with EOS and that
/// programs do not know by their text. A GGUF has a key for the end of a turn and one for the end of a message.
///
/// # Errors
/// Those of [`Special::find`].
pub fn write_ends(
    folder: &mut Folder,
    config: &Value,
    metadata: &mut Metadata,
    notes: &mut Vec<String>,
) -> Result<()> {
    const KEY: &str = "eos_token_id";
    let generation = folder.object("generation_config.json")?;
    let mut listed = Vec::new();
    for (file, json) in [("generation_config.json", generation.as_ref()), (CONFIG, Some(config))] {
        let several = json.and_then(|json| json.get(KEY)?.as_array());
        for value in several.into_iter().flatten() {
            listed.extend(id(&folder.name(file), KEY, Some(value))?);
        }
    }
    if listed.len() < 2 {
        return Ok(());
    }
    // What cannot be read here is not run here either.
    let Ok(tokenizer) = Tokenizer::from_metadata(metadata) else { return Ok(()) };
    listed.retain(|id| !tokenizer.is_end(*id) && (*id as usize) < tokenizer.len());
    let mut seen = HashSet::new();
    listed.retain(|id| seen.insert(*id));
    let mut left = listed.into_iter();
    for role in ["eot", "eom"] {
        let key = format!("tokenizer.ggml.{role}_token_id");
        if metadata.get(&key).is_none()
            && let Some(id) = left.next()
        {
            metadata.set(&key, Meta::U32(id));
        }
    }
    let left: Vec<String> = left.map(|id| visible(&tokenizer.token(id))).collect();
    if !left.is_empty() {
        notes.push(format!(
            "generation ends with more tokens than a GGUF has keys for: programs go on after {}",
            first_of(&left, 4)
        ));
    }
    Ok(())
}

/// A role's id in the files that convert_hf_to_gguf.py does not read, or in config.json's list of several ids.
fn elsewhere(
    folder: &mut Folder,
    role: &str,
    added: &[Added],
    listed: &[Added],
    config: &Value,
) -> Result<Option<u32>> {
    if let Some(map) = folder.object("special_tokens_map.json")?
        && let Some(name) = name_of(&map, role)
        && let Some(token) = added.iter().chain(listed).find(|a| a.text == name)
    {
        return Ok(Some(token.id));
    }
    let key = format!("{role}_token_id");
    let generation = folder.object("generation_config.json")?;
    for (file, json) in [("generation_config.json", generation.as_ref()), (CONFIG, Some(config))] {
        let Some(value) = json.and_then(|json| json.get(&key)) else { continue };
        // Several tokens may end a text; the first is the one that training used.
        let several = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in several {
            if let Some(id) = id(&folder.name(file), &key, Some(value))? {
                return Ok(Some(id));
            }
        }
    }
    Ok(None)
}
