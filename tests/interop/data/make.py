"""Writes the checkpoints of this folder, with PyTorch: `python make.py` (made with 2.13.0)."""

import collections

import torch

base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8
state = collections.OrderedDict(
    {
        "float": base,
        "transposed": base.t(),
        "part": base[1:3, ::2],
        "scalar": torch.tensor(0.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
        "bfloat": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "long": torch.tensor([1, -(2**40)]),
        "bytes": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.tensor([3.0, 4.0])),
    }
)
state["linear"] = torch.nn.Linear(2, 3).state_dict()  # carries _metadata
torch.nn.init.ones_(state["linear"]["weight"]), torch.nn.init.zeros_(state["linear"]["bias"])
state["steps"] = 7
torch.save(state, "zip.pth")
torch.save(state, "legacy.pth", _use_new_zipfile_serialization=False)
torch.save(torch.nn.Linear(2, 3), "module.pth")


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
        self.sizes = [1, 2]
        self.names = {"a": 1}

    def forward(self, x):
        return x @ self.weight * self.sizes[1]


class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.head = torch.nn.Parameter(torch.arange(4.0).half() / 4)
        self.register_buffer("resolution", torch.tensor(224))
        self.scale = 0.5

    def forward(self, x, resize: bool = False):
        return self.inner(x) * self.scale


torch.jit.save(torch.jit.script(Outer()), "scripted.pt")
