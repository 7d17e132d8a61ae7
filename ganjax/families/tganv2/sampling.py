"""How TGANv2 is sampled: dense clips, by the running statistics, with nothing left out."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ganjax.families.tganv2.networks import Generator
from ganjax.families.tganv2.phases import latents
from ganjax.family import Bind, Request
from ganjax.sampling import clips
from ganjax.sampling.sheets import Sheet, Video

COLUMNS = 4  # videos in a row of a film
SHOWN = 8  # frames of a strip


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Sampling of a generator.

    Attributes:
        generator: the module.
        frames: that its recurrent layers are asked for. NOTE: the paper finds that more than those
            of training may be stable.
    """

    generator: Generator
    frames: int = 16

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"config.sample.frames={self.frames}; set it to 1 or more.")

    def draws(self, key: Any, indices: Any, request: Request) -> dict[str, Array]:
        """Latents of samples ``indices``, and the numbers of their frames.

        Raises:
            ValueError: times between frames, or beyond them; a truncation.
        """
        if request.truncation is not None:
            raise ValueError(
                "TGANv2 has no mean that its latents could be brought nearer to; leave --truncation"
                " out."
            )
        times = np.asarray(request.times or range(self.frames), np.float32)
        self._check(times)
        dim = self.generator.latent_dim
        z = jax.vmap(lambda index: latents(jax.random.fold_in(key, index), (dim,)))(indices)
        return {"z": z, "times": jnp.broadcast_to(jnp.asarray(times), (len(z), len(times)))}

    def sample(self, variables: Mapping[str, Any], draws: Mapping[str, Array]) -> Array:
        """Videos [n, t, h, w, c] in [-1, 1], float32."""
        times = draws["times"].astype(jnp.int32)
        videos: Any = self.generator.apply(
            variables, draws["z"], None, self.frames, times, method="sample"
        )
        return videos.astype(jnp.float32)

    def sheets(self) -> dict[str, Callable[[Bind, Any, Request], Sheet]]:
        """``grid``: a row a video."""
        return {"grid": self._grid}

    def videos(self) -> dict[str, Callable[[Bind, Any, Request], Video]]:
        """``clips``."""
        return {"clips": self._clips}

    def _grid(self, bind: Bind, key: Any, request: Request) -> Sheet:
        _without_classes(request)
        shown = np.linspace(0, self.frames - 1, min(self.frames, SHOWN)).round()
        request = dataclasses.replace(request, times=request.times or tuple(shown.tolist()))
        draws = self.draws(key, jnp.arange(request.rows), request)
        return clips.strips(bind(request.truncation), draws)

    def _clips(self, bind: Bind, key: Any, request: Request) -> Video:
        _without_classes(request)
        self._check(request.moments(np.arange(request.frames)))
        columns = COLUMNS
        draws = self.draws(key, jnp.arange(request.rows * columns), request)
        sample = bind(request.truncation)
        return clips.film(sample, draws, request.moments, request.frames, columns)

    def _check(self, times: np.ndarray) -> None:
        if (times != times.round()).any() or times.max() > self.frames - 1:
            raise ValueError(
                f"TGANv2 makes frames 0 to {self.frames - 1} of a video, at the data's frame rate, "
                f"and no others; {len(times)} from {times.min():g} to {times.max():g} are wanted. "
                "Leave --fps out, set --start and --seconds to fewer, or --config.sample.frames to "
                "more than it has learnt."
            )


def _without_classes(request: Request) -> None:
    if request.classes:
        raise ValueError("TGANv2 does not make videos of classes; leave --classes out.")
