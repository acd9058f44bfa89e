#!/usr/bin/env python3
"""Compares ggufkit's plans with those of llama.cpp's llama-quantize, for every file type.

    compare_plans.py GGUFKIT LLAMA_BIN_FOLDER [CONFIG_FOLDER ...]

CONFIG_FOLDER holds the config.json of a published model; of each, a GGUF with the model's shapes and no weights (the
file is a hole) is made in a temporary folder, and both programs say what they would make of it (--dry-run). Three
further models are made up: eight experts (as in Mixtral), sixteen, and Falcon. Exits with 1 if anything differs.
"""

import json
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

TYPES = """Q1_0 Q2_0 Q4_0 Q4_1 MXFP4_MOE Q5_0 Q5_1 IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ1_S IQ1_M TQ1_0 TQ2_0 Q2_K Q2_K_S
IQ3_XXS IQ3_S IQ3_M IQ3_XS Q3_K Q3_K_S Q3_K_M Q3_K_L IQ4_NL IQ4_XS Q4_K Q4_K_S Q4_K_M Q5_K Q5_K_S Q5_K_M Q6_K Q8_0
F16 BF16 F32""".split()

KINDS = {"u8": (0, "<B"), "i8": (1, "<b"), "u16": (2, "<H"), "i16": (3, "<h"), "u32": (4, "<I"), "i32": (5, "<i"),
         "f32": (6, "<f"), "bool": (7, "<?"), "u64": (10, "<Q"), "i64": (11, "<q"), "f64": (12, "<d")}
FLOATS = {"f32": (0, 4), "f16": (1, 2)}


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def write(path, metadata, tensors):
    """A GGUF of `(key, kind, value)` and `(name, shape, type)`, shapes outermost first, whose weights are a hole."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, kind, value in metadata:
        if kind == "str":
            head += text(key) + struct.pack("<I", 8) + text(value)
        else:
            number, form = KINDS[kind]
            head += text(key) + struct.pack("<I", number) + struct.pack(form, value)
    at = 0
    for name, shape, kind in tensors:
        number, size = FLOATS[kind]
        dims = list(reversed(shape))
        head += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        head += struct.pack("<IQ", number, at)
        for n in dims:
            size *= n
        at += -(-size // 32) * 32
    with open(path, "wb") as f:
        f.write(head)
        f.truncate(-(-len(head) // 32) * 32 + at)


def published(ggufkit, folder, path):
    """The model of a config.json."""
    plan = json.loads(run([ggufkit, "convert", folder, "x.gguf", "--type", "f16", "--dry-run", "--json"]))
    metadata = [m for m in plan["metadata"] if m[1] != "array"]
    write(path, metadata, [(t["name"], t["shape"], t["type"]) for t in plan["tensors"]])


def made_up(arch, experts, path):
    """A small model: Falcon, or a llama with experts."""
    layers, wide, heads, keys = 32, 512, 8, 2
    metadata = [("general.architecture", "str", arch), ("tokenizer.ggml.model", "str", "no_vocab")]
    for key, kind, value in [
        ("block_count", "u32", layers), ("context_length", "u32", 512), ("embedding_length", "u32", wide),
        ("feed_forward_length", "u32", 2 * wide), ("attention.head_count", "u32", heads),
        ("attention.head_count_kv", "u32", keys), ("attention.layer_norm_rms_epsilon", "f32", 1e-5),
        ("attention.layer_norm_epsilon", "f32", 1e-5), ("vocab_size", "u32", 1024),
        ("rope.dimension_count", "u32", wide // heads),
    ] + ([("expert_count", "u32", experts), ("expert_used_count", "u32", 2)] if experts else []):
        metadata.append((f"{arch}.{key}", kind, value))
    tensors = [(n, [1024, wide], "f16") for n in ("token_embd.weight", "output.weight")]
    tensors.append(("output_norm.weight", [wide], "f32"))
    for i in range(layers):
        small = keys * wide // heads
        layer = [("attn_norm", [wide], "f32"), ("attn_output", [wide, wide], "f16")]
        if arch == "falcon":
            layer += [("attn_qkv", [wide + 2 * small, wide], "f16"), ("ffn_up", [2 * wide, wide], "f16"),
                      ("ffn_down", [wide, 2 * wide], "f16")]
        else:
            layer += [("attn_q", [wide, wide], "f16"), ("attn_k", [small, wide], "f16"),
                      ("attn_v", [small, wide], "f16"), ("ffn_norm", [wide], "f32"),
                      ("ffn_gate_inp", [experts, wide], "f32"), ("ffn_gate_exps", [experts, 2 * wide, wide], "f16"),
                      ("ffn_up_exps", [experts, 2 * wide, wide], "f16"),
                      ("ffn_down_exps", [experts, wide, 2 * wide], "f16")]
        tensors += [(f"blk.{i}.{name}.weight", shape, kind) for name, shape, kind in layer]
    write(path, metadata, tensors)


def run(args):
    return subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True).stdout


LINE = re.compile(r"^\[ *\d+/ *\d+\] +(\S+) +- \[.*?\], type = +(\S+), size = .*?(?:\((\w+)\))?$")


def theirs(bin_folder, path, kind):
    """What llama-quantize would make: a type for each tensor, or why it would not."""
    for _ in range(3):  # its output is cut off now and then
        done = subprocess.run([f"{bin_folder}/llama-quantize", "--dry-run", path, kind], capture_output=True, text=True)
        lines = (done.stdout + done.stderr).splitlines()
        if done.returncode != 0:
            why = [line for line in lines if "failed to quantize" in line]
            return None, (why or lines or ["no output"])[-1].strip()
        found = [m.groups() for m in map(LINE.match, lines) if m]
        total = [int(m[1]) for m in (re.match(r"^\[ *\d+/ *(\d+)\]", line) for line in lines) if m]
        if found and len(found) == total[0]:
            return {name: (new or old).lower() for name, old, new in found}, None
    return None, "its output could not be read"


def compare(ggufkit, bin_folder, name, path):
    same, differing, refused = 0, [], []
    for kind in TYPES:
        plan = json.loads(run([ggufkit, "quantize", path, f"{path}.out.gguf", "--type", kind.lower(), "--dry-run", "--json"]))
        ours = {t["name"]: (t["type"], t["rule"]) for t in plan["tensors"]}
        wanted, why = theirs(bin_folder, path, kind)
        if wanted is None:
            refused.append(f"{kind} ({why})")
            continue
        wrong = [f"{kind} {t}: {wanted.get(t)}, we {found} ({rule})" for t, (found, rule) in ours.items()
                 if wanted.get(t) != found]
        if wrong or set(ours) != set(wanted):
            differing += wrong or [f"{kind}: other tensors"]
        else:
            same += 1
    print(f"{name}: {same} of {len(TYPES)} types give the same plan ({len(ours)} tensors)")
    for line in refused:
        print(f"  llama-quantize refuses {line}")
    for line in differing[:20]:
        print(f"  differs: {line}")
    return not differing


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    ggufkit, bin_folder, *configs = sys.argv[1:]
    good = True
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.gguf"
        for config in configs:
            published(ggufkit, config, path)
            good &= compare(ggufkit, bin_folder, Path(config).name, path)
        for name, arch, experts in [("8 experts", "llama", 8), ("16 experts", "llama", 16), ("falcon", "falcon", 0)]:
            made_up(arch, experts, path)
            good &= compare(ggufkit, bin_folder, name, path)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
