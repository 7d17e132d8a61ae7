"""Generator of StyleGAN3 (Karras et al., 2021), configurations T and R; D is StyleGAN2's.

Modules are named as in the official PyTorch code: `synthesis.L0_36_512.affine.weight` is
`synthesis/L0_36_512/affine/kernel`. A variant of the convolution is passed as a module: `conv` for
all, `conv_at` for those of some sampling rates.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict
from jaxtyping import Array, Float

from ganjax.families.stylegan2.networks import Labels, MappingNetwork, Truncation, spread
from ganjax.families.stylegan2.networks import example_inputs as inputs_of_stylegan2
from ganjax.families.stylegan3.blocks import (
    Resampling,
    Signal,
    SynthesisInput,
    SynthesisLayer,
    ToRGB,
    Transform,
)
from ganjax.layers.modulated import ModulatedConv

# Without demodulation's eps. NOTE: the official code divides kernels and styles by their root mean
# squares first, so that its eps of 1e-8 is never seen; styles' mean is over the batch there.
Conv = functools.partial(ModulatedConv, eps=1e-20)
Mapping = functools.partial(MappingNetwork, layers=2)


def signals(
    resolution: int,
    layers: int = 14,
    critical: int = 2,
    first_cutoff: float = 2.0,
    first_stopband: float = 2**2.1,
    last_stopband: float = 2**0.3,
    margin: int = 10,
) -> list[Signal]:
    """What each layer makes, the one to an image included (StyleGAN3, section 3.2, figure 4c).

    Args:
        resolution: pixels of the image, a power of two.
        layers: but for the input and the one to an image.
        critical: of them, the last ones, whose cutoff is half of the sampling rate.
        first_cutoff, first_stopband: frequencies of the input.
        last_stopband: of the last layer, over its cutoff.
        margin: pixels beyond each border of the image.
    """
    if resolution < 4 or resolution & (resolution - 1):
        raise ValueError(
            f"config.data.resolution={resolution}: StyleGAN3's images are squares of a power of"
            " two; set one from 4 on"
        )
    if not 0 <= critical < layers:
        raise ValueError(
            f"config.model.critical={critical} of config.model.layers={layers} layers have no"
            " guard band; set 0 or more, and fewer than all"
        )
    last = resolution / 2
    # Both frequencies grow by a constant factor a layer, until the critical ones.
    part = np.minimum(np.arange(layers + 1) / (layers - critical), 1.0)
    cutoffs = first_cutoff * (last / first_cutoff) ** part
    stopbands = first_stopband * (last * last_stopband / first_stopband) ** part
    rates = np.exp2(np.ceil(np.log2(np.minimum(2 * stopbands, resolution))))
    half_widths = np.maximum(stopbands, rates / 2) - cutoffs
    sizes = rates.astype(int) + 2 * margin
    sizes[-2:] = resolution
    rows = zip(sizes, rates, cutoffs, half_widths, strict=True)
    return [Signal(int(size), float(r), float(c), float(h)) for size, r, c, h in rows]


class Synthesis(nn.Module):
    """w to images: `Generator` has the attributes."""

    signals: tuple[Signal, ...]
    features: tuple[int, ...]
    critical: int
    output_scale: float
    layer: Callable[..., SynthesisLayer]
    conv_at: FrozenDict[int, Callable[..., nn.Module]]
    to_rgb: Callable[..., ToRGB]
    radial: bool
    dtype: Any
    narrow: int

    def setup(self) -> None:
        first = self.signals[0]
        self.input = SynthesisInput(self.features[0], first.size, first.rate, first.cutoff)
        self.layers = [make() for make in self.blueprint().values()]

    def blueprint(self) -> dict[str, Callable[..., SynthesisLayer | ToRGB]]:
        """What makes each layer, by name."""
        made: dict[str, Callable[..., SynthesisLayer | ToRGB]] = {}
        last = len(self.signals) - 1
        for index, (after, features) in enumerate(zip(self.signals, self.features, strict=True)):
            name = f"L{index}_{after.size}_{features}"
            before = self.signals[max(index - 1, 0)]
            layer: Callable[..., SynthesisLayer | ToRGB] = self.layer
            if index == last:
                layer = self.to_rgb
            elif before.rate == after.rate and after.rate in self.conv_at:
                layer = functools.partial(layer, conv=self.conv_at[int(after.rate)])
            make = functools.partial(
                layer,
                features,
                before=before,
                after=after,
                dtype=self.dtype if self._is_narrow(after) else None,
                name=name,
            )
            if self.radial and index < last - self.critical:
                make = functools.partial(make, radial=True)
            made[name] = make
        return made

    def _is_narrow(self, signal: Signal) -> bool:
        return signal.rate * 2**self.narrow > self.signals[-1].rate

    def __call__(
        self, ws: Float[Array, "n num_ws d"], transform: Transform | None = None
    ) -> Float[Array, "n h w c"]:
        """Images, float32; about [-1, 1], not clipped."""
        x = self.input(ws[:, 0], transform)
        for index, layer in enumerate(self.layers):
            x = layer(x, ws[:, index + 1])
        return x.astype(jnp.promote_types(x.dtype, jnp.float32)) * self.output_scale


class Generator(nn.Module):
    """StyleGAN3's generator; the defaults are configuration T, `configuration_r` makes R.

    Attributes:
        resolution: of the images, in pixels: a power of two.
        image_channels: of the images.
        latent_dim: entries of z.
        classes: number of classes, or entries of a condition; 0: unconditional.
        w_dim: entries of w.
        channel_base, channel_max: a layer has half of the base divided by its cutoff frequency
            channels, at most the maximum.
        layers, critical, first_cutoff, first_stopband, last_stopband, margin: as of `signals`.
        output_scale: of the images.
        kernel_size: of the convolutions.
        filter_size, oversampling, clamp, magnitude_beta: as of `SynthesisLayer`.
        radial: layers that are not critically sampled downsample alike in all directions.
        mapping_network: makes the mapping network, called with `latent_dim`, `classes` and `w_dim`.
        conv: makes the convolutions, called with `features`, `kernel_size` and `dtype`.
        conv_at: what makes those of layers that keep some sampling rates instead, by rate.
        dtype: of the computation at the highest sampling rates; None: as inputs and parameters
            promote. Parameters, mapping, input and images are float32.
        narrow: the number of these rates.
    """

    resolution: int
    image_channels: int = 3
    latent_dim: int = 512
    classes: int = 0
    w_dim: int = 512
    channel_base: int = 32768
    channel_max: int = 512
    layers: int = 14
    critical: int = 2
    first_cutoff: float = 2.0
    first_stopband: float = 2**2.1
    last_stopband: float = 2**0.3
    margin: int = 10
    output_scale: float = 0.25
    kernel_size: int = 3
    filter_size: int = 6
    oversampling: int = 2
    radial: bool = False
    clamp: float | None = 256.0
    magnitude_beta: float = 0.999
    mapping_network: Callable[..., nn.Module] = Mapping
    conv: Callable[..., nn.Module] = Conv
    conv_at: FrozenDict[int, Callable[..., nn.Module]] = FrozenDict()
    dtype: Any = None
    narrow: int = 4

    def setup(self) -> None:
        self.mapping = self.mapping_network(
            latent_dim=self.latent_dim, classes=self.classes, w_dim=self.w_dim
        )
        self.synthesis = self._synthesis()

    def _synthesis(self, **more: Any) -> Synthesis:
        sampled = tuple(self.signals())
        widths = [
            int(np.rint(min(self.channel_base / 2 / signal.cutoff, self.channel_max)))
            for signal in sampled[:-1]
        ]
        return Synthesis(
            signals=sampled,
            features=(*widths, self.image_channels),
            critical=self.critical,
            output_scale=self.output_scale,
            layer=functools.partial(
                SynthesisLayer,
                kernel_size=self.kernel_size,
                filter_size=self.filter_size,
                oversampling=self.oversampling,
                clamp=self.clamp,
                magnitude_beta=self.magnitude_beta,
                conv=self.conv,
            ),
            conv_at=self.conv_at,
            to_rgb=functools.partial(ToRGB, clamp=self.clamp, magnitude_beta=self.magnitude_beta),
            radial=self.radial,
            dtype=self.dtype,
            narrow=self.narrow,
            **more,
        )

    def resamplings(self) -> dict[str, Resampling]:
        """The filters of each layer, by name."""
        made = self._synthesis(parent=None).blueprint()
        return {name: make(parent=None).resampling() for name, make in made.items()}

    def signals(self) -> list[Signal]:
        """What each layer makes."""
        return signals(
            self.resolution,
            self.layers,
            self.critical,
            self.first_cutoff,
            self.first_stopband,
            self.last_stopband,
            self.margin,
        )

    @property
    def num_ws(self) -> int:
        """Entries of the list of w that the synthesis takes."""
        return self.layers + 2

    def noise_shapes(self) -> dict[str, tuple[int, int]]:
        """No layer has noise."""
        return {}

    def __call__(
        self,
        z: Float[Array, "n latent_dim"],
        labels: Labels = None,
        *,
        transform: Transform | None = None,
        truncation: Truncation = 1.0,
        cutoff: int | None = None,
    ) -> Float[Array, "n h w c"]:
        """Images, float32; about [-1, 1], not clipped.

        Args:
            labels: classes, or weights of classes.
            transform: of the input's coordinates, in place of the stored one.
            truncation, cutoff: as of `styles`.
        """
        return self.synthesize(self.styles(z, labels, truncation, cutoff), transform)

    def styles(
        self,
        z: Float[Array, "n latent_dim"],
        labels: Labels = None,
        truncation: Truncation = 1.0,
        cutoff: int | None = None,
    ) -> Float[Array, "n num_ws w_dim"]:
        """The w of the input and of each layer, truncated.

        Args:
            truncation: distance from the mean w that is kept, 1: all of it.
            cutoff: entries, from the first one, that are truncated; None: all.
        """
        w = self.mapping(z, labels)
        average: Any = self.mapping.get_variable("averages", "w_avg")
        return spread(w, self.num_ws, average, truncation, cutoff)

    def synthesize(
        self, ws: Float[Array, "n num_ws w_dim"], transform: Transform | None = None
    ) -> Float[Array, "n h w c"]:
        """Images from the w of the input and of each layer."""
        return self.synthesis(ws, transform)


def configuration_r(**fields: Any) -> Generator:
    """Configuration R: 1x1 convolutions, round filters, twice the channels (StyleGAN3, table 1)."""
    base, most = fields.pop("channel_base", 32768), fields.pop("channel_max", 512)
    return Generator(
        channel_base=2 * base, channel_max=2 * most, kernel_size=1, radial=True, **fields
    )


def example_inputs(module: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments (shapes only) and keyword arguments for `module.init` and `init_on_host`."""
    if not isinstance(module, Generator):
        return inputs_of_stylegan2(module)
    labels = (jax.ShapeDtypeStruct((1,), jnp.int32),) if module.classes else ()
    return (jax.ShapeDtypeStruct((1, module.latent_dim), jnp.float32), *labels), {}
