"""How StyleGAN-V is sampled: videos at any times, what they show and how it moves apart."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from ganjax.families.stylegan2.sampling import MOVING, Draw
from ganjax.families.stylegan2.sampling import Sampling as StyleGAN2Sampling
from ganjax.families.styleganv.networks import Generator
from ganjax.family import Bind, Request
from ganjax.sampling import clips, sheets
from ganjax.sampling.sheets import Sheet, Video

STRIP = 8  # frames of a strip
STILL = ("truncation", "mixing", "latents", "mean")  # sheets of StyleGAN2, of first frames

Numbers = Int[np.ndarray, "n"]
Which = Callable[[Numbers], tuple[Numbers, Numbers]]  # whose content and whose motion a video has


def apart(numbers: Numbers) -> tuple[Numbers, Numbers]:
    """Each video has its own of both."""
    return numbers, numbers


def one_content(numbers: Numbers) -> tuple[Numbers, Numbers]:
    """All show the same, and move each in its own way."""
    return 0 * numbers, numbers


def one_motion(numbers: Numbers) -> tuple[Numbers, Numbers]:
    """All move alike."""
    return numbers, 0 * numbers


@dataclasses.dataclass(frozen=True)
class Sampling(StyleGAN2Sampling):
    """As StyleGAN2's, of clips.

    Sample i is a video without an end: its frame at any time is a pure function of the key, i and
    the time, and costs the same wherever it is. Where motion comes from an LSTM, all times before
    `longest` cost the same, and there are no later ones.

    Attributes:
        frames: of a clip whose times nobody asks for, which are then 0, 1, ...
        longest: of the times, where that matters.
        stride: frames from one picture of a strip to the next.
    """

    generator: Generator
    frames: int = 3
    longest: int = 1024
    stride: int = 8

    def draws(self, key: Any, indices: Any, request: Request) -> dict[str, Array]:
        """As StyleGAN2's, with ``times`` [n, t] and ``motion`` [n, words], keys of noise.

        Raises:
            ValueError: times after the end.
        """
        self._check(request.times)
        times = jnp.asarray(request.times or range(self.frames), jnp.float32)
        return {
            **super().draws(key, indices, request),
            "times": jnp.broadcast_to(times, (len(indices), len(times))),
            "motion": self.motion(key, indices),
        }

    def motion(self, key: Any, indices: Int[Array | np.ndarray, "n"]) -> UInt32[Array, "n words"]:
        """What the motion of samples depends on, and nothing else does."""
        key = jax.random.fold_in(key, zlib.crc32(b"motion"))
        fold = jax.vmap(lambda index: jax.random.key_data(jax.random.fold_in(key, index)))
        return fold(jnp.asarray(indices))

    def synthesize(
        self, variables: Mapping[str, Any], ws: Array, draws: Mapping[str, Array]
    ) -> Float[Array, "n t h w c"]:
        """Frames, each from those vectors of noise that it depends on."""
        times = draws["times"]
        n, frames = times.shape
        encoder = self.generator.encoder
        first = encoder.first(times[..., None])  # [n, t]
        numbers = first[..., None] + jnp.arange(encoder.window(0, self.longest))

        def vector(words: Array, number: Array) -> Array:
            key = jax.random.fold_in(jax.random.wrap_key_data(words), number)
            return jax.random.normal(key, (encoder.noise_dim,), times.dtype)

        noise = jax.vmap(jax.vmap(jax.vmap(vector, (None, 0)), (None, 0)))(draws["motion"], numbers)
        codes: Any = self.generator.apply(
            variables,
            times.reshape(-1, 1),
            noise.reshape(-1, *noise.shape[2:]),
            first.reshape(-1),
            jnp.repeat(draws["label"], frames, axis=0),
            method="moves",
        )
        inputs = ws, codes.reshape(n, frames, -1)
        seen: Any = self.generator.apply(variables, *inputs, method="synthesize")
        return seen

    def sheets(self) -> dict[str, Draw]:
        """``grid``, ``motion`` and ``content``: strips; and first frames in those of `STILL`."""
        which = {"grid": apart, "motion": one_content, "content": one_motion}
        own = {name: functools.partial(self._strips, which=w) for name, w in which.items()}
        of_images = super().sheets()
        return own | {name: _still(of_images[name], self) for name in STILL}

    def videos(self) -> dict[str, Callable[[Bind, Any, Request], Video]]:
        """``clips``; ``motion``: another one of the same content; ``content``: the reverse."""
        which = {"clips": apart, "motion": one_content, "content": one_motion}
        return {name: functools.partial(self._video, which=w) for name, w in which.items()}

    def _strips(self, bind: Bind, key: Any, request: Request, which: Which) -> Sheet:
        """A video a row, time to the right."""
        times = request.times or tuple(range(0, STRIP * self.stride, self.stride))
        request = dataclasses.replace(request, times=times)
        draws, classes = self._of(key, np.arange(request.rows), request, which)
        sheet = clips.strips(bind(request.truncation), draws)
        titles = tuple(f"{time:g}" for time in times)
        return dataclasses.replace(sheet, column_titles=titles, row_titles=classes)

    def _check(self, times: Sequence[int | float] | Float[np.ndarray, "t"]) -> None:
        last = max(times, default=0)
        if self.generator.encoder.reach is None and last > self.longest - 1:
            raise ValueError(
                "Motion of config.model.trajectory='lstm' ends with frame"
                f" {self.longest - 1}, the last one of config.data.clip.max_frames={self.longest};"
                f" frame {last:g} is wanted. Set --start and --seconds to less."
            )

    def _video(self, bind: Bind, key: Any, request: Request, which: Which) -> Video:
        self._check(request.moments(np.arange(request.frames)[-1:]))
        columns = len(self._columns(request, MOVING))
        numbers = np.arange(request.rows * columns)
        draws, _ = self._of(key, numbers, request, which)
        sample = bind(request.truncation)
        return clips.film(sample, draws, request.moments, request.frames, columns)

    def _of(
        self, key: Any, numbers: Numbers, request: Request, which: Which
    ) -> tuple[dict[str, Array], tuple[str, ...]]:
        """Draws of videos, and the names of their classes."""
        content, motion = which(numbers)
        draws = self.draws(key, content, request) | {"motion": self.motion(key, motion)}
        if not self.generator.classes:
            return draws, ()
        return draws, sheets.titles(np.asarray(draws["label"]).tolist(), request.names)


def _still(draw: Draw, sampling: Sampling) -> Draw:
    """A sheet of images as one of first frames, which all move alike."""

    def drawn(bind: Bind, key: Any, request: Request) -> Sheet:
        motion = sampling.motion(key, np.zeros(1, np.int32))

        def images(truncation: float | None) -> Callable[[Any], Array]:
            sample = bind(truncation)

            def image(draws: Mapping[str, Array]) -> Array:
                n = len(draws["z"])
                moving = {"times": jnp.zeros((n, 1)), "motion": jnp.tile(motion, (n, 1))}
                return sample({**draws, **moving})[:, 0]

            return image

        return draw(images, key, request)

    return drawn
