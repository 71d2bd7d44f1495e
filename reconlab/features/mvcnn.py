"""MVCNN (Su et al., ICCV 2015): one small CNN for every view of a ring, the maximum over views, one descriptor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from reconlab.cameras import softras_cameras
from reconlab.errors import ReconlabError
from reconlab.renderers.hard import render_depth
from reconlab.renderers.shading import Light, turn_to_viewer
from reconlab.shapes import Mesh

VIEWS = 12
ELEVATION = 30.0
# Towards the lamp in the camera's frame (x right, y down, z forward): above the viewer's left shoulder. It goes
# round with the camera, so that a shape turned by one step of the ring gives the same pictures, moved on by one.
LAMP = Light(direction=(-0.45, -0.75, -0.5), ambient=0.3, diffuse=0.7)
HALF_FOV = 11.5  # degrees: from SoftRas' distance a ball of radius 0.54 is seen whole, a shape of diagonal 1 too
SUPERSAMPLE = 2
_NORMALS_AT_ONCE = 1 << 21  # bounds the memory of shading: views x faces


@torch.no_grad()
def render_ring(
    mesh: Mesh,
    size: int = 64,
    azimuths: Sequence[float] | None = None,
    elevation: float = ELEVATION,
) -> Tensor:
    """Shaded pictures of one mesh from a ring of cameras, antialiased, on black.

    SoftRas' distance 2.732 with a half field of view of 11.5°, which a shape of diagonal 1 fills; flat shading on
    both sides of a face; a lamp that goes with the camera. The mesh is taken as it is: neither centred nor scaled.

    Args:
        mesh: One mesh, object frame (y up).
        size: Pixels a side.
        azimuths: Degrees; every 30° from 0 (the front) if None.
        elevation: Degrees, of all of them.

    Returns:
        ``(V, size, size)`` float32 in [0, 1]; a pixel that sees the surface holds at least the ambient light, 0.3.

    Raises:
        ReconlabError: Not exactly one mesh, or a size below 1.

    Example:
        >>> tetrahedron = torch.tensor([[0, 0.4, 0], [-0.4, -0.3, -0.3], [0.4, -0.3, -0.3], [0, -0.3, 0.4]])
        >>> mesh = Mesh(tetrahedron, torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]))
        >>> pictures = render_ring(mesh, 32)
        >>> pictures.shape, bool(pictures[:, 16, 16].min() >= 0.3)
        (torch.Size([12, 32, 32]), True)
    """
    if len(mesh) != 1:
        raise ReconlabError(f"render_ring draws one mesh, got a batch of {len(mesh)}.")
    if size < 1:
        raise ReconlabError(f"render_ring: size is {size}; expected at least 1 pixel.")
    if azimuths is None:
        azimuths = [360.0 * k / VIEWS for k in range(VIEWS)]
    vertices, faces = mesh.vertices.float(), mesh.faces
    cameras = softras_cameras(list(azimuths), elevation, half_fov=HALF_FOV).to(vertices.device)
    corners = vertices[faces]
    normals = nn.functional.normalize(
        torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), dim=-1
    )
    lamp = torch.tensor(LAMP.direction, dtype=torch.float32, device=vertices.device)
    lamps = nn.functional.normalize(lamp, dim=0) @ cameras.R  # from the camera's frame into the object's
    pictures = []
    step = max(1, _NORMALS_AT_ONCE // max(1, len(faces)))
    for start in range(0, len(cameras), step):
        rig = cameras[start : start + step]
        face = render_depth(vertices, faces, rig, size * SUPERSAMPLE).face
        turned = turn_to_viewer(normals[:, None], normals, corners.mean(1), rig.position)[:, :, 0]
        lit = torch.einsum("vfc,vc->vf", turned, lamps[start : start + step]).clamp(min=0)
        shade = nn.functional.pad(LAMP.ambient + LAMP.diffuse * lit, (0, 1))  # the last face is the background
        fine = shade.gather(1, torch.where(face < 0, len(faces), face).flatten(1)).view(face.shape)
        pictures.append(nn.functional.avg_pool2d(fine[:, None], SUPERSAMPLE)[:, 0])
    return torch.cat(pictures)


class MultiViewCNN(nn.Module):
    """Views of a shape to a unit-norm descriptor, and the descriptor to classes.

    Six convolutions are shared by all views, the maximum over views is taken of their 4×4 maps (so the order of the
    views has no meaning, and turning the shape by a step of the ring none either), and one linear layer gives the
    penultimate descriptor. The paper's network is VGG-M with ImageNet weights on 224² pixels and descriptors of 4096;
    this one is 0.6 M parameters on 64². It departs further in the unit norm, which the distance of two shapes wants,
    and which the classifier therefore sees too: its logits are ``scale`` times cosines.

    Args:
        classes: Outputs of the classifier.
        widths: Channels at 32², 16², 8² and 4².
        dimensions: Of the descriptor.
        size: Pixels a side of the views; a multiple of 16.
        scale: Of the logits.

    Example:
        >>> net = MultiViewCNN(classes=4).eval()
        >>> net.describe(torch.rand(2, 12, 64, 64)).norm(dim=1).allclose(torch.ones(2))
        True
    """

    def __init__(
        self,
        classes: int,
        widths: Sequence[int] = (32, 64, 128, 128),
        dimensions: int = 128,
        size: int = 64,
        scale: float = 16.0,
    ) -> None:
        super().__init__()
        if classes < 1 or len(widths) != 4 or min(widths) < 1 or dimensions < 1:
            raise ReconlabError(
                f"MultiViewCNN: {classes} classes, widths {list(widths)}, {dimensions} dimensions; expected four "
                "positive widths, at least one class and one dimension."
            )
        if size < 16 or size % 16:
            raise ReconlabError(f"MultiViewCNN: size is {size}; expected a multiple of 16.")
        self.size, self.dimensions, self.scale = size, dimensions, scale
        a, b, c, d = widths
        layers: list[nn.Module] = []
        plan = ((1, a, 5, 2), (a, b, 3, 2), (b, b, 3, 1), (b, c, 3, 2), (c, c, 3, 1), (c, d, 3, 2))
        for c_in, c_out, kernel, stride in plan:
            layers += [
                nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(inplace=True),
            ]
        self.trunk = nn.Sequential(*layers)
        self.descriptor = nn.Linear(d * (size // 16) ** 2, dimensions)
        self.classifier = nn.Linear(dimensions, classes, bias=False)

    def describe(self, views: Tensor) -> Tensor:
        """``(B, V, size, size)`` pictures in [0, 1] to ``(B, dimensions)`` of unit L2 norm; V as you like.

        Raises:
            ReconlabError: Pictures of another size.
        """
        if views.dim() != 4 or views.shape[2:] != (self.size, self.size) or views.shape[1] < 1:
            raise ReconlabError(
                f"MultiViewCNN takes views (B, V, {self.size}, {self.size}), not {tuple(views.shape)}."
            )
        x = 2 * views.flatten(0, 1).unsqueeze(1) - 1
        maps = self.trunk(x.contiguous(memory_format=torch.channels_last))  # oneDNN's layout: a sixth faster
        pooled = maps.unflatten(0, views.shape[:2]).amax(1)
        return nn.functional.normalize(self.descriptor(pooled.flatten(1)).float(), dim=1)

    def classify(self, descriptors: Tensor) -> Tensor:
        """``(B, dimensions)`` descriptors to ``(B, classes)`` logits."""
        return self.scale * descriptors @ nn.functional.normalize(self.classifier.weight, dim=1).T

    def forward(self, views: Tensor) -> Tensor:
        """``(B, V, size, size)`` pictures to ``(B, classes)`` logits."""
        return self.classify(self.describe(views))

    def describe_mesh(self, mesh: Mesh) -> Tensor:
        """``(dimensions,)`` descriptor of one mesh, from the ring of 12.

        Raises:
            ReconlabError: No camera sees any of it.
        """
        pictures = render_ring(mesh, self.size)
        if not bool((pictures > 0).any()):
            raise ReconlabError(
                "none of the 12 cameras sees the mesh: it must lie around the origin, within the unit cube."
            )
        with torch.no_grad():
            return cast(Tensor, self.describe(pictures[None].to(self.classifier.weight.device))[0])


def retrieval(distances: Tensor, labels: Sequence[str]) -> tuple[float, float]:
    """How well a distance finds shapes of the query's own label, each shape being the query once.

    Args:
        distances: ``(N, N)``; row i is query i. The diagonal is not looked at.
        labels: N of them. A query whose label no other shape has is left out.

    Returns:
        Top-1 (fraction of queries whose nearest shape has their label) and mAP (mean over queries of the average
        precision: precision at each relevant rank, averaged). NaN where no query is left.

    Raises:
        ReconlabError: Sizes do not fit.

    Example:
        >>> line = torch.tensor([0.0, 1.0, 1.5, 9.0])
        >>> top1, mean_precision = retrieval((line[:, None] - line).abs(), ["a", "a", "b", "b"])
        >>> top1, round(mean_precision, 4)
        (0.5, 0.7083)
    """
    count = len(labels)
    if distances.shape != (count, count):
        raise ReconlabError(f"retrieval: distances are {tuple(distances.shape)}, expected {(count, count)}.")
    codes = torch.tensor([{name: k for k, name in enumerate(dict.fromkeys(labels))}[name] for name in labels])
    same = (codes[:, None] == codes) & ~torch.eye(count, dtype=torch.bool)
    others = distances.detach().cpu().double().clone().fill_diagonal_(torch.inf)
    order = others.argsort(dim=1, stable=True)[:, : count - 1]
    hits = same.gather(1, order)[same.any(1)].double()
    if not len(hits):
        return float("nan"), float("nan")
    rank = torch.arange(1, count, dtype=torch.float64)
    precision = (hits * hits.cumsum(1) / rank).sum(1) / hits.sum(1)
    return float(hits[:, 0].mean()), float(precision.mean())
