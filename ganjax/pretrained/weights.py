"""Official weight files: which they are, where they come from, where they lie, and their hashes.

A file is looked for at the path that is given, else in `$GANJAX_WEIGHTS`, else in the cache
(`$XDG_CACHE_HOME/ganjax/weights`, `~/.cache/ganjax/weights`); there it is downloaded once, unless
`$GANJAX_OFFLINE` is set. Its SHA-256 must be what its publisher states, where one is stated; and it
is written down at first use and must stay the same ever after.
"""

import dataclasses
import hashlib
import json
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import tqdm
from absl import logging

RECORD = "known-hashes.json"
# Names that say nothing about their content: taken only from a folder that is given.
PLAIN_NAMES = ("model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
BLOCK = 1 << 20  # bytes read at a time
TIMEOUT = 30  # seconds without an answer


@dataclasses.dataclass(frozen=True)
class File:
    """A published file.

    Attributes:
        name: under which it is kept.
        url: where it is published; downloads start there unless `by_hand`.
        sha256: as its publisher states it, all of it or its first digits; "" where none is stated.
        by_hand: the place is a page for people, or nothing that can be fetched by a plain request.
    """

    name: str
    url: str
    sha256: str = ""
    by_hand: bool = False


Source = tuple[File, ...]  # what makes up the weights of a network, taken together

_CLIP = "https://openaipublic.azureedge.net/clip/models"
_FIDELITY = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0"
_NVIDIA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics"
_TGAN2 = "https://github.com/rezoo/tgan2/releases/download/v1.0"
_B32 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
_L14 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"

# By the network's name in the catalog; the first source is what is downloaded, any is taken.
SOURCES: dict[str, tuple[Source, ...]] = {
    "inception-2015-12-05": (
        (
            File(
                "weights-inception-2015-12-05-6726825d.pth",
                f"{_FIDELITY}/weights-inception-2015-12-05-6726825d.pth",
                "6726825d",
            ),
        ),
        (
            File(
                "pt_inception-2015-12-05-6726825d.pth",
                "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
                "pt_inception-2015-12-05-6726825d.pth",
                "6726825d",
            ),
        ),
        (
            File(
                "inception-2015-12-05.tgz",
                "http://download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz",
            ),
        ),
    ),
    "clip-vit-b-32": ((File("ViT-B-32.pt", f"{_CLIP}/{_B32}/ViT-B-32.pt", _B32),),),
    "clip-vit-l-14": ((File("ViT-L-14.pt", f"{_CLIP}/{_L14}/ViT-L-14.pt", _L14),),),
    "clip-shapes": (),  # `clip_shapes`: trained when it is first wanted
    "i3d-styleganv": (
        (
            File(
                "i3d_torchscript.pt",
                "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
            ),
        ),
    ),
    "i3d-videogpt": (
        (
            File(
                "i3d_pretrained_400.pt",
                "https://drive.google.com/uc?id=1mQK8KD8G6UWRa5t87SRMm5PVXtlpneJT",
                by_hand=True,
            ),
        ),
    ),
    "i3d-hassony": (
        (
            File(
                "model_rgb.pth",
                "https://github.com/hassony2/kinetics_i3d_pytorch/raw/master/model/model_rgb.pth",
            ),
        ),
    ),
    "c3d-ucf101": (
        (
            File("conv3d_deepnetA_ucf.npz", f"{_TGAN2}/conv3d_deepnetA_ucf.npz"),
            File("mean2.npz", f"{_TGAN2}/mean2.npz"),
        ),
    ),
    "vgg16": ((File("vgg16.pt", f"{_NVIDIA}/vgg16.pt"),),),
    "vgg16-torchvision": (
        (
            File(
                "vgg16-397923af.pth",
                "https://download.pytorch.org/models/vgg16-397923af.pth",
                "397923af",
            ),
            File("weights-vgg16-lpips.pth", f"{_FIDELITY}/weights-vgg16-lpips.pth"),
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class Found:
    """Weight files on this machine, checked.

    Attributes:
        paths: one file or several that belong together.
        sha256: of each of them.
    """

    paths: tuple[Path, ...]
    sha256: tuple[str, ...]


def find(network: str, path: str | Path | None = None) -> Found:
    """The files of a network, downloaded if need be, hashes checked.

    Args:
        path: a file (official or converted; others of the same source are looked for beside it), or
            a folder of such.

    Raises:
        ValueError: an unknown network; a file that is absent and cannot be downloaded, or has
            another hash than its publisher states or than it had before.
    """
    if network not in SOURCES:
        raise ValueError(f"there is no network {network!r}; known are {', '.join(SOURCES)}")
    if path is not None:
        files = _at(network, Path(path).expanduser())
    else:
        files = in_folders(network) or _download(network)
    return Found(files, tuple(_checked(network, file) for file in files))


def folders() -> list[Path]:
    """Where files are looked for, the cache last."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    own = os.environ.get("GANJAX_WEIGHTS")
    return [Path(place).expanduser() for place in (own, f"{cache}/ganjax/weights") if place]


def converted_name(network: str) -> str:
    """Of the safetensors file that `ganjax.pretrained.convert` writes."""
    return f"{network}.safetensors"


def sha256_of(path: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def table() -> str:
    """Networks, files, origins and stated hashes, for people."""
    lines = []
    for network, sources in SOURCES.items():
        lines.append(network)
        for index, source in enumerate(sources):
            for number, file in enumerate(source):
                word = "and" if number else "or" if index else "   "
                stated = f" (SHA-256 {file.sha256[:8]}...)" if file.sha256 else ""
                lines.append(f"  {word:3} {file.name}{stated}\n        {file.url}")
    return "\n".join(lines)


def _at(network: str, path: Path) -> tuple[Path, ...]:
    if path.is_dir():
        files = _in_folder(network, path)
        plain = [path / name for name in PLAIN_NAMES if (path / name).is_file()]
        if files or plain:
            return files or (plain[0],)
        raise ValueError(f"{path} holds no weights of {network}\n{_wanted(network)}")
    if not path.is_file():
        raise ValueError(f"{path} does not exist\n{_wanted(network)}")
    for source in SOURCES[network]:
        names = [file.name for file in source]
        if path.name in names:
            files = tuple(path.with_name(name) for name in names)
            absent = [file.name for file in files if not file.is_file()]
            if absent:
                raise ValueError(f"{', '.join(absent)} must lie beside {path}\n{_wanted(network)}")
            return files
    return (path,)


def in_folders(network: str) -> tuple[Path, ...]:
    """The files of a network in the first of `folders` that has them; none where none has."""
    for folder in folders():
        if files := _in_folder(network, folder):
            return files
    return ()


def _in_folder(network: str, folder: Path) -> tuple[Path, ...]:
    converted = folder / converted_name(network)
    if converted.is_file():
        return (converted,)
    for source in SOURCES[network]:
        files = tuple(folder / file.name for file in source)
        if all(file.is_file() for file in files):
            return files
    return ()


def _wanted(network: str) -> str:
    """What to get from where, and where to put it."""
    choices = [
        " and ".join(f"{file.name} from {file.url}" for file in source)
        for source in SOURCES[network]
    ]
    places = " or ".join(str(folder) for folder in folders())
    return (
        f"wanted for {network}: "
        + "\n  or ".join(choices)
        + f"\nput it into {places}, or say where"
        " it is: the folder as $GANJAX_WEIGHTS, the file as the network's path"
    )


def _checked(network: str, path: Path) -> str:
    found = sha256_of(path)
    for file in (file for source in SOURCES[network] for file in source):
        if file.name == path.name and not found.startswith(file.sha256):
            raise ValueError(
                f"{path} has the SHA-256 {found}, its publisher states {file.sha256}; it is damaged"
                f" or another file: remove it, or get it again from {file.url}"
            )
    _remember(path, found)
    return found


def _remember(path: Path, sha256: str) -> None:
    """Writes a hash down at first use; afterwards, an error if it is another."""
    record = folders()[-1] / RECORD
    try:
        known: dict[str, str] = json.loads(record.read_text()) if record.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{record} is damaged ({error}); remove it") from error
    key = str(path.resolve())
    if known.get(key, sha256) != sha256:
        raise ValueError(
            f"{path} has the SHA-256 {sha256}, at its first use it had {known[key]}: numbers would"
            f" not compare. Put the old file back, or, if it was replaced on purpose, remove its"
            f" line from {record}"
        )
    if key in known:
        return
    text = json.dumps({**known, key: sha256}, indent=1, sort_keys=True)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=record.parent, delete=False) as temporary:
            temporary.write(text + "\n")
        os.replace(temporary.name, record)
    except OSError as error:
        logging.warning("The hash of %s could not be written down: %s", path, error)


def _download(network: str) -> tuple[Path, ...]:
    source = SOURCES[network][0]
    if os.environ.get("GANJAX_OFFLINE"):
        raise ValueError(f"$GANJAX_OFFLINE is set, nothing is downloaded\n{_wanted(network)}")
    by_hand = [file.name for file in source if file.by_hand]
    if by_hand:
        raise ValueError(f"{', '.join(by_hand)} must be fetched by hand\n{_wanted(network)}")
    folder = folders()[-1]
    folder.mkdir(parents=True, exist_ok=True)
    for file in source:
        if not (folder / file.name).is_file():
            try:
                _fetch(file, folder)
            except OSError as error:
                raise ValueError(
                    f"{file.name} could not be downloaded ({error})\n{_wanted(network)}"
                ) from error
    return tuple(folder / file.name for file in source)


def _fetch(file: File, folder: Path) -> None:
    """A file under its name, whole or not at all.

    Raises:
        OSError: no answer, or a connection that broke off.
        ValueError: another hash than its publisher states.
    """
    with urllib.request.urlopen(file.url, timeout=TIMEOUT) as answer:
        size = int(answer.headers.get("Content-Length") or 0)
        bar = tqdm.tqdm(total=size or None, unit="B", unit_scale=True, desc=file.name)
        digest = hashlib.sha256()
        with bar, tempfile.NamedTemporaryFile(dir=folder, delete=False) as temporary:
            try:
                while block := answer.read(BLOCK):
                    temporary.write(block)
                    digest.update(block)
                    bar.update(len(block))
                if size and temporary.tell() != size:
                    raise OSError(f"{temporary.tell()} of {size} bytes came")
                if not digest.hexdigest().startswith(file.sha256):
                    raise ValueError(
                        f"{file.url} gave a file of SHA-256 {digest.hexdigest()}, its publisher"
                        f" states {file.sha256}; nothing was kept"
                    )
            except BaseException:
                os.unlink(temporary.name)
                raise
    os.replace(temporary.name, folder / file.name)
