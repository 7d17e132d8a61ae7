"""StyleGAN2's rules: of the optimizer under lazy regularisation, and of the average."""

import jax.numpy as jnp
import numpy as np
import optax

from ganjax.adversarial.state import adam
from ganjax.families.stylegan2.phases import finite_gradients, half_life_decay
from tests.goldens.adapters.stylegan2_ops import Found, only
from tests.goldens.case import Adapter, Case


def lazy_adam_and_average(case: Case) -> Found:
    """Adam shared by main and lazy phases; the average's decay."""
    found: Found = {}
    for index, options in enumerate(case.call["settings"]):
        only(options, "lr betas eps reg_interval")
        every = options["reg_interval"] or 0
        ratio = every / (every + 1) if every else 1.0
        b1, b2 = map(float, options["betas"])
        found[f"out/{index}_lr_beta1_beta2"] = np.array(
            [options["lr"] * ratio, b1**ratio, b2**ratio]
        )
        rule = optax.chain(
            finite_gradients(), adam(options["lr"], b1, b2, options["eps"], lazy=every)
        )
        params = jnp.asarray(case[f"in/{index}_p0"])
        state = rule.init(params)
        step = 0
        while f"in/{index}_grad_main{step}" in case:
            gradients = [case[f"in/{index}_grad_main{step}"]]
            if every and step % every == 0:
                gradients.append(every * case[f"in/{index}_grad_reg{step}"])
            for gradient in gradients:
                updates, state = rule.update(jnp.asarray(gradient), state, params)
                params = optax.apply_updates(params, updates)
            found[f"out/{index}_p_after_batch{step}"] = params
            step += 1
    betas = [
        half_life_decay(batch, kimg * 1000, ramp_up)(jnp.asarray(0), jnp.asarray(images))
        for batch, kimg, ramp_up, images in case.call["ema"]
    ]
    return found | {"out/ema_beta": np.array(betas)}


ADAPTERS = (Adapter("stylegan2", r"^rule_lazy", r"training_loop\.py$", lazy_adam_and_average),)
