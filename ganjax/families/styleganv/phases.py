"""StyleGAN-V's phases are StyleGAN2's with clips, without path lengths and style mixing.

    g/main   non-saturating logistic loss
    d/main   logistic loss
    d/r1     gradient penalty on reals, every 16 steps: of a clip the mean over its frames

Fakes are as long as the real clips of the same microbatch, and have their times by the same rule,
at fractions of a frame. All frames of a clip are augmented alike.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ganjax.adversarial.phases import Game
from ganjax.data.clips import Even, Sparse
from ganjax.families.stylegan2.phases import Draws as StyleGAN2Draws
from ganjax.families.stylegan2.phases import Losses as StyleGAN2Losses
from ganjax.families.stylegan2.phases import Views
from ganjax.families.styleganv.networks import Generator
from ganjax.layers.images import to_float

Times = Sparse | Even
PAPER = Sparse(fractional=True)


@dataclasses.dataclass(frozen=True)
class Losses(StyleGAN2Losses):
    """StyleGAN2's losses over networks of clips.

    Attributes:
        path_weight: 0; the released code's path lengths do not work with more than one frame.
        times: of the frames of fakes.
        longest: video, in frames.
    """

    generator: Generator
    path_weight: float = 0.0
    times: Times = PAPER
    longest: int = 1024

    def reals(self, game: Game) -> Float[Array, "n t h w c"]:
        return to_float(game.batch["clip"])

    def told(self, samples: Mapping[str, Any]) -> tuple[Any, ...]:
        return samples["times"], *super().told(samples)

    def images(
        self, variables: Any, ws: Array, draws: Mapping[str, Any], phase: str = ""
    ) -> tuple[Float[Array, "n t h w c"], dict[str, Any]]:
        where = draws["times"], draws["motion"], draws["first"], draws.get("label")
        codes = self.generator.apply(variables, *where, method="moves")
        inputs = (ws, codes, draws["noise"]) if draws.get("noise") else (ws, codes)
        clips: Any = self.generator.apply(variables, *inputs, method="synthesize")
        return clips, {}

    def views(self, *names: str) -> Views:
        views = super().views(*names)
        return dataclasses.replace(views, size=(self.times.frames, *views.size))

    def draws(self, *views: str, **fields: Any) -> "Draws":
        own = self.views(*views) if views else None
        return Draws(self.generator, views=own, times=self.times, longest=self.longest, **fields)


@dataclasses.dataclass(frozen=True)
class Draws(StyleGAN2Draws):
    """Everything random about a microbatch of fake clips.

    Lengths of videos are those of the real clips of the same microbatch, as labels are.
    NOTE: the official code draws other videos' lengths, of the same distribution.

    Attributes:
        times, longest: as of `Losses`.
    """

    generator: Generator
    times: Times = PAPER
    longest: int = 1024

    @property
    def batch(self) -> str:
        return "real"

    def __call__(self, key: Array, game: Game) -> dict[str, Any]:
        draws, encoder = super().__call__(key, game), self.generator.encoder
        own = jax.random.split(jax.random.fold_in(key, zlib.crc32(b"motion")))
        uniform = jax.random.uniform(own[0], (game.size, self.times.draws))
        times = jnp.asarray(self.times(uniform, game.batch["length"]), uniform.dtype)
        # Noise that no frame depends on is not drawn, wherever in the video the clip is.
        codes = encoder.window(self.span, self.longest - 1)
        motion = jax.random.normal(own[1], (game.size, codes, encoder.noise_dim))
        return draws | {"times": times, "motion": motion, "first": encoder.first(times)}

    @property
    def span(self) -> int:
        """Frames between the first and the last one of a clip, at most."""
        if isinstance(self.times, Sparse):
            return min(self.times.max_dist, self.longest - 1)
        longest = self.times.max_dist or self.longest
        return min(longest * (self.times.frames - 1), self.longest - 1)
