"""Writes a small snapshot with StyleGAN-V's own code, and what its networks make of inputs.

    PYTHONPATH=REPOSITORY:REPOSITORY/src python make_styleganv.py OUT [--sources]

REPOSITORY is a checkout of github.com/universome/stylegan-v; OmegaConf is installed. Of each case,
`OUT/<case>.pkl` is a snapshot as its training writes it, of random weights, and `OUT/<case>.npz`
has latents, labels, times, motion noise, frames of G_ema and logits of D. The source code in the
pickle is left out, unless --sources asks for it. (The file of this folder: PyTorch 2.13.0,
OmegaConf 2.1.1, the repository as of 2026-11-21.)
"""

import copy
import pathlib
import pickle
import sys

import numpy as np
import torch
from omegaconf import OmegaConf
from src.dnnlib import EasyDict
from src.torch_utils import persistence
from training.networks import Discriminator, Generator

SIZE, CLASSES, FRAMES = 16, 3, 3
# What Hydra makes of the released configs/, in small; its references are kept as they are.
CONFIG = """
dataset: {name: clips, path: "./${dataset.name}.zip", c_dim: 3, fps: 25, resolution: 16,
          max_num_frames: 64, sampling: "${sampling}"}
sampling: {type: random, total_dists: [1, 2, 4, 8, 16, 32, 64], max_dist: 16,
           num_frames_per_video: 3, max_num_frames: "${dataset.max_num_frames}", fps: 25}
model:
  name: stylegan-v
  generator:
    source: networks
    use_noise: false
    c_dim: ${dataset.c_dim}
    sampling: ${sampling}
    input: {type: temporal}
    w_dim: 8
    z_dim: 6
    motion: {z_dim: 5, v_dim: 7, motion_z_distance: "${model.generator.time_enc.min_period_len}",
             gen_strategy: conv, kernel_size: 3, use_fractional_t: true, fourier: true}
    time_enc: {cond_type: concat_const, dim: 4, min_period_len: 8, max_period_len: 32,
               phase_dropout_std: 1.0}
  discriminator: {source: networks, sampling: "${sampling}", concat_res: 8,
                  num_frames_div_factor: 2, dummy_c: false, mbstd_group_size: 2}
"""
CASES = {
    "styleganv": {},
    "styleganv_lstm": {
        "model.generator.motion.gen_strategy": "autoregressive",
        "model.generator.motion.z_dim": 7,
        "model.generator.time_enc.cond_type": "concat_w",
        "model.generator.input.type": "const",
        "model.discriminator.dummy_c": True,
        "sampling.total_dists": None,
    },
}


def networks(cfg):
    g = Generator(
        c_dim=CLASSES,
        img_resolution=SIZE,
        img_channels=3,
        w_dim=cfg.model.generator.w_dim,
        mapping_kwargs=EasyDict(num_layers=2, cfg=cfg.model.generator),
        synthesis_kwargs=EasyDict(channel_base=64, channel_max=8, num_fp16_res=4, conv_clamp=256),
        cfg=cfg.model.generator,
    )
    d = Discriminator(
        c_dim=CLASSES,
        img_resolution=SIZE,
        img_channels=3,
        channel_base=32,
        channel_max=8,
        num_fp16_res=4,
        conv_clamp=256,
        block_kwargs=EasyDict(),
        mapping_kwargs=EasyDict(num_layers=2),
        epilogue_kwargs=EasyDict(mbstd_group_size=2),
        cfg=cfg.model.discriminator,
    )
    return g, d


def randomise(module, rng):
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith(("filter", "freqs", "phase_scales", "coefs")):
            continue
        noise = torch.from_numpy(rng.normal(size=tuple(tensor.shape)).astype(np.float32))
        with torch.no_grad():
            tensor.add_(noise if name.endswith("w_avg") else 0.1 * noise)


def write(out, name, changes, sources):
    rng = np.random.default_rng(sum(name.encode()))
    torch.manual_seed(0)
    cfg = OmegaConf.create(CONFIG)
    for path, value in changes.items():
        OmegaConf.update(cfg, path, value)
    OmegaConf.set_struct(cfg, True)
    g, d = networks(cfg)
    average = copy.deepcopy(g)
    for module in (g, d, average):
        randomise(module, rng)
    data = EasyDict(
        class_name="training.dataset.VideoFramesFolderDataset",
        path=cfg.dataset.path,
        cfg=cfg.dataset,
        use_labels=True,
        max_size=None,
        xflip=False,
    )
    snapshot = dict(training_set_kwargs=dict(data))
    for key, module in dict(G=g, D=d, G_ema=average, augment_pipe=None).items():
        snapshot[key] = module and copy.deepcopy(module).eval().requires_grad_(False).cpu()
    kept = {cls: cls._orig_module_src for cls in persistence._decorators}
    for cls, source in kept.items():
        cls._orig_module_src = source if sources else ""
    (out / f"{name}.pkl").write_bytes(pickle.dumps(snapshot))
    for cls, source in kept.items():
        cls._orig_module_src = source

    n = 4
    z = torch.from_numpy(rng.normal(size=(n, g.z_dim)).astype(np.float32))
    label = rng.integers(0, CLASSES, n)
    c = torch.eye(CLASSES)[label]
    times = np.sort(rng.uniform(0, 60, (n, FRAMES)).astype(np.float32))
    noise = rng.normal(size=(n, 80, cfg.model.generator.motion.z_dim)).astype(np.float32)
    with torch.no_grad():
        frames = snapshot["G_ema"](
            z, c, torch.from_numpy(times), motion_z=torch.from_numpy(noise), force_fp32=True
        )
        logits = snapshot["D"](frames, c, torch.from_numpy(times), force_fp32=True)
    images = frames.numpy().transpose(0, 2, 3, 1)
    np.savez(
        out / f"{name}.npz",
        z=z.numpy(),
        label=label.astype(np.int32),
        times=times,
        noise=noise,
        frames=images.reshape(n, FRAMES, *images.shape[1:]),
        logits=logits["image_logits"].numpy(),
    )
    print(name, (out / f"{name}.pkl").stat().st_size, "bytes", float(images.std()))


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    for case, changed in CASES.items():
        write(folder, case, changed, "--sources" in sys.argv)
