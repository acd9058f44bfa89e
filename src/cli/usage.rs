//! The command line as it was written: what is no argument is answered with the one that was meant, by llama.cpp's names too.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command};
use formats::container::parse_part_stem;
use ggufkit::text::{letters_apart, shell_word};
use ggufkit::{Error, scheme};

use super::{advice, fail, foreign};

/// What is said of an option that is written before the command.
const AFTER: &str = "options follow the name of the command";

/// What clap guesses by the likeness of words.
const GUESSES: [ContextKind; 4] = [
    ContextKind::SuggestedArg,
    ContextKind::SuggestedSubcommand,
    ContextKind::SuggestedValue,
    ContextKind::Suggested,
];

/// The arguments of the program.
///
/// # Errors
/// The code to exit with, if they are wrong (2) or ask for a text that is printed here, such as the help.
pub fn parse(mut program: Command) -> Result<ArgMatches, ExitCode> {
    let args = with_negative(std::env::args_os());
    program.try_get_matches_from_mut(&args).map_err(|error| printed(&explained(error, &program, &args)))
}

/// The arguments, with a negative number joined to the option before it: what takes the value then says what it must be. Alone,
/// `-5G` looks like an unknown option.
fn with_negative(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    let mut only_files = false;
    for word in args {
        only_files |= word == "--";
        let is_number = matches!(word.as_encoded_bytes(), [b'-', b'0'..=b'9', ..]);
        match all.last_mut() {
            Some(option)
                if is_number
                    && !only_files
                    && option.as_encoded_bytes().starts_with(b"--")
                    && !option.as_encoded_bytes().contains(&b'=') =>
            {
                option.push("=");
                option.push(word);
            }
            _ => all.push(word),
        }
    }
    all
}

/// Prints what clap says: a usage error, or the help. Gives the code to exit with.
pub fn printed(error: &clap::Error) -> ExitCode {
    match error.print().and_then(|()| std::io::stdout().flush()) {
        Err(e) if !error.use_stderr() && e.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(&Error::io("standard output".as_ref(), "write", e))
        }
        _ => ExitCode::from(error.exit_code() as u8),
    }
}

/// A usage error with what is meant in place of clap's guesses, which go by the likeness of words alone: `split` for
/// `perplexity`, q8_0 for q4_0, and `--output-type` for llama.cpp's `--outtype`.
fn explained(mut error: clap::Error, program: &Command, args: &[OsString]) -> clap::Error {
    let tip = match error.kind() {
        ErrorKind::UnknownArgument => return answered(error, program, args),
        // clap takes `-hf` for `-h`.
        ErrorKind::DisplayHelp => match words(args).find(|word| word.starts_with("-h") && *word != "-h") {
            Some(word) if foreign::option("", word).is_some() => {
                error = clap::Error::new(ErrorKind::UnknownArgument).with_cmd(program);
                error.insert(ContextKind::InvalidArg, ContextValue::String(word.into()));
                return answered(error, program, args);
            }
            _ => return error,
        },
        ErrorKind::InvalidSubcommand => match error.get(ContextKind::InvalidSubcommand) {
            Some(ContextValue::String(name)) => command_tip(program, name),
            _ => return error,
        },
        ErrorKind::MissingRequiredArgument => return with_ways(error, args),
        ErrorKind::InvalidValue => {
            match (error.get(ContextKind::InvalidValue), error.get(ContextKind::SuggestedValue)) {
                (Some(ContextValue::String(word)), Some(ContextValue::String(guess)))
                    if is_near(word, guess) =>
                {
                    return error;
                }
                _ => None,
            }
        }
        _ => return error,
    };
    GUESSES.iter().for_each(|kind| drop(error.remove(*kind)));
    with_tip(error, tip)
}

/// The words that may be options.
fn words(args: &[OsString]) -> impl Iterator<Item = &str> {
    args.iter().skip(1).take_while(|word| *word != "--").filter_map(|word| word.to_str())
}

fn with_tip(mut error: clap::Error, tip: Option<String>) -> clap::Error {
    if let Some(tip) = tip {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    }
    error
}

/// Whether a word is a name with a letter or two wrong. Another digit makes another name: q4_0 is no misspelt q8_0.
fn is_near(word: &str, name: &str) -> bool {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    letters_apart(word, name) <= 1 + usize::from(name.len() > 6) && digits(word) == digits(name)
}

/// What is meant by a word in the place of a command, if that is known.
fn command_tip(program: &Command, word: &str) -> Option<String> {
    let own: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
    if let Some(answer) = foreign::command(word, &own) {
        return Some(answer);
    }
    let near = own.iter().min_by_key(|name| letters_apart(word, name)).filter(|name| is_near(word, name));
    if let Some(name) =
        near.or_else(|| only(own.iter().filter(|name| word.len() > 2 && name.starts_with(word))))
    {
        return Some(format!("a similar command exists: {name}"));
    }
    if scheme::find(word).is_some() {
        return Some(format!("`ggufkit quantize IN OUT --type {word}` quantizes a model"));
    }
    let path = Path::new(word);
    (path.exists() || path.extension().is_some() || word.contains(['/', '\\'])).then(|| {
        let path = shell_word(path.as_os_str());
        format!(
            "a command comes first, for example `ggufkit inspect {path}`; `ggufkit --help` lists the commands"
        )
    })
}

/// The one item that there is, if there are not several.
fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    all.next().filter(|_| all.next().is_none())
}

/// Missing arguments, of which clap names one where others would do: the types of `quantize` can be chosen in several ways.
fn with_ways(error: clap::Error, args: &[OsString]) -> clap::Error {
    let missing = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(missing)) => missing,
        _ => return error,
    };
    if !missing.iter().any(|arg| arg == "--type <SCHEME>") {
        return error;
    }
    let words = args.iter().skip(2).filter_map(|word| word.to_str());
    let tip = match words.into_iter().find(|word| scheme::find(word).is_some()) {
        Some(word) => format!("the type is given with an option: --type {word}"),
        None => "the types of the weights are chosen with --type SCHEME (for example --type q4_k_m; the schemes are listed by \
                 `ggufkit quantize --help`), with --recipe FILE, or for a size: --fit RAM, --size BYTES or --bits-per-weight X; \
                 --for MACHINE takes what its program runs"
            .into(),
    };
    with_tip(error, Some(tip))
}

/// An unknown argument, answered with what is meant.
fn answered(mut error: clap::Error, program: &Command, args: &[OsString]) -> clap::Error {
    let reported = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.clone(),
        _ => return error,
    };
    let argument = written(args, &reported).unwrap_or(&reported);
    let words = args.iter().enumerate().skip(1);
    let command = words.clone().find_map(|(at, word)| Some((at, program.find_subcommand(word)?)));
    GUESSES.iter().for_each(|kind| drop(error.remove(*kind)));
    error.insert(ContextKind::InvalidArg, ContextValue::String(argument.into()));
    let Some((at, command)) = command else {
        let tip = option_tip(program, None, argument).map_or_else(String::new, |tip| format!("{tip}; "));
        return with_tip(error, Some(format!("{tip}{AFTER}, and `ggufkit --help` lists the commands")));
    };
    let mut command = command.clone().bin_name(format!("{} {}", program.get_name(), command.get_name()));
    error.insert(ContextKind::Usage, ContextValue::StyledStr(command.render_usage()));
    let mut tip = tip(program, &command, argument);
    if at > 1 {
        tip = Some(tip.map_or_else(|| AFTER.into(), |tip| format!("{tip}; {AFTER}")));
    }
    with_tip(error, tip)
}

/// The word of the command line that an unknown option with one dash is in: clap takes it apart into letters, and reports
/// `-n` for `-ngl`. `None` if it is the reported one, with or without a value.
fn written<'a>(args: &'a [OsString], reported: &str) -> Option<&'a str> {
    if reported.starts_with("--") {
        return None;
    }
    let word = words(args).find(|word| word.starts_with(reported))?;
    let name = word.split('=').next().unwrap_or(word);
    name[reported.len()..].starts_with(char::is_alphabetic).then_some(name)
}

/// What is meant by an argument that a command does not know, if that is known.
fn tip(program: &Command, command: &Command, argument: &str) -> Option<String> {
    let name = command.get_name();
    if argument.starts_with('-') {
        return option_tip(program, Some(command), argument);
    }
    if advice::has(program, name, "--type") && scheme::find(argument).is_some() {
        return Some(format!("the type is given with an option: --type {argument}"));
    }
    let part = Path::new(argument).file_stem().and_then(|stem| parse_part_stem(stem.to_str()?));
    if part.is_some() {
        return Some("one shard stands for all of a split model: name the first alone".into());
    }
    (name == "run").then(|| "the prompt is given with an option: --prompt TEXT".into())
}

/// What is meant by an option that a command does not have, or that is given without one.
fn option_tip(program: &Command, command: Option<&Command>, argument: &str) -> Option<String> {
    let name = command.map_or("", Command::get_name);
    let argument = argument.split('=').next().unwrap_or(argument);
    // What differs in a letter or two is a misspelt option of this command, and what begins a single one is that.
    let own: Vec<String> = command
        .into_iter()
        .flat_map(Command::get_arguments)
        .filter(|arg| !arg.is_hide_set())
        .filter_map(|arg: &Arg| Some(format!("--{}", arg.get_long()?)))
        .collect();
    let apart = |own: &&String| (letters_apart(argument, own), own.len());
    let near = own.iter().min_by_key(apart).filter(|own| is_near(argument, own));
    let begun = || only(own.iter().filter(|own| argument.len() > 3 && own.starts_with(argument)));
    if let Some(answer) = foreign::option(name, argument) {
        let has_out = command.is_none_or(|c| c.get_positionals().any(|arg| arg.get_id() == "out"));
        let answer = match answer {
            foreign::OUT if own.iter().any(|own| own == "--out") => {
                "the output is given with --out FILE, or -o FILE"
            }
            foreign::OUT if !has_out => return near.map(|near| similar(near)),
            answer => answer,
        };
        return Some(advice::for_command(program, name, answer));
    }
    if own.iter().any(|own| own == argument) {
        return Some(format!("`ggufkit {name}` has {argument}"));
    }
    let elsewhere = || {
        let other = advice::command_with(program, argument)?;
        Some(format!("`ggufkit {other}` has {argument}"))
    };
    near.or_else(begun).map(|near| similar(near)).or_else(elsewhere)
}

fn similar(option: &str) -> String {
    format!("a similar option exists: {option}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(args: &[&str]) -> String {
        let mut program = super::super::program();
        let args: Vec<OsString> = std::iter::once(&"ggufkit").chain(args).map(OsString::from).collect();
        let error = program.try_get_matches_from_mut(&args).unwrap_err();
        explained(error, &program, &args).to_string()
    }

    #[test]
    fn negative_numbers_are_values() {
        for (words, wanted) in [
            ("a --fit -5G b", "a --fit=-5G b"),
            ("a --fit=-5 --size -.5", "a --fit=-5 --size -.5"),
            ("a --fit x -5", "a --fit x -5"),
            ("a -5", "a -5"),
            ("a -- --fit -5", "a -- --fit -5"),
            ("a --json -o b", "a --json -o b"),
        ] {
            let all = with_negative(words.split(' ').map(OsString::from));
            assert_eq!(all.join(std::ffi::OsStr::new(" ")), wanted);
        }
    }

    #[test]
    fn options_of_llama_cpp_are_answered_with_what_they_are_here() {
        for (args, wanted) in [
            (&["convert", "a", "b", "--outtype", "f16"][..], "--type f16"),
            (&["convert", "--outfile", "b", "a"], "the second argument"),
            (&["quantize", "a", "b", "-o", "b"], "the second argument"),
            (&["convert", "a", "b", "--outtype=f16"], "--type f16"),
            (&["quantize", "a", "b", "Q4_K_M"], "--type Q4_K_M"),
            (&["quantize", "a", "b", "--leave-output-tensor"], "--output-type keep"),
            (&["quantize", "a", "b", "--token-embedding-type", "q8_0"], "--embedding-type"),
            (&["quantize", "a", "b", "--override-kv", "a=str:b"], "--set KEY=VALUE"),
            (&["convert", "a", "b", "--bigendian"], "--endian big"),
            (&["merge", "a", "b", "--outtype", "f16"], "(`ggufkit convert` has --type)"),
            (&["calibrate", "a", "b", "--output", "c"], "--out FILE"),
            (&["eval", "-m", "a", "-f", "b"], "the model is the first argument"),
            (&["eval", "a", "b", "-c", "512"], "--context N"),
            (&["run", "a", "-n", "5"], "--tokens N"),
            (&["split", "a", "b", "--split-max-tensors", "5"], "--max-tensors N"),
            (&["merge", "a", "b", "--split-max-size", "1G"], "`ggufkit convert` has --split-max-size"),
            // By the command.
            (&["bench", "a", "-p", "512"], "the length of the prompt is given with --prompt N\n"),
            (&["run", "a", "-p", "x"], "the prompt is given with --prompt TEXT\n"),
            (&["eval", "a", "b", "-p", "x"], "(`ggufkit run` has --prompt)"),
            (&["bench", "a", "-n", "128"], "--generate N\n"),
            (&["bench", "a", "-r", "3"], "--repeats N\n"),
            (&["run", "a", "-f", "x.txt"], "--prompt-file FILE\n"),
            (&["compare", "a", "b", "--file", "x.txt"], "--text FILE\n"),
            (&["eval", "a", "-f", "x.txt"], "the text file is an argument"),
            (&["split", "a", "b", "--split-max-size", "1M"], "is given with --max-size SIZE\n"),
            (&["quantize", "a", "b", "--max-size", "1M"], "--split-max-size SIZE\n"),
            (&["demo", "-m", "x"], "the bundled model is taken\n"),
            // Before the command.
            (
                &["--outtype", "f16", "convert", "a", "b"],
                "--type f16; options follow the name of the command\n",
            ),
            (
                &["--type", "f16", "convert", "a", "b"],
                "`ggufkit convert` has --type; options follow the name of the command\n",
            ),
            (&["--nothing", "edit", "a", "b"], "tip: options follow the name of the command\n"),
            // Without a command.
            (
                &["--type", "f16"],
                "`ggufkit convert` has --type; options follow the name of the command, and `ggufkit --help`",
            ),
            (
                &["-m", "x.gguf", "-p", "x"],
                "the model is the first argument, without an option; options follow the name",
            ),
            (
                &["--nothing"],
                "tip: options follow the name of the command, and `ggufkit --help` lists the commands\n",
            ),
            // What is no option.
            (&["run", "x.gguf", "Once upon a time"], "--prompt TEXT\n"),
            (&["inspect", "x-00001-of-00003.gguf", "x-00002-of-00003.gguf"], "one shard stands for all"),
            // Options of other commands.
            (&["convert", "a", "b", "--remove", "x"], "`ggufkit edit` has --remove"),
            (&["inspect", "a", "--against", "x"], "`ggufkit verify` has --against"),
            // The beginning of one.
            (&["convert", "a", "b", "--dry"], "a similar option exists: --dry-run"),
            (&["convert", "a", "b", "--embed=f16"], "a similar option exists: --embedding-type"),
            // Misspelt ones.
            (&["convert", "a", "b", "--tesnor", "x"], "a similar option exists: --tensor"),
            (&["merge", "a", "b", "--overwirte"], "a similar option exists: --overwrite"),
        ] {
            let text = said(args);
            assert!(text.contains(wanted) && text.contains("Usage: ggufkit"), "{args:?}: {text}");
            assert!(!text.contains("similar argument") && !text.contains("as a value"), "{args:?}: {text}");
        }
        for args in [
            &["convert", "a", "b", "--quite-another"][..],
            &["inspect", "a", "--quite-another"],
            &["convert", "a", "b", "c"],
            &["convert", "a", "b", "--cal"],
        ] {
            assert!(!said(args).contains("tip:"), "{args:?}: {}", said(args));
        }
    }

    #[test]
    fn options_with_one_dash_are_read_as_a_whole() {
        let short = |row: &foreign::Foreign| {
            row.0.iter().filter(|n| !n.starts_with("--")).copied().collect::<Vec<_>>()
        };
        for (row, command) in foreign::rows() {
            for option in short(row) {
                let text = said(&[command, "a", option, "1"]);
                assert!(text.contains(&format!("unexpected argument '{option}' found")), "{text}");
                let own = foreign::option(command, option);
                // A command without an output has no answer for it.
                let answer = if row.1 == foreign::OUT { "" } else { own.unwrap() };
                assert!(text.contains(answer), "{command} {option}: {text}");
                assert_eq!(text.contains("tip:"), !answer.is_empty(), "{command} {option}: {text}");
            }
        }
        for (args, wanted) in [
            (&["run", "a", "-ngl", "99"][..], "there is no such choice"),
            (&["run", "a", "-fa"], "there is no such choice"),
            (&["run", "-hf", "ggml-org/tiny"], "download it first"),
            (&["eval", "a", "b", "-ctk", "q8_0"], "--kv TYPE\n"),
            (&["eval", "a", "b", "-ctv=q8_0"], "--kv TYPE\n"),
            (&["eval", "a", "b", "-ub", "512"], "--batch N\n"),
            (&["run", "a", "-n5"], "--tokens N\n"),
            (&["run", "a", "-n=5"], "--tokens N\n"),
            (&["-ngl", "99", "run", "a"], "there is no such choice here; options follow"),
        ] {
            assert!(said(args).contains(wanted), "{args:?}: {}", said(args));
        }
        // What is in no list is not taken for its first letter.
        assert!(!said(&["run", "a", "-nothing"]).contains("tip:"));
    }

    #[test]
    fn commands_that_other_programs_have_are_answered_with_ours() {
        for (word, wanted) in [
            ("perplexity", "`ggufkit eval MODEL TEXT`"),
            ("llama-perplexity", "`ggufkit eval MODEL TEXT`"),
            ("info", "`ggufkit inspect MODEL`"),
            ("gguf_dump.py", "`ggufkit inspect MODEL`"),
            ("imatrix", "`ggufkit calibrate MODEL TEXT -o FILE`"),
            ("./convert_hf_to_gguf.py", "`ggufkit convert IN OUT`"),
            ("gguf-split", "`ggufkit merge IN OUT`"),
            ("llama-server", "there is no server"),
            ("CLI", "`ggufkit run MODEL --prompt TEXT`"),
            ("pull", "which other programs download"),
            ("llama-bench", "the command is `ggufkit bench`"),
            ("/usr/bin/llama-quantize.exe", "the command is `ggufkit quantize`"),
            ("Convert", "the command is `ggufkit convert`"),
            // Misspelt, or the beginning of one.
            ("quantise", "a similar command exists: quantize\n"),
            ("inpsect", "a similar command exists: inspect\n"),
            ("quant", "a similar command exists: quantize\n"),
            // No command, but what one is about.
            ("q4_k_m", "`ggufkit quantize IN OUT --type q4_k_m`"),
            ("my model.gguf", "`ggufkit inspect 'my model.gguf'`"),
            ("models/tiny", "`ggufkit inspect models/tiny`"),
        ] {
            for args in [&[word, "a", "b"][..], &[word], &[word, "--model", "x"], &["help", word]] {
                let text = said(args);
                assert!(text.contains(wanted) && !text.contains("subcommand exists"), "{args:?}: {text}");
            }
        }
        for word in ["nothing", "tokenize", "s", "co"] {
            assert!(!said(&[word, "a"]).contains("tip:"), "{word}: {}", said(&[word, "a"]));
        }
    }

    #[test]
    fn a_value_is_suggested_only_for_a_misspelt_one() {
        for (value, suggested) in [("q8-0", true), ("q4_0", false), ("f61", false), ("f8", false)] {
            let text = said(&["run", "a", "--kv", value]);
            assert_eq!(text.contains("tip:"), suggested, "{text}");
            assert!(text.contains("possible values: f32, f16, q8_0"), "{text}");
        }
        for (value, suggested) in [("ggu", true), ("ggml", false), ("safetensor", true)] {
            let text = said(&["convert", "a", "b", "--format", value]);
            assert_eq!(text.contains("tip:"), suggested, "{text}");
        }
    }

    #[test]
    fn every_way_to_choose_types_is_named() {
        for args in [
            &["quantize"][..],
            &["quantize", "a"],
            &["quantize", "a", "b"],
            &["quantize", "a", "b", "--pure"],
        ] {
            let text = said(args);
            for way in [
                "--type SCHEME",
                "--recipe FILE",
                "--fit RAM",
                "--size BYTES",
                "--bits-per-weight X",
                "--for MACHINE",
            ] {
                assert!(text.contains(way), "{args:?}: {text}");
            }
        }
        let text = said(&["quantize", "a.gguf", "Q4_K_M"]);
        assert!(text.contains("the type is given with an option: --type Q4_K_M\n"), "{text}");
        assert!(!said(&["eval", "a"]).contains("tip:"));
    }
}
