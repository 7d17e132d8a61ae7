"""A tiny CLIP of the built-in captioned shapes, which needs no download."""

from ganjax.data.captioned_shapes import vocabulary
from ganjax.pretrained.tokens import WordTokenizer

NAME = "clip-shapes"
CONTEXT = 20  # tokens; the longest caption has 15 words


def tokenizer() -> WordTokenizer:
    """Of the words of `captioned_shapes`."""
    return WordTokenizer(vocabulary(), CONTEXT)
