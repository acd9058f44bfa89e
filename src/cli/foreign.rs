//! What other programs call options and commands, and what does the same here.

use std::path::Path;

/// Names of an option in llama.cpp's programs and scripts, and what takes its place here.
pub type Foreign = (&'static [&'static str], &'static str);

/// The answers, by what the options are called there: `convert_hf_to_gguf.py`, `llama-quantize`, `llama-gguf-split`,
/// `llama-imatrix`, `llama-perplexity`, `llama-cli`, `llama-bench`.
const OPTIONS: &[Foreign] = &[
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
    (&["--no-display-prompt"], "the prompt is left out of the output with --no-echo"),
    (&["-v", "--log-verbose"], "figures are printed with --verbose"),
    (
        &["-hf", "--hf-repo", "-hff", "--hf-file", "--repo-id", "--remote", "--model-url", "-mu"],
        "the model is a file or a folder on this machine: download it first, and name its path",
    ),
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
            "--threads-http",
            "--no-warmup",
            "--warmup",
            "--color",
            "-co",
            "--simple-io",
            "--log-disable",
            "--poll",
            "--prio",
            "--keep",
            "--jinja",
            "--no-context-shift",
            "--no-tensor-first-split",
            "--no-ppl",
            "--parse-special",
            "--save-frequency",
            "-ofreq",
            "--output-frequency",
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
pub const OUT: &str = "the output is the second argument, without an option: IN OUT";

/// Whether an option is one of llama.cpp's that are answered here.
#[cfg(test)]
pub fn is_foreign(option: &str) -> bool {
    let of_commands = OF_COMMANDS.iter().map(|(_, foreign)| foreign);
    OPTIONS.iter().chain(of_commands).any(|(names, _)| names.contains(&option))
}

/// Every row of options, with a command that it holds for.
#[cfg(test)]
pub fn rows() -> impl Iterator<Item = (&'static Foreign, &'static str)> {
    let of_commands = OF_COMMANDS.iter().map(|(commands, row)| (row, commands[0]));
    OPTIONS.iter().map(|row| (row, "run")).chain(of_commands)
}

/// What takes the place of one of llama.cpp's options in a command.
pub fn option(command: &str, option: &str) -> Option<&'static str> {
    let of_command =
        OF_COMMANDS.iter().filter(|(commands, _)| commands.contains(&command)).map(|(_, foreign)| foreign);
    of_command.chain(OPTIONS).find(|(names, _)| names.contains(&option)).map(|(_, answer)| *answer)
}

/// Names of a command elsewhere, and what does the same here.
const COMMANDS: &[Foreign] = &[
    (
        &["perplexity", "ppl", "kld", "kl", "kl-divergence", "evaluate", "evaluation", "score"],
        "`ggufkit eval MODEL TEXT` measures the perplexity, and with --reference OTHER the KL divergence too",
    ),
    (
        &[
            "info",
            "show",
            "dump",
            "metadata",
            "tensors",
            "ls",
            "stat",
            "describe",
            "view",
            "print",
            "cat",
            "read",
            "list-tensors",
            "summary",
        ],
        "`ggufkit inspect MODEL` shows a model's format, metadata and tensors",
    ),
    (
        &["memory", "mem", "ram", "vram", "estimate", "size", "parser"],
        "`ggufkit inspect MODEL --memory` shows how much memory it takes to run a model",
    ),
    (
        &["imatrix", "importance", "importance-matrix", "compute-imatrix", "calibration", "calib"],
        "`ggufkit calibrate MODEL TEXT -o FILE` measures an importance matrix",
    ),
    (
        &[
            "convert-hf-to-gguf",
            "convert-hf",
            "hf-to-gguf",
            "hf2gguf",
            "to-gguf",
            "convert-to-gguf",
            "gguf",
            "convert-llama-ggml-to-gguf",
            "convert-legacy-llama",
            "export",
            "export-gguf",
            "import",
            "create",
            "cast",
            "dequantize",
            "save",
        ],
        "`ggufkit convert IN OUT` converts a model; the format follows from the name of OUT (NAME.gguf, or FOLDER/ for a checkpoint)",
    ),
    (
        &["gguf-split", "llama-gguf-split", "shard"],
        "`ggufkit split IN OUT --max-size SIZE` splits a model into shards, and `ggufkit merge IN OUT` merges them",
    ),
    (
        &["join", "concat", "combine", "unsplit", "unshard", "gguf-merge"],
        "`ggufkit merge IN OUT` merges the shards of a split model, of which IN is one",
    ),
    (
        &[
            "cli",
            "main",
            "simple",
            "infer",
            "inference",
            "generate",
            "gen",
            "complete",
            "completion",
            "prompt",
            "sample",
        ],
        "`ggufkit run MODEL --prompt TEXT` generates text",
    ),
    (
        &["chat", "repl", "talk", "conversation"],
        "`ggufkit run MODEL --chat` chats with a model in the terminal",
    ),
    (
        &["server", "serve", "api"],
        "there is no server; `ggufkit run MODEL --chat` chats with a model in the terminal",
    ),
    (
        &["pull", "push", "download", "fetch", "list", "ps", "rm", "search", "login"],
        "models are files and folders on this machine, which other programs download and manage; `ggufkit inspect PATH` shows one",
    ),
    (
        &["batched-bench", "benchmark", "speed", "perf"],
        "`ggufkit bench MODEL` measures the speed of prompt processing and text generation",
    ),
    (
        &["diff", "cmp"],
        "`ggufkit verify MODEL --against OTHER` compares the weights of two models, and `ggufkit compare MODEL OTHER --text TEXT` \
         what they compute",
    ),
    (
        &["check", "validate", "hash", "checksum", "lint", "test"],
        "`ggufkit verify MODEL` checks that a model's files are intact",
    ),
    (
        &[
            "set",
            "set-metadata",
            "new-metadata",
            "editor",
            "editor-gui",
            "rename",
            "patch",
            "modify",
            "update",
        ],
        "`ggufkit edit IN OUT --set KEY=VALUE` writes a copy of a model with changed metadata",
    ),
    (
        &["convert-endian", "endian", "byteswap"],
        "`ggufkit convert IN OUT --endian big` changes the byte order",
    ),
    (
        &["gptq", "autogptq", "auto-gptq", "gptqmodel"],
        "`ggufkit quantize IN OUT --type SCHEME --method gptq --calibration TEXT` quantizes with GPTQ",
    ),
    (
        &["awq", "autoawq", "auto-awq"],
        "`ggufkit quantize IN OUT --type SCHEME --method awq --calibration TEXT` quantizes with AWQ",
    ),
    (
        &["fit", "fit-params", "budget"],
        "`ggufkit quantize IN OUT --fit RAM` chooses types with which the model fits into this much memory",
    ),
    (
        &["recipe", "recipes", "print-recipe"],
        "`ggufkit quantize --print-recipe SCHEME` prints a scheme as a recipe",
    ),
    (&["schemes", "types", "list-types", "list-schemes"], "`ggufkit quantize --help` lists the schemes"),
    (&["machines", "targets"], "`ggufkit convert --help` lists the target machines, at --for"),
    (
        &["report", "html", "plot", "chart"],
        "`ggufkit compare MODEL OTHER --text TEXT --report PAGE.html` writes an HTML page",
    ),
    (&["version"], "`ggufkit --version` prints the version"),
    (&["usage", "man", "commands"], "`ggufkit --help` lists the commands"),
];

/// What does here what a command of another program does, by its name there: `llama-perplexity`, `convert_hf_to_gguf.py`.
/// `own` are the names of our commands: a program of llama.cpp may have that of one.
pub fn command(name: &str, own: &[&str]) -> Option<String> {
    let name = Path::new(name).file_name()?.to_str()?.to_lowercase().replace('_', "-");
    let name = [".py", ".exe", ".sh"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
    let known = |name: &str| {
        COMMANDS.iter().find(|(names, _)| names.contains(&name)).map(|(_, answer)| answer.to_string())
    };
    let bare = ["llama-", "gguf-", "ggufkit-"].iter().find_map(|start| name.strip_prefix(start));
    let same = |name: &&str| own.contains(name).then(|| format!("the command is `ggufkit {name}`"));
    known(name).or_else(|| bare.as_ref().and_then(same)).or_else(|| known(bare?)).or_else(|| same(&name))
}
