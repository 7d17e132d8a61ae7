"""How StyleGAN3 is sampled: as StyleGAN2, and under transforms of its input."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ganjax.families.stylegan2.sampling import Sampling as StyleGAN2Sampling
from ganjax.family import Bind, Request
from ganjax.layers.motion import shifted, turned
from ganjax.sampling import sheets
from ganjax.sampling.sheets import Sheet

SHIFTS = (0.0, 0.0625, 0.125, 0.25)  # of the transform sheet, in widths of the image
TURNS = (0.0, 15.0, 45.0, 90.0)  # degrees


@dataclasses.dataclass(frozen=True)
class Sampling(StyleGAN2Sampling):
    """As StyleGAN2's, with ``draws["transform"]`` [n, 3, 3] of the input, if there is any."""

    def synthesize(
        self, variables: Mapping[str, Any], ws: Array, draws: Mapping[str, Array]
    ) -> Array:
        """Images from the w of each layer."""
        images: Any = self.generator.apply(
            variables, ws, draws.get("transform"), method="synthesize"
        )
        return images

    def sheets(self) -> dict[str, Callable[[Bind, Any, Request], Sheet]]:
        """StyleGAN2's and ``transform``."""
        return super().sheets() | {"transform": self._transform}

    def _transform(self, bind: Bind, key: Any, request: Request) -> Sheet:
        """A latent a column, moved and turned from row to row (StyleGAN3, figure 5)."""
        columns = self._columns(request)
        sample, kept = bind(request.truncation), self._kept(request)
        z, label = self._z(key, len(columns)), np.asarray(columns, np.int32)
        rows = {f"{share:g} right": shifted(share, 0.0) for share in SHIFTS}
        rows |= {
            f"{degrees:g}\N{DEGREE SIGN}": turned(np.deg2rad(degrees)) for degrees in TURNS[1:]
        }
        blocks = []
        for matrix in rows.values():

            def moved(z: Array, label: Array, matrix: Array = matrix) -> Array:
                draws = {"z": z, "label": label, "truncation": jnp.full(len(z), kept, jnp.float32)}
                return sample({**draws, "transform": jnp.broadcast_to(matrix, (len(z), 3, 3))})

            blocks.append(sheets.in_chunks(moved, z, label))
        titles = self._titles(columns, request)
        return Sheet(np.concatenate(blocks), len(columns), titles, tuple(rows))
