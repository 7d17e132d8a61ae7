"""Frozen networks with official weights: what metrics measure with, and what training is told by.

`catalog.load(name, path=None)` gives any of them; `docs/pretrained.md` tells where files come from.
"""
