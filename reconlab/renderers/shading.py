"""Lambertian grey shading with one light that is fixed in the object frame, on both sides of a face."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Light:
    """A directional light fixed to the object, plus ambient light; white albedo, so the brightest value is 1.

    Attributes:
        direction: Towards the light, in the object frame (y up, front at -z); any length. The default comes
            from above, in front and a little from the side, so that the box faces of CAD shapes differ.
        ambient: Light that every face gets.
        diffuse: Light that a face turned to the lamp gets in addition.
    """

    direction: tuple[float, float, float] = (0.35, 0.8, -0.5)
    ambient: float = 0.4
    diffuse: float = 0.6

    def shade(self, normals: Tensor) -> Tensor:
        """``ambient + diffuse max(0, n·l)``: unit normals (...,3) -> grey (...) in [0, ambient + diffuse]."""
        x, y, z = (d / math.hypot(*self.direction) for d in self.direction)  # a tensor would have to be sent
        return self.ambient + self.diffuse * (x * normals[..., 0] + y * normals[..., 1] + z * normals[..., 2]).clamp(
            min=0
        )


def turn_to_viewer(corner_normals: Tensor, face_normals: Tensor, face_centres: Tensor, eyes: Tensor) -> Tensor:
    """Turn normals to the side from which each face is seen.

    The face decides, not the smooth normal: its side changes only where it is seen edge-on and covers
    nothing, so the image stays continuous in the vertices. The signs carry no gradient.

    Args:
        corner_normals: (...,F,3,3) unit normal of each corner.
        face_normals: (...,F,3) geometric normals.
        face_centres: (...,F,3) any point of each face.
        eyes: (...,V,3) camera positions.

    Returns:
        (...,V,F,3,3) normals.
    """
    with torch.no_grad():
        with_face = (corner_normals * face_normals.unsqueeze(-2)).sum(-1)  # may oppose a sharp tip's face
        towards = eyes.unsqueeze(-2) - face_centres.unsqueeze(-3)
        seen = (towards * face_normals.unsqueeze(-3)).sum(-1)
        turned = torch.where(with_face < 0, -1.0, 1.0).unsqueeze(-3)
        sign = torch.where(seen.unsqueeze(-1) < 0, -1.0, 1.0) * turned
    return corner_normals.unsqueeze(-4) * sign.unsqueeze(-1).to(corner_normals.dtype)
