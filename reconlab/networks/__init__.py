"""Reconstruction networks: images in, shapes out; none of them knows a loss."""

from reconlab.networks.atlasnet import AtlasNet, AtlasNetAutoencoder
from reconlab.networks.base import Network
from reconlab.networks.dpc import DPC

__all__ = ["DPC", "AtlasNet", "AtlasNetAutoencoder", "Network"]
