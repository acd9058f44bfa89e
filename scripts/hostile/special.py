"""Hostile inputs that are made on purpose, for each kind of file. `of(seed, bulk)` gives pairs of a name and a function that
makes the target's bytes; `bulk` is how many bytes those have that are of many small things."""

import os
import stat

import special_binary as binary
import special_texts as texts

# What can be in place of a file: names of what `place` makes.
NATURES = ("empty", "folder", "pipe", "loop", "nowhere", "device", "endless", "sparse", "unreadable", "outside")
# Kinds whose files are JSON, or may be.
JSON = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
    "vocab.json",
    "chat_template.json",
    "adapter_config.json",
    "index",
    "sensitivity",
    "set-file",
    "state",
)
# Names that a file can have.
NAMES = [
    b"x" * 250 + b".gguf",
    b"\x1b[2J\x1b]0;x\x07.gguf",
    "\u202ex\u2066\u200b.gguf".encode(),
    b"\xff\xfe\xc3(.gguf",
    b"-o.gguf",
    b"a\nb.gguf",
    b"' \"$(id)`;.gguf",
    b"%s%n{}.gguf",
    b".gguf",
    b"m-00001-of-00003.gguf",
    b"m-00001-of-18446744073709551615.gguf",
    b"m-00000-of-00000.gguf",
    b"m-00001-of-99999.safetensors",
    b"m-99999999999999999999-of-00002.gguf",
    b"m.gguf.part1of4000000000",
    b"model.safetensors.index.json",
    b"pytorch_model.bin",
    b"x.SAFETENSORS",
    b"x.GGUF.",
    b"imatrix.dat",
]


def place(path, nature, data):
    """Puts something else in the place of a file."""
    if nature == "empty":
        open(path, "wb").close()
    elif nature == "folder":
        os.makedirs(path)
    elif nature == "pipe":
        os.mkfifo(path)
    elif nature == "loop":
        os.symlink(os.path.basename(path), path)
    elif nature == "nowhere":
        os.symlink("nowhere", path)
    elif nature == "device":
        os.symlink("/dev/null", path)
    elif nature == "endless":
        os.symlink("/dev/zero", path)
    elif nature == "outside":
        os.symlink("/etc/passwd" if os.path.exists("/etc/passwd") else __file__, path)
    else:
        with open(path, "wb") as f:
            f.write(data)
            if nature == "sparse":
                f.truncate(1 << 40)
        if nature == "unreadable":
            os.chmod(path, 0)


def sparse_size(path):
    """The bytes of a file that are on the disk."""
    s = os.lstat(path)
    return min(s.st_size, s.st_blocks * 512) if stat.S_ISREG(s.st_mode) else 0


# What makes inputs of a kind.
MADE = {
    "gguf": binary.gguf,
    "gguf parts": binary.gguf_parts,
    "safetensors": binary.safetensors,
    "index": binary.index,
    "pytorch_model.bin": binary.pytorch,
    "llama2.c": binary.llama2c,
    "tokenizer.bin": binary.tokenizer_bin,
    "tokenizer.model": binary.sentencepiece,
    "logits": binary.logits,
    "imatrix": binary.imatrix,
    "chat template": texts.templates,
    "recipe": texts.recipes,
    "text": texts.texts,
    "README.md": texts.cards,
    "merges.txt": texts.merges,
    "tiktoken": texts.tiktoken,
}


def of(seed, bulk):
    data = seed.files.get(seed.target)
    found = list(MADE[seed.kind](seed, data, bulk)) if seed.kind in MADE else []
    if is_json(seed.kind, data):
        found += texts.json_files(seed, data, bulk)
    return found


def is_json(kind, data):
    """Whether a file of the kind is JSON: a few kinds have others too."""
    return kind in JSON and data is not None and data[:1] in (b"{", b"[") and data[:2] != b"{%"
