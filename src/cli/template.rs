//! Rendering a chat template in a process of its own.
//!
//! A template is a program that comes with the model's file, and the template engine limits neither the size nor the nesting
//! of the values that it makes. So the program starts itself again with limits of memory, stack and time, hands in the
//! template and the messages by standard input, and gets the text by standard output. Whatever happens in there is an error
//! here.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ggufkit::chat::{Message, Template};
use ggufkit::{Error, Result};
use serde::{Deserialize, Serialize};

/// The argument with which the program renders a template and does nothing else.
pub const ARGUMENT: &str = "__render-chat-template";

/// Bytes of address space of the process, beyond [`PER_BYTE`] for each byte of the messages.
const MEMORY: u64 = 256 << 20;
const PER_BYTE: u64 = 16;
/// Bytes of stack. The engine's own limits of nesting keep within it.
const STACK: usize = 2 << 20;
/// Seconds of processor time, and of waiting.
const SECONDS: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(3 * SECONDS);

/// What the process is given, as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    template: String,
    now: u64,
    messages: Vec<Message>,
    begin: String,
    end: String,
}

/// The text of a chat up to the start of the answer; `now` is the time in seconds since 1970, and `begin` and `end` are the
/// texts of BOS and EOS.
///
/// # Errors
/// [`Error::ChatTemplate`] if the template fails or exceeds the limits; [`Error::Io`] if no process can be started.
pub fn render(template: &str, now: u64, messages: &[Message], begin: &str, end: &str) -> Result<String> {
    let job = Job {
        template: template.into(),
        now,
        messages: messages.to_vec(),
        begin: begin.into(),
        end: end.into(),
    };
    let input = serde_json::to_vec(&job).map_err(|e| Error::refused(e.to_string()))?;
    let program = program()?;
    let failed = |e| Error::io(&program, "start a process for the chat template from", e);
    let mut process = Command::new(&program)
        .arg(ARGUMENT)
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (mut to, from, errors) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
    let (text, errors, status) = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A process that ends early reads no more; its status says why.
            let _ = to.take().map(|mut to| to.write_all(&input));
        });
        let text = scope.spawn(move || all(from));
        let errors = scope.spawn(move || all(errors));
        let start = Instant::now();
        let status = loop {
            match process.try_wait() {
                Ok(None) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(1)),
                Ok(None) | Err(_) => {
                    let _ = process.kill();
                    let _ = process.wait();
                    break None;
                }
                Ok(status) => break status,
            }
        };
        (text.join().unwrap_or_default(), errors.join().unwrap_or_default(), status)
    });
    let text = String::from_utf8_lossy(&text);
    match (status.filter(ExitStatus::success), text.split_at_checked(1)) {
        (Some(_), Some((TEXT, text))) => Ok(text.into()),
        (Some(_), Some((WHY, why))) => Err(Error::ChatTemplate { why: why.into() }),
        _ => Err(Error::ChatTemplate { why: why(&String::from_utf8_lossy(&errors), status) }),
    }
}

/// How the process begins its answer: the text, or why there is none.
const TEXT: &str = "=";
const WHY: &str = "!";

/// Everything that the process writes.
fn all(from: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from.map(|mut from| from.read_to_end(&mut bytes));
    bytes
}

/// This program. Its name may have been given to another file since it was started, so Linux's own name for it comes first.
fn program() -> Result<PathBuf> {
    let own = PathBuf::from("/proc/self/exe");
    if cfg!(target_os = "linux") && own.exists() {
        return Ok(own);
    }
    std::env::current_exe().map_err(|e| Error::io("the program itself".as_ref(), "find", e))
}

/// Why a process ended without an answer.
fn why(errors: &str, status: Option<ExitStatus>) -> String {
    let limit = if errors.contains("overflowed its stack") {
        "nests its values too deep".into()
    } else if ["out of memory", "memory allocation", "capacity overflow"]
        .iter()
        .any(|why| errors.contains(why))
    {
        format!("needs more than {} MiB of memory", MEMORY >> 20)
    } else {
        match status.and_then(signal) {
            Some(9 | 24) | None => format!("does not end within {SECONDS} seconds of processor time"),
            Some(0) => "cannot be rendered: its process failed".into(),
            Some(n) => format!("needs too much memory or nests too deep (its process ended with signal {n})"),
        }
    };
    format!("the chat template {limit}")
}

/// The signal that ended a process; 0 if it ended by itself.
#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status).or(Some(0))
}

#[cfg(not(unix))]
fn signal(status: ExitStatus) -> Option<i32> {
    status.code().map(|_| 0)
}

/// What the process does.
pub fn main() -> ExitCode {
    let mut input = Vec::new();
    if std::io::stdin().read_to_end(&mut input).is_err() {
        return ExitCode::FAILURE;
    }
    limit(MEMORY + PER_BYTE * input.len() as u64);
    let work = move || -> std::result::Result<String, String> {
        let job: Job = serde_json::from_slice(&input).map_err(|e| e.to_string())?;
        let text = Template::new(&job.template, job.now)
            .and_then(|template| template.render(&job.messages, true, &job.begin, &job.end));
        text.map_err(|e| e.to_string())
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work);
    let Some(found) = thread.ok().and_then(|thread| thread.join().ok()) else { return ExitCode::FAILURE };
    let (mark, text) = match &found {
        Ok(text) => (TEXT, text),
        Err(why) => (WHY, why),
    };
    let mut out = std::io::stdout().lock();
    match out
        .write_all(mark.as_bytes())
        .and_then(|()| out.write_all(text.as_bytes()))
        .and_then(|()| out.flush())
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Limits the address space and the processor time of this process, and leaves no core file.
#[cfg(unix)]
fn limit(memory: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let lower = |resource: Resource, most: u64| {
        let maximum = getrlimit(resource).maximum;
        let most = Some(maximum.map_or(most, |own| own.min(most)));
        // Where the system cannot limit this, the other limits hold.
        let _ = setrlimit(resource, Rlimit { current: most, maximum });
    };
    #[cfg(target_os = "linux")]
    lower(Resource::As, memory);
    let _ = memory;
    lower(Resource::Cpu, SECONDS);
    lower(Resource::Core, 0);
}

#[cfg(not(unix))]
fn limit(_: u64) {}
