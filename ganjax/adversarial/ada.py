"""How strongly a discriminator's images are augmented (ADA: Karras et al., 2020a, section 3).

An object of these is passed to a family's losses; `None` in its place augments nothing.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ganjax.adversarial.augment import Augment, pipe

Extras = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Fixed:
    """The same probability throughout.

    Attributes:
        pipe: the transforms.
        p: probability of each.
        writes: what phases that show reals to D write.
    """

    pipe: Augment
    p: float = 0.0
    writes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"config.augment.p={self.p:g} is no probability; set 0 to 1.")

    def draw(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        """Random numbers for images [n, h, w, c] or clips [n, t, h, w, c] of a shape."""
        return self.pipe.draw(key, shape)

    def __call__(
        self, images: Float[Array, "n *thw c"], draws: Mapping[str, Any], extras: Extras
    ) -> Float[Array, "n *thw c"]:
        """Augmented images or clips."""
        return self.pipe(images, draws, self.probability(extras))

    def probability(self, extras: Extras) -> Any:
        """The present one."""
        del extras
        return self.p

    def extras(self) -> dict[str, Any]:
        """Scalars of the game before the first step."""
        return {}

    def observe(self, extras: Extras, real: Float[Array, "n"]) -> dict[str, Any]:
        """Scalars after D has given these logits to augmented reals."""
        del extras, real
        return {}

    def adjust(self, extras: Extras, step: Any) -> Extras:
        """Scalars after a step's phases; `step` counts it."""
        del step
        return extras


@dataclasses.dataclass(frozen=True)
class Adaptive(Fixed):
    """A probability that follows how much D overfits.

    Overfitting is told by r_t = E[sign(D(real))], Eq. 1, over all reals that D has judged since the
    last adjustment, regularising phases included. Every few steps p takes a step up if r_t is above
    its target, down if below. It stays above 0 and has no upper limit, as in the official code.

    Attributes:
        p: probability at the start.
        batch: reals (images or clips) of a step.
        target: of r_t.
        every: steps between adjustments.
        ramp_images: reals in which p goes from 0 to 1 at most.
    """

    batch: int = 64
    target: float = 0.6
    every: int = 4
    ramp_images: int | float = 500_000
    writes: ClassVar[tuple[str, ...]] = ("extras/ada_signs", "extras/ada_reals")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 < self.target < 1:
            raise ValueError(
                f"config.augment.target={self.target:g}: a mean of signs lies between -1 and 1."
                " Set config.augment.target to the official code's 0.6, or near it."
            )
        if self.every < 1 or not self.ramp_images > 0:
            raise ValueError(
                f"config.augment.every={self.every} and config.augment.ramp_images="
                f"{self.ramp_images:g}; set both to more than 0 (steps, images)."
            )

    def probability(self, extras: Extras) -> Any:
        return extras["ada_p"]

    def extras(self) -> dict[str, Any]:
        zero = np.zeros((), np.float32)
        return {"ada_p": np.full((), self.p, np.float32), "ada_signs": zero, "ada_reals": zero}

    def observe(self, extras: Extras, real: Float[Array, "n"]) -> dict[str, Any]:
        signs, reals = extras["ada_signs"], extras["ada_reals"]
        return {
            "ada_signs": signs + jnp.sum(jnp.sign(real)).astype(signs.dtype),
            "ada_reals": reals + real.size,
        }

    def adjust(self, extras: Extras, step: Any) -> Extras:
        due = step % self.every == 0
        mean = extras["ada_signs"] / jnp.maximum(extras["ada_reals"], 1)
        by = jnp.sign(mean - self.target) * (self.batch * self.every / self.ramp_images)
        p = jnp.maximum(extras["ada_p"] + by, 0)
        return {
            **extras,
            "ada_p": jnp.where(due, p, extras["ada_p"]),
            "ada_signs": jnp.where(due, 0, extras["ada_signs"]),
            "ada_reals": jnp.where(due, 0, extras["ada_reals"]),
        }


def from_config(config: Any, batch: int) -> Fixed | None:
    """What `config.augment` asks for.

    Args:
        config: the section: `mode`, `pipe`, `p`, `target`, `every`, `ramp_images`.
        batch: reals of a step.

    Raises:
        ValueError: an unknown mode or pipe, or a number that cannot be.
    """
    if config.mode == "none":
        return None
    if config.mode == "fixed":
        return Fixed(pipe(config.pipe), float(config.p))
    if config.mode == "ada":
        return Adaptive(
            pipe(config.pipe),
            float(config.p),
            batch=batch,
            target=float(config.target),
            every=config.every,
            ramp_images=config.ramp_images,
        )
    raise ValueError(
        f"config.augment.mode={config.mode!r}; set ada (p follows the overfitting), fixed"
        " (config.augment.p) or none."
    )
