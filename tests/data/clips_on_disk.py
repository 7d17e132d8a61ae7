"""Small videos for the tests of sources."""

from fractions import Fraction

import av
import numpy as np


def write_video(
    path, levels, codec="libx264", size=(32, 32), stamps=None, rate=25, gop=4, options=None
):
    """A file whose frame i is gray of level ``levels[i]``, shown at stamps[i] milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unit = Fraction(1, 1000) if stamps else 1 / Fraction(rate)
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = unit
        for number, level in enumerate(levels):
            pixels = np.full((height, width, 3), level, np.uint8)
            pixels[: height // 2, : width // 2] = 255 - level  # which way is up
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = stamps[number] if stamps else number, unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def levels_of(frames):
    """The level that each frame [t, h, w, c] was written with, nearly."""
    return frames[:, -1, -1, 0].astype(int)
