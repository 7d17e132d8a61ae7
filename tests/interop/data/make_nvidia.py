"""Writes small files in NVIDIA's layout with NVIDIA's own code, and what its networks make of them.

    PYTHONPATH=REPOSITORY python make_nvidia.py OUT [--sources] [--only=NAME,...]

REPOSITORY is a checkout of github.com/NVlabs/stylegan2-ada-pytorch or github.com/NVlabs/stylegan3.
For each of its cases, `OUT/<case>.pkl` is a snapshot as its training writes it, of random weights,
and `OUT/<case>.npz` has latents, labels, images of G_ema at two truncations and logits of D. The
source code that NVIDIA's pickles carry is left out, unless --sources asks for it. (The files of
this folder: PyTorch 2.13.0, NumPy 2.4, the repositories as of 2026-11-21.)
"""

import contextlib
import copy
import importlib
import pathlib
import pickle
import sys

import dnnlib
import numpy as np
import torch
from torch_utils import persistence

Easy = dnnlib.EasyDict
SMALL = Easy(z_dim=6, w_dim=8, img_channels=3)
# Each: class of G, its arguments, arguments of D, of the augmentation.
ADA = {
    "ada_conditional": (
        "training.networks.Generator",
        Easy(
            SMALL,
            c_dim=3,
            img_resolution=16,
            mapping_kwargs=Easy(num_layers=2),
            synthesis_kwargs=Easy(channel_base=64, channel_max=8, num_fp16_res=4, conv_clamp=256),
        ),
        Easy(
            channel_base=32,
            channel_max=8,
            num_fp16_res=4,
            conv_clamp=256,
            block_kwargs=Easy(freeze_layers=1),
            mapping_kwargs=Easy(),
            epilogue_kwargs=Easy(mbstd_group_size=2),
        ),
        Easy(xflip=1, rotate90=1, xint=1, scale=1, brightness=1, imgfilter=1),
    ),
    "ada_resnet": (
        "training.networks.Generator",
        Easy(
            SMALL,
            c_dim=0,
            img_resolution=32,
            img_channels=1,
            synthesis_kwargs=Easy(channel_base=128, channel_max=16, architecture="resnet"),
        ),
        Easy(channel_base=128, channel_max=16, architecture="skip"),
        None,
    ),
}
STYLEGAN3 = {
    "stylegan2": (
        "training.networks_stylegan2.Generator",
        Easy(
            SMALL,
            c_dim=0,
            img_resolution=16,
            channel_base=64,
            channel_max=8,
            mapping_kwargs=Easy(num_layers=8),
            fused_modconv_default="inference_only",
        ),
        None,
        Easy(xflip=1),
    ),
    "stylegan3_t": (
        "training.networks_stylegan3.Generator",
        Easy(
            SMALL,
            c_dim=3,
            img_resolution=16,
            channel_base=64,
            channel_max=8,
            num_layers=5,
            mapping_kwargs=Easy(num_layers=2),
            magnitude_ema_beta=0.5 ** (32 / 20e3),
        ),
        None,
        None,
    ),
    "stylegan3_t14": (
        "training.networks_stylegan3.Generator",
        Easy(SMALL, c_dim=0, img_resolution=32, channel_base=256, channel_max=12),
        None,
        None,
    ),
    "stylegan3_r": (
        "training.networks_stylegan3.Generator",
        Easy(
            SMALL,
            c_dim=0,
            img_resolution=16,
            channel_base=64,
            channel_max=8,
            num_layers=5,
            mapping_kwargs=Easy(num_layers=2),
            magnitude_ema_beta=0.5 ** (32 / 20e3),
            conv_kernel=1,
            use_radial_filters=True,
        ),
        None,
        None,
    ),
}
D_OF_STYLEGAN3 = Easy(
    channel_base=64,
    channel_max=8,
    block_kwargs=Easy(freeze_layers=0),
    mapping_kwargs=Easy(),
    epilogue_kwargs=Easy(mbstd_group_size=4),
)


def construct(name, arguments):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)(**arguments)


def randomise(module, rng):
    """Every number that training moves; fresh networks have zeros and ones where it matters."""
    fixed = ("filter", "freqs", "phases", "transform")
    named = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in named:
        if name.rpartition(".")[2].endswith(fixed):
            continue
        noise = torch.from_numpy(rng.normal(size=tuple(tensor.shape)).astype(np.float32))
        with torch.no_grad():
            if name.endswith("magnitude_ema"):
                tensor.copy_(noise.abs() + 0.5)
            elif name.endswith("weight"):
                tensor.add_(0.1 * noise)
            else:
                tensor.add_(0.5 * noise)


@contextlib.contextmanager
def without_sources(wanted):
    """Pickles written meanwhile have an empty text in place of the source code."""
    kept = {cls: cls._orig_module_src for cls in persistence._decorators}
    for cls, source in kept.items():
        cls._orig_module_src = "" if wanted else source
    yield
    for cls, source in kept.items():
        cls._orig_module_src = source


def write(out, name, case, sources):
    g_class, g_arguments, d_arguments, augment = case
    rng = np.random.default_rng(sum(name.encode()))
    torch.manual_seed(0)
    g = construct(g_class, g_arguments)
    d_class = g_class.replace("stylegan3.", "stylegan2.").replace("Generator", "Discriminator")
    shared = {key: g_arguments[key] for key in ("c_dim", "img_resolution", "img_channels")}
    d = construct(d_class, {**(d_arguments or D_OF_STYLEGAN3), **shared})
    average = copy.deepcopy(g)
    for module in (g, d, average):
        randomise(module, rng)
    pipe = None
    if augment is not None:
        pipe = construct("training.augment.AugmentPipe", augment)
        pipe.p.copy_(torch.as_tensor(0.25))
    folder = Easy(class_name="training.dataset.ImageFolderDataset", path="./data.zip")
    snapshot = dict(
        G=g,
        D=d,
        G_ema=average,
        augment_pipe=pipe,
        training_set_kwargs=dict(folder, use_labels=g.c_dim > 0, xflip=False),
    )
    for key, value in snapshot.items():
        if isinstance(value, torch.nn.Module):
            snapshot[key] = copy.deepcopy(value).eval().requires_grad_(False).cpu()
    with open(out / f"{name}.pkl", "wb") as file, without_sources(not sources):
        pickle.dump(snapshot, file)

    z = torch.from_numpy(rng.normal(size=(4, g.z_dim)))
    label = rng.integers(0, max(g.c_dim, 1), 4)
    c = torch.eye(g.c_dim)[label] if g.c_dim else torch.zeros(4, 0)
    with torch.no_grad():
        images = {
            f"images_{psi}": snapshot["G_ema"](
                z, c, truncation_psi=psi, noise_mode="const", force_fp32=True
            )
            for psi in (1, 0.5)
        }
        logits = snapshot["D"](images["images_1"], c, force_fp32=True)[:, 0]
    arrays = {key: value.numpy().transpose(0, 2, 3, 1) for key, value in images.items()}
    np.savez(
        out / f"{name}.npz",
        z=z.numpy().astype(np.float32),
        label=label.astype(np.int32),
        logits=logits.numpy(),
        **arrays,
    )
    print(name, (out / f"{name}.pkl").stat().st_size, "bytes")


def main(out, *options):
    only = [option.removeprefix("--only=") for option in options if option.startswith("--only=")]
    if importlib.util.find_spec("training.networks_stylegan3"):
        cases = STYLEGAN3
    else:
        cases = ADA
    out = pathlib.Path(out)
    out.mkdir(exist_ok=True)
    for name, case in cases.items():
        if not only or name in only[0].split(","):
            write(out, name, case, "--sources" in options)


if __name__ == "__main__":
    main(*sys.argv[1:])
