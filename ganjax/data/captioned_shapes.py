"""Built-in pictures with captions: "a large red circle left of a small blue square".

One or two coloured shapes on a soft backdrop. The combinations of colour and shape in `HELD_OUT`
are in no picture of the split that is trained on, neither alone nor beside another thing: whoever
draws them has put colour and shape together by himself.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from ganjax.data.demo import COLORS, backdrop, painted, to_bytes
from ganjax.data.transforms import Item

T = TypeVar("T")

SPLITS = ("train", "heldout", "all")

COLOR_WORDS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
SHAPE_WORDS = ("circle", "square", "triangle", "star", "cross", "heart")
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
RADII = {"small": (0.28, 0.34), "large": (0.43, 0.49)}  # in halves of the picture's shorter side
# Where the first thing lies, right and up of the second; and the words for it.
RELATIONS = {
    "left": ((-1, 0), ("left of", "to the left of")),
    "right": ((1, 0), ("right of", "to the right of")),
    "above": ((0, 1), ("above", "over")),
    "below": ((0, -1), ("below", "under")),
}
PHRASES = ("{}", "a picture of {}", "there is {}", "this is {}")

Combination = tuple[str, str]  # colour and shape
COMBINATIONS: tuple[Combination, ...] = tuple(itertools.product(COLOR_WORDS, SHAPE_WORDS))
HELD_OUT: tuple[Combination, ...] = tuple(
    (color, shape)
    for color, shape in COMBINATIONS
    if COLOR_WORDS.index(color) + SHAPE_WORDS.index(shape) == len(COLOR_WORDS) - 1
)
KNOWN: tuple[Combination, ...] = tuple(c for c in COMBINATIONS if c not in HELD_OUT)


@dataclasses.dataclass(frozen=True)
class Thing:
    """A shape in a picture.

    Lengths are in halves of the picture's shorter side, the origin is the centre, y points up.
    """

    color: str
    shape: str
    size: str  # a key of `RADII`
    x: float
    y: float
    radius: float  # of the circle around it
    rotation: float  # radians, counterclockwise


@dataclasses.dataclass(frozen=True)
class CaptionedScene:
    """What a picture shows and its caption says.

    Attributes:
      things: one or two, the first is named first.
      relation: of the first to the second, a key of `RELATIONS`; "" where there is one.
      caption: names all of them.
      backdrop: RGB in [0, 1].
      glow: direction in which the backdrop gets brighter, radians.
    """

    things: tuple[Thing, ...]
    relation: str
    caption: str
    backdrop: tuple[float, float, float]
    glow: float

    @property
    def combination(self) -> Combination:
        """Colour and shape of the first thing."""
        return self.things[0].color, self.things[0].shape


class CaptionedShapes:
    """One or two coloured shapes and a caption: item ``i`` is a pure function of ``(seed, i)``.

    An item is ``{"image": uint8 [h, w, 3], "caption": str, "label": 0}``.

    Args:
      resolution: (height, width) in pixels.
      count: number of items.
      seed: another seed gives another set, for instance to measure on.
      split: "train", without the combinations of `HELD_OUT`; "heldout", the first thing of every
        picture is one of them; "all".
      objects: of a picture at most: 1, or 2, which half of the pictures then have.

    Raises:
      ValueError: an unknown split, or another number of objects.
    """

    name = "captioned_shapes"
    classes: tuple[str, ...] = ()

    def __init__(
        self,
        resolution: tuple[int, int] = (32, 32),
        count: int = 50_000,
        seed: int = 0,
        split: str = "train",
        objects: int = 2,
    ):
        if split not in SPLITS:
            raise ValueError(
                f"captioned_shapes has no split {split!r}; set config.data.split to one of {SPLITS}"
            )
        if objects not in (1, 2):
            raise ValueError(
                f"captioned_shapes of {objects} objects; set config.data.objects to 1 or 2"
            )
        self.resolution = resolution
        self.count = count
        self.seed = seed
        self.split = split
        self.objects = objects
        self._first = {"train": KNOWN, "heldout": HELD_OUT, "all": COMBINATIONS}[split]
        self._second = KNOWN if split == "train" else COMBINATIONS

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        scene = self.scene(index)
        return {
            "image": draw(scene, self.resolution),
            "caption": scene.caption,
            "label": np.int32(0),
        }

    def scene(self, index: int) -> CaptionedScene:
        """The description of item ``index``."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, index]))
        # The order of the draws is the data set: new attributes draw at the end.
        draws = iter(rng.random(32).tolist())
        red, green, blue = (0.05 + 0.2 * next(draws) for _ in range(3))
        glow = 2 * math.pi * next(draws)
        pair = next(draws) < 0.5 and self.objects == 2
        relation = _choice(tuple(RELATIONS), next(draws))
        how, where = next(draws), next(draws)
        first = _choice(self._first, next(draws))
        others = [combination for combination in self._second if combination != first]
        combinations = [first, _choice(others, next(draws))][: 1 + pair]
        direction = RELATIONS[relation][0] if pair else (0, 0)
        things, names = [], []
        for side, (color, shape) in zip((1, -1), combinations):
            size = _choice(tuple(RADII), next(draws))
            low, high = RADII[size]
            radius = low + (high - low) * next(draws)
            word = _choice(SIZE_WORDS[size], next(draws)) if next(draws) < 0.7 else ""
            names.append(_named(word, color, shape))
            x, y = (_placed(radius, side * along, next(draws)) for along in direction)
            turn = 0.5 * next(draws) - 0.25
            things.append(Thing(color, shape, size, x, y, radius, turn))
        words = _choice(RELATIONS[relation][1], where)
        caption = _choice(PHRASES, how).format(f" {words} ".join(names))
        relation = relation if pair else ""
        return CaptionedScene(tuple(things), relation, caption, (red, green, blue), glow)

    def describe(self, index: int) -> str:
        return f"captioned shape {index}"

    def fingerprint(self) -> str:
        return f"captioned-shapes-1-{self.seed}-{self.count}-{self.split}-{self.objects}"


def _choice(among: Sequence[T], draw: float) -> T:
    return among[int(draw * len(among))]


def _named(size: str, color: str, shape: str) -> str:
    """As "an orange star", "a large orange star"."""
    words = [word for word in (size, color, shape) if word]
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def _placed(radius: float, side: int, draw: float) -> float:
    """The place along an axis: in the half that is asked for, or anywhere where none is (0)."""
    if not side:
        return (0.96 - radius) * (2 * draw - 1)
    return side * (radius + (0.98 - 2 * radius) * draw)


def draw(scene: CaptionedScene, resolution: tuple[int, int]) -> np.ndarray:
    """The picture of a scene, uint8 [h, w, 3], at any (height, width)."""
    picture = backdrop(scene.backdrop, scene.glow, resolution)
    for thing in scene.things:
        color = np.asarray(COLORS[thing.color], np.float32)
        place = (thing.x, thing.y)
        picture = painted(picture, thing.shape, color, place, thing.radius, thing.rotation)
    return to_bytes(picture)


def prompts(split: str = "heldout", objects: int = 2) -> tuple[str, ...]:
    """Plain descriptions, each once: of one thing with and without its size, then of two.

    The first thing is of the split's combinations; the second one, in each relation, is any that
    may be trained on.

    Raises:
      ValueError: an unknown split.
    """
    known = CaptionedShapes(split=split, objects=objects)._first
    return tuple(_prompts(known, objects))


def _prompts(known: Sequence[Combination], objects: int) -> Iterator[str]:
    for (color, shape), size in itertools.product(known, ("", *RADII)):
        yield _named(size, color, shape)
    if objects == 1:
        return
    for one, (_, words), other in itertools.product(known, RELATIONS.values(), KNOWN):
        if one != other:
            yield f"{_named('', *one)} {words[0]} {_named('', *other)}"


def vocabulary() -> tuple[str, ...]:
    """All words that captions are made of, sorted."""
    sizes = itertools.chain.from_iterable(SIZE_WORDS.values())
    relations = itertools.chain.from_iterable(words for _, words in RELATIONS.values())
    texts = (*COLOR_WORDS, *SHAPE_WORDS, *sizes, *relations, *PHRASES, "a an")
    words = " ".join(texts).replace("{}", "").split()
    return tuple(sorted(set(words)))
