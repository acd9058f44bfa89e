//! The machines, one entry each: what their programs read, what they cannot use, and what to type there.
//!
//! Sources: the programs themselves, as named in each entry's comment; docs/vintage.md has the long form.

use formats::block::{DType, Family};
use formats::model::ByteOrder::{Big, Little};

use super::{Limit, Machine, Reads, Types};

/// What ggml's program code decodes right on big-endian machines: all but the types whose codes are looked up as bytes of
/// 32- and 64-bit numbers (`ggml-quants.c`).
const NO_LATTICES: Types = Types::But(Family::Lattice);

/// What llama.cpp of January 2024 has, without its lattice types.
const EARLY_2024: Types = Types::Only(&[
    DType::F32,
    DType::F16,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
]);

/// What OpenVINO GenAI computes as written: q4_1 it misreads.
const OPENVINO: Types = Types::Only(&[DType::F16, DType::Q8_0, DType::Q4_0, DType::Q4_K, DType::Q6_K]);

/// What bitnet.cpp's fork has for embedding and output; its own I2_S is no type of blocks, and is for matrices of its models.
const BITNET: Types = Types::Only(&[DType::F32, DType::F16, DType::Q6_K]);

const V0: Reads = Reads::Llama2c { version: 0, fork: false };
const V2: Reads = Reads::Llama2c { version: 2, fork: false };
const RUN: &str = "./run {model} -z {tokenizer} -t 0.8 -n 256 -i \"Once upon a time\"";

/// Where programs count bytes in a signed 32-bit number.
const BITS_32: Limit = Limit::File((1 << 31) - 1);

/// Whatever [`Machine`] has that most of them lack.
const PLAIN: Machine = Machine {
    name: "",
    what: "",
    reads: Reads::Gguf,
    order: Little,
    scheme: "f32",
    types: Types::All,
    limits: &[],
    there: "",
};

/// All of them.
pub const MACHINES: &[Machine] = &[
    // aarossig/ullm: the order of the machine, no swapping; a classifier of its own is looked for in the wrong place; AltiVec
    // loads ignore the low bits of addresses.
    Machine {
        name: "ullm",
        what: "PowerBook G4 and other PowerPC Macs: ullm",
        reads: V0,
        order: Big,
        limits: &[BITS_32, Limit::Shared, Limit::Multiple(4), Limit::Steps(256)],
        there: "ullm -c {model} -t {tokenizer} -p \"Once upon a time\"",
        ..PLAIN
    },
    // karpathy/llama2.c reads numbers as the machine has them.
    Machine {
        name: "run.c-big-endian",
        what: "any big-endian Unix (PowerPC, s390x, SPARC, MIPS): llama2.c's run.c",
        reads: V0,
        order: Big,
        limits: &[Limit::Elements],
        there: RUN,
        ..PLAIN
    },
    Machine {
        name: "runq.c-big-endian",
        what: "the same in 8 bits: llama2.c's runq.c",
        reads: V2,
        order: Big,
        scheme: "q8_0",
        limits: &[Limit::Elements],
        there: "./runq {model} -z {tokenizer} -t 0.8 -n 256",
        ..PLAIN
    },
    Machine {
        name: "run.c",
        what: "little-endian machines: llama2.c's run.c",
        reads: V0,
        limits: &[Limit::Elements],
        there: RUN,
        ..PLAIN
    },
    Machine {
        name: "runq.c",
        what: "the same in 8 bits: llama2.c's runq.c",
        reads: V2,
        scheme: "q8_0",
        limits: &[Limit::Elements],
        there: "./runq {model} -z {tokenizer} -t 0.8 -n 256",
        ..PLAIN
    },
    // maddiedreese/imac-llm: static buffers for the 260K model, and the rotary tables of the file, which nobody else reads.
    Machine {
        name: "imac-llm",
        what: "iMac G3 under Mac OS 8.5: imac-llm",
        reads: V0,
        order: Big,
        limits: &[Limit::Buffers, Limit::File(2_500_000)],
        there: "name them stories260K_be.bin and tok512_be.bin, beside the program; it answers in output.txt",
        ..PLAIN
    },
    // andreidavid/llama2PS3.c swaps what it loads.
    Machine {
        name: "llama2ps3",
        what: "PlayStation 3: llama2PS3.c (it turns numbers round itself)",
        reads: V0,
        limits: &[BITS_32, Limit::Shared],
        there: "copy {model} and {tokenizer} beside the program",
        ..PLAIN
    },
    // exo-explore/llama98.c: win.h counts what is allocated.
    Machine {
        name: "llama98",
        what: "Pentium II under Windows 98: llama98.c, with its 96 MiB of heap",
        reads: V0,
        limits: &[Limit::Heap98],
        there: "llama98.exe {model} -z {tokenizer} -t 0.8 -n 256",
        ..PLAIN
    },
    // Daviljoe193/smollerlm-for-windows95: little-endian everywhere, its big-endian builds swap what they load.
    Machine {
        name: "smollerlm",
        what: "Windows 95, Mac OS 9, Amiga, Atari Falcon, Mac OS X Tiger: RunSmol",
        reads: Reads::Llama2c { version: 2, fork: true },
        scheme: "q8_0",
        limits: &[BITS_32],
        there: "run-smol {model} -z {tokenizer} -m generate -n 256 -i \"Once upon a time\"",
        ..PLAIN
    },
    // rplacd/llama2-mac68k converts what it loads.
    Machine {
        name: "llama2-mac68k",
        what: "68k Macs under System 7: llama2-mac68k.c (it turns numbers round itself)",
        reads: V0,
        limits: &[BITS_32, Limit::Shared],
        there: "copy {model} and {tokenizer} beside the program",
        ..PLAIN
    },
    // ytmytm/llama2.c64.
    Machine {
        name: "c64",
        what: "Commodore 64 with a RAM expansion: llama2.c64 (three files in a folder)",
        reads: Reads::Expansion { weights: "weights.reu" },
        there: "build llama2.c64 with this config.bin and tokenizer.bin, and give weights.reu to the RAM expansion",
        ..PLAIN
    },
    // caiomadeira/llama2-psp.
    Machine {
        name: "psp",
        what: "PlayStation Portable: llama2-psp (three files in a folder)",
        reads: Reads::Expansion { weights: "weights.psp" },
        there: "copy the three files beside EBOOT.PBP",
        ..PLAIN
    },
    // Scottcjn/ppc-tiger-tools builds llama.cpp b2000; in 32 bits a file has to fit one mapping.
    Machine {
        name: "llama.cpp-tiger",
        what: "Mac OS X Tiger on a G4 or G5: llama.cpp of January 2024",
        order: Big,
        scheme: "q4_0",
        types: EARLY_2024,
        limits: &[BITS_32, Limit::OneFile, Limit::Architectures(&["llama"]), Limit::PlainBpe],
        there: "./main -m {model} -n 64 -p \"Once upon a time\"",
        ..PLAIN
    },
    Machine {
        name: "llama.cpp-big-endian",
        what: "s390x and other big-endian machines: llama.cpp",
        order: Big,
        scheme: "q4_k_m",
        types: NO_LATTICES,
        limits: &[Limit::NotForLlamaCpp],
        there: "llama-cli -m {model}",
        ..PLAIN
    },
    Machine {
        name: "llama.cpp",
        what: "llama.cpp of today",
        scheme: "q4_k_m",
        limits: &[Limit::NotForLlamaCpp],
        there: "llama-cli -m {model}",
        ..PLAIN
    },
    Machine {
        name: "ollama",
        what: "Ollama",
        scheme: "q4_k_m",
        limits: &[Limit::NotForLlamaCpp, Limit::OneFile],
        there: "echo 'FROM ./{model}' > Modelfile; ollama create NAME -f Modelfile; ollama run NAME",
        ..PLAIN
    },
    // Its fork of llama.cpp is of 2024, and has other types under numbers that llama.cpp gave away later.
    Machine {
        name: "bitnet.cpp",
        what: "bitnet.cpp (and ik_llama.cpp), for BitNet b1.58 models",
        scheme: "i2_s",
        types: BITNET,
        limits: &[Limit::OneFile, Limit::Architectures(&["bitnet-b1.58", "bitnet-25", "bitnet"])],
        there: "python run_inference.py -m {model} -p \"Hello\" -cnv",
        ..PLAIN
    },
    // What its reader of GGUF does was measured: docs/vintage.md.
    Machine {
        name: "openvino",
        what: "OpenVINO GenAI",
        scheme: "q4_0",
        types: OPENVINO,
        limits: &[
            Limit::OneFile,
            Limit::Architectures(&["llama", "qwen2", "qwen3"]),
            Limit::Vocabulary("gpt2"),
            Limit::NoFrequencies,
        ],
        there: "python -c 'import openvino_genai as g; print(g.LLMPipeline(\"{model}\", \"CPU\").generate(\"Hello\"))'",
        ..PLAIN
    },
];
