"""Every frozen network by its name, with official weights."""

import functools
import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from ganjax.interop.read import read_state
from ganjax.interop.report import Report
from ganjax.metrics.hosts import of_first
from ganjax.pretrained import c3d, clip, clip_shapes, i3d, inception, vgg16, weights
from ganjax.pretrained.blocks import shapes_of
from ganjax.pretrained.network import FeatureNetwork, Kind
from ganjax.pretrained.tokens import FILES, AnyTokenizer, Tokenizer, has_vocabulary

# In the order of `weights.SOURCES`, which says where the weights of each come from.
KINDS: dict[str, Kind] = {
    "inception-2015-12-05": inception.KIND,
    "clip-vit-b-32": clip.VIT_B_32,
    "clip-vit-l-14": clip.VIT_L_14,
    clip_shapes.NAME: clip_shapes.KIND,
    "i3d-styleganv": i3d.STYLEGANV,
    "i3d-videogpt": i3d.VIDEOGPT,
    "i3d-hassony": i3d.HASSONY,
    "c3d-ucf101": c3d.KIND,
    "vgg16": vgg16.KIND,
    "vgg16-torchvision": vgg16.KIND,
}
FORMAT = "ganjax-pretrained-1"


def load(
    name: str, path: str | Path | None = None, *, tokenizer: str | Path | AnyTokenizer | None = None
) -> FeatureNetwork:
    """A network with its weights.

    Args:
        name: one of `KINDS`.
        path: of its weight file or of a folder; None: where `weights.find` looks.
        tokenizer: for CLIP's texts: its file or folder; None: of `path`, where that holds one.

    Raises:
        ValueError: an unknown name; weights that are absent, changed or of another network.
    """
    kind = kind_of(name)
    if tokenizer is not None and not isinstance(kind.module, clip.Clip):
        raise ValueError(f"{name} reads no texts; leave tokenizer out")
    variables, report, hashes = read(name, path)
    if name == clip_shapes.NAME:  # hosts that have trained it round differently
        variables, hashes = of_first(variables), digest(of_first(variables))
    if report.unexpected:
        logging.warning("The weights of %s hold more than it has a place for:\n%s", name, report)
    variables = jax.tree.map(jnp.asarray, variables)
    if isinstance(kind.module, clip.Clip):
        if name == clip_shapes.NAME:
            tokenizer = tokenizer or clip_shapes.tokenizer()
        elif tokenizer is None and path is not None and has_vocabulary(Path(path)):
            tokenizer = path
        if isinstance(tokenizer, str | Path):
            tokenizer = Tokenizer(tokenizer, kind.module.text.context)
        return clip.ClipNetwork(name, kind, variables, hashes, tokenizer)
    network = vgg16.VggNetwork if isinstance(kind.module, vgg16.Vgg16) else FeatureNetwork
    return network(name, kind, variables, hashes)


def find(name: str, path: str | Path | None = None) -> weights.Found:
    """The files of a network: `weights.find`, but nobody publishes `clip-shapes`.

    Unless it lies in `$GANJAX_WEIGHTS` it is trained when it is first wanted, and cached.

    Raises:
        ValueError: as `weights.find`.
    """
    if name != clip_shapes.NAME or path is not None or weights.in_folders(name):
        return weights.find(name, path)
    training = clip_shapes.Training()
    file = weights.folders()[-1] / f"{name}-{training.digest()}.safetensors"
    if not file.is_file() or not _is_intact(name, file):
        variables = clip_shapes.train(training, show=jax.process_index() == 0)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
        try:
            write(temporary, name, variables, digest(variables))
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
    return weights.Found((file,), (weights.sha256_of(file),))


def _is_intact(name: str, file: Path) -> bool:
    """Whether a file holds what was written; if not, says so."""
    try:
        metadata = _converted(file)
        if metadata and digest(_read_converted(name, file, metadata)[0]) == metadata["sha256"]:
            return True
        problem = "its content does not fit its checksum"
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        problem = str(error)
    logging.warning("%s is made anew: %s", file, problem)
    return False


def digest(variables: Mapping[str, Any]) -> str:
    """Of a network's weights."""
    content = hashlib.sha256()
    for key, leaf in sorted(_flat(variables).items()):
        content.update(key.encode())
        content.update(np.asarray(leaf).tobytes())
    return content.hexdigest()


def find_tokenizer(name: str) -> AnyTokenizer:
    """The vocabulary of a CLIP: beside its weights, see `weights.folders`, or built in.

    Raises:
        ValueError: an unknown name, a network that reads no texts, or no vocabulary there.
    """
    if name == clip_shapes.NAME:
        return clip_shapes.tokenizer()
    module = kind_of(name).module
    if not isinstance(module, clip.Clip):
        raise ValueError(f"{name} reads no texts")
    for folder in weights.folders():
        if has_vocabulary(folder):
            return Tokenizer(folder, module.text.context)
    places = " or ".join(str(folder) for folder in weights.folders())
    raise ValueError(
        f"{name} needs its vocabulary to read captions: one of {', '.join(FILES)}, which come with "
        "the checkpoint (the last one is in the repository openai/CLIP under clip/)\nput it into "
        f"{places}, or its folder into $GANJAX_WEIGHTS"
    )


def kind_of(name: str) -> Kind:
    """What a network is.

    Raises:
        ValueError: an unknown name.
    """
    if name not in KINDS:
        raise ValueError(f"there is no network {name!r}; known are {', '.join(KINDS)}")
    return KINDS[name]


def read(name: str, path: str | Path | None = None) -> tuple[dict[str, Any], Report, str]:
    """Variables (NumPy arrays), what became of the file's entries, and the official files' hashes.

    The hashes are those of the official files also where a converted one is read, joined by "+".

    Raises:
        ValueError: as `load`.
    """
    kind = kind_of(name)
    found = find(name, path)
    converted = _converted(found.paths[0])
    if converted is not None:
        return (*_read_converted(name, found.paths[0], converted), converted["sha256"])
    state: dict[str, np.ndarray] = {}
    for file in found.paths:
        state |= read_state(file)
    try:
        variables, report = kind.from_official(state)
    except ValueError as error:
        files = ", ".join(str(file) for file in found.paths)
        raise ValueError(f"{files} cannot be read as {name}: {error}") from error
    return variables, report, "+".join(found.sha256)


def write(path: Path, name: str, variables: Mapping[str, Any], sha256: str) -> None:
    """Variables as a safetensors file that `read` takes."""
    tensors = {key: np.array(leaf, order="C") for key, leaf in _flat(variables).items()}
    safetensors.numpy.save_file(
        tensors, path, metadata={"format": FORMAT, "network": name, "sha256": sha256}
    )


def _converted(path: Path) -> dict[str, str] | None:
    """Metadata of a file that `write` wrote; None for any other."""
    if path.suffix != ".safetensors":
        return None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError(f"{path} is cut off or no safetensors file")
        header = json.loads(file.read(length))
    metadata = header.get("__metadata__", {})
    return metadata if metadata.get("format") == FORMAT else None


def _read_converted(
    name: str, path: Path, metadata: Mapping[str, str]
) -> tuple[dict[str, Any], Report]:
    same = KINDS.get(metadata["network"]) is KINDS[name]
    if metadata["network"] != name and not same:
        raise ValueError(f"{path} holds the weights of {metadata['network']}, not of {name}")
    arrays = safetensors.numpy.load_file(path)
    wanted = {key: leaf.shape for key, leaf in _flat(_shapes(name)).items()}
    if {key: array.shape for key, array in arrays.items()} != wanted:
        raise ValueError(f"{path} was written by another version of {name}; convert it again")
    return unflatten_dict(arrays, sep="/"), Report(matched=tuple(arrays))


@functools.cache  # tracing a network takes a second
def _shapes(name: str) -> dict[str, Any]:
    return shapes_of(KINDS[name].module, *KINDS[name].examples)


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    return flatten_dict(dict(tree), sep="/")
