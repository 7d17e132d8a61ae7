"""Adapters by family: what each class of the references is in ganjax."""

from tests.goldens.adapters import (
    ada,
    aurora,
    biggan,
    biggan_training,
    c3d,
    clip,
    i3d,
    inception,
    metrics,
    stylegan2,
    stylegan2_ops,
    stylegan2_rules,
    stylegan2_training,
    stylegan3,
    styleganv,
    styleganv_training,
    tganv2,
    video_metrics,
)

# Whole steps first: their references name the losses and rules that they use, too.
ADAPTERS = (
    *biggan_training.ADAPTERS,
    *biggan.ADAPTERS,
    *inception.ADAPTERS,
    *i3d.ADAPTERS,
    *c3d.ADAPTERS,
    *clip.ADAPTERS,
    *metrics.ADAPTERS,
    *stylegan2_training.ADAPTERS,
    *stylegan2_rules.ADAPTERS,
    *stylegan2.ADAPTERS,
    *stylegan2_ops.ADAPTERS,
    *stylegan3.ADAPTERS,
    *styleganv.ADAPTERS,
    *styleganv_training.ADAPTERS,
    *tganv2.ADAPTERS,
    *video_metrics.ADAPTERS,
    *aurora.ADAPTERS,
    *ada.ADAPTERS,
)
