"""Renderers: the differentiable soft rasteriser, and the hard one for data sets, galleries and correspondences."""

from reconlab.renderers.hard import render_depth, render_rgba
from reconlab.renderers.shading import Light
from reconlab.renderers.soft import SoftImages, soft_rasterize

__all__ = ["Light", "SoftImages", "render_depth", "render_rgba", "soft_rasterize"]
