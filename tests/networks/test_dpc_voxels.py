"""DPC-V's network, and the choice of a threshold on the validation split."""

import math

import pytest
import torch
from torch import Tensor, nn

from reconlab.batch import Batch, Views
from reconlab.cameras import Cameras, dpc_cameras
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.errors import ReconlabError
from reconlab.lab.threshold import choose_threshold
from reconlab.losses import VoxelSilhouette
from reconlab.metrics import ChamferDistance, VoxelIoU
from reconlab.networks import DPCVoxels, Network
from reconlab.shapes import PointCloud, VoxelGrid


@pytest.mark.parametrize("resolution", [8, 32, 64])
def test_grids_start_thin(resolution: int) -> None:
    """Every cell starts near 1 / D, so that rays keep a gradient."""
    torch.manual_seed(0)
    shape = DPCVoxels(resolution, image_size=32, threshold=0.2)(torch.rand(2, 3, 32, 32))
    assert isinstance(shape, VoxelGrid)
    assert shape.values.shape == (2,) + (resolution,) * 3
    assert shape.threshold == 0.2
    assert shape.values.mean().item() == pytest.approx(1 / resolution, rel=0.3)


def test_parameter_counts() -> None:
    """Encoder 7 471 744; code to 4³ · 128 and up: 4³ kernels 128 → 64 → 32 → 1, and → 16 → 1 for 64³; two
    numbers a channel of the normalisation."""
    encoder, seed = 7_471_744, 1025 * 128 * 64
    first = 64 * (128 * 64 + 64 * 32) + 64 + 32 + 2 * (128 + 64 + 32)
    expected = {
        32: encoder + seed + first + 64 * 32 + 1,
        64: encoder + seed + first + 64 * (32 * 16 + 16) + 16 + 1 + 2 * 16,
    }
    for resolution, count in expected.items():
        assert sum(p.numel() for p in DPCVoxels(resolution).parameters()) == count


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"resolution": 48}, "resolution is 48"),
        ({"resolution": 4}, "resolution is 4"),
        ({"channels": 2}, "channels is 2"),
        ({"threshold": 0.0}, "threshold is 0"),
        ({"image_size": 100}, "image_size is 100"),
    ],
)
def test_bad_settings_are_named(options: dict[str, float], word: str) -> None:
    with pytest.raises(ReconlabError, match=word):
        DPCVoxels(**options)  # type: ignore[arg-type]


def test_it_tells_two_boxes_apart() -> None:
    """Overfits two images to two silhouettes: a wide and a tall box."""
    torch.manual_seed(0)
    masks = torch.zeros(2, 2, 32, 32)
    masks[0, :, 13:19, 6:26] = 1
    masks[1, :, 6:26, 13:19] = 1
    cameras = dpc_cameras([[0.0, 90.0], [0.0, 90.0]], 0.0)
    batch = Batch(ids=["wide", "tall"], categories=["box"] * 2, views=Views(cameras, masks))
    images = (1 - masks[:, :1]).expand(-1, 3, -1, -1)
    network, loss = DPCVoxels(16, image_size=32, channels=32), VoxelSilhouette(resolution=16)
    optimizer = torch.optim.Adam(network.parameters(), 3e-4)
    losses = []
    for _ in range(130):
        optimizer.zero_grad()
        value = loss(network(images), batch)["loss"]
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.25 * losses[0]
    swapped = Batch(ids=["wide", "tall"], categories=["box"] * 2, views=Views(cameras, masks.flip(0)))
    assert loss(network(images), swapped)["loss"].item() > 3 * losses[-1]


class Known(Network):
    """Answers with the true grids, blurred into values of which a threshold of 0.3 gives the truth back."""

    needs = frozenset({"images", "voxels"})

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> VoxelGrid:
        raise NotImplementedError

    def reconstruct(self, batch: Batch) -> VoxelGrid:
        assert not self.training
        true = batch.require("voxels", "Known")
        noise = 0.2 * torch.rand(true.shape, generator=torch.Generator().manual_seed(0))
        return VoxelGrid(torch.where(true > 0.5, 0.4 + noise, noise))


def test_threshold_by_iou(data) -> None:
    """Values are in [0, .2] outside and [.4, .6] inside: only thresholds between give IoU 1."""
    network = Known().train()
    module = ReconstructionData(str(data), batch_size=2, image_size=64)
    thresholds = [0.1, 0.3, 0.5, 0.9]
    best, values = choose_threshold(network, module, VoxelIoU(), thresholds)
    assert best == 0.3
    assert list(values) == thresholds
    assert values[0.3] == pytest.approx(1)
    assert values[0.1] < 0.9
    assert values[0.5] < 0.9
    assert values[0.9] == 0  # empty grids have failed
    assert network.training


def test_threshold_by_chamfer(data) -> None:
    """Smaller is better, and the meshes are drawn at the threshold."""
    module = ReconstructionData(str(data), batch_size=2, image_size=64, points=1000)
    best, values = choose_threshold(Known(), module, ChamferDistance(points=500), [0.05, 0.3, 0.95])
    assert best == 0.3
    assert values[0.3] < values[0.05]
    assert values[0.95] == pytest.approx(2 * math.sqrt(3))  # the protocol's worst value


def test_mistakes_are_named(data) -> None:
    class Points(Network):
        def forward(self, images: Tensor, cameras: Cameras | None = None) -> PointCloud:
            return PointCloud(torch.zeros(len(images), 3, 3))

    module = ReconstructionData(str(data), batch_size=2, image_size=64)
    with pytest.raises(ReconlabError, match="no threshold"):
        choose_threshold(Known(), module, VoxelIoU(), [])
    with pytest.raises(ReconlabError, match="returns a PointCloud"):
        choose_threshold(Points(), module, VoxelIoU())
