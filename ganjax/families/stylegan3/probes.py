"""What metrics look at beside samples: StyleGAN2's steps between latents, and motions."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float

from ganjax.families.stylegan2.probes import Probes as StyleGAN2Probes


@dataclasses.dataclass(frozen=True)
class Probes(StyleGAN2Probes):
    """As StyleGAN2's, motions being those of the input's coordinates."""

    def render(
        self,
        variables: Mapping[str, Any],
        ws: Float[Array, "n layers d"],
        noise: Mapping[str, Array],
        transform: Float[Array, "n 3 3"],
    ) -> Float[Array, "n h w c"]:
        """Images whose input was transformed; there is no noise."""
        generator = self.generator.clone(dtype=None)
        images: Any = generator.apply(variables, ws, transform, method="synthesize")
        return images
