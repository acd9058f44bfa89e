//! The list of machines: for each, what its program reads, its limits, and how to run the result.
//!
//! Sources: the programs' own source code, named in each entry's comment. docs/vintage.md explains the machines for users.

use formats::block::{DType, Family};
use formats::model::ByteOrder::{Big, Little};

use super::{Limit, Machine, Reads, Types};

/// The types that ggml decodes correctly on big-endian machines. It reads the lattice types' tables of 32- and 64-bit
/// numbers byte by byte (`ggml-quants.c`).
const NO_LATTICES: Types = Types::But(Family::Lattice);

/// The types of llama.cpp in January 2024, without its lattice types.
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

/// The types that OpenVINO GenAI computes as written. Measured with version 2026.4.1 on two models of Qwen 3, as the relative
/// RMS of the logits to those of the same weights in f16 or f32: f16 5.0e-4, q8_0 1.5e-6, q6_k 3.9e-4, q4_0 1.8e-4. It takes
/// q4_1 (0.11) and q4_k (0.13 to 0.38) too, but rounds their minimums over the scale to zero points of four bits.
const OPENVINO: Types = Types::Only(&[DType::Q8_0, DType::Q6_K, DType::Q4_0, DType::F16]);

/// The block types that bitnet.cpp reads for embedding and output. Its own type I2_S, for the projections, is not a block
/// type and is checked separately.
const BITNET: Types = Types::Only(&[DType::F32, DType::F16, DType::Q6_K]);

const V0: Reads = Reads::Llama2c { version: 0, fork: false };
const V2: Reads = Reads::Llama2c { version: 2, fork: false };
const RUN: &str = "./run {model} -z {tokenizer} -t 0.8 -n 256 -i \"Once upon a time\"";

/// The file size limit of programs that count bytes in a signed 32-bit number.
const BITS_32: Limit = Limit::File((1 << 31) - 1);

/// Default values for the fields that most machines do not need.
const PLAIN: Machine = Machine {
    name: "",
    description: "",
    reads: Reads::Gguf,
    order: Little,
    scheme: "f32",
    types: Types::All,
    limits: &[],
    others: &[],
    run_hint: "",
};

/// All machines.
pub const MACHINES: &[Machine] = &[
    // aarossig/ullm: reads numbers in the machine's byte order without swapping. It looks for an untied output matrix in the
    // wrong place, and its AltiVec loads ignore the low bits of addresses.
    Machine {
        name: "ullm",
        description: "PowerBook G4 and other PowerPC Macs: ullm",
        reads: V0,
        order: Big,
        limits: &[BITS_32, Limit::TiedEmbeddings, Limit::Multiple(4), Limit::DefaultTokens(256)],
        others: &["run.c-big-endian", "runq.c-big-endian"],
        run_hint: "ullm -c {model} -t {tokenizer} -p \"Once upon a time\"",
        ..PLAIN
    },
    // karpathy/llama2.c reads numbers in the machine's byte order.
    Machine {
        name: "run.c-big-endian",
        description: "big-endian Unix (PowerPC, s390x, SPARC, MIPS): llama2.c's run.c, f32",
        reads: V0,
        order: Big,
        limits: &[Limit::Elements],
        others: &["runq.c-big-endian"],
        run_hint: RUN,
        ..PLAIN
    },
    Machine {
        name: "runq.c-big-endian",
        description: "big-endian Unix: llama2.c's runq.c, int8",
        reads: V2,
        order: Big,
        scheme: "q8_0",
        limits: &[Limit::Elements],
        run_hint: "./runq {model} -z {tokenizer} -t 0.8 -n 256",
        ..PLAIN
    },
    Machine {
        name: "run.c",
        description: "little-endian machines: llama2.c's run.c, f32",
        reads: V0,
        limits: &[Limit::Elements],
        others: &["runq.c"],
        run_hint: RUN,
        ..PLAIN
    },
    Machine {
        name: "runq.c",
        description: "little-endian machines: llama2.c's runq.c, int8",
        reads: V2,
        scheme: "q8_0",
        limits: &[Limit::Elements],
        run_hint: "./runq {model} -z {tokenizer} -t 0.8 -n 256",
        ..PLAIN
    },
    // maddiedreese/imac-llm: has static buffers for the 260K model, and as the only program uses the rotary tables in the
    // file.
    Machine {
        name: "imac-llm",
        description: "iMac G3 under Mac OS 8.5: imac-llm",
        reads: V0,
        order: Big,
        limits: &[Limit::Buffers, Limit::File(2_500_000)],
        others: &["ullm", "run.c-big-endian"],
        run_hint: "name the files stories260K_be.bin and tok512_be.bin and put them next to the program; it writes to output.txt",
        ..PLAIN
    },
    // andreidavid/llama2PS3.c swaps bytes while loading.
    Machine {
        name: "llama2ps3",
        description: "PlayStation 3: llama2PS3.c (reads little-endian files)",
        reads: V0,
        limits: &[BITS_32, Limit::TiedEmbeddings],
        others: &["run.c-big-endian", "runq.c-big-endian"],
        run_hint: "copy {model} and {tokenizer} next to the program",
        ..PLAIN
    },
    // exo-explore/llama98.c: win.h limits the heap.
    Machine {
        name: "llama98",
        description: "Pentium II under Windows 98: llama98.c (heap of 96 MiB)",
        reads: V0,
        limits: &[Limit::Heap98],
        others: &["smollerlm"],
        run_hint: "llama98.exe {model} -z {tokenizer} -t 0.8 -n 256",
        ..PLAIN
    },
    // Daviljoe193/smollerlm-for-windows95: files are always little-endian; its big-endian builds swap bytes while loading.
    Machine {
        name: "smollerlm",
        description: "Windows 95, Mac OS 9, Amiga, Atari Falcon, Mac OS X Tiger: RunSmol",
        reads: Reads::Llama2c { version: 2, fork: true },
        scheme: "q8_0",
        limits: &[BITS_32],
        run_hint: "run-smol {model} -z {tokenizer} -m generate -n 256 -i \"Once upon a time\"",
        ..PLAIN
    },
    // rplacd/llama2-mac68k swaps bytes while loading.
    Machine {
        name: "llama2-mac68k",
        description: "68k Macs under System 7: llama2-mac68k.c (reads little-endian files)",
        reads: V0,
        limits: &[BITS_32, Limit::TiedEmbeddings],
        others: &["run.c-big-endian", "runq.c-big-endian"],
        run_hint: "copy {model} and {tokenizer} next to the program",
        ..PLAIN
    },
    // ytmytm/llama2.c64.
    Machine {
        name: "c64",
        description: "Commodore 64 with a RAM expansion: llama2.c64 (three files in a folder)",
        reads: Reads::Expansion { weights: "weights.reu" },
        run_hint: "build llama2.c64 with this config.bin and tokenizer.bin, and load weights.reu into the RAM expansion",
        ..PLAIN
    },
    // caiomadeira/llama2-psp.
    Machine {
        name: "psp",
        description: "PlayStation Portable: llama2-psp (three files in a folder)",
        reads: Reads::Expansion { weights: "weights.psp" },
        run_hint: "copy the three files next to EBOOT.PBP",
        ..PLAIN
    },
    // Scottcjn/ppc-tiger-tools builds llama.cpp b2000. In a 32-bit process a file must fit into one mapping. Biases of
    // feed-forward matrices in llama models came with ggml-org/llama.cpp#7481, in May 2024.
    Machine {
        name: "llama.cpp-tiger",
        description: "Mac OS X Tiger on a G4 or G5: llama.cpp of January 2024",
        order: Big,
        scheme: "q4_0",
        types: EARLY_2024,
        limits: &[
            BITS_32,
            Limit::OneFile,
            Limit::Architectures(&["llama"]),
            Limit::PlainBpe,
            Limit::NoFeedForwardBiases,
        ],
        run_hint: "./main -m {model} -n 64 -p \"Once upon a time\"",
        ..PLAIN
    },
    Machine {
        name: "llama.cpp-big-endian",
        description: "s390x and other big-endian machines: llama.cpp",
        order: Big,
        scheme: "q4_k_m",
        types: NO_LATTICES,
        limits: &[Limit::NotForLlamaCpp],
        run_hint: "llama-cli -m {model}",
        ..PLAIN
    },
    Machine {
        name: "llama.cpp",
        description: "current llama.cpp",
        scheme: "q4_k_m",
        limits: &[Limit::NotForLlamaCpp],
        run_hint: "llama-cli -m {model}",
        ..PLAIN
    },
    Machine {
        name: "ollama",
        description: "Ollama",
        scheme: "q4_k_m",
        limits: &[Limit::NotForLlamaCpp, Limit::OneFile],
        run_hint: "echo 'FROM ./{model}' > Modelfile; ollama create NAME -f Modelfile; ollama run NAME",
        ..PLAIN
    },
    // Its fork of llama.cpp dates from 2024 and uses type numbers to which llama.cpp later gave other meanings.
    Machine {
        name: "bitnet.cpp",
        description: "bitnet.cpp, for models of 1.58 bits",
        scheme: "i2_s",
        types: BITNET,
        // Its graph of BitNet b1.58 multiplies with the token embedding even if there is an output matrix.
        limits: &[
            Limit::OneFile,
            Limit::TiedEmbeddingsOf(&["bitnet-b1.58", "bitnet-25", "bitnet"]),
            Limit::Architectures(&["bitnet-b1.58", "bitnet-25", "bitnet", "llama"]),
        ],
        run_hint: "python run_inference.py -m {model} -p \"Hello\" -cnv",
        ..PLAIN
    },
    // What its GGUF reader supports was measured: docs/vintage.md.
    Machine {
        name: "openvino",
        description: "OpenVINO GenAI",
        scheme: "q4_0",
        types: OPENVINO,
        limits: &[
            Limit::OneFile,
            Limit::Architectures(&["llama", "qwen2", "qwen3"]),
            Limit::Vocabulary("gpt2"),
            Limit::NoFrequencies,
        ],
        run_hint: "python -c 'import openvino_genai as g; print(g.LLMPipeline(\"{model}\", \"CPU\").generate(\"Hello\"))'",
        ..PLAIN
    },
];
