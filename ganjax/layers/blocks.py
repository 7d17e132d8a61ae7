"""How a network passes its blocks: plainly, or with less kept for the gradient."""

import functools
from typing import Any

import flax.linen as nn
from jax import lax

from ganjax.parallel.rules import gathered_late


def called(block: nn.Module, *inputs: Any) -> Any:
    """`block(*inputs)`."""
    return block(*inputs)


def recomputed(block: nn.Module, *inputs: Any) -> Any:
    """`block(*inputs)`, of which nothing is kept for the gradient but the inputs.

    It is computed again there. Parameters that rules gather late (`parallel.rules`) are gathered
    here, once the inputs are there: there are never more than a block's.
    """

    def once(block: nn.Module, *inputs: Any) -> Any:
        gather = functools.partial(gathered_late, first=lax.stop_gradient(inputs))
        return nn.map_variables(called, "params", gather)(block, *inputs)

    return (called if block.is_initializing() else nn.remat(once))(block, *inputs)
