"""ganjax: train, measure and use large GANs in JAX."""

__version__ = "0.1.0"
