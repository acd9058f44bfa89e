//! Chats as texts: the template that a model's file carries, rendered with its messages.
//!
//! Templates are programs in Jinja that were written for Hugging Face's transformers, and what they may use is what
//! is there: Python's methods of texts, lists and dictionaries, `raise_exception`, `strftime_now`, JSON as Python
//! writes it ([`python`]), and blocks that take their line's whitespace with them. A template comes with a file from
//! anywhere: it has no access to anything, and is stopped when it goes on for too long. Steps are counted, and not the
//! memory that they take: the engine has no limit for texts that double themselves.

mod python;
#[cfg(test)]
mod tests;

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use regex::Regex;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Steps that a template may take: thousands for each message are usual, a hundred million take seconds.
const FUEL: u64 = 20_000_000;

/// Stands in a message where a control token's text is cut; Unicode has it for such uses, and no text has it.
const CUT: char = '\u{FDD0}';

/// What somebody said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who: `system`, `user`, `assistant`.
    pub role: String,
    /// What.
    pub content: String,
}

impl Message {
    /// What somebody said.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A chat template, ready to render.
pub struct Template(Environment<'static>);

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Template")
    }
}

impl Template {
    /// Reads a template. `now` is what it is told of the time, in seconds since 1970.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn new(text: &str, now: u64) -> Result<Self> {
        let mut env = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        env.set_syntax(syntax.map_err(|e| explain(&e))?);
        env.set_unknown_method_callback(unknown_method_callback);
        env.set_fuel(Some(FUEL));
        env.add_filter("tojson", python::to_json);
        env.add_filter("from_json", python::from_json);
        env.add_test("iterable", python::is_iterable);
        env.add_function("raise_exception", python::raise);
        env.add_function("strftime_now", move |format: &str| python::strftime(format, now));
        // transformers marks with this what a model says, for training; it prints its contents.
        let marks = Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("the pattern is valid");
        let text = marks.replace_all(text, |m: &regex::Captures| {
            let word = if m.get(2).is_some() { "endif" } else { "if true" };
            format!("{{%{} {word} {}%}}", &m[1], &m[3])
        });
        env.add_template_owned("chat template", text.into_owned()).map_err(|e| explain(&e))?;
        Ok(Self(env))
    }

    /// The template of a tokenizer's file.
    ///
    /// # Errors
    /// There is none; what is wrong with it.
    pub fn of(tokenizer: &Tokenizer, now: u64) -> Result<Self> {
        let text = tokenizer.chat_template().ok_or_else(|| {
            Error::refused("the model has no chat template (tokenizer.chat_template)")
                .or("leave --chat out to go on with a text, or set one with `ggufkit edit --set-file \
                 tokenizer.chat_template:str=FILE`")
        })?;
        Self::new(text, now)
    }

    /// The text of a chat, as far as the answer if `answer` is set. `begin` and `end` are the tokens that begin and
    /// end texts.
    ///
    /// # Errors
    /// The template refuses the messages, does something that cannot be done, or does not come to an end.
    pub fn render(&self, messages: &[Message], answer: bool, begin: &str, end: &str) -> Result<String> {
        let template = self.0.get_template("chat template").map_err(|e| explain(&e))?;
        let rendered = template.render(context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt => answer,
            bos_token => begin,
            eos_token => end,
            // There and nothing, as transformers has it: templates tell apart what is not there.
            tools => (),
            documents => (),
        });
        rendered.map_err(|e| explain(&e))
    }

    /// The tokens of a chat, as far as the answer. Control tokens come from the template alone: written in a message,
    /// they are text like any other, which is cut in two where it would be one. The begin comes once if texts begin
    /// with one, whether the template writes it or not.
    ///
    /// # Errors
    /// Those of [`Self::render`].
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        let text = |id: Option<u32>| id.map(|id| tokenizer.token(id).into_owned()).unwrap_or_default();
        let messages: Vec<Message> =
            messages.iter().map(|m| Message::new(&m.role, harmless(tokenizer, &m.content))).collect();
        let rendered = self.render(&messages, true, &text(tokenizer.bos()), &text(tokenizer.eos()))?;
        let mut ids: Vec<u32> =
            rendered.split(CUT).flat_map(|part| tokenizer.encode(part, false, true)).collect();
        if let Some(bos) = tokenizer.bos().filter(|_| tokenizer.add_bos())
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }
}

/// A message in which no control token is found, as [`CUT`] stands in them.
fn harmless(tokenizer: &Tokenizer, content: &str) -> String {
    let mut text = content.replace(CUT, "");
    let control = |id: u32| tokenizer.piece(id, false).is_empty() && !tokenizer.piece(id, true).is_empty();
    // Behind a token that is cut there may be another, which it hid.
    loop {
        let ids = text.split(CUT).flat_map(|part| tokenizer.encode(part, false, true)).collect::<Vec<_>>();
        let found = ids.into_iter().filter(|&id| control(id)).map(|id| tokenizer.token(id));
        let Some(token) = found.into_iter().find(|token| text.contains(&**token)) else { return text };
        let mut chars = token.chars();
        let first: String = chars.by_ref().take(1).collect();
        let rest = chars.as_str();
        // One character cannot be cut, and is left out.
        let cut = if rest.is_empty() { CUT.to_string() } else { format!("{first}{CUT}{rest}") };
        text = text.replace(&*token, &cut);
    }
}

/// The engine's errors in this program's words.
fn explain(e: &minijinja::Error) -> Error {
    let mut causes = std::iter::successors(Some(e as &dyn std::error::Error), |e| e.source());
    let why = if let Some(raised) = causes.find_map(|e| e.downcast_ref::<python::Raised>()) {
        format!("the chat template refuses these messages: {raised}")
    } else if e.kind() == ErrorKind::OutOfFuel {
        "the chat template does not come to an end".into()
    } else {
        let line = e.line().map(|line| format!(", line {line}")).unwrap_or_default();
        let detail = e.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        format!("the chat template{line}: {}{detail}", e.kind())
    };
    Error::refused(why).or("leave --chat out to go on with a text that is written as the model expects it")
}
