"""Does our VGG16 give PyTorch's numbers? Features, logits and LPIPS with drawn weights.

    python benchmarks/vgg16_pytorch.py --torch-python=PATH/TO/python

The network is written out in plain PyTorch operations, since no published weights are needed; its
weights have torchvision's names and go through the map of official names. PyTorch may be installed
in another environment: its part runs in the Python that is named and passes files on.

Prints the largest error of each output, relative to its largest value, in float32 on both sides.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
NUMBERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
LAST = (2, 7, 14, 21, 28)  # of each stage
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def weights() -> dict[str, np.ndarray]:
    """A state dict by torchvision's names, with LPIPS's weights, drawn."""
    rng = np.random.default_rng(0)
    state, inputs = {}, 3
    for number, channels in zip(NUMBERS, CHANNELS):
        shape = (channels, inputs, 3, 3)
        state[f"features.{number}.weight"] = rng.normal(size=shape) * (2 / (9 * inputs)) ** 0.5
        state[f"features.{number}.bias"] = 0.1 * rng.normal(size=channels)
        inputs = channels
    for number, (outputs, size) in zip((0, 3, 6), ((4096, 25088), (4096, 4096), (1000, 4096))):
        weight = rng.standard_normal((outputs, size), np.float32) * (2 / size) ** 0.5
        state |= {f"classifier.{number}.weight": weight}
        state |= {f"classifier.{number}.bias": 0.1 * rng.normal(size=outputs)}
    for index, channels in enumerate((64, 128, 256, 512, 512)):
        state[f"lin{index}.model.1.weight"] = rng.uniform(0, 1, (1, channels, 1, 1))
    return {name: array.astype(np.float32) for name, array in state.items()}


def images() -> tuple[np.ndarray, np.ndarray]:
    """224x224 for features; pairs of an odd size for LPIPS. uint8, NHWC."""
    rng = np.random.default_rng(1)
    square = rng.integers(0, 256, (2, 224, 224, 3), np.uint8)
    return square, rng.integers(0, 256, (4, 75, 90, 3), np.uint8)


def pytorch(out: pathlib.Path) -> None:
    """Features, logits and distances by PyTorch, into a file."""
    import torch
    import torch.nn.functional as F

    state = {name: torch.from_numpy(array) for name, array in weights().items()}

    def stages(x):
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        x, found = (x.permute(0, 3, 1, 2) / 255.0 - mean) / std, []
        for number in NUMBERS:
            layer = f"features.{number}"
            x = F.relu(F.conv2d(x, state[f"{layer}.weight"], state[f"{layer}.bias"], padding=1))
            if number in LAST:
                found.append(x)
                x = F.max_pool2d(x, 2)
        return found, x

    with torch.no_grad():
        square, pairs = (torch.from_numpy(array) for array in images())
        x = stages(square)[1].flatten(1)
        for number in (0, 3):
            layer = f"classifier.{number}"
            x = F.relu(F.linear(x, state[f"{layer}.weight"], state[f"{layer}.bias"]))
        logits = F.linear(x, state["classifier.6.weight"], state["classifier.6.bias"])
        distance = torch.zeros(2)
        for index, activation in enumerate(stages(pairs)[0]):
            unit = activation / (activation.norm(dim=1, keepdim=True) + 1e-10)
            squares = (unit[:2] - unit[2:]).square()
            weighted = F.conv2d(squares, state[f"lin{index}.model.1.weight"])
            distance += weighted.mean((1, 2, 3))
    np.savez(out, fc2=x.numpy(), logits=logits.numpy(), lpips=distance.numpy())


def ours() -> dict[str, np.ndarray]:
    """The same by ganjax."""
    import jax.numpy as jnp

    from ganjax.pretrained import vgg16

    variables, report = vgg16.KIND.from_official(weights())
    assert report.complete, report
    network = vgg16.VggNetwork("vgg16", vgg16.KIND, variables)
    square, pairs = images()
    found = network(jnp.asarray(square)) | {"lpips": network.lpips(pairs[:2], pairs[2:])}
    return {name: np.asarray(value) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch-python", default=sys.executable, help="a Python with PyTorch")
    parser.add_argument("--write", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        pytorch(options.write)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "pytorch.npz"
        command = [options.torch_python, __file__, "--write", str(file)]
        subprocess.run(command, check=True)
        golden = dict(np.load(file))
    for name, value in ours().items():
        error = np.abs(value - golden[name]).max() / np.abs(golden[name]).max()
        print(f"{name:8} {error:.1e}")


if __name__ == "__main__":
    main()
