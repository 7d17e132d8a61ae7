"""How StyleGAN-V is sampled: videos at any times, what they show and how it moves apart."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ganjax.families.stylegan2.sampling import MOVING, Draw
from ganjax.families.stylegan2.sampling import Sampling as StyleGAN2Sampling
from ganjax.families.styleganv.networks import Generator
from ganjax.family import Bind, Request
from ganjax.sampling import sheets
from ganjax.sampling.sheets import Sheet, Video

STRIP = 8  # frames of a strip
STILL = ("truncation", "mixing", "latents", "mean")  # sheets of StyleGAN2 that show first frames


@dataclasses.dataclass(frozen=True)
class Sampling(StyleGAN2Sampling):
    """As StyleGAN2's, of clips.

    Sample i is a video without an end: its frame at any time is a pure function of the key, i and
    the time, and costs the same wherever it is.

    Attributes:
        frames: of a clip whose times nobody asks for, which are then 0, 1, ...
        longest: time that is asked for, where all before it counts (LSTM).
        stride: frames from one picture of a strip to the next.
    """

    generator: Generator
    frames: int = 3
    longest: int = 1024
    stride: int = 8

    def draws(self, key: Any, indices: Any, request: Request) -> dict[str, Array]:
        """As StyleGAN2's, with what `where` gives."""
        times = request.times or range(self.frames)
        own = super().draws(key, indices, request)
        return own | self.where(key, indices, jnp.asarray(times, jnp.float32))

    def where(
        self, key: Any, indices: Int[Array, "n"], times: Float[Array, "t"]
    ) -> dict[str, Array]:
        """Times, and the noise that each depends on, of samples ``indices``.

        Returns:
            ``times`` [n, t], ``motion`` [n, t, codes, d] and ``first`` [n, t] of `MotionEncoder`.
        """
        encoder, indices = self.generator.encoder, jnp.asarray(indices)
        key = jax.random.fold_in(key, zlib.crc32(b"motion"))
        first = encoder.first(times[:, None])
        numbers = first[:, None] + jnp.arange(encoder.window(0, self.longest))

        def vector(index: Array, number: Array) -> Array:
            own = jax.random.fold_in(jax.random.fold_in(key, index), number)
            return jax.random.normal(own, (encoder.noise_dim,), jnp.float32)

        of_times = jax.vmap(jax.vmap(vector, (None, 0)), (None, 0))
        shape = (len(indices), len(times))
        return {
            "times": jnp.broadcast_to(times, shape),
            "motion": jax.vmap(of_times, (0, None))(indices, numbers),
            "first": jnp.broadcast_to(first, shape),
        }

    def synthesize(
        self, variables: Mapping[str, Any], ws: Array, draws: Mapping[str, Array]
    ) -> Float[Array, "n t h w c"]:
        """Frames, each from the noise of its own."""
        n, frames = draws["times"].shape
        labels = jnp.repeat(draws["label"], frames, axis=0) if self.generator.classes else None
        flat = (draws[name].reshape(n * frames, *draws[name].shape[2:]) for name in ("motion",))
        codes = self.generator.apply(
            variables,
            draws["times"].reshape(-1, 1),
            *flat,
            draws["first"].reshape(-1),
            labels,
            method="moves",
        )
        codes = codes.reshape(n, frames, -1)
        return self.generator.apply(variables, ws, codes, method="synthesize")

    def sheets(self) -> dict[str, Draw]:
        """``grid``, ``motion``, ``content``, and first frames in those of `STILL`."""
        own: dict[str, Draw] = {"grid": self._grid, "motion": self._motion}
        own["content"] = self._content
        inherited = super().sheets()
        return own | {name: self._still(inherited[name]) for name in STILL}

    def videos(self) -> dict[str, Callable[[Bind, Any, Request], Video]]:
        """``samples``; ``motion`` and ``content``: of one content, and of one motion."""
        return {
            name: functools.partial(self._video, which=which)
            for name, which in (("samples", _apart), ("motion", _moved), ("content", _shown))
        }

    def _grid(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """A video a row, time to the right."""
        return self._strips(bind, key, request, _apart)

    def _motion(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """One content, another motion in each row (section 4.3)."""
        return self._strips(bind, key, request, _moved)

    def _content(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """One motion, another content in each row."""
        return self._strips(bind, key, request, _shown)

    def _strips(self, bind: Bind, key: Any, request: Request, which: "Which") -> Sheet:
        times = request.times or tuple(range(0, STRIP * self.stride, self.stride))
        shown = self._at(bind, key, request, request.rows, which)
        images = [shown(np.float32(time)) for time in times]
        titles = tuple(f"{time:g}" for time in times)
        images = np.stack(images, axis=1).reshape(-1, *images[0].shape[1:])
        return Sheet(images, len(times), titles, self._names(request, request.rows, which))

    def _video(self, bind: Bind, key: Any, request: Request, which: "Which") -> Video:
        columns = len(self._columns(request, MOVING))
        shown = self._at(bind, key, request, request.rows * columns, which)
        return Video(request.frames, lambda i: Sheet(shown(np.float32(i)), columns))

    def _at(
        self, bind: Bind, key: Any, request: Request, count: int, which: "Which"
    ) -> Callable[[Any], Float[np.ndarray, "n h w c"]]:
        """From a time to the frames of some videos."""
        content, motion = which(np.arange(count))
        own = super().draws(key, content, request)
        where = jax.jit(lambda time: self.where(key, motion, time[None]))
        sample = bind(request.truncation)
        return lambda time: np.asarray(sample(own | where(time)))[:, 0]

    def _names(self, request: Request, count: int, which: "Which") -> tuple[str, ...]:
        """Classes of the rows."""
        if not self.generator.classes:
            return ()
        classes = request.classes or tuple(range(self.generator.classes))
        content, _ = which(np.arange(count))
        return sheets.titles([classes[i % len(classes)] for i in content], request.names)

    def _still(self, draw: Draw) -> Draw:
        """A sheet of images as one of first frames, which move alike."""

        def drawn(bind: Bind, key: Any, request: Request) -> Sheet:
            own = self.where(key, np.zeros(1, np.int32), np.zeros(1, np.float32))

            def still(truncation: float | None) -> Callable[[Any], Array]:
                sample = bind(truncation)

                def image(draws: Mapping[str, Array]) -> Array:
                    n = len(draws["z"])
                    where = {k: jnp.broadcast_to(v, (n, *v.shape[1:])) for k, v in own.items()}
                    return sample({**draws, **where})[:, 0]

                return image

            return draw(still, key, request)

        return drawn


Numbers = Int[np.ndarray, "n"]
Which = Callable[[Numbers], tuple[Numbers, Numbers]]  # whose content and whose motion a video has


def _apart(numbers: Numbers) -> tuple[Numbers, Numbers]:
    return numbers, numbers


def _moved(numbers: Numbers) -> tuple[Numbers, Numbers]:
    return 0 * numbers, numbers


def _shown(numbers: Numbers) -> tuple[Numbers, Numbers]:
    return numbers, 0 * numbers
