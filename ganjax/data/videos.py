"""Videos as people keep them: files, or folders of frames, in a folder or in a zip.

    dataset/video_0001/000000.jpg      StyleGAN-V's layout: a folder of frames is a video
    dataset/walking/video_0001.mp4     a file is a video; sub-folders are classes, as of pictures

An item of a source of videos is ``{"video": Video, "label": int32 scalar}``: nothing is decoded
until somebody says which frames (`clips.ClipTransform`).
"""

import collections
import functools
import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from ganjax.data import video_files
from ganjax.data.files import Labels, Tree, find_labels, has_suffix, is_picture
from ganjax.data.transforms import BrokenItem, decode
from ganjax.data.video_files import VideoFile


@runtime_checkable
class Video(Protocol):
    """Frames, of which any can be read without the others.

    Attributes:
      name: for people.
      rate: frames a second; 0 where nobody knows, as of folders of frames.
    """

    name: str
    rate: float

    def __len__(self) -> int:
        """Frames."""
        ...

    def read(self, frames: Int[np.ndarray, "t"]) -> UInt8[np.ndarray, "t h w c"]:
        """Some frames, in any order; threads may read at once.

        Raises:
          BrokenItem: they cannot be decoded, or are of several sizes.
        """
        ...

    def walk(self) -> Iterator[UInt8[np.ndarray, "h w c"]]:
        """All frames in turn."""
        for number in range(len(self)):
            yield self.read(np.array([number]))[0]


class FrameFolder(Video):
    """A video as pictures in a folder.

    Args:
      tree: where it is.
      name: of the folder.
      frames: names of the pictures in the tree, in order.
    """

    rate = 0.0

    def __init__(self, tree: Tree, name: str, frames: Sequence[str]):
        self.name = name
        self._tree, self._frames = tree, frames

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, frames: Int[np.ndarray, "t"]) -> UInt8[np.ndarray, "t h w c"]:
        names = [self._frames[index] for index in frames]
        return same_size([decode(self._tree.read(name), name) for name in names], names)

    def encoded(self, frame: int) -> bytes:
        """A frame's picture as it is kept."""
        return self._tree.read(self._frames[frame])


def same_size(
    images: Sequence[UInt8[np.ndarray, "h w c"]], names: Sequence[str]
) -> UInt8[np.ndarray, "t h w c"]:
    """Stacks the frames of a video.

    Raises:
      BrokenItem: they are of several sizes.
    """
    for name, image in zip(names, images):
        if image.shape != images[0].shape:
            raise BrokenItem(
                f"{name} is of {image.shape} (height, width, channels) and {names[0]} of "
                f"{images[0].shape}; a video's frames are of one size"
            )
    return np.stack(images)


class Videos:
    """The videos of a tree, sorted by name, and their frames, sorted by name.

    Every file of `video_files.SUFFIXES` and every folder that holds pictures is a video. Classes
    are those of `files`: direct sub-folders or a dataset.json.

    Raises:
      FileNotFoundError: no videos.
    """

    def __init__(self, tree: Tree):
        frames: dict[str, list[str]] = collections.defaultdict(list)
        self._found = tree.names()
        for name in sorted(filter(is_picture, self._found)):
            frames[str(pathlib.PurePosixPath(name).parent)].append(name)
        frames.pop(".", None)
        files = [name for name in self._found if has_suffix(name, video_files.SUFFIXES)]
        self._names = sorted([*frames, *files])
        if not self._names:
            raise FileNotFoundError(
                f"{tree.path} holds no videos; expected files that end in "
                f"{', '.join(sorted(video_files.SUFFIXES))}, or a sub-folder of frames for each, "
                "such as video1/000000.png."
            )
        self.name = f"videos of {tree.path}"
        self._tree, self._frames = tree, dict(frames)
        self._files: dict[str, VideoFile] = {}  # those whose timestamps were read

    def __reduce__(self) -> Any:
        return Videos, (self._tree,)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An item; of a file the timestamps are read at its first use.

        Raises:
          BrokenItem: a file that is no video.
          ValueError: labels that do not fit the videos.
        """
        return {"video": self.video(index), "label": self._labels[0][index]}

    def video(self, index: int) -> Video:
        """A video without its class, which not everybody needs."""
        name = self._names[index]
        if name in self._frames:
            return FrameFolder(self._tree, name, self._frames[name])
        if name not in self._files:
            self._files[name] = VideoFile(self._tree, name)
        return self._files[name]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels; empty where there are none."""
        return self._labels[1]

    # Metrics look at videos of any layout; only who asks for classes meets their rules.
    @functools.cached_property
    def _labels(self) -> Labels:
        return find_labels(self._tree, self._names, self._found)

    def describe(self, index: int) -> str:
        """Its file or folder."""
        return self._names[index]

    def fingerprint(self) -> str:
        """Of names and labels: a million files on a server are not looked at for it."""
        names = (name for video in self._names for name in self._frames.get(video, (video,)))
        return f"videos-2-{_digest(names, self._labels[0].tobytes())}"

    def content(self) -> str:
        """Changes when a file, a frame, a name or their order does; nothing is read for it."""
        names = (name for video in self._names for name in self._frames.get(video, (video,)))
        return f"videos-1-{_digest(f'{name} {self._tree.stamp(name)}' for name in names)}"


def _digest(lines: Iterable[str], more: bytes = b"") -> str:
    digest = hashlib.sha256("\0".join(lines).encode(errors="surrogateescape"))
    digest.update(more)
    return digest.hexdigest()[:16]
