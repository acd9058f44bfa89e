//! Hints and notes as the running command's user can follow them. The library knows what could be done about an error, but not
//! which command asks: an option that this one lacks is named with the command that has it, and what the user did already is
//! not advised again.

use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use regex::Regex;

/// The running command, of which there is one in a process.
static RUNNING: OnceLock<Running> = OnceLock::new();

/// A command that runs: the options that it has, and the switches that it was given.
struct Running {
    program: Command,
    name: String,
    /// Options without a value on the command line, with their dashes.
    given: Vec<String>,
}

/// Says which command runs; `matches` are the arguments of the whole program.
pub fn runs(program: Command, matches: &ArgMatches) {
    let Some((name, matches)) = matches.subcommand() else { return };
    let own = program.find_subcommand(name).into_iter().flat_map(Command::get_arguments);
    let is_given = |arg: &&Arg| {
        !arg.get_action().takes_values()
            && matches!(matches.try_contains_id(arg.get_id().as_str()), Ok(true))
            && matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
    };
    let given = own.filter(is_given).filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
    let _ = RUNNING.set(Running { name: name.into(), given, program });
}

/// A hint for the running command's user; `None` if it says nothing but what was done.
pub fn hint(text: &str) -> Option<String> {
    RUNNING.get().map_or_else(|| Some(text.into()), |running| running.hint(text))
}

/// A note for the running command's user.
pub fn note(text: &str) -> Cow<'_, str> {
    RUNNING.get().map_or(Cow::from(text), |running| running.with_commands(text))
}

/// A text for the user of a command that does not run, by its name.
pub fn for_command(program: &Command, name: &str, text: &str) -> String {
    let running = Running { program: program.clone(), name: name.into(), given: Vec::new() };
    running.with_commands(text).into_owned()
}

/// Those of some options that the running command has; all, before one runs.
#[cfg_attr(not(unix), allow(dead_code))]
pub fn own<'a>(options: &[&'a str]) -> Vec<&'a str> {
    let has =
        |option: &&&str| RUNNING.get().is_none_or(|running| has(&running.program, &running.name, option));
    options.iter().filter(has).copied().collect()
}

/// Whether a command has an option, which is given with its dashes.
pub(super) fn has(program: &Command, command: &str, option: &str) -> bool {
    let names = |arg: &Arg| {
        let mut all = arg.get_all_aliases().unwrap_or_default();
        all.extend(arg.get_long());
        all.iter().any(|name| option.strip_prefix("--") == Some(*name))
    };
    let found = program.find_subcommand(command);
    ["--help", "--version"].contains(&option)
        || found.is_some_and(|command| command.get_arguments().any(names))
}

/// The long options that a text names.
fn options(text: &str) -> impl Iterator<Item = &str> {
    static OPTION: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new("(?:^|[^a-zA-Z0-9-])(--[a-z][a-z-]*[a-z])").expect("the pattern is valid")
    });
    OPTION.captures_iter(text).filter_map(|found| Some(found.get(1)?.as_str()))
}

/// The commands of the program that a text names: "ggufkit convert".
fn commands(text: &str) -> impl Iterator<Item = &str> {
    static COMMAND: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("ggufkit ([a-z]+)").expect("the pattern is valid"));
    COMMAND.captures_iter(text).filter_map(|found| Some(found.get(1)?.as_str()))
}

/// The ways out that a hint names, which are separated by semicolons, but for those within brackets or code.
fn ways(hint: &str) -> Vec<&str> {
    let (mut all, mut start, mut depth, mut code) = (Vec::new(), 0, 0i32, false);
    for (at, c) in hint.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            '`' => code = !code,
            ';' if depth <= 0 && !code && hint[at..].starts_with("; ") => {
                all.push(&hint[start..at]);
                start = at + 2;
            }
            _ => {}
        }
    }
    all.push(&hint[start..]);
    all
}

impl Running {
    fn hint(&self, text: &str) -> Option<String> {
        let kept: Vec<Cow<'_, str>> = ways(text)
            .into_iter()
            .filter(|way| !self.is_done(way))
            .map(|way| self.with_commands(way))
            .collect();
        let hint = kept.join("; ");
        let hint = hint.strip_prefix("or ").unwrap_or(&hint);
        (!hint.is_empty()).then(|| hint.to_string())
    }

    /// Whether a way out is to give a switch that was given.
    fn is_done(&self, way: &str) -> bool {
        let without = way.contains("leave out") || way.contains("without");
        !without && options(way).any(|option| self.given.iter().any(|given| given == option))
    }

    /// The text, with the command that has an option where the running one lacks it. Options of other programs stay.
    fn with_commands<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let has = |command: &str, option: &str| has(&self.program, command, option);
        let mut lacking: Vec<&str> = Vec::new();
        for option in options(text) {
            let named = || commands(text).any(|command| has(command, option));
            if !has(&self.name, option) && !named() && !lacking.contains(&option) {
                lacking.push(option);
            }
        }
        let mut all: Vec<(String, &str)> = Vec::new();
        for option in lacking {
            let names =
                self.program.get_subcommands().map(Command::get_name).filter(|name| has(name, option));
            let mut names: Vec<&str> = names.collect();
            if names.contains(&"convert") {
                names = vec!["convert"]; // what all commands that write models have in common, it has
            }
            if let Some(first) = names.first() {
                all.push((format!("`ggufkit {first}`"), option));
            }
        }
        let Some((first, _)) = all.first() else { return text.into() };
        let of_one = all.iter().all(|(command, _)| command == first);
        let said = if of_one {
            let named: Vec<&str> = all.iter().map(|(_, option)| *option).collect();
            format!("{first} has {}", ggufkit::text::listed(&named))
        } else {
            let named: Vec<String> =
                all.iter().map(|(command, option)| format!("{command} has {option}")).collect();
            named.join(", ")
        };
        format!("{text} ({said})").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::path::Path;

    fn running(name: &str, given: &[&str]) -> Running {
        let given = given.iter().map(|g| g.to_string()).collect();
        Running { program: super::super::Cli::command(), name: name.into(), given }
    }

    #[test]
    fn an_option_that_the_command_lacks_is_named_with_one_that_has_it() {
        for (command, hint, wanted) in [
            (
                "merge",
                "use an output name; or add --format FORMAT",
                "use an output name; or add --format FORMAT (`ggufkit convert` has --format)",
            ),
            (
                "convert",
                "use an output name; or add --format FORMAT",
                "use an output name; or add --format FORMAT",
            ),
            (
                "split",
                "use --type f16; or use --tensor a=b and --type f16",
                "use --type f16 (`ggufkit convert` has --type); or use --tensor a=b and --type f16 (`ggufkit convert` has --tensor and --type)",
            ),
            (
                "inspect",
                "give the file with --logits FILE of ggufkit eval",
                "give the file with --logits FILE of ggufkit eval",
            ),
            (
                "inspect",
                "give this file with --logits FILE",
                "give this file with --logits FILE (`ggufkit eval` has --logits)",
            ),
            (
                "bench",
                "llama-cli -m BASE.gguf --lora FILE (or --mmproj X)",
                "llama-cli -m BASE.gguf --lora FILE (or --mmproj X)",
            ),
            (
                "merge",
                "prose; with a semicolon (a; b) and `--x; --y`",
                "prose; with a semicolon (a; b) and `--x; --y`",
            ),
        ] {
            assert_eq!(running(command, &[]).hint(hint).as_deref(), Some(wanted), "{command}");
        }
    }

    #[test]
    fn what_was_given_is_not_advised() {
        let merge = running("merge", &["--overwrite"]);
        assert_eq!(
            merge.hint("name another folder; --overwrite replaces all").as_deref(),
            Some("name another folder")
        );
        assert_eq!(merge.hint("add --overwrite; or name another").as_deref(), Some("name another"));
        assert_eq!(merge.hint("add --overwrite"), None);
        assert_eq!(merge.hint("leave out --overwrite").as_deref(), Some("leave out --overwrite"));
        // An option with a value may have to get another one.
        let convert = running("convert", &[]);
        assert_eq!(convert.hint("use --type f16").as_deref(), Some("use --type f16"));
    }

    /// Every text of the program's source in which an option is named.
    fn texts() -> Vec<String> {
        fn walk(folder: &Path, text: &Regex, all: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, text, all);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let code = std::fs::read_to_string(&path).unwrap();
                    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap().replace("\\\n", "");
                    let found = text.captures_iter(&code).map(|found| found[1].to_string());
                    all.extend(found.filter(|text| options(text).next().is_some()));
                }
            }
        }
        let mut all = Vec::new();
        let text = Regex::new(r#""((?:[^"\\\n]|\\.)*)""#).unwrap();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &text, &mut all);
        all
    }

    /// Options of other programs, which hints name with these.
    const OTHERS: [&str; 7] = [
        "--lora",
        "--mmproj",
        "--control-vector",
        "--dequantize",
        "--de-quantize",
        "--model",
        "--adapter-path",
    ];

    #[test]
    fn every_option_that_is_named_anywhere_is_one() {
        let texts = texts();
        assert!(texts.len() > 100, "{}", texts.len());
        let program = super::super::Cli::command();
        let commands: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
        for text in &texts {
            for option in options(text).filter(|option| !OTHERS.contains(option)) {
                let known = commands.iter().any(|command| has(&program, command, option));
                assert!(known || super::super::usage::is_foreign(option), "{option} is no option: {text}");
            }
            // Whatever the command, its user is told where each option is.
            for command in &commands {
                let hint = running(command, &[]).hint(text).unwrap_or_default();
                for way in ways(&hint) {
                    for option in options(way).filter(|o| commands.iter().any(|c| has(&program, c, o))) {
                        let told = has(&program, command, option)
                            || super::commands(way).any(|c| has(&program, c, option));
                        assert!(told, "{command} {option}: {hint}");
                    }
                }
            }
        }
    }
}
