"""Cases of point clouds: nearest neighbours, Chamfer, DRWR's repulsion, DPC's splat, whole loss steps, EMD."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from reconlab.bench import peers, scenes
from reconlab.bench.case import OURS, Answer, Case, Contestant, Operator, Setting

Backend = Literal["auto", "reference"]


def tree_distances(source: Tensor, target: Tensor) -> Tensor:
    """Squared distances by SciPy's k-d tree, built and asked, a cloud at a time."""
    from scipy.spatial import cKDTree

    found = [cKDTree(t).query(s)[0] for s, t in zip(source.numpy(), target.numpy(), strict=True)]
    return torch.stack([torch.from_numpy(d) for d in found]).square()


def cdist_distances(source: Tensor, target: Tensor) -> Tensor:
    """Squared distances the plain torch way, a cloud at a time: all of them, then the least."""
    return torch.stack([torch.cdist(s, t).amin(1) for s, t in zip(source, target, strict=True)]).square()


def cdist_chamfer(pred: Tensor, target: Tensor) -> Tensor:
    """``(B,)`` both mean squared distances by all pairs, a cloud at a time."""
    total = []
    for p, t in zip(pred, target, strict=True):
        d = torch.cdist(p, t).square()
        total.append(d.amin(0).mean() + d.amin(1).mean())
    return torch.stack(total)


def cdist_repulsion(points: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """``(M,)`` DRWR's double sum by all pairs, an image at a time."""
    images = zip(points, weights, bias, strict=True)
    return torch.stack([(w[:, None] * w * torch.exp(b[:, None] - torch.cdist(p, p))).sum() for p, w, b in images])


def _nearest(batch: int, count: int, noise: float, setting: Setting) -> dict[str, Contestant]:
    from reconlab.kernels.nearest import nearest

    source, target = (scenes.surface(batch, count, 10 * setting.seed + i) for i in (0, 1))
    source = source + noise * torch.randn(source.shape, generator=setting.generator())
    source, target = source.to(setting.device), target.to(setting.device)

    def first(result: Any) -> Answer:
        return (result[0],)

    found = {
        OURS: Contestant(lambda: nearest(source, target), first),
        "torch reference": Contestant(lambda: nearest(source, target, backend="reference"), first),
        "torch.cdist": Contestant(lambda: cdist_distances(source, target), tolerance=5e-2),
    }
    if setting.on_cpu:
        found["SciPy cKDTree"] = Contestant(lambda: tree_distances(source, target))
        if "open3d" in setting.peers:
            found["Open3D"] = Contestant(lambda: peers.open3d_nearest(source, target))
    if "pytorch3d" in setting.peers:
        found["PyTorch3D"] = Contestant(lambda: peers.pytorch3d_nearest(source, target))
    return found


def _chamfer(batch: int, count: int, setting: Setting) -> dict[str, Contestant]:
    from reconlab.losses.chamfer import chamfer

    pred, target = (scenes.surface(batch, count, 10 * setting.seed + i).to(setting.device) for i in (0, 1))
    pred = pred + 0.02 * torch.randn(pred.shape, generator=setting.generator()).to(setting.device)
    found = {
        OURS: Contestant(lambda: scenes.gradient_of(chamfer, pred, target)),
        "torch.cdist, autograd": Contestant(lambda: scenes.gradient_of(cdist_chamfer, pred, target), tolerance=2e-2),
    }
    if "pytorch3d" in setting.peers:
        found["PyTorch3D"] = Contestant(lambda: scenes.gradient_of(peers.pytorch3d_chamfer, pred, target))
    return found


def _repulsion(images: int, count: int, setting: Setting) -> dict[str, Contestant]:
    from reconlab.kernels.pairwise import pairwise_repulsion

    points, weights, bias = (x.to(setting.device) for x in scenes.disc(images, count, setting.generator()))

    def by(backend: str) -> Callable[[], Answer]:
        def value(p: Tensor) -> Tensor:
            return pairwise_repulsion(p, weights, bias, backend=backend)  # type: ignore[arg-type]

        return lambda: scenes.gradient_of(value, points)

    if setting.on_cpu:
        found = {f"{OURS}, all pairs": Contestant(by("cpu")), f"{OURS}, grid": Contestant(by("grid"), tolerance=1e-2)}
    else:
        found = {OURS: Contestant(by("auto"))}
    found["torch reference"] = Contestant(by("reference"))
    if count < 10_000:  # beyond, its matrices take gigabytes
        plain = partial(scenes.gradient_of, lambda p: cdist_repulsion(p, weights, bias), points)
        found["torch.cdist, autograd"] = Contestant(plain, tolerance=1e-2)  # cdist rounds short distances
    return found


def _splat(size: int, count: int, setting: Setting) -> dict[str, Contestant]:
    from reconlab.kernels.splat import splat_silhouettes

    position = (size * (scenes.shell(4, count, setting.generator()) + 0.5) - 0.5).to(setting.device)

    def by(backend: Backend) -> Callable[[], Answer]:
        # Its sum alone would hide a gradient of the wrong sign: the square weighs pixels unequally.
        return lambda: scenes.gradient_of(
            lambda p: splat_silhouettes(p, size, 1.6, 21, backend=backend).square(), position
        )

    return {OURS: Contestant(by("auto")), "torch reference": Contestant(by("reference"))}


def _loss_step(size: int, count: int, setting: Setting) -> dict[str, Contestant]:
    from reconlab.kernels import pairwise
    from reconlab.losses import DPC, DRWR, Loss
    from reconlab.shapes import PointCloud

    g = setting.generator()
    data = scenes.shadows(g).to(setting.device)
    losses: dict[str, Loss] = {"DRWR": DRWR(count, size), "DPC": DPC(count, size, keep=(1.0, 1.0))}
    for loss in losses.values():
        loss.advance(1, 2)  # of DPC's schedule the middle: a blur of 1.6 voxels
    start = 0.7 * (torch.rand(4, count, 3, generator=g) - 0.5)
    cloud = scenes.settle(start.to(setting.device), losses["DRWR"], data)

    def step(name: str) -> Answer:
        return scenes.gradient_of(lambda p: losses[name](PointCloud(p), data)["loss"], cloud)

    def exactly() -> Answer:
        least, pairwise.GRID_FROM = pairwise.GRID_FROM, 1 << 60
        try:
            return step("DRWR")
        finally:
            pairwise.GRID_FROM = least

    found = {"DRWR": Contestant(lambda: step("DRWR"))}
    if setting.on_cpu:
        found["DRWR, all pairs"] = Contestant(exactly, tolerance=2e-2)
    found["DPC"] = Contestant(lambda: step("DPC"), tolerance=None)
    return found


def _emd(count: int, setting: Setting) -> dict[str, Contestant]:
    from scipy.optimize import linear_sum_assignment

    from reconlab.losses.emd import emd

    target, source = (scenes.surface(1, count, 10 * setting.seed + i) for i in (0, 1))
    source = source * torch.tensor([0.5, 1.0, 1.2]) + 0.1

    def apart() -> Any:
        return torch.cdist(source[0].double(), target[0].double()).numpy()

    def assignment() -> Tensor:
        d = apart()
        return torch.tensor([d[linear_sum_assignment(d)].mean()])

    found = {
        OURS: Contestant(lambda: emd(source, target, 1e-2)),
        f"{OURS}, 1e-5": Contestant(lambda: emd(source, target, 1e-5), tolerance=1e-2),
        "SciPy linear_sum_assignment": Contestant(assignment, tolerance=1e-2),
    }
    if "pot" in setting.peers:
        found["POT emd2"] = Contestant(lambda: torch.tensor([peers.pot_transport(apart())]), tolerance=1e-2)
    return found


OPERATORS: tuple[Operator, ...] = (
    Operator(
        "nearest",
        "Nearest neighbours, one direction",
        "Squared distance and index of the closest target point of every source point, structures built anew. "
        "Open3D uses all cores, and CPU time counts them.",
        (
            Case("2500", "32 × 2500 to 2500, on surfaces", partial(_nearest, 32, 2500, 0.0)),
            Case("2500-off", "32 × 2500 to 2500, sources off by 0.1", partial(_nearest, 32, 2500, 0.1)),
            Case("16384", "1 × 16384 to 16384, on surfaces", partial(_nearest, 1, 16384, 0.0)),
            Case("1024", "4 × 1024 to 1024, on surfaces", partial(_nearest, 4, 1024, 0.0), quick=True),
        ),
    ),
    Operator(
        "chamfer",
        "Chamfer distance, value and gradient",
        "Both directions, squared, gradients by both clouds.",
        (
            Case("1024", "4 × 1024 points", partial(_chamfer, 4, 1024), quick=True),
            Case("2500", "4 × 2500 points", partial(_chamfer, 4, 2500)),
        ),
    ),
    Operator(
        "repulsion",
        "DRWR's pairwise repulsion, value and gradient",
        "Points in a disc of 8 % of the image. The grid is what training takes from 4000 points on: its gradient may "
        "be off by 1e-2, the other columns by 1e-3.",
        (
            Case("1000", "4 images of 1000 points", partial(_repulsion, 4, 1000), quick=True),
            Case("2000", "16 images of 2000 points", partial(_repulsion, 16, 2000)),
            Case("8000", "1 image of 8000 points", partial(_repulsion, 1, 8000)),
            Case("16000", "1 image of 16000 points", partial(_repulsion, 1, 16000)),
        ),
    ),
    Operator(
        "splat",
        "DPC's splat and ray termination, value and gradient",
        "Four images, a blur of 1.6 voxels with 21 taps; the reference blurs by band matrices.",
        (
            Case("32", "32³, 2000 points", partial(_splat, 32, 2000), quick=True),
            Case("64", "64³, 8000 points", partial(_splat, 64, 8000)),
            Case("128", "128³, 16000 points", partial(_splat, 128, 16000)),
        ),
    ),
    Operator(
        "loss-step",
        "Whole loss step, DPC against DRWR",
        "4 shapes × 4 views at DRWR's three pairings, value and gradient by the points, which lie as DRWR arranges "
        "them; DPC sees all points at a blur of 1.6 voxels, both with our kernels. The two compute different things: "
        "only DRWR's two ways are checked against each other.",
        (
            Case("2000", "2000 points, 32 px", partial(_loss_step, 32, 2000), quick=True),
            Case("8000", "8000 points, 64 px", partial(_loss_step, 64, 8000)),
            Case("16000", "16000 points, 128 px", partial(_loss_step, 128, 16000)),
        ),
    ),
    Operator(
        "emd",
        "Earth mover's distance",
        "One pair of clouds, the first thinner and shifted; our auction to 1e-2 (the loss' default) and to 1e-5, "
        "the others exactly.",
        (
            Case("256", "256 points", partial(_emd, 256), quick=True),
            Case("1024", "1024 points", partial(_emd, 1024)),
            Case("2048", "2048 points", partial(_emd, 2048)),
        ),
        on_gpu=False,
    ),
)
