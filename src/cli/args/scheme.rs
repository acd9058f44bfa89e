//! Parsers for scheme names and per-tensor rules.

use std::sync::Arc;

use ggufkit::plan::Choice;
use ggufkit::scheme::{self, Scheme};
use regex::Regex;

/// Parses a scheme's name; `keep` gives `None`.
pub fn scheme_or_keep(name: &str) -> std::result::Result<Option<Arc<Scheme>>, String> {
    if name.eq_ignore_ascii_case("keep") { Ok(None) } else { find_scheme(name).map(Some) }
}

/// Parses a scheme's name.
pub fn find_scheme(name: &str) -> std::result::Result<Arc<Scheme>, String> {
    scheme::find(name).ok_or_else(|| {
        if let Some(why) = scheme::for_activations(name) {
            return why;
        }
        let names = scheme::all().iter().flat_map(|s| s.aliases.iter().chain([&s.name]));
        let names: Vec<_> = names.map(String::as_str).collect();
        format!("unknown scheme {name:?}; the schemes are {}", names.join(", "))
    })
}

/// Parses "REGEX=TYPE"; the type may be `keep`.
pub fn tensor_rule(text: &str) -> std::result::Result<(Regex, Choice), String> {
    let (pattern, name) =
        text.rsplit_once('=').ok_or_else(|| format!("{text:?} must have the form REGEX=TYPE"))?;
    Ok((Regex::new(pattern).map_err(|e| e.to_string())?, scheme::choice(name)?))
}
