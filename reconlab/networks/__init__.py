"""Reconstruction networks: images in, shapes out; none of them knows a loss."""

from reconlab.networks.atlasnet import AtlasNet, AtlasNetAutoencoder
from reconlab.networks.base import Network
from reconlab.networks.cap import CAPNet
from reconlab.networks.dpc import DPC
from reconlab.networks.dpc_voxels import DPCVoxels
from reconlab.networks.drc import DRCNet
from reconlab.networks.epcg import EPCGNet
from reconlab.networks.free import FreePoints, FreeSphere
from reconlab.networks.imnet import IMNet, IMNetAutoencoder
from reconlab.networks.matryoshka import MatryoshkaNet
from reconlab.networks.ogn import OGN
from reconlab.networks.pixel2mesh import Pixel2Mesh
from reconlab.networks.pointoutnet import PointOutNet
from reconlab.networks.ptn import PTNNet
from reconlab.networks.r2n2 import R2N2
from reconlab.networks.shape_generator import ShapeGenerator

__all__ = [
    "DPC",
    "OGN",
    "R2N2",
    "AtlasNet",
    "AtlasNetAutoencoder",
    "CAPNet",
    "DPCVoxels",
    "DRCNet",
    "EPCGNet",
    "FreePoints",
    "FreeSphere",
    "IMNet",
    "IMNetAutoencoder",
    "MatryoshkaNet",
    "Network",
    "PTNNet",
    "Pixel2Mesh",
    "PointOutNet",
    "ShapeGenerator",
]
