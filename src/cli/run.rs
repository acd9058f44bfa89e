//! `ggufkit run`: generates text.

use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;

use super::args::{Input, Running};
use super::{note, template};
use ggufkit::chat::{self, Message};
use ggufkit::runner::sample::{Sampler, Settings};
use ggufkit::runner::{Network, Options, Run as Tokens, State, forward};
use ggufkit::text::{escaped, is_hidden};
use ggufkit::tokenizer::{Stream, Tokenizer, text_file, tokenizer_of};
use ggufkit::{Error, Result};

/// The default context length of an interactive chat, in tokens; a model's smaller maximum comes first.
const CHAT_CONTEXT: usize = 4096;

/// Generates text with a model.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit run model.gguf --prompt 'Once upon a time'
  ggufkit run model.gguf --chat --prompt 'Why is the sky blue?'
  ggufkit run model.gguf --chat
  ggufkit run stories15M.bin --tokenizer tokenizer.bin --temperature 0

Without --prompt, the model begins a text of its own; with --chat and without --prompt,
each line of standard input is a message. The same seed, file and options give the same
text on any number of threads and on every processor.")]
pub struct Run {
    #[command(flatten)]
    input: Input,
    /// Text to continue, or with --chat the message to answer. Control tokens in a text to continue (e.g. </s>) are
    /// recognised
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Read the prompt from this file, without the newline at its end
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,
    /// Apply the model's chat template to the prompt; without a prompt, chat interactively
    #[arg(long)]
    chat: bool,
    /// System message of the chat
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Largest number of tokens to generate, per answer in a chat
    #[arg(long, value_name = "N", default_value_t = 256)]
    tokens: u32,
    /// Sampling temperature; 0 is greedy
    #[arg(long, value_name = "T", default_value_t = 0.8, value_parser = temperature)]
    temperature: f64,
    /// Top-k sampling: keep the N most probable tokens; 0 keeps all
    #[arg(long, value_name = "N", default_value_t = 40)]
    top_k: usize,
    /// Top-p sampling: keep the most probable tokens whose probabilities add up to P, from 0 to 1
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = share)]
    top_p: f64,
    /// Min-p sampling: keep tokens with at least P times the probability of the most probable one, from 0 to 1
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = share)]
    min_p: f64,
    /// Random seed for sampling [default: a new one for each run]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Context length: the most tokens of prompt and generated text together [default: as many as prompt and --tokens
    /// need, or 4096 in a chat, but at most the model's maximum]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
    /// Continue generating when the model predicts the end of the text
    #[arg(long)]
    ignore_eos: bool,
    /// Do not print the prompt before the generated text
    #[arg(long)]
    no_echo: bool,
    /// Print token counts, speed and seed to standard error [default: only if that is a terminal]
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    running: Running,
}

fn temperature(text: &str) -> std::result::Result<f64, String> {
    let number = text.parse().ok().filter(|t: &f64| t.is_finite() && *t >= 0.0);
    number.ok_or_else(|| format!("{text:?} must be a number of at least 0"))
}

fn share(text: &str) -> std::result::Result<f64, String> {
    let number = text.parse().ok().filter(|p| (0.0..=1.0).contains(p));
    number.ok_or_else(|| format!("{text:?} must be a number from 0 to 1"))
}

impl Run {
    pub fn run(self) -> Result<()> {
        let prompt = self.prompt()?;
        let source = self.input.open_to_run()?;
        let tokenizer = tokenizer_of(&source)?;
        self.running.pool()?.install(|| {
            let network = Network::new(&source, Options { exact: self.running.exact, isa: None })?;
            if tokenizer.len() > network.vocab() {
                let (tokens, rows) = (tokenizer.len(), network.vocab());
                let why =
                    format!("the tokenizer has {tokens} tokens, but the model's embedding has {rows} rows");
                return Err(Error::refused(why).or("use the tokenizer that belongs to this model"));
            }
            let done = match (self.chat, prompt) {
                (false, prompt) => self.continue_text(&network, &tokenizer, prompt.unwrap_or_default()),
                (true, Some(prompt)) => self.answer(&network, &tokenizer, prompt),
                (true, None) => self.chat_with_stdin(&network, &tokenizer),
            };
            // What else may be wrong then, infinite logits for one, comes of it.
            self.input.run.unchanged()?;
            done
        })
    }

    /// The prompt of --prompt or --prompt-file.
    ///
    /// # Errors
    /// Those of [`text_file::read`]; [`Error::Refused`] for a text with invalid bytes.
    fn prompt(&self) -> Result<Option<String>> {
        let Some(path) = &self.prompt_file else { return Ok(self.prompt.clone()) };
        let file = text_file::read(&self.input.run, path)?;
        if !file.valid {
            return Err(Error::refused(file.notes.join("; ")).or("convert it to UTF-8 first"));
        }
        file.notes.iter().for_each(|text| note(text));
        let mut text = file.text;
        if text.ends_with('\n') {
            text.truncate(text.len() - 1);
            text.truncate(text.strip_suffix('\r').unwrap_or(&text).len());
        }
        Ok(Some(text))
    }

    /// Continues a text, or begins one.
    fn continue_text(&self, network: &Network, tokenizer: &Tokenizer, prompt: String) -> Result<()> {
        let mut ids: Vec<u32> = tokenizer.bos().filter(|_| tokenizer.add_bos()).into_iter().collect();
        ids.extend(tokenizer.encode(&prompt, false, true));
        if ids.is_empty() {
            let begin = tokenizer.bos().ok_or_else(|| {
                Error::refused("the model has no token that begins a text").or("add --prompt TEXT")
            })?;
            ids.push(begin);
        }
        let mut writer = self.writer(network, tokenizer, ids.len() + self.tokens as usize)?;
        writer.check_room(ids.len())?;
        if !self.no_echo {
            writer.out.write(&prompt)?;
        }
        // Some vocabularies put a space before a text; it is not printed.
        let stream = if prompt.is_empty() { tokenizer.stream() } else { Stream::default() };
        writer.write(&ids, stream)?;
        Ok(())
    }

    /// Answers one message.
    fn answer(&self, network: &Network, tokenizer: &Tokenizer, prompt: String) -> Result<()> {
        let mut messages = self.beginning();
        messages.push(Message::new("user", prompt));
        let ids = laid_out(tokenizer, &messages)?;
        let mut writer = self.writer(network, tokenizer, ids.len() + self.tokens as usize)?;
        writer.write(&ids, tokenizer.stream())?;
        Ok(())
    }

    /// Answers every line of standard input until its end.
    fn chat_with_stdin(&self, network: &Network, tokenizer: &Tokenizer) -> Result<()> {
        // Without a template, that is said before the first line is waited for.
        tokenizer.chat_template()?.ok_or(Error::NoChatTemplate)?;
        let mut messages = self.beginning();
        let mut writer = self.writer(network, tokenizer, CHAT_CONTEXT)?;
        let stdin = std::io::stdin();
        let interactive = stdin.is_terminal();
        let mut line = String::new();
        while !writer.out.closed {
            if interactive {
                // Standard output gets only the answers.
                let mut err = std::io::stderr().lock();
                let _ = write!(err, "> ").and_then(|()| err.flush());
            }
            line.clear();
            let read = stdin.lock().read_line(&mut line);
            if read.map_err(|e| Error::io("standard input".as_ref(), "read", e))? == 0 {
                break;
            }
            let text = line.trim_end_matches(['\n', '\r']);
            if text.trim().is_empty() {
                continue;
            }
            messages.push(Message::new("user", text));
            let answer = writer.write(&laid_out(tokenizer, &messages)?, tokenizer.stream())?;
            self.input.run.unchanged()?;
            messages.push(Message::new("assistant", answer));
        }
        Ok(())
    }

    /// The messages before the first one of the user.
    fn beginning(&self) -> Vec<Message> {
        self.system.iter().map(|text| Message::new("system", text)).collect()
    }

    /// A writer whose context has room for `needed` tokens, unless --context says otherwise or the model's maximum is
    /// smaller.
    ///
    /// # Errors
    /// [`Error::Usage`] if --context is above the model's maximum.
    fn writer<'a>(
        &self,
        network: &'a Network<'a>,
        tokenizer: &'a Tokenizer,
        needed: usize,
    ) -> Result<Writer<'a>> {
        let model = usize::try_from(network.config.context).unwrap_or(usize::MAX);
        let context = match self.context.map(|n| n as usize) {
            Some(n) if n > model => {
                let key = format!("{}.context_length", network.config.name);
                let why = format!("--context {n} is above the model's maximum of {model} tokens ({key})");
                return Err(Error::usage(why).or(format!("use --context {model} or less")));
            }
            Some(n) => n,
            None => model.min(needed),
        };
        let settings = Settings {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
        };
        let seed = self.seed.unwrap_or_else(|| RandomState::new().hash_one(now()));
        let is_end = |id: &u32| tokenizer.is_end(*id) || tokenizer.bos() == Some(*id);
        Ok(Writer {
            network,
            tokenizer,
            state: State::new(network, self.running.kv(), 1, context)?,
            seen: Vec::new(),
            context,
            batch: self.running.batch(),
            sampler: Sampler::new(settings, seed),
            seed,
            // Models trained on separate texts (llama2.c's) end a text with the token that begins the next one.
            ends: (0..tokenizer.len() as u32).filter(is_end).collect(),
            ignore_ends: self.ignore_eos,
            limit: self.tokens as usize,
            verbose: self.verbose || std::io::stderr().is_terminal(),
            out: Out { terminal: std::io::stdout().is_terminal(), closed: false },
        })
    }
}

/// The tokens of a chat up to the start of the answer, by the model's template.
fn laid_out(tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
    let text = tokenizer.chat_template()?.ok_or(Error::NoChatTemplate)?;
    chat::encode(tokenizer, messages, |messages, begin, end| {
        template::render(text, now(), messages, begin, end)
    })
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Why generation stopped.
enum End {
    Model,
    Limit,
    Context,
    Reader,
}

/// A model and the text that it has processed so far.
struct Writer<'a> {
    network: &'a Network<'a>,
    tokenizer: &'a Tokenizer,
    state: State,
    /// The tokens in the KV cache.
    seen: Vec<u32>,
    context: usize,
    batch: usize,
    sampler: Sampler,
    seed: u64,
    ends: Vec<u32>,
    ignore_ends: bool,
    limit: usize,
    verbose: bool,
    out: Out,
}

impl Writer<'_> {
    /// Refuses a prompt of more tokens than the context has.
    fn check_room(&self, n: usize) -> Result<()> {
        let (most, model) = (self.context, self.network.config.context);
        if n <= most {
            return Ok(());
        }
        let why = format!("the prompt has {n} tokens, more than the context length of {most}");
        Err(Error::refused(why).or(if model > most as u64 {
            format!("use --context {n} or more; the model's maximum is {model}")
        } else {
            "this is the model's maximum; shorten the prompt".into()
        }))
    }

    /// Generates and prints the text that follows these tokens, and returns it. Leading tokens that are already in the KV
    /// cache are not computed again.
    ///
    /// # Errors
    /// [`Error::Refused`] if the tokens exceed the context, [`Error::Io`] if the text cannot be written.
    fn write(&mut self, ids: &[u32], mut stream: Stream) -> Result<String> {
        self.check_room(ids.len())?;
        let same = self.seen.iter().zip(ids).take_while(|(a, b)| a == b).count();
        // The last token is always computed, because its logits are needed.
        let new = &ids[same.min(ids.len() - 1)..];
        self.seen.truncate(ids.len() - new.len());
        self.state.truncate(0, self.seen.len());
        let start = Instant::now();
        let mut logits = Vec::new();
        for tokens in new.chunks(self.batch) {
            let run = Tokens { sequence: 0, tokens };
            logits = forward(self.network, &mut self.state, &[run], &[tokens.len() - 1])?;
        }
        self.seen.extend(new);
        let prompt = (new.len(), start.elapsed());

        let start = Instant::now();
        let (mut text, mut count) = (String::new(), 0);
        let end = loop {
            if count == self.limit {
                break End::Limit;
            }
            if self.ignore_ends {
                // The lowest finite logit: the probability becomes 0.
                self.ends.iter().for_each(|&id| logits[id as usize] = f32::MIN);
            }
            let id = self.sampler.next(&logits)?;
            if !self.ignore_ends && self.ends.contains(&id) {
                break End::Model;
            }
            count += 1;
            let piece = stream.push(&self.tokenizer.piece(id, false));
            self.out.write(&piece)?;
            text += &piece;
            if self.out.closed {
                break End::Reader;
            }
            if count == self.limit {
                break End::Limit;
            }
            if self.seen.len() == self.context {
                break End::Context;
            }
            let run = Tokens { sequence: 0, tokens: &[id] };
            logits = forward(self.network, &mut self.state, &[run], &[0])?;
            self.seen.push(id);
        };
        let rest = stream.finish();
        self.out.write(&rest)?;
        self.out.write("\n")?;
        if self.verbose {
            self.print_statistics(prompt, (count, start.elapsed()), &end);
        }
        Ok(text + &rest)
    }

    fn print_statistics(&self, prompt: (usize, Duration), text: (usize, Duration), end: &End) {
        let speed = |(n, time): (usize, Duration)| {
            let speed = n as f64 / time.as_secs_f64().max(1e-9);
            format!("{n} tokens, {speed:.1} tokens/s")
        };
        let end = match end {
            End::Model => "ended by the model",
            End::Limit => "--tokens reached",
            End::Context => "the context is full",
            End::Reader => "output was closed",
        };
        let line = format!(
            "prompt: {}; text: {}, {end}; seed {}, {} threads, {}\n",
            speed(prompt),
            speed(text),
            self.seed,
            rayon::current_num_threads(),
            self.network.isa.name(),
        );
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

/// Standard output, written as the text is generated.
struct Out {
    terminal: bool,
    /// Whether the reader has closed the pipe.
    closed: bool,
}

impl Out {
    fn write(&mut self, text: &str) -> Result<()> {
        if self.closed || text.is_empty() {
            return Ok(());
        }
        // A terminal would act on control characters, so they are made visible; files get the text unchanged.
        let shown = if self.terminal {
            text.split_inclusive(['\n', '\t']).map(escape_controls).collect::<String>()
        } else {
            text.to_string()
        };
        let mut out = std::io::stdout().lock();
        match out.write_all(shown.as_bytes()).and_then(|()| out.flush()) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => self.closed = true,
            Err(e) => return Err(Error::io("standard output".as_ref(), "write", e)),
            Ok(()) => {}
        }
        Ok(())
    }
}

/// A line, or the part up to a tab, with all other hidden characters made visible, but for the two that texts of some
/// scripts, and emoji, are spelled with.
fn escape_controls(part: &str) -> String {
    let (text, end) = part.split_at(part.trim_end_matches(['\n', '\t']).len());
    escaped(text, |c| is_hidden(c) && !matches!(c, '\u{200c}' | '\u{200d}')) + end
}
