"""Losses: each a pure, per-sample function and a thin class that holds settings and reduces."""

from reconlab.losses.base import Loss
from reconlab.losses.weighted_sum import WeightedSum

__all__ = ["Loss", "WeightedSum"]
