"""Input pictures: random DPC cameras and shaded RGBA renderings."""

from __future__ import annotations

import numpy as np
import torch

from reconlab.cameras import Cameras, dpc_cameras

AZIMUTH, ELEVATION = (-180.0, 180.0), (-20.0, 40.0)
"""Ranges of the random viewpoints in degrees, as Differentiable Point Clouds renders its data."""


def random_cameras(count: int, rng: np.random.Generator) -> Cameras:
    """``(count,)`` DPC cameras at uniform azimuths and elevations."""
    azimuth, elevation = rng.uniform(*AZIMUTH, count), rng.uniform(*ELEVATION, count)
    return dpc_cameras(torch.from_numpy(azimuth), torch.from_numpy(elevation))


def render_views(
    vertices: np.ndarray,
    faces: np.ndarray,
    cameras: Cameras,
    image_size: int,
    face_colors: np.ndarray | None = None,
    supersample: int = 2,
) -> np.ndarray:
    """Shaded pictures on a transparent ground; the light is fixed to the object frame.

    Args:
        vertices: ``(V, 3)``, object frame.
        faces: ``(F, 3)``.
        cameras: ``(V,)``.
        image_size: Side in pixels.
        face_colors: ``(F, 3)`` uint8, or None for grey.
        supersample: Rays per pixel side.

    Returns:
        ``(V, H, W, 4)`` uint8 RGBA, straight alpha.
    """
    from reconlab.renderers.hard import render_rgba

    return render_rgba(
        torch.from_numpy(vertices.astype(np.float32)),
        torch.from_numpy(faces.astype(np.int64)),
        cameras,
        image_size,
        face_colors=None if face_colors is None else torch.from_numpy(np.ascontiguousarray(face_colors)),
        supersample=supersample,
    ).numpy()
