"""AtlasNet (Groueix et al., CVPR 2018): a surface as 25 learned patches, conditioned on an image."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.devices import send
from reconlab.errors import ReconlabError
from reconlab.networks.base import Network
from reconlab.networks.resnet import Norm, ResNet18
from reconlab.precision import as_now, at_least_single
from reconlab.shapes import Mesh, Shape, VoxelGrid

Decode = Callable[[Tensor, Tensor], Tensor]


class PatchSurface(Shape):
    """A batch of surfaces made of ``P`` deformed unit squares.

    While training, :meth:`points` evaluates fresh random square coordinates, as AtlasNet does; otherwise, and for
    the mesh always, a regular grid is decoded. The grid is decoded once and shared by all who ask.

    Attributes:
        patches: ``(B, P, G², 3)`` the regular grid's vertices.
    """

    def __init__(self, decode: Decode, latent: Tensor, patches: int, grid: int, training: bool) -> None:
        self.decode = decode
        self.latent = at_least_single(latent)
        self.count = patches
        self.grid = grid
        self.training = training
        self._mesh: Mesh | None = None

    def __len__(self) -> int:
        return self.latent.shape[0]

    def __getitem__(self, index: slice | int) -> PatchSurface:
        # A slice shares the batch's mesh and samples it: decoding some samples alone would, in training, use other
        # normalisation statistics and so give other surfaces.
        chosen = self.as_slice(index, len(self))
        part = PatchSurface(self.decode, self.latent[chosen], self.count, self.grid, training=False)
        part._mesh = self.mesh()[chosen]
        return part

    @property
    def device(self) -> torch.device:
        """Where the latent codes live."""
        return self.latent.device

    @property
    def patches(self) -> Tensor:
        """``(B, P, G², 3)`` vertices of the regular grid, by patch."""
        return self.mesh().vertices.reshape(len(self), self.count, self.grid**2, 3)

    def valid(self) -> Tensor:
        """``(B,)`` bool: the regular mesh is finite and not degenerate."""
        return self.mesh().valid()

    def points(self, n: int | None = None, generator: torch.Generator | None = None) -> Tensor:
        """``(B, n, 3)`` points (2500 if ``n`` is None). Differentiable.

        In training ``n / P`` random square coordinates per patch; else area-uniform samples of the regular mesh
        (AtlasNet's own evaluation takes the grid's vertices: the same rule for every network matters more here).
        """
        n = 2500 if n is None else n
        if not self.training:
            return self.mesh().points(n, generator)
        per_patch = -(-n // self.count)
        where = generator.device if generator is not None else torch.device("cpu")
        uv = torch.rand(len(self), self.count, per_patch, 2, generator=generator, device=where)
        uv = send(uv, self.device).to(self.latent.dtype)
        # Interleave patches before cutting, so that every patch keeps its share when P does not divide n.
        points = self.decode(self.latent, uv).transpose(1, 2).reshape(len(self), -1, 3)
        return points[:, :n]

    def surface(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Area-uniform samples of the regular mesh with face normals. Differentiable."""
        return self.mesh().surface(n, generator)

    def mesh(self) -> Mesh:
        """The regular grids' triangles: ``P (G - 1)² 2`` faces a sample. Differentiable."""
        if self._mesh is None:
            side = torch.linspace(0, 1, self.grid, device=self.device, dtype=self.latent.dtype)
            uv = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(1, 1, -1, 2)
            vertices = self.decode(self.latent, uv.expand(len(self), self.count, -1, -1))
            self._mesh = Mesh(vertices.flatten(1, 2), send(patch_faces(self.count, self.grid), self.device))
        return self._mesh

    def voxels(self, resolution: int = 32) -> VoxelGrid:
        """As :meth:`reconlab.shapes.Mesh.voxels`."""
        return self.mesh().voxels(resolution)


def patch_faces(patches: int, grid: int) -> Tensor:
    """``(P (G - 1)² 2, 3)`` triangles of ``P`` grids of ``G × G`` vertices in row-major order.

    Example:
        >>> patch_faces(25, 10).shape
        torch.Size([4050, 3])
    """
    corner = (torch.arange(grid - 1).reshape(-1, 1) * grid + torch.arange(grid - 1)).reshape(-1)
    lower = torch.stack([corner, corner + grid, corner + 1], 1)
    upper = torch.stack([corner + 1, corner + grid, corner + grid + 1], 1)
    one = torch.cat([lower, upper])
    return (one + torch.arange(patches).reshape(-1, 1, 1) * grid**2).reshape(-1, 3)


class PatchDecoder(nn.Module):
    """``P`` independent perceptrons from square coordinates and a latent code to 3D points.

    Layers, each but the last followed by batch normalisation and ReLU: 2 → latent (the code is added to it) →
    hidden → hidden (``depth`` times) → 3, without a final squashing (the 2018 version ends in tanh).
    All patches run as one batched matrix product; normalisation is per patch and channel, over samples and points.

    Args:
        patches: ``P``.
        latent: Size of the code and of the first layer.
        hidden: Size of the other hidden layers.
        depth: Hidden-to-hidden layers.
    """

    def __init__(self, patches: int = 25, latent: int = 1024, hidden: int = 512, depth: int = 2) -> None:
        super().__init__()
        self.patches = patches
        sizes = [2, latent, hidden, *[hidden] * depth, 3]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            bound = inputs**-0.5  # the default initialisation of torch's linear and 1×1 convolution layers
            self.weights.append(nn.Parameter(torch.empty(patches, outputs, inputs).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(patches, outputs, 1).uniform_(-bound, bound)))
        self.norms = nn.ModuleList(nn.BatchNorm1d(patches * size) for size in sizes[1:-1])

    def forward(self, latent: Tensor, uv: Tensor) -> Tensor:
        """``latent (B, L)`` and ``uv (B, P, n, 2)`` in the unit square to ``(B, P, n, 3)``."""
        batch, patches, n = uv.shape[:3]
        x = uv.permute(1, 3, 0, 2).reshape(patches, 2, batch * n)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if i in (0, last):  # coordinates go in or come out
                with torch.autocast(x.device.type, enabled=False):
                    x = torch.baddbmm(bias, weight, x.to(bias))
            else:
                x = torch.baddbmm(bias, weight, x)
            if i == 0:
                x = (x.reshape(patches, -1, batch, n) + latent.t().unsqueeze(-1)).reshape(patches, -1, batch * n)
            if i < last:
                x = F.relu(self.norms[i](x.reshape(1, -1, batch * n)), inplace=True).reshape(patches, -1, batch * n)
        return x.reshape(patches, 3, batch, n).permute(2, 0, 3, 1)


class AtlasNet(Network):
    """AtlasNet-25 from one image: ResNet-18 → latent code → 25 patch perceptrons.

    Departures from the released code: the input is this project's white-background view at the data's own
    size (there: 127-pixel crops enlarged to 224, random crops and flips); with ``decoder_from`` and
    ``freeze_decoder`` its three stages (auto-encoder, encoder alone, fine-tuning) can be followed, without them
    the network is trained end to end.

    Args:
        patches: Number of patches.
        latent: Size of the latent code.
        hidden: Width of the patch perceptrons.
        grid: Vertices along a patch side of the mesh (10: 2500 vertices, 4050 triangles for 25 patches).
        encoder_width: Channels of ResNet's first stage (64 is ResNet-18).
        encoder_norm: ``batch`` (the paper's) or ``group``, for small batches: see :class:`ResNet18`.
        decoder_from: Checkpoint of an :class:`AtlasNetAutoencoder` or :class:`AtlasNet` run whose decoder is taken.
        freeze_decoder: Train only the image encoder (AtlasNet's second stage).

    Raises:
        ReconlabError: ``decoder_from`` does not exist or holds another decoder.
    """

    def __init__(
        self,
        patches: int = 25,
        latent: int = 1024,
        hidden: int = 512,
        grid: int = 10,
        encoder_width: int = 64,
        encoder_norm: Norm = "batch",
        decoder_from: str | None = None,
        freeze_decoder: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes(patches=patches, latent=latent, hidden=hidden, grid=grid - 1, encoder_width=encoder_width)
        self.grid = grid
        self.encoder = ResNet18(latent, encoder_width, encoder_norm)
        self.decoder = PatchDecoder(patches, latent, hidden)
        if decoder_from is not None:
            load_decoder(self.decoder, decoder_from)
        self.freeze_decoder = freeze_decoder
        self.decoder.requires_grad_(not freeze_decoder)

    def train(self, mode: bool = True) -> AtlasNet:
        """Training mode; a frozen decoder stays in evaluation mode, so that its statistics are kept."""
        super().train(mode)
        if self.freeze_decoder:
            self.decoder.eval()
        return self

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> PatchSurface:
        """``(B, 3, H, W)`` in [0, 1] to surfaces; cameras are not used."""
        latent = self.encoder(images)
        decode = as_now(self.decoder, images.device.type)
        return PatchSurface(decode, latent, self.decoder.patches, self.grid, self.training)


class AtlasNetAutoencoder(Network):
    """AtlasNet's first stage: a point cloud through PointNet to the same patch decoder; no image is used.

    Sizes: per-point 64, 128, latent with batch normalisation, maximum over points, two layers of the latent's size.

    Args:
        patches: Number of patches.
        latent: Size of the latent code.
        hidden: Width of the patch perceptrons.
        grid: Vertices along a patch side of the mesh.
    """

    needs = frozenset({"surface"})

    def __init__(self, patches: int = 25, latent: int = 1024, hidden: int = 512, grid: int = 10) -> None:
        super().__init__()
        _check_sizes(patches=patches, latent=latent, hidden=hidden, grid=grid - 1)
        self.grid = grid
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 64), (64, 128), (128, latent)):
            layers += [nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers[:-1])  # no ReLU before the maximum
        head: list[nn.Module] = []
        for _ in range(2):
            head += [nn.Linear(latent, latent), nn.BatchNorm1d(latent), nn.ReLU(inplace=True)]
        self.head = nn.Sequential(*head)
        self.decoder = PatchDecoder(patches, latent, hidden)

    def encode(self, points: Tensor) -> PatchSurface:
        """``(B, N, 3)`` points to surfaces."""
        latent = self.head(self.features(points.transpose(1, 2)).amax(-1))
        decode = as_now(self.decoder, points.device.type)
        return PatchSurface(decode, latent, self.decoder.patches, self.grid, self.training)

    def reconstruct(self, batch: Batch) -> Shape:
        """The true surface's points, through the code and back."""
        return self.encode(batch.require("points", type(self).__name__))

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> Shape:
        """Not available.

        Raises:
            ReconlabError: Always: this network reads points.
        """
        raise ReconlabError(
            "AtlasNetAutoencoder reads surface points, not images; train AtlasNet to predict from images."
        )


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ReconlabError(f"AtlasNet: {name} is too small ({value}); expected at least 1 (grid at least 2).")


def load_decoder(decoder: PatchDecoder, path: str) -> None:
    """Copy the patch decoder of a training checkpoint into ``decoder``.

    Raises:
        ReconlabError: The file is missing, unreadable, or holds a decoder of other sizes.
    """
    from reconlab.networks.checkpoint import network_state

    prefix = "decoder."
    state = {k.removeprefix(prefix): v for k, v in network_state(Path(path)).items() if k.startswith(prefix)}
    own = decoder.state_dict()
    wrong = [k for k in own if k not in state or state[k].shape != own[k].shape]
    if wrong:
        raise ReconlabError(f"decoder_from: {path} does not hold this patch decoder (first mismatch: {wrong[0]}).")
    decoder.load_state_dict({k: state[k] for k in own})
