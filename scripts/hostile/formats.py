"""The binary formats, as far as damage needs them: writers for sound and unsound files, and for any file the places of its
lengths, counts, offsets and types (`fields`), and where its parts end (`ends`)."""

import json
import struct
import zlib

# GGUF's types of metadata values: struct's letters; strings and arrays have none.
KINDS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
U8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10
# Weights and bytes of a block of some of its tensor types.
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 8: (32, 34), 30: (1, 2)}


class Gguf:
    """A GGUF: metadata as [key, type, value] (an array's value is [type, [values]]), tensors as [name, dimensions with the
    innermost first, type, offset], and the data."""

    def __init__(self, metadata, tensors, data, alignment=32):
        self.metadata, self.tensors, self.data, self.alignment = metadata, tensors, data, alignment

    def write(self, version=3, end="<", said_tensors=None, said_pairs=None):
        """The file's bytes; `said_tensors` and `said_pairs` are the counts to state, if not the true ones."""
        length = "I" if version == 1 else "Q"
        pack = lambda kind, value: struct.pack(end + kind, value)
        text = lambda t: pack(length, len(t)) + t

        def value(kind, v):
            if kind == STRING:
                return text(v)
            if kind == ARRAY:
                if v[0] in KINDS:
                    return pack("I", v[0]) + pack(length, len(v[1])) + struct.pack(end + str(len(v[1])) + KINDS[v[0]], *v[1])
                return pack("I", v[0]) + pack(length, len(v[1])) + b"".join(value(v[0], x) for x in v[1])
            return pack(KINDS.get(kind, "I"), v)

        out = b"GGUF" + pack("I", version)
        out += pack(length, len(self.tensors) if said_tensors is None else said_tensors)
        out += pack(length, len(self.metadata) if said_pairs is None else said_pairs)
        out += b"".join(text(key) + pack("I", kind) + value(kind, v) for key, kind, v in self.metadata)
        for name, dims, kind, offset in self.tensors:
            out += text(name) + pack("I", len(dims)) + b"".join(pack(length, d) for d in dims)
            out += pack("I", kind) + pack("Q", offset)
        return out + b"\0" * (-len(out) % self.alignment) + self.data


class Cursor:
    """Reads a file and notes where its numbers are."""

    def __init__(self, data, end):
        self.data, self.end, self.at, self.fields, self.ends = data, end, 0, [], []

    def number(self, kind):
        size = struct.calcsize(kind)
        (value,) = struct.unpack_from(self.end + kind, self.data, self.at)
        self.fields.append((self.at, size, self.end))
        self.at += size
        self.ends.append(self.at)
        return value

    def take(self, n):
        piece = self.data[self.at : self.at + n]
        if len(piece) < n:
            raise ValueError("ends early")
        self.at += n
        self.ends.append(self.at)
        return piece


def read_gguf(data):
    """A GGUF's parts, version and byte order, and the cursor with its numbers' places."""
    end = "<" if data[4:8] != b"\0\0\0" + data[7:8] else ">"
    c = Cursor(data, end)
    c.take(4)
    version = c.number("I")
    length = "I" if version == 1 else "Q"
    tensors, pairs = c.number(length), c.number(length)
    text = lambda: c.take(c.number(length))

    def value(kind):
        if kind == STRING:
            return text()
        if kind == ARRAY:
            inner, n = c.number("I"), c.number(length)
            if inner in KINDS:
                letters = f"{end}{n}{KINDS[inner]}"
                return [inner, list(struct.unpack(letters, c.take(struct.calcsize(letters))))]
            return [inner, [value(inner) for _ in range(n)]]
        return c.number(KINDS[kind])

    metadata = []
    for _ in range(pairs):
        key, kind = text(), c.number("I")
        metadata.append([key, kind, value(kind)])
    described = []
    for _ in range(tensors):
        name, n = text(), c.number("I")
        described.append([name, [c.number(length) for _ in range(n)], c.number("I"), c.number("Q")])
    alignment = next((v for key, _, v in metadata if key == b"general.alignment"), 32)
    start = c.at + -c.at % alignment
    c.ends += [start] + [start + t[3] for t in described]
    return Gguf(metadata, described, data[start:], alignment), version, end, c


def safetensors(tensors, metadata=None):
    """Tensors as (name, dtype, shape, bytes)."""
    header, at = {}, 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return safetensors_of(json.dumps(header).encode(), b"".join(t[3] for t in tensors))


def safetensors_of(header, data, length=None):
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def llama2c_fields(data):
    """The numbers of a llama2.c checkpoint of any version, in either order."""
    ends = list(range(0, min(len(data), 256), 4))
    fields = [(at, 4, "<") for at in range(0, 44, 4)] + [(at, 4, ">") for at in range(0, 44, 4)] + [(36, 1, "<")]
    return [f for f in fields if f[0] + f[1] <= len(data)], ends


def tokenizer_bin(pieces, end="<"):
    """Pieces as (score, bytes)."""
    longest = max((len(p) for _, p in pieces), default=0)
    return struct.pack(end + "I", longest) + b"".join(struct.pack(end + "fI", s, len(p)) + p for s, p in pieces)


def counted(data, letters, end="<"):
    """Places of the numbers of a file that is a row of numbers and texts with their lengths before them, as far as it goes:
    `letters` of struct once, then 's' for i32 and so many bytes, 'v' for i32 and so many floats, repeated."""
    once, repeated = letters
    c = Cursor(data, end)
    try:
        for letter in once:
            c.number(letter)
        while c.at < len(data):
            for letter in repeated:
                if letter in "sv":
                    n = c.number("i")
                    c.take(n if letter == "s" else 4 * n)
                else:
                    c.number(letter)
    except (ValueError, struct.error):
        pass
    return c.fields, c.ends


def varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


def protobuf(fields):
    """Fields as (number, wire type, value): an int for 0, bytes for 1, 2 and 5."""
    out = b""
    for number, wire, value in fields:
        out += varint(number << 3 | wire)
        out += varint(value) if wire == 0 else varint(len(value)) + value if wire == 2 else value
    return out


def read_protobuf(data):
    """The fields of a message."""

    def number(at):
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                return value, at

    fields, at = [], 0
    while at < len(data):
        tag, at = number(at)
        wire = tag & 7
        if wire == 0:
            value, at = number(at)
        elif wire == 2:
            n, at = number(at)
            value, at = data[at : at + n], at + n
        else:
            n = 8 if wire == 1 else 4
            value, at = data[at : at + n], at + n
        fields.append((tag >> 3, wire, value))
    return fields


def piece(text, score=-1.0, kind=1):
    """A piece of a SentencePiece model, as a field of it."""
    return (1, 2, protobuf([(1, 2, text), (2, 5, struct.pack("<f", score)), (3, 0, kind)]))


def zip_file(members, comment=b"", directory=None, count=None, at=None, changed=()):
    """A zip archive. Members are (name, bytes, options): `method`, `flags`, `size`, `packed`, `offset` and `data` say other
    things than are true. `changed` are fields of the end record to set: (offset, struct's letter, value)."""
    out, entries = b"", b""
    for name, data, *options in members:
        o = options[0] if options else {}
        stored = o.get("data", data)
        start = len(out)
        sizes = (zlib.crc32(data), o.get("packed", len(stored)), o.get("size", len(data)))
        head = struct.pack("<HHHHHIII", 20, o.get("flags", 0), o.get("method", 0), 0, 0, *sizes)
        extra = o.get("extra", b"")
        out += b"PK\3\4" + head + struct.pack("<HH", len(name), len(extra)) + name + extra + stored
        offset = o.get("offset", start) & 0xFFFFFFFF
        entries += b"PK\1\2" + struct.pack("<H", 20) + head + struct.pack("<HHHHHII", len(name), len(extra), 0, 0, 0, 0, offset)
        entries += name + extra
    entries = entries if directory is None else directory
    number = len(members) if count is None else count
    end = struct.pack(
        "<HHHHIIH", 0, 0, number & 0xFFFF, number & 0xFFFF, len(entries), len(out) if at is None else at, len(comment)
    )
    end = bytearray(b"PK\5\6" + end + comment)
    for offset, letter, value in changed:
        struct.pack_into("<" + letter, end, offset, value)
    return out + entries + bytes(end)


def zip_fields(data):
    """The numbers of a zip archive's headers, directory and end, and where its parts begin."""
    fields, ends = [], []
    layouts = {b"PK\3\4": "4 2 2 2 4 4 4 2 2", b"PK\1\2": "4 2 2 2 2 4 4 4 2 2 2 2 2 4 4", b"PK\5\6": "4 2 2 2 2 4 4 2"}
    layouts[b"PK\6\6"] = "4 8 2 2 4 4 8 8 8 8"
    layouts[b"PK\6\7"] = "4 4 8 4"
    for mark, sizes in layouts.items():
        at = data.find(mark)
        while at >= 0:
            ends.append(at)
            place = at
            for size in map(int, sizes.split()):
                if place + size <= len(data):
                    fields.append((place, size, "<"))
                place += size
            at = data.find(mark, at + 1)
    return fields, ends


def siphash(data):
    """SipHash-1-3 with keys of zero, as a u64: the checksum of state files (Rust's DefaultHasher)."""
    mask = (1 << 64) - 1
    v = [0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573]
    rotate = lambda x, n: (x << n | x >> (64 - n)) & mask

    def step():
        v[0] = (v[0] + v[1]) & mask
        v[1] = rotate(v[1], 13) ^ v[0]
        v[0] = rotate(v[0], 32)
        v[2] = (v[2] + v[3]) & mask
        v[3] = rotate(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & mask
        v[3] = rotate(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & mask
        v[1] = rotate(v[1], 17) ^ v[2]
        v[2] = rotate(v[2], 32)

    last = data[len(data) & ~7 :] + b"\0" * (7 - len(data) % 8) + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", data[: len(data) & ~7] + last):
        v[3] ^= word
        step()
        v[0] ^= word
    v[2] ^= 255
    for _ in range(3):
        step()
    return v[0] ^ v[1] ^ v[2] ^ v[3]
