"""Shapes: what a network returns and what losses and metrics ask for points, meshes or voxels."""

from reconlab.shapes.base import Shape
from reconlab.shapes.implicit import ImplicitField
from reconlab.shapes.mesh import Mesh
from reconlab.shapes.pointcloud import PointCloud
from reconlab.shapes.template import TemplateMesh
from reconlab.shapes.voxels import VoxelGrid

__all__ = ["ImplicitField", "Mesh", "PointCloud", "Shape", "TemplateMesh", "VoxelGrid"]
