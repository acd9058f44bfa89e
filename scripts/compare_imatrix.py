#!/usr/bin/env python3
"""Compares what `ggufkit calibrate` measures with what llama.cpp's llama-imatrix does.

    compare_imatrix.py GGUFKIT PEER_BIN MODEL.gguf TEXT [--context N] [--chunks N] [--type TYPE] [--tolerance X]

Both read the same chunks of TEXT. Tensors, tokens, chunks and sizes must be the same, and every mean square within the
tolerance (relative). Then llama-quantize packs the model (as TYPE) once with either file, and ggufkit with its own: says
how many bytes differ. Exits with 1 if anything but those bytes does.
"""

import argparse
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
NUMBERS = {4: "<I", 5: "<i", 10: "<Q", 11: "<q"}


class Gguf:
    """The whole numbers, texts and f32 tensors of a GGUF."""

    def __init__(self, path):
        self.bytes, self.at = Path(path).read_bytes(), 4
        _, tensors, keys = self.take("<I"), self.take("<Q"), self.take("<Q")
        self.metadata = {self.text(): self.value(self.take("<I")) for _ in range(keys)}
        heads = [(self.text(), [self.take("<Q") for _ in range(self.take("<I"))], self.take("<I"), self.take("<Q"))
                 for _ in range(tensors)]
        start = -(-self.at // 32) * 32
        self.tensors = {}
        for name, shape, kind, at in heads:
            n = 1
            for dim in shape:
                n *= dim
            if kind == 0:
                self.tensors[name] = struct.unpack_from(f"<{n}f", self.bytes, start + at)

    def take(self, form):
        value = struct.unpack_from(form, self.bytes, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def text(self):
        n = self.take("<Q")
        self.at += n
        return self.bytes[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            kind = self.take("<I")
            return [self.value(kind) for _ in range(self.take("<Q"))]
        if kind in NUMBERS:
            return self.take(NUMBERS[kind])
        self.at += SIZES[kind]
        return None


def run(command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout.decode(errors='replace')[-2000:]}")


def means(imatrix, name):
    count = imatrix.tensors[name + ".counts"][0]
    return count, [x / count for x in imatrix.tensors[name + ".in_sum2"]]


def main():
    a = argparse.ArgumentParser()
    for name in ("ggufkit", "peer", "model", "text"):
        a.add_argument(name, type=Path)
    a.add_argument("--context", type=int, default=512)
    a.add_argument("--chunks", type=int)
    a.add_argument("--type", default="q4_k_m")
    a.add_argument("--tolerance", type=float, default=1e-3)
    a = a.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        theirs, ours = folder / "peer.gguf", folder / "ours.gguf"  # names of one length: they go into metadata
        limit = ["--chunks", a.chunks] if a.chunks else []
        run([a.peer / "llama-imatrix", "--no-repack", "-m", a.model, "-f", a.text, "-c", a.context, "--process-output",
             "--no-ppl", "-o", theirs, *limit])
        run([a.ggufkit, "calibrate", a.model, a.text, "--context", a.context, "--output-matrix", "-o", ours, *limit])
        peer, own = Gguf(theirs), Gguf(ours)
        same = True
        for key in ("general.type", "imatrix.chunk_count", "imatrix.chunk_size"):
            if peer.metadata[key] != own.metadata[key]:
                same = False
                print(f"{key}: {peer.metadata[key]}, ggufkit {own.metadata[key]}")
        tied = {"token_embd.weight.in_sum2", "token_embd.weight.counts"}  # which llama-imatrix does not measure
        if set(peer.tensors) != set(own.tensors) - (tied - set(peer.tensors)):
            same = False
            print(f"tensors: {sorted(set(peer.tensors) ^ set(own.tensors))}")
        worst, total, squares = (0.0, ""), 0, 0.0
        for name in sorted(n.removesuffix(".counts") for n in peer.tensors if n.endswith(".counts")):
            (n, x), (m, y) = means(peer, name), means(own, name)
            if n != m or len(x) != len(y):
                same = False
                print(f"{name}: {n} tokens and {len(x)} columns, ggufkit {m} and {len(y)}")
                continue
            for i, (p, q) in enumerate(zip(x, y)):
                difference = abs(p - q) / max(p, 1e-30)
                worst = max(worst, (difference, f"{name} {i}: {p:.9g}, ggufkit {q:.9g}"))
                total, squares = total + 1, squares + difference * difference
        chunks, size = own.metadata["imatrix.chunk_count"], own.metadata["imatrix.chunk_size"]
        print(f"{total} values, {chunks} chunks of {size}; relative difference: largest {worst[0]:.3g} ({worst[1]}), "
              f"root mean square {(squares / total) ** 0.5:.3g}")
        same &= worst[0] <= a.tolerance
        made = []
        for name, imatrix in (("peer", theirs), ("ours", ours)):
            out = folder / f"q-{name}.gguf"
            run([a.peer / "llama-quantize", "--imatrix", imatrix, a.model, out, a.type])
            made.append(out.read_bytes())
        # Metadata has the imatrix's name.
        differ, n = sum(x != y for x, y in zip(*made)), len(made[0])
        same &= n == len(made[1])
        print(f"llama-quantize as {a.type}: {differ} of {n} bytes differ between the two ({100 * differ / n:.4f} %)")
        run([a.ggufkit, "quantize", a.model, folder / "own.gguf", "--type", a.type, "--imatrix", ours])
    sys.exit(not same)


if __name__ == "__main__":
    main()
