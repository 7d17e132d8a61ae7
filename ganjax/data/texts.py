"""Texts embedded before training: records with what a CLIP's text tower says of captions."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from ganjax.data.recipes import Recipe
from ganjax.data.records import pack, unpack
from ganjax.data.shards import Made
from ganjax.pretrained import catalog
from ganjax.pretrained.clip import ClipNetwork

BATCH = 64  # texts that the tower reads together


@dataclasses.dataclass(frozen=True)
class TextRecipe(Recipe):
    """What becomes of a picture with captions: its record holds the states of these, too.

    Attributes:
      text: the CLIP, a name of `pretrained.catalog`.
      sha256: of its weights.
    """

    text: str = ""
    sha256: str = ""

    @classmethod
    def of(cls, text: str, looks: Recipe) -> "TextRecipe":
        """The recipe of a CLIP, for pictures that look as another recipe says.

        Raises:
          ValueError: it is no CLIP, or its weights or vocabulary are absent.
        """
        catalog.find_tokenizer(text)
        return cls(looks.resolution, looks.form, looks.quality, True, text, _network(text).sha256)

    def finish(self, made: Iterable[Made]) -> Iterator[Made]:
        """Adds states, some items at a time; an item whose captions cannot be read is broken."""
        items = iter(made)
        while some := list(itertools.islice(items, BATCH)):
            yield from self._embedded(some)

    def _embedded(self, some: Sequence[Made]) -> Iterator[Made]:
        read = [self._read(one) for one in some]
        rows = [tokens for _, tokens in read if tokens is not None]
        states = iter(_states(self.text, np.concatenate(rows)) if rows else ())
        for one, tokens in read:
            if tokens is None:
                yield one
                continue
            own = np.stack([next(states) for _ in tokens])
            encoded = dataclasses.replace(unpack(one.records[0]), states=own)
            yield dataclasses.replace(one, records=(pack(encoded),))

    def _read(self, one: Made) -> tuple[Made, Int[np.ndarray, "k l"] | None]:
        """An item and the tokens of its captions; none where it is broken."""
        if one.fault:
            return one, None
        caption = unpack(one.records[0]).caption
        assert caption, "of items with captions"
        texts = [caption] if isinstance(caption, str) else list(caption)
        try:
            return one, catalog.find_tokenizer(self.text)(texts)
        except ValueError as error:
            return Made(one.name, fault=f"its caption cannot be read: {error}"), None


@functools.cache
def _network(name: str) -> ClipNetwork:
    network = catalog.load(name)
    assert isinstance(network, ClipNetwork), "a vocabulary is of a CLIP"
    return network


def _states(name: str, tokens: Int[np.ndarray, "n l"]) -> Float[np.ndarray, "n l w"]:
    """The states of all tokens, float16; in batches of one size, so that one program does."""
    parts = []
    for start in range(0, len(tokens), BATCH):
        part = tokens[start : start + BATCH]
        padded = np.zeros((BATCH, tokens.shape[1]), np.int32)
        padded[: len(part)] = part
        states = _network(name).text(padded)["text_hidden"]
        parts.append(np.asarray(states, np.float16)[: len(part)])
    return np.concatenate(parts)
