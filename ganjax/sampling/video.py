"""Pictures that follow one another as a file: mp4, GIF, or a PNG with some of them side by side.

A video is ``picture(i)`` for every ``i`` below ``frames``: each is made, encoded and forgotten, so
that memory does not grow with length. Clips [n, t, h, w, c] are one, too:
``write(path, lambda i: grid.draw(clips[:, i], columns), frames=t, fps=25)``.
"""

import fractions
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import av
import numpy as np
import tqdm
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import UInt8
from PIL import Image

from ganjax.sampling import grid
from ganjax.workdir import partial

Pictures = Callable[[int], UInt8[np.ndarray, "h w 3"]]

STRIP = 8  # pictures of a strip
SEEN = 8  # pictures that choose a GIF's colours
COLORS = 255  # of a GIF, and one that lets the picture before show through
LONGEST_GIF = 500  # frames that are made where nobody asked for a GIF
SMOOTHEST_GIF = 50  # frames a second; browsers play faster ones slowly


def write(
    path: pathlib.Path, picture: Pictures, frames: int, fps: int | float = 30, show: bool = False
) -> None:
    """Write a video so that its name never stands for half of it.

    Args:
      path: ends in ``.mp4`` (H.264), ``.gif`` (at most 50 frames a second) or ``.png`` (a strip).
      picture: pictures of one size, by number; those that choose a GIF's colours are made twice.
      show: a bar of progress.

    Raises:
      ValueError: another ending, no frames, or a rate that cannot be.
    """
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise ValueError(f"{path.name} is no video that can be written; end it in {KINDS}.")
    most = SMOOTHEST_GIF if kind == ".gif" else 1000
    if frames < 1 or not 0 < fps <= most:
        raise ValueError(
            f"A {kind} of {frames} frames at {fps:g} a second; at least 1 and a rate up to {most} "
            "are wanted. Set --seconds and --fps."
        )
    with partial(path) as file:
        if kind == ".png":
            Image.fromarray(strip(picture, frames)).save(file, format="PNG")
        else:
            numbers = tqdm.tqdm(range(frames), unit=" frames", disable=not show)
            _encode(file, FORMS[kind](picture, frames), map(picture, numbers), fps)


def strip(
    picture: Pictures, frames: int, count: int = STRIP
) -> UInt8[np.ndarray, "height width 3"]:
    """Equally spaced pictures side by side, the first at the left."""
    shown = np.linspace(0, frames - 1, min(count, frames)).round().astype(int)
    return grid.draw(np.stack([picture(int(i)) for i in shown]), len(shown), scale=1)


class H264:
    """What every player shows: pairs of pixels share their colour, so sizes are even."""

    container = "mp4"
    container_options: Mapping[str, str] = {"movflags": "faststart"}
    codec = "libx264"
    codec_options: Mapping[str, str] = {"crf": "18", "preset": "medium"}
    pixels = "yuv420p"

    def __init__(self, picture: Pictures, frames: int):
        del picture, frames

    def frame(self, picture: UInt8[np.ndarray, "h w 3"]) -> av.VideoFrame:
        height, width, _ = picture.shape
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        # The colours that players take an unnamed video's for are those of its size; these are
        # named in the file.
        return av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
            format=self.pixels, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )


class Gif:
    """One palette for all pictures, so that none flickers; errors are spread over neighbours."""

    container = "gif"
    container_options: Mapping[str, str] = {"loop": "0"}  # for ever
    codec = "gif"
    codec_options: Mapping[str, str] = {}
    pixels = "pal8"

    def __init__(self, picture: Pictures, frames: int):
        seen = np.concatenate([picture(i) for i in range(0, frames, -(-frames // SEEN))])
        self._palette = Image.fromarray(seen).quantize(COLORS)
        rgb = np.reshape(self._palette.getpalette("RGB") or (), (-1, 3))
        self._alpha_rgb = np.zeros((256, 4), np.uint8)
        self._alpha_rgb[:COLORS, 0] = 255
        self._alpha_rgb[: len(rgb), 1:] = rgb

    def frame(self, picture: UInt8[np.ndarray, "h w 3"]) -> av.VideoFrame:
        image = Image.fromarray(picture)
        indices = image.quantize(palette=self._palette, dither=Image.Dither.FLOYDSTEINBERG)
        pair: Any = (np.asarray(indices), self._alpha_rgb)
        return av.VideoFrame.from_ndarray(pair, format=self.pixels)


FORMS: Mapping[str, type[H264] | type[Gif]] = {".mp4": H264, ".gif": Gif}
KINDS = (*FORMS, ".png")


def _encode(file: pathlib.Path, form: H264 | Gif, pictures: Any, fps: int | float) -> None:
    rate = fractions.Fraction(fps).limit_denominator(1001)
    options = dict(form.container_options)
    with av.open(str(file), "w", format=form.container, options=options) as container:
        stream: Any = container.add_stream(form.codec, rate=rate, options=dict(form.codec_options))
        stream.pix_fmt = form.pixels
        for number, picture in enumerate(pictures):
            frame = form.frame(picture)
            if not number:
                stream.width, stream.height = frame.width, frame.height
                _name_colours(stream.codec_context, frame)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _name_colours(codec: Any, frame: av.VideoFrame) -> None:
    """Says in the file which colours its numbers are, where they are not RGB."""
    if frame.format.name.startswith("yuv"):
        codec.colorspace = codec.color_primaries = codec.color_trc = Colorspace.ITU709.value
        codec.color_range = ColorRange.MPEG.value
