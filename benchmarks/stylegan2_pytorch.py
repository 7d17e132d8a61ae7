"""StyleGAN2 on a CPU, here and by NVIDIA's PyTorch code: a generator's forward pass, and a step.

    git clone https://github.com/NVlabs/stylegan2-ada-pytorch PATH/TO/checkout
    python benchmarks/stylegan2_pytorch.py --torch-python=PATH/TO/python --official=PATH/TO/checkout

The same networks, batch and phases on both sides, float32, on the same cores, in two processes that
take turns: one works while the other waits. The official code runs its reference operations, as it
does wherever there is no GPU; its losses and networks are its own, the optimizer and the moving
average around them as in its training loop. PyTorch may be installed in another environment.

Prints medians of ``--rounds`` turns and the ratio of the times, PyTorch over ours: above 1, we are
faster. A step is its phases weighted by how often they are due.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

EVERY = {"g/main": 1, "g/path": 4, "d/main": 1, "d/r1": 16}  # steps
FORWARD = "generator forward"


@dataclasses.dataclass(frozen=True)
class Size:
    """Networks and batch."""

    resolution: int
    batch: int
    channel_base: int
    channel_max: int
    width: int  # of z and w
    mapping: int  # layers


SIZES = {
    "tiny": Size(16, 8, 256, 32, 32, 2),
    "64": Size(64, 8, 4096, 128, 128, 4),
}


def ours(size: Size) -> dict[str, Callable[[], None]]:
    """What is timed, by name; each ends when its result is there."""
    from ganjax import environment

    environment.prepare()
    import jax
    import jax.numpy as jnp

    from configs import stylegan2
    from ganjax.family import build
    from ganjax.parallel.mesh import make_mesh
    from ganjax.program import assemble

    config = stylegan2.base()
    config.data.update(resolution=size.resolution, classes=1)
    config.model.update(
        latent_dim=size.width,
        w_dim=size.width,
        mapping_layers=size.mapping,
        g_channel_base=size.channel_base,
        d_channel_base=size.channel_base,
        channel_max=size.channel_max,
        clamp=0.0,
    )
    config.train.batch = size.batch
    config.augment.mode = "none"
    family = build(config, "cpu")
    program = assemble(family, make_mesh(None, jax.devices()[:1]))
    key = jax.random.key(0)
    held = [program.place(family.init(key))]
    batches = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), program.batches)
    variables, generator = (
        jax.tree.map(jnp.copy, held[0].players["g"].variables),
        family.networks["g"],
    )
    z = jax.random.normal(key, (size.batch, size.width))
    forward = jax.jit(generator.apply).lower(variables, z).compile()

    def play(step: Any) -> Callable[[], None]:
        def run() -> None:
            held[0], _ = step(held[0], batches, key, {})
            jax.block_until_ready(held[0])

        return run

    found = {FORWARD: lambda: jax.block_until_ready(forward(variables, z))}
    for phase in EVERY:
        lowered = program.lower((phase,))
        found[phase] = play(lowered.compile())
    return found


def official(size: Size, checkout: str, threads: int) -> dict[str, Callable[[], None]]:
    """The same by the official code."""
    import types

    sys.path.insert(0, checkout)
    # Imported by its downloads alone.
    sys.modules.setdefault("requests", types.ModuleType("requests"))
    import torch
    from training.loss import StyleGAN2Loss
    from training.networks import Discriminator, Generator

    torch.set_num_threads(threads)
    channels = dict(channel_base=size.channel_base, channel_max=size.channel_max, num_fp16_res=0)
    g = Generator(
        z_dim=size.width,
        c_dim=0,
        w_dim=size.width,
        img_resolution=size.resolution,
        img_channels=3,
        mapping_kwargs=dict(num_layers=size.mapping),
        synthesis_kwargs=channels,
    ).requires_grad_(False)
    d = Discriminator(
        c_dim=0, img_resolution=size.resolution, img_channels=3, **channels
    ).requires_grad_(False)
    average = Generator(
        z_dim=size.width,
        c_dim=0,
        w_dim=size.width,
        img_resolution=size.resolution,
        img_channels=3,
        mapping_kwargs=dict(num_layers=size.mapping),
        synthesis_kwargs=channels,
    ).requires_grad_(False)
    loss = StyleGAN2Loss("cpu", g.mapping, g.synthesis, d, style_mixing_prob=0.9, r1_gamma=10)
    modules = {"g": g, "d": d}
    descend = {
        name: torch.optim.Adam(module.parameters(), lr=2e-3, betas=(0.0, 0.99), eps=1e-8)
        for name, module in modules.items()
    }
    names = {"g/main": "Gmain", "g/path": "Greg", "d/main": "Dmain", "d/r1": "Dreg"}
    images = torch.ones(size.batch, 3, size.resolution, size.resolution)
    z, c = torch.randn(size.batch, size.width), torch.zeros(size.batch, 0)

    def play(phase: str) -> Callable[[], None]:
        module = modules[phase[0]]

        def run() -> None:
            descend[phase[0]].zero_grad(set_to_none=True)
            module.requires_grad_(True)
            loss.accumulate_gradients(names[phase], images, c, z, c, True, EVERY[phase])
            module.requires_grad_(False)
            for parameter in module.parameters():
                if parameter.grad is not None:
                    torch.nan_to_num(
                        parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad
                    )
            descend[phase[0]].step()
            # Ours averages in every program; there, in every step.
            for kept, now in zip(average.parameters(), g.parameters()):
                kept.copy_(now.lerp(kept, 0.999))

        return run

    def forward() -> None:
        with torch.no_grad():
            g(z, c, noise_mode="const")

    return {FORWARD: forward, **{phase: play(phase) for phase in EVERY}}


def serve(work: dict[str, Callable[[], None]]) -> None:
    """Time what each line of the standard input names."""
    for run in work.values():  # compile, allocate
        run()
    print("ready", flush=True)
    for line in sys.stdin:
        run, started, times = work[line.strip()], time.perf_counter(), 0
        while times == 0 or time.perf_counter() - started < 0.5:
            run()
            times += 1
        print((time.perf_counter() - started) / times, flush=True)


class Worker:
    """A process that times on demand."""

    def __init__(self, command: list[str]):
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        while (line := self._read()) != "ready":
            del line

    def time(self, name: str) -> float:
        assert self._process.stdin is not None
        print(name, file=self._process.stdin, flush=True)
        return float(self._read())

    def close(self) -> None:
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._process.args} ended with {self._process.wait()}")
        return line.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch-python", default=sys.executable, help="Python that has PyTorch")
    parser.add_argument("--official", required=True, help="checkout of stylegan2-ada-pytorch")
    parser.add_argument("--sizes", default=",".join(SIZES), help=f"some of {', '.join(SIZES)}")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--cores", type=int, default=2, help="of the machine, for each side")
    parser.add_argument("--worker", choices=("ours", "official"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    if options.worker:
        size = SIZES[options.sizes]
        serve(
            ours(size)
            if options.worker == "ours"
            else official(size, options.official, options.cores)
        )
        return
    print(f"{options.cores} cores, load {os.getloadavg()[0]:.1f}")
    print("| size | | ours ms | PyTorch ms | PyTorch / ours, median of turns |\n|-|-|-:|-:|-:|")
    for name in options.sizes.split(","):
        sides = []
        for python, side in ((sys.executable, "ours"), (options.torch_python, "official")):
            command = [python, __file__, f"--worker={side}", f"--sizes={name}"]
            sides.append(
                Worker([*command, f"--official={options.official}", f"--cores={options.cores}"])
            )
        rounds = []
        for _ in range(options.rounds):
            turn: list[dict[str, float]] = [{}, {}]
            for what in (FORWARD, *EVERY):
                for seconds, side in zip(turn, sides):
                    seconds[what] = 1e3 * side.time(what)
            for seconds in turn:
                seconds["step"] = sum(seconds[phase] / every for phase, every in EVERY.items())
            rounds.append(turn)
        for what in (FORWARD, *EVERY, "step"):
            here, there = ([turn[i][what] for turn in rounds] for i in (0, 1))
            ratio = statistics.median(b / a for a, b in zip(here, there))
            medians = f"{statistics.median(here):.1f} | {statistics.median(there):.1f}"
            print(f"| {name} | {what} | {medians} | {ratio:.2f} |", flush=True)
        for side in sides:
            side.close()
        print(
            json.dumps({"size": name, "load": os.getloadavg(), "rounds": rounds}), file=sys.stderr
        )


if __name__ == "__main__":
    main()
