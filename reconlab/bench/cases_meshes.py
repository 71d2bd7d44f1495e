"""Cases of meshes and images: rasterisers, marching cubes, DR-KFS' detector and matching, LFD's distances."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reconlab.bench import peers, scenes
from reconlab.bench.case import OURS, Answer, Case, Contestant, Operator, Setting

Backend = Literal["auto", "reference"]


def window_of_copies(query: Tensor, key: Tensor) -> Tensor:
    """Patch matching in a 3×3 window as a stack of shifted copies, by autograd: ``(M, gh, gw)``."""
    h, w = query.shape[1:3]
    padded = F.pad(key.permute(0, 3, 1, 2), (1, 1, 1, 1), value=1e3).permute(0, 2, 3, 1)
    shifted = [padded[:, dy : dy + h, dx : dx + w] for dy in range(3) for dx in range(3)]
    return torch.stack([(query - k).square().mean(-1) for k in shifted]).amin(0)


def _soft(
    subdivisions: int, size: int, views: int, shaded: bool, back: bool, setting: Setting
) -> dict[str, Contestant]:
    from reconlab.cameras import hemisphere_views
    from reconlab.kernels.soft_rasterize import soft_rasterize

    xyz, splits, grey = scenes.screen_faces(subdivisions, hemisphere_views()[:views])
    xyz, shades = xyz.to(setting.device), grey.to(setting.device) if shaded else None

    def ours(backend: Backend, x: Tensor) -> Tensor:
        out = soft_rasterize(x, splits, size, shades, backend=backend)
        return out.alpha if out.shade is None else out.alpha * out.shade

    def theirs(x: Tensor) -> Tensor:
        return peers.pytorch3d_soft(x, splits, shades, size, 50 if splits[1] <= 1280 else 100)

    def timed(image: Callable[[Tensor], Tensor]) -> Callable[[], Answer]:
        def run() -> Answer:
            if back:
                return scenes.gradient_of(lambda x: image(x).square(), xyz)
            with torch.no_grad():
                return (image(xyz),)

        return run

    # float32 depths at this gamma leave some 1e-3 of noise in a shaded gradient.
    near = 1e-2 if shaded else 1e-3
    found = {
        OURS: Contestant(timed(partial(ours, "auto"))),
        "torch reference": Contestant(timed(partial(ours, "reference")), tolerance=near),
    }
    if "pytorch3d" in setting.peers:
        # Its silhouette is ours but for faces seen edge-on, which it drops. Its shaded image is some 1e-2 off, and
        # the gradient through its depths another.
        found["PyTorch3D"] = Contestant(timed(theirs), tolerance=None if shaded and back else 0.05)
    return found


def _zbuffer(subdivisions: int, size: int, views: int, setting: Setting) -> dict[str, Contestant]:
    from reconlab.cameras import orbit_views
    from reconlab.kernels.zbuffer import zbuffer

    cameras = orbit_views(views)
    xyz, splits, _ = scenes.screen_faces(subdivisions, cameras)
    xyz = xyz.to(setting.device)

    def depth(result: Any) -> Answer:
        return (torch.where(result.face >= 0, result.depth, torch.zeros_like(result.depth)),)

    found = {
        OURS: Contestant(lambda: zbuffer(xyz, splits, size), depth),
        "torch reference": Contestant(lambda: zbuffer(xyz, splits, size, backend="reference"), depth),
    }
    if setting.on_cpu and "embreex" in setting.peers:
        mesh = scenes.ellipsoid(subdivisions)
        caster = peers.EmbreeViews(mesh.vertices, mesh.faces, cameras, size)
        # A pixel centre on the outline may be a hit for one and a miss for the other.
        found["embreex"] = Contestant(caster.faces_hit, lambda hits: (caster.depth(hits).float(),), 2e-2)
    if "pytorch3d" in setting.peers:
        found["PyTorch3D"] = Contestant(lambda: peers.pytorch3d_depth(xyz, splits, size), tolerance=2e-2)
    return found


def _marching(count: int, size: int, setting: Setting) -> dict[str, Contestant]:
    from skimage import measure

    from reconlab.kernels.marching_cubes import marching_cubes

    fields = scenes.smooth_fields(count, size).to(setting.device)

    def area(vertices: Tensor, faces: Tensor) -> Tensor:
        corners = vertices.double()[faces]
        return torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1).sum() / 2

    def whole(result: Any) -> Answer:  # tables of triangles differ between programs, their area hardly
        return (area(result.vertices, result.faces),)

    def of_skimage() -> list[Any]:
        padded = np.pad(fields.numpy(), ((0, 0), (1, 1), (1, 1), (1, 1)), constant_values=-1.0)
        return [measure.marching_cubes(g, 0.0, spacing=(1 / size,) * 3)[:2] for g in padded]

    def added(pieces: list[Any]) -> Answer:
        areas = [area(torch.from_numpy(v.copy()), torch.from_numpy(f.astype(np.int64))) for v, f in pieces]
        return (torch.stack(areas).sum(),)

    def with_gradient() -> Any:
        leaf = fields.detach().requires_grad_()
        found = marching_cubes(leaf)
        found.vertices.square().sum().backward()
        return found

    found = {
        OURS: Contestant(lambda: marching_cubes(fields), whole),
        f"{OURS}, and gradient": Contestant(with_gradient, whole),
        "torch reference": Contestant(lambda: marching_cubes(fields, backend="reference"), whole),
    }
    if setting.on_cpu:
        found["scikit-image, no gradient"] = Contestant(of_skimage, added, 5e-2)
    if "pytorch3d" in setting.peers:
        found["PyTorch3D, no gradient"] = Contestant(
            lambda: peers.pytorch3d_marching(fields),
            lambda found: (torch.stack([area(v / size, f.long()) for v, f in zip(*found, strict=True)]).sum(),),
            5e-2,
        )
    return found


def _detector(size: int, images: int, setting: Setting) -> dict[str, Contestant]:
    from reconlab.features import load_detector

    detector = load_detector().requires_grad_(False).to(setting.device)
    views = grey_views(images, size, setting)
    half = detector.kernel // 2

    def plain(x: Tensor) -> Tensor:
        padded = F.pad(x, (half, half, half, half), mode="reflect")
        pieces = F.conv2d(padded, detector.weight, detector.bias).unflatten(1, (detector.terms, detector.pieces))
        best = pieces.amax(2)
        return (best * detector.signs.view(1, -1, 1, 1)).sum(1, keepdim=True)

    return {
        OURS: Contestant(lambda: scenes.gradient_of(lambda x: detector(x).square(), views)),
        "torch, autograd": Contestant(lambda: scenes.gradient_of(lambda x: plain(x).square(), views)),
    }


def grey_views(images: int, size: int, setting: Setting) -> Tensor:
    """``(images, 1, size, size)`` shaded views of the ellipsoid, with noise: no two responses are equal."""
    from reconlab.cameras import hemisphere_views
    from reconlab.kernels.soft_rasterize import soft_rasterize

    xyz, splits, grey = scenes.screen_faces(2, hemisphere_views()[:images])
    out = soft_rasterize(xyz, splits, size, grey)
    assert out.shade is not None  # noqa: S101
    noise = 1e-3 * torch.rand(images, size, size, generator=setting.generator())
    return (out.alpha * out.shade + noise).unsqueeze(1).to(setting.device)


def _matching(grid: int, images: int, setting: Setting) -> dict[str, Contestant]:
    from reconlab.kernels.patch_matching import match_patches

    shape = (images, grid, grid, 128)
    query, key = (torch.randn(shape, generator=setting.generator(i)).to(setting.device) for i in (1, 2))
    return {
        OURS: Contestant(lambda: scenes.gradient_of(lambda q, k: match_patches(q, k)[0], query, key)),
        "shifted copies, autograd": Contestant(lambda: scenes.gradient_of(window_of_copies, query, key)),
    }


def _lfd_compare(count: int, setting: Setting) -> dict[str, Contestant]:
    from reconlab.kernels.lfd import distances

    many = np.random.default_rng(setting.seed).integers(0, 256, (count, 10, 10, 47), dtype=np.uint8)
    return {
        OURS: Contestant(lambda: distances(many[0], many), _whole),
        "NumPy reference": Contestant(lambda: distances(many[0], many, "reference"), _whole),
    }


def _whole(integers: np.ndarray) -> Answer:
    return (torch.from_numpy(integers.astype(np.float64)),)


def _soft_cases(back: bool) -> tuple[Case, ...]:
    sizes = ((3, 64, 25, "1280 faces, 64²"), (3, 256, 2, "1280 faces, 256²"), (4, 128, 2, "5120 faces, 128²"))
    found = []
    for subdivisions, size, views, title in sizes:
        for shaded, kind in ((False, "silhouette"), (True, "shaded")):
            key = f"{'step' if back else 'forward'}-{20 * 4**subdivisions}-{size}-{kind}"
            build = partial(_soft, subdivisions, size, views, shaded, back)
            found.append(Case(key, f"{kind}, {title}, {views} views", build))
    small = partial(_soft, 2, 64, 4, False, back)
    return (
        *found,
        Case(f"{'step' if back else 'forward'}-small", "silhouette, 320 faces, 64², 4 views", small, True),
    )


OPERATORS: tuple[Operator, ...] = (
    Operator(
        "rasterizer",
        "Soft rasterisation, forward",
        "Views of an ellipsoid under SoftRas' formulas, every face within reach of a pixel; fewer views at the "
        "larger sizes, where the reference is slow: it is the ratio that counts. PyTorch3D keeps a fixed number "
        "of faces a pixel: here 50, with 5120 faces 100, enough for its silhouettes to agree. It drops faces of "
        "less than 1e-8 on the screen, one of which is in sight at 1280 faces and 25 views. On the CPU it asks "
        "every pixel about every face; its tiles are for CUDA. Shaded it has another formula: depths linear on "
        "the screen, and so another gradient.",
        _soft_cases(back=False),
    ),
    Operator(
        "rasterizer",
        "Soft rasterisation, forward and backward",
        "The same, with the gradient of the squared image by the corners of all faces.",
        _soft_cases(back=True),
    ),
    Operator(
        "z-buffer",
        "Hard z-buffer",
        "Nearest depth and face of every pixel centre; embreex casts a ray through each, its tree built anew.",
        (
            Case("1280", "1280 faces, 128², 4 views", partial(_zbuffer, 3, 128, 4), quick=True),
            Case("20480", "20480 faces, 256², 4 views", partial(_zbuffer, 5, 256, 4)),
        ),
    ),
    Operator(
        "marching-cubes",
        "Marching cubes",
        "Surfaces of smooth random fields; answers are compared by their area, since tables of triangles differ.",
        (
            Case("32", "4 grids of 32³", partial(_marching, 4, 32), quick=True),
            Case("64", "4 grids of 64³", partial(_marching, 4, 64)),
            Case("128", "1 grid of 128³", partial(_marching, 1, 128)),
        ),
    ),
    Operator(
        "detector",
        "DR-KFS' piecewise-linear detector, value and gradient",
        "Four terms of four filters of 21² with constant weights, gradient by the images.",
        (
            Case("64", "4 views of 64²", partial(_detector, 64, 4), quick=True),
            Case("256", "4 views of 256²", partial(_detector, 256, 4)),
        ),
    ),
    Operator(
        "matching",
        "DR-KFS' localised patch matching, value and gradient",
        "128 numbers a patch, a window of 3×3, gradients by both grids.",
        (
            Case("7", "4 views of 7² patches (128² px)", partial(_matching, 7, 4), quick=True),
            Case("15", "25 views of 15² patches (256² px)", partial(_matching, 15, 25)),
        ),
    ),
    Operator(
        "lfd",
        "Light Field Descriptor, comparison",
        "Distances of one descriptor to others, the least over 10 × 10 pairs of light fields and 60 rotations.",
        (
            Case("4", "1 against 4 descriptors", partial(_lfd_compare, 4), quick=True),
            Case("100", "1 against 100 descriptors", partial(_lfd_compare, 100)),
        ),
        on_gpu=False,
    ),
)
