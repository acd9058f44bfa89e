//! Which of several files of one folder is the tokenizer: by their content, and where two sound ones hold different
//! vocabularies, as transformers decides.

use crate::checkpoint::vocab::files::Folder;
use crate::checkpoint::vocab::json::{self, Json};
use crate::checkpoint::vocab::sentencepiece::{self, Content, Pieces, Settings};
use crate::checkpoint::vocab::tokens::{Token, Type};
use crate::error::{Error, Result};
use crate::order;
use crate::text::visible;
use crate::tokenizer::pre::table;

/// The name of the SentencePiece model in a folder. Files that have such a name and hold something else are passed over
/// with a note.
///
/// # Errors
/// [`Error::Refused`] if there is no other tokenizer beside such a file, with what it is and what to take instead.
pub fn sentencepiece_file(folder: &mut Folder, notes: &mut Vec<String>) -> Result<Option<String>> {
    let mut names = vec![sentencepiece::FILE.to_string()];
    // Under other names it may be another version's: it counts if there is nothing else. Of Mistral's versions, the newest.
    if !folder.has(json::FILE) && !folder.has("vocab.json") {
        names.extend(["spiece.model", "sentencepiece.bpe.model", "sentencepiece.model"].map(String::from));
        let mut versions = folder.list_here("tokenizer.model.v");
        order::by_key(&mut versions, |name| std::cmp::Reverse((name.len(), name.clone())));
        names.extend(versions);
    }
    let others = [json::FILE, "vocab.json"];
    let instead = others.into_iter().find(|name| folder.has(name) && !folder.is_empty(name));
    let mut wrong = None;
    for name in names {
        let file = folder.name(&name);
        let found = match (folder.peek(&name), instead) {
            (Ok(None), _) => continue,
            (Err(why @ Error::LfsPointer { .. }), Some(_)) => Err((why, None)),
            (Err(why), _) => return Err(why),
            (Ok(Some(start)), _) => match sentencepiece::content(&start) {
                // What is damaged is not needed where there is another.
                Content::Model if instead.is_some() => {
                    let bytes = folder.look(&name)?.unwrap_or_default();
                    sentencepiece::check(&file, &bytes).map_err(|why| (why, None))
                }
                Content::Model => Ok(()),
                Content::Other(what, hint) => {
                    Err((Error::refused(format!("{file}: this file {what}")), Some(hint)))
                }
            },
        };
        match (found, instead) {
            (Ok(()), _) => return Ok(Some(name)),
            (Err((why, _)), Some(instead)) => {
                notes.push(format!("{why}: it is not read; {instead} is read instead"));
            }
            (Err((why, Some(hint))), None) => wrong = wrong.or(Some(why.or(hint))),
            (Err((why, None)), None) => return Err(why),
        }
    }
    wrong.map_or(Ok(None), Err)
}

/// The files of a byte-level tokenizer without a tokenizer.json.
const PARTS: [&str; 2] = ["vocab.json", "merges.txt"];

/// Whether a folder has all of [`PARTS`].
fn parts(folder: &Folder) -> bool {
    PARTS.iter().all(|name| folder.has(name) && !folder.is_empty(name))
}

/// Reads tokenizer.json. What is wrong with it is a note where the tokenizer is in another file: in the SentencePiece model
/// `model`, or in vocab.json with merges.txt.
///
/// # Errors
/// Those of [`json::read`] where there is no other file, and [`Error::Io`].
pub fn json(folder: &mut Folder, model: Option<&str>, notes: &mut Vec<String>) -> Result<Option<Json>> {
    let instead = match model {
        Some(model) => Some(model),
        None => Some(PARTS[0]).filter(|_| parts(folder)),
    };
    let why = match (json::read(folder, true), instead) {
        (Err(why), Some(_)) if !matches!(why, Error::Io { .. }) => why,
        (read, _) => return read,
    };
    let instead = instead.unwrap_or_default();
    // Of a sound file with a model of another kind, the added tokens are known.
    if model.is_some()
        && let Ok(Some(json)) = json::read(folder, false)
    {
        notes.push(format!("{why}: only its added tokens are read; the others are those of {instead}"));
        return Ok(Some(json));
    }
    let name = folder.path().join(json::FILE);
    folder.read.retain(|read| *read != name);
    notes.push(format!("{why}: it is not read; {instead} is read instead"));
    Ok(None)
}

/// Reads the SentencePiece model `file`; `None`, with a note, if another file holds another vocabulary, which transformers
/// takes: tokenizer.json, or vocab.json of a tokenizer whose class is byte-level. `class` is that of the tokenizer.
///
/// # Errors
/// Those of [`sentencepiece::whole`].
pub fn pieces(
    folder: &mut Folder,
    file: String,
    json: Option<&Json>,
    class: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<Option<Pieces>> {
    let name = folder.name(&file);
    let bytes = folder.look(&file)?.unwrap_or_default();
    let (list, settings) = sentencepiece::whole(&name, &bytes)?;
    let byte_level = class.filter(|class| table::find_by_class(class).is_some());
    let other = match (json, byte_level) {
        (Some(json), _) => differs(json, &list, &settings).map(|why| (json::FILE, why)),
        (None, Some(class)) if parts(folder) => {
            Some((PARTS[0], format!("the tokenizer is a {}, which is byte-level", visible(class))))
        }
        (None, _) => None,
    };
    if let Some((instead, why)) = other {
        notes.push(format!(
            "{name} is another tokenizer than {instead} ({why}): {instead} is read, as in transformers; if {file} is the \
             right one, take {instead} out of the folder"
        ));
        return Ok(None);
    }
    folder.bytes(&file)?; // it counts as read
    Ok(Some(Pieces { file, list, settings }))
}

/// What the vocabulary of a tokenizer.json has otherwise than a SentencePiece model, but for added tokens; `None` if it is
/// the same, or is not known.
fn differs(json: &Json, pieces: &[Token], settings: &Settings) -> Option<String> {
    if !json.has_model() {
        return None;
    }
    let mut others: Vec<Option<&str>> = vec![None; pieces.len()];
    for (text, id) in json.tokens().filter(|(_, id)| !json.is_added(*id)) {
        match others.get_mut(id as usize) {
            Some(other) => *other = Some(text),
            None => {
                return Some(format!(
                    "token {id} is {:?} there, and here are {} tokens",
                    visible(text),
                    pieces.len()
                ));
            }
        }
    }
    for (id, (piece, other)) in (0u32..).zip(pieces.iter().zip(others)) {
        // Converters write some bytes as the character itself.
        if json.is_added(id) || matches!(piece.kind, Type::Byte | Type::Unused) {
            continue;
        }
        let own = String::from_utf8_lossy(&piece.text);
        let is = |text: &str| match piece.kind {
            // Its spaces were replaced.
            Type::UserDefined => text.replace('\u{2581}', " ") == *own,
            _ => text == own,
        };
        if !other.is_some_and(is) {
            let other = other.map_or("nothing".into(), |text| format!("{:?}", visible(text)));
            return Some(format!("token {id} is {other} there and {:?} here", visible(&own)));
        }
    }
    (json.is_unigram() != settings.unigram).then(|| {
        let name = |unigram| if unigram { "a unigram model" } else { "merges (BPE)" };
        format!("it is {} there and {} here", name(json.is_unigram()), name(settings.unigram))
    })
}
