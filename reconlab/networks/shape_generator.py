"""SoftRas' Shape Generator (Liu et al., ICCV 2019; after Kato et al., CVPR 2018): an RGBA image moves a sphere."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.batch import Batch, Views
from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.networks.base import Network
from reconlab.networks.resize import to_side
from reconlab.networks.resnet import Norm
from reconlab.shapes import TemplateMesh

SIDE = 64
FREQUENCY = 8
CENTROID_SCALE = 0.1
WHITE = 2 / 255  # darkest deviation from white that still counts as background where no mask is given


class PairedMesh(TemplateMesh):
    """The meshes of a batch, and those made of a second view of the same objects.

    Attributes:
        second: The same network's meshes from ``batch.views``' view 1; None outside of paired training.
    """

    def __init__(self, positions: Tensor, template_faces: Tensor, second: TemplateMesh | None = None) -> None:
        super().__init__(positions, template_faces)
        self.second = second

    def __getitem__(self, index: slice | int) -> PairedMesh:
        s = self.as_slice(index, len(self))
        return PairedMesh(self.positions[s], self.template_faces, None if self.second is None else self.second[s])

    def to(self, device: torch.device | str) -> PairedMesh:
        """Move to a device."""
        second = None if self.second is None else self.second.to(device)
        return PairedMesh(self.positions.to(device), self.template_faces.to(device), second)


class ShapeGenerator(Network):
    """A 64-pixel RGBA image to offsets of a sphere's vertices.

    Encoder: 5×5 convolutions of stride 2 to 64, 128 and 256 channels, each normalised and followed by ReLU; layers
    of 1024, 1024 and 512 with ReLU. Decoder: layers of 1024 and 2048 with ReLU, then a centroid (3 numbers, times
    0.1) and an offset of every vertex (3 · 642). Vertices as in :func:`move_sphere`. The sphere is the frequency-8
    geodesic icosahedron: 642 vertices, 1280 faces. 25 961 417 parameters.

    The colour channels are multiplied by alpha, so that the background, and the padding that continues it, is 0
    (the released code feeds the pictures as stored). Pictures of another size are averaged down to 64 pixels.
    Without masks (``reconlab predict``) alpha is estimated by :func:`estimate_alpha`.

    Args:
        width: Channels of the first convolution (64 as published).
        hidden: Length of the code (512 as published); the other layers are 2 and 4 times as wide.
        norm: ``batch`` (as published) or ``group`` (groups of 8 channels), for small batches.
        pairs: In training, also reconstruct ``views``' view 1 of each object and attach it as ``second``: the
            original loss compares both meshes with both views.

    Raises:
        ReconlabError: A size below 1, or an unknown norm.
    """

    sphere: Tensor
    faces: Tensor

    def __init__(self, width: int = 64, hidden: int = 512, norm: Norm = "batch", pairs: bool = False) -> None:
        super().__init__()
        for name, value in (("width", width), ("hidden", hidden)):
            if value < 1:
                raise ReconlabError(f"ShapeGenerator: {name} is {value}; expected at least 1.")
        if norm not in ("batch", "group"):
            raise ReconlabError(f"ShapeGenerator: norm is {norm!r}; choose batch or group.")
        self.pairs = pairs
        self.needs = frozenset({"images", "masks"} | ({"views"} if pairs else set()))
        layers: list[nn.Module] = []
        inputs = 4
        for outputs in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(inputs, outputs, 5, 2, 2), _normalisation(norm, outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        layers.append(nn.Flatten())
        sizes = [inputs * (SIDE // 8) ** 2, 2 * hidden, 2 * hidden, hidden]
        self.encoder = nn.Sequential(*layers, *_dense(sizes))
        self.decoder = nn.Sequential(*_dense([hidden, 2 * hidden, 4 * hidden]))
        sphere, faces = geodesic_sphere(FREQUENCY)
        self.centroid = nn.Linear(4 * hidden, 3)
        self.bias = nn.Linear(4 * hidden, 3 * len(sphere))
        self.register_buffer("sphere", sphere, persistent=False)
        self.register_buffer("faces", faces, persistent=False)

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> PairedMesh:
        """``(B, 3, S, S)`` images on white to meshes, alpha being estimated; cameras are not used."""
        return PairedMesh(self.positions(premultiply(images, estimate_alpha(images))), self.faces)

    def reconstruct(self, batch: Batch) -> PairedMesh:
        """The meshes of a batch by its images and masks, with ``second`` in paired training."""
        name = type(self).__name__
        rgba = premultiply(batch.require("images", name), batch.require("masks", name))
        if not (self.pairs and self.training):
            return PairedMesh(self.positions(rgba), self.faces)
        views: Views = batch.require("views", name)
        if views.images is None or views.images.shape[1] < 2:
            raise ReconlabError(
                "ShapeGenerator: pairs needs two views of each object with images: set data.views to 2."
            )
        other = premultiply(views.images[:, 1], views.silhouettes[:, 1:2])
        # In one batch, as released: both views share the normalisation's statistics
        first, second = self.positions(torch.cat([to_side_of(rgba), to_side_of(other)])).chunk(2)
        return PairedMesh(first, self.faces, TemplateMesh(second, self.faces))

    def positions(self, rgba: Tensor) -> Tensor:
        """``(B, 4, S, S)`` premultiplied RGBA to ``(B, 642, 3)`` vertices.

        Raises:
            ReconlabError: The images are not square.
        """
        code = self.decoder(self.encoder(to_side_of(rgba)))
        with torch.autocast(code.device.type, enabled=False):  # a logit in half precision moves vertices visibly
            code = code.float()
            centroid = CENTROID_SCALE * F.linear(code, self.centroid.weight, self.centroid.bias)
            bias = F.linear(code, self.bias.weight, self.bias.bias).view(len(code), -1, 3)
            return move_sphere(self.sphere, bias, centroid)


def move_sphere(sphere: Tensor, bias: Tensor, centroid: Tensor) -> Tensor:
    """The released parametrisation of vertices, inside [-0.5, 0.5]³.

    Per coordinate, with b of the unit sphere and c = tanh(centroid): ``u = sign(b) sigmoid(logit(|b| / 2) + bias)``
    in (-1, 1); then ``v = c + u (1 - c)`` where u > 0, else ``c + u (1 + c)``; and v / 2 is the vertex. So a vertex
    stays in its octant around the centroid, and those on a coordinate plane (b = 0) stay on it; with bias and
    centroid 0 the mesh is a sphere of radius 0.25.

    Args:
        sphere: ``(V, 3)`` on the unit sphere.
        bias: ``(B, V, 3)``.
        centroid: ``(B, 3)``.

    Returns:
        ``(B, V, 3)``.

    Example:
        >>> sphere = torch.eye(3)
        >>> move_sphere(sphere, torch.zeros(1, 3, 3), torch.zeros(1, 3))[0]
        tensor([[0.2500, 0.0000, 0.0000],
                [0.0000, 0.2500, 0.0000],
                [0.0000, 0.0000, 0.2500]])
    """
    base = sphere.abs() / 2
    u = sphere.sign() * torch.sigmoid(torch.log(base / (1 - base)) + bias)  # log 0: sigmoid is 0, and so is its slope
    c = torch.tanh(centroid).unsqueeze(1)
    return (c + u.clamp(min=0) * (1 - c) + u.clamp(max=0) * (1 + c)) / 2


def geodesic_sphere(frequency: int) -> tuple[Tensor, Tensor]:
    """A geodesic icosahedron: every face cut into ``frequency²`` triangles in its plane, then projected.

    Returns:
        ``(10 f² + 2, 3)`` unit vertices, and ``(20 f², 3)`` faces, anticlockwise seen from outside.

    Example:
        >>> [tuple(x.shape) for x in geodesic_sphere(8)]
        [(642, 3), (1280, 3)]
    """
    if frequency < 1:
        raise ReconlabError(f"geodesic_sphere: frequency is {frequency}; expected at least 1.")
    golden = (1 + 5**0.5) / 2
    signs = [(a, b) for a in (-1.0, 1.0) for b in (-golden, golden)]
    turns = [p for a, b in signs for p in ((0.0, a, b), (a, b, 0.0), (b, 0.0, a))]
    corners = torch.tensor(turns, dtype=torch.float64)
    near = torch.cdist(corners, corners) < 2.1  # edges have length 2
    triples = torch.combinations(torch.arange(12), 3)
    triples = triples[near[triples[:, 0], triples[:, 1]] & near[triples[:, 1], triples[:, 2]]]
    triples = triples[near[triples[:, 0], triples[:, 2]]]
    a, b, c = corners[triples].unbind(1)
    inward = (torch.linalg.cross(b - a, c - a) * a).sum(1) < 0
    triples = torch.where(inward.unsqueeze(1), triples.flip(1), triples)
    found: dict[tuple[int, ...], int] = {}
    vertices: list[Tensor] = []
    faces: list[list[int]] = []

    def vertex(parts: tuple[tuple[int, int], ...]) -> int:
        """The index of ``Σ share · corner / f``: shared between faces, hence named by its corners and shares."""
        key = tuple(x for part in sorted(p for p in parts if p[1]) for x in part)
        if key not in found:
            found[key] = len(vertices)
            point = sum((share * corners[i] for i, share in parts), torch.zeros(3, dtype=torch.float64))
            vertices.append(point / point.norm())
        return found[key]

    for i, j, k in triples.tolist():
        at = {
            (m, n): vertex(((i, frequency - m - n), (j, m), (k, n)))
            for m in range(frequency + 1)
            for n in range(frequency + 1 - m)
        }
        for m, n in at:
            if m + n < frequency:
                faces.append([at[m, n], at[m + 1, n], at[m, n + 1]])
            if m + n < frequency - 1:
                faces.append([at[m + 1, n], at[m + 1, n + 1], at[m, n + 1]])
    points = torch.stack(vertices)
    points = torch.where(points.abs() < 1e-12, 0.0, points)  # rounding must not decide a vertex' octant
    return points.float(), torch.tensor(faces)


def premultiply(images: Tensor, alpha: Tensor) -> Tensor:
    """``(B, 3, H, W)`` images on white and ``(B, 1, H, W)`` alpha to ``(B, 4, H, W)``: colour times alpha, alpha."""
    return torch.cat([(images - (1 - alpha)).clamp(min=0), alpha], 1)


def estimate_alpha(images: Tensor) -> Tensor:
    """The alpha of images on white, from the images alone.

    With d a pixel's darkness (1 minus its least channel): 0 where d is within 2/255; on the pixels beside those,
    which the object may cover in part, d divided by the largest d around; 1 elsewhere. So white parts of an object
    are taken for background.

    Args:
        images: ``(B, 3, H, W)``.

    Returns:
        ``(B, 1, H, W)`` in [0, 1].
    """
    dark = 1 - images.amin(1, keepdim=True)
    dark = torch.where(dark > WHITE, dark, 0.0)
    edge = F.max_pool2d(-dark, 3, 1, 1) == 0
    around = F.max_pool2d(dark, 3, 1, 1)
    return torch.where(dark > 0, torch.where(edge, dark / around.clamp(min=WHITE), 1.0), 0.0)


def to_side_of(rgba: Tensor) -> Tensor:
    """``(B, 4, S, S)`` at the network's 64 pixels."""
    return torch.cat([to_side(rgba[:, :3], SIDE, "ShapeGenerator"), F.adaptive_avg_pool2d(rgba[:, 3:], SIDE)], 1)


def _normalisation(kind: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(max(1, channels // 8), channels)


def _dense(sizes: list[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
    return layers
