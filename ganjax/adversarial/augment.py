"""Augmentations of what a discriminator sees (ADA: Karras et al., 2020a, section 2 and appendix B).

Reals and fakes alike are augmented, each transform with a probability, so that a discriminator
with little data cannot learn the images by heart; the generator is not led to make augmented
images while the probability stays below some 0.8.

A pipe is linear in the images, and gradients of any order go through it. Its random numbers are
drawn by `Augment.draw` and handed in, as all draws of a phase. A transform whose gate is closed is
computed all the same, with numbers that do nothing; geometry resamples even then.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ganjax.layers.warp import warp

BLIT = ("xflip", "rotate90", "xint")
GEOMETRY = ("scale", "rotate", "aniso", "xfrac")
COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")

# Pipes by the names that they have in the paper and in the official code.
PIPES: dict[str, tuple[str, ...]] = {
    "blit": BLIT,
    "geom": GEOMETRY,
    "color": COLOR,
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
    "bg": (*BLIT, *GEOMETRY),
    "bgc": (*BLIT, *GEOMETRY, *COLOR),
    "bgcf": (*BLIT, *GEOMETRY, *COLOR, "imgfilter"),
    "bgcfn": (*BLIT, *GEOMETRY, *COLOR, "imgfilter", "noise"),
    "bgcfnc": (*BLIT, *GEOMETRY, *COLOR, "imgfilter", "noise", "cutout"),
}

BANDS = 4  # of the image filter: octaves of frequency, the lowest first
POWER = np.array([10.0, 1.0, 1.0, 1.0]) / 13  # expected in each band of a photograph

# Draws by name: the strength that opens them, their distribution, and how many a sample.
DRAWN: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "xflip": ("xflip", "uniform", ()),
    "rotate90": ("rotate90", "uniform", ()),
    "xint": ("xint", "uniform", (2,)),
    "scale": ("scale", "normal", ()),
    "prerotate": ("rotate", "uniform", ()),
    "aniso": ("aniso", "normal", ()),
    "postrotate": ("rotate", "uniform", ()),
    "xfrac": ("xfrac", "normal", (2,)),
    "brightness": ("brightness", "normal", ()),
    "contrast": ("contrast", "normal", ()),
    "lumaflip": ("lumaflip", "uniform", ()),
    "hue": ("hue", "uniform", ()),
    "saturation": ("saturation", "normal", ()),
    "imgfilter": ("imgfilter", "normal", (BANDS,)),
    "noise": ("noise", "normal", ()),
    "cutout": ("cutout", "uniform", (2,)),
}

Draws = Mapping[str, Any]
Size = tuple[int, int]  # height, width


@dataclasses.dataclass(frozen=True)
class Augment:
    """A pipe of transforms, applied in this order.

    The first fifteen are strengths: a transform happens with probability strength x p. Images may
    have one channel or three, and be clips [n, t, h, w, c], whose frames share all but the noise.

    Attributes:
        xflip: mirrored.
        rotate90: turned by quarters.
        xint: shifted by whole pixels.
        scale: resized.
        rotate: turned by any angle, before and after `aniso`.
        aniso: stretched along one axis as it is squeezed along the other.
        xfrac: shifted by any distance.
        brightness: lighter or darker.
        contrast: more or less of it.
        lumaflip: light for dark, hues kept.
        hue: turned around the axis of greys; not in grey images.
        saturation: more or less of it; not in grey images.
        imgfilter: bands of frequency amplified.
        noise: of pixels.
        cutout: a rectangle of zeros.
        xint_max: largest shift, as a share of the image.
        scale_std: of the factor's log2.
        rotate_max: largest angle; 1: a full circle.
        aniso_std: of the factor's log2.
        xfrac_std: of the shift, as a share of the image.
        brightness_std: of what is added.
        contrast_std: of the factor's log2.
        hue_max: largest angle; 1: a full circle.
        saturation_std: of the factor's log2.
        imgfilter_bands: strengths of the bands, the lowest frequency first.
        imgfilter_std: of the factors' log2.
        noise_std: of the noise's own deviation.
        cutout_size: of the rectangle, as a share of the image.
    """

    xflip: float = 0.0
    rotate90: float = 0.0
    xint: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    aniso: float = 0.0
    xfrac: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    lumaflip: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    imgfilter: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0
    xint_max: float = 0.125
    scale_std: float = 0.2
    rotate_max: float = 1.0
    aniso_std: float = 0.2
    xfrac_std: float = 0.125
    brightness_std: float = 0.2
    contrast_std: float = 0.5
    hue_max: float = 1.0
    saturation_std: float = 1.0
    imgfilter_bands: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    imgfilter_std: float = 1.0
    noise_std: float = 0.1
    cutout_size: float = 0.5

    def draw(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        """Random numbers for images or clips of a shape.

        A transform's numbers depend on the key and the shape, not on what else is in the pipe.

        Returns:
            By transform: `value` [n, ...], uniform or normal, and `gate` [n, ...], the uniform
            number below which it happens; for noise `pixels`, too, of the images' shape.
        """
        self._check(shape)
        # All that any pipe needs, in few arrays: it is little, and compiles faster.
        total = sum(math.prod(count) for _, _, count in DRAWN.values())
        gates, uniform, normal, pixels = jax.random.split(key, 4)
        columns = {
            "gate": jax.random.uniform(gates, (shape[0], total)),
            "uniform": jax.random.uniform(uniform, (shape[0], total)),
            "normal": jax.random.normal(normal, (shape[0], total)),
        }
        drawn: dict[str, Any] = {}
        start = 0
        for name, (_, distribution, count) in DRAWN.items():
            own = slice(start, start + math.prod(count))
            start = own.stop
            drawn[name] = {
                "value": columns[distribution][:, own].reshape(shape[0], *count),
                "gate": columns["gate"][:, own if name == "imgfilter" else own.start],
            }
        drawn = {name: drawn[name] for name in self._used(shape[-1])}
        if "noise" in drawn:
            drawn["noise"]["pixels"] = jax.random.normal(pixels, shape)
        return drawn

    def __call__(
        self, images: Float[Array, "n *thw c"], draws: Draws, p: float | Float[Array, ""]
    ) -> Float[Array, "n *thw c"]:
        """Images or clips, augmented.

        Args:
            draws: of `draw`.
            p: probability of a transform of strength 1.

        Raises:
            ValueError: images of neither one channel nor three.
        """
        self._check(images.shape)
        clips = images if images.ndim == 5 else images[:, None]
        n, frames, height, width, channels = clips.shape
        used = self._used(channels)
        # Frames as channels: whatever has no colour acts on them alike.
        x = jnp.moveaxis(clips, 1, 3).reshape(n, height, width, frames * channels)
        if any(name in used for name in _MOVES):
            x = warp(x, self.to_input(draws, p, (height, width)))
        if any(name in used for name in COLOR):
            x = recolor(x.reshape(n, height, width, frames, channels), self.colors(draws, p, used))
            x = x.reshape(n, height, width, frames * channels)
        if "imgfilter" in used:
            x = filter_bands(x, self.gains(draws, p))
        x = jnp.moveaxis(x.reshape(n, height, width, frames, channels), 3, 1).reshape(images.shape)
        if "noise" in used:
            x = x + draws["noise"]["pixels"] * _over(self.deviation(draws, p), x)
        if "cutout" in used:
            x = x * _over(self.kept(draws, p, (height, width)), x)
        return x

    # What the draws become: [n, ...] each.

    def to_input(self, draws: Draws, p: Any, size: Size) -> Float[Array, "n 3 3"]:
        """From a pixel of the result to its place in the input, from the centre, in pixels."""
        extent = jnp.array([size[1], size[0]])

        def matrix(name: str) -> Array:
            value, happens = self._chosen(draws, name, p)
            if name == "xflip":
                return _scale(jnp.where(happens, 1 - 2 * jnp.floor(value * 2), 1), 1)
            if name == "rotate90":
                return _rotate(jnp.where(happens, jnp.floor(value * 4), 0) * (math.pi / 2))
            if name == "xint":
                shift = jnp.where(happens[:, None], (value * 2 - 1) * self.xint_max, 0)
                return _translate(-jnp.round(shift * extent))
            if name == "xfrac":
                return _translate(-jnp.where(happens[:, None], value * self.xfrac_std, 0) * extent)
            if name.endswith("rotate"):
                return _rotate(jnp.where(happens, (value * 2 - 1) * (math.pi * self.rotate_max), 0))
            if name == "scale":
                factor = jnp.exp2(-jnp.where(happens, value * self.scale_std, 0))
                return _scale(factor, factor)
            factor = jnp.exp2(-jnp.where(happens, value * self.aniso_std, 0))
            return _scale(factor, 1 / factor)

        matrices = [matrix(name) for name in _MOVES if name in draws]
        return functools.reduce(_product, matrices)

    def colors(self, draws: Draws, p: Any, used: Sequence[str] = COLOR) -> Float[Array, "n 4 4"]:
        """The affine map of (r, g, b, 1)."""
        grey = np.array([1.0, 1.0, 1.0, 0.0]) / math.sqrt(3)  # the axis of greys
        onto_grey = np.outer(grey, grey)

        def matrix(name: str) -> Array:
            value, happens = self._chosen(draws, name, p)
            value, happens = value[:, None, None], happens[:, None, None]
            if name == "brightness":
                added = jnp.where(happens, value * self.brightness_std, 0)
                return added * np.outer([1, 1, 1, 0], [0, 0, 0, 1]) + np.eye(4)
            if name == "contrast":
                factor = jnp.exp2(jnp.where(happens, value * self.contrast_std, 0))
                return factor * np.diag([1, 1, 1, 0]) + np.diag([0, 0, 0, 1])
            if name == "lumaflip":
                return jnp.where(happens, jnp.floor(value * 2), 0) * (-2 * onto_grey) + np.eye(4)
            if name == "hue":
                angle = jnp.where(happens, (value * 2 - 1) * (math.pi * self.hue_max), 0)
                return _around(grey[:3], angle)
            factor = jnp.exp2(jnp.where(happens, value * self.saturation_std, 0))
            return factor * (np.eye(4) - onto_grey) + onto_grey

        matrices = [matrix(name) for name in COLOR if name in used and name in draws]
        return functools.reduce(lambda before, after: _product(after, before), matrices)

    def gains(self, draws: Draws, p: Any) -> Float[Array, "n bands"]:
        """Of the bands of frequency: one after the other is amplified, the expected power kept."""
        value, gate = draws["imgfilter"]["value"], draws["imgfilter"]["gate"]
        gains = jnp.ones_like(value)
        for band, strength in enumerate(self.imgfilter_bands):
            happens = gate[:, band] < self.imgfilter * p * strength
            factor = jnp.exp2(jnp.where(happens, value[:, band] * self.imgfilter_std, 0))
            own = jnp.ones_like(value).at[:, band].set(factor)
            power = jnp.sum(POWER * jnp.square(own), axis=1, keepdims=True)
            gains = gains * own / jnp.sqrt(power)
        return gains

    def deviation(self, draws: Draws, p: Any) -> Float[Array, "n"]:
        """Of the noise."""
        value, happens = self._chosen(draws, "noise", p)
        return jnp.where(happens, jnp.abs(value) * self.noise_std, 0)

    def rectangle(self, draws: Draws, p: Any) -> tuple[Array, Array]:
        """Of the cutout: size [n] and centre [n, 2] as (x, y), shares of the image."""
        value, happens = self._chosen(draws, "cutout", p)
        return jnp.where(happens, jnp.asarray(self.cutout_size, value.dtype), 0), value

    def kept(self, draws: Draws, p: Any, size: Size) -> Float[Array, "n h w 1"]:
        """1 outside the rectangle, 0 inside."""
        side, centre = self.rectangle(draws, p)
        outside = [
            jnp.abs((jnp.arange(length) + 0.5) / length - centre[:, i, None]) >= side[:, None] / 2
            for i, length in ((1, size[0]), (0, size[1]))
        ]
        kept = outside[0][:, :, None, None] | outside[1][:, None, :, None]
        return kept.astype(centre.dtype)

    def _chosen(self, draws: Draws, name: str, p: Any) -> tuple[Array, Array]:
        """A draw's values, and of which samples they are used [n]."""
        strength = getattr(self, DRAWN[name][0]) * p
        if DRAWN[name][0] == "rotate":
            # Two turns are as likely as one: each happens with the square root's probability.
            strength = 1 - jnp.sqrt(jnp.clip(1 - strength, 0, 1))
        return draws[name]["value"], draws[name]["gate"] < strength

    def _used(self, channels: int) -> tuple[str, ...]:
        """Names of the draws that the pipe needs."""
        return tuple(
            name
            for name, (strength, _, _) in DRAWN.items()
            if getattr(self, strength) > 0 and (channels > 1 or name not in ("hue", "saturation"))
        )

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) not in (4, 5) or shape[-1] not in (1, 3):
            raise ValueError(
                f"augmentation of images of shape {shape}; they are [n, h, w, c], clips"
                " [n, t, h, w, c], of 1 channel or 3. Set config.data.channels to 1 or 3, or"
                " config.augment.mode to none."
            )


_MOVES = tuple(name for name in DRAWN if DRAWN[name][0] in (*BLIT, *GEOMETRY))


def pipe(name: str, **more: Any) -> Augment:
    """The pipe of a name in `PIPES`, each of its transforms with strength 1.

    Args:
        more: attributes of `Augment`.

    Raises:
        ValueError: there is no such pipe.
    """
    if name not in PIPES:
        raise ValueError(
            f"config.augment.pipe={name!r} is no pipe. Set one of: {', '.join(PIPES)}."
        )
    return Augment(**{**dict.fromkeys(PIPES[name], 1.0), **more})


def recolor(
    images: Float[Array, "n h w t c"], colors: Float[Array, "n 4 4"]
) -> Float[Array, "n h w t c"]:
    """An affine map of colours; a grey image gets the mean of what it does to (x, x, x)."""
    linear, offset = colors[:, :3, :3], colors[:, :3, 3]
    if images.shape[-1] == 1:
        linear = jnp.mean(jnp.sum(linear, axis=2), axis=1)[:, None, None]
        offset = jnp.mean(offset, axis=1, keepdims=True)
    linear, offset = linear.astype(images.dtype), offset.astype(images.dtype)
    # Sums of three products, which no matrix unit would round.
    parts = [images[..., i, None] * _over(linear[:, :, i], images) for i in range(linear.shape[2])]
    return functools.reduce(jnp.add, parts) + _over(offset, images)


def filter_bands(
    images: Float[Array, "n h w c"], gains: Float[Array, "n bands"]
) -> Float[Array, "n h w c"]:
    """Bands of frequency amplified along each axis; images are mirrored around their border."""
    x = images
    for axis in ("Hh,nhwc->nHwc", "Ww,nhwc->nhWc"):
        bands = jnp.asarray(_bands(x.shape[1 if axis[0] == "H" else 2]), x.dtype)
        matrices = jnp.einsum("nb,bij->nij", gains.astype(x.dtype), bands)
        x = jnp.einsum(f"n{axis}", matrices, x)
    return x


@functools.cache
def filter_bank() -> np.ndarray:
    """[bands, taps]: an octave each, by Daubechies' wavelet of two vanishing moments.

    Each octave's low-pass splits off the band below, at half the rate of the octave above.
    """
    root = math.sqrt(3)
    low = np.array([1 - root, 3 - root, 3 + root, 1 + root]) / (4 * math.sqrt(2))
    high = low * np.array([1, -1, 1, -1])
    low, high = np.convolve(low, low[::-1]) / 2, np.convolve(high, high[::-1]) / 2
    bank = np.ones((1, 1))
    for _ in range(BANDS - 1):
        finer = np.zeros((len(bank), 2 * bank.shape[1] - 1))
        finer[:, ::2] = bank
        finer = np.stack([np.convolve(band, low) for band in finer])
        reach = (finer.shape[1] - len(high)) // 2
        bank = np.concatenate([finer, np.pad(high, reach)[None]])
    return bank


@functools.cache
def _bands(size: int) -> np.ndarray:
    """[bands, size, size]: the bank along an axis."""
    bank = filter_bank()
    reach = bank.shape[1] // 2
    mirrored = np.pad(np.eye(size), ((reach, reach), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(mirrored, bank.shape[1], axis=0)
    return np.einsum("osk,bk->bos", windows, bank)


# Matrices.


def _over(values: Array, images: Array) -> Array:
    """[n, ...] as it multiplies [n, ..., c]: its other dimensions are the last ones."""
    missing = images.ndim - values.ndim
    return values.reshape(values.shape[0], *(1,) * missing, *values.shape[1:])


def _product(a: Array, b: Array) -> Array:
    """Places are pixels to a fraction: no matrix unit may round them."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _rows(rows: Sequence[Sequence[Any]]) -> Array:
    entries = jnp.broadcast_arrays(*(entry for row in rows for entry in row))
    return jnp.stack(entries, axis=-1).reshape(*entries[0].shape, len(rows), -1)


def _scale(x: Any, y: Any) -> Array:
    return _rows([[x, 0, 0], [0, y, 0], [0, 0, 1]])


def _translate(by: Float[Array, "n 2"]) -> Array:
    return _rows([[1, 0, by[:, 0]], [0, 1, by[:, 1]], [0, 0, 1]])


def _rotate(angle: Array) -> Array:
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    return _rows([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def _around(axis: np.ndarray, angle: Float[Array, "n 1 1"]) -> Float[Array, "n 4 4"]:
    """A rotation of the first three coordinates (Rodrigues' formula)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    along = np.outer(axis, axis)
    turned = jnp.cos(angle) * (np.eye(3) - along) + jnp.sin(angle) * cross + along
    return jnp.pad(turned, ((0, 0), (0, 1), (0, 1))).at[:, 3, 3].set(1)
