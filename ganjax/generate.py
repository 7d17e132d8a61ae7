"""The Python API of trained generators: load one, sample it, draw its sheets.

model = ganjax.generate.load("runs/biggan-digits")
images = model.sample(16, classes=(3,), truncation=0.5)   # uint8 [16, 32, 32, 1]
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from ganjax import checkpoint
from ganjax.family import Family, Request, build
from ganjax.layers.images import to_uint8
from ganjax.sampling import grid
from ganjax.sampling.sheets import Sheet

CHUNK = 64  # images made at a time


@dataclasses.dataclass
class Model:
    """A generator with its weights.

    Attributes:
      family: what it is.
      variables: of the sampling player (the average), as checkpointed.
      config: the run's.
      step: of the checkpoint.
    """

    family: Family
    variables: Mapping[str, Any]
    config: ConfigDict
    step: int

    def __post_init__(self) -> None:
        self._jitted = jax.jit(self.family.sample)
        self._ready: dict[Any, Any] = {}

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        classes: Sequence[int] = (),
        truncation: float | None = None,
    ) -> UInt8[np.ndarray, "n h w c"]:
        """``n`` images; image i depends on the seed, i and the request, not on ``n``.

        Args:
          classes: gone round in this order; empty for all.
          truncation: threshold for resampling latents.
        """
        request = Request(tuple(classes), truncation)
        images = [np.asarray(to_uint8(part)) for part in self.batches(n, seed, request)]
        return np.concatenate(images)[:n]

    def batches(self, n: int, seed: int, request: Request) -> Iterator[Float[jax.Array, "m h w c"]]:
        """The images 0..n-1 in [-1, 1], in chunks of one size; the last has some to spare."""
        sample = self.bind(seed, request)
        draws = jax.jit(self.family.draws, static_argnums=2)
        key = jax.random.key(seed)
        for start in range(0, n, CHUNK):
            yield sample(draws(key, start + jnp.arange(CHUNK), request))

    def sheet(self, name: str, *, seed: int = 0, request: Request = Request()) -> Sheet:  # noqa: B008
        """One of the family's pictures.

        Raises:
          ValueError: the family has no sheet of that name.
        """
        if name not in self.family.sheets:
            raise ValueError(
                f"There is no sheet {name!r}; {self.config.family} has {list(self.family.sheets)}."
            )
        key = jax.random.key(seed)
        return self.family.sheets[name](self.bind(seed, request), key, request)

    @staticmethod
    def draw(sheet: Sheet) -> UInt8[np.ndarray, "height width 3"]:
        """A sheet as one picture."""
        return grid.draw(
            np.asarray(to_uint8(jnp.asarray(sheet.images))),
            sheet.columns,
            column_titles=sheet.column_titles,
            row_titles=sheet.row_titles,
        )

    def bind(self, seed: int, request: Request) -> Any:
        """``draws -> images`` with variables made ready for this request, once."""
        at = (seed, request.truncation)
        if at not in self._ready:
            key = jax.random.fold_in(jax.random.key(seed), 1)
            self._ready[at] = self.family.ready(self.variables, key, request)
        return lambda draws: self._jitted(self._ready[at], draws)


def load(workdir: str | pathlib.Path, step: int | None = None) -> Model:
    """The averaged generator of a run.

    Args:
      workdir: of the run.
      step: of a checkpoint; the newest without it.

    Raises:
      FileNotFoundError: no run there.
      CheckpointError: no checkpoint, or none of that step.
    """
    config = checkpoint.read_config(workdir)
    family = build(config, jax.default_backend())
    wanted = {"ema": family.abstract_state().ema}
    with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:
        state, step = checkpoints.restore(wanted, step)
    return Model(family, state["ema"], config, step)
