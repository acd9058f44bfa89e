//! Every command line that messages, the help and the documentation name is one that the program takes.

use std::path::Path;
use std::sync::LazyLock;

use clap::builder::PossibleValue;
use clap::error::ErrorKind;
use clap::{Arg, Command, FromArgMatches};
use regex::Regex;

use super::{Cli, Command as Chosen, program};

/// Every text of the program's source.
pub fn texts() -> Vec<String> {
    fn walk(folder: &Path, text: &Regex, all: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, text, all);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("cli/tests.rs") {
                let code = std::fs::read_to_string(&path).unwrap();
                let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap().replace("\\\n", "");
                let found = text.captures_iter(&code).map(|found| found[1].to_string());
                all.extend(found);
            }
        }
    }
    let mut all = Vec::new();
    let text = Regex::new(r#""((?:[^"\\\n]|\\.)*)""#).unwrap();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &text, &mut all);
    all
}

/// A command line, and where it stands.
struct Line {
    at: String,
    /// The words after the program's name.
    words: Vec<String>,
    /// Whether it may lack arguments: what a text speaks of need not be all of a line.
    part: bool,
}

/// The words of the program's command in a line of a shell, without its name: up to a pipe, a redirection or a comment.
/// `None` if the line has no such command.
fn shell(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None::<char>);
    let mut letters = line.chars().peekable();
    while let Some(c) = letters.next() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => match letters.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '#') if word.is_none() => break,
            (None, '|' | '>' | '<' | '&' | ';') => {
                words.extend(word.take().filter(|word| word != "2"));
                if of_program(&words).is_some() {
                    break;
                }
                words.clear();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let at = of_program(&words)?;
    Some(words.split_off(at + 1))
}

/// Where the program stands as the command of a line: first, but for settings of the environment and words of a loop.
fn of_program(words: &[String]) -> Option<usize> {
    let before = |word: &String| ["$", "do", "then", "time"].contains(&word.as_str()) || word.contains('=');
    let at = words.iter().position(|word| !before(word))?;
    (words[at] == "ggufkit" || words[at].ends_with("/ggufkit")).then_some(at)
}

/// The command lines between backticks in a text of one paragraph.
fn in_backticks(text: &str) -> impl Iterator<Item = Vec<String>> {
    text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("ggufkit ")).filter_map(shell)
}

/// The command lines of a page: those in blocks of a console, and those between backticks.
fn of_page(name: &str, page: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let (mut fence, mut prose, mut console) = (None::<String>, String::new(), String::new());
    for (at, line) in page.lines().enumerate() {
        let at = format!("{name}:{}", at + 1);
        if let Some(kind) = line.trim_start().strip_prefix("```") {
            fence = fence.is_none().then(|| kind.to_string());
            continue;
        }
        match &fence {
            None => prose = format!("{prose}{line}\n"),
            Some(kind) => {
                let typed = match kind == "console" {
                    true if console.is_empty() => line.strip_prefix("$ ").unwrap_or_default(),
                    _ => line,
                };
                console += typed;
                if console.ends_with('\\') {
                    console.push('\n');
                    continue;
                }
                let words =
                    shell(&std::mem::take(&mut console)).filter(|_| kind != "rust" && kind != "python");
                lines.extend(words.map(|words| Line { at, words, part: false }));
            }
        }
    }
    let prose = in_backticks(&prose).map(|words| Line { at: name.into(), words, part: true });
    lines.extend(prose);
    lines
}

/// Whether a word stands for what only the user knows.
fn is_placeholder(word: &str) -> bool {
    static UPPER: LazyLock<Regex> = LazyLock::new(|| Regex::new("^<?[A-Z][A-Z=_.]*>?$").unwrap());
    UPPER.is_match(word) || word.contains('{') || word.contains("...") || word.contains('…')
}

/// A value that an option takes.
fn sample(arg: &Arg) -> String {
    let possible: Vec<PossibleValue> = arg.get_possible_values();
    if let Some(first) = possible.first() {
        return first.get_name().into();
    }
    let name = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    match name {
        "N" | "SEED" | "RAM" | "SIZE" | "BYTES" => "64",
        "X" => "4.5",
        "NATS" | "T" | "P" => "0.5",
        "SCHEME" | "TYPE" | "TYPES" => "q8_0",
        "TYPE=X" => "q8_0=2",
        "REGEX=TYPE" => "a=q8_0",
        "KEY=VALUE" | "KEY=NEW" | "KEY=FILE" => "a=b",
        "EFFORT" => "fast",
        "IDS" => "1,2",
        _ => "x",
    }
    .into()
}

/// The words of a line with values in the place of what stands for them.
fn filled(command: &Command, words: &[String]) -> Vec<String> {
    let option = |word: &str| {
        let long = word.strip_prefix("--");
        let short = word.strip_prefix('-').filter(|_| long.is_none());
        command.get_arguments().find(|arg| {
            long.is_some() && arg.get_long() == long
                || short.is_some() && arg.get_short().map(String::from).as_deref() == short
        })
    };
    let mut all: Vec<String> = Vec::new();
    let mut value_of: Option<&Arg> = None;
    for word in words {
        match value_of.take() {
            Some(arg) if is_placeholder(word) => all.push(sample(arg)),
            Some(_) => all.push(word.clone()),
            None => {
                value_of = option(word).filter(|arg| arg.get_action().takes_values());
                all.push(word.clone());
            }
        }
    }
    all
}

/// What is wrong about a command line, if something is.
fn wrong(line: &Line) -> Option<String> {
    let program = super::program();
    let name = line.words.first()?;
    let shown = format!("{}: ggufkit {}", line.at, line.words.join(" "));
    if name.starts_with('-') || name == "help" || is_placeholder(name) {
        return None;
    }
    let Some(command) = program.find_subcommand(name) else {
        return Some(format!("{shown}: no such command"));
    };
    // The name alone speaks of the command.
    if line.words.len() == 1 {
        return None;
    }
    let words = filled(command, &line.words);
    let args = std::iter::once("ggufkit").chain(words.iter().map(String::as_str));
    let matches = match program.clone().try_get_matches_from(args) {
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => return None,
        Err(e) if line.part && e.kind() == ErrorKind::MissingRequiredArgument => return None,
        // This lists them.
        Err(_) if words.ends_with(&["--for".into(), "list".into()]) => return None,
        Err(e) => return Some(format!("{shown}: {e}")),
        Ok(matches) => matches,
    };
    let cli = Cli::from_arg_matches(&matches).unwrap();
    let checked = match &cli.command {
        Chosen::Convert(c) => c.check(),
        Chosen::Quantize(q) => q.check(),
        _ => Ok(()),
    };
    checked.err().filter(|_| !line.part).map(|e| format!("{shown}: {e}"))
}

fn all_are_right(lines: &[Line], least: usize) {
    assert!(lines.len() >= least, "{} command lines", lines.len());
    let wrong: Vec<String> = lines.iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn messages_name_command_lines_that_are_taken() {
    // What is not between backticks cannot be told from the sentence around it.
    let bare = Regex::new(r"ggufkit [a-z]+ (?:-|\{|[A-Z]+\b)").unwrap();
    let mut lines = Vec::new();
    // The usage of a command that clap cannot say is in clap's own form.
    for text in texts().into_iter().filter(|text| !text.contains("[OPTIONS]")) {
        let outside: String = text.split('`').step_by(2).collect::<Vec<_>>().join("``");
        assert!(!bare.is_match(&outside), "set the command between backticks: {text}");
        lines.extend(in_backticks(&text).map(|words| Line { at: text.clone(), words, part: false }));
    }
    all_are_right(&lines, 50);
}

#[test]
fn help_names_command_lines_that_are_taken() {
    let mut lines = Vec::new();
    for command in program().get_subcommands_mut() {
        let name = command.get_name().to_string();
        let after = command.get_after_help().map(|text| text.to_string()).unwrap_or_default();
        for example in after.lines().map(str::trim).filter(|line| line.starts_with("ggufkit ")) {
            // What it does stands behind it.
            let example = example.split("    ").next().unwrap();
            lines.extend(shell(example).map(|words| Line { at: name.clone(), words, part: false }));
        }
        let help = command.render_long_help().to_string();
        lines.extend(in_backticks(&help).map(|words| Line { at: name.clone(), words, part: true }));
    }
    all_are_right(&lines, 25);
}

#[test]
fn documents_name_command_lines_that_are_taken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root.join(name)).into_iter();
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut lines = Vec::new();
    for path in pages.chain(docs).filter(|path| path.extension().is_some_and(|e| e == "md")) {
        lines.extend(of_page(
            &path.file_name().unwrap().to_string_lossy(),
            &std::fs::read_to_string(&path).unwrap(),
        ));
    }
    all_are_right(&lines, 80);
}

#[test]
fn a_command_line_that_rots_is_found() {
    let wrong = |text: &str| {
        let words = shell(text).unwrap();
        wrong(&Line { at: String::new(), words, part: false })
    };
    for right in [
        "ggufkit convert IN OUT --type {scheme}",
        "$ GGUFKIT_ISA=x ggufkit quantize a b --tensor 'x|y=q8_0' --type q4_0 > log 2>&1",
        "cat x | ./ggufkit inspect --json a | jq .",
        "ggufkit calibrate MODEL TEXT -o FILE",
        "ggufkit edit IN OUT --set KEY=VALUE",
        "ggufkit quantize a b --fit RAM --kv TYPE --price TYPE=X",
        "ggufkit split",
    ] {
        assert_eq!(wrong(right), None, "{right}");
    }
    for (rotten, says) in [
        ("ggufkit show MODEL", "no such command"),
        ("ggufkit inspect MODEL --tensor", "unexpected argument"),
        ("ggufkit calibrate MODEL -o", "value is required"),
        ("ggufkit eval MODEL", "were not provided"),
        ("ggufkit quantize a b --type q4_k_l", "unknown scheme"),
        ("ggufkit quantize a b --type q4_0 --method gptq", "needs a calibration set"),
        ("ggufkit quantize a b --type q4_0 --fit 8G", "cannot be combined"),
    ] {
        let found = wrong(rotten);
        assert!(found.as_ref().is_some_and(|found| found.contains(says)), "{rotten}: {found:?}");
    }
    let page = "See `ggufkit nothing`.\n```console\n$ ggufkit run m \\\n    --no\nggufkit: x\n$ ls; ggufkit bench m # fast\n```\n";
    let found: Vec<Vec<String>> = of_page("x", page).into_iter().map(|line| line.words).collect();
    assert_eq!(found, [vec!["run", "m", "--no"], vec!["bench", "m"], vec!["nothing"]]);
}

#[test]
fn the_command_line_is_well_formed() {
    super::program().debug_assert();
}
