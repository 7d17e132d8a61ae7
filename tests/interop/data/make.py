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
