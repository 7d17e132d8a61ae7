"""CLIP score: how well pictures show what their captions say."""

from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

from ganjax.metrics.blocks import CHECKED, check_pair


def similarities(
    images: Shaped[np.ndarray, "n d"], texts: Shaped[np.ndarray, "m e"]
) -> Float[np.ndarray, "n"]:
    """The cosine of each picture's and its caption's embedding, -1 to 1, float64.

    Raises:
      ValueError: not a caption for each picture, other widths, or an embedding that is zero or not
        finite.
    """
    check_pair("image embeddings", images, "text embeddings", texts)
    if len(images) != len(texts):
        raise ValueError(
            f"{len(images)} image and {len(texts)} text embeddings; one text for each image is"
            " expected, in the same order"
        )
    found = np.empty(len(images))
    for start in range(0, len(images), CHECKED):
        rows = slice(start, start + CHECKED)
        a, b = np.asarray(images[rows], np.float64), np.asarray(texts[rows], np.float64)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        if not norms.all():
            raise ValueError(
                f"an embedding of item {start + int(np.argmin(norms))} is zero and has no"
                " direction; look at its image and caption, and at the weights"
            )
        found[rows] = (a * b).sum(axis=1) / norms
    return found


def clip_score(
    images: Shaped[np.ndarray, "n d"],
    texts: Shaped[np.ndarray, "m e"],
    *,
    scale: float = 1.0,
    floor: Literal["each", "mean"] | None = None,
) -> float:
    """The mean of `similarities` times a scale.

    Text-to-image GANs state it as it is, about 0.3 for true captions; torchmetrics 100 times that
    and no less than zero; Hessel et al. (2021) 2.5 times, every negative cosine counted as zero.

    Args:
      floor: what is no less than zero: "each" cosine, their "mean", or None.
    """
    found = similarities(images, texts)
    if floor == "each":
        found = np.maximum(found, 0)
    mean = scale * float(found.mean())
    return max(mean, 0.0) if floor == "mean" else mean
