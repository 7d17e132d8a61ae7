"""The stream of real data: a pure function of (seed, items seen).

Item ``p`` of the endless stream is item ``index_at(seed, p, n)`` of a random-access source of ``n``
items. Nothing else decides what it is: not the number of hosts, threads or restarts. So a run
resumes at any item from the two numbers that its state holds anyway, also on other machines.
"""

import functools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np
from absl import logging
from jax.sharding import NamedSharding, SingleDeviceSharding
from jaxtyping import Int

from ganjax.data.sources import Source, describe
from ganjax.data.transforms import BrokenItem, Item

# Items that one task of the reading threads decodes.
_CHUNK = 16


def index_at(seed: int, position: int, n: int) -> int:
    """The source index of item ``position`` of the stream: every epoch is a fresh permutation.

    Args:
      seed: any integer.
      position: items before this one, counted from the start of the run.
      n: items of the source.
    """
    epoch, offset = divmod(position, n)
    return int(_permutation(seed, epoch, n)[offset])


# Two epochs are alive around their border, for training and for one other stream.
@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, n: int) -> Int[np.ndarray, "n"]:
    # NOTE: not `grain.MapDataset.shuffle`: it costs 20 us an index, seeds s and s+1 share epochs,
    # and its four rounds of mixing leave a trace in sorted data (10 % excess variance of classes in
    # ImageNet batches). Raw bits of Philox and a stable sort are fixed for ever, numpy's
    # `permutation` is not.
    bits = np.random.Philox(key=[_key(seed, "order"), epoch]).random_raw(n)
    return np.argsort(bits, kind="stable").astype(np.int32)


def _key(seed: int, purpose: str) -> int:
    entropy = [seed % 2**64, *purpose.encode()]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


class Stream:
    """Endless batches of a source as global arrays ``[times, microbatches, n, ...]``.

    Iterating yields ``{field: jax.Array}``. In the flat (C) order of the leading dimensions the
    items of the next batch follow those of the last one.

    Args:
      source: random access, see `sources.Source`.
      transform: ``transform(item, rng) -> item``, the same shapes for every item.
      shape: ``(times, microbatches, n)``; ``n`` is the global number of rows.
      seed: of the order and of the transform's draws.
      sharding: how the leading dimensions lie on the mesh: ``P(None, None, data axes)``. Each
        process reads only the rows of its own devices. ``None``: one local device.
      start_items: items that the run has already seen; any number.
      threads: that read and decode; 0 reads in the caller's thread.
      prefetch: batches read ahead.
      max_broken: broken items that are replaced before the stream gives up.

    Attributes:
      items: items handed out so far, ``start_items`` included.

    Raises:
      ValueError: the rows do not divide over the devices, or an empty source.
    """

    def __init__(
        self,
        source: Source,
        transform: Callable[[Mapping[str, Any], np.random.Generator], Item],
        *,
        shape: Sequence[int],
        seed: int,
        sharding: NamedSharding | None = None,
        start_items: int = 0,
        threads: int = 2,
        prefetch: int = 2,
        max_broken: int = 100,
    ):
        if len(source) == 0:
            raise ValueError(f"The source {source.name!r} holds no items.")
        self.shape = tuple(shape)
        self.items = start_items
        self._sharding = sharding
        self._rows = _local_rows(self.shape, sharding)
        self._reader = _Reader(source, transform, seed, max_broken)
        chunks = _Chunks(self._reader, self.shape, self._rows, start_items)
        self._chunks_per_batch = chunks.per_batch
        buffer = max(threads, prefetch * chunks.per_batch) if threads else 0
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer)
        self._iterator = iter(grain.MapDataset.source(chunks).to_iter_dataset(options))

    @property
    def skipped(self) -> int:
        """Broken items of the source that this process has met and replaced."""
        return len(self._reader.broken)

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> dict[str, jax.Array]:
        parts = [next(self._iterator) for _ in range(self._chunks_per_batch)]
        batch = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        self.items += math.prod(self.shape)
        return {name: self._globalize(value) for name, value in batch.items()}

    def close(self) -> None:
        """Stops the reading threads."""
        self._iterator.close()

    def _globalize(self, local: np.ndarray) -> jax.Array:
        times, micro, n = self.shape
        item = local.shape[1:]
        local = local.reshape(times, micro, len(self._rows), *item)
        sharding = self._sharding or SingleDeviceSharding(jax.local_devices()[0])

        def shard(index: Any) -> np.ndarray:
            start, stop, _ = index[2].indices(n)
            first = int(np.searchsorted(self._rows, start))
            return local[:, :, first : first + stop - start]

        return jax.make_array_from_callback((times, micro, n, *item), sharding, shard)


def _local_rows(shape: tuple[int, ...], sharding: NamedSharding | None) -> Int[np.ndarray, "rows"]:
    """The global rows, of dimension 2, that lie on devices of this process."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape={shape}: expected (times, microbatches, n), each at least 1.")
    n = shape[2]
    if sharding is None:
        return np.arange(n)
    spec = (*sharding.spec, None, None, None)[:3]
    if spec[0] is not None or spec[1] is not None:
        raise ValueError(
            f"The sharding of a batch is {sharding.spec}; expected P(None, None, data axes): "
            "times and microbatches are played one after the other on every device."
        )
    axes = spec[2] if isinstance(spec[2], tuple) else (spec[2],) if spec[2] else ()
    devices = math.prod(sharding.mesh.shape[axis] for axis in axes)
    if n % devices:
        raise ValueError(
            f"A batch of {n} rows (of each microbatch) does not divide over the {devices} devices "
            f"of the mesh axes {axes}. Set the batch (config.train.batch) to microbatches x a "
            f"multiple of {devices}, for instance {max(1, round(n / devices)) * devices} rows."
        )
    slices: Any = sharding.addressable_devices_indices_map(shape).values()
    return np.unique(np.concatenate([np.arange(n)[index[2]] for index in slices]))


class _Reader:
    """Reads the item at a position; replaces broken ones, the same way on every host."""

    def __init__(self, source: Source, transform: Callable, seed: int, max_broken: int):
        self.source = source
        self.transform = transform
        self.seed = seed
        self.max_broken = max_broken
        self.broken: dict[int, str] = {}
        self._key = _key(seed, "item")
        self._lock = threading.Lock()

    def __call__(self, position: int) -> Item:
        count = len(self.source)
        index = index_at(self.seed, position, count)
        rng = np.random.Generator(np.random.Philox(key=[self._key, position]))
        # The next good item of the source: what is broken is a property of the source, so this
        # depends on nothing but the position.
        for step in range(count):
            try:
                return self.transform(self.source[(index + step) % count], rng)
            except BrokenItem as error:
                self._note((index + step) % count, error)
        raise ValueError(f"Every one of the {count} items of {self.source.name!r} is broken.")

    def _note(self, index: int, error: BrokenItem) -> None:
        with self._lock:
            if index in self.broken:
                return
            self.broken[index] = str(error)
            count = len(self.broken)
        named = describe(self.source, index)
        fault = str(error) if str(error).startswith(named) else f"{named} ({error})"
        where = f"{self.source.name!r}: {fault}"
        if count > self.max_broken:
            raise ValueError(
                f"{count} broken items in {where}. At most {self.max_broken} are "
                "replaced: repair the data, or raise config.data.max_broken. "
                "`python -m ganjax.data.prepare` leaves broken files out and lists them."
            ) from error
        logging.warning("Broken item in %s. The next good one replaces it.", where)


class _Chunks:
    """The rows of this process, a few items an element, for grain's threads."""

    def __init__(self, reader: _Reader, shape: tuple[int, ...], rows: np.ndarray, start_items: int):
        times, micro, n = shape
        self.reader = reader
        self.start = start_items
        self.batch = times * micro * n
        # Where this process's rows lie in a flat batch.
        self.offsets = (np.arange(times * micro)[:, None] * n + rows).ravel()
        self.per_batch = -(-len(self.offsets) // _CHUNK)

    def __len__(self) -> int:
        return 2**62  # endless, as far as a length can say so

    def __getitem__(self, element: int) -> Item:
        batch, part = divmod(element, self.per_batch)
        first = self.start + batch * self.batch
        offsets = self.offsets[part * _CHUNK : (part + 1) * _CHUNK]
        items = [self.reader(first + int(offset)) for offset in offsets]
        return {name: np.stack([item[name] for item in items]) for name in items[0]}
