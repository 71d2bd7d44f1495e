"""DRWR's acceptance experiment: a free cloud fitted to four exact silhouettes of a chair of six boxes."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from scipy.ndimage import distance_transform_edt

from reconlab.batch import Batch, Views
from reconlab.cameras import Cameras, dpc_cameras
from reconlab.lab import Reconstruction
from reconlab.losses import DRWR
from reconlab.losses.chamfer import chamfer
from reconlab.losses.drwr import PRESETS, Reading, drwr
from reconlab.networks import FreePoints


def chair() -> tuple[torch.Tensor, torch.Tensor]:
    """Centres and half sizes (6, 3) of the boxes; the bounding box is centred with diagonal 1."""
    legs = [((0.21 * x, -0.26, 0.21 * z), (0.035, 0.24, 0.035)) for x in (-1, 1) for z in (-1, 1)]
    parts = [((0.0, 0.0, 0.0), (0.25, 0.03, 0.25)), ((0.0, 0.27, 0.22), (0.25, 0.24, 0.03)), *legs]
    centres, halves = (torch.tensor(x) for x in zip(*parts, strict=True))
    low, high = (centres - halves).amin(0), (centres + halves).amax(0)
    return (centres - (low + high) / 2) / (high - low).norm(), halves / (high - low).norm()


def exact_silhouette(camera: Cameras, side: int = 128) -> torch.Tensor:
    """Rays through the pixel centres against the boxes."""
    centres, halves = chair()
    at = (2 * torch.arange(side) + 1) / side - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    rays = torch.stack([x / camera.focal[0], y / camera.focal[1], torch.ones_like(x)], -1) @ camera.R
    one, two = ((centres + s * halves - camera.position) / rays[:, :, None] for s in (-1, 1))
    return (torch.minimum(one, two).amax(-1) < torch.maximum(one, two).amin(-1)).any(-1).float()


class Experiment:
    """Facts of a fitted cloud: fractions of projections in the 128-pixel masks, in or within 1.5/32 of all four
    masks, of fully covered 32 x 32 foreground cells, the variation (standard deviation over mean, mean of the views)
    of the number of points in those, and its Chamfer distance x 100 to the surface."""

    def __init__(self) -> None:
        self.cameras = dpc_cameras([30.0, 120.0, 205.0, 310.0], [20.0, -10.0, 35.0, 5.0])
        self.masks = torch.stack([exact_silhouette(self.cameras[i]) for i in range(4)])
        away = [distance_transform_edt(mask.numpy() < 0.5) for mask in self.masks]
        self.away = torch.from_numpy(np.stack(away))
        centres, halves = chair()
        g = torch.Generator().manual_seed(1)
        areas = torch.stack(
            [halves[:, 1] * halves[:, 2], halves[:, 0] * halves[:, 2], halves[:, 0] * halves[:, 1]], 1
        )
        chosen = torch.multinomial(areas.flatten(), 8000, True, generator=g)
        box, axis = chosen // 3, chosen % 3
        unit = 2 * torch.rand(8000, 3, generator=g) - 1
        unit.scatter_(1, axis[:, None], unit.gather(1, axis[:, None]).sign())
        self.surface = (centres[box] + unit * halves[box])[None]

    def fit(self, reading: Reading, wide: bool = True, views: int = 4, count: int = 1000) -> dict[str, float]:
        g = torch.Generator().manual_seed(0)
        start = 1.2 * (torch.rand(1, count, 3, generator=g) - 0.5)
        points = (start if wide else 0.05 * torch.randn(1, count, 3, generator=g)).requires_grad_()
        optimizer = torch.optim.Adam([points], 1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 250, 2e-4)
        for _ in range(250):
            optimizer.zero_grad()
            cameras = self.cameras[:views].reshape(1, views)
            drwr(points, self.masks[None, :views], cameras, 32, reading=reading).total().sum().backward()
            optimizer.step()
            schedule.step()
        return self.judge(points.detach())

    def hull_volume(self, count: int) -> torch.Tensor:
        """Uniform random points (1, count, 3) of the volume whose projections all four masks contain."""
        points = torch.rand(400_000, 3, generator=torch.Generator().manual_seed(2)) - 0.5
        for i in range(4):
            pixel = (64 * (self.cameras[i].project(points)[0] + 1)).floor().long()
            image = ((pixel >= 0) & (pixel < 128)).all(-1)
            x, y = pixel.clamp(0, 127).unbind(-1)
            points = points[image & (self.masks[i, y, x] > 0.5)]
        assert len(points) >= count
        return points[None, :count]

    def batch(self) -> Batch:
        return Batch(["boxes"], ["chair"], views=Views(self.cameras.reshape(1, 4), self.masks[None]))

    def judge(self, points: torch.Tensor) -> dict[str, float]:
        xy, _ = self.cameras.project(points.expand(4, -1, -1))
        pixel = (64 * (xy + 1)).floor().long()
        image = ((pixel >= 0) & (pixel < 128)).all(-1)
        x, y = pixel.clamp(0, 127).unbind(-1)
        view = torch.arange(4)[:, None].expand_as(x)
        away = torch.where(image, self.away[view, y, x], torch.inf)
        full = self.masks.reshape(4, 32, 4, 32, 4).amin((2, 4)).bool()
        counts = torch.zeros(4, 32, 32, dtype=torch.float64)
        where = (view[image], y[image] // 4, x[image] // 4)
        counts.index_put_(where, torch.ones((), dtype=torch.float64), accumulate=True)
        inner = [counts[i][full[i]] for i in range(4)]
        return {
            "in": (away == 0).double().mean().item(),
            "near": (away <= 6).all(0).double().mean().item(),
            "cov": (torch.cat(inner) > 0).double().mean().item(),
            "variation": float(np.mean([(c.std(correction=0) / c.mean()).item() for c in inner])),
            "cd": 100 * chamfer(points, self.surface, squared=False).item(),
        }


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return Experiment()


@pytest.fixture(scope="module")
def full_loss(experiment: Experiment) -> dict[str, float]:
    return experiment.fit(Reading())


def test_the_loss_fills_the_silhouettes(full_loss: dict[str, float]) -> None:
    assert full_loss["in"] >= 0.85, full_loss
    assert full_loss["near"] >= 0.95, full_loss
    assert full_loss["cov"] >= 0.93, full_loss
    assert full_loss["cd"] <= 8.5, full_loss  # uniform samples of the visual hull's volume score 5.7


def test_unary_term_alone_clumps(experiment: Experiment) -> None:
    result = experiment.fit(Reading(pairwise=False), wide=False)
    assert result["cov"] <= 0.4, result
    assert result["in"] >= 0.95, result


def test_repulsion_alone_evicts(experiment: Experiment) -> None:
    result = experiment.fit(Reading(unary=False))
    assert result["in"] <= 0.1, result


def test_without_the_smooth_field_far_points_stay(experiment: Experiment) -> None:
    result = experiment.fit(Reading(field="binary", off_image="clip"))
    assert result["near"] <= 0.4, result


def test_fewer_views_are_worse(experiment: Experiment, full_loss: dict[str, float]) -> None:
    assert experiment.fit(Reading(), views=2)["cd"] > full_loss["cd"]


def test_the_literal_formula_empties_the_silhouette(experiment: Experiment) -> None:
    """Why the presets differ: if this ever fails, the reading in docs/drwr.md needs another look."""
    assert experiment.fit(PRESETS["paper"])["in"] <= 0.1


@pytest.fixture(scope="module")
def trained(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """2000 points by the trainer that every network uses, 250 steps.

    The repulsion reaches half a unit of 1/32: with one unit, the preset, which suits networks as well, points gather
    at the rim (variation 0.72 against 0.52 here and 0.58 by chance, see docs/drwr.md).
    """
    model = Reconstruction(
        FreePoints(points=2000, samples=1),
        DRWR(2000, resolution=32, sigma=0.5),
        {},
        lr=1e-2,
        milestones=[0.6, 0.8, 0.9],
        decay=0.3,
    )
    batch = experiment.batch()
    trainer = pl.Trainer(
        max_steps=250,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path_factory.mktemp("fit"),
    )
    trainer.fit(model, torch.utils.data.DataLoader([batch], batch_size=None))
    with torch.no_grad():
        return model.eval().network.reconstruct(batch).points()


def test_the_trainer_fills_the_silhouettes_with_free_points(experiment: Experiment, trained: torch.Tensor) -> None:
    result = experiment.judge(trained)
    assert result["near"] >= 0.90, result
    assert result["cov"] >= 0.95, result
    assert result["cd"] <= 8.5, result


def test_repulsion_spreads_the_points(experiment: Experiment, trained: torch.Tensor) -> None:
    alone = experiment.fit(Reading(pairwise=False), count=2000)
    assert experiment.judge(trained)["variation"] < 0.7 * alone["variation"], alone


def test_the_points_are_more_even_than_chance(experiment: Experiment, trained: torch.Tensor) -> None:
    """As many uniform random points of the visual hull's volume, which no silhouette can tell from the shape."""
    chance = experiment.judge(experiment.hull_volume(2000))
    assert experiment.judge(trained)["variation"] < chance["variation"], chance


def test_chance_is_inside_every_mask(experiment: Experiment) -> None:
    chance = experiment.judge(experiment.hull_volume(2000))
    assert chance["near"] == chance["in"] == 1
    assert 0.5 < chance["variation"] < 0.7, chance
