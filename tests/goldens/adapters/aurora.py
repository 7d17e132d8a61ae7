"""Aurora's generator, whole and by its parts (zhujiapeng/Aurora, models/text_generator.py)."""

import functools
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from ganjax.families.aurora import attention, blocks, networks, official, text, transformer
from ganjax.layers.equalized import EqualizedConv, EqualizedDense
from ganjax.layers.filtering import setup_filter
from ganjax.layers.mtm import ModulatedTransformConv
from tests.goldens.adapters.aurora_conv import modulated_conv
from tests.goldens.adapters.aurora_networks import (
    Make,
    Options,
    attention_block,
    eps_of,
    feed_forward,
    generator,
    mapping,
    of_classes,
    scores_of,
    self_attention,
    text_head,
)
from tests.goldens.adapters.stylegan2_ops import Found, only, to_nchw
from tests.goldens.case import Adapter, Case

TIE = 1e-4  # of the largest logit: rounding may choose between experts that are as close
MOE_LOSS = 0.001  # what the reference multiplies both of its losses by


# State dicts, whose weights may be stored at another scale.

UNSCALED = (
    r".*(mtm_(weight|bias|scales)|norm\d?\.(weight|bias)|ln_\d\.(weight|bias)|w_avg|const|filter"
    r"|freqs|phases|transform)|(.*\.)?input\.(weight|affine\.\w+)|synthesis\.net\.0\.0\..*"
)


def factor(name: str, array: np.ndarray, options: Options, multiplied: bool) -> float:
    """What the reference multiplies an entry by at run time, over what ours does.

    Args:
        multiplied: our layer has the multiplier of the learning rate, too.
    """
    if re.fullmatch(UNSCALED, name):
        return 1.0
    prefix = {"text_head": "text_", "mapping": "mapping_"}.get(name.split(".")[0], "")
    if name.startswith("mapping.embedding."):
        prefix = "embedding_"
    if f"{prefix}lr_mul" not in options:
        prefix = ""
    multiplier = 1.0 if multiplied or prefix else options[f"{prefix}lr_mul"]
    if name.endswith("bias"):
        return multiplier
    if options[f"{prefix}use_wscale"]:
        return multiplier * options[f"{prefix}wscale_gain"]
    return multiplier * math.sqrt(math.prod(array.shape[2 if array.ndim == 5 else 1 :]))


class Named(nn.Module):
    """A part under the name that it has in the whole, by which entries are found."""

    make: Make
    part: str
    call: Callable[..., Any] = lambda module, *args: module(*args)

    @nn.compact
    def __call__(self, *args: Any) -> Any:
        return self.call(self.make(name=self.part), *args)


SEEN = (
    text.TextHead,
    transformer.StyleRouter,
    transformer.ResidualAttentionBlock,
    blocks.ResidualConvBlock,
    blocks.Start,
    EqualizedDense,
)


class Run:
    """A part or the whole with the reference's weights, and what comes of it.

    Attributes:
        variables: ours.
        kept: what modules returned, by the released names of the modules, and a dot.
        told: what mixtures of experts told, likewise.
    """

    def __init__(
        self,
        case: Case,
        make: Make,
        part: str,
        inputs: Mapping[str, Any],
        taps: Mapping[str, Any],
        multiplied: bool = False,
    ):
        self.module = Named(make, part) if part else make()
        self.prefix = official.prefix_of((part,)) if part else ""
        self.inputs = {name: jnp.asarray(array) for name, array in inputs.items()}
        state = {self.prefix + name: array for name, array in case.group("param/").items()}
        self.factors = {
            name: factor(name, array, case.kwargs, multiplied) for name, array in state.items()
        }
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in self.inputs.values()]
        self.example = (tuple(shapes), {})
        state = {name: array * self.factors[name] for name, array in state.items()}
        taps = {self.prefix + name: array for name, array in taps.items()}
        read, report = official.read(state, self.module, self.example, taps, strict=False)
        # Parts of the whole come without what others of its parts have. A bias that is not there
        # keeps its initial 0.
        missing = set(report.missing) - {"w_avg"}
        if not case.kwargs.get("add_bias", True):
            missing = {name for name in missing if not name.endswith(".bias")}
        if report.unexpected or missing:
            raise ValueError(f"the state dict does not fit: {report}")
        dtype = case.dtype
        self.variables = jax.tree.map(lambda array: jnp.asarray(array, dtype), read)

    def __call__(
        self, objective: Callable[[Any], Any], method: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """What comes out, and the gradients of its objective by the golden's keys."""
        params = self.variables["params"]
        others = {k: v for k, v in self.variables.items() if k != "params"}
        given = {k: v for k, v in self.inputs.items() if jnp.issubdtype(v.dtype, jnp.floating)}

        def loss(params: Any, given: Any) -> Any:
            y, kept = self.module.apply(
                {"params": params, **others},
                *(self.inputs | given).values(),
                method=method,
                capture_intermediates=lambda module, _: isinstance(module, SEEN),
                mutable=["intermediates", "moe"],
            )
            self._keep(kept)
            told = self.told.values()
            moe = sum((MOE_LOSS * (t.z_loss + t.balance_loss) for t in told), jnp.zeros(()))
            return objective((y, moe)), (y, moe, self.kept, self.told)

        _, pull, (y, moe, self.kept, self.told) = jax.vjp(loss, params, given, has_aux=True)
        gradients, inputs = pull(jnp.ones((), jnp.result_type(*given.values())))
        found = official.write({"params": gradients}, self.module, self.example)
        grads: Found = {
            f"grad/{name.removeprefix(self.prefix)}": array * self.factors[name]
            for name, array in found.items()
            if name in self.factors
        }
        return (y, moe), grads | {f"grad/{k}": to_nchw(v) for k, v in inputs.items()}

    def _keep(self, kept: Any) -> None:
        self.kept = {
            official.prefix_of(path[:-1]): value
            for path, (value,) in flatten_dict(kept.get("intermediates", {})).items()
        }
        self.told = {
            official.prefix_of(path[:-1]): value
            for path, (value,) in flatten_dict(kept.get("moe", {})).items()
        }

    def seen(self, name: str) -> Any:
        """What a module returned, by its released name within the part."""
        return self.kept[f"{self.prefix}{name}."]


def routing(case: Case, run: Run, key: Callable[[str, str], str]) -> Found:
    """Logits and experts of each mixture; where two experts tie, that of the golden."""
    found: Found = {}
    ties = 0
    for name, told in run.told.items():
        logits = np.asarray(run.kept[f"{name}routing."])
        ours, own = np.asarray(told.expert), key("expert_index", name)
        found[key("router_logits", name)] = logits
        if own in case:
            golden = case[own]
            two = np.sort(case[key("router_logits", name)], axis=-1)[..., -2:]
            tied = (two[..., 1] - two[..., 0] < TIE * np.abs(logits).max()) & (ours != golden)
            ties += int(tied.sum())
            ours = np.where(tied, golden, ours)
        found[own] = ours
    if ties:
        print(f"{case.family}/{case.name}: {ties} routing ties excepted", file=sys.stderr)
    return found


# Parts.


def dot(y: Any, cotangent: Any) -> Any:
    """The product of which gradients are."""
    return jnp.vdot(cotangent.astype(y.dtype), y)


def conv_layer(case: Case) -> Found:
    """`ConvLayer`."""
    o = case.kwargs
    only(
        o,
        "in_channels out_channels kernel_size add_bias scale_factor filter_kernel activation_type"
        " conv_clamp use_wscale wscale_gain lr_mul",
    )
    up = o["scale_factor"]
    layer = functools.partial(
        EqualizedConv,
        o["out_channels"],
        o["kernel_size"],
        o["activation_type"],
        use_bias=o["add_bias"],
        up=up,
        taps=tuple(o["filter_kernel"]) if o["filter_kernel"] else (1, 3, 3, 1),
        clamp=o["conv_clamp"],
    )
    # The name tells the order of the taps.
    name = "up" if up > 1 and o["kernel_size"] > 1 else "layer"
    taps = {"filter": setup_filter(o["filter_kernel"])} if up > 1 else {}
    run = Run(case, layer, name, {"x": case.images("in/x")}, taps)
    (y, _), found = run(lambda out: dot(out[0], case.images("in/cotangent")))
    return found | {"out/y": to_nchw(y)}


def residual_conv_block(case: Case) -> Found:
    """`ResidualConvBlock`."""
    o = case.kwargs
    conv, second = blocks.convolutions(
        o["num_kernels"],
        ModulatedTransformConv if o["mtm"] else None,
        eps=eps_of(o),
        demodulate=o["demodulate"],
    )
    make = functools.partial(
        blocks.ResidualConvBlock,
        o["out_channels"],
        conv,
        second,
        up=2 if o["upsample"] else 1,
        gain=o["residual_gain"],
        taps=tuple(o["filter_kernel"]),
        clamp=o["conv_clamp"],
    )
    taps = setup_filter(o["filter_kernel"])
    run = Run(
        case,
        make,
        "block",
        {"x": case.images("in/x"), "w": case["in/w"]},
        {"conv1.filter": taps, "skip_connection.filter": taps},
    )
    (y, _), found = run(lambda out: dot(out[0], case.images("in/cotangent")))
    return found | {"out/y": to_nchw(y), "out/style": run.seen("conv2.style")}


def self_attention_case(case: Case) -> Found:
    """`SelfAttentionLayer`."""
    make = functools.partial(self_attention(case.kwargs), case.kwargs["num_heads"])
    run = Run(case, make, "self_attn", {"x": case.images("in/x"), "w": case["in/w"]}, {})
    (y, _), found = run(lambda out: dot(out[0], case.images("in/cotangent")))
    return found | {"out/y": to_nchw(y), "out/style": run.seen("proj_out.style")}


def cross_attention_case(case: Case) -> Found:
    """`CrossAttentionLayer`."""
    o = case.kwargs
    make = functools.partial(
        attention.CrossAttention, o["num_heads"], o["head_dim"], scores=scores_of(o)
    )
    run = Run(case, make, "cross_attn", {"x": case["in/x"], "context": case["in/context"]}, {})
    (y, _), found = run(lambda out: dot(out[0], case["in/cotangent"]))
    return found | {"out/y": y}


def with_moe_loss(case: Case, cotangent: Any) -> Callable[[Any], Any]:
    """The objective of a case whose cotangents are of an output and, maybe, the MoE loss."""
    loss = case["in/cotangent_moe_loss"] if "in/cotangent_moe_loss" in case else None

    def objective(out: Any) -> Any:
        y, moe = out
        return dot(y, cotangent) + (0.0 if loss is None else moe * loss)

    return objective


def feed_forward_case(case: Case) -> Found:
    """`FeedForward`."""
    o = case.kwargs
    x = case["in/x"]
    w = case["in/w"] if "in/w" in case else np.zeros((len(x), o["w_dim"]), case.dtype)
    run = Run(case, feed_forward(o, o["num_experts"]), "ff", {"x": x, "w": w}, {})
    key = "in/cotangent_y" if "in/cotangent_y" in case else "in/cotangent"
    (y, moe), found = run(with_moe_loss(case, case[key]))
    found |= {"out/y": y, "out/moe_loss": moe}
    found |= routing(case, run, lambda what, _: f"out/{what}")
    for told in run.told.values():
        probabilities = jax.nn.softmax(run.seen("routing"))
        found["out/router_prob"] = probabilities.max(axis=-1, keepdims=True)
        found |= {"out/z_loss": told.z_loss, "out/load_balancing_loss": told.balance_loss}
    return found


def residual_attention_block(case: Case) -> Found:
    """`ResidualAttnBlock`."""
    o = case.kwargs
    make = attention_block(o, o["num_experts"], o["depth"])
    inputs = {"x": case.images("in/x"), "w": case["in/w"]}
    known = case["in/context"] if "in/context" in case else np.zeros((len(inputs["x"]), 0, 1))
    inputs["context"] = known if o["use_text_cond"] else known[:, :0]
    run = Run(case, make, "block", inputs, {})
    key = "in/cotangent_y" if "in/cotangent_y" in case else "in/cotangent"
    (y, moe), found = run(with_moe_loss(case, case.images(key)))
    if not o["use_text_cond"]:
        found["grad/context"] = np.zeros_like(known)  # which nothing sees
    last = f"attn_blocks.{o['depth'] - 1}.self_attn.proj_out.style"
    return found | {"out/y": to_nchw(y), "out/moe_loss": moe, "out/style": run.seen(last)}


def fourier_input(case: Case) -> Found:
    """`FourierInputLayer`."""
    o = case.kwargs
    only(o, "w_dim size channels sampling_rate bandwidth")
    make = functools.partial(
        blocks.SynthesisInput,
        o["channels"],
        o["size"],
        float(o["sampling_rate"]),
        float(o["bandwidth"]),
        blocks.waves,
    )
    run = Run(case, make, "input", {"w": case["in/w"]}, {})
    (y, _), found = run(lambda out: dot(out[0], case.images("in/cotangent")))
    return found | {"out/y": to_nchw(y), "out/t": run.seen("style")}


def text_head_case(case: Case) -> Found:
    """`TextHead`."""
    o = case.kwargs
    head = text_head(o, layers=o["num_layers"], multiplier=o["lr_mul"], gain=o["attn_gain"])
    make = functools.partial(head, o["context_dim"])
    inputs = {"text_feats": case["in/text_feats"], "eot_ind": case["in/eot_ind"]}
    run = Run(case, make, "text_head", inputs, {}, multiplied=True)

    def objective(out: Any) -> Any:
        (whole, tokens), _ = out
        return dot(whole, case["in/cotangent_global_feats"]) + dot(
            tokens, case["in/cotangent_local_feats"]
        )

    ((whole, tokens), _), found = run(objective)
    return found | {"out/global_feats": whole, "out/local_feats": tokens}


def mapping_case(case: Case) -> Found:
    """`MappingNetwork`."""
    o = case.kwargs
    outputs = o["num_outputs"] or 1
    width = o["output_dim"] * (1 if o["repeat_output"] else outputs)
    made = mapping(o, layers=o["num_layers"], features=o["hidden_dim"])
    make = functools.partial(made, width)
    condition = "label" if of_classes(o) else "context"
    inputs = {"z": case["in/z"], condition: case[f"in/{condition}"]}
    run = Run(case, make, "mapping", inputs, {}, multiplied=True)
    (w, _), found = run(lambda out: dot(out[0], case["in/cotangent"]))
    network = make()
    wp = w.reshape(len(w), -1, o["output_dim"])
    if not of_classes(o):
        found["out/global_text"] = network.normalize_text(run.inputs["context"])
    return found | {
        "out/w": w,
        "out/wp": jnp.broadcast_to(wp, (len(w), outputs, o["output_dim"])),
        "out/z": network.normalize_latent(run.inputs["z"]),
    }


# The whole.


def generator_case(case: Case) -> Found:
    """`Text2ImageGenerator`."""
    module = generator(case.kwargs)
    resolutions = tuple(map(int, case.kwargs["ms_training_res"]))
    classes = of_classes(case.kwargs)
    names = ("z", "label") if classes else ("z", "context", "eot_ind")
    inputs = {name: case[f"in/{name}"] for name in names}
    run = Run(case, lambda: module, "", inputs, filters(case, module))

    def method(module: networks.Generator, *given: Any) -> Any:
        ws, tokens = module.styles(*given)
        return ws, tokens, module.synthesize(ws, tokens, resolutions)

    judged = with_moe_loss(case, case.images("in/cotangent_image"))

    def objective(out: Any) -> Any:
        (*_, images), moe = out
        return judged((images[max(images)], moe))

    ((ws, tokens, images), moe), found = run(objective, method)
    network = module.mapping_network(w_dim=1)
    if not classes:
        vector, _ = run.seen("text_head")
        found |= {
            "out/global_text": vector,
            "out/global_text_normalised": network.normalize_text(vector),
            "out/local_text": tokens,
        }
    found |= {f"out/img_res_{size}x{size}": to_nchw(y) for size, y in images.items()}
    found |= {
        "out/w": ws[:, 0] if module.mapped_ws == 1 else ws.reshape(len(ws), -1),
        "out/wp": ws,
        "out/z_normalised": network.normalize_latent(run.inputs["z"]),
        "out/image": to_nchw(images[max(images)]),
        "out/moe_loss": moe,
    }
    for name, value in run.kept.items():
        parts = name.split(".")
        if parts[:2] == ["synthesis", "net"] and len(parts) <= 5 and value.ndim == 4:
            found[f"out/feat/net.{parts[2]}"] = to_nchw(value)
    return found | routing(case, run, lambda what, name: f"out/{what}/{name.removesuffix('.')}")


def filters(case: Case, module: networks.Generator) -> dict[str, Any]:
    """Those of the module that the case has; without skipped images there is none for them."""
    return {k: v for k, v in official.constants(module).items() if f"param/{k}" in case}


def truncation(case: Case) -> Found:
    """Truncation in the forward pass, and as `run_synthesize.py` has it."""
    only(case.call, "trunc_psi trunc_layers loop_mapping")
    psi, layers = case.call["trunc_psi"], case.call["trunc_layers"]
    module = generator(case.kwargs)
    inputs = {"z": case["in/z"], "context": case["in/context"], "eot_ind": case["in/eot_ind"]}
    run = Run(case, lambda: module, "", inputs, filters(case, module))
    apply = functools.partial(module.apply, run.variables)
    z, *text_given = run.inputs.values()

    def styles(z: Any, *truncated: Any) -> Any:
        return apply(z, *text_given, *truncated, method="styles")[0]

    ws, tokens = apply(z, *text_given, method="styles")

    def image(ws: Any) -> Any:
        return to_nchw(apply(ws, tokens, method="synthesize")[module.resolution])

    once = styles(z, psi, layers)
    mean = jnp.mean(jnp.stack([styles(z) for z in jnp.asarray(case["in/z_loop"])]), axis=0)
    twice = networks.truncated(once, mean, psi, layers)
    return {
        "out/wp_forward_truncated": once,
        "out/image_forward_truncated": image(once),
        "out/wp_untruncated": ws,
        "out/wp_after_w_avg": once,
        "out/avg_wp": mean[:, :layers],
        "out/wp_sample": twice,
        "out/image_sample": image(twice),
    }


def counts(case: Case) -> Found:
    """Shapes of a state dict, and how many parameters each part has."""
    # What the released configuration leaves to the constructor.
    given = case.kwargs
    defaults: dict[str, Any] = {"filter_kernel": [1, 3, 3, 1], "eps": 1e-8, "num_heads": 8}
    flags = ("repeat_w", "normalize_z", "normalize_text_cond", "demodulate", "use_wscale")
    defaults |= dict.fromkeys(flags, True) | dict.fromkeys(("final_tanh", "glu"), False)
    for part in ("", "mapping_", "text_", "embedding_"):
        defaults |= {f"{part}wscale_gain": 1.0, f"{part}use_wscale": True, f"{part}lr_mul": 1.0}
    module = generator(defaults | given)
    entries = official.entries_of(module, networks.example_inputs(module))
    shapes: dict[str, tuple[int, ...]] = {}
    learned: dict[str, int] = {}
    for entry in entries:
        for name in entry.names:
            half, whole = entry.shape, name.removesuffix(":value").removesuffix(":gate")
            shapes[whole] = half if whole == name else (2 * half[0], *half[1:])
            if entry.path[0] == "params" and ".mlp." not in name:  # there once more
                learned[whole] = math.prod(shapes[whole])
    shapes |= {name: taps.shape for name, taps in official.constants(module).items()}

    def counted(pattern: str) -> int:
        return sum(count for name, count in learned.items() if re.search(pattern, name))

    return {
        "total_parameters": counted(""),
        "expert_parameters": counted(r"\.ff\.net\."),
        "router_parameters": counted(r"\.routing\."),
        "mtm_parameters": counted(r"\bmtm_"),
        **{part: counted(rf"^{part}\.") for part in ("text_head", "mapping", "synthesis")},
        **{f"shape {name}": shape for name, shape in shapes.items()},
    }


def adapter(name: str, compute: Callable[[Case], Found]) -> Adapter:
    """For a class of the reference."""
    return Adapter("aurora", "^$", rf":{name}$", compute)


ADAPTERS = (
    Adapter("aurora", r"^modconv_", r":AdaptiveModulateConvLayer$", modulated_conv),
    Adapter("aurora", r"^published", r"run_synthesize.py g_config$", counts),
    Adapter("aurora", r"^truncation", r"\(trunc_psi", truncation),
    adapter("ConvLayer", conv_layer),
    adapter("ResidualConvBlock", residual_conv_block),
    adapter("SelfAttentionLayer", self_attention_case),
    adapter("CrossAttentionLayer", cross_attention_case),
    adapter("FeedForward", feed_forward_case),
    adapter("ResidualAttnBlock", residual_attention_block),
    adapter("FourierInputLayer", fourier_input),
    adapter("TextHead", text_head_case),
    adapter("MappingNetwork", mapping_case),
    adapter("Text2ImageGenerator", generator_case),
)
