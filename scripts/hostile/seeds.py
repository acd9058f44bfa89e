"""Sound files of every kind that the program opens: small models that are made here, and what the program makes of them.

A seed is a folder's files as a mapping of relative paths to bytes, which of them is the file of the kind, and what commands
call the model, the text and so on. Its weights are noise: what matters is that every reader gets to its end."""

import base64
import json
import os
import random
import shutil
import subprocess

import formats
from sound import (
    CARD,
    GENERATION,
    RECIPE,
    ROOT,
    SPECIAL,
    TEMPLATE,
    TEXT,
    TOKENIZER_CONFIG,
    byte_level,
    config,
    dumps,
    noise,
    pieces,
    sentencepiece,
    tensors,
    torch_file,
    unigram,
)


class Seed:
    def __init__(self, kind, name, files, target, **args):
        """`target` is the path of the file of the kind. `args` are what commands are given: paths in the folder."""
        self.kind, self.name, self.files, self.target, self.args = kind, name, files, target, args

    def size(self):
        return sum(len(f) for f in self.files.values() if isinstance(f, bytes))


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
        vocabulary = {
            "tokenizer.model": sentencepiece(),
            "tokenizer_config.json": dumps(TOKENIZER_CONFIG),
            "special_tokens_map.json": dumps(SPECIAL),
            "generation_config.json": dumps(GENERATION),
            "README.md": CARD,
        }
        full = self.checkpoint(extra=vocabulary)
        self.write("model", full)
        self.write("", {"text.txt": TEXT, "recipe.toml": RECIPE})
        self.ggufkit("convert", "model", "f32.gguf", "--type", "f32")
        self.ggufkit("quantize", "model", "q8.gguf", "--type", "q8_0", "--pure")
        self.ggufkit(
            "quantize", "model", "q4.gguf", "--type", "q4_0", "--pure", "--tensor", "ffn_up=q5_1", "--tensor", "attn_k=iq4_nl"
        )
        self.ggufkit("convert", "q8.gguf", "big.gguf", "--endian", "big")
        self.ggufkit("split", "q8.gguf", "part.gguf", "--max-tensors", "8")
        for name, end in (("f32", "f32"), ("q4", "q4"), ("q8", "q8"), ("big", "big")):
            self.add("gguf", end, {"m.gguf": self.read(name + ".gguf")[name + ".gguf"]}, "m.gguf", model="m.gguf")
        parsed = formats.read_gguf(self.read("f32.gguf")["f32.gguf"])[0]
        for version, end in ((1, "<"), (2, "<"), (2, ">")):
            self.add(
                "gguf",
                f"v{version}{'big' if end == '>' else ''}",
                {"m.gguf": parsed.write(version, end)},
                "m.gguf",
                model="m.gguf",
            )
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
        kinds = (
            "attn_q=q2_k",
            "attn_k=iq4_xs",
            "attn_v=q5_k",
            "attn_output=iq3_s",
            "ffn_up=q6_k",
            "ffn_gate=tq2_0",
            "ffn_down=mxfp4",
            "token_embd=q3_k",
            "output=q4_k",
        )
        self.ggufkit(
            "quantize",
            "wide",
            "wide.gguf",
            "--type",
            "q8_0",
            "--force",
            "--effort",
            "fast",
            *(x for k in kinds for x in ("--tensor", k)),
        )
        self.add("gguf", "types of 256", {"m.gguf": self.read("wide.gguf")["wide.gguf"]}, "m.gguf", model="m.gguf")
        quantized = {
            "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
        }
        self.write("bitnet", self.checkpoint("bitnet", vocabulary, packed=True, **wide, **quantized, tie_word_embeddings=True))
        self.ggufkit("quantize", "bitnet", "i2_s.gguf", "--type", "i2_s")
        self.add("gguf", "i2_s", {"m.gguf": self.read("i2_s.gguf")["i2_s.gguf"]}, "m.gguf", model="m.gguf")

        self.add("safetensors", "checkpoint", full, "model.safetensors", model=".")
        self.ggufkit("convert", "f32.gguf", "alone.safetensors", "--type", "f16")
        self.add(
            "safetensors",
            "with a GGUF's metadata",
            {"m.safetensors": self.read("alone.safetensors")["alone.safetensors"]},
            "m.safetensors",
            model="m.safetensors",
        )
        self.ggufkit("convert", "model", "shards/", "--split-max-size", "60K")
        shards = self.read("shards")
        self.add("index", "index", shards, "model.safetensors.index.json", model=".")
        self.add("index", "by its name", shards, "model.safetensors.index.json", model="model.safetensors.index.json")
        self.add("safetensors", "shard", shards, next(n for n in shards if n.startswith("model-00002")), model=".")
        adapter = formats.safetensors(
            [
                ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "F32", [2, 4], bytes(32)),
                ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", "F32", [4, 2], bytes(32)),
            ]
        )
        self.add(
            "adapter_config.json",
            "adapter",
            {
                "adapter_model.safetensors": adapter,
                "adapter_config.json": dumps({"peft_type": "LORA", "r": 8, "base_model_name_or_path": "acme/base"}),
            },
            "adapter_config.json",
            model=".",
        )
        self.pytorch(vocabulary)

        self.add("config.json", "llama", full, "config.json", model=".")
        yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32, "beta_slow": 1}
        llama3 = {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
        for family, changes in (
            ("llama", {"rope_scaling": llama3}),
            ("mistral", {"sliding_window": 16}),
            ("qwen2", {"rope_scaling": yarn}),
            ("qwen3", {"tie_word_embeddings": True}),
            ("bitnet", {}),
            ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
        ):
            self.add(
                "config.json",
                family + " " + "".join(changes),
                self.checkpoint(family, vocabulary, **changes),
                "config.json",
                model=".",
            )
        self.add(
            "config.json",
            "bitnet packed",
            self.checkpoint("bitnet", vocabulary, packed=True, **quantized),
            "config.json",
            model=".",
        )
        self.add("config.json", "MLX", self.mlx(vocabulary), "config.json", model=".")
        self.add(
            "config.json",
            "alone",
            {"config.json": dumps(config(hidden_size=256, intermediate_size=512))},
            "config.json",
            model=".",
        )

        for version in (0, 1, 2):
            options = ["--type", "int8", "--group-size", "8"] if version == 2 else []
            command = [
                "quantize" if version == 2 else "convert",
                "model",
                f"v{version}.bin",
                "--bin-version",
                str(version),
                *options,
            ]
            self.ggufkit(*command)
        self.ggufkit("convert", "v1.bin", "v1big.bin", "--endian", "big")
        self.write("tied", self.checkpoint(extra=vocabulary, tie_word_embeddings=True))
        self.ggufkit("convert", "tied", "tied.bin", "--for", "ullm")
        with open(os.path.join(ROOT, "demo/tiny-tokenizer.bin"), "rb") as f:
            demo = f.read()
        own = formats.tokenizer_bin([(score, text.replace("▁", " ").encode()) for text, score in pieces()])
        for name in ("v0", "v1", "v2", "v1big", "tied"):
            self.add(
                "llama2.c",
                name,
                {"m.bin": self.read(name + ".bin")[name + ".bin"], "t.bin": own},
                "m.bin",
                model="m.bin",
                tokenizer="t.bin",
            )
        with open(os.path.join(ROOT, "demo/tiny.bin"), "rb") as f:
            tiny = f.read()
        self.add("tokenizer.bin", "llama2.c's", {"m.bin": tiny, "t.bin": demo}, "t.bin", model="m.bin", tokenizer="t.bin")
        v0 = self.read("v0.bin")["v0.bin"]
        self.add("tokenizer.bin", "own", {"m.bin": v0, "t.bin": own}, "t.bin", model="m.bin", tokenizer="t.bin")
        big = formats.tokenizer_bin([(score, text.replace("▁", " ").encode()) for text, score in pieces()], ">")
        self.add("tokenizer.bin", "big-endian", {"m.bin": v0, "t.bin": big}, "t.bin", model="m.bin", tokenizer="t.bin")
        self.add(
            "tokenizer.model",
            "of llama2.c",
            {"m.bin": v0, "t.model": sentencepiece()},
            "t.model",
            model="m.bin",
            tokenizer="t.model",
        )
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
                stored += [
                    (part + end, "BF16", [rows, columns // 32], noise(rows * columns // 32, self.rng))
                    for end in ("scales", "biases")
                ]
            else:
                stored.append((name, dtype, shape, data))
        return {"config.json": dumps(c), "model.safetensors": formats.safetensors(stored, {"format": "mlx"}), **vocabulary}

    def pytorch(self, vocabulary):
        """pytorch_model.bin with the tensors of a checkpoint, and what PyTorch itself has written."""
        c = config()
        state = [(name, shape, data) for name, _, shape, data in tensors(c, self.rng)]
        base = {"config.json": dumps(c), **vocabulary}
        self.add(
            "pytorch_model.bin", "checkpoint", {**base, "pytorch_model.bin": torch_file(state)}, "pytorch_model.bin", model="."
        )
        half = len(state) // 2
        names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
        index = {"metadata": {"total_size": 1}, "weight_map": {t[0]: names[i >= half] for i, t in enumerate(state)}}
        parts = {names[0]: torch_file(state[:half]), names[1]: torch_file(state[half:])}
        self.add(
            "index",
            "PyTorch's",
            {**base, **parts, "pytorch_model.bin.index.json": dumps(index)},
            "pytorch_model.bin.index.json",
            model=".",
        )
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
        old = {
            **bare,
            "vocab.json": dumps(vocabulary),
            "merges.txt": ("#version: 0.2\n" + "\n".join(merges) + "\n").encode(),
            "added_tokens.json": dumps({"<tool>": 290, "<s>": 291}),
            "tokenizer_config.json": dumps(gpt2),
        }
        for target in ("vocab.json", "merges.txt", "added_tokens.json"):
            self.add(target, "of GPT-2's kind", old, target, model=".")
        self.add("tokenizer.model", "checkpoint", self.full, "tokenizer.model", model=".")
        self.add(
            "tokenizer.model", "unigram", {**self.full, "tokenizer.model": sentencepiece(True)}, "tokenizer.model", model="."
        )
        ranks = b"".join(base64.b64encode(bytes([b])) + b" %d\n" % b for b in range(256))
        self.add("tiktoken", "as tokenizer.model", {**bare, **extra, "tokenizer.model": ranks}, "tokenizer.model", model=".")
        self.add(
            "tiktoken",
            "beside tokenizer.json",
            {**bare, "tokenizer_config.json": dumps(gpt2), "tokenizer.json": dumps(bytes_json), "tokenizer.model": ranks},
            "tokenizer.model",
            model=".",
        )
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
        self.add(
            "logits",
            "base",
            {**base, "base.kld": self.read("base.kld")["base.kld"]},
            "base.kld",
            model="m.gguf",
            logits="base.kld",
            text="text.txt",
        )
        self.add(
            "sensitivity",
            "file",
            {**base, "s.json": self.read("s.json")["s.json"]},
            "s.json",
            model="m.gguf",
            sensitivity="s.json",
            text="text.txt",
        )
        self.add("recipe", "mine", {**base, "r.toml": RECIPE}, "r.toml", model="m.gguf", recipe="r.toml")
        self.add("recipe", "printed", {**base, "r.toml": self.recipe()}, "r.toml", model="m.gguf", recipe="r.toml")
        self.add("text", "plain", {**base}, "text.txt", model="m.gguf", text="text.txt")
        utf16 = TEXT.decode().encode("utf-16")
        self.add("text", "UTF-16", {**base, "text.txt": utf16}, "text.txt", model="m.gguf", text="text.txt")
        strings = json.dumps([t for t, _ in pieces()]).encode()
        self.add(
            "set-file",
            "strings",
            {**base, "v.json": strings},
            "v.json",
            model="m.gguf",
            value="v.json",
            key="tokenizer.ggml.tokens",
        )
        scores = json.dumps([s for _, s in pieces()]).encode()
        self.add(
            "set-file",
            "floats",
            {**base, "v.json": scores},
            "v.json",
            model="m.gguf",
            value="v.json",
            key="tokenizer.ggml.scores",
        )
        self.add(
            "set-file",
            "text",
            {**base, "v.txt": TEMPLATE},
            "v.txt",
            model="m.gguf",
            value="v.txt",
            key="tokenizer.chat_template:str",
        )
        for name in ("state.json", "layer-0", "layer-2", "vectors-3-0", "vectors-3-1"):
            self.add("state", name, base, "state/" + name, model="m.gguf", text="text.txt", state="state")

    def recipe(self):
        return subprocess.run([self.program, "quantize", "--print-recipe", "q3_k_m"], capture_output=True, check=True).stdout
