"""Pixel2Mesh (Wang et al., ECCV 2018): an ellipsoid deformed in stages by what the image shows at its vertices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.cameras import Cameras, dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.networks.base import Network
from reconlab.networks.graph import Graph, GraphBlock, GraphConv
from reconlab.shapes import TemplateMesh
from reconlab.shapes.connectivity import connectivity
from reconlab.shapes.ellipsoid import RADII, ellipsoid, insert_midpoints, subdivide

CONVOLUTIONS = (2, 3, 3, 3, 3, 4)
"""Per resolution of the image encoder, 18 in all."""

NEAR = 0.1
"""Depth, in object units, below which a vertex is projected as if it were there: behind the camera, say."""


class ImageEncoder(nn.Module):
    """The small VGG-like network: 18 convolutions with ReLU, without normalisation.

    ``w, 2w, 4w, 8w, 16w, 32w`` channels at 1, ½, ¼, … of the image's side: 2, 3, 3, 3, 3 and 4 convolutions 3×3, the
    first of each resolution but the first with stride 2 (5×5 in the last two). He's initialisation by fan-out.

    Args:
        width: ``w``, 16 as published.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.channels = [width * 2**k for k in range(6)]
        self.levels = nn.ModuleList()
        inputs = 3
        for k, (outputs, count) in enumerate(zip(self.channels, CONVOLUTIONS, strict=True)):
            layers: list[nn.Module] = []
            for i in range(count):
                halves = k > 0 and i == 0
                kernel = 5 if halves and k > 3 else 3
                layers += [nn.Conv2d(inputs, outputs, kernel, 2 if halves else 1, kernel // 2), nn.ReLU(inplace=True)]
                inputs = outputs
            self.levels.append(nn.Sequential(*layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> list[Tensor]:
        """``(B, 3, S, S)`` in [0, 1] to the four maps at S/4, S/8, S/16 and S/32: 4w, 8w, 16w, 32w channels."""
        x = 1 - images  # white, the background, becomes 0, which the convolutions' padding continues
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return maps[2:]


def pool_at(maps: Sequence[Tensor], xy: Tensor, side: int) -> Tensor:
    """The image's features at points of the image, bilinear, from every map.

    A convolution of stride s puts its pixel i around the image's pixel ``s i``, not around the middle of s pixels:
    the half stride between the two is taken into account, as the published code does by dividing pixel indices.

    Args:
        maps: ``(B, C, H, H)`` each, of the image at strides ``side / H`` (rounded up).
        xy: ``(B, V, 2)`` in [-1, 1]; beyond it the border's features hold, as published.
        side: Of the image, in pixels.

    Returns:
        ``(V, B, ΣC)``.
    """
    pixel = ((xy + 1) * side - 1) / 2
    found = []
    for features in maps:
        size = features.shape[-1]
        stride = 2 ** math.ceil(math.log2(side / size))  # as size is side / stride, rounded up
        where = (2 * pixel / stride + 1) / size - 1
        # In the coordinates' type: under mixed precision they would lose whole pixels.
        found.append(F.grid_sample(features.to(xy), where.unsqueeze(2), "bilinear", "border", False)[..., 0])
    return torch.cat(found, 1).permute(2, 0, 1)


class Pixel2Mesh(Network):
    """Pixel2Mesh from one image and its camera: 156 → 618 → 2466 vertices.

    Three blocks of graph convolutions (:class:`GraphBlock`). Each sees, at every vertex, the image's features where
    the vertex projects, the vertex itself, and after the first block the hidden values of the one before; between
    blocks the mesh is subdivided. It outputs positions. The last block ends in ``last_hidden`` channels, ReLU and
    one convolution more.

    The network works in a frame that is turned as the camera's but centred on the object. ``reconstruct`` turns the
    result back by the camera's rotation: all stages are in the object frame. Without cameras (``reconlab predict``)
    the picture is taken as one from :func:`default_camera`.

    Departures: our own ellipsoid and its size (:mod:`reconlab.shapes.ellipsoid`); images of any side from 32 pixels
    (published: 224), so that at 128 the maps have 32, 16, 8 and 4 pixels; white is 0 for the encoder; vertices at or
    behind the camera are projected as at depth 0.1.

    Args:
        hidden: Channels of the graph convolutions: 256 as in the authors' code, 192 in its PyTorch port.
        last_hidden: Channels that the last block ends in (128).
        depth: Residual pairs per block (6).
        encoder_width: See :class:`ImageEncoder` (16).
        radii: Of the ellipsoid, object units, along the camera's x, y and z.
        offsets: Output displacements, not positions (ours): the ellipsoid stays where nothing is learned.

    Raises:
        ReconlabError: A size is below 1, or a radius not positive.
    """

    needs = frozenset({"images", "cameras"})

    def __init__(
        self,
        hidden: int = 256,
        last_hidden: int = 128,
        depth: int = 6,
        encoder_width: int = 16,
        radii: tuple[float, float, float] = RADII,
        offsets: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"hidden": hidden, "last_hidden": last_hidden, "depth": depth + 1, "encoder_width": encoder_width}
        for name, value in sizes.items():
            if value < 1:
                raise ReconlabError(f"Pixel2Mesh: {name} is {value}; expected at least 1.")
        self.offsets = offsets
        self.encoder = ImageEncoder(encoder_width)
        seen = 3 + sum(self.encoder.channels[2:])
        self.blocks = nn.ModuleList(
            [
                GraphBlock(seen, hidden, 3, depth),
                GraphBlock(seen + hidden, hidden, 3, depth),
                GraphBlock(seen + hidden, hidden, last_hidden, depth),
            ]
        )
        self.last = GraphConv(last_hidden, 3)
        vertices, faces = ellipsoid(radii)
        self.template: Tensor
        self.register_buffer("template", vertices, persistent=False)
        count = len(vertices)
        for level in range(3):
            self.register_buffer(f"faces{level}", faces, persistent=False)
            if level < 2:
                faces, ends = subdivide(faces, count)
                self.register_buffer(f"ends{level}", ends, persistent=False)
                count += len(ends)

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> TemplateMesh:
        """``(B, 3, S, S)`` images in [0, 1] and ``(B,)`` cameras to meshes of 2466 vertices, with all stages.

        Raises:
            ReconlabError: The images are not square, smaller than 32 pixels, or not as many as the cameras.
        """
        if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or images.shape[2] < 32:
            raise ReconlabError(
                f"Pixel2Mesh takes square images (B, 3, S, S) of 32 pixels or more, not {tuple(images.shape)}."
            )
        count, side = len(images), images.shape[2]
        if cameras is None:
            cameras = default_camera().to(images.device).expand(count)
        if tuple(cameras.shape) != (count,):
            raise ReconlabError(
                f"Pixel2Mesh takes a camera per image, not {tuple(cameras.shape)} for {count} images."
            )
        maps = self.encoder(images)
        position = self.template.to(images.dtype).unsqueeze(1).expand(-1, count, -1)  # (V, B, 3), camera's axes
        hidden: Tensor | None = None
        pairs: list[tuple[Tensor, Tensor]] = []
        for level, block in enumerate(self.blocks):
            seen = [position, pool_at(maps, projected(position, cameras), side)]
            x = torch.cat(seen if hidden is None else [*seen, hidden], -1)
            ends = getattr(self, f"ends{level - 1}") if level else None
            before = position if ends is None else insert_midpoints(position, ends)
            faces = getattr(self, f"faces{level}")
            graph = Graph(connectivity(faces, len(before)), x)
            out, hidden = block(x, graph, ends)
            if level == 2:
                out = self.last(F.relu(out), graph)
            position = before + out if self.offsets else out.to(before)
            pairs.append((before, position))
        return self._turned_back(pairs, cameras.R.to(images.dtype))

    def _turned_back(self, pairs: list[tuple[Tensor, Tensor]], rotation: Tensor) -> TemplateMesh:
        stages: list[TemplateMesh] = []
        for level, pair in enumerate(pairs):
            # p_camera = R p, so that with rows p = p_camera R; in full precision, whatever the layers computed in.
            with torch.autocast(rotation.device.type, enabled=False):
                before, after = (x.transpose(0, 1) @ rotation for x in pair)
            faces = getattr(self, f"faces{level}")
            stages.append(TemplateMesh(after, faces, before, stages if level == 2 else ()))
        return stages[-1]


def default_camera() -> Cameras:
    """The camera that a picture without one is taken to come from: DPC's, in front of the object, 10° above it.

    The data's pictures have random azimuths and elevations of -20° to 40°; 10° is their middle.
    """
    return dpc_cameras([0.0], [10.0])


def projected(position: Tensor, cameras: Cameras) -> Tensor:
    """``(V, B, 3)`` in the camera's axes about the object's centre to ``(B, V, 2)`` image coordinates."""
    point = position.transpose(0, 1) + cameras.t.to(position).unsqueeze(1)
    focal, centre = (x.to(position).unsqueeze(1) for x in (cameras.focal, cameras.centre))
    return focal * point[..., :2] / point[..., 2:].clamp_min(NEAR) + centre
