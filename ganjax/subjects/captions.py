"""Pictures with captions, as CLIP looks at them."""

import pathlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ganjax.data.captions import Captioned
from ganjax.data.sources import Source, describe
from ganjax.data.transforms import BrokenItem, one_of
from ganjax.pretrained.clip import crop_on_host
from ganjax.pretrained.tokens import AnyTokenizer
from ganjax.subjects.models import Samples
from ganjax.subjects.pictures import CHUNK, in_colours, tree_of


class Captions:
    """Pictures, cropped as OpenAI does, and the tokens of their captions.

    Args:
      source: whose items have a "caption".
      tokenizer: of the network.
      size: pixels that the network looks at.
      template: what captions are put into, as "A photo depicts {}".
      threads: that read and decode.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: AnyTokenizer,
        size: int,
        template: str = "{}",
        threads: int = 8,
    ):
        content = getattr(source, "content", source.fingerprint)()
        self.name = source.name
        self.fingerprint = f"{content} in {template!r} at {size} by {tokenizer.fingerprint}"
        self._source, self._tokenizer, self._size = source, tokenizer, size
        self._template, self._threads = template, threads

    def __len__(self) -> int:
        return len(self._source)

    def batches(self, places: range) -> Iterator[dict[str, np.ndarray]]:
        with ThreadPoolExecutor(self._threads) as pool:
            for start in range(places.start, places.stop, CHUNK):
                found = list(pool.map(self._item, range(start, min(start + CHUNK, places.stop))))
                texts = [text for _, text in found]
                images = np.concatenate([image for image, _ in found])
                yield {"image": images, "tokens": self._tokenizer(texts)}

    def asked(self, count: int) -> None:
        """Captions are no classes."""

    def describe(self, place: int) -> str:
        return f"{describe(self._source, place)} of {self.name}"

    def _item(self, place: int) -> tuple[np.ndarray, str]:
        try:
            item = self._source[place]
        except BrokenItem as error:
            raise ValueError(
                f"{self.describe(place)} is broken ({error}); mend it or remove it."
            ) from error
        image = crop_on_host([in_colours(item["image"])], self._size)
        return image, self._template.replace(
            "{}", one_of(item["caption"], np.random.default_rng([3, place]))
        )


class Prompted:
    """Samples of a model and the tokens of their prompts, as CLIP looks at them.

    Args:
      samples: sample i is for prompt i.
      prompts: gone round.
      tokenizer: of the network.
      size: pixels that the network looks at.
      template: what prompts are put into, as "A photo depicts {}".
    """

    fingerprint = ""

    def __init__(
        self,
        samples: Samples,
        prompts: Sequence[str],
        tokenizer: AnyTokenizer,
        size: int,
        template: str = "{}",
    ):
        self.name, self._samples = samples.name, samples
        self._texts = [template.replace("{}", prompt) for prompt in prompts]
        self._tokenizer, self._size = tokenizer, size

    def batches(self, places: range) -> Iterator[dict[str, np.ndarray]]:
        place = places.start
        for images in self._samples.batches(places):
            texts = [self._texts[(place + i) % len(self._texts)] for i in range(len(images))]
            cropped = crop_on_host(list(in_colours(images)), self._size)
            yield {"image": cropped, "tokens": self._tokenizer(texts)}
            place += len(images)

    def asked(self, count: int) -> None:
        """Prompts are no classes."""

    def describe(self, place: int) -> str:
        return f"{self._samples.describe(place)} for {self._texts[place % len(self._texts)]!r}"


def of_path(
    path: str | pathlib.Path, tokenizer: AnyTokenizer, size: int, template: str = "{}"
) -> Captions:
    """The pictures of a folder or a zip, each with a text beside it.

    Raises:
      FileNotFoundError: nothing there, or no pictures in it.
      ValueError: a picture without a text.
    """
    return Captions(Captioned(tree_of(path)), tokenizer, size, template)
