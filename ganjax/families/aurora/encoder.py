"""CLIP beside a GAN: texts for both players, and what is seen in pictures. It never learns."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ganjax.families.aurora.losses import alike, as_clip_sees, contrastive
from ganjax.pretrained.clip import Clip


class Texts(NamedTuple):
    """What is known of the texts of a batch.

    Attributes:
      tokens: ids.
      states: features of all tokens, after the last normalisation.
      end: place of the token that ends each text.
      embedding: of each text, in the space that it shares with pictures.
    """

    tokens: Int[Array, "n l"]
    states: Float[Array, "n l w"]
    end: Int[Array, "n"]
    embedding: Float[Array, "n e"]

    @property
    def same(self) -> Bool[Array, "n n"]:
        """Which texts are the same."""
        return alike(self.tokens)


@dataclasses.dataclass(frozen=True)
class Encoder:
    """How CLIP is asked; its variables come with each question.

    Attributes:
      module: both towers.
    """

    module: Clip

    def read(self, variables: Any, item: Mapping[str, Array]) -> Texts:
        """Texts of items with "tokens" [n, l]; with "text_states" [n, l, w] these were read before.

        Args:
          variables: of `module`.
        """
        tokens, tower = item["tokens"], self.module.text
        marks = tokens if tower.end_token is None else tokens == tower.end_token
        end = jnp.argmax(marks, axis=-1)
        if "text_states" not in item:
            found: Any = self.module.apply(variables, tokens=tokens)
            return Texts(tokens, found["text_hidden"], end, found["text_embedding"])
        states = item["text_states"].astype(jnp.float32)
        last = jnp.take_along_axis(states, end[:, None, None], axis=1)[:, 0]
        return Texts(
            tokens, states, end, last @ variables["params"]["text"]["projection"]["kernel"]
        )

    def likeness(
        self, variables: Any, images: Mapping[int, Float[Array, "n _ _ c"]], texts: Texts
    ) -> dict[int, Float[Array, ""]]:
        """`contrastive` of the pictures of each resolution with their texts."""
        scale = jnp.exp(variables["params"]["logit_scale"])
        # One pass for all resolutions; interleaved, so that samples stay on their devices.
        shown = [as_clip_sees(pictures, self.module.image.size) for pictures in images.values()]
        together = jnp.stack(shown, axis=1)
        seen: Any = self.module.apply(variables, together.reshape(-1, *together.shape[2:]))
        embeddings = seen["embedding"].reshape(*together.shape[:2], -1)
        return {
            size: contrastive(embeddings[:, at], texts.embedding, scale, texts.same)
            for at, size in enumerate(images)
        }
