"""Features of any number of samples, on all devices, and their moments.

Every process runs the network on its own devices over its own share of the samples
(`hosts.share`): samples do not depend on each other, so that nobody waits for anybody until
moments are merged (`hosts.merge_moments`) or features gathered (`hosts.gather_rows`).
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Shaped

from ganjax.metrics.frechet import Moments
from ganjax.metrics.hosts import merge_moments
from ganjax.parallel.mesh import batch_sharding, make_mesh, replicated

BATCH = 64
ROWS = 2048  # rows counted in together: one large product is faster than many small ones


class Extractor:
    """Runs a feature network over samples, a batch of one shape at a time.

    The network computes at "highest" precision, whatever precision is set elsewhere. Its last
    batch is padded with zeros, and the padding dropped: samples must not see each other in it (no
    batch statistics). Features then depend on neither the batch nor the devices, up to rounding.

    Args:
      function: (variables, samples [n, ...]) -> features [n, ...] or a tree of them; is compiled.
      variables: of the network; put on each device once.
      batch: samples a call and process, rounded up to a multiple of its devices.
      mesh: its devices of this process are used; None is all of them.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        variables: Any,
        batch: int = BATCH,
        mesh: Mesh | None = None,
    ):
        if batch < 1:
            raise ValueError(f"batch={batch}; a positive number of samples is wanted, e.g. {BATCH}")
        devices = jax.local_devices() if mesh is None else list(mesh.local_mesh.devices.flat)
        own = make_mesh({"data": len(devices)}, devices)
        self.batch = -(-batch // len(devices)) * len(devices)
        self._split, self._whole = batch_sharding(own, leading=0), replicated(own)
        self._variables = jax.device_put(variables, self._whole)

        def features(variables: Any, samples: Any) -> Any:
            with jax.default_matmul_precision("highest"):
                return function(variables, samples)

        self._program = jax.jit(features, out_shardings=self._split)

    def bound(self, variables: Any) -> "Extractor":
        """The same program with other variables."""
        other = copy.copy(self)
        other._variables = jax.device_put(variables, self._whole)
        return other

    def __call__(self, samples: Iterable[Any]) -> Iterator[Any]:
        """Features of a stream of samples.

        Args:
          samples: arrays or trees of arrays [m, ...] of any m, all of one shape beside it. Of a
            global `jax.Array` the rows on this process's devices are taken.

        Yields:
          float32 features [m, ...] on the host, or a tree of them, in the samples' order; at most
          `batch` rows at a time, never padding.

        Raises:
          ValueError: no samples, or samples of different shapes.
        """
        waiting = None
        # The devices already work on the next batch while the host fetches this one.
        for padded, count in self._batches(samples):
            found = self._program(self._variables, jax.device_put(padded, self._split))
            if waiting is not None:
                yield _fetch(*waiting)
            waiting = found, count
        if waiting is None:
            raise ValueError(
                "there are no samples to take features of; look at the folder or source they come"
                " from"
            )
        yield _fetch(*waiting)

    def _batches(self, samples: Iterable[Any]) -> Iterator[tuple[Any, int]]:
        held: list[Any] = []
        rows, seen, like = 0, 0, None
        for part in samples:
            part = jax.tree.map(_rows_here, part)
            length = len(jax.tree.leaves(part)[0])
            shape = jax.tree.map(lambda x: (x.shape[1:], str(x.dtype)), part)
            if like is not None and shape != like:
                raise ValueError(
                    f"samples from {seen} on are {shape}, those before {like}; bring all to one"
                    " size and type"
                )
            like, seen = shape, seen + length
            while length:
                taken = min(length, self.batch - rows)
                held.append(jax.tree.map(lambda x, taken=taken: x[:taken], part))
                part = jax.tree.map(lambda x, taken=taken: x[taken:], part)
                length, rows = length - taken, rows + taken
                if rows == self.batch:
                    yield self._joined(held), rows
                    held, rows = [], 0
        if rows:
            yield self._joined(held), rows

    def _joined(self, parts: list[Any]) -> Any:
        def join(*arrays: np.ndarray) -> np.ndarray:
            whole = np.zeros((self.batch, *arrays[0].shape[1:]), arrays[0].dtype)
            np.concatenate(arrays, out=whole[: sum(map(len, arrays))])
            return whole

        return jax.tree.map(join, *parts)


def _rows_here(array: Any) -> np.ndarray:
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        shards = [shard for shard in array.addressable_shards if shard.replica_id == 0]
        shards.sort(key=lambda shard: shard.index[0].start or 0)
        return np.concatenate([np.asarray(shard.data) for shard in shards])
    return np.asarray(array)


def _fetch(found: Any, count: int) -> Any:
    return jax.tree.map(lambda x: np.asarray(x)[:count].astype(np.float32), found)


class Accumulator:
    """Moments of a stream of features; counts in `ROWS` rows at a time.

    Beside the moments it holds at most `ROWS` features and a batch.
    """

    def __init__(self) -> None:
        self._moments: Moments | None = None
        self._held: list[np.ndarray] = []
        self._rows = 0

    def update(self, features: Shaped[np.ndarray, "n ..."]) -> None:
        """Counts in features, [n, d] or of more dimensions, which are flattened.

        Raises:
          ValueError: another width, or a feature that is not finite.
        """
        self._held.append(features.reshape(len(features), math.prod(features.shape[1:])))
        self._rows += len(features)
        if self._rows >= ROWS:
            self._flush()

    def _flush(self) -> None:
        for features in self._held:
            if self._moments is None:
                self._moments = Moments.empty(features.shape[1])
            if features.shape[1] != self._moments.mean.size:
                raise ValueError(
                    f"features of width {features.shape[1]} after ones of width"
                    f" {self._moments.mean.size}; they come from another network or layer"
                )
        if self._moments is not None and self._held:
            self._moments.update(np.concatenate(self._held))
        self._held, self._rows = [], 0

    def moments(self) -> Moments:
        """Of all that was counted in by this process.

        Raises:
          ValueError: nothing was.
        """
        self._flush()
        if self._moments is None:
            raise ValueError("there are no features to take moments of; give samples")
        return self._moments


def moments_of(features: Iterable[Shaped[np.ndarray, "_ ..."]]) -> Moments:
    """The moments of a stream of features, of all processes' shares together."""
    accumulator = Accumulator()
    for part in features:
        accumulator.update(part)
    return merge_moments(accumulator.moments())
