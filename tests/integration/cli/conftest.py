"""Inputs for a training on this machine: real reviews, and a tiny model with its own tokenizer."""

from support.trainer.fixtures import reviews, tiny_models

__all__ = ["reviews", "tiny_models"]
