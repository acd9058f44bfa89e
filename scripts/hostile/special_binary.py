"""Hostile inputs that are made on purpose, of binary formats and indexes: for each kind a function that gives pairs of a name
and a function that makes the target's bytes. `bulk` is how many bytes those have that are of many small things."""

import json
import struct

import formats
import sound
from nasty import FLOATS, NUMBERS, TEXTS
from special_texts import many, nested


def gguf(seed, data, bulk):
    g, version, end, _ = formats.read_gguf(data)

    def changed(metadata=None, tensors=None, drop=(), body=None, **counts):
        kept = [p for p in g.metadata if p[0] not in drop]
        new = formats.Gguf(
            [*kept, *(metadata or [])], g.tensors if tensors is None else tensors, g.data if body is None else body, g.alignment
        )
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
        (
            "many small tensors",
            lambda: changed(
                tensors=[*g.tensors, *([b"t%d" % i, [1], 0, len(g.data) + 32 * i] for i in range(little))],
                body=g.data + bytes(32 * little),
            ),
        ),
        (
            "tensors of many layers",
            lambda: changed(
                tensors=[*g.tensors, *([b"blk.%d.attn_q.weight" % i, first[1], first[2], 0] for i in range(3, 3 + little))]
            ),
        ),
        (
            "a list for a length, and tensors of many layers",
            lambda: changed(
                [[b"llama.attention.key_length", formats.ARRAY, [formats.U32, [64] * (bulk // 8)]]],
                tensors=[*g.tensors, *([b"blk.%d.attn_q.weight" % i, first[1], first[2], 0] for i in range(3, 3 + little // 2))],
                drop=(b"llama.attention.key_length",),
            ),
        ),
        ("a long key", lambda: changed([[b"k" * bulk, formats.U8, 1]])),
        ("a long value", lambda: changed([[b"k", formats.STRING, b"v" * bulk]])),
        ("a value of escapes", lambda: changed([[b"k", formats.STRING, b"\x1b" * bulk]])),
        ("a long name", lambda: changed(tensors=[[b"n" * bulk, *first[1:]], *g.tensors[1:]])),
        ("a name of escapes", lambda: changed(tensors=[[b"\x1b[2J\xe2\x80\xae" * 5, *first[1:]], *g.tensors[1:]])),
        ("nothing", lambda: formats.Gguf([], [], b"").write(version, end)),
        ("no metadata", lambda: formats.Gguf([], g.tensors, g.data).write(version, end)),
        ("no tensors", lambda: formats.Gguf(g.metadata, [], b"").write(version, end)),
    ]
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
            for name, texts in (
                ("one byte", [b"a"] * len(value[1])),
                ("long", [b"b" * 70_000] * 9),
                ("grown", value[1] + [b"w%d" % i for i in range(bulk // 12)]),
                ("one long", [b"ab" * (bulk // 2)] * 1 + value[1][1:]),
                ("no UTF-8", [b"\xff\xfe"] * len(value[1])),
                ("empty", [b""] * len(value[1])),
            ):
                found.append(
                    (
                        f"{key.decode()}: {name}",
                        lambda k=key, t=texts: changed([[k, formats.ARRAY, [formats.STRING, t]]], drop=(k,)),
                    )
                )
    for text in TEXTS:
        for key in (
            b"general.name",
            b"general.architecture",
            b"tokenizer.ggml.model",
            b"tokenizer.ggml.pre",
            b"tokenizer.chat_template",
        ):
            found.append((f"{key.decode()} = {text[:20]!r}", lambda k=key, t=text: changed([[k, formats.STRING, t]], drop=(k,))))
    for kind in (*range(44), 100, 0xFFFFFFFF):
        found.append((f"type {kind}", lambda kind=kind: changed(tensors=[[first[0], first[1], kind, first[3]], *g.tensors[1:]])))
    return found


def gguf_parts(seed, data, bulk):
    g, version, end, _ = formats.read_gguf(data)
    for no in (0, 1, 2, 65535):
        for count in (0, 1, 3, 65535):
            kept = [p for p in g.metadata if not p[0].startswith(b"split.")]
            split = [[b"split.no", 2, no], [b"split.count", 2, count], [b"split.tensors.count", 5, some_number(no, count)]]
            yield (
                f"part {no} of {count}",
                lambda kept=kept, split=split: formats.Gguf(kept + split, g.tensors, g.data).write(version, end),
            )
    yield "all parts in one", lambda: b"".join(seed.files[n] for n in sorted(seed.files))
    yield "another part", lambda: seed.files[sorted(seed.files)[-1]]


def some_number(no, count):
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
    yield (
        "many layers",
        lambda: of(b"{" + many(b'"model.layers.{}.self_attn.q_proj.weight":' + entry + b",", bulk) + b'"a":' + entry + b"}", b""),
    )
    yield (
        "many fused projections",
        lambda: of(b"{" + many(b'"model.layers.{}.self_attn.qkv_proj.bias":' + entry + b",", bulk) + b'"a":' + entry + b"}", b""),
    )
    yield "much metadata", lambda: of(b'{"__metadata__":{' + many(b'"k{}":"",', bulk) + b'"a":""}}', b"")
    yield (
        "a deep shape",
        lambda: of(b'{"a":{"dtype":"F32","shape":[' + b"1," * (bulk // 2) + b'1],"data_offsets":[0,4]}}', b"1234"),
    )
    yield (
        "many keys of a tensor",
        lambda: of(b'{"a":{"dtype":"F32",' + many(b'"k{}":0,', bulk) + b'"shape":[1],"data_offsets":[0,4]}}', b"1234"),
    )
    first = next(k for k in header if k != "__metadata__")
    for text in TEXTS:
        name = text.decode("utf-8", "replace")
        yield (
            f"a tensor called {text[:20]!r}",
            lambda name=name: of(
                json.dumps({**{k: v for k, v in header.items() if k != first}, name: header[first]}).encode(), body
            ),
        )
    for dtype in (
        "BOOL",
        "U8",
        "I8",
        "F8_E5M2",
        "F8_E4M3",
        "F8_E8M0",
        "F4",
        "F6_E2M3",
        "I16",
        "U16",
        "F16",
        "BF16",
        "I32",
        "U32",
        "F32",
        "F64",
        "I64",
        "U64",
        "C64",
        "",
        "\x1b[2J",
    ):
        yield (
            f"dtype {dtype!r}",
            lambda dtype=dtype: of(json.dumps({**header, first: {**header[first], "dtype": dtype}}).encode(), body),
        )
    for shape in ([], [0], [0, 1 << 62], [1 << 63, 2], [1 << 32, 1 << 32], [-1], [1.5], [1] * 100, ["1"], [[1]], None):
        yield (
            f"shape {str(shape)[:30]}",
            lambda shape=shape: of(json.dumps({**header, first: {**header[first], "shape": shape}}).encode(), body),
        )
    for offsets in (
        [0, 0],
        [1, 0],
        [0, 1 << 63],
        [(1 << 64) - 1, (1 << 64) - 1],
        [-4, 0],
        [0],
        [0, 4, 8],
        None,
        [0.0, 4.0],
        [len(body), len(body) + 4],
    ):
        yield (
            f"offsets {offsets}",
            lambda offsets=offsets: of(json.dumps({**header, first: {**header[first], "data_offsets": offsets}}).encode(), body),
        )


def index(seed, data, bulk):
    value = json.loads(data)
    names = value["weight_map"]
    first = next(iter(names))
    for name in (
        "../../../etc/passwd",
        "/etc/passwd",
        "/dev/zero",
        "",
        ".",
        "..",
        "a/../b",
        "\0",
        "x" * 300,
        "\x1b[2J",
        "nowhere.safetensors",
        "model.safetensors.index.json",
        "config.json",
        "C:\\x",
        "//host/x",
    ):
        yield (
            f"a shard called {name[:20]!r}",
            lambda name=name: json.dumps({**value, "weight_map": {**names, first: name}}).encode(),
        )
        yield (
            f"all shards called {name[:20]!r}",
            lambda name=name: json.dumps({**value, "weight_map": dict.fromkeys(names, name)}).encode(),
        )
    shard = json.dumps(names[first]).encode()
    yield "many tensors", lambda: b'{"weight_map":{' + many(b'"t{}":' + shard + b",", bulk) + b'"a":' + shard + b"}}"
    yield "many shards", lambda: b'{"weight_map":{' + many(b'"t{}":"s{}.safetensors",', bulk) + b'"a":' + shard + b"}}"
    yield "no shards", lambda: b'{"weight_map":{}}'


def pytorch(seed, data, bulk):
    state = [("w", [2, 2], b"12345678")]
    whole = sound.torch_file(state)
    start = whole.index(b"\x80\x02")
    program = whole[start : whole.index(b"PK", start)]
    storage = [(b"archive/data/0", b"12345678")]

    def with_program(p, members=storage, **changes):
        return formats.zip_file([(b"archive/data.pkl", p), *members], **changes)

    yield "small", lambda: whole
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
        ("no stop", lambda: b"\x80\x02N"),
        ("nothing", lambda: b""),
        ("stop", lambda: b"."),
        ("protocol 255", lambda: b"\x80\xff."),
        ("pops", lambda: b"\x80\x02" + b"0" * 1000 + b"."),
        ("frames", lambda: b"\x80\x04\x95" + b"\xff" * 8 + b"N."),
        ("many builds", lambda: b"\x80\x02}" + b"}b" * (bulk // 2) + b"."),
        (
            "many tensors of one storage",
            lambda: (
                b"\x80\x02}("
                + b"".join(
                    b"X\x07\0\0\0%07d" % i + program[program.index(b"ctorch._utils") : program.rindex(b"u.")]
                    for i in range(bulk // 200)
                )
                + b"u."
            ),
        ),
    ):
        yield f"pickle: {name}", lambda p=p: with_program(p())
    for old, new in (
        (b"K\x02K\x02t", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft"),
        (b"K\x02K\x02t", b"K\0K\0t"),
        (b"K\x02K\x02t", b"J\xff\xff\xff\xffK\x02t"),
        (b"K\x02K\x01t", b"K\0K\0t"),
        (b"K\x02K\x01t", b"J\xff\xff\xff\xffK\x01t"),
        (b"K\x02K\x02t", b"t"),
        (b"K\x02K\x02t", b"K\x02" * 200 + b"t"),
        (b"tQK\0", b"tQJ\xff\xff\xff\x7f"),
        (b"tQK\0", b"tQJ\xff\xff\xff\xff"),
        (b"BFloat16", b"Half"),
        (b"BFloat16", b"Untyped"),
        (b"BFloat16", b"Double"),
        (b"K\x04tQ", b"J\xff\xff\xff\x7ftQ"),
        (b"X\1\0\0\x000", b"X\4\0\0\0../x"),
        (b"X\x01\0\0\0w", b"X\6\0\0\0\x1b[2J\n\0"),
    ):
        yield f"pickle: {old!r} → {new!r:.40}", lambda old=old, new=new: with_program(program.replace(old, new, 1))
    for name, members, changes in (
        ("no storage", [], {}),
        ("two of one name", [*storage, *storage], {}),
        ("a short storage", [(b"archive/data/0", b"1")], {}),
        ("compressed", [(b"archive/data/0", b"12345678", {"method": 8})], {}),
        ("encrypted", [(b"archive/data/0", b"12345678", {"flags": 1})], {}),
        ("a bomb", [(b"archive/data/0", b"12345678", {"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF})], {}),
        ("overlapping", [(b"archive/data/0", b"12345678", {"offset": 0})], {}),
        ("far away", [(b"archive/data/0", b"12345678", {"offset": 0xFFFFFFF0})], {}),
        ("out of the folder", [(b"../../x", b"a"), *storage], {}),
        ("no UTF-8", [(b"archive/\xff", b"a"), *storage], {}),
        ("escapes", [(b"archive/\x1b[2J", b"a"), *storage], {}),
        ("a comment", storage, {"comment": b"PK\5\6" + bytes(18) + b"x" * 60_000}),
        ("no directory", storage, {"directory": b""}),
        ("many members", [(b"archive/x%d" % i, b"") for i in range(bulk // 120)] + storage, {}),
        ("other counts", storage, {"count": 65535}),
        ("directory at the end of numbers", storage, {"at": 0xFFFFFFFF}),
        (
            "wide numbers",
            [(b"archive/data/0", b"12345678", {"extra": b"\1\0\x10\0" + b"\xff" * 16, "size": 0xFFFFFFFF, "packed": 0xFFFFFFFF})],
            {},
        ),
        ("other byte order", [*storage, (b"archive/byteorder", b"big")], {}),
        ("no byte order", [*storage, (b"archive/byteorder", b"\xff" * 70_000)], {}),
        ("a program of TorchScript", [*storage, (b"archive/constants.pkl", b".")], {}),
        ("a long name", [(b"archive/" + b"n" * 65_000, b""), *storage], {}),
    ):
        yield f"archive: {name}", lambda members=members, changes=changes: with_program(program, members, **changes)
    yield (
        "64-bit end",
        lambda: (
            whole[:-22]
            + b"PK\6\6"
            + b"\xff" * 52
            + b"PK\6\7"
            + bytes(4)
            + struct.pack("<Q", len(whole) - 22)
            + bytes(4)
            + whole[-22:]
        ),
    )
    yield "64-bit end elsewhere", lambda: whole[:-22] + b"PK\6\7" + bytes(4) + b"\xff" * 8 + bytes(4) + whole[-22:]


def llama2c(seed, data, bulk):
    end = ">" if data[:4] == b"ak42" else "<"
    start = 8 if data[:4] in (b"24ka", b"ak42") else 0
    for i in range(7):
        for value in NUMBERS:
            at = start + 4 * i
            yield (
                f"number {i} = {value}",
                lambda at=at, value=value: data[:at] + struct.pack(end + "I", value & 0xFFFFFFFF) + data[at + 4 :],
            )
    # Headers from which a length follows that the file has.
    for fields in (
        (1, 1, 65535, 1, 1, 1, 1),
        (1, 1, 1, 1, 1, bulk // 8, 1),
        (2, 1, 1, 1, 1, 1, bulk // 16),
        (4, 4, bulk // 700, 1, 1, 1, 1),
        (8, 8, 1, 8, 8, -bulk // 70, 1),
    ):
        dim, hidden, layers, heads, kv, vocab, seq = fields
        n = (
            abs(vocab) * dim * (2 if vocab < 0 else 1)
            + layers * (2 * dim + 2 * dim * dim + 2 * dim * (dim // heads * kv) + 3 * dim * hidden)
            + dim
            + seq * (dim // heads)
        )
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
        yield (
            f"a piece of {text[:20]!r}",
            lambda text=text: formats.protobuf([*fields[:5], formats.piece(text, 0.0, 4), *fields[6:]]),
        )
    yield "a long normalizer", lambda: data + formats.protobuf([(3, 2, formats.protobuf([(1, 2, b"n"), (2, 2, b"\xff" * bulk)]))])
    yield "no pieces", lambda: formats.protobuf(settings)


def logits(seed, data, bulk):
    for n_ctx, n_vocab, n_chunk in (
        (16, 320, 1 << 31),
        (1 << 23, 320, 1),
        (3, 1 << 23, 1),
        (0, 0, 0),
        (2, 1, 1),
        ((1 << 31) - 1,) * 3,
        (3, 1, bulk // 24),
        (16, 321, 2),
        (16, 1, 10),
    ):
        yield (
            f"{n_ctx}, {n_vocab}, {n_chunk}",
            lambda h=(n_ctx, n_vocab, n_chunk): data[:8] + struct.pack("<3I", *(x & 0xFFFFFFFF for x in h)) + data[20:],
        )
        n_vocab_even, positions = n_vocab + n_vocab % 2, n_ctx - 1 - n_ctx // 2
        length = 20 + 4 * n_ctx * n_chunk + n_chunk * positions * (8 + 2 * n_vocab_even)
        if 0 < length < 4 * bulk:
            yield (
                f"{n_ctx}, {n_vocab}, {n_chunk} as long as that",
                lambda h=(n_ctx, n_vocab, n_chunk), n=length: data[:8] + struct.pack("<3I", *h) + bytes(n - 20),
            )
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
        yield (
            f"values of {value}",
            lambda v=value: struct.pack("<i", 1) + entry(b"blk.0.attn_q.weight", 32)[:-128] + struct.pack("<f", v) * 32,
        )
