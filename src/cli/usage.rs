//! The command line as it was written: what is no argument is answered with the one that was meant, by llama.cpp's names too.

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
    (&["--file", "-f"], "the text file is an argument without an option, after the model"),
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
    (&["--nthreads", "-t"], "the number of threads is given with --threads N"),
    (&["--process-output"], "the output matrix is measured with --output-matrix"),
    (&["--in-file"], "an importance matrix is added with --merge FILE"),
    (&["--output-format"], "the format of the importance matrix is given with --format"),
    (&["--show-statistics"], "an importance matrix is shown with `ggufkit calibrate --show FILE`"),
    (&["--chunk"], "the first chunks are skipped with --from-chunk N"),
    (
        &["--use-temp-file", "--no-lazy", "--no-mmap-output", "-ngl", "--n-gpu-layers"],
        "leave it out: there is no such choice here",
    ),
];

/// The answer for an output file, which depends on the command.
const OUT: &str = "the output is the second argument, without an option: IN OUT";

/// Whether an option is one of llama.cpp's that are answered here.
#[cfg(test)]
pub fn is_foreign(option: &str) -> bool {
    FOREIGN.iter().any(|(names, _)| names.contains(&option))
}

/// The arguments of the program. Ends it, with 2, if they are wrong.
pub fn parse(mut program: Command) -> ArgMatches {
    let error = match program.try_get_matches_from_mut(std::env::args_os()) {
        Ok(matches) => return matches,
        Err(error) => error,
    };
    let name = std::env::args().nth(1).unwrap_or_default();
    match program.find_subcommand(&name).cloned() {
        Some(command) if error.kind() == ErrorKind::UnknownArgument => {
            answered(error, &program, &command).exit()
        }
        _ => error.exit(),
    }
}

/// An unknown argument, answered with what is meant. clap's own guesses go by the likeness of words alone, and suggest
/// `--output-type` for llama.cpp's `--outtype`.
fn answered(mut error: clap::Error, program: &Command, command: &Command) -> clap::Error {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.clone(),
        _ => return error,
    };
    for kind in [ContextKind::SuggestedArg, ContextKind::SuggestedValue, ContextKind::Suggested] {
        error.remove(kind);
    }
    let mut command = command.clone().bin_name(format!("{} {}", program.get_name(), command.get_name()));
    error.insert(ContextKind::Usage, ContextValue::StyledStr(command.render_usage()));
    if let Some(tip) = tip(program, &command, &argument) {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    }
    error
}

/// What is meant by an argument that a command does not know, if that is known.
fn tip(program: &Command, command: &Command, argument: &str) -> Option<String> {
    let (name, argument) = (command.get_name(), argument.split('=').next().unwrap_or(argument));
    if !argument.starts_with('-') {
        let typed = advice::has(program, name, "--type") && scheme::find(argument).is_some();
        return typed.then(|| format!("the type is given with an option: --type {argument}"));
    }
    // What differs in a letter or two is a misspelt option of this command.
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
    if let Some((_, answer)) = FOREIGN.iter().find(|(names, _)| names.contains(&argument)) {
        let has_out = command.get_positionals().any(|arg| arg.get_id() == "out");
        let answer = match *answer {
            OUT if own.iter().any(|own| own == "--out") => "the output is given with --out FILE, or -o FILE",
            OUT if !has_out => return near.map(|near| similar(near)),
            answer => answer,
        };
        return Some(advice::for_command(program, name, answer));
    }
    // What other commands that write models have, this one has.
    let elsewhere =
        || advice::has(program, "convert", argument).then(|| format!("`ggufkit convert` has {argument}"));
    near.map(|near| similar(near)).or_else(elsewhere)
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
        let error = program.try_get_matches_from_mut([&["ggufkit"], args].concat()).unwrap_err();
        let command = program.find_subcommand(args[0]).unwrap().clone();
        assert_eq!(error.kind(), ErrorKind::UnknownArgument, "{args:?}");
        answered(error, &program, &command).to_string()
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
            // Misspelt ones.
            (&["convert", "a", "b", "--tesnor", "x"], "a similar option exists: --tensor"),
            (&["merge", "a", "b", "--overwirte"], "a similar option exists: --overwrite"),
        ] {
            let text = said(args);
            assert!(text.contains(wanted) && text.contains("Usage: ggufkit"), "{args:?}: {text}");
            assert!(!text.contains("similar argument") && !text.contains("as a value"), "{args:?}: {text}");
        }
        for args in [
            &["convert", "a", "b", "--verbose"][..],
            &["inspect", "a", "--quite-another"],
            &["merge", "a", "b", "c"],
        ] {
            assert!(!said(args).contains("tip:"), "{args:?}: {}", said(args));
        }
    }
}
