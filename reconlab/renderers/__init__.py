"""Renderers: the soft rasteriser, point and voxel volumes along rays, and the hard one for data and galleries."""

from reconlab.renderers.dibr import render_dibr
from reconlab.renderers.hard import render_depth, render_rgba
from reconlab.renderers.max_projection import max_projection
from reconlab.renderers.nmr import render_nmr
from reconlab.renderers.point_gaussians import render_point_gaussians
from reconlab.renderers.point_volume import PointSilhouettes, render_point_silhouettes
from reconlab.renderers.pseudo_depth import PseudoDepth, render_orthographic_depth, render_pseudo_depth
from reconlab.renderers.ray_consistency import escape_image, event_cost, ray_events
from reconlab.renderers.ray_termination import ray_silhouettes, ray_termination
from reconlab.renderers.shading import Light
from reconlab.renderers.soft import SoftImages, soft_rasterize
from reconlab.renderers.voxel_rays import resample_voxels

__all__ = [
    "Light",
    "PointSilhouettes",
    "PseudoDepth",
    "SoftImages",
    "escape_image",
    "event_cost",
    "max_projection",
    "ray_events",
    "ray_silhouettes",
    "ray_termination",
    "render_depth",
    "render_dibr",
    "render_nmr",
    "render_orthographic_depth",
    "render_point_gaussians",
    "render_point_silhouettes",
    "render_pseudo_depth",
    "render_rgba",
    "resample_voxels",
    "soft_rasterize",
]
