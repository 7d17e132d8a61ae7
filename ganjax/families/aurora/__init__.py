"""Aurora (Zhu et al., 2023): a text-to-image GAN with sparse mixtures of experts.

So far its generator and the map of the released weights, to be used from Python: docs/aurora.md.
"""
