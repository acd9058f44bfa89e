"""Hostile inputs that are made on purpose, for each kind of file. `of(seed, bulk)` gives pairs of a name and a function that
makes the target's bytes; `bulk` is how many bytes those have that are of many small things."""

import json
import os
import stat
import struct

import formats
from damage import FLOATS, NUMBERS, TEXTS

# What can be in place of a file: names of what `place` makes.
NATURES = ("empty", "folder", "pipe", "loop", "nowhere", "device", "endless", "sparse", "unreadable", "outside")
# Kinds whose files are JSON, or may be.
JSON = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json",
        "vocab.json", "chat_template.json", "adapter_config.json", "index", "sensitivity", "set-file", "state")  # fmt: skip
# Names that a file can have.
NAMES = [b"x" * 250 + b".gguf", b"\x1b[2J\x1b]0;x\x07.gguf", "\u202ex\u2066\u200b.gguf".encode(), b"\xff\xfe\xc3(.gguf", b"-o.gguf", b"a\nb.gguf",
         b"' \"$(id)`;.gguf", b"%s%n{}.gguf", b".gguf", b"m-00001-of-00003.gguf", b"m-00001-of-18446744073709551615.gguf", b"m-00000-of-00000.gguf",
         b"m-00001-of-99999.safetensors", b"m-99999999999999999999-of-00002.gguf", b"m.gguf.part1of4000000000", b"model.safetensors.index.json",
         b"pytorch_model.bin", b"x.SAFETENSORS", b"x.GGUF.", b"imatrix.dat"]  # fmt: skip


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


def of(seed, bulk):
    made = {"gguf": gguf, "gguf parts": gguf_parts, "safetensors": safetensors, "index": index, "pytorch_model.bin": pytorch, "llama2.c": llama2c,
            "tokenizer.bin": tokenizer_bin, "tokenizer.model": sentencepiece, "logits": logits, "imatrix": imatrix, "chat template": templates,
            "recipe": recipes, "text": texts, "README.md": cards, "merges.txt": merges, "tiktoken": tiktoken}  # fmt: skip
    data = seed.files.get(seed.target)
    found = list(made[seed.kind](seed, data, bulk)) if seed.kind in made else []
    if is_json(seed.kind, data):
        found += json_files(seed, data, bulk)
    return found


def is_json(kind, data):
    """Whether a file of the kind is JSON: a few kinds have others too."""
    return kind in JSON and data is not None and data[:1] in (b"{", b"[") and data[:2] != b"{%"


def many(text, bulk):
    """`text`, in which {} is a number, as often as it takes for so many bytes."""
    return b"".join(text.replace(b"{}", b"%d" % i) for i in range(max(bulk // (len(text) + 4), 1)))


def nested(bulk):
    for n in (100, 10_000, bulk // 2):
        yield f"[ {n} deep", lambda n=n: b"[" * n
        yield f"[] {n} deep", lambda n=n: b"[" * n + b"]" * n
        yield f"objects {n} deep", lambda n=n: b'{"a":' * (n // 5) + b"1" + b"}" * (n // 5)


def json_files(seed, data, bulk):
    """Every key with a value of every other type, and trees of many small things."""
    value = json.loads(data)
    found = list(nested(bulk))
    for name, text in (
        ("many keys", lambda: b"{" + many(b'"k{}":0,', bulk) + b'"a":0}'),
        ("one key many times", lambda: b"{" + many(b'"a":0,', bulk) + b'"a":0}'),
        ("many numbers", lambda: b"[" + many(b"0,", bulk) + b"0]"),
        ("many small lists", lambda: b"[" + many(b"[],", bulk) + b"[]]"),
        ("many empty texts", lambda: b"[" + many(b'"",', bulk) + b'""]'),
        ("one long text", lambda: b'{"a":"' + b"x" * bulk + b'"}'),
        ("many escapes", lambda: b'{"a":"' + b"\\u0041" * (bulk // 6) + b'"}'),
        ("a long number", lambda: b"[" + b"9" * bulk + b"]"),
        ("spaces", lambda: b" " * bulk + data),
    ):
        found.append((name, text))
    inner = dict(walk(value)) if isinstance(value, dict) else {}
    shapes = (b"null", b"true", b"-1", b"1e300", b"18446744073709551615", b'"x"', b"[]", b"{}", b"[[1]]", b"NaN")
    for path in list(inner)[:60]:
        for text in shapes:
            found.append((f"{'.'.join(map(str, path))} = {text.decode()}", lambda path=path, text=text: replaced(value, path, text)))
    # Lists and objects of the file itself with many more of what is in them.
    for path, v in list(inner.items()):
        if isinstance(v, (list, dict)) and v and len(path) < 4:
            found.append((f"many in {'.'.join(map(str, path))}", lambda path=path, v=v: replaced(value, path, grown(v, bulk))))
            found.append((f"many numbers in {'.'.join(map(str, path))}", lambda path=path: replaced(value, path, b"[" + many(b"{},", bulk) + b"0]")))
            for depth in (100, 100_000):
                found.append((f"deep {'.'.join(map(str, path))}", lambda path=path, d=depth: replaced(value, path, b"[" * d + b"]" * d)))
    return found


def walk(value, at=()):
    for key in value:
        yield (*at, key), value[key]
        if isinstance(value[key], dict) and len(value[key]) < 30:
            yield from walk(value[key], (*at, key))


def replaced(value, path, text):
    """A JSON value with the text at a path."""
    value = json.loads(json.dumps(value))
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = "@@here@@"
    return json.dumps(value).encode().replace(b'"@@here@@"', text)


def grown(value, bulk):
    """A list or an object of many more of its own elements, with numbers in their keys and texts."""
    if isinstance(value, dict):
        key, v = next(iter(value.items()))
        item = json.dumps({key: v})[1:-1]
        last = json.dumps(key)[1:-1]
        return b"{" + many(item.replace(last, last + "{}", 1).encode() + b",", bulk) + item.encode() + b"}"
    item = json.dumps(value[-1])
    if item.isdigit():
        return b"[" + many(b"{},", bulk) + item.encode() + b"]"
    at = item.find('"', 1) if item.startswith('"') else item.find('"', item.find(': "') + 3) if ': "' in item else -1
    numbered = item[:at] + "{}" + item[at:] if at > 0 else item
    return b"[" + many(numbered.encode() + b",", bulk) + item.encode() + b"]"


def gguf(seed, data, bulk):
    g, version, end, _ = formats.read_gguf(data)

    def changed(metadata=None, tensors=None, drop=(), body=None, **counts):
        kept = [p for p in g.metadata if p[0] not in drop]
        new = formats.Gguf([*kept, *(metadata or [])], g.tensors if tensors is None else tensors, g.data if body is None else body, g.alignment)
        return new.write(version, end, **counts)

    first = g.tensors[0]
    little = max(bulk // 40, 10)
    found = [
        ("many keys", lambda: changed([[b"k%d" % i, formats.U8, 1] for i in range(little)])),
        ("many strings", lambda: changed([[b"s", formats.ARRAY, [formats.STRING, [b""] * (bulk // 8)]]])),
        ("many arrays", lambda: changed([[b"a", formats.ARRAY, [formats.ARRAY, [[formats.U8, []]] * (bulk // 12)]]])),
        ("many bytes", lambda: changed([[b"b", formats.ARRAY, [formats.U8, [7] * bulk]]])),
        ("many bools", lambda: changed([[b"b", formats.ARRAY, [formats.BOOL, [2] * bulk]]])),
        ("many tensors", lambda: changed(tensors=[*g.tensors, *([b"t%d" % i, [0], 0, 0] for i in range(little))])),
        ("many small tensors", lambda: changed(tensors=[*g.tensors, *([b"t%d" % i, [1], 0, len(g.data) + 32 * i] for i in range(little))],
                                               body=g.data + bytes(32 * little))),
        ("tensors of many layers", lambda: changed(tensors=[*g.tensors, *([b"blk.%d.attn_q.weight" % i, first[1], first[2], 0] for i in range(3, 3 + little))])),
        ("a long key", lambda: changed([[b"k" * bulk, formats.U8, 1]])),
        ("a long value", lambda: changed([[b"k", formats.STRING, b"v" * bulk]])),
        ("a value of escapes", lambda: changed([[b"k", formats.STRING, b"\x1b" * bulk]])),
        ("a long name", lambda: changed(tensors=[[b"n" * bulk, *first[1:]], *g.tensors[1:]])),
        ("a name of escapes", lambda: changed(tensors=[[b"\x1b[2J\xe2\x80\xae" * 5, *first[1:]], *g.tensors[1:]])),
        ("nothing", lambda: formats.Gguf([], [], b"").write(version, end)),
        ("no metadata", lambda: formats.Gguf([], g.tensors, g.data).write(version, end)),
        ("no tensors", lambda: formats.Gguf(g.metadata, [], b"").write(version, end)),
    ]  # fmt: skip
    for n in (1 << 16, 1 << 31, (1 << 63) - 1, (1 << 64) - 1):
        n &= 0xFFFFFFFF if version == 1 else (1 << 64) - 1
        found += [(f"{n} {what}", lambda n=n, what=what: changed(**{what: n})) for what in ("said_tensors", "said_pairs")]
    numbers = [p for p in g.metadata if p[1] in (formats.U32, formats.F32) and b"general." not in p[0]]
    for key, kind, _ in numbers:
        for value in NUMBERS if kind == formats.U32 else FLOATS:
            if kind == formats.F32 or value < 1 << 32:
                found.append((f"{key.decode()} = {value}", lambda k=key, t=kind, v=value: changed([[k, t, v]], drop=(k,))))
    for key, kind, value in g.metadata:
        if kind == formats.ARRAY and value[0] == formats.STRING:
            for name, texts in (("one byte", [b"a"] * len(value[1])), ("long", [b"b" * 70_000] * 9), ("grown", value[1] + [b"w%d" % i for i in range(bulk // 12)]),
                                ("one long", [b"ab" * (bulk // 2)] * 1 + value[1][1:]), ("no UTF-8", [b"\xff\xfe"] * len(value[1])), ("empty", [b""] * len(value[1]))):  # fmt: skip
                found.append((f"{key.decode()}: {name}", lambda k=key, t=texts: changed([[k, formats.ARRAY, [formats.STRING, t]]], drop=(k,))))
    for text in TEXTS:
        for key in (b"general.name", b"general.architecture", b"tokenizer.ggml.model", b"tokenizer.ggml.pre", b"tokenizer.chat_template"):
            found.append((f"{key.decode()} = {text[:20]!r}", lambda k=key, t=text: changed([[k, formats.STRING, t]], drop=(k,))))
    for kind in (*range(44), 100, 0xFFFFFFFF):
        found.append((f"type {kind}", lambda kind=kind: changed(tensors=[[first[0], first[1], kind, first[3]], *g.tensors[1:]])))
    return found


def gguf_parts(seed, data, bulk):
    g, version, end, _ = formats.read_gguf(data)
    for no in (0, 1, 2, 65535):
        for count in (0, 1, 3, 65535):
            kept = [p for p in g.metadata if not p[0].startswith(b"split.")]
            split = [[b"split.no", 2, no], [b"split.count", 2, count], [b"split.tensors.count", 5, rng_free(no, count)]]
            yield f"part {no} of {count}", lambda kept=kept, split=split: formats.Gguf(kept + split, g.tensors, g.data).write(version, end)
    yield "all parts in one", lambda: b"".join(seed.files[n] for n in sorted(seed.files))
    yield "another part", lambda: seed.files[sorted(seed.files)[-1]]


def rng_free(no, count):
    """A number of tensors that is now and then right."""
    return 21 if no == count - 1 else (no * 7919 + count) % 3 - 1


def safetensors(seed, data, bulk):
    (n,) = struct.unpack_from("<Q", data)
    header, body = json.loads(data[8 : 8 + n]), data[8 + n :]
    of = formats.safetensors_of
    for length in NUMBERS:
        yield f"header of {length}", lambda length=length: of(data[8 : 8 + n], body, length)
    for name, text in nested(bulk):
        yield f"header: {name}", lambda text=text: of(text(), body)
    entry = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    yield "many tensors", lambda: of(b"{" + many(b'"t{}":' + entry + b",", bulk) + b'"a":' + entry + b"}", b"")
    yield "one tensor many times", lambda: of(b"{" + many(b'"t":' + entry + b",", bulk) + b'"t":' + entry + b"}", b"")
    yield "many layers", lambda: of(b"{" + many(b'"model.layers.{}.self_attn.q_proj.weight":' + entry + b",", bulk) + b'"a":' + entry + b"}", b"")
    yield "much metadata", lambda: of(b'{"__metadata__":{' + many(b'"k{}":"",', bulk) + b'"a":""}}', b"")
    yield "a deep shape", lambda: of(b'{"a":{"dtype":"F32","shape":[' + b"1," * (bulk // 2) + b'1],"data_offsets":[0,4]}}', b"1234")
    yield "many keys of a tensor", lambda: of(b'{"a":{"dtype":"F32",' + many(b'"k{}":0,', bulk) + b'"shape":[1],"data_offsets":[0,4]}}', b"1234")
    first = next(k for k in header if k != "__metadata__")
    for text in TEXTS:
        name = text.decode("utf-8", "replace")
        yield f"a tensor called {text[:20]!r}", lambda name=name: of(json.dumps({**{k: v for k, v in header.items() if k != first}, name: header[first]}).encode(), body)
    for dtype in ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "F64", "I64", "U64", "C64", "", "\x1b[2J"):
        yield f"dtype {dtype!r}", lambda dtype=dtype: of(json.dumps({**header, first: {**header[first], "dtype": dtype}}).encode(), body)
    for shape in ([], [0], [0, 1 << 62], [1 << 63, 2], [1 << 32, 1 << 32], [-1], [1.5], [1] * 100, ["1"], [[1]], None):
        yield f"shape {str(shape)[:30]}", lambda shape=shape: of(json.dumps({**header, first: {**header[first], "shape": shape}}).encode(), body)
    for offsets in ([0, 0], [1, 0], [0, 1 << 63], [(1 << 64) - 1, (1 << 64) - 1], [-4, 0], [0], [0, 4, 8], None, [0.0, 4.0], [len(body), len(body) + 4]):
        yield f"offsets {offsets}", lambda offsets=offsets: of(json.dumps({**header, first: {**header[first], "data_offsets": offsets}}).encode(), body)


def index(seed, data, bulk):
    value = json.loads(data)
    names = value["weight_map"]
    first = next(iter(names))
    for name in ("../../../etc/passwd", "/etc/passwd", "/dev/zero", "", ".", "..", "a/../b", "\0", "x" * 300, "\x1b[2J", "nowhere.safetensors",
                 "model.safetensors.index.json", "config.json", "C:\\x", "//host/x"):  # fmt: skip
        yield f"a shard called {name[:20]!r}", lambda name=name: json.dumps({**value, "weight_map": {**names, first: name}}).encode()
        yield f"all shards called {name[:20]!r}", lambda name=name: json.dumps({**value, "weight_map": dict.fromkeys(names, name)}).encode()
    shard = json.dumps(names[first]).encode()
    yield "many tensors", lambda: b'{"weight_map":{' + many(b'"t{}":' + shard + b",", bulk) + b'"a":' + shard + b"}}"
    yield "many shards", lambda: b'{"weight_map":{' + many(b'"t{}":"s{}.safetensors",', bulk) + b'"a":' + shard + b"}}"
    yield "no shards", lambda: b'{"weight_map":{}}'


def pytorch(seed, data, bulk):
    import seeds as own
    state = [("w", [2, 2], b"12345678")]
    sound = own.torch_file(state)
    start = sound.index(b"\x80\x02")
    program = sound[start : sound.index(b"PK", start)]
    storage = [(b"archive/data/0", b"12345678")]

    def with_program(p, members=storage, **changes):
        return formats.zip_file([(b"archive/data.pkl", p), *members], **changes)

    yield "small", lambda: sound
    for name, p in (
        ("deep lists", lambda: b"\x80\x02" + b"]" * bulk + b"a" * (bulk // 2) + b"."),
        ("deep tuples", lambda: b"\x80\x02)" + b"\x85" * bulk + b"."),
        ("marks", lambda: b"\x80\x02" + b"(" * bulk + b"."),
        ("doubled", lambda: b"\x80\x02]" + b"2a" * (bulk // 2) + b"."),
        ("a list in itself", lambda: b"\x80\x02]q\0h\0a."),
        ("a tuple of doubles", lambda: b"\x80\x02)" + b"2\x86" * (bulk // 2) + b"."),
        ("many names", lambda: b"\x80\x02}(" + many(b"X\4\0\0\0nameN", bulk) + b"u."),
        ("many memos", lambda: b"\x80\x04N" + b"\x94" * bulk + b"."),
        ("a far memo", lambda: b"\x80\x02Nr\xff\xff\xff\x7f."),
        ("many calls", lambda: b"\x80\x02" + b"ca\nb\n)R" * (bulk // 8) + b"."),
        ("a call", lambda: b"\x80\x02cposix\nsystem\nX\2\0\0\0id\x85R."),
        ("a long text", lambda: b"\x80\x02X" + struct.pack("<I", bulk) + b"x" * bulk + b"."),
        ("a text without an end", lambda: b"\x80\x02X\xff\xff\xff\xffabc."),
        ("long integers", lambda: b"\x80\x02\x8b" + struct.pack("<i", bulk) + b"\x7f" * bulk + b"."),
        ("negative length", lambda: b"\x80\x02\x8b\xff\xff\xff\xff."),
        ("no stop", lambda: b"\x80\x02N"), ("nothing", lambda: b""), ("stop", lambda: b"."), ("protocol 255", lambda: b"\x80\xff."), ("pops", lambda: b"\x80\x02" + b"0" * 1000 + b"."),
        ("frames", lambda: b"\x80\x04\x95" + b"\xff" * 8 + b"N."), ("many builds", lambda: b"\x80\x02}" + b"}b" * (bulk // 2) + b"."),
        ("many tensors of one storage", lambda: b"\x80\x02}(" + b"".join(
            b"X\x07\0\0\0%07d" % i + program[program.index(b"ctorch._utils") : program.rindex(b"u.")] for i in range(bulk // 200)) + b"u."),
    ):  # fmt: skip
        yield f"pickle: {name}", lambda p=p: with_program(p())
    for old, new in ((b"K\x02K\x02t", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft"), (b"K\x02K\x02t", b"K\0K\0t"), (b"K\x02K\x02t", b"J\xff\xff\xff\xffK\x02t"),
                     (b"K\x02K\x01t", b"K\0K\0t"), (b"K\x02K\x01t", b"J\xff\xff\xff\xffK\x01t"), (b"K\x02K\x02t", b"t"), (b"K\x02K\x02t", b"K\x02" * 200 + b"t"),
                     (b"tQK\0", b"tQJ\xff\xff\xff\x7f"), (b"tQK\0", b"tQJ\xff\xff\xff\xff"), (b"BFloat16", b"Half"), (b"BFloat16", b"Untyped"), (b"BFloat16", b"Double"),
                     (b"K\x04tQ", b"J\xff\xff\xff\x7ftQ"), (b"X\1\0\0\x000", b"X\4\0\0\0../x"), (b"X\x01\0\0\0w", b"X\6\0\0\0\x1b[2J\n\0")):  # fmt: skip
        yield f"pickle: {old!r} → {new!r:.40}", lambda old=old, new=new: with_program(program.replace(old, new, 1))
    for name, members, changes in (
        ("no storage", [], {}), ("two of one name", [*storage, *storage], {}), ("a short storage", [(b"archive/data/0", b"1")], {}),
        ("compressed", [(b"archive/data/0", b"12345678", {"method": 8})], {}), ("encrypted", [(b"archive/data/0", b"12345678", {"flags": 1})], {}),
        ("a bomb", [(b"archive/data/0", b"12345678", {"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF})], {}),
        ("overlapping", [(b"archive/data/0", b"12345678", {"offset": 0})], {}), ("far away", [(b"archive/data/0", b"12345678", {"offset": 0xFFFFFFF0})], {}),
        ("out of the folder", [(b"../../x", b"a"), *storage], {}), ("no UTF-8", [(b"archive/\xff", b"a"), *storage], {}), ("escapes", [(b"archive/\x1b[2J", b"a"), *storage], {}),
        ("a comment", storage, {"comment": b"PK\5\6" + bytes(18) + b"x" * 60_000}), ("no directory", storage, {"directory": b""}),
        ("many members", [(b"archive/x%d" % i, b"") for i in range(bulk // 120)] + storage, {}), ("other counts", storage, {"count": 65535}),
        ("directory at the end of numbers", storage, {"at": 0xFFFFFFFF}), ("wide numbers", [(b"archive/data/0", b"12345678", {"extra": b"\1\0\x10\0" + b"\xff" * 16, "size": 0xFFFFFFFF, "packed": 0xFFFFFFFF})], {}),
        ("other byte order", [*storage, (b"archive/byteorder", b"big")], {}), ("no byte order", [*storage, (b"archive/byteorder", b"\xff" * 70_000)], {}),
        ("a program of TorchScript", [*storage, (b"archive/constants.pkl", b".")], {}), ("a long name", [(b"archive/" + b"n" * 65_000, b""), *storage], {}),
    ):  # fmt: skip
        yield f"archive: {name}", lambda members=members, changes=changes: with_program(program, members, **changes)
    yield "64-bit end", lambda: sound[:-22] + b"PK\6\6" + b"\xff" * 52 + b"PK\6\7" + bytes(4) + struct.pack("<Q", len(sound) - 22) + bytes(4) + sound[-22:]
    yield "64-bit end elsewhere", lambda: sound[:-22] + b"PK\6\7" + bytes(4) + b"\xff" * 8 + bytes(4) + sound[-22:]


def llama2c(seed, data, bulk):
    end = ">" if data[:4] == b"ak42" else "<"
    start = 8 if data[:4] in (b"24ka", b"ak42") else 0
    for i in range(7):
        for value in NUMBERS:
            at = start + 4 * i
            yield f"number {i} = {value}", lambda at=at, value=value: data[:at] + struct.pack(end + "I", value & 0xFFFFFFFF) + data[at + 4 :]
    # Headers from which a length follows that the file has.
    for fields in ((1, 1, 65535, 1, 1, 1, 1), (1, 1, 1, 1, 1, bulk // 8, 1), (2, 1, 1, 1, 1, 1, bulk // 16), (4, 4, bulk // 700, 1, 1, 1, 1), (8, 8, 1, 8, 8, -bulk // 70, 1)):
        dim, hidden, layers, heads, kv, vocab, seq = fields
        n = abs(vocab) * dim * (2 if vocab < 0 else 1) + layers * (2 * dim + 2 * dim * dim + 2 * dim * (dim // heads * kv) + 3 * dim * hidden) + dim + seq * (dim // heads)
        yield f"a checkpoint of {fields}", lambda fields=fields, n=n: struct.pack("<7i", *fields) + bytes(4 * n)
    yield "zeros", lambda: bytes(bulk)
    yield "ones", lambda: b"\xff" * bulk


def tokenizer_bin(seed, data, bulk):
    make = formats.tokenizer_bin
    yield "many empty tokens", lambda: make([(0.0, b"")] * (bulk // 8))
    yield "many tokens", lambda: make([(-1.0, b"t%d" % i) for i in range(bulk // 14)])
    yield "one token many times", lambda: make([(-1.0, b"a")] * (bulk // 9))
    yield "long tokens", lambda: make([(1.0, b"z" * 65_535)] * (bulk // 65_543 + 1))
    yield "the longest is 0", lambda: b"\0\0\0\0" + data[4:]
    yield "the longest is everything", lambda: b"\xff\xff\xff\xff" + data[4:]
    yield "not numbers", lambda: make([(float("nan"), b"x")] * 400)
    yield "no UTF-8", lambda: make([(0.0, b"\xff\xfe")] * 400)
    yield "escapes", lambda: make([(0.0, b"\x1b[2J%d" % i) for i in range(400)])


def sentencepiece(seed, data, bulk):
    fields = formats.read_protobuf(data)
    settings = [f for f in fields if f[0] != 1]
    make = lambda pieces: formats.protobuf([*pieces, *settings])
    yield "many pieces", lambda: make([formats.piece(b"p%d" % i) for i in range(bulk // 22)])
    yield "many empty fields", lambda: b"\x0a\0" * (bulk // 2)
    yield "many empty fields behind it", lambda: data + b"\x0a\0" * (bulk // 2)
    yield "unknown fields", lambda: data + b"\x7a\0" * (bulk // 2)
    yield "one piece many times", lambda: make([formats.piece(b"a")] * (bulk // 14))
    yield "a long piece", lambda: make([formats.piece(b"l" * bulk), *fields])
    yield "many bytes", lambda: make([formats.piece(b"<0x41>", kind=6)] * (bulk // 20))
    yield "deep groups", lambda: data + b"\x0b" * bulk
    yield "closed groups", lambda: data + b"\x0b" * (bulk // 2) + b"\x0c" * (bulk // 2)
    for score in FLOATS:
        yield f"scores of {score}", lambda score=score: make([formats.piece(b"s%d" % i, score) for i in range(320)])
    for text in TEXTS:
        yield f"a piece of {text[:20]!r}", lambda text=text: formats.protobuf([*fields[:5], formats.piece(text, 0.0, 4), *fields[6:]])
    yield "a long normalizer", lambda: data + formats.protobuf([(3, 2, formats.protobuf([(1, 2, b"n"), (2, 2, b"\xff" * bulk)]))])
    yield "no pieces", lambda: formats.protobuf(settings)


def logits(seed, data, bulk):
    for n_ctx, n_vocab, n_chunk in ((16, 320, 1 << 31), (1 << 23, 320, 1), (3, 1 << 23, 1), (0, 0, 0), (2, 1, 1), ((1 << 31) - 1,) * 3, (3, 1, bulk // 24), (16, 321, 2), (16, 1, 10)):
        yield f"{n_ctx}, {n_vocab}, {n_chunk}", lambda h=(n_ctx, n_vocab, n_chunk): data[:8] + struct.pack("<3I", *(x & 0xFFFFFFFF for x in h)) + data[20:]
        n_vocab_even, positions = n_vocab + n_vocab % 2, n_ctx - 1 - n_ctx // 2
        length = 20 + 4 * n_ctx * n_chunk + n_chunk * positions * (8 + 2 * n_vocab_even)
        if 0 < length < 4 * bulk:
            yield f"{n_ctx}, {n_vocab}, {n_chunk} as long as that", lambda h=(n_ctx, n_vocab, n_chunk), n=length: data[:8] + struct.pack("<3I", *h) + bytes(n - 20)
    for scale in FLOATS:
        for at in (20 + 4 * 32, 24 + 4 * 32):
            yield f"a scale of {scale}", lambda at=at, scale=scale: data[:at] + struct.pack("<f", scale) + data[at + 4 :]


def imatrix(seed, data, bulk):
    if data[:4] == b"GGUF":
        yield from gguf(seed, data, bulk)
        return
    entry = lambda name, n, chunks=1: struct.pack("<i", len(name)) + name + struct.pack("<ii", chunks, n) + bytes(4 * n)
    count = bulk // 22
    yield "many entries", lambda: struct.pack("<i", count) + b"".join(entry(b"e%d" % i, 1) for i in range(count))
    yield "one entry many times", lambda: struct.pack("<i", 1000) + entry(b"a", 1) * 1000
    yield "names of escapes", lambda: struct.pack("<i", 1) + entry(b"\x1b[2J\xe2\x80\xae", 32)
    yield "a long name", lambda: struct.pack("<i", 1) + entry(b"n" * bulk, 1)
    for n in NUMBERS:
        yield f"{n} entries", lambda n=n: struct.pack("<I", n & 0xFFFFFFFF) + data[4:]
    for value in FLOATS:
        yield f"values of {value}", lambda v=value: struct.pack("<i", 1) + entry(b"blk.0.attn_q.weight", 32)[:-128] + struct.pack("<f", v) * 32


def templates(seed, data, bulk):
    from damage import WORDS
    for word in WORDS["chat template"]:
        yield f"template {word[:40]!r}", lambda word=word: word
    for chain in (b"1+", b"not ", b"'a'~", b"2**", b"1 and ", b"x|trim ", b"a.", b"a[", b"-", b"(", b"[", b"{'a':", b"1 if 1 else ", b"a is defined and "):
        for n in (1000, bulk // len(chain)):
            yield f"{chain!r} {n} times", lambda chain=chain, n=n: b"{{ " + chain * n + b"1 }}"
    yield "many ifs", lambda: b"{% if 1 %}" * (bulk // 10) + b"{% endif %}" * (bulk // 10)
    yield "many elifs", lambda: b"{% if 0 %}" + b"{% elif 0 %}" * (bulk // 12) + b"{% endif %}"
    yield "doubling", lambda: b"{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}"
    yield "a list in a list", lambda: b"{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}"
    yield "much text", lambda: b"x" * bulk
    yield "many blocks", lambda: b"{{ 1 }}" * (bulk // 7)
    yield "control tokens", lambda: b"</s><s><unk>{{ messages }}" * 50


def recipes(seed, data, bulk):
    head = b'base = "q4_0"\nrules = [\n'
    for pattern in ("(a{500}){500}", "(?:(?:(?:x{9}){9}){9}){9}", "\\\\p{L}{1000}", "(" * 5000, "a|" * 30_000, "[" * 1000, "(?P<n>a)" * 1000, ".*" * 2000, "(.*)*" * 50, "\\\\x{110000}"):
        yield f"regex {pattern[:20]}", lambda p=pattern: head + b'{ name = "' + p.encode() + b'", type = "q8_0" },\n]\n'
    yield "many rules", lambda: head + many(b'{ name = "r{}", type = "q8_0" },\n', min(bulk, 1 << 20)) + b"]\n"
    yield "many schemes", lambda: head + b'"q4_k_m",' * (min(bulk, 1 << 20) // 9) + b"]\n"
    yield "many large regexes", lambda: head + many(b'{ name = "{}\\\\p{L}{100}", type = "q8_0" },\n', 1 << 19) + b"]\n"
    yield "many conditions", lambda: head + b'{ when = [' + b'"gqa >= 1",' * 50_000 + b'], type = "q8_0" },\n]\n'
    yield "deep arrays", lambda: b"x = " + b"[" * 100_000 + b"]" * 100_000
    yield "deep tables", lambda: b"x = " + b"{a=" * 100_000
    yield "dotted keys", lambda: b"a." * 100_000 + b"b = 1"
    yield "a long name", lambda: b'name = "' + b"n" * 500_000 + b'"\n' + data
    yield "too long", lambda: b"#" * (bulk * 2) + b"\n" + data


def texts(seed, data, bulk):
    from unicodedata import category
    yield "zeros", lambda: bytes(bulk)
    yield "one letter", lambda: b"a" * bulk
    yield "spaces", lambda: b" " * bulk
    yield "newlines", lambda: b"\n" * bulk
    yield "no UTF-8", lambda: b"\xff" * bulk
    yield "marks", lambda: "e\u0301\u0302".encode() * (bulk // 5)
    yield "control tokens", lambda: b"<s></s><unk>" * (bulk // 12)
    yield "almost control tokens", lambda: b"<s" * (bulk // 2)
    yield "all letters", lambda: "".join(chr(i) for i in range(1, 0x30000) if category(chr(i)) != "Cs").encode()
    yield "UTF-16 of half a pair", lambda: b"\xff\xfe" + b"\x00\xd8" * (bulk // 4)
    yield "UTF-32", lambda: b"\xff\xfe\0\0" + b"a\0\0\0" * (bulk // 4)
    yield "a signature", lambda: b"GGUF\3\0\0\0" + data
    yield "many lines", lambda: b"hello\n" * (bulk // 6)


def cards(seed, data, bulk):
    yield "aliases that double", lambda: b"---\na: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c, *%c]\n" % (98 + i, 98 + i, 97 + i, 97 + i, 97 + i) for i in range(20)) + b"---\n"
    yield "deep", lambda: b"---\n" + b"".join(b" " * i + b"a:\n" for i in range(2000)) + b"---\n"
    yield "deep lists", lambda: b"---\nlicense: " + b"[" * (bulk // 2) + b"\n---\n"
    yield "dashes", lambda: b"---\n" + b"- " * (bulk // 2) + b"\n---\n"
    yield "many keys", lambda: b"---\n" + many(b"k{}: 1\n", bulk) + b"---\n"
    yield "many tags", lambda: b"---\ntags:\n" + many(b"- t{}\n", bulk) + b"---\n"
    yield "many languages", lambda: b"---\nlanguage: [" + many(b"l{},", bulk) + b"x]\n---\n"
    yield "many base models", lambda: b"---\nbase_model:\n" + many(b"- a/b{}-7B\n", bulk) + b"---\n"
    yield "a long line", lambda: b"---\nlicense: " + b"x" * bulk + b"\n---\n"
    yield "no end", lambda: b"---\n" + b"a: b\n" * (bulk // 5)
    for text in TEXTS:
        yield f"license {text[:20]!r}", lambda text=text: b"---\nlicense: " + text + b"\nlanguage: [" + text + b"]\nbase_model: " + text + b"\n---\n"


def merges(seed, data, bulk):
    yield "many merges", lambda: many(b"a{} b\n", bulk)
    yield "one merge many times", lambda: b"t h\n" * (bulk // 4)
    yield "long merges", lambda: (b"t" * 60_000 + b" " + b"h" * 60_000 + b"\n") * 4
    yield "empty lines", lambda: b"\n" * bulk
    yield "spaces", lambda: b" " * bulk
    yield "three parts", lambda: data + b"a b c\n"


def tiktoken(seed, data, bulk):
    yield "many tokens", lambda: many(b"YWJj {}\n", bulk)
    yield "a long token", lambda: b"YWJj" * (bulk // 4) + b" 1\n"
    yield "ids that repeat", lambda: b"YWJj 1\n" * 1000
