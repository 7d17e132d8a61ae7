"""What one host finds out, told to all, so that they go on or give up together."""

import jax
import numpy as np
from jax.experimental import multihost_utils

BYTES = 2048  # of a text


def agreed(text: str | None) -> str | None:
    """What process 0 found, on every process; None if it found nothing."""
    if jax.process_count() == 1:
        return text
    found = np.zeros(BYTES, np.uint8)
    encoded = (text or "").encode()[:BYTES]
    found[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    found = multihost_utils.broadcast_one_to_all(found)
    return bytes(found).rstrip(b"\0").decode(errors="replace") or None
