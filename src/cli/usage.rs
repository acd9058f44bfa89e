//! The command line as it was written: what is no argument is answered with the one that was meant, by llama.cpp's names too.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command};
use ggufkit::scheme;
use ggufkit::text::letters_apart;

use super::advice;

/// Names of an option in llama.cpp's programs and scripts, and what takes its place here.
type Foreign = (&'static [&'static str], &'static str);

/// The answers, by what the options are called there: `convert_hf_to_gguf.py`, `llama-quantize`, `llama-gguf-split`,
/// `llama-imatrix`, `llama-perplexity`, `llama-cli`, `llama-bench`.
const FOREIGN: &[Foreign] = &[
    (
        &["--outtype", "--ftype", "--quant", "--qtype"],
        "the type is given with --type, for example --type f16",
    ),
    (&["--outfile", "--output", "--out", "--outdir", "--output-file", "-o"], OUT),
    (&["--model", "--model-path", "-m"], "the model is the first argument, without an option"),
    (&["--leave-output-tensor"], "the output matrix keeps its type with --output-type keep"),
    (&["--output-tensor-type"], "the type of the output matrix is given with --output-type"),
    (&["--token-embedding-type"], "the type of the token embedding is given with --embedding-type"),
    (
        &["--tensor-type", "--tensor-type-file"],
        "the types of single tensors are given with --tensor REGEX=TYPE, or in a --recipe",
    ),
    (
        &["--override-kv", "--model-name", "--metadata"],
        "metadata is set with --set KEY=VALUE (the name is general.name)",
    ),
    (&["--bigendian", "--big-endian"], "the byte order is given with --endian big"),
    (&["--keep-split"], "the result is split with --split-max-size SIZE"),
    (
        &["--split-max-tensors"],
        "`ggufkit split IN OUT --max-tensors N` splits a file by the number of tensors",
    ),
    (&["--split"], "`ggufkit split IN OUT --max-size SIZE` splits a file"),
    (&["--merge"], "`ggufkit merge IN OUT` merges the shards of a split model"),
    (&["--kl-divergence-base"], "logits are saved with --save-logits FILE, and read with --logits FILE"),
    (&["--kl-divergence"], "the KL divergence is measured with --logits FILE, or with --reference MODEL"),
    (&["--ppl-stride"], "overlapping chunks are asked for with --stride N"),
    (&["--ctx-size", "-c"], "the context length is given with --context N"),
    (
        &["--cache-type-k", "--cache-type-v", "-ctk", "-ctv"],
        "the type of the KV cache is given with --kv TYPE",
    ),
    (&["--batch-size", "-b", "--ubatch-size", "-ub"], "the batch size is given with --batch N"),
    (&["--n-predict", "--predict", "-n"], "the number of tokens to generate is given with --tokens N"),
    (&["--prompt", "-p"], "the prompt is given with --prompt TEXT"),
    (&["--temp"], "the temperature is given with --temperature T"),
    (&["-s"], "the seed is given with --seed N"),
    (&["--conversation", "-cnv"], "a chat is asked for with --chat"),
    (&["--system-prompt", "-sys"], "the system message of a chat is given with --system TEXT"),
    (&["--nthreads", "-t", "--threads-batch", "-tb"], "the number of threads is given with --threads N"),
    (&["--process-output"], "the output matrix is measured with --output-matrix"),
    (&["--in-file"], "an importance matrix is added with --merge FILE"),
    (&["--output-format"], "the format of the importance matrix is given with --format"),
    (&["--show-statistics"], "an importance matrix is shown with `ggufkit calibrate --show FILE`"),
    (&["--chunk"], "the first chunks are skipped with --from-chunk N"),
    (
        &[
            "--use-temp-file",
            "--no-lazy",
            "--no-mmap-output",
            "--n-gpu-layers",
            "--gpu-layers",
            "-ngl",
            "--flash-attn",
            "-fa",
            "--split-mode",
            "-sm",
            "--main-gpu",
            "-mg",
            "--tensor-split",
            "-ts",
            "--no-kv-offload",
            "-nkvo",
            "--device",
            "-dev",
            "--override-tensor",
            "-ot",
            "--mlock",
            "--numa",
        ],
        "leave it out: there is no such choice here",
    ),
];

/// The answers that only hold for some commands, which come before the others.
const OF_COMMANDS: &[(&[&str], Foreign)] = &[
    (
        &["eval", "calibrate", "sensitivity"],
        (&["--file", "-f"], "the text file is an argument without an option, after the model"),
    ),
    (&["compare"], (&["--file", "-f"], "the text file is given with --text FILE")),
    (&["run"], (&["--file", "-f"], "the prompt is read from a file with --prompt-file FILE")),
    (&["bench"], (&["--n-prompt", "-p"], "the length of the prompt is given with --prompt N")),
    (
        &["bench"],
        (
            &["--n-gen", "--n-predict", "--predict", "-n"],
            "the number of tokens to generate is given with --generate N",
        ),
    ),
    (&["bench"], (&["--repetitions", "-r"], "the number of measurements is given with --repeats N")),
    (&["split"], (&["--split-max-size"], "the size of a shard is given with --max-size SIZE")),
    (
        &["convert", "quantize"],
        (&["--max-size", "--max-shard-size"], "the size of a shard is given with --split-max-size SIZE"),
    ),
    (&["demo"], (&["--model", "--model-path", "-m"], "leave it out: the bundled model is taken")),
];

/// The answer for an output file, which depends on the command.
const OUT: &str = "the output is the second argument, without an option: IN OUT";

/// Whether an option is one of llama.cpp's that are answered here.
#[cfg(test)]
pub fn is_foreign(option: &str) -> bool {
    let of_commands = OF_COMMANDS.iter().map(|(_, foreign)| foreign);
    FOREIGN.iter().chain(of_commands).any(|(names, _)| names.contains(&option))
}

/// What takes the place of one of llama.cpp's options in a command.
fn foreign(command: &str, option: &str) -> Option<&'static str> {
    let of_command =
        OF_COMMANDS.iter().filter(|(commands, _)| commands.contains(&command)).map(|(_, foreign)| foreign);
    of_command.chain(FOREIGN).find(|(names, _)| names.contains(&option)).map(|(_, answer)| *answer)
}

/// The arguments of the program. Ends it, with 2, if they are wrong.
pub fn parse(mut program: Command) -> ArgMatches {
    let args = with_negative(std::env::args_os());
    match program.try_get_matches_from_mut(&args) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::UnknownArgument => answered(error, &program, &args).exit(),
        Err(error) => error.exit(),
    }
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

/// An unknown argument, answered with what is meant. clap's own guesses go by the likeness of words alone, and suggest
/// `--output-type` for llama.cpp's `--outtype`.
fn answered(mut error: clap::Error, program: &Command, args: &[OsString]) -> clap::Error {
    let reported = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.clone(),
        _ => return error,
    };
    let argument = written(args, &reported).unwrap_or(&reported);
    let words = args.iter().enumerate().skip(1);
    let command = words.clone().find_map(|(at, word)| Some((at, program.find_subcommand(word)?)));
    if command.is_none() && advice::command_with(program, argument).is_some() {
        return error;
    }
    for kind in [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::Suggested] {
        error.remove(kind);
    }
    error.insert(ContextKind::InvalidArg, ContextValue::String(argument.into()));
    let Some((at, command)) = command else { return error };
    let mut command = command.clone().bin_name(format!("{} {}", program.get_name(), command.get_name()));
    error.insert(ContextKind::Usage, ContextValue::StyledStr(command.render_usage()));
    let mut tip = tip(program, &command, argument);
    if at > 1 {
        const AFTER: &str = "options follow the name of the command";
        tip = Some(tip.map_or_else(|| AFTER.into(), |tip| format!("{tip}; {AFTER}")));
    }
    if let Some(tip) = tip {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    }
    error
}

/// The word of the command line that an unknown option with one dash is in: clap takes it apart into letters, and reports
/// `-n` for `-ngl`. `None` if it is the reported one, with or without a value.
fn written<'a>(args: &'a [OsString], reported: &str) -> Option<&'a str> {
    if reported.starts_with("--") {
        return None;
    }
    let options = args.iter().skip(1).take_while(|word| *word != "--");
    let mut words = options.filter_map(|word| word.to_str());
    let word = words.find(|word| word.starts_with(reported))?;
    let name = word.split('=').next().unwrap_or(word);
    name[reported.len()..].starts_with(char::is_alphabetic).then_some(name)
}

/// What is meant by an argument that a command does not know, if that is known.
fn tip(program: &Command, command: &Command, argument: &str) -> Option<String> {
    let (name, argument) = (command.get_name(), argument.split('=').next().unwrap_or(argument));
    if !argument.starts_with('-') {
        let typed = advice::has(program, name, "--type") && scheme::find(argument).is_some();
        return typed.then(|| format!("the type is given with an option: --type {argument}"));
    }
    // What differs in a letter or two is a misspelt option of this command, and what begins a single one is that.
    let own: Vec<String> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .filter_map(|arg: &Arg| Some(format!("--{}", arg.get_long()?)))
        .collect();
    let apart = |own: &&String| (letters_apart(argument, own), own.len());
    let near = own
        .iter()
        .min_by_key(apart)
        .filter(|own| letters_apart(argument, own) <= 1 + usize::from(own.len() > 6));
    let begun = || {
        let mut all = own.iter().filter(|own| argument.len() > 3 && own.starts_with(argument));
        all.next().filter(|_| all.next().is_none())
    };
    if let Some(answer) = foreign(name, argument) {
        let has_out = command.get_positionals().any(|arg| arg.get_id() == "out");
        let answer = match answer {
            OUT if own.iter().any(|own| own == "--out") => "the output is given with --out FILE, or -o FILE",
            OUT if !has_out => return near.map(|near| similar(near)),
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
    use clap::CommandFactory;

    fn said(args: &[&str]) -> String {
        let mut program = super::super::Cli::command();
        let args: Vec<OsString> = std::iter::once(&"ggufkit").chain(args).map(OsString::from).collect();
        let error = program.try_get_matches_from_mut(&args).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownArgument, "{args:?}");
        answered(error, &program, &args).to_string()
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
            &["merge", "a", "b", "c"],
            &["convert", "a", "b", "--cal"],
            &["--outtype", "f16"],
        ] {
            assert!(!said(args).contains("tip:"), "{args:?}: {}", said(args));
        }
    }

    #[test]
    fn options_with_one_dash_are_read_as_a_whole() {
        let short =
            |row: &Foreign| row.0.iter().filter(|n| !n.starts_with("--")).copied().collect::<Vec<_>>();
        for (row, command) in FOREIGN
            .iter()
            .map(|row| (row, "run"))
            .chain(OF_COMMANDS.iter().map(|(commands, row)| (row, commands[0])))
        {
            for option in short(row) {
                let text = said(&[command, "a", option, "1"]);
                assert!(text.contains(&format!("unexpected argument '{option}' found")), "{text}");
                let own = foreign(command, option);
                // A command without an output has no answer for it.
                let answer = if row.1 == OUT { "" } else { own.unwrap() };
                assert!(text.contains(answer), "{command} {option}: {text}");
                assert_eq!(text.contains("tip:"), !answer.is_empty(), "{command} {option}: {text}");
            }
        }
        for (args, wanted) in [
            (&["run", "a", "-ngl", "99"][..], "there is no such choice"),
            (&["run", "a", "-fa"], "there is no such choice"),
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
}
