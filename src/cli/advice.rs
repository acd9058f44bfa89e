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

/// The program and the name of the command that runs.
#[cfg_attr(not(unix), allow(dead_code))]
pub fn command() -> Option<(&'static Command, &'static str)> {
    RUNNING.get().map(|running| (&running.program, &*running.name))
}

/// Whether a command has an option, which is given with its dashes.
pub(super) fn has(program: &Command, command: &str, option: &str) -> bool {
    ["--help", "--version"].contains(&option) || find(program, command, option).is_some()
}

/// Whether a command has an option that takes no value.
#[cfg_attr(not(unix), allow(dead_code))]
pub(super) fn has_switch(program: &Command, command: &str, option: &str) -> bool {
    find(program, command, option).is_some_and(|arg| !arg.get_action().takes_values())
}

fn find<'a>(program: &'a Command, command: &str, option: &str) -> Option<&'a Arg> {
    let named = |arg: &&Arg| {
        let mut all = arg.get_all_aliases().unwrap_or_default();
        all.extend(arg.get_long());
        all.iter().any(|name| option.strip_prefix("--") == Some(*name))
    };
    program.find_subcommand(command)?.get_arguments().find(named)
}

/// The command that is named as one that has an option: `convert`, which has what all commands that write models have in
/// common, or the first one.
pub(super) fn command_with<'a>(program: &'a Command, option: &str) -> Option<&'a str> {
    let names: Vec<&str> =
        program.get_subcommands().map(Command::get_name).filter(|name| has(program, name, option)).collect();
    names.iter().find(|name| **name == "convert").or(names.first()).copied()
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
            .map(|way| match self.with_commands(way) {
                Cow::Borrowed(way) => self.without_given(way),
                named => named,
            })
            .collect();
        let hint = kept.join("; ");
        let hint = hint.strip_prefix("or ").unwrap_or(&hint);
        (!hint.is_empty()).then(|| hint.to_string())
    }

    /// Whether a way out is nothing but to add switches that were given. A way that only mentions them is another: to run the
    /// command again with them, or to add one to an option with a value.
    fn is_done(&self, way: &str) -> bool {
        let way = way.strip_prefix("or ").unwrap_or(way);
        let adds = way.starts_with("add --") || way.starts_with("--");
        adds && options(way).all(|option| self.given.iter().any(|given| given == option))
    }

    /// A way to name another file or folder, without the switches that were given: "name the folder itself with --overwrite".
    fn without_given<'a>(&self, way: &'a str) -> Cow<'a, str> {
        if !way.strip_prefix("or ").unwrap_or(way).starts_with("name ") {
            return way.into();
        }
        let given = self.given.iter().map(|option| format!(" with {option},"));
        given.fold(Cow::from(way), |way, given| match way.contains(&given) {
            true => way.replace(&given, ",").into(),
            false => way,
        })
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
            if let Some(other) = command_with(&self.program, option) {
                all.push((format!("`ggufkit {other}`"), option));
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

    fn running(name: &str, given: &[&str]) -> Running {
        let given = given.iter().map(|g| g.to_string()).collect();
        Running { program: super::super::program(), name: name.into(), given }
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
        // What has more to it than the switch, or is to be done another time.
        for hint in [
            "run again with --overwrite, which writes all files of the new one",
            "leave out --group-size; or add --type q8_0 --overwrite",
            "use --type q8_0 --overwrite; or use --type f16 --overwrite",
            "write to another folder, without --overwrite",
        ] {
            assert_eq!(running("convert", &["--overwrite"]).hint(hint).as_deref(), Some(hint));
        }
        assert_eq!(
            merge
                .hint(
                    "name the folder itself with --overwrite, which replaces the whole checkpoint; or another"
                )
                .as_deref(),
            Some("name the folder itself, which replaces the whole checkpoint; or another")
        );
        // An option with a value may have to get another one.
        let convert = running("convert", &[]);
        assert_eq!(convert.hint("use --type f16").as_deref(), Some("use --type f16"));
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
        let texts: Vec<String> =
            super::super::tests::texts().into_iter().filter(|text| options(text).next().is_some()).collect();
        assert!(texts.len() > 100, "{}", texts.len());
        let program = super::super::program();
        let commands: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
        for text in &texts {
            for option in options(text).filter(|option| !OTHERS.contains(option)) {
                let known = commands.iter().any(|command| has(&program, command, option));
                assert!(known || super::super::foreign::is_foreign(option), "{option} is no option: {text}");
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
