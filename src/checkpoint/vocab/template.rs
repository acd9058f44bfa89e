//! Reads chat templates: tokenizer_config.json's, or those in separate files.

use formats::metadata::{Array, Metadata, Value as Meta};
use serde_json::Value;

use crate::checkpoint::vocab::files::Folder;
use crate::error::Result;

/// The folder of further templates beside chat_template.jinja.
const MORE: &str = "additional_chat_templates";

/// Writes the templates to the metadata: a single one, or several with names, where `default` gets the plain key.
///
/// # Errors
/// [`Error::Format`](crate::Error::Format) for files that are not UTF-8 or not JSON.
pub fn write(folder: &mut Folder, config: Option<&Value>, metadata: &mut Metadata) -> Result<()> {
    let own = config.and_then(|c| c.get("chat_template"));
    let templates = match own {
        Some(Value::String(text)) => vec![("default".to_string(), text.clone())],
        Some(Value::Array(list)) => list.iter().filter_map(named).collect(),
        _ => in_files(folder)?,
    };
    let mut names = Vec::new();
    for (name, text) in templates.iter().filter(|(name, _)| name != "default") {
        if !text.is_empty() {
            metadata.set(&format!("tokenizer.chat_template.{name}"), Meta::text(text));
        }
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    if !names.is_empty() {
        metadata.set("tokenizer.chat_templates", Meta::Array(Array::of_strings(&names)));
    }
    if let Some((_, text)) = templates.iter().rev().find(|(name, text)| name == "default" && !text.is_empty())
    {
        metadata.set("tokenizer.chat_template", Meta::text(text));
    }
    Ok(())
}

/// The name and text of an entry in a list of templates. The name becomes part of a key: characters other than letters
/// and digits become `_`.
fn named(entry: &Value) -> Option<(String, String)> {
    let name = key_part(entry.get("name")?.as_str()?);
    let template = entry.get("template")?.as_str()?.to_string();
    (!name.is_empty()).then_some((name, template))
}

fn key_part(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn in_files(folder: &mut Folder) -> Result<Vec<(String, String)>> {
    if let Some(text) = folder.own_text("chat_template.jinja")? {
        let mut templates = vec![("default".to_string(), text)];
        for file in folder.list(MORE, ".jinja") {
            if let Some(text) = folder.own_text(&file)? {
                let stem = file.trim_start_matches(MORE).trim_start_matches('/').trim_end_matches(".jinja");
                templates.push((key_part(stem), text));
            }
        }
        return Ok(templates);
    }
    let json = folder.object("chat_template.json")?;
    Ok(match json.as_ref().and_then(|json| json.get("chat_template")) {
        Some(Value::String(text)) => vec![("default".to_string(), text.clone())],
        Some(Value::Array(list)) => list.iter().filter_map(named).collect(),
        _ => Vec::new(),
    })
}
