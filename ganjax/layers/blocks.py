"""How a network passes its blocks: plainly, or with less kept for the gradient."""

from typing import Any

import flax.linen as nn

from ganjax.parallel.rules import gathered_late


def called(block: nn.Module, *inputs: Any) -> Any:
    """`block(*inputs)`."""
    return block(*inputs)


def recomputed(block: nn.Module, *inputs: Any) -> Any:
    """`block(*inputs)`, of which nothing is kept for the gradient but the inputs.

    It is computed again there. Parameters that rules gather late (`parallel.rules`) are gathered
    here, so that there are never more than a block's.
    """
    if block.is_initializing():
        return block(*inputs)
    return nn.remat(nn.map_variables(called, "params", gathered_late))(block, *inputs)
