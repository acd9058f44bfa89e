"""Sound files of every kind that the program opens: small models that are made here, and what the program makes of them.

A seed is a folder's files as a mapping of relative paths to bytes, which of them is the file of the kind, and what commands
call the model, the text and so on. Its weights are noise: what matters is that every reader gets to its end."""

import base64
import json
import os
import random
import shutil
import struct
import subprocess

import formats

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
VOCABULARY = 320

TEXT = (
    b"Once upon a time there was a little girl who lived near a wood. She had a red hat, and every day she went out to see "
    b"what the birds did. One day she found a box. <s> It was old, and nobody knew what was in it.\n"
) * 3
RECIPE = b"""# A recipe.
name = "mine"
base = "q4_0"
file_type = 2
rules = [
  { tensor = "attn_v", layers = "first 1", type = "q8_0" },
  { tensor = ["ffn_down", "ffn_up"], layers = "last 1/2", when = "gqa >= 2", type = "q5_0" },
  { name = "blk\\\\.[0-9]+\\\\.attn_k", count = "tensors", layers = "first 1", type = "keep" },
  "q4_k_m",
]
"""
TEMPLATE = (
    b"{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    b"{% else %}{{ message.content | trim }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ bos_token }}{% endif %}"
)
CARD = b"""---
language:
- en
- de
license: apache-2.0
license_name: some
base_model:
- acme/base-7B
- acme/other-1B
datasets: [a/b, "c/d"]
tags: &t
  - text
  - "quoted \\u00e9"
pipeline_tag: text-generation
model-index:
- name: x
  results: []
---
# A model

Text.
"""


class Seed:
    def __init__(self, kind, name, files, target, **args):
        """`target` is the path of the file of the kind. `args` are what commands are given: paths in the folder."""
        self.kind, self.name, self.files, self.target, self.args = kind, name, files, target, args

    def size(self):
        return sum(len(f) for f in self.files.values() if isinstance(f, bytes))


def noise(n, rng, dtype="BF16"):
    """`n` small numbers."""
    values = [struct.pack("<f", rng.gauss(0, 0.1)) for _ in range(256)]
    if dtype == "BF16":
        values = [v[2:] for v in values]
    elif dtype == "F16":
        values = [struct.pack("<e", struct.unpack("<f", v)[0]) for v in values]
    elif dtype == "U8":
        values = [bytes([a | b << 2 | c << 4 | 1 << 6]) for a in range(3) for b in range(3) for c in range(3)]
    return b"".join(rng.choices(values, k=n))


def config(family="llama", **changes):
    """A config.json, as a value, of a model with two layers of 32 columns."""
    classes = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "bitnet": "BitNet"}
    value = {
        "architectures": [classes[family] + "ForCausalLM"], "model_type": family, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": VOCABULARY,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "hidden_act": "relu2" if family == "bitnet" else "silu", "attention_bias": False, "mlp_bias": False,
        "bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": -1, "torch_dtype": "bfloat16", "use_cache": True,
    }  # fmt: skip
    value.update(changes)
    return value


def tensors(c, rng, packed=False, dtype="BF16"):
    """The tensors of a config as (name, dtype, shape, bytes)."""
    family, dim, hidden = c["model_type"], c["hidden_size"], c["intermediate_size"]
    q, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    out = []

    def add(name, *shape, kind=dtype):
        n = 1
        for s in shape:
            n *= s
        out.append((name, kind, list(shape), noise(n, rng, kind)))

    def matrix(name, rows, columns):
        if packed:
            add(name, rows // 4, columns, kind="U8")
            out.append((name + "_scale", "BF16", [1], struct.pack("<f", 0.75)[2:]))
        else:
            add(name, rows, columns)

    add("model.embed_tokens.weight", c["vocab_size"], dim)
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        add(layer + "input_layernorm.weight", dim)
        add(layer + "post_attention_layernorm.weight", dim)
        for name, rows, columns in (("q", q, dim), ("k", kv, dim), ("v", kv, dim), ("o", dim, q)):
            matrix(f"{layer}self_attn.{name}_proj.weight", rows, columns)
            if family == "qwen2" and name != "o":
                add(f"{layer}self_attn.{name}_proj.bias", rows)
        for name, rows, columns in (("gate", hidden, dim), ("up", hidden, dim), ("down", dim, hidden)):
            matrix(f"{layer}mlp.{name}_proj.weight", rows, columns)
        if family == "qwen3":
            add(layer + "self_attn.q_norm.weight", c["head_dim"])
            add(layer + "self_attn.k_norm.weight", c["head_dim"])
        if family == "bitnet":
            add(layer + "self_attn.attn_sub_norm.weight", q)
            add(layer + "mlp.ffn_sub_norm.weight", hidden)
    add("model.norm.weight", dim)
    if not c["tie_word_embeddings"]:
        add("lm_head.weight", c["vocab_size"], dim)
    return out


def sentencepiece(unigram=False):
    """A SentencePiece model: the first pieces of the bundled one, and the space, without which there is no llama2.c."""
    with open(os.path.join(ROOT, "demo/model/tokenizer.model"), "rb") as f:
        fields = formats.read_protobuf(f.read())
    kept, n = [], 0
    for number, wire, value in fields:
        n += number == 1
        space = number == 1 and formats.protobuf([(1, 2, "▁".encode())]) in value and len(value) < 11
        if number != 1 or n < VOCABULARY or space:
            if unigram and number == 2:
                value = formats.protobuf([(3, 0, 1)]) + formats.protobuf(
                    [x for x in formats.read_protobuf(value) if x[0] != 3]
                )
            kept.append((number, wire, value))
    return formats.protobuf(kept)


def byte_letters():
    """GPT-2's letters for bytes."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) if b in own else chr(256 + sum(x not in own for x in range(b))) for b in range(256)]


def byte_level():
    """A tokenizer.json of bytes and some merges, as a value, and its vocabulary and merges."""
    vocabulary = {letter: i for i, letter in enumerate(byte_letters())}
    merges = []
    for pair in ("t h", "th e", "Ġ the", "i n", "a n", "an d", "Ġ a", "e r", "o u", "r e"):
        merges.append(pair)
        vocabulary.setdefault(pair.replace(" ", ""), len(vocabulary))
    split = {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {
                    "Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+"
                    "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
                },
                "behavior": "Isolated",
                "invert": False,
            },
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }
    added = [
        {"id": 300 + i, "content": text, "single_word": False, "lstrip": False, "rstrip": i == 2, "normalized": False, "special": i < 2}
        for i, text in enumerate(("<|begin_of_text|>", "<|end_of_text|>", "<tool>"))
    ]
    template = {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    value = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": split,
        "post_processor": {
            "type": "TemplateProcessing", "single": list(template), "pair": [*template, *template],
            "special_tokens": {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [300], "tokens": ["<|begin_of_text|>"]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": True, "vocab": vocabulary,
            "merges": merges,
        },
    }  # fmt: skip
    return value, vocabulary, merges


def pieces():
    """Texts and scores of the SentencePiece model's pieces."""
    out = []
    for number, _, value in formats.read_protobuf(sentencepiece()):
        if number == 1:
            fields = {n: v for n, _, v in formats.read_protobuf(value)}
            out.append((fields[1].decode(), struct.unpack("<f", fields.get(2, b"\0\0\0\0"))[0]))
    return out


def unigram():
    """A tokenizer.json of a unigram model, and one of SentencePiece's BPE with byte fallback, as values."""
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i, t in enumerate(("<unk>", "<s>", "</s>"))]  # fmt: skip
    metaspace = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True, "prepend_scheme": "always"}
    common = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                                                     {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "post_processor": None,
    }  # fmt: skip
    normalizer = {"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"},
                                                      {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]}  # fmt: skip
    model = {"type": "Unigram", "unk_id": 0, "vocab": [list(p) for p in pieces()], "byte_fallback": True}
    one = {**common, "normalizer": normalizer, "pre_tokenizer": metaspace, "model": model}
    texts = [t for t, _ in pieces()]
    merges = [[a, t[len(a) :]] for t in texts for a in texts if 0 < len(a) < len(t) and t.startswith(a) and t[len(a) :] in texts]
    bpe = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": {t: i for i, t in enumerate(texts)},
           "merges": merges[:200]}  # fmt: skip
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                                   {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}  # fmt: skip
    return one, {**common, "normalizer": prepend, "pre_tokenizer": None, "model": bpe}


def dumps(value):
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


TOKENIZER_CONFIG = {
    "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False},
    "unk_token": "<unk>", "pad_token": None, "tokenizer_class": "LlamaTokenizer", "model_max_length": 1e30, "legacy": True,
    "add_prefix_space": True, "additional_special_tokens": ["<s>"],
    "added_tokens_decoder": {str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                                      "special": True} for i, t in enumerate(("<unk>", "<s>", "</s>"))},
    "chat_template": [{"name": "default", "template": TEMPLATE.decode()}, {"name": "tool_use", "template": "{{ messages }}"}],
}  # fmt: skip
SPECIAL = {"bos_token": {"content": "<s>", "single_word": False}, "eos_token": "</s>", "additional_special_tokens": ["<s>"]}
GENERATION = {"bos_token_id": 1, "eos_token_id": [2], "temperature": 0.6, "top_p": 0.9, "top_k": 40, "do_sample": True,
              "repetition_penalty": 1.1}  # fmt: skip


class Maker:
    """Makes the seeds with the program, in a folder."""

    def __init__(self, program, folder):
        self.program, self.folder, self.rng = program, folder, random.Random(7)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        self.seeds = []

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, files):
        for relative, data in files.items():
            path = os.path.join(self.path(name), relative)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as f:
                f.write(data)
        return self.path(name)

    def read(self, *names):
        """Files of the folder, by their own names, as a seed has them."""
        files = {}
        for name in names:
            if os.path.isdir(self.path(name)):
                for entry in sorted(os.listdir(self.path(name))):
                    with open(os.path.join(self.path(name), entry), "rb") as f:
                        files[entry] = f.read()
            else:
                with open(self.path(name), "rb") as f:
                    files[os.path.basename(name)] = f.read()
        return files

    def ggufkit(self, *args):
        done = subprocess.run([self.program, *args], cwd=self.folder, capture_output=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise SystemExit(f"a sound file could not be made: ggufkit {' '.join(args)}: {done.stderr.decode()}")

    def add(self, kind, name, files, target, **args):
        self.seeds.append(Seed(kind, name, files, target, **args))

    def checkpoint(self, family="llama", extra=None, packed=False, dtype="BF16", **changes):
        """The files of a checkpoint's folder without a tokenizer."""
        c = config(family, **changes)
        weights = formats.safetensors(tensors(c, self.rng, packed, dtype), {"format": "pt"})
        return {"config.json": dumps(c), "model.safetensors": weights, **(extra or {})}

    def all(self):
        self.models()
        self.vocabularies()
        self.others()
        return self.seeds

    def models(self):
        vocabulary = {"tokenizer.model": sentencepiece(), "tokenizer_config.json": dumps(TOKENIZER_CONFIG),
                      "special_tokens_map.json": dumps(SPECIAL), "generation_config.json": dumps(GENERATION), "README.md": CARD}  # fmt: skip
        full = self.checkpoint(extra=vocabulary)
        self.write("model", full)
        self.write("", {"text.txt": TEXT, "recipe.toml": RECIPE})
        self.ggufkit("convert", "model", "f32.gguf", "--type", "f32")
        self.ggufkit("quantize", "model", "q8.gguf", "--type", "q8_0", "--pure")
        self.ggufkit("quantize", "model", "q4.gguf", "--type", "q4_0", "--pure", "--tensor", "ffn_up=q5_1", "--tensor", "attn_k=iq4_nl")
        self.ggufkit("convert", "q8.gguf", "big.gguf", "--endian", "big")
        self.ggufkit("split", "q8.gguf", "part.gguf", "--max-tensors", "8")
        for name, end in (("f32", "f32"), ("q4", "q4"), ("q8", "q8"), ("big", "big")):
            self.add("gguf", end, {"m.gguf": self.read(name + ".gguf")[name + ".gguf"]}, "m.gguf", model="m.gguf")
        parsed = formats.read_gguf(self.read("f32.gguf")["f32.gguf"])[0]
        for version, end in ((1, "<"), (2, "<"), (2, ">")):
            self.add("gguf", f"v{version}{'big' if end == '>' else ''}", {"m.gguf": parsed.write(version, end)}, "m.gguf", model="m.gguf")
        parts = self.read(*sorted(n for n in os.listdir(self.folder) if n.startswith("part-")))
        names = list(parts)
        self.add("gguf parts", "split", parts, names[1], model=names[0])
        self.add("gguf parts", "first", parts, names[0], model=names[0])
        q8 = self.read("q8.gguf")["q8.gguf"]
        third = len(q8) // 3
        raw = {f"m.gguf.part{i + 1}of3": q8[i * third : (i + 1) * third + (len(q8) if i == 2 else 0)] for i in range(3)}
        self.add("raw pieces", "pieces", raw, "m.gguf.part1of3", model="m.gguf.part1of3")
        self.add("raw pieces", "last", raw, "m.gguf.part3of3", model="m.gguf.part3of3")

        self.add("gguf parts", "glued", {"m.gguf": b"".join(parts.values())}, "m.gguf", model="m.gguf")
        # Rows of 256 weights, for the types that need these; a tokenizer of bytes.
        wide = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "head_dim": 64}
        self.write("wide", self.checkpoint("qwen3", {"tokenizer.json": dumps(byte_level()[0])}, **wide))
        kinds = ("attn_q=q2_k", "attn_k=iq4_xs", "attn_v=q5_k", "attn_output=iq3_s", "ffn_up=q6_k", "ffn_gate=tq2_0", "ffn_down=mxfp4", "token_embd=q3_k",
                 "output=q4_k")  # fmt: skip
        self.ggufkit("quantize", "wide", "wide.gguf", "--type", "q8_0", "--force", "--effort", "fast", *(x for k in kinds for x in ("--tensor", k)))
        self.add("gguf", "types of 256", {"m.gguf": self.read("wide.gguf")["wide.gguf"]}, "m.gguf", model="m.gguf")
        quantized = {"quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}}
        self.write("bitnet", self.checkpoint("bitnet", vocabulary, packed=True, **wide, **quantized, tie_word_embeddings=True))
        self.ggufkit("quantize", "bitnet", "i2_s.gguf", "--type", "i2_s")
        self.add("gguf", "i2_s", {"m.gguf": self.read("i2_s.gguf")["i2_s.gguf"]}, "m.gguf", model="m.gguf")

        self.add("safetensors", "checkpoint", full, "model.safetensors", model=".")
        self.ggufkit("convert", "f32.gguf", "alone.safetensors", "--type", "f16")
        self.add("safetensors", "with a GGUF's metadata", {"m.safetensors": self.read("alone.safetensors")["alone.safetensors"]},
                 "m.safetensors", model="m.safetensors")  # fmt: skip
        self.ggufkit("convert", "model", "shards/", "--split-max-size", "60K")
        shards = self.read("shards")
        self.add("index", "index", shards, "model.safetensors.index.json", model=".")
        self.add("index", "by its name", shards, "model.safetensors.index.json", model="model.safetensors.index.json")
        self.add("safetensors", "shard", shards, next(n for n in shards if n.startswith("model-00002")), model=".")
        adapter = formats.safetensors([("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "F32", [2, 4], bytes(32)),
                                       ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", "F32", [4, 2], bytes(32))])  # fmt: skip
        self.add("adapter_config.json", "adapter", {"adapter_model.safetensors": adapter, "adapter_config.json": dumps(
            {"peft_type": "LORA", "r": 8, "base_model_name_or_path": "acme/base"})}, "adapter_config.json", model=".")  # fmt: skip
        self.pytorch(vocabulary)

        self.add("config.json", "llama", full, "config.json", model=".")
        yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32, "beta_slow": 1}
        llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 32}  # fmt: skip
        for family, changes in (
            ("llama", {"rope_scaling": llama3}), ("mistral", {"sliding_window": 16}), ("qwen2", {"rope_scaling": yarn}),
            ("qwen3", {"tie_word_embeddings": True}), ("bitnet", {}), ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
        ):  # fmt: skip
            self.add("config.json", family + " " + "".join(changes), self.checkpoint(family, vocabulary, **changes), "config.json", model=".")
        self.add("config.json", "bitnet packed", self.checkpoint("bitnet", vocabulary, packed=True, **quantized), "config.json", model=".")
        self.add("config.json", "MLX", self.mlx(vocabulary), "config.json", model=".")
        self.add("config.json", "alone", {"config.json": dumps(config(hidden_size=256, intermediate_size=512))}, "config.json", model=".")

        for version in (0, 1, 2):
            options = ["--type", "int8", "--group-size", "8"] if version == 2 else []
            command = ["quantize" if version == 2 else "convert", "model", f"v{version}.bin", "--bin-version", str(version), *options]
            self.ggufkit(*command)
        self.ggufkit("convert", "v1.bin", "v1big.bin", "--endian", "big")
        self.write("tied", self.checkpoint(extra=vocabulary, tie_word_embeddings=True))
        self.ggufkit("convert", "tied", "tied.bin", "--for", "ullm")
        with open(os.path.join(ROOT, "demo/tiny-tokenizer.bin"), "rb") as f:
            demo = f.read()
        own = formats.tokenizer_bin([(score, text.replace("▁", " ").encode()) for text, score in pieces()])
        for name in ("v0", "v1", "v2", "v1big", "tied"):
            self.add("llama2.c", name, {"m.bin": self.read(name + ".bin")[name + ".bin"], "t.bin": own}, "m.bin", model="m.bin", tokenizer="t.bin")
        with open(os.path.join(ROOT, "demo/tiny.bin"), "rb") as f:
            tiny = f.read()
        self.add("tokenizer.bin", "llama2.c's", {"m.bin": tiny, "t.bin": demo}, "t.bin", model="m.bin", tokenizer="t.bin")
        v0 = self.read("v0.bin")["v0.bin"]
        self.add("tokenizer.bin", "own", {"m.bin": v0, "t.bin": own}, "t.bin", model="m.bin", tokenizer="t.bin")
        big = formats.tokenizer_bin([(score, text.replace("▁", " ").encode()) for text, score in pieces()], ">")
        self.add("tokenizer.bin", "big-endian", {"m.bin": v0, "t.bin": big}, "t.bin", model="m.bin", tokenizer="t.bin")
        self.add("tokenizer.model", "of llama2.c", {"m.bin": v0, "t.model": sentencepiece()}, "t.model", model="m.bin", tokenizer="t.model")
        self.full = full

    def mlx(self, vocabulary):
        """The files of a checkpoint as MLX quantizes it: four bits, groups of 32."""
        c = config(quantization={"group_size": 32, "bits": 4, "mode": "affine"})
        stored = []
        for name, dtype, shape, data in tensors(c, self.rng):
            if len(shape) == 2:
                rows, columns = shape
                part = name.removesuffix("weight")
                stored.append((name, "U32", [rows, columns // 8], self.rng.randbytes(rows * columns // 2)))
                stored += [(part + end, "BF16", [rows, columns // 32], noise(rows * columns // 32, self.rng)) for end in ("scales", "biases")]
            else:
                stored.append((name, dtype, shape, data))
        return {"config.json": dumps(c), "model.safetensors": formats.safetensors(stored, {"format": "mlx"}), **vocabulary}

    def pytorch(self, vocabulary):
        """pytorch_model.bin with the tensors of a checkpoint, and what PyTorch itself has written."""
        c = config()
        state = [(name, shape, data) for name, _, shape, data in tensors(c, self.rng)]
        base = {"config.json": dumps(c), **vocabulary}
        self.add("pytorch_model.bin", "checkpoint", {**base, "pytorch_model.bin": torch_file(state)}, "pytorch_model.bin", model=".")
        half = len(state) // 2
        names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
        index = {"metadata": {"total_size": 1}, "weight_map": {t[0]: names[i >= half] for i, t in enumerate(state)}}
        parts = {names[0]: torch_file(state[:half]), names[1]: torch_file(state[half:])}
        self.add("index", "PyTorch's", {**base, **parts, "pytorch_model.bin.index.json": dumps(index)}, "pytorch_model.bin.index.json", model=".")
        vectors = os.path.join(ROOT, "formats/src/container/pytorch/vectors")
        for name in sorted(os.listdir(vectors)):
            with open(os.path.join(vectors, name), "rb") as f:
                self.add("pytorch_model.bin", name, {name: f.read()}, name, model=name)

    def vocabularies(self):
        """Checkpoints whose tokenizer is in the files of each kind."""
        bare = self.checkpoint()
        bytes_json, vocabulary, merges = byte_level()
        one, bpe = unigram()
        extra = {"tokenizer_config.json": dumps(TOKENIZER_CONFIG)}
        for name, value in (("bytes", bytes_json), ("unigram", one), ("bpe", bpe)):
            self.add("tokenizer.json", name, {**bare, **extra, "tokenizer.json": dumps(value)}, "tokenizer.json", model=".")
        gpt2 = {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<s>", "chat_template": TEMPLATE.decode()}
        old = {**bare, "vocab.json": dumps(vocabulary), "merges.txt": ("#version: 0.2\n" + "\n".join(merges) + "\n").encode(),
               "added_tokens.json": dumps({"<tool>": 290, "<s>": 291}),
               "tokenizer_config.json": dumps(gpt2)}  # fmt: skip
        for target in ("vocab.json", "merges.txt", "added_tokens.json"):
            self.add(target, "of GPT-2's kind", old, target, model=".")
        self.add("tokenizer.model", "checkpoint", self.full, "tokenizer.model", model=".")
        self.add("tokenizer.model", "unigram", {**self.full, "tokenizer.model": sentencepiece(True)}, "tokenizer.model", model=".")
        ranks = b"".join(base64.b64encode(bytes([b])) + b" %d\n" % b for b in range(256))
        self.add("tiktoken", "as tokenizer.model", {**bare, **extra, "tokenizer.model": ranks}, "tokenizer.model", model=".")
        self.add("tiktoken", "beside tokenizer.json", {**bare, "tokenizer_config.json": dumps(gpt2), "tokenizer.json": dumps(bytes_json), "tokenizer.model": ranks},
                 "tokenizer.model", model=".")  # fmt: skip
        for target in ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "README.md"):
            self.add(target, "checkpoint", self.full, target, model=".")
        both = {**bare, **extra, "tokenizer.json": dumps(bytes_json), "special_tokens_map.json": dumps(SPECIAL)}
        for target in ("tokenizer_config.json", "special_tokens_map.json"):
            self.add(target, "beside tokenizer.json", both, target, model=".")
        with_template = {**self.full, "chat_template.jinja": TEMPLATE, "additional_chat_templates/tool.jinja": b"{{ messages }}"}
        self.add("chat template", "chat_template.jinja", with_template, "chat_template.jinja", model=".")
        self.add("chat template", "additional", with_template, "additional_chat_templates/tool.jinja", model=".")
        json_template = {**self.full, "chat_template.json": dumps({"chat_template": TEMPLATE.decode()})}
        self.add("chat_template.json", "checkpoint", json_template, "chat_template.json", model=".")

    def others(self):
        """What is given to commands beside a model."""
        ten = ["--context", "16", "--chunks", "2", "--threads", "1"]
        self.ggufkit("calibrate", "f32.gguf", "text.txt", "-o", "i.gguf", *ten)
        self.ggufkit("calibrate", "f32.gguf", "text.txt", "-o", "i.dat", *ten)
        self.ggufkit("eval", "f32.gguf", "text.txt", "--save-logits", "base.kld", *ten)
        self.ggufkit("sensitivity", "f32.gguf", "text.txt", "-o", "s.json", "--probes", "q4_0", "--types", "q4_0,q5_0,q8_0", *ten)
        model, text = self.read("f32.gguf")["f32.gguf"], {"text.txt": TEXT}
        base = {"m.gguf": model, **text}
        self.add("imatrix", "gguf", {**base, "i.gguf": self.read("i.gguf")["i.gguf"]}, "i.gguf", model="m.gguf", imatrix="i.gguf")
        self.add("imatrix", "dat", {**base, "i.dat": self.read("i.dat")["i.dat"]}, "i.dat", model="m.gguf", imatrix="i.dat")
        self.add("logits", "base", {**base, "base.kld": self.read("base.kld")["base.kld"]}, "base.kld", model="m.gguf", logits="base.kld", text="text.txt")
        self.add("sensitivity", "file", {**base, "s.json": self.read("s.json")["s.json"]}, "s.json", model="m.gguf", sensitivity="s.json", text="text.txt")
        self.add("recipe", "mine", {**base, "r.toml": RECIPE}, "r.toml", model="m.gguf", recipe="r.toml")
        self.add("recipe", "printed", {**base, "r.toml": self.recipe()}, "r.toml", model="m.gguf", recipe="r.toml")
        self.add("text", "plain", {**base}, "text.txt", model="m.gguf", text="text.txt")
        utf16 = TEXT.decode().encode("utf-16")
        self.add("text", "UTF-16", {**base, "text.txt": utf16}, "text.txt", model="m.gguf", text="text.txt")
        strings = json.dumps([t for t, _ in pieces()]).encode()
        self.add("set-file", "strings", {**base, "v.json": strings}, "v.json", model="m.gguf", value="v.json", key="tokenizer.ggml.tokens")
        scores = json.dumps([s for _, s in pieces()]).encode()
        self.add("set-file", "floats", {**base, "v.json": scores}, "v.json", model="m.gguf", value="v.json", key="tokenizer.ggml.scores")
        self.add("set-file", "text", {**base, "v.txt": TEMPLATE}, "v.txt", model="m.gguf", value="v.txt", key="tokenizer.chat_template:str")
        for name in ("state.json", "layer-0", "layer-2", "vectors-3-0", "vectors-3-1"):
            self.add("state", name, base, "state/" + name, model="m.gguf", text="text.txt", state="state")

    def recipe(self):
        return subprocess.run([self.program, "quantize", "--print-recipe", "q3_k_m"], capture_output=True, check=True).stdout


def torch_file(state, end="<"):
    """What torch.save writes of a state dict of bfloat16 tensors, with protocol 2."""
    out = b"\x80\x02}q\x00("
    members = []
    text = lambda t: b"X" + struct.pack("<I", len(t)) + t
    for i, (name, shape, data) in enumerate(state):
        strides, n = [], 1
        for size in reversed(shape):
            strides.insert(0, n)
            n *= size
        number = lambda x: b"K" + bytes([x]) if x < 256 else b"J" + struct.pack("<i", x)
        group = lambda values: b"(" + b"".join(number(v) for v in values) + b"t"
        out += text(name.encode()) + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        out += text(b"storage") + b"ctorch\nBFloat16Storage\n" + text(str(i).encode()) + text(b"cpu") + number(n) + b"tQ"
        out += number(0) + group(shape) + group(strides) + b"\x89ccollections\nOrderedDict\n)RtR"
        members.append((f"archive/data/{i}".encode(), data))
    out += b"u."
    return formats.zip_file([(b"archive/data.pkl", out), (b"archive/byteorder", b"little"), *members, (b"archive/version", b"3\n")])
