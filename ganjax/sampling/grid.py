"""Many small images as one picture, with titles above its columns and beside its rows."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

READABLE = 64  # pixels: smaller images are enlarged to at least this height
GAP = 2  # pixels between images
TITLE = 12  # pixels: size of the font
PAPER = (255, 255, 255)
INK = (30, 30, 30)


def draw(
    images: UInt8[np.ndarray, "n h w c"],
    columns: int,
    *,
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    scale: int | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Lay images out in reading order; a last row that is not full stays empty at its end.

    Args:
      images: grayscale (c = 1) or RGB (c = 3).
      columns: images in a row.
      column_titles: one a column, or none; shortened to fit.
      row_titles: one a row, or none.
      scale: every pixel becomes a square of so many, so that pixels stay crisp; by default
        enough for images of 64 pixels.

    Raises:
      ValueError: no images, other channels, or not as many titles as columns or rows.
    """
    n, height, width, channels = images.shape
    if n == 0 or columns < 1:
        raise ValueError(f"{n} images in {columns} columns; at least 1 of both is wanted.")
    if channels not in (1, 3):
        raise ValueError(f"Images of {channels} channels cannot be drawn; 1 or 3 are wanted.")
    rows = -(-n // columns)
    for what, titles, count in (("column", column_titles, columns), ("row", row_titles, rows)):
        if titles and len(titles) != count:
            raise ValueError(f"{len(titles)} {what} titles for {count} {what}s; give all or none.")
    scale = scale or max(1, -(-READABLE // height))
    step_y, step_x = height * scale + GAP, width * scale + GAP
    font = _font()
    top = TITLE + 3 * GAP if column_titles else GAP
    left = GAP + (max(_width(title, font) for title in row_titles) + 2 * GAP if row_titles else 0)
    sheet = Image.new("RGB", (left + columns * step_x, top + rows * step_y), PAPER)
    for i, image in enumerate(images):
        rgb = np.broadcast_to(image, (height, width, 3))
        large = rgb.repeat(scale, axis=0).repeat(scale, axis=1)
        row, column = divmod(i, columns)
        sheet.paste(Image.fromarray(large), (left + column * step_x, top + row * step_y))
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(column_titles):
        middle = left + column * step_x + (step_x - GAP) // 2
        pen.text((middle, GAP), _fit(title, step_x - GAP, font), INK, font, anchor="ma")
    for row, title in enumerate(row_titles):
        middle = top + row * step_y + (step_y - GAP) // 2
        pen.text((left - 2 * GAP, middle), title, INK, font, anchor="rm")
    return np.asarray(sheet)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=TITLE)


def _width(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return int(np.ceil(font.getlength(text)))


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, shortened to so many pixels."""
    if _width(text, font) <= width:
        return text
    while text and _width(text + "…", font) > width:
        text = text[:-1]
    return text.rstrip(" ,") + "…"
