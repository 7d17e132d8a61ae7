"""TGANv2 (Saito et al. 2020): networks, losses and the map of its released weights.

Training, with its phases and its config, is not here yet: docs/tganv2.md.
"""
