"""CLIP by the names of Hugging Face and of OpenAI (transformers' CLIPModel)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ganjax.pretrained import clip
from ganjax.pretrained.blocks import entry_paths
from tests.goldens.case import Adapter, Case

Found = dict[str, Any]


def build(options: Mapping[str, Any]) -> clip.Clip:
    """Our module for the configuration of a CLIPModel."""
    text, image = options["text_config"], options["vision_config"]
    activations = {"quick_gelu": clip.quick_gelu, "gelu": clip.gelu}
    end = text.get("eos_token_id", 2)
    return clip.Clip(
        text=clip.TextTower(
            width=text["hidden_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            embedding=options["projection_dim"],
            vocabulary=text["vocab_size"],
            context=text["max_position_embeddings"],
            hidden=text["intermediate_size"],
            activation=activations[text.get("hidden_act", "quick_gelu")],
            # 2 is in old configurations, and means the largest id.
            end_token=None if end == 2 else end,
        ),
        image=clip.ImageTower(
            width=image["hidden_size"],
            layers=image["num_hidden_layers"],
            heads=image["num_attention_heads"],
            embedding=options["projection_dim"],
            patch=image["patch_size"],
            size=image["image_size"],
            hidden=image["intermediate_size"],
            activation=activations[image.get("hidden_act", "quick_gelu")],
        ),
    )


def model(case: Case) -> Found:
    """Every output under both libraries' names, and the gradients that the case asks for."""
    module = build(case.kwargs)
    kind = clip.kind(module)
    state = case.group("param/")
    variables, report = kind.from_official(state)
    if not report.complete:
        raise ValueError(f"the state dict does not fit: {report}")
    images, tokens = jnp.asarray(case.images("in/pixel_values")), jnp.asarray(case["in/input_ids"])
    asked = case.meta.get("grad_of", [])

    def objective(params, images):
        found, mutated = module.apply({"params": params}, images, tokens, mutable="intermediates")
        outputs = named(found, mutated["intermediates"])
        total = sum(jnp.sum(outputs[n] * case[f"in/cotangent_{n}"]) for n in asked)
        return jnp.asarray(total, images.dtype), outputs

    call = jax.value_and_grad(objective, (0, 1), has_aux=True)
    (_, outputs), (of_params, of_images) = jax.jit(call)(variables["params"], images)
    found = {f"out/{name}": value for name, value in outputs.items()}
    found["grad/pixel_values"] = of_images.transpose(0, 3, 1, 2)
    gradients = {"params": of_params}
    flat = {path: _leaf(gradients, path) for path, _ in entry_paths(gradients)}
    for entry in clip.entries(variables, state):
        official = entry.encode(np.asarray(flat[entry.path]))
        names = [f"grad/{name}" for name in entry.names]
        found |= dict(zip(names, official, strict=True))
    return found


def named(found: Mapping[str, Any], intermediates: Mapping[str, Any]) -> Found:
    """Our outputs by both libraries' names."""
    image, text = found["embedding"], found["text_embedding"]
    outputs = {
        "text_last_hidden_state": found["text_hidden"],
        "text_tokens": found["text_hidden"],
        "text_pooled_eot": found["text_end"],
        "text_embeds_raw": text,
        "text_pooled": text,
        "text_embeds": clip.unit(text),
        "text_pooled_normalised": clip.unit(text),
        "vision_pooled": found["pooled"],
        "image_embeds_raw": image,
        "image_features": image,
        "image_embeds": clip.unit(image),
        "image_features_normalised": clip.unit(image),
        "logits_per_image": found["logits_per_image"],
        "logits_per_text": found["logits_per_image"].T,
    }
    for tower, name in (("text", "text"), ("image", "vision")):
        for key, value in intermediates[tower].items():
            if key.startswith("hidden_"):
                outputs[f"{name}_{key}"] = value[0]
    layers = sum(key.startswith("vision_hidden_") for key in outputs) - 1
    outputs["vision_last_hidden_state"] = outputs[f"vision_hidden_{layers}"]
    return outputs


def _leaf(tree: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


ADAPTERS = (Adapter("clip", r"^clip", r"CLIPModel", model),)
