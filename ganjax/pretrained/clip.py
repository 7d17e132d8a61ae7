"""CLIP ("Learning Transferable Visual Models From Natural Language Supervision", 2021), ViT only.

For metrics (CLIP score, Frechet distance on image embeddings) and for training: a frozen text
encoder (hidden states, the feature at the end of the text) and a differentiable image tower.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from jaxtyping import Array, Float, Int, Num

from ganjax.interop.entries import Entry, Path
from ganjax.pretrained.blocks import HIGHEST, entry_paths, kernel_axes, moved
from ganjax.pretrained.network import FeatureNetwork, Kind, Shapes, State
from ganjax.pretrained.resize import resize, tf1
from ganjax.pretrained.tokens import AnyTokenizer

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of RGB in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)
VOCABULARY = 49408
CONTEXT = 77
FEATURES = ("embedding", "pooled")
PAIRS = ("embeddings",)  # of pictures with captions

Features = dict[str, Float[Array, "n ..."]]
Activation = Callable[[Array], Array]


# Images as the image tower takes them


def normalise(images: Num[Array, "*n h w 3"]) -> Float[Array, "*n h w 3"]:
    """RGB in 0..255, integers or floating point, of the tower's resolution."""
    dtype = images.dtype if jnp.issubdtype(images.dtype, jnp.floating) else jnp.float32
    images = images.astype(dtype)
    return (images - 255 * jnp.asarray(MEAN, dtype)) / (255 * jnp.asarray(STD, dtype))


@dataclasses.dataclass(frozen=True)
class Squeeze:
    """RGB in 0..255 of any size, resized by TensorFlow 1's rule, then `normalise`.

    What torch-fidelity does for Frechet distances on CLIP: no smoothing, aspect not kept.
    """

    size: int = 224

    def __call__(self, images: Num[Array, "n h w 3"]) -> Float[Array, "n s s 3"]:
        dtype = images.dtype if jnp.issubdtype(images.dtype, jnp.floating) else jnp.float32
        return normalise(resize(images.astype(dtype), (self.size, self.size), tf1))


def crop_on_host(images: Sequence[np.ndarray], size: int = 224) -> np.ndarray:
    """OpenAI's own preparation, for CLIP score: uint8 [n, size, size, 3]; `normalise` comes next.

    The shorter side becomes `size` by Pillow's bicubic filter, the middle is cut out.

    Args:
        images: uint8 [h, w, 3], sizes may differ.
    """
    rows = []
    for array in images:
        height, width = array.shape[:2]
        short = min(height, width)
        # As torchvision: the longer side is cut to an integer, the margin rounded half to even.
        new = (int(size * width / short), int(size * height / short))
        picture = PIL.Image.fromarray(array).resize(new, PIL.Image.Resampling.BICUBIC)
        left, top = (round((length - size) / 2) for length in new)
        rows.append(np.asarray(picture.crop((left, top, left + size, top + size))))
    return np.stack(rows)


# Towers


def quick_gelu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """OpenAI's approximation of GELU; open_clip's own models take the exact `gelu`."""
    return x * nn.sigmoid(1.702 * x)


def gelu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """By the error function."""
    return nn.gelu(x, approximate=False)


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(ln_1(x)), then x + mlp(ln_2(x))."""

    heads: int
    hidden: int
    activation: Activation
    causal: bool
    precision: Any
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n l w"]) -> Float[Array, "n l w"]:
        width = x.shape[-1]
        y = _layer_norm(self, "ln_1")(x)
        qkv = _dense(self, 3 * width, "in_proj")(y)
        q, k, v = (
            part.reshape(*part.shape[:2], self.heads, -1) for part in jnp.split(qkv, 3, axis=-1)
        )
        q = q * (width // self.heads) ** -0.5
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k, precision=self.precision)
        if self.causal:
            mask = np.tri(x.shape[1], dtype=bool)
            scores = jnp.where(mask, scores, -jnp.inf)
        wide = jnp.promote_types(scores.dtype, jnp.float32)
        weights = nn.softmax(scores.astype(wide)).astype(scores.dtype)
        y = jnp.einsum("nhqk,nkhd->nqhd", weights, v, precision=self.precision)
        x = x + _dense(self, width, "out_proj")(y.reshape(x.shape))
        y = _dense(self, self.hidden, "c_fc")(_layer_norm(self, "ln_2")(x))
        return x + _dense(self, width, "c_proj")(self.activation(y))


def _dense(module: Any, features: int, name: str) -> nn.Dense:
    return nn.Dense(features, dtype=module.dtype, precision=module.precision, name=name)


def _layer_norm(module: Any, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(1e-5, module.dtype, use_fast_variance=False, name=name)


class TextTower(nn.Module):
    """From tokens to "text_hidden" [n, l, w], "text_end" [n, w] and "text_embedding" [n, e].

    "text_hidden" are all tokens after the last LayerNorm, "text_end" is that of the first
    end-of-text token, "text_embedding" its projection, not normalised. The stream between blocks is
    sown as hidden_0 (embeddings) to hidden_<layers>.

    Attributes:
        embedding: size of the space shared with images.
        hidden: of the MLP; None: four widths.
        end_token: whose first place is the end of the text; None: the largest id, as in OpenAI's
            vocabulary.
        dtype: of the computation; None: of the parameters.
    """

    width: int
    layers: int
    heads: int
    embedding: int
    vocabulary: int = VOCABULARY
    context: int = CONTEXT
    hidden: int | None = None
    activation: Activation = quick_gelu
    end_token: int | None = None
    precision: Any = HIGHEST
    dtype: Any = None

    @nn.compact
    def __call__(self, tokens: Int[Array, "n l"]) -> Features:
        table = nn.Embed(self.vocabulary, self.width, dtype=self.dtype, name="token_embedding")
        normal = nn.initializers.normal(0.01)
        place = self.param("positional_embedding", normal, (self.context, self.width))
        x = table(tokens) + place[: tokens.shape[1]].astype(self.dtype or place.dtype)
        x = _stack(self, x, causal=True)
        x = _layer_norm(self, "ln_final")(x)
        marks = tokens if self.end_token is None else tokens == self.end_token
        end = x[jnp.arange(len(x)), jnp.argmax(marks, axis=-1)]
        return {
            "text_hidden": x,
            "text_end": end,
            "text_embedding": _projection(self)(end),
        }


class ImageTower(nn.Module):
    """From normalised images to "pooled" [n, w] and "embedding" [n, e], not normalised.

    "pooled" is the class token after the last LayerNorm, "embedding" its projection. The stream
    between blocks is sown as hidden_0 (after the first LayerNorm) to hidden_<layers>.
    """

    width: int
    layers: int
    heads: int
    embedding: int
    patch: int
    size: int = 224
    hidden: int | None = None
    activation: Activation = quick_gelu
    precision: Any = HIGHEST
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"]) -> Features:
        if images.shape[1:3] != (self.size, self.size):
            raise ValueError(
                f"the image tower takes images of {self.size}x{self.size}, got"
                f" {images.shape[1]}x{images.shape[2]}; prepare them by Squeeze or crop_on_host"
            )
        patch = (self.patch, self.patch)
        x = nn.Conv(
            self.width,
            patch,
            patch,
            "VALID",
            use_bias=False,
            dtype=self.dtype,
            precision=self.precision,
            name="conv1",
        )(images)
        x = x.reshape(len(x), -1, self.width)
        normal = nn.initializers.normal(self.width**-0.5)
        first = self.param("class_embedding", normal, (self.width,)).astype(x.dtype)
        first = jnp.broadcast_to(first, (len(x), 1, self.width))
        x = jnp.concatenate((first, x), axis=1)
        place = self.param("positional_embedding", normal, (x.shape[1], self.width))
        x = _layer_norm(self, "ln_pre")(x + place.astype(x.dtype))
        x = _stack(self, x, causal=False)
        pooled = _layer_norm(self, "ln_post")(x[:, 0])
        return {"pooled": pooled, "embedding": _projection(self)(pooled)}


def _stack(module: Any, x: Array, causal: bool) -> Array:
    hidden = module.hidden or 4 * module.width
    module.sow("intermediates", "hidden_0", x)
    # Gradients through a tower keep what its dense layers give; all else is computed again.
    block = nn.remat(Block, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
    for index in range(module.layers):
        x = block(
            module.heads,
            hidden,
            module.activation,
            causal,
            module.precision,
            module.dtype,
            name=f"blocks_{index}",
        )(x)
        module.sow("intermediates", f"hidden_{index + 1}", x)
    return x


def _projection(module: Any) -> nn.Dense:
    return nn.Dense(
        module.embedding,
        use_bias=False,
        dtype=module.dtype,
        precision=module.precision,
        name="projection",
    )


class Clip(nn.Module):
    """Both towers: the features of what is given, and "logits_per_image" where both are.

    Attributes:
        image: an `ImageTower`, or another module of `size` that returns the same.
    """

    image: Any
    text: TextTower

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "n h w 3"] | None = None,
        tokens: Int[Array, "m l"] | None = None,
    ) -> Features:
        log_scale = self.param("logit_scale", nn.initializers.constant(np.log(1 / 0.07)), ())
        found: Features = {}
        if images is not None:
            found |= self.image(images)
        if tokens is not None:
            found |= self.text(tokens)
        if images is not None and tokens is not None:
            one, other = (unit(found[name]) for name in ("embedding", "text_embedding"))
            logits = jnp.dot(one, other.T, precision=HIGHEST)
            found["logits_per_image"] = jnp.exp(log_scale) * logits
        return found


def computing_in(module: Clip, dtype: Any, precision: Any = None) -> Clip:
    """The same network in another precision, for training by it: `jnp.bfloat16`, say.

    Its weights stay as they are: `computing_in(...).apply(network.variables, images)`.
    """
    return Clip(
        image=module.image.clone(parent=None, dtype=dtype, precision=precision),
        text=module.text.clone(parent=None, dtype=dtype, precision=precision),
    )


def unit(x: Float[Array, "n e"]) -> Float[Array, "n e"]:
    """Each row divided by its length."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


# Official names


def entries(shapes: Shapes, state: State) -> tuple[Entry, ...]:
    """By the names of Hugging Face or of OpenAI (and open_clip), whichever the state dict has."""
    hugging_face = any(name.startswith("text_model.") for name in state)
    return tuple(
        (_hugging_face if hugging_face else _openai)(path, shape)
        for path, shape in entry_paths(shapes)
    )


def _openai(path: Path, shape: tuple[int, ...]) -> Entry:
    names = list(path[1:])
    if names == ["logit_scale"]:
        return moved(path, ("logit_scale",), None, shape)
    tower, *names = names
    prefix = ["visual"] if tower == "image" else []
    axes = kernel_axes(path, len(shape))
    if names[0] == "projection":
        # Stored as it is used: x @ projection.
        name = "visual.proj" if tower == "image" else "text_projection"
        return moved(path, (name,), None, shape)
    if names[0].startswith("blocks_"):
        block, layer, leaf = names
        leaf = "weight" if leaf in ("kernel", "scale") else leaf
        layer = {
            "in_proj": f"attn.in_proj_{leaf}",
            "out_proj": f"attn.out_proj.{leaf}",
            "c_fc": f"mlp.c_fc.{leaf}",
            "c_proj": f"mlp.c_proj.{leaf}",
        }.get(layer, f"{layer}.{leaf}")
        number = block.removeprefix("blocks_")
        names = ["transformer", "resblocks", number, layer]
    elif names[-1] in ("kernel", "scale", "embedding"):
        names = [*names[:-1], "weight"]
    return moved(path, (".".join([*prefix, *names]),), axes, shape)


# Hugging Face's names of what is outside of the blocks.
HUGGING_FACE = {
    "text/token_embedding/embedding": "text_model.embeddings.token_embedding.weight",
    "text/positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text/projection/kernel": "text_projection.weight",
    "text/ln_final": "text_model.final_layer_norm",
    "image/conv1/kernel": "vision_model.embeddings.patch_embedding.weight",
    "image/class_embedding": "vision_model.embeddings.class_embedding",
    "image/positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "image/ln_pre": "vision_model.pre_layrnorm",  # sic
    "image/ln_post": "vision_model.post_layernorm",
    "image/projection/kernel": "visual_projection.weight",
    "logit_scale": "logit_scale",
}


def _hugging_face(path: Path, shape: tuple[int, ...]) -> Entry:
    axes = kernel_axes(path, len(shape))
    ours = "/".join(path[1:])
    if ours in HUGGING_FACE:
        return moved(path, (HUGGING_FACE[ours],), axes, shape)
    leaf = "weight" if path[-1] in ("kernel", "scale") else path[-1]
    parent = "/".join(path[1:-1])
    if parent in HUGGING_FACE:
        return moved(path, (f"{HUGGING_FACE[parent]}.{leaf}",), axes, shape)
    _, tower, block, layer, _ = path
    model = {"text": "text_model", "image": "vision_model"}[tower]
    prefix = f"{model}.encoder.layers.{block.removeprefix('blocks_')}"
    layers = {
        "in_proj": [f"self_attn.{letter}_proj" for letter in "qkv"],
        "out_proj": ["self_attn.out_proj"],
        "ln_1": ["layer_norm1"],
        "ln_2": ["layer_norm2"],
        "c_fc": ["mlp.fc1"],
        "c_proj": ["mlp.fc2"],
    }[layer]
    return moved(path, tuple(f"{prefix}.{name}.{leaf}" for name in layers), axes, shape)


# Facts about the model that OpenAI's files carry along, and position numbers of Hugging Face's.
UNUSED = ("input_resolution", "context_length", "vocab_size", "position_ids")


def drop_unused(state: State) -> State:
    """The state dict without entries that are no weights."""
    return {name: array for name, array in state.items() if name.split(".")[-1] not in UNUSED}


def kind(module: Clip) -> Kind:
    """Of any configuration; the preparation is that of Frechet distances."""
    size, context = module.image.size, module.text.context
    return Kind(
        module=module,
        prepare=Squeeze(size),
        features=FEATURES,
        examples=(
            jax.ShapeDtypeStruct((1, size, size, 3), np.float32),
            jax.ShapeDtypeStruct((1, context), np.int32),
        ),
        entries=entries,
        adapt=drop_unused,
    )


VIT_B_32 = kind(
    Clip(
        image=ImageTower(width=768, layers=12, heads=12, embedding=512, patch=32),
        text=TextTower(width=512, layers=12, heads=8, embedding=512),
    )
)
VIT_L_14 = kind(
    Clip(
        image=ImageTower(width=1024, layers=24, heads=16, embedding=768, patch=14),
        text=TextTower(width=768, layers=12, heads=12, embedding=768),
    )
)


@dataclasses.dataclass(frozen=True)
class ClipNetwork(FeatureNetwork):
    """CLIP with weights: `network(images)` as any feature network, and `network.text(texts)`.

    Attributes:
        tokenizer: of the checkpoint; None: only tokens can be given.
    """

    tokenizer: AnyTokenizer | None = None

    def apply(
        self,
        variables: Mapping[str, Any],
        images: Array | Mapping[str, Array],
        features: Sequence[str] | None = None,
    ) -> dict[str, Array]:
        """As of any network; of captioned pictures the feature is `PAIRS`.

        Those are "image", RGB in 0..255 of the tower's own size (`crop_on_host`), and "tokens";
        their embeddings [n, 2, e] are the image's and the text's.
        """
        if not isinstance(images, Mapping):
            return super().apply(variables, images, features)
        prepared = normalise(images["image"])
        found: Any = self.kind.module.apply(variables, prepared, images["tokens"])
        both = jnp.stack([found["embedding"], found["text_embedding"]], axis=1)
        return dict.fromkeys(features or PAIRS, both)

    def text(self, texts: str | Sequence[str] | Int[Array | np.ndarray, "n l"]) -> Features:
        """ "text_hidden", "text_end", "text_embedding" of texts, or of their tokens."""
        if isinstance(texts, jax.Array | np.ndarray):
            tokens = jnp.asarray(texts)
        elif self.tokenizer is not None:
            texts = [texts] if isinstance(texts, str) else texts
            tokens = jnp.asarray(self.tokenizer(texts))
        else:
            raise ValueError(
                f"{self.name} was loaded without a tokenizer; give load(..., tokenizer=...) the"
                " checkpoint's tokenizer.json, or the folder of vocab.json and merges.txt, or"
                " bpe_simple_vocab_16e6.txt.gz"
            )
        return _text(self.kind.module, self.variables, tokens)


def _apply_text(module: Clip, variables: Any, tokens: Array) -> Features:
    found = module.apply(variables, tokens=tokens)
    assert isinstance(found, dict), "Clip gives features by name"
    return found


_text = jax.jit(_apply_text, static_argnums=0)
