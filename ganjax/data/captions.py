"""Pictures with captions: ``cat.png`` and beside it ``cat.txt``, in a folder or in a zip."""

import hashlib
import pathlib

from ganjax.data.files import Tree, is_picture
from ganjax.data.transforms import BrokenItem, Encoded, Item, decode_item


class Captioned:
    """The pictures of a tree, sorted by name, and the text beside each.

    An item is ``{"image": uint8 [h, w, c] of any size, "caption": str, "label": 0}``.

    Raises:
      FileNotFoundError: no pictures.
      ValueError: a picture without a text.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, tree: Tree):
        found = set(tree.names())
        self._names = sorted(filter(is_picture, found))
        if not self._names:
            raise FileNotFoundError(
                f"{tree.path} holds no pictures ({len(found)} other files); expected pictures with "
                "a text beside each, as cat.png and cat.txt."
            )
        without = [name for name in self._names if _text_of(name) not in found]
        if without:
            raise ValueError(
                f"{tree.path}: {len(without)} of {len(self._names)} pictures have no caption, such "
                f"as {without[0]}; put each into a text file beside it: {_text_of(without[0])}."
            )
        self.name = f"captioned pictures of {tree.path}"
        self._tree = tree

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Item:
        return decode_item(self.encoded(index))

    def encoded(self, index: int) -> Encoded:
        """An item's picture as it is kept, and its text."""
        name = self._names[index]
        return Encoded(self._tree.read(name), 0, name, self._caption(name))

    def _caption(self, name: str) -> str:
        text = _text_of(name)
        try:
            found = self._tree.read(text).decode().strip()
        except UnicodeDecodeError as error:
            raise BrokenItem(f"{text}: not UTF-8 ({error})") from error
        if not found:
            raise BrokenItem(f"{text}: empty")
        return found

    def describe(self, index: int) -> str:
        """Its file."""
        return self._names[index]

    def fingerprint(self) -> str:
        """Of names alone."""
        return f"captioned-1-{_digest(self._names)}"

    def content(self) -> str:
        """Changes when a picture, a text or a name does; nothing is read for it."""
        files = [file for name in self._names for file in (name, _text_of(name))]
        return f"captioned-1-{_digest([f'{file} {self._tree.stamp(file)}' for file in files])}"


def _text_of(name: str) -> str:
    return str(pathlib.PurePosixPath(name).with_suffix(".txt"))


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\0".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]
