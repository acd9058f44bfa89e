#!/usr/bin/env python3
"""Makes tests/golden: the logits that transformers computes for tiny models of every architecture that ggufkit runs.

    scripts/make_golden_logits.py            writes tests/golden/NAME.json and NAME.f32
    scripts/make_golden_logits.py --check    compares what is there with what would be written

Needs the Python packages torch, transformers, accelerate, safetensors and numpy. tests/it/golden.rs needs none: every
weight is a function of its tensor's name and its index, so that the test writes the same checkpoint by itself.

    weight = offset + scale * (k / 32768 - 1)
    k      = the upper 16 bits of splitmix64's output for the state FNV-1a(name) + index * 0x9E3779B97F4A7C15

FNV-1a is that of 64 bits, offset and scale are powers of two or 0 or 1, and so each weight is exact in float32.

NAME.json has config.json's content, every tensor with its shape, offset and scale, the token ids, and the positions
whose logits are in NAME.f32, float32 little-endian, [positions, vocabulary].
"""
import argparse
import json
import os
import sys
import tempfile

# Plain functions instead of compiled ones: the same arithmetic without a C++ compiler.
os.environ["TORCHDYNAMO_DISABLE"] = "1"

import numpy as np
import torch
import transformers
import transformers.integrations.bitnet as bitnet
from safetensors.numpy import save_file

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden")
# The positions whose logits are kept; the last one is the last token's.
POSITIONS = [0, 1, 5, 11, 17, 23, 29, 35, 41, 47]
# With activations in 8 bits, sums that are rounded differently may end on the other side of a half and become another
# code, and one such code changes the logits by some hundredths of their deviation. So these texts are short, and chosen
# by trying 2048 of them: in no layer is a number nearer to a half than MARGIN, in units of the codes, where sums in
# float32 are off by some 1e-5. Then an implementation that is right gives the same codes, and logits as near as with
# activations that are not rounded.
POSITIONS_8_BITS = [0, 1, 2, 3, 4, 5, 6, 7]
MARGIN = 2e-4

BASE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 80,
    "max_position_embeddings": 256,
    # Larger than in published models, so that another one is seen in the logits.
    "rms_norm_eps": 0.015625,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", **BASE}
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu", **BASE}
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_act": "silu",
    **BASE,
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
}
# Heads that are longer than hidden size / heads.
QWEN3 = {**QWEN2, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32}
# Master weights that are made ternary as they are loaded. Rows that blocks of 256 weights divide.
BITNET = {
    "architectures": ["BitNetForCausalLM"],
    "model_type": "bitnet",
    "hidden_act": "relu2",
    **BASE,
    "hidden_size": 256,
    "intermediate_size": 512,
    "rope_theta": 500000.0,
    "quantization_config": {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "online",
    },
}
# Both dialects: scaling beside the base, and in one object with it. The numbers are such that there are frequencies on
# either side of the ramps and on them.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}

# Name: config.json, and the text's number if activations are rounded to 8 bits as BitNet's are.
MODELS = {
    "llama": (LLAMA, None),
    "llama-tied": ({**LLAMA, "num_key_value_heads": 4, "tie_word_embeddings": True}, None),
    "llama-biases": ({**LLAMA, "attention_bias": True, "mlp_bias": True}, None),
    "llama-linear-rope": ({**LLAMA, "rope_scaling": {"type": "linear", "factor": 4.0}}, None),
    "llama-llama3-rope": (
        {**LLAMA, "num_key_value_heads": 1, "rope_theta": 500000.0, "rope_scaling": LLAMA3_ROPE},
        None,
    ),
    "llama-yarn-rope": (
        {**LLAMA, "rope_theta": None, "rope_parameters": {**YARN, "rope_theta": 10000.0}},
        None,
    ),
    # The window is longer than the text: runtimes of GGUF attend to all of it.
    "mistral": ({**MISTRAL, "head_dim": 32, "sliding_window": 64, "rope_theta": 1000000.0}, None),
    "qwen2": (QWEN2, None),
    "qwen2-tied": ({**QWEN2, "tie_word_embeddings": True, "num_key_value_heads": 4}, None),
    "qwen2-yarn-rope": (
        {**QWEN2, "rope_scaling": {**YARN, "attention_factor": 1.5, "beta_fast": 8.0, "beta_slow": 2.0}},
        None,
    ),
    "qwen3": (QWEN3, None),
    "qwen3-tied": ({**QWEN3, "tie_word_embeddings": True, "head_dim": 16}, None),
    "bitnet": (BITNET, 1393),
    "bitnet-tied": ({**BITNET, "tie_word_embeddings": True, "num_key_value_heads": 4}, 1650),
    # The same ternary weights with activations as they are.
    "bitnet-float": (BITNET, None),
}


def noise(name, count):
    """Multiples of 2^-15 from -1 on and below 1, as float32."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 % (1 << 64)
    with np.errstate(over="ignore"):
        z = np.uint64(state) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(48)).astype(np.float32) / np.float32(32768) - np.float32(1)


def spread(name, shape):
    """Offset and scale of a tensor's weights: norms around 1, and matrices that keep the size of their inputs."""
    if "norm" in name:
        return 1.0, 0.5
    if name.endswith(".bias") or "embed_tokens" in name:
        return 0.0, 1.0
    return 0.0, 0.25 if shape[1] < 256 else 0.125


def tensors_of(config):
    """The names and shapes of a checkpoint's tensors, from transformers' own class."""
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    settings = transformers.AutoConfig.for_model(**plain)
    with torch.device("meta"):
        model = getattr(transformers, config["architectures"][0])(settings)
    shapes = {name: list(p.shape) for name, p in model.named_parameters()}
    assert ("lm_head.weight" in shapes) != config["tie_word_embeddings"]
    return [{"name": n, "shape": s, **dict(zip(("offset", "scale"), spread(n, s)))} for n, s in sorted(shapes.items())]


def logits_of(config, tensors, ids, positions, rounded):
    """What transformers computes from a checkpoint's folder, in float32."""
    kept = bitnet.ActQuant.apply
    nearest = 0.5

    def activations(x):
        nonlocal nearest
        if not rounded:
            return x
        codes = x * (127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5))
        nearest = min(nearest, float((codes - codes.floor() - 0.5).abs().min()))
        return kept(x)

    bitnet.ActQuant.apply = staticmethod(activations)
    try:
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "config.json"), "w") as f:
                json.dump(config, f)
            weights = {
                t["name"]: np.float32(t["offset"])
                + np.float32(t["scale"]) * noise(t["name"], int(np.prod(t["shape"]))).reshape(t["shape"])
                for t in tensors
            }
            save_file(weights, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
            model_class = getattr(transformers, config["architectures"][0])
            model, info = model_class.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
            )
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        model = torch.nn.Module.float(model).eval()
        state = model.state_dict()
        for name, x in weights.items():
            assert np.array_equal(state[name].numpy(), x), f"{name} was changed when it was loaded"
        linear = model.model.layers[0].self_attn.q_proj
        assert isinstance(linear, bitnet.AutoBitLinear) == ("quantization_config" in config)
        assert not rounded or linear.online_quant
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, positions].float().numpy()
        assert not rounded or MARGIN <= nearest < 0.5, f"a code is {nearest} from being another"
        return logits
    finally:
        bitnet.ActQuant.apply = kept


def text_of(number, length, vocab):
    """Token ids without a pattern, different for every number."""
    return [3 + int(k * 32768 + 32768) % (vocab - 3) for k in noise(f"token ids {number}", length)]


def make(name):
    config, text = MODELS[name]
    rounded = text is not None
    positions = POSITIONS_8_BITS if rounded else POSITIONS
    config = {key: value for key, value in config.items() if value is not None}
    tensors = tensors_of(config)
    ids = text_of(0 if text is None else text, positions[-1] + 1, config["vocab_size"])
    logits = logits_of(config, tensors, ids, positions, rounded)
    # Lists of tensors are a line for each.
    lines = ",\n".join("    " + json.dumps(t) for t in tensors)
    head = {"config": config, "activations": "int8" if rounded else "float", "ids": ids, "positions": positions}
    text = "".join(f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items())
    return "{\n" + text + '  "tensors": [\n' + lines + "\n  ]\n}\n", logits.astype("<f4")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with what is there, and write nothing")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    os.makedirs(FOLDER, exist_ok=True)
    wrong = []
    for name in MODELS:
        text, logits = make(name)
        paths = [os.path.join(FOLDER, name + end) for end in (".json", ".f32")]
        deviation = float(logits.std())
        if not arguments.check:
            with open(paths[0], "w") as f:
                f.write(text)
            logits.tofile(paths[1])
            print(f"{name}: logits of standard deviation {deviation:.3f}")
            continue
        with open(paths[0]) as f:
            same = f.read() == text
        there = np.fromfile(paths[1], "<f4")
        worst = np.inf
        if there.size == logits.size:
            worst = float(np.abs(there - logits.ravel()).max()) / deviation
        print(f"{name}: {'the same' if same else 'ANOTHER'} description, logits differ by {worst:.1e} of their deviation")
        # Another build of torch adds up in another order.
        if not same or not worst <= 3e-5:
            wrong.append(name)
    names = {os.path.splitext(f)[0] for f in os.listdir(FOLDER)}
    if names != set(MODELS):
        wrong.append(f"files of other names: {sorted(names ^ set(MODELS))}")
    if wrong:
        sys.exit(f"tests/golden is not what this script makes: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
