"""What sound files consist of: settings, tensors of noise, vocabularies, texts."""

import json
import os
import struct

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
        "architectures": [classes[family] + "ForCausalLM"],
        "model_type": family,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "hidden_act": "relu2" if family == "bitnet" else "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "pad_token_id": -1,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }
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
                value = formats.protobuf([(3, 0, 1)]) + formats.protobuf([x for x in formats.read_protobuf(value) if x[0] != 3])
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
        {
            "id": 300 + i,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": i == 2,
            "normalized": False,
            "special": i < 2,
        }
        for i, text in enumerate(("<|begin_of_text|>", "<|end_of_text|>", "<tool>"))
    ]
    template = {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    value = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": split,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": list(template),
            "pair": [*template, *template],
            "special_tokens": {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [300], "tokens": ["<|begin_of_text|>"]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": vocabulary,
            "merges": merges,
        },
    }
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
    added = [
        {"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, t in enumerate(("<unk>", "<s>", "</s>"))
    ]
    metaspace = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True, "prepend_scheme": "always"}
    common = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "post_processor": None,
    }
    normalizer = {
        "type": "Sequence",
        "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}],
    }
    model = {"type": "Unigram", "unk_id": 0, "vocab": [list(p) for p in pieces()], "byte_fallback": True}
    one = {**common, "normalizer": normalizer, "pre_tokenizer": metaspace, "model": model}
    texts = [t for t, _ in pieces()]
    merges = [[a, t[len(a) :]] for t in texts for a in texts if 0 < len(a) < len(t) and t.startswith(a) and t[len(a) :] in texts]
    bpe = {
        "type": "BPE",
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
        "vocab": {t: i for i, t in enumerate(texts)},
        "merges": merges[:200],
    }
    prepend = {
        "type": "Sequence",
        "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}],
    }
    return one, {**common, "normalizer": prepend, "pre_tokenizer": None, "model": bpe}


def dumps(value):
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


TOKENIZER_CONFIG = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "eos_token": {"content": "</s>", "lstrip": False},
    "unk_token": "<unk>",
    "pad_token": None,
    "tokenizer_class": "LlamaTokenizer",
    "model_max_length": 1e30,
    "legacy": True,
    "add_prefix_space": True,
    "additional_special_tokens": ["<s>"],
    "added_tokens_decoder": {
        str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        for i, t in enumerate(("<unk>", "<s>", "</s>"))
    },
    "chat_template": [{"name": "default", "template": TEMPLATE.decode()}, {"name": "tool_use", "template": "{{ messages }}"}],
}
SPECIAL = {"bos_token": {"content": "<s>", "single_word": False}, "eos_token": "</s>", "additional_special_tokens": ["<s>"]}
GENERATION = {
    "bos_token_id": 1,
    "eos_token_id": [2],
    "temperature": 0.6,
    "top_p": 0.9,
    "top_k": 40,
    "do_sample": True,
    "repetition_penalty": 1.1,
}


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
    return formats.zip_file(
        [(b"archive/data.pkl", out), (b"archive/byteorder", b"little"), *members, (b"archive/version", b"3\n")]
    )
