//! Chat templates: a model's own template, rendered with the messages of a chat.
//!
//! Templates are Jinja programs that were written for Hugging Face's transformers. They can use what they find there:
//! Python's methods of strings, lists and dictionaries, `raise_exception`, `strftime_now`, JSON as Python writes it
//! (`python`), and blocks that trim the whitespace of their line.
//!
//! A template may come from an untrusted file: it has no access to anything, is stopped after 20 million steps, and its
//! text and what it writes are limited (`limits`). What it can still do is to make values that double their size or nest
//! without an end, since the engine limits neither; that ends a process without memory or stack left. So `ggufkit run`
//! renders templates in a process of their own with limits of memory, stack and time, and hands in the result
//! ([`encode`]). Programs that render templates of strangers should do the same.

mod limits;
mod python;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Steps that a template may take. Thousands for each message are usual; a hundred million take seconds. Fewer in unit
/// tests, which take them all.
const FUEL: u64 = if cfg!(test) { 1_000_000 } else { 20_000_000 };

/// `{% generation %}` marks the model's text for training in transformers; it prints its contents.
static MARKS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("the pattern is valid")
});

/// Marks where the text of a control token is split in a message. It is a noncharacter, which Unicode reserves for
/// internal use.
const CUT: char = '\u{FDD0}';

/// A message of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who wrote it: `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

impl Message {
    /// A message with a role and a text.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A parsed chat template.
pub struct Template(Environment<'static>);

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Template")
    }
}

/// Why a text is no template, or none that is parsed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It does not parse.
    Syntax(String),
    /// It is beyond the limits of what is parsed.
    TooLarge(String),
}

/// What is wrong with the text of a template, as a sentence; `None` if it parses. That it can be rendered is another matter.
pub fn fault(text: &str) -> Option<Fault> {
    let why = |e: Error| e.to_string();
    match limits::exceeded(text) {
        Some(_) => Template::new(text, 0).err().map(why).map(Fault::TooLarge),
        // A thread has as much stack as the engine's limits of nesting need, whoever asks.
        None => std::thread::scope(|scope| {
            let parse = || Template::new(text, 0).err().map(why).map(Fault::Syntax);
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, parse);
            thread.ok()?.join().ok()?
        }),
    }
}

/// Bytes of stack in which the engine parses a template that is within the limits.
const STACK: usize = 4 << 20;

impl Template {
    /// Parses a template. `now` is the time for `strftime_now`, in seconds since 1970 (UTC).
    ///
    /// # Errors
    /// [`Error::ChatTemplate`], with the line; also for a text of more than 256 KiB, and for a tag or a chain of `elif` that
    /// is much longer than those of published templates.
    pub fn new(text: &str, now: u64) -> Result<Self> {
        if let Some(what) = limits::exceeded(text) {
            let space = if what.starts_with(',') { "" } else { " " };
            return Err(Error::ChatTemplate { why: format!("the chat template{space}{what}") });
        }
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
        let text = MARKS.replace_all(text, |m: &regex::Captures| {
            let word = if m.get(2).is_some() { "endif" } else { "if true" };
            format!("{{%{} {word} {}%}}", &m[1], &m[3])
        });
        env.add_template_owned("chat template", text.into_owned()).map_err(|e| explain(&e))?;
        Ok(Self(env))
    }

    /// The template of a tokenizer.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`]; [`Error::ChatTemplate`], with the line.
    pub fn of(tokenizer: &Tokenizer, now: u64) -> Result<Self> {
        let text = tokenizer.chat_template()?.ok_or(Error::NoChatTemplate)?;
        Self::new(text, now)
    }

    /// The text of a chat; with `answer`, up to the start of the assistant's answer (`add_generation_prompt`). `begin`
    /// and `end` are the texts of BOS and EOS.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] if the template refuses the messages, fails, takes too many steps, or writes more than 16 MiB
    /// and twice the messages.
    pub fn render(&self, messages: &[Message], answer: bool, begin: &str, end: &str) -> Result<String> {
        let template = self.0.get_template("chat template").map_err(|e| explain(&e))?;
        let length: usize = messages.iter().map(|m| m.role.len() + m.content.len()).sum();
        let mut output = limits::Output::new(limits::OUTPUT + 2 * length);
        let values = context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt => answer,
            bos_token => begin,
            eos_token => end,
            // Defined as none, as in transformers: templates test whether they are defined.
            tools => (),
            documents => (),
        };
        match template.render_captured_to(values, &mut output) {
            Err(_) if output.exceeded => Err(Error::ChatTemplate {
                why: format!("the chat template writes more than {} bytes", output.most),
            }),
            Err(e) => Err(explain(&e)),
            Ok(_) => Ok(String::from_utf8(output.bytes).expect("the engine writes text")),
        }
    }

    /// The tokens of a chat up to the start of the answer. Control tokens come from the template alone: one that is
    /// written in a message is encoded as ordinary text. BOS comes once if the vocabulary adds it, whether the template
    /// writes it or not.
    ///
    /// # Errors
    /// Those of [`Self::render`].
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        encode(tokenizer, messages, |messages, begin, end| self.render(messages, true, begin, end))
    }
}

/// [`Template::encode`] with another way to render: `render` is given the messages and the texts of BOS and EOS, and gives
/// the text up to the start of the answer, as [`Template::render`] does.
///
/// # Errors
/// Those of `render`.
pub fn encode(
    tokenizer: &Tokenizer,
    messages: &[Message],
    render: impl FnOnce(&[Message], &str, &str) -> Result<String>,
) -> Result<Vec<u32>> {
    let text = |id: Option<u32>| id.map(|id| tokenizer.token(id).into_owned()).unwrap_or_default();
    let messages: Vec<Message> =
        messages.iter().map(|m| Message::new(&m.role, harmless(tokenizer, &m.content))).collect();
    let rendered = render(&messages, &text(tokenizer.bos()), &text(tokenizer.eos()))?;
    let mut ids: Vec<u32> =
        rendered.split(CUT).flat_map(|part| tokenizer.encode(part, false, true)).collect();
    if let Some(bos) = tokenizer.bos().filter(|_| tokenizer.add_bos())
        && ids.first() != Some(&bos)
    {
        ids.insert(0, bos);
    }
    Ok(ids)
}

/// A message in which no control token is found, because [`CUT`] splits their texts.
fn harmless(tokenizer: &Tokenizer, content: &str) -> String {
    let mut text = content.replace(CUT, "");
    let control = |id: u32| tokenizer.piece(id, false).is_empty() && !tokenizer.piece(id, true).is_empty();
    // A token that was split may have hidden another one.
    loop {
        let ids = text.split(CUT).flat_map(|part| tokenizer.encode(part, false, true)).collect::<Vec<_>>();
        let found = ids.into_iter().filter(|&id| control(id)).map(|id| tokenizer.token(id));
        let Some(token) = found.into_iter().find(|token| text.contains(&**token)) else { return text };
        let mut chars = token.chars();
        let first: String = chars.by_ref().take(1).collect();
        let rest = chars.as_str();
        // A single character cannot be split, and is left out.
        let cut = if rest.is_empty() { CUT.to_string() } else { format!("{first}{CUT}{rest}") };
        text = text.replace(&*token, &cut);
    }
}

/// The template engine's errors as [`Error::ChatTemplate`].
fn explain(e: &minijinja::Error) -> Error {
    let mut causes = std::iter::successors(Some(e as &dyn std::error::Error), |e| e.source());
    let why = if let Some(raised) = causes.find_map(|e| e.downcast_ref::<python::Raised>()) {
        format!("the chat template refuses these messages: {raised}")
    } else if e.kind() == ErrorKind::OutOfFuel {
        format!("the chat template does not end within {FUEL} steps")
    } else {
        let line = e.line().map(|line| format!(", line {line}")).unwrap_or_default();
        let detail = e.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        format!("the chat template{line}: {}{detail}", e.kind())
    };
    Error::ChatTemplate { why }
}
