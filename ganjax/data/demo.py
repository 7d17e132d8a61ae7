"""Built-in data that needs no download: ``digits`` (real), plain and warped, and ``shapes``."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from ganjax.data.transforms import Item
from ganjax.data.videos import Video

# Digits keep this share of the picture's shorter side; the rest is margin.
_DIGIT_SPAN = 0.84
# Digits are rendered up to this size once; larger targets are resized from there.
_DIGIT_PIXELS = 128


class Digits:
    """The 1,797 handwritten digits that scikit-learn ships, drawn anew at a target's size.

    The originals are 8x8 counts (0..16) of the inked pixels of a 32x32 bitmap (Alpaydin and Kaynak,
    "Optical recognition of handwritten digits", UCI 1998). They are interpolated by a cubic and
    pushed through a soft threshold, which gives back crisp strokes over the whole range 0..255.

    Args:
      resolution: (height, width) in pixels. Above 128 pixels a smaller picture of the same aspect
        ratio is returned.
    """

    name = "digits"

    def __init__(self, resolution: tuple[int, int] = (32, 32)):
        from sklearn.datasets import load_digits

        shrink = min(1.0, _DIGIT_PIXELS / max(resolution))
        height, width = (max(1, round(side * shrink)) for side in resolution)
        digits = load_digits()
        ink = digits.images.astype(np.float32) / 16  # [i, 8, 8]
        half = min(height, width) / 2
        rows, columns = (_cubic(_centres(side, half)) for side in (height, width))
        self._images = _inked(np.einsum("hr,irs,ws->ihw", rows, ink, columns, optimize=True))
        self._labels = digits.target.astype(np.int32)
        self.classes = tuple(str(digit) for digit in range(10))

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Item:
        return {"image": self._images[index], "label": self._labels[index]}

    def describe(self, index: int) -> str:
        return f"digit {index}"

    def fingerprint(self) -> str:
        return "digits-1"


class WarpedDigits:
    """Digits under random affine maps and waves: item ``i`` is a pure function of ``(seed, i)``.

    Turned by up to 45 degrees, narrowed, slanted, moved and bent, where the originals are upright
    and centred: most of what varies is geometry. Item ``i`` is digit ``i`` modulo their number.

    Args:
      resolution: (height, width) in pixels.
      count: number of items.
      seed: another seed gives other warps.
    """

    name = "warped_digits"
    classes: tuple[str, ...] = tuple(str(digit) for digit in range(10))

    def __init__(self, resolution: tuple[int, int] = (32, 32), count: int = 50_000, seed: int = 0):
        from sklearn.datasets import load_digits

        digits = load_digits()
        self.resolution = resolution
        self.count = count
        self.seed = seed
        self._ink = digits.images.astype(np.float32) / 16  # [i, 8, 8]
        self._labels = digits.target.astype(np.int32)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        height, width = self.resolution
        half = min(height, width) / 2
        place = np.meshgrid(_centres(height, half), _centres(width, half), indexing="ij")
        y, x = self._warp(index, np.stack([side.ravel() for side in place]))
        digit = index % len(self._ink)
        sharp = np.einsum("pr,rs,ps->p", _cubic(y), self._ink[digit], _cubic(x), optimize=True)
        return {"image": _inked(sharp.reshape(height, width)), "label": self._labels[digit]}

    def _warp(self, index: int, place: Float[np.ndarray, "2 p"]) -> Float[np.ndarray, "2 p"]:
        """Where each pixel of item ``index`` looks in the original, (down, right)."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, index]))
        # The order of the draws is the data set: new attributes draw at the end.
        u = rng.random(9)
        angle = math.pi / 4 * (2 * u[0] - 1)
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        slant = np.array([[1.0, 0.0], [0.8 * u[1] - 0.4, 1.0]])
        size = 0.55 + 0.35 * u[2:4]
        shift = (1 - size.max()) * (2 * u[4:6] - 1)
        place = place - shift[:, None]
        bend = 0.15 * np.sin(math.pi * (2 * u[6:8, None] + 1.5 * place[::-1]))
        return (slant @ turn @ (place + bend * u[8])) / size[:, None]

    def describe(self, index: int) -> str:
        return f"warped digit {index}"

    def fingerprint(self) -> str:
        return f"warped-digits-1-{self.seed}-{self.count}"


def _centres(pixels: int, half: float) -> Float[np.ndarray, "pixels"]:
    """Places of pixels along an axis, from the middle, in units of ``half``."""
    return (np.arange(pixels) + 0.5 - pixels / 2) / half


def _cubic(place: Float[np.ndarray, "p"]) -> Float[np.ndarray, "p 8"]:
    """What each of the 8 samples along an axis counts at a place of `_centres`.

    Keys' cubic with a = -1/2; outside of the samples everything is zero.
    """
    t = np.abs((4 / _DIGIT_SPAN * place + 3.5)[:, None] - np.arange(8))
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t <= 1, near, np.where(t < 2, far, 0)).astype(np.float32)


def _inked(sharp: Float[np.ndarray, "*n h w"]) -> UInt8[np.ndarray, "*n h w 1"]:
    """Interpolated ink through a soft threshold."""
    edge = np.clip((sharp - 0.1) / 0.8, 0, 1)
    return np.round(255 * edge * edge * (3 - 2 * edge)).astype(np.uint8)[..., None]


SHAPES = (
    "circle",
    "square",
    "triangle",
    "pentagon",
    "star",
    "cross",
    "ring",
    "crescent",
    "heart",
    "leaf",
)
COLORS = {
    "red": (229, 57, 53),
    "orange": (251, 140, 0),
    "yellow": (253, 216, 53),
    "green": (67, 160, 71),
    "cyan": (38, 198, 218),
    "blue": (30, 106, 229),
    "purple": (142, 68, 205),
    "pink": (240, 98, 146),
    "white": (245, 245, 245),
}


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture of ``shapes`` shows; image and label are rendered from it.

    Lengths are in halves of the picture's shorter side, the origin is the centre, y points up.
    """

    shape: int  # index into SHAPES
    color: str  # a key of COLORS
    x: float
    y: float
    size: float  # radius of the circle around the shape
    rotation: float  # radians, counterclockwise
    backdrop: tuple[float, float, float]  # RGB in [0, 1]
    glow: float  # direction in which the backdrop gets brighter, radians
    other: str = "white"  # a key of COLORS, and how much of it is mixed in, in [0, 1]
    blend: float = 0.0


class Shapes:
    """Coloured shapes on soft backdrops: item ``i`` is a pure function of ``(seed, i)``.

    The label is the shape; colour, place, size, rotation and backdrop vary freely.

    Args:
      resolution: (height, width) in pixels.
      count: number of items.
      seed: another seed gives another set, for instance to measure on.
    """

    name = "shapes"
    classes: tuple[str, ...] = SHAPES

    def __init__(self, resolution: tuple[int, int] = (32, 32), count: int = 50_000, seed: int = 0):
        self.resolution = resolution
        self.count = count
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        scene = self.scene(index)
        return {"image": render(scene, self.resolution), "label": np.asarray(scene.shape, np.int32)}

    def scene(self, index: int) -> Scene:
        """The description of item ``index``."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, index]))
        # The order of the draws is the data set: new attributes draw at the end.
        u = rng.random(10).tolist()
        size = 0.35 + 0.3 * u[2]
        room = 0.95 - size
        return Scene(
            shape=int(u[0] * len(SHAPES)),
            color=list(COLORS)[int(u[1] * len(COLORS))],
            x=room * (2 * u[3] - 1),
            y=room * (2 * u[4] - 1),
            size=size,
            rotation=2 * math.pi * u[5],
            backdrop=(0.05 + 0.25 * u[6], 0.05 + 0.25 * u[7], 0.08 + 0.3 * u[8]),
            glow=2 * math.pi * u[9],
        )

    def describe(self, index: int) -> str:
        return f"shape {index}"

    def fingerprint(self) -> str:
        return f"shapes-1-{self.seed}-{self.count}"


class ShapeVideos:
    """Shapes that move: the picture at any real time is a pure function of ``(seed, i, time)``.

    Place, rotation, size, colour and light move by sums of three sines each, whose frequencies have
    no common period, so that no movement ever comes again. Videos are of several lengths. The label
    is the shape.

    Args:
      resolution: (height, width) in pixels.
      count: number of videos.
      seed: another seed gives another set, for instance to measure on.
      lengths: frames of the shortest and of the longest video.
      rate: frames a second.
    """

    name = "videos of shapes"
    classes: tuple[str, ...] = SHAPES

    def __init__(
        self,
        resolution: tuple[int, int] = (32, 32),
        count: int = 10_000,
        seed: int = 0,
        lengths: tuple[int, int] = (128, 512),
        rate: float = 25.0,
    ):
        self.resolution = resolution
        self.count = count
        self.seed = seed
        self.lengths = lengths
        self.rate = rate
        self._starts = Shapes(resolution, count, seed)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "video": self.video(index),
            "label": np.asarray(self.scene(index, 0.0).shape, np.int32),
        }

    def video(self, index: int) -> "ShapeVideo":
        """The first seconds of video ``index``."""
        shortest, longest = self.lengths
        length = shortest + int(self._draws(index)[0] * (longest - shortest + 1))
        return ShapeVideo(self, index, length)

    def scene(self, index: int, time: float) -> Scene:
        """What video ``index`` shows ``time`` seconds after its start; any real number."""
        # The order of the draws is the data set: new movements draw at the end.
        _, color, *draws = self._draws(index).tolist()
        start = self._starts.scene(index)
        waves = iter(_wave(draws[i : i + 4], time) for i in range(0, len(draws), 4))
        size = 0.5 + 0.14 * next(waves)
        room = 0.95 - size
        return dataclasses.replace(
            start,
            size=size,
            x=room * next(waves),
            y=room * next(waves),
            rotation=start.rotation + 2 * math.pi * next(waves),
            other=list(COLORS)[int(color * len(COLORS))],
            blend=0.5 + 0.5 * next(waves),
            glow=start.glow + math.pi * next(waves),
        )

    def moves(self, index: int, times: Sequence[float]) -> Float[np.ndarray, "m"]:
        """Place and size of the shape of video ``index``, at the first and last of some times."""
        ends = (self.scene(index, time) for time in (times[0], times[-1]))
        return np.array([value for scene in ends for value in (scene.x, scene.y, scene.size)])

    def _draws(self, index: int) -> Float[np.ndarray, "26"]:
        return np.random.Generator(
            np.random.Philox(key=[self.seed, index], counter=1 << 64)
        ).random(26)

    def describe(self, index: int) -> str:
        return f"video {index} of shapes"

    def fingerprint(self) -> str:
        return f"shape-videos-1-{self.seed}-{self.count}-{self.lengths}-{self.rate}"


# Ratios of the frequencies of a wave: no two have a common multiple.
_RATIOS = (1.0, math.sqrt(2), (1 + math.sqrt(5)) / 2)


def _wave(draws: Sequence[float], time: float) -> float:
    """A smooth function of time (seconds), within -1 and 1, that never repeats."""
    frequency = 0.06 + 0.12 * draws[0]  # of the slowest part, in Hz
    parts = (
        math.sin(2 * math.pi * (ratio * frequency * time + phase))
        for ratio, phase in zip(_RATIOS, draws[1:])
    )
    return sum(parts) / len(_RATIOS)


class ShapeVideo(Video):
    """Frames of a video of `ShapeVideos`; drawn when they are read."""

    def __init__(self, source: ShapeVideos, index: int, length: int):
        self.name, self.rate = source.describe(index), source.rate
        self._source, self._index, self._length = source, index, length

    def __len__(self) -> int:
        return self._length

    def read(self, frames: Shaped[np.ndarray, "t"]) -> UInt8[np.ndarray, "t h w 3"]:
        """Frames, at any real numbers."""
        times = (frames / self.rate).tolist()
        scenes = [self._source.scene(self._index, time) for time in times]
        return np.stack([render(scene, self._source.resolution) for scene in scenes])


def render(scene: Scene, resolution: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Draws a scene with smooth edges, at any (height, width)."""
    one, other = (np.asarray(COLORS[name], np.float32) for name in (scene.color, scene.other))
    ground = backdrop(scene.backdrop, scene.glow, resolution)
    color, place = one + scene.blend * (other - one), (scene.x, scene.y)
    return to_bytes(painted(ground, SHAPES[scene.shape], color, place, scene.size, scene.rotation))


def backdrop(
    color: tuple[float, float, float], glow: float, resolution: tuple[int, int]
) -> Float[np.ndarray, "h w 3"]:
    """An empty picture in 0..255 (not clipped): see `Scene.backdrop` and `Scene.glow`."""
    x, y = _plane(resolution)
    light = 1 + 0.35 * (math.cos(glow) * x + math.sin(glow) * y)
    return 255 * light[..., None] * np.asarray(color, np.float32)


def painted(
    ground: Float[np.ndarray, "h w 3"],
    shape: str,
    color: Float[np.ndarray, "3"],
    place: tuple[float, float],
    size: float,
    rotation: float,
) -> Float[np.ndarray, "h w 3"]:
    """A shape of `SHAPES` over a picture; units as in `Scene`, colours in 0..255."""
    height, width = ground.shape[:2]
    x, y = _plane((height, width))
    x, y = x - place[0], y - place[1]
    cos, sin = math.cos(rotation) / size, math.sin(rotation) / size
    distance = _distance(shape, cos * x + sin * y, cos * y - sin * x)
    cover = np.clip(0.5 - distance * (size * min(height, width) / 2), 0, 1)[..., None]
    return ground + cover * (color - ground)


def to_bytes(picture: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """0..255, rounded."""
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _plane(
    resolution: tuple[int, int],
) -> tuple[Float[np.ndarray, "1 w"], Float[np.ndarray, "h 1"]]:
    """Places of pixels to the right and up, in halves of the shorter side."""
    height, width = resolution
    half = min(height, width) / 2
    x = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / half)[None, :]
    y = ((height / 2 - np.arange(height, dtype=np.float32) - 0.5) / half)[:, None]
    return x, y


def _distance(
    shape: str, x: Float[np.ndarray, "h w"], y: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"]:
    """Signed distance to the edge of a shape in the unit circle, negative inside.

    Exact near the edge, which is all that anti-aliasing needs.
    """
    if shape == "circle":
        return np.hypot(x, y) - 0.9
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.75
    if shape == "triangle":
        return _polygon(x, y, 3, math.cos(math.pi / 3))
    if shape == "pentagon":
        return _polygon(x, y, 5, math.cos(math.pi / 5))
    if shape == "star":
        return _polygon(x, y, 5, 0.42)
    if shape == "cross":
        x, y = np.abs(x), np.abs(y)
        return np.minimum(np.maximum(x - 0.95, y - 0.3), np.maximum(x - 0.3, y - 0.95))
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.7) - 0.22
    if shape == "crescent":
        return np.maximum(np.hypot(x, y) - 0.95, 0.75 - np.hypot(x - 0.5, y))
    if shape == "leaf":
        return np.hypot(np.abs(x) + 0.6, y) - 1.15
    assert shape == "heart", shape
    # Two lines that meet below and two half circles above (the outline of I. Quilez's sdHeart).
    x, y = np.abs(x) / 1.55, y / 1.55 + 0.55
    lobe = np.hypot(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    tip = np.maximum(x + y, 0) / 2
    side = np.minimum(np.hypot(x, y - 1), np.hypot(x - tip, y - tip)) * np.sign(x - y)
    return 1.55 * np.where(x + y > 1, lobe, side)


def _polygon(x: np.ndarray, y: np.ndarray, corners: int, inner: float) -> np.ndarray:
    """A star whose corners lie at 1 and whose notches lie at radius ``inner``.

    ``inner = cos(pi / corners)`` makes it a regular polygon.
    """
    half = math.pi / corners
    # Fold the plane into the half sector between a corner (angle 0) and a notch (angle `half`).
    angle = np.abs(np.mod(np.arctan2(x, y) + half, 2 * half) - half)
    radius = np.hypot(x, y)
    notch_x, notch_y = inner * math.cos(half), inner * math.sin(half)
    length = math.hypot(1 - notch_x, notch_y)
    normal_x, normal_y = notch_y / length, (1 - notch_x) / length
    return (radius * np.cos(angle) - 1) * normal_x + radius * np.sin(angle) * normal_y
