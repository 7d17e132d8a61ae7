"""Initial values of parameters, drawn on the host without compiling anything.

Every parameter of every network is declared with one of the initializers below. They serve two
callers:

- `module.init(...)`, mostly under `jax.eval_shape` to count and to shard: there they trace.
- `init_on_host(module, key, ...)`, which starts runs: there they draw with NumPy. XLA compiles an
  initializer once for each parameter shape (20 s for a tiny BigGAN with orthogonal matrices);
  NumPy needs none of it, and the same key gives the same values on any number of devices.
"""

import contextvars
import dataclasses
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Shape = Sequence[int]

# The initializer behind each value made while `init_on_host` traces, by identity of the value.
_recorder: contextvars.ContextVar[dict[int, tuple[Any, "Initializer"]] | None] = (
    contextvars.ContextVar("ganjax_initializers", default=None)
)


@dataclasses.dataclass(frozen=True)
class Initializer:
    """A distribution over arrays: `traced` draws it with JAX, `host` with NumPy.

    Calling it is what Flax does: `initializer(key, shape, dtype)`.
    """

    def traced(self, key: jax.Array, shape: Shape) -> jax.Array:
        raise NotImplementedError

    def host(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        raise NotImplementedError

    def __call__(self, key: Any, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        recorded = _recorder.get()
        if recorded is None:
            return self.traced(key, shape).astype(dtype)
        value = jnp.zeros(shape, dtype)
        recorded[id(value)] = (value, self)  # holding the value keeps its identity unique
        return value


@dataclasses.dataclass(frozen=True)
class Constant(Initializer):
    """Every entry is `value`; several values count along the last axis."""

    value: float | tuple[float, ...]

    def traced(self, key, shape):
        return jnp.broadcast_to(jnp.asarray(self.value, jnp.float32), shape)

    def host(self, rng, shape):
        return np.full(shape, self.value, np.float32)


@dataclasses.dataclass(frozen=True)
class Normal(Initializer):
    """Independent N(0, std^2) entries."""

    std: float = 1.0

    def traced(self, key, shape):
        return jax.random.normal(key, shape) * self.std

    def host(self, rng, shape):
        return rng.standard_normal(shape, np.float32) * np.float32(self.std)


@dataclasses.dataclass(frozen=True)
class Uniform(Initializer):
    """Independent entries, uniform on +-`limit`."""

    limit: float

    def traced(self, key, shape):
        return jax.random.uniform(key, shape, minval=-self.limit, maxval=self.limit)

    def host(self, rng, shape):
        return (rng.random(shape, np.float32) * 2 - 1) * np.float32(self.limit)


@dataclasses.dataclass(frozen=True)
class XavierUniform(Initializer):
    """Uniform on +-`scale` sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010).

    The last axis counts outputs, the one before it inputs, all others are taps of a kernel.
    """

    scale: float = 1.0

    def _limit(self, shape: Shape) -> float:
        taps = math.prod(shape[:-2])
        return self.scale * math.sqrt(6.0 / (taps * (shape[-2] + shape[-1])))

    def traced(self, key, shape):
        limit = self._limit(shape)
        return jax.random.uniform(key, shape, minval=-limit, maxval=limit)

    def host(self, rng, shape):
        return (rng.random(shape, np.float32) * 2 - 1) * np.float32(self._limit(shape))


@dataclasses.dataclass(frozen=True)
class LecunNormal(Initializer):
    """Independent N(0, 1 / fan_in) entries (LeCun et al., 1998); axes as of `XavierUniform`."""

    def _std(self, shape: Shape) -> float:
        return 1.0 / math.sqrt(math.prod(shape[:-1]))

    def traced(self, key, shape):
        return jax.random.normal(key, shape) * self._std(shape)

    def host(self, rng, shape):
        return rng.standard_normal(shape, np.float32) * np.float32(self._std(shape))


@dataclasses.dataclass(frozen=True)
class Orthogonal(Initializer):
    """A random semi-orthogonal matrix [outputs, everything else] (Saxe et al., 2014).

    Outputs are the last axis, as in kernels [..., in, out]; orthonormal rows or columns, whichever
    are fewer, do not depend on that choice.
    """

    def traced(self, key, shape):
        out, rest = shape[-1], math.prod(shape[:-1])
        tall = jax.random.normal(key, (max(out, rest), min(out, rest)))
        q, r = jnp.linalg.qr(tall)
        q = q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0)  # makes the distribution uniform
        return (q if rest >= out else q.T).reshape(shape)

    def host(self, rng, shape):
        out, rest = shape[-1], math.prod(shape[:-1])
        tall = rng.standard_normal((max(out, rest), min(out, rest)), np.float32)
        q, r = np.linalg.qr(tall)
        q = q * np.where(np.diagonal(r) < 0, np.float32(-1), np.float32(1))
        return np.ascontiguousarray((q if rest >= out else q.T).reshape(shape))


zeros = Constant(0.0)
ones = Constant(1.0)


def _generator(key: jax.Array, path: str) -> np.random.Generator:
    """A NumPy generator that is a pure function of the key and of the parameter's path."""
    words = key
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        words = jax.random.key_data(key)
    entropy = [int(word) for word in np.asarray(words).ravel()]
    return np.random.default_rng([*entropy, zlib.crc32(path.encode())])


def init_on_host(
    module: nn.Module,
    key: jax.Array,
    *args: Any,
    method: Callable[..., Any] | str | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """All variables of a module, as NumPy arrays, without compiling or allocating on a device.

    Args:
        key: a JAX random key; the values are a pure function of it and of each variable's path.
            A traced key has no value to draw from: then this is `module.init`, for `eval_shape`.
        args, kwargs: inputs of the module's call: arrays or `jax.ShapeDtypeStruct`s; keyword
            arguments are passed as they are.
        method: as in `module.init`.

    Raises:
        ValueError: a variable was not made by an initializer of this file.
    """
    if isinstance(key, jax.core.Tracer):
        return dict(module.init(key, *args, method=method, **kwargs))
    declared: dict[str, Any] = {}

    def trace(*inputs: Any) -> Any:
        recorded: dict[int, tuple[Any, Initializer]] = {}
        token = _recorder.set(recorded)
        try:
            variables = module.init(jax.random.key(0), *inputs, method=method, **kwargs)
        finally:
            _recorder.reset(token)
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
            _, initializer = recorded.get(id(leaf), (None, None))
            declared[jax.tree_util.keystr(path)] = initializer
        return variables

    shapes = jax.eval_shape(trace, *args)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = jax.tree_util.keystr(path)
        initializer = declared[name]
        if initializer is None:
            raise ValueError(
                f"variable {name} of {type(module).__name__}, shape {leaf.shape}, was not made by"
                " an initializer of ganjax.layers.initializers, so it cannot be drawn on the host;"
                " declare it with one, e.g. self.param(name, initializers.zeros, shape)"
            )
        return initializer.host(_generator(key, name), leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
