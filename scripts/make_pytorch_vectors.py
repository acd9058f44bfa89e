#!/usr/bin/env python3
"""Makes formats/src/container/pytorch/vectors: small files of torch.save, which the tests of the reader expect as they are
here. Needs torch. Numbers count up from 0 in every tensor.

    python3 scripts/make_pytorch_vectors.py
"""

import argparse
import os
from collections import OrderedDict

import torch

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../formats/src/container/pytorch/vectors")


def count(n, dtype=torch.float32):
    return torch.arange(n, dtype=torch.float32).to(dtype)


def save(name, what, **options):
    torch.save(what, os.path.join(FOLDER, name), **options)


def state_dict():
    state = OrderedDict()
    state["half"] = count(6, torch.float16).reshape(2, 3)
    whole = count(8, torch.bfloat16)
    state["part"] = whole[2:6]  # shares the storage of the next one
    state["whole"] = whole
    state["parameter"] = torch.nn.Parameter(count(2))
    state["scalar"] = torch.tensor(3.0, dtype=torch.float64)
    state["empty"] = torch.zeros(0, 3)
    state["row"] = count(4).reshape(4, 1).t()  # [1, 4]: its strides are (1, 1), and its numbers one after the other
    state["float8"] = count(4, torch.float8_e4m3fn)
    for dtype in (torch.uint16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool):
        state[str(dtype)] = count(2, dtype)
    return state


os.makedirs(FOLDER, exist_ok=True)
state = state_dict()
state._metadata = OrderedDict({"": {"version": 1}})
save("state.bin", state)
save("protocol4.pt", dict(state), pickle_protocol=4)
tensor = count(2)
tensor.made_by = "a tool"  # makes PyTorch write the tensor with attributes
training = {"w": count(4, torch.bfloat16), "with_attributes": tensor, "steps": 7}
save(
    "training.pt",
    {"epoch": 3, "options": argparse.Namespace(rate=0.1), "state_dict": training, "optimizer": {"state": {}, "w": count(2)}},
)
save("transposed.bin", {"w": count(6).reshape(2, 3).t()})
