"""Renderers: the soft rasteriser, point and voxel volumes seen along rays, and the hard one for data and galleries."""

from reconlab.renderers.hard import render_depth, render_rgba
from reconlab.renderers.ray_termination import ray_silhouettes, ray_termination
from reconlab.renderers.shading import Light
from reconlab.renderers.soft import SoftImages, soft_rasterize
from reconlab.renderers.voxel_rays import resample_voxels

__all__ = [
    "Light",
    "SoftImages",
    "ray_silhouettes",
    "ray_termination",
    "render_depth",
    "render_rgba",
    "resample_voxels",
    "soft_rasterize",
]
