"""Videos as folders of frames, in a folder or a zip: ``<video>/<frame>.png``."""

import collections
import hashlib
import pathlib

import numpy as np
from jaxtyping import Int, UInt8

from ganjax.data.files import Tree, is_picture
from ganjax.data.transforms import decode


class Videos:
    """The videos of a tree, sorted by name, and their frames, sorted by name.

    Every folder that holds pictures is a video; folders above it mean nothing here.

    Raises:
      FileNotFoundError: no pictures in sub-folders.
    """

    def __init__(self, tree: Tree):
        frames = collections.defaultdict(list)
        for name in sorted(filter(is_picture, tree.names())):
            folder = str(pathlib.PurePosixPath(name).parent)
            frames[folder].append(name)
        frames.pop(".", None)
        if not frames:
            raise FileNotFoundError(
                f"{tree.path} holds no videos; expected a sub-folder of frames for each, such as "
                "video1/000000.png."
            )
        self.name = f"videos of {tree.path}"
        self._tree = tree
        self._frames = [names for _, names in sorted(frames.items())]

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def lengths(self) -> Int[np.ndarray, "v"]:
        """Frames of each video."""
        return np.array([len(names) for names in self._frames])

    def read(self, video: int, frames: Int[np.ndarray, "t"]) -> UInt8[np.ndarray, "t h w c"]:
        """Some frames of a video.

        Raises:
          BrokenItem: a frame that cannot be decoded.
          ValueError: frames of several sizes.
        """
        names = [self._frames[video][index] for index in frames]
        images = [decode(self._tree.read(name), name) for name in names]
        for name, image in zip(names, images):
            if image.shape != images[0].shape:
                raise ValueError(
                    f"{self.name}: {name} is of {image.shape} (height, width, channels) and "
                    f"{names[0]} of {images[0].shape}; a video's frames are of one size."
                )
        return np.stack(images)

    def describe(self, video: int) -> str:
        """Its folder."""
        return str(pathlib.PurePosixPath(self._frames[video][0]).parent)

    def content(self) -> str:
        """Changes when a frame, a name or their order does; nothing is read for it."""
        lines = (f"{name} {self._tree.stamp(name)}" for names in self._frames for name in names)
        return f"videos-1-{hashlib.sha256(chr(0).join(lines).encode()).hexdigest()[:16]}"
