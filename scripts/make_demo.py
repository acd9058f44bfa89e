#!/usr/bin/env python3
"""Makes demo/tiny.bin and demo/tiny-tokenizer.bin: a llama2.c checkpoint (version 0) of random weights and a
vocabulary to go with it, for the README's first command and the tests. The same bytes on every run.

    python3 scripts/make_demo.py [FOLDER]
"""
import array
import math
import pathlib
import random
import struct
import sys

DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCAB, SEQ = 64, 176, 3, 4, 2, 512, 128
rng = random.Random(1998)


def floats(values):
    a = array.array("f", values)
    if sys.byteorder == "big":
        a.byteswap()
    return a.tobytes()


def single(x):
    """x as the nearest float32."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def matrix(rows, cols, layers=1):
    """Normal weights with the spread of a trained layer, and now and then an outlier."""
    scale = cols ** -0.5
    return floats(rng.gauss(0, scale) * (8 if rng.random() < 0.001 else 1) for _ in range(rows * cols * layers))


def norm(layers=1):
    return floats(1 + rng.gauss(0, 0.1) for _ in range(DIM * layers))


def checkpoint():
    kv, head = DIM * KV_HEADS // HEADS, DIM // HEADS
    parts = [struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCAB, SEQ), matrix(VOCAB, DIM), norm(LAYERS)]
    parts += [matrix(rows, DIM, LAYERS) for rows in (DIM, kv, kv, DIM)]
    parts += [norm(LAYERS), matrix(HIDDEN, DIM, LAYERS), matrix(DIM, HIDDEN, LAYERS), matrix(HIDDEN, DIM, LAYERS), norm()]
    # In float32, as llama2.c's exporter computes them; readers skip these tables.
    frequencies = [single(1 / 10000 ** (2 * i / head)) for i in range(head // 2)]
    angles = [single(p * f) for p in range(SEQ) for f in frequencies]
    parts += [floats(map(math.cos, angles)), floats(map(math.sin, angles))]
    return b"".join(parts)


def tokenizer():
    tokens = [b"<unk>", b"\n<s>\n", b"\n</s>\n"] + [b"<0x%02X>" % b for b in range(256)]
    letters = " etaoinshrdlucmfwypvbgkjqxz.,!?'\"ETAOINSHRDLUCMFWYPVBGK0123456789"
    pieces = list(letters) + [" " + c for c in letters[1:27]] + [a + b for a in "etaoinshrdlu" for b in letters[1:17]]
    seen = dict.fromkeys(pieces)
    tokens += [p.encode() for p in seen][: VOCAB - len(tokens)]
    assert len(tokens) == VOCAB and len(set(tokens)) == VOCAB
    out = struct.pack("<I", max(map(len, tokens)))
    for i, t in enumerate(tokens):
        out += struct.pack("<fI", float(min(0, 259 - i)), len(t)) + t
    return out


folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent / "demo")
folder.mkdir(parents=True, exist_ok=True)
(folder / "tiny.bin").write_bytes(checkpoint())
(folder / "tiny-tokenizer.bin").write_bytes(tokenizer())
print(f"{folder}/tiny.bin, {folder}/tiny-tokenizer.bin")
