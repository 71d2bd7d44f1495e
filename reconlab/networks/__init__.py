"""Reconstruction networks: images in, shapes out; none of them knows a loss."""

from reconlab.networks.atlasnet import AtlasNet, AtlasNetAutoencoder
from reconlab.networks.base import Network
from reconlab.networks.cap import CAPNet
from reconlab.networks.dpc import DPC
from reconlab.networks.drc import DRCNet
from reconlab.networks.free import FreePoints, FreeSphere
from reconlab.networks.ptn import PTNNet

__all__ = [
    "DPC",
    "AtlasNet",
    "AtlasNetAutoencoder",
    "CAPNet",
    "DRCNet",
    "FreePoints",
    "FreeSphere",
    "Network",
    "PTNNet",
]
