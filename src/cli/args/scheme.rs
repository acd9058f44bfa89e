//! Schemes and rules for single tensors.

use std::sync::Arc;

use ggufkit::plan::Choice;
use ggufkit::scheme::{self, Scheme};
use regex::Regex;

/// A scheme's name, or `keep`.
pub fn scheme_or_keep(name: &str) -> std::result::Result<Option<Arc<Scheme>>, String> {
    if name.eq_ignore_ascii_case("keep") { Ok(None) } else { find_scheme(name).map(Some) }
}

/// A scheme's name.
pub fn find_scheme(name: &str) -> std::result::Result<Arc<Scheme>, String> {
    scheme::find(name).ok_or_else(|| {
        if let Some(why) = scheme::for_activations(name) {
            return why;
        }
        let names = scheme::all().iter().flat_map(|s| s.aliases.iter().chain([&s.name]));
        let names: Vec<_> = names.map(String::as_str).collect();
        format!("there is no scheme {name:?}; there are {}", names.join(", "))
    })
}

/// "REGEX=TYPE".
pub fn tensor_rule(text: &str) -> std::result::Result<(Regex, Choice), String> {
    let (pattern, name) = text.rsplit_once('=').ok_or_else(|| format!("{text:?} is not REGEX=TYPE"))?;
    Ok((Regex::new(pattern).map_err(|e| e.to_string())?, scheme::choice(name)?))
}
