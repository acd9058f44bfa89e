"""Which commands read which kind of file.

A command line is a text with {names}: those of the seed (model, tokenizer, text, imatrix, logits, sensitivity, recipe, value,
key, state), `sound` (a sound model), `words` (a sound text), and `out`, a folder that is empty or, where a line begins with
`old:`, has a file of every name that is written."""

SHORT = "--context 16 --chunks 1"
CALIBRATION = "--calibration {words} --calibration-context 16 --calibration-chunks 1"

INSPECT = [
    "inspect {model}",
    "inspect {model} --tensors",
    "inspect {model} --json",
    "inspect {model} --memory --json",
    "inspect {model} --no-mmap --memory",
]
VERIFY = [
    "verify {model}",
    "verify {model} --no-mmap --json",
    "verify {model} --against {sound}",
    "verify {sound} --against {model}",
]
WRITE = [
    "convert {model} {out}/o.gguf",
    "old: convert {model} {out}/o.gguf --type f16 --json",
    "convert {model} {out}/o.safetensors",
    "convert {model} {out}/o.safetensors --type f16",
    "convert {model} {out}/folder/ --type f16",
    "convert {model} {out}/o.bin",
    "convert {model} {out}/o.gguf --endian big --no-mmap",
    "convert {model} {out}/o.gguf --dry-run --json",
    "convert {model} {out}/o.gguf --split-max-size 20K",
    "convert {model} {out}/folder/ --split-max-size 20K --type f32",
    "convert {model} {out}/c64/ --for c64",
    "convert {model} {out}/o.gguf --for llama.cpp-tiger",
    "convert {model} {out}/o.bin --for ullm",
    "convert {model} {out}/o.gguf --for openvino",
    "split {model} {out}/o.gguf --max-tensors 5",
    "old: split {model} {out}/o.safetensors --max-size 30K",
    "merge {model} {out}/o.gguf",
    "edit {model} {out}/o.gguf --set general.name=x --remove general.url",
    "old: edit {model} {out}/o.gguf --rename general.name=general.other",
]
QUANTIZE = [
    "quantize {model} {out}/o.gguf --type q4_0 --memory 16M --allow-requantize",
    "old: quantize {model} {out}/o.gguf --type q4_k_m --allow-requantize --effort fast",
    "quantize {model} {out}/o.gguf --type iq3_s --allow-requantize --effort fast",
    "quantize {model} {out}/o.gguf --type q8_0 --dry-run --json",
    "quantize {model} {out}/o.bin --type int8 --allow-requantize",
    "quantize {model} {out}/folder/ --type bf16 --allow-requantize",
    "quantize {model} {out}/o.gguf --type tq2_0 --force --allow-requantize",
    "quantize {model} {out}/o.gguf --type i2_s --force",
    "quantize {model} {out}/o.gguf --bits-per-weight 5 --allow-requantize --write-recipe {out}/r.toml",
    "quantize {model} {out}/o.gguf --fit 2G --dry-run --json",
    "quantize {model} {out}/o.gguf --size 60K --allow-requantize --dry-run",
    "quantize {model} {out}/o.gguf --type q4_0 --allow-requantize " + CALIBRATION,
    "quantize {model} {out}/o.gguf --type q4_0 --allow-requantize --method auto --state {out}/state " + CALIBRATION,
    "quantize {model} {out}/o.gguf --type q4_0 --allow-requantize --bias-correction " + CALIBRATION,
    "quantize {model} {out}/o.gguf --type q4_0 --allow-requantize --check {words} --check-context 16 --check-chunks 1 "
    "--max-kld 9",
]
MEASURE = [
    "frontier {model}",
    "old: frontier {model} --report {out}/r.html --json",
    "calibrate {model} {words} -o {out}/i.gguf " + SHORT,
    "old: calibrate {model} {words} -o {out}/i.dat --output-matrix " + SHORT,
    "sensitivity {model} {words} -o {out}/s.json --probes q4_0 --types q4_0,q8_0 " + SHORT,
    "eval {model} {words} --json " + SHORT,
    "eval {model} {words} --exact --stride 8 --context 16 --chunks 2",
    "old: eval {model} {words} --save-logits {out}/l.kld " + SHORT,
    "eval {model} {words} --reference {sound} " + SHORT,
    "eval {sound} {words} --reference {model} --max-kld 1 " + SHORT,
    "compare {sound} {model} --text {words} --report {out}/r.html " + SHORT,
    "compare {model} {sound} --text {words} --json --no-floor " + SHORT,
    "bench {model} --prompt 8 --generate 2 --repeats 1 --json",
    "logits {model} {out}/l.safetensors --ids 1,2,300",
    "old: logits {model} {out}/l.safetensors --ids 5 --exact --kv q8_0 --no-mmap",
]
RUN = [
    "run {model} --prompt Once --tokens 3 --seed 1",
    "run {model} --prompt-file {words} --tokens 2 --seed 1 --temperature 0",
    "run {model} --tokens 2 --seed 1 --ignore-eos",
]
CHAT = ["run {model} --chat --prompt Hello --tokens 2 --seed 1", "run {model} --chat --system s --tokens 2 --seed 1 --context 60"]
MODEL = INSPECT + VERIFY + WRITE + QUANTIZE + MEASURE + RUN + CHAT

# What shows the settings and the tokenizer of a checkpoint.
SETTINGS = [
    "inspect {model} --json",
    "inspect {model} --memory",
    "convert {model} {out}/o.gguf",
    "old: convert {model} {out}/o.gguf --dry-run --json",
    "convert {model} {out}/folder/",
    "convert {model} {out}/o.bin",
    "quantize {model} {out}/o.gguf --type q8_0 --dry-run",
    "quantize {model} {out}/o.gguf --bits-per-weight 6 --dry-run",
    "quantize {model} {out}/o.gguf --fit 2G --dry-run",
    "frontier {model} --json",
    "eval {model} {words} " + SHORT,
    "logits {model} {out}/l.safetensors --ids 1,2,3",
    "verify {model} --against {sound}",
    "bench {model} --prompt 8 --generate 2 --repeats 1",
]
TOKENIZER = [
    "convert {model} {out}/o.gguf",
    "convert {model} {out}/o.gguf --pre-tokenizer llama-bpe",
    "convert {model} {out}/folder/ --type f16",
    "convert {model} {out}/o.bin",
    "old: quantize {model} {out}/o.gguf --type q8_0",
    "eval {model} {words} --json " + SHORT,
    "eval {model} {words} --pre-tokenizer gpt-2 " + SHORT,
    "calibrate {model} {words} -o {out}/i.gguf " + SHORT,
    "compare {sound} {model} --text {words} --no-floor " + SHORT,
    "run {model} --prompt Once<s>upon --tokens 2 --seed 1",
] + CHAT
LLAMA2C = " --tokenizer {tokenizer}"
WITH_TOKENIZER = [
    "inspect {tokenizer} --json",
    "verify {tokenizer}",
    "convert {tokenizer} {out}/o.gguf",
    "convert {tokenizer} {out}/o.bin --endian big",
    "convert {model} {out}/o.gguf" + LLAMA2C,
    "convert {model} {out}/c64/ --for c64" + LLAMA2C,
    "old: convert {model} {out}/o.bin --for run.c-big-endian" + LLAMA2C,
    "convert {model} {out}/psp/ --for psp" + LLAMA2C,
    "convert {model} {out}/folder/" + LLAMA2C,
    "eval {model} {words} " + SHORT + LLAMA2C,
    "run {model} --prompt Once --tokens 2 --seed 1" + LLAMA2C,
    "calibrate {model} {words} -o {out}/i.gguf " + SHORT + LLAMA2C,
]

# The commands of each kind. Kinds are files; that a folder, a link or something else can be in their place, and that their
# names can be odd, is tried with all of them.
KINDS = {
    "gguf": MODEL,
    "gguf parts": MODEL,
    "raw pieces": INSPECT + VERIFY[:1] + WRITE[:3],
    "safetensors": MODEL,
    "index": MODEL,
    "pytorch_model.bin": MODEL,
    "llama2.c": [line + LLAMA2C for line in MODEL] + INSPECT + VERIFY,
    "adapter_config.json": INSPECT + WRITE[:4] + RUN[:1],
    "config.json": SETTINGS + MODEL,
    "generation_config.json": TOKENIZER + SETTINGS,
    "tokenizer_config.json": TOKENIZER,
    "special_tokens_map.json": TOKENIZER,
    "added_tokens.json": TOKENIZER,
    "tokenizer.json": TOKENIZER,
    "vocab.json": TOKENIZER,
    "merges.txt": TOKENIZER,
    "tokenizer.model": TOKENIZER,
    "tiktoken": TOKENIZER,
    "tokenizer.bin": WITH_TOKENIZER,
    "chat template": CHAT * 3 + TOKENIZER[:4],
    "chat_template.json": CHAT + TOKENIZER[:4],
    "README.md": [
        "convert {model} {out}/o.gguf",
        "convert {model} {out}/folder/",
        "inspect {model} --json",
        "edit {model} {out}/o.gguf --set a=b",
    ],
    "imatrix": [
        "calibrate --show {imatrix}",
        "calibrate --show {imatrix} --json",
        "calibrate --merge {imatrix} --merge {imatrix} -o {out}/i.gguf",
        "old: calibrate --merge {imatrix} -o {out}/i.dat",
        "calibrate {model} {words} --merge {imatrix} -o {out}/i.gguf " + SHORT,
        "quantize {model} {out}/o.gguf --type q4_0 --imatrix {imatrix}",
        "quantize {model} {out}/o.gguf --type iq2_xxs --imatrix {imatrix} --effort fast",
        "old: quantize {model} {out}/o.gguf --bits-per-weight 5 --imatrix {imatrix}",
        "sensitivity {model} {words} -o {out}/s.json --imatrix {imatrix} --probes q4_0 --types q4_0,q8_0 " + SHORT,
        "inspect {imatrix} --tensors",
        "convert {imatrix} {out}/o.gguf",
    ],
    "logits": [
        "eval {model} {text} --logits {logits} --context 16 --chunks 2",
        "eval {model} {text} --logits {logits} --context 16 --chunks 2 --json --exact --max-kld 1",
        "eval {model} {text} --logits {logits}",
        "old: eval {model} {text} --logits {logits} --save-logits {out}/l.kld --context 16 --chunks 2",
        "inspect {logits}",
    ],
    "sensitivity": [
        "quantize {model} {out}/o.gguf --bits-per-weight 5 --sensitivity {sensitivity}",
        "quantize {model} {out}/o.gguf --fit 2G --sensitivity {sensitivity} --dry-run --json",
        "old: quantize {model} {out}/o.gguf --size 60K --sensitivity {sensitivity}",
        "frontier {model} --sensitivity {sensitivity} --report {out}/r.html --json",
        "frontier {model} --sensitivity {sensitivity} --types q4_0,q8_0",
        "compare {model} {sound} --text {text} --sensitivity {sensitivity} --report {out}/r.html " + SHORT,
    ],
    "recipe": [
        "quantize {model} {out}/o.gguf --recipe {recipe}",
        "quantize {model} {out}/o.gguf --recipe {recipe} --dry-run --json",
        "old: quantize {model} {out}/o.gguf --recipe {recipe} --dry-run",
        "convert {model} {out}/o.gguf --recipe {recipe}",
        "quantize {model} {out}/o.safetensors --recipe {recipe}",
    ],
    "text": [
        "eval {model} {text} --context 16 --chunks 2",
        "eval {model} {text} --context 64 --chunks 4 --json",
        "eval {model} {text} --stride 4 --context 16 --chunks 2 --reference {sound}",
        "old: eval {model} {text} --save-logits {out}/l.kld --context 16 --chunks 2",
        "compare {sound} {model} --text {text} --report {out}/r.html --context 16 --chunks 2",
        "calibrate {model} {text} {text} -o {out}/i.gguf --context 16 --chunks 2",
        "sensitivity {model} {text} -o {out}/s.json --probes q4_0 --types q4_0,q8_0 " + SHORT,
        "quantize {model} {out}/o.gguf --type q4_0 --method awq --calibration {text} --calibration-context 16 "
        "--calibration-chunks 2",
        "quantize {model} {out}/o.gguf --type q4_0 --check {text} --check-context 16 --check-chunks 2",
        "run {model} --prompt-file {text} --tokens 2 --seed 1",
        "run {model} --prompt-file {text} --tokens 2 --seed 1 --chat",
        "run {model} --chat --tokens 1 --seed 1 < {text}",
    ],
    "set-file": [
        "edit {model} {out}/o.gguf --set-file {key}={value}",
        "old: edit {model} {out}/o.gguf --set-file {key}={value} --json",
        "edit {model} {out}/o.gguf --set-file some.new.key:[str]={value}",
        "edit {model} {out}/o.gguf --set-file some.new.key:[i32]={value}",
        "edit {model} {out}/o.gguf --set-file general.name={value}",
        "edit {model} {out}/o.safetensors --set-file some.new.key:str={value}",
    ],
    "state": [
        "quantize {model} {out}/o.gguf --type q4_0 --state {state} --calibration {text} --calibration-context 16 "
        "--calibration-chunks 2 --method gptq --threads 1"
    ],
}

# What the files of a state folder are made with, in the folder where they are damaged: they belong to one run.
PREPARE = KINDS["state"]
# Commands that have this option.
THREADED = (
    "convert",
    "quantize",
    "calibrate",
    "sensitivity",
    "eval",
    "compare",
    "run",
    "bench",
    "logits",
    "split",
    "merge",
    "edit",
)
