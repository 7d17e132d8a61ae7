"""BigGAN's networks, layers and rules (ajbrock/BigGAN-PyTorch)."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax

from ganjax.adversarial.losses import hinge_d, hinge_g, logistic_d, logistic_g
from ganjax.adversarial.penalties import add_orthogonal_gradient, orthogonal_gradient
from ganjax.adversarial.state import Ema, Player, constant_decay
from ganjax.families.biggan import official
from ganjax.families.biggan.networks import (
    GENERATOR_WIDTHS,
    DeepDiscriminator,
    DeepGenerator,
    Discriminator,
    Generator,
)
from ganjax.interop import entries as interop
from ganjax.layers.attention import SelfAttention
from ganjax.layers.convolution import LAYOUT
from ganjax.layers.linear import Conv, Dense, Embed
from ganjax.layers.norm import BatchNorm, ConditionalBatchNorm, standing_statistics
from ganjax.layers.spectral import SpectralConv, SpectralDense, SpectralEmbed
from ganjax.sampling import truncation
from tests.goldens.case import Adapter, Case

Found = dict[str, Any]
Options = Mapping[str, Any]

INITIALIZERS = {"ortho": "orthogonal", "N02": "normal", "xavier": "xavier", "glorot": "xavier"}
SIDE = ["batch_stats", "spectral"]


# Networks


def attention(text: Any) -> tuple[int, ...]:
    """`"32_64"` as `(32, 64)`; `"0"` is none."""
    return tuple(int(part) for part in str(text).split("_") if int(part))


def spectral_layers(options: Options, letter: str) -> dict[str, Any]:
    """The layers of G or D, by the reference's `<letter>_param`, `num_<letter>_SVs`, ..."""
    if options.get(f"{letter}_param", "SN") != "SN":
        # Our networks hand their layers an eps, which plain ones have no use for.
        plain = {"conv": Conv, "dense": Dense, "embedding": Embed}
        return {name: functools.partial(_without_eps, layer) for name, layer in plain.items()}
    fields = {
        "values": options.get(f"num_{letter}_SVs", 1),
        "iterations": options.get(f"num_{letter}_SV_itrs", 1),
    }
    layers = {"conv": SpectralConv, "dense": SpectralDense, "embedding": SpectralEmbed}
    return {name: functools.partial(layer, **fields) for name, layer in layers.items()}


def _without_eps(layer: Any, *, eps: float, **fields: Any) -> nn.Module:
    del eps
    return layer(**fields)


def check_supported(options: Options, letter: str) -> None:
    """ValueError for options of the reference that ganjax has not, rather than a wrong network."""
    fixed = {
        "norm_style": "bn",
        "output_dim": 1,
        f"{letter}_kernel_size": 3,
        # On one device the reference then adds the gain where it would multiply by it.
        "cross_replica": False,
    }
    for name, value in fixed.items():
        if options.get(name, value) != value:
            raise ValueError(f"{name}={options[name]!r} is not in ganjax, only {value!r}")


def build_generator(options: Options, deep: bool = False) -> nn.Module:
    """Our generator for the reference's constructor arguments."""
    check_supported(options, "G")
    resolution, latent_dim = options.get("resolution", 128), options.get("dim_z", 128)
    hierarchical = options.get("hier", False)
    if hierarchical and not deep:
        # The reference shortens z to a whole number of parts.
        parts = len(GENERATOR_WIDTHS[resolution])
        latent_dim = latent_dim // parts * parts
    layers = spectral_layers(options, "G")
    layers.pop("embedding")
    more = {"depth": options.get("G_depth", 2)} if deep else {}
    return (DeepGenerator if deep else Generator)(
        resolution=resolution,
        channels=options.get("G_ch", 64),
        latent_dim=latent_dim,
        classes=options.get("n_classes", 1000),
        attention=attention(options.get("G_attn", "64")),
        # Zero stands for the size of z, as it was before it was shortened.
        shared_dim=(options.get("shared_dim") or options.get("dim_z", 128))
        if options.get("G_shared", True)
        else 0,
        hierarchical=hierarchical,
        bottom_width=options.get("bottom_width", 4),
        norm=functools.partial(BatchNorm, unbiased=not options.get("mybn", False)),
        initializer=INITIALIZERS[options.get("G_init", "ortho")],
        bn_eps=options.get("BN_eps", 1e-5),
        sn_eps=options.get("SN_eps", 1e-12),
        **layers,
        **more,
    )


def build_discriminator(options: Options, deep: bool = False) -> nn.Module:
    """Our discriminator for the reference's constructor arguments."""
    check_supported(options, "D")
    more = {"depth": options.get("D_depth", 2)} if deep else {"wide": options.get("D_wide", True)}
    return (DeepDiscriminator if deep else Discriminator)(
        resolution=options.get("resolution", 128),
        channels=options.get("D_ch", 64),
        classes=options.get("n_classes", 1000),
        attention=attention(options.get("D_attn", "64")),
        initializer=INITIALIZERS[options.get("D_init", "ortho")],
        sn_eps=options.get("SN_eps", 1e-12),
        **spectral_layers(options, "D"),
        **more,
    )


def is_deep(case: Case) -> bool:
    """BigGAN-deep, by the reference's file or the case's name."""
    return "BigGANdeep.py" in case.meta.get("reference", "") or case.name.startswith("deep")


def load(state: Mapping[str, np.ndarray], module: nn.Module) -> dict[str, Any]:
    """Our variables from an official state dict, which must fit exactly."""
    variables, report = official.from_official(state, module)
    if not report.complete:
        raise ValueError(f"the state dict does not fit: {report}")
    return jax.tree.map(jnp.asarray, variables)


def to_nchw(array: Any) -> Any:
    """[n, h, w, c] to [n, c, h, w]; other ranks as they are."""
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


def with_weights(module: nn.Module, statistics: str, intermediates: Any, width: int = 0) -> Found:
    """`W_eff/<name>.weight` from what layers recorded as their effective weights."""
    flat = flatten_dict(intermediates)
    weights = {}
    for path, (value, *_) in ((path, v) for path, v in flat.items() if path[-1] == "weight"):
        leaf = "embedding" if _is_table(path) else "kernel"
        weights["params", *path[:-1], leaf] = value
    entries = official.entries_of(
        {path: array.shape for path, array in weights.items()}, statistics=statistics, width=width
    )
    found = official.collect(unflatten_dict(weights), entries)
    return {f"W_eff/{name}": array for name, array in found.items()}


def _is_table(path: tuple[str, ...]) -> bool:
    return path[-2] in ("embed", "shared")


def features(intermediates: Any, width: int = 0) -> Found:
    """`feat/<name>` from the recorded outputs of modules."""
    found = {}
    for path, value in flatten_dict(intermediates).items():
        if path[-1] != "__call__" or len(path) != 2:
            continue
        output = np.asarray(value[0])
        if path[0] == "linear" and width:
            output = output.reshape(len(output), width, width, -1)
            output = to_nchw(output).reshape(len(output), -1)
        found[f"feat/{official.official_name(path[:1])}"] = to_nchw(output)
    return found


def prefixed(prefix: str, found: Mapping[str, Any]) -> Found:
    """The same under longer keys."""
    return {f"{prefix}{key}": value for key, value in found.items()}


def generator(case: Case) -> Found:
    """`Generator`: images, features, weights used, side state, gradients."""
    module = build_generator(case.kwargs, is_deep(case))
    state = case.group("param/")
    statistics = official.statistics_of(state)
    variables = load(state, module)
    train = bool(case.call["train"])
    z, labels, cotangent = case["in/z"], case["in/y"], case.images("in/cotangent_img")

    def objective(inputs, variables, labels):
        y = inputs.get("y_shared", labels)
        image, mutated = module.apply(
            {**variables, "params": inputs["params"]},
            inputs["z"],
            y,
            train=train,
            method="synthesize",
            capture_intermediates=True,
            mutable=["intermediates", *(SIDE if train else [])],
        )
        return jnp.vdot(image, cotangent), (image, mutated)

    inputs = {"params": variables["params"], "z": jnp.asarray(z)}
    found: Found = {}
    if module.shared_dim:
        inputs["y_shared"] = module.apply(variables, jnp.asarray(labels), method="embed")
        found["out/y_shared"] = inputs["y_shared"]
    gradient, (image, mutated) = jax.jit(jax.grad(objective, has_aux=True))(
        inputs, variables, jnp.asarray(labels)
    )
    intermediates = mutated.pop("intermediates")
    found |= {"out/img": to_nchw(image), "grad/z": gradient["z"]}
    if module.shared_dim:
        found["grad/y_shared"] = gradient["y_shared"]
    found |= prefixed("out/", features(intermediates, module.bottom_width))
    found |= prefixed("out/", with_weights(module, statistics, intermediates, module.bottom_width))
    found |= prefixed(
        "grad/", official.to_official({"params": gradient["params"]}, module, statistics=statistics)
    )
    after = official.to_official(mutated, module, statistics=statistics)
    return found | prefixed("out/state_after/", keep_counters(after, state))


def discriminator(case: Case) -> Found:
    """`Discriminator`: logits, features, weights used, side state, gradients."""
    module = build_discriminator(case.kwargs, is_deep(case))
    variables = load(case.group("param/"), module)
    train = bool(case.call["train"])
    cotangent = case["in/cotangent_logits"][:, 0]

    def objective(params, images, variables, labels):
        logits, mutated = module.apply(
            {**variables, "params": params},
            images,
            labels,
            capture_intermediates=True,
            mutable=["intermediates", *(SIDE if train else [])],
        )
        return jnp.vdot(logits, cotangent), (logits, mutated)

    (gradient, dx), (logits, mutated) = jax.jit(jax.grad(objective, (0, 1), has_aux=True))(
        variables["params"],
        jnp.asarray(case.images("in/x")),
        variables,
        jnp.asarray(case["in/y"]),
    )
    intermediates = mutated.pop("intermediates")
    found = {"out/logits": logits[:, None], "grad/x": to_nchw(dx)}
    found |= prefixed("out/", features(intermediates))
    found |= prefixed("out/", with_weights(module, "stored", intermediates))
    found |= prefixed("grad/", official.to_official({"params": gradient}, module))
    return found | prefixed("out/state_after/", official.to_official(mutated, module))


def keep_counters(after: Found, before: Mapping[str, np.ndarray]) -> Found:
    """The reference's counters of standing passes, which only that procedure moves."""
    return {
        name: before[name] if official.IGNORED.search(name) and name in before else array
        for name, array in after.items()
    }


# Layers


def layer_variables(module: nn.Module, state: Mapping[str, np.ndarray], *args, **kwargs) -> Any:
    """Our variables of a single layer from the reference's, and their official entries."""
    inputs = (args, kwargs)
    statistics = official.statistics_of(state)
    entries = official.entries_of(interop.shapes_of(module, inputs), statistics=statistics)
    ignored = official.IGNORED.search
    variables, report = interop.read(state, module, entries, inputs, None, ignored=ignored)
    if not report.complete:
        raise ValueError(f"the state does not fit: {report}")
    return jax.tree.map(jnp.asarray, variables), entries


def attention_layer(case: Case) -> Found:
    """`Attention`: evaluation first, then one training pass."""
    state = case.group("param/")
    plain = not any(name.endswith("u0") for name in state)
    eps = re.search(r"eps=([\d.e-]+)", case.meta.get("reference", ""))
    eps = case.kwargs.get("SN_eps", float(eps[1]) if eps else 1e-12)
    module = SelfAttention(conv=Conv if plain else functools.partial(SpectralConv, eps=eps))
    x = jnp.asarray(case.images("in/x"))
    variables, entries = layer_variables(module, state, x)
    found: Found = {}
    for mode in ("eval", "train"):
        cotangent = case.images(f"in/cotangent_y_{mode}")

        def objective(params, x, mode=mode, cotangent=cotangent):
            side = SIDE if mode == "train" else []
            y, mutated = module.apply({**variables, "params": params}, x, mutable=side)
            return jnp.vdot(y, cotangent), (y, mutated)

        (gradient, dx), (y, mutated) = jax.jit(jax.grad(objective, (0, 1), has_aux=True))(
            variables["params"], x
        )
        found |= {f"out/y_{mode}": to_nchw(y), f"grad/{mode}/x": to_nchw(dx)}
        gradients = official.collect({"params": gradient}, entries)
        found |= prefixed(f"grad/{mode}/", gradients)
        found |= prefixed("out/state_after/", official.collect(mutated, entries))
    return found


def spectral_layer(options: Options) -> nn.Module:
    """`SNConv2d`, `SNLinear` or `SNEmbedding`."""
    fields = {
        "eps": options.get("eps", 1e-12),
        "values": options.get("num_svs", 1),
        "iterations": options.get("num_itrs", 1),
    }
    if options["type"] == "SNEmbedding":
        return SpectralEmbed(options["num_embeddings"], options["embedding_dim"], **fields)
    fields["use_bias"] = options.get("bias", True)
    if options["type"] == "SNLinear":
        return SpectralDense(options["out_features"], **fields)
    if options.get("groups", 1) != 1:
        raise ValueError("grouped convolutions are not in ganjax")
    stride, padding = options.get("stride", 1), options.get("padding", 0)

    def operation(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(padding, padding)] * 2,
            rhs_dilation=[options.get("dilation", 1)] * 2,
            dimension_numbers=LAYOUT,
        )

    return SpectralConv(
        options["out_channels"], options["kernel_size"], operation=operation, **fields
    )


def spectral_layers_case(case: Case) -> Found:
    """Each layer: evaluation, two training passes, evaluation."""
    found: Found = {}
    for name, options in case.kwargs.items():
        module = spectral_layer(options)
        x = case[f"in/x/{name}"]
        x = jnp.asarray(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x)
        variables, entries = layer_variables(module, case.group(f"param/{name}/"), x)
        for step in ("eval", "train1", "train2", "eval_after"):
            side = SIDE if step.startswith("train") else []
            y, mutated = module.apply(variables, x, mutable=["intermediates", *side])
            weight = mutated.pop("intermediates")["weight"][0]
            found[f"out/{name}/y_{step}"] = to_nchw(y)
            kernel = next(key for key in variables["params"] if key != "bias")
            official_weight = official.collect({"params": {kernel: weight}}, entries)
            found[f"out/{name}/W_{step}"] = official_weight["weight"]
            if f"in/cotangent_{name}/y_{step}" in case:
                cotangent = case[f"in/cotangent_{name}/y_{step}"]
                cotangent = cotangent.transpose(0, 2, 3, 1) if cotangent.ndim == 4 else cotangent
                gradients = layer_gradients(module, variables, entries, x, cotangent, side)
                found |= {f"grad/{name}/{key}@{step}": g for key, g in gradients.items()}
            variables = {**variables, **mutated}
            state = official.collect({"spectral": mutated.get("spectral", {})}, entries)
            found |= prefixed(f"out/{name}/after_{step}/", state)
    return found


def layer_gradients(module, variables, entries, x, cotangent, side) -> Found:
    """Of <y, cotangent> with respect to parameters and, if it is not of integers, the input."""

    def objective(params, x):
        y, _ = module.apply({**variables, "params": params}, x, mutable=side)
        return jnp.vdot(y, cotangent)

    gradients = official.collect({"params": jax.grad(objective)(variables["params"], x)}, entries)
    if jnp.issubdtype(x.dtype, jnp.floating):
        gradients["x"] = to_nchw(jax.grad(objective, 1)(variables["params"], x))
    return gradients


def norm_layer(options: Options) -> nn.Module:
    """`bn`, or `ccbn` with dense layers or embeddings for its gain and bias."""
    norm = functools.partial(
        BatchNorm,
        eps=options.get("eps", 1e-5),
        momentum=options.get("momentum", 0.1),
        unbiased=not options.get("mybn", False),
    )
    if options["type"] == "bn":
        return norm()
    if options["type"] == "ccbn_emb":
        return ConditionalBatchNorm(functools.partial(Embed, options["input_size"]), norm)
    dense = functools.partial(SpectralDense, use_bias=False, eps=options.get("SN_eps", 1e-6))
    return ConditionalBatchNorm(dense, norm)


def norm_layers_case(case: Case) -> Found:
    """Each module: evaluation, one training pass, and for `mybn` standing statistics."""
    found: Found = {}
    for name, options in case.kwargs["mods"].items():
        found |= _norm_layer_case(case, name, norm_layer(options))
    return found


def _norm_layer_case(case: Case, name: str, module: nn.Module) -> Found:
    state = case.group(f"param/{name}/")
    x = jnp.asarray(case.images(f"in/x/{name}"))
    condition = [jnp.asarray(case[f"in/y/{name}"])] if f"in/y/{name}" in case else []
    variables, entries = layer_variables(module, state, x, *condition, train=False)
    inputs = {"params": variables["params"], "x": x}
    if condition and jnp.issubdtype(condition[0].dtype, jnp.floating):
        inputs["y"] = condition

    def objective(inputs, train, side, cotangent):
        y, mutated = module.apply(
            {**variables, "params": inputs["params"]},
            inputs["x"],
            *inputs.get("y", condition),
            train=train,
            mutable=side,
        )
        return jnp.vdot(y, cotangent), (y, mutated)

    found: Found = {}
    for mode, side in (("eval", []), ("train", SIDE)):
        cotangent = case.images(f"in/cotangent_{name}/y_{mode}")
        gradient, (y, mutated) = jax.grad(objective, has_aux=True)(
            inputs, mode == "train", side, cotangent
        )
        found[f"out/{name}/y_{mode}"] = to_nchw(y)
        gradients = official.collect({"params": gradient["params"]}, entries)
        gradients |= {"x": to_nchw(gradient["x"]), "y": gradient.get("y", [None])[0]}
        found |= {f"grad/{name}/{key}@{mode}": g for key, g in gradients.items()}
    after = official.collect(mutated, entries, statistics=official.statistics_of(state))
    found |= prefixed(f"out/{name}/after_train/", keep_counters(after, state))
    return found | _standing(case, name, module, {**variables, **mutated}, condition)


def _standing(case: Case, name: str, module: nn.Module, variables: Any, condition: list) -> Found:
    """Standing statistics: the reference keeps sums and divides where it normalises."""
    count = len([key for key in case.stored if re.match(rf"in/x_acc\d+/{name}$", key)])
    if not count:
        return {}

    def one_pass(variables, x):
        _, mutated = module.apply(
            variables, x, *condition, train=True, mutable=["batch_moments", "spectral"]
        )
        return mutated

    batches = [jnp.asarray(case.images(f"in/x_acc{index}/{name}")) for index in range(count)]
    standing = standing_statistics(one_pass, variables, batches)
    y = module.apply(standing, jnp.asarray(case.images(f"in/x/{name}")), *condition, train=False)
    sums = {f"stored_{key}": count * value for key, value in standing["batch_stats"].items()}
    found = prefixed(f"out/{name}/standing_after{count}/", sums)
    found[f"out/{name}/standing_after{count}/accumulation_counter"] = np.array([count])
    return found | {f"out/{name}/y_eval_standing": to_nchw(y)}


# Rules


def losses(case: Case) -> Found:
    """Hinge and logistic ("dcgan") losses and their gradients."""
    real, fake = (jnp.asarray(case[f"in/logits_{kind}"]) for kind in ("real", "fake"))
    found: Found = {}
    for name, d_loss, g_loss, suffixes in (
        ("hinge", hinge_d, hinge_g, ("real", "fake")),
        ("dcgan", logistic_d, logistic_g, ("L1_real", "L2_fake")),
    ):

        def d_total(real, fake, d_loss=d_loss):
            return sum(d_loss(real[:, 0], fake[:, 0]))

        def g_total(fake, g_loss=g_loss):
            return g_loss(fake[:, 0])

        terms = d_loss(real[:, 0], fake[:, 0])
        found |= {f"out/{name}_dis_{end}": term for end, term in zip(suffixes, terms)}
        found[f"out/{name}_gen"] = g_total(fake)
        d_gradient = jax.grad(d_total, (0, 1))(real, fake)
        found[f"grad/{name}_dis/logits_real"], found[f"grad/{name}_dis/logits_fake"] = d_gradient
        found[f"grad/{name}_gen/logits_fake"] = jax.grad(g_total)(fake)
    return found


def _outputs_last(weight: np.ndarray) -> np.ndarray:
    return np.moveaxis(weight, 0, -1)


def orthogonal_regularisation(case: Case) -> Found:
    """`ortho` through the optimizer's transformation, `default_ortho` through its direction."""
    strength, spared = case.call["strength"], set(case.call["blacklist"])
    indices = range(len(case.call["shapes"]))
    weights = {f"w{i}": jnp.asarray(_outputs_last(case[f"in/weight{i}"])) for i in indices}
    gradients = {f"w{i}": jnp.asarray(_outputs_last(case[f"in/grad{i}"])) for i in indices}
    exclude = "^(" + "|".join(f"w{i}" for i in spared) + ")$" if spared else "(?!)"
    regularise = add_orthogonal_gradient(strength, exclude=exclude)
    updates, _ = regularise.update(gradients, regularise.init(weights), weights)
    found = {
        f"out/grad_after_ortho{i}": np.moveaxis(np.asarray(updates[f"w{i}"]), -1, 0)
        for i in indices
    }
    for i in indices:
        weight, gradient = weights[f"w{i}"], gradients[f"w{i}"]
        if weight.ndim > 1:
            # The unrelaxed form also draws the lengths of the rows to 1.
            lengths = jnp.sum(jnp.square(weight), axis=tuple(range(weight.ndim - 1)))
            direction = orthogonal_gradient(weight) + 2 * (lengths - 1) * weight
            gradient = gradient + strength * direction
        found[f"out/grad_after_default_ortho{i}"] = np.moveaxis(np.asarray(gradient), -1, 0)
    return found


def ema_rule(case: Case) -> Found:
    """`ema`: parameters and buffers alike."""
    rule = Ema(constant_decay(case.call["decay"], case.call["start_itr"]), buffers="average")

    def variables(weight):
        weight = jnp.asarray(weight)
        return {"params": {"weight": weight}, "stats": {"stored_mean": weight.mean(1)}}

    average = variables(case["in/init"])
    found = {"out/target_after_init": average["params"]["weight"]}
    for step, iteration in enumerate(case.call["itrs"]):
        now = variables(case[f"in/source_step{step}"])
        player = Player(params=now["params"], collections={"stats": now["stats"]}, optimizer={})
        average = rule.update(average, player, jnp.asarray(iteration), jnp.asarray(0))
        merged = {**average["params"], **average["stats"]}
        found |= prefixed(f"out/target_step{step}_itr{iteration}/", merged)
    return found


def truncated_latents(case: Case) -> Found:
    """`truncated_noise_sample` (scaling) and `Distribution`."""
    call = case.call
    found: Found = {}
    for value in call["truncations"]:
        key = f"out/z_trunc{value}_seed{call['seed']}"
        found[key] = truncation.pretrained_biggan_latents(
            call["seed"], call["batch"], call["dim_z"], value
        )
    threshold = truncation.SCALED_THRESHOLD
    quantiles = truncation.truncated_normal_quantile(jnp.asarray(case["in/u"]), threshold)
    found["out/truncnorm_ppf_of_u"] = quantiles
    found["out/std_of_truncnorm"] = np.array(truncation.truncated_normal_std(threshold))
    # `z_var` is the standard deviation, as `Draws.std` is.
    found["out/z_of_normals_z_var"] = call["z_var"] * case["in/normals"]
    return found


def _adapter(names: str, reference: str, compute: Any) -> Adapter:
    return Adapter("biggan", names, reference, compute)


ADAPTERS = (
    _adapter(r"^(deep)?G_", r"BigGAN(deep)?\.py:Generator", generator),
    _adapter(r"^(deep)?D_", r"BigGAN(deep)?\.py:Discriminator", discriminator),
    _adapter(r"^attention", r"layers\.py:Attention", attention_layer),
    _adapter(r"^sn_layers", r"layers\.py:SN", spectral_layers_case),
    _adapter(r"^norm_layers", r"layers\.py:(ccbn|bn)", norm_layers_case),
    _adapter(r"^losses", r"[0-9a-f] losses\.py$", losses),
    _adapter(r"^ortho_reg", r"utils\.py:ortho", orthogonal_regularisation),
    _adapter(r"^ema_rule", r"utils\.py:ema", ema_rule),
    _adapter(r"^truncation", r"truncated_noise_sample", truncated_latents),
)
