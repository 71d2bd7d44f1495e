"""DR-KFS' step, forward and backward to the vertices over 25 views, against a literal implementation of the paper.

Three parts: the time of a step as ratios (all in one process, in turns), the memory that one view keeps, and how well
each way of saving agrees with the loss as the paper has it. The literal implementation below is plain torch:
every patch of both sides unfolded and described with BatchNorm as trained, ground truth rendered and described anew
at each step, the graph kept through everything, the window as a stack of shifted copies.

    python benchmarks/drkfs_step.py --rounds 3 --out results/benchmarks/drkfs_step.json [--real DIR]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from harness import save, show
from scipy.stats import spearmanr
from torch import Tensor, nn
from trimesh.creation import icosphere

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.datasets.synth import CATEGORIES, generate
from reconlab.features import load_detector, load_hardnet
from reconlab.losses.drkfs import DRKFS, drkfs, target_features
from reconlab.losses.pixel_mse import PixelMSE
from reconlab.losses.silhouette_iou import SilhouetteIoU
from reconlab.losses.view_images import choose_views, render_views
from reconlab.shapes import Mesh
from reconlab.threads import limit_threads


class Literal(nn.Module):
    """DR-KFS of one view, as its equations are written.

    Args:
        constants: Take the weights w and a patch's mean and deviation for constants, as DRKFS does by default (and
            HardNet's authors for the latter), instead of sending gradients through all of it.
    """

    def __init__(self, constants: bool) -> None:
        super().__init__()
        self.constants = constants
        self.detector = load_detector().requires_grad_(False)
        self.hardnet = load_hardnet().requires_grad_(False)

    def score(self, image: Tensor) -> Tensor:
        """Eq. 1."""
        d = self.detector
        half = d.kernel // 2
        padded = F.pad(image[:, None], (half, half, half, half), mode="reflect")
        pieces = F.conv2d(padded, d.weight, d.bias).unflatten(1, (d.terms, d.pieces)).amax(dim=2)
        return pieces[:, 0] - pieces[:, 1] + pieces[:, 2] - pieces[:, 3]

    def describe(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Descriptors ``(gh, gw, 128)`` and weights ``(gh, gw)`` of one map."""
        patches = maps[0].unfold(0, 32, 16).unfold(1, 32, 16)
        grid = patches.shape[:2]
        patches = patches.reshape(-1, 1, 32, 32)
        weights = patches.mean(dim=(1, 2, 3)).clamp(min=0)
        source = patches.detach() if self.constants else patches
        std, mean = torch.std_mean(source, dim=(1, 2, 3), keepdim=True)
        x = self.hardnet.features((patches - mean) / (std + self.hardnet.eps)).flatten(1)
        x = x / (x.square().sum(dim=1, keepdim=True) + 1e-10).sqrt()
        return x.view(*grid, -1), (weights.detach() if self.constants else weights).view(grid)

    def one_way(self, query: Tensor, weights: Tensor, key: Tensor) -> Tensor:
        """Eq. 2 in a 3×3 window."""
        h, w = weights.shape
        padded = F.pad(key.permute(2, 0, 1), (1, 1, 1, 1), value=1e3).permute(1, 2, 0)
        shifted = [padded[dy : dy + h, dx : dx + w] for dy in range(3) for dx in range(3)]
        distances = torch.stack([(query - k).square().mean(dim=-1) for k in shifted])
        return (weights * distances.amin(dim=0)).sum()

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Views ``(1, H, W)`` of reconstruction and ground truth to a scalar."""
        here, there = self.score(image), self.score(target)
        low, high = there.amin(), there.amax()
        f, w = self.describe((here - low) / (high - low))
        g, u = self.describe((there - low) / (high - low))
        return self.one_way(f, w, g) + self.one_way(g, u, f)


def mesh_of(category: str, seed: int) -> Mesh:
    """A procedural shape."""
    vertices, faces, _ = generate(category, seed).mesh()
    return Mesh(torch.from_numpy(vertices), torch.from_numpy(faces))


def ball(like: Mesh, generator: torch.Generator, bumps: float = 0.1) -> Mesh:
    """An ellipsoid of 642 vertices in the box of a shape, with bumps: a reconstruction early in training."""
    sphere = icosphere(subdivisions=3)
    v = torch.tensor(sphere.vertices, dtype=torch.float32)
    half = (like.vertices.amax(dim=0) - like.vertices.amin(dim=0)) / 2
    waves = torch.sin(v @ (6 * torch.randn(3, 1, generator=generator)))
    return Mesh(v * half * (1 + bumps * waves), torch.tensor(sphere.faces))


def bent(mesh: Mesh, generator: torch.Generator, amount: float) -> Mesh:
    """The shape stretched along its axes and bent by a smooth wave, both by up to about ``amount``."""
    scale = 1 + amount * (2 * torch.rand(3, generator=generator) - 1)
    wave = torch.sin(mesh.vertices @ (5 * torch.randn(3, 3, generator=generator)))
    return Mesh(mesh.vertices * scale + 0.3 * amount * wave, mesh.faces)


def batch_of(truth: Mesh, name: str = "0") -> Batch:
    """A batch of one."""
    return Batch(ids=[name], categories=["shape"], mesh=truth)


def leaf(mesh: Mesh) -> Mesh:
    """The mesh with a fresh gradient."""
    return Mesh(mesh.vertices.detach().clone().requires_grad_(), mesh.faces)


def literal_step(net: Literal, loss: DRKFS, mesh: Mesh, truth: Mesh) -> Tensor:
    """Value; the gradient is left on ``mesh.vertices``. View by view, else 25 views would not fit into 24 GB."""
    total = torch.zeros(())
    for v in range(25):
        camera: Cameras = loss.cameras[[v]]
        value = net(*(render_views(m, camera, loss.render)[0] for m in (mesh, truth))) / 25
        value.backward()
        total += value.detach()
    return total


def drkfs_step(loss: DRKFS, mesh: Mesh, batch: Batch, views: list[int] | None = None) -> Tensor:
    """Value over the views (all, if None); the gradient is left on ``mesh.vertices``."""
    recon, truth = loss.per_view(mesh, batch, list(range(25)) if views is None else views)
    value = (recon + truth).mean()
    value.backward()
    return value.detach()


def cost(size: int, half_fov: float, rounds: int, weights: str) -> dict[str, Any]:
    """Seconds of a step over 25 views, with value and gradient against the literal one."""
    truth = mesh_of("chair", 1)
    start = ball(truth, torch.Generator().manual_seed(0), bumps=0.0)
    batch = batch_of(truth)
    settings: dict[str, Any] = {"image_size": size, "half_fov": half_fov}
    loss, bf16 = DRKFS(**settings), DRKFS(**settings, bf16=True)
    dense = DRKFS(**settings, descriptor="dense", weights=weights)
    mse = PixelMSE(images="shaded", views_per_step=None, image_size=size, half_fov=half_fov)
    literal, through = Literal(constants=True), Literal(constants=False)
    four = choose_views(25, 4, seed=0, step=0)

    def pixels(mesh: Mesh) -> Tensor:
        value = mse(mesh, batch)["loss"]
        value.backward()
        return value.detach()

    steps: dict[str, Callable[[Mesh], Tensor]] = {
        "literal": lambda mesh: literal_step(literal, loss, mesh, truth),
        "exact": lambda mesh: drkfs_step(loss, mesh, batch),
        "exact, bf16": lambda mesh: drkfs_step(bf16, mesh, batch),
        "exact, 4 views": lambda mesh: drkfs_step(loss, mesh, batch, four),
        "dense": lambda mesh: drkfs_step(dense, mesh, batch),
        "dense, 4 views": lambda mesh: drkfs_step(dense, mesh, batch, four),
        "PixelMSE, shaded, 25 views": pixels,
    }
    values, gradients = {}, {}
    if size < 256:
        steps["literal, all gradients"] = lambda mesh: literal_step(through, loss, mesh, truth)
    for name, step in steps.items():  # also warms up, and fills the caches of the truth's features
        mesh = leaf(start)
        values[name], gradients[name] = float(step(mesh)), mesh.vertices.grad
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            begin = time.process_time()
            step(leaf(start))
            times[name].append(time.process_time() - begin)
    seconds = {name: statistics.median(t) for name, t in times.items()}
    record = show(f"{size}² px, half_fov {half_fov}°: a step over 25 views", seconds)
    record["times_cheaper"] = {k: seconds["literal"] / s for k, s in seconds.items()}
    record["rounds"] = rounds
    record["values"] = values
    record["gradient_cosine"] = {k: cosine(g, gradients["literal"]) for k, g in gradients.items()}
    print("  times cheaper", record["times_cheaper"])
    print("  values", values, "\n  cosines", record["gradient_cosine"], flush=True)
    return record


def cosine(a: Tensor | None, b: Tensor | None) -> float:
    """Of two gradients as long vectors."""
    assert a is not None
    assert b is not None
    return float(F.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


def memory(weights: str) -> list[dict[str, Any]]:
    """Bytes that the graph of one view keeps for the backward pass, each storage counted once."""
    truth = mesh_of("chair", 1)
    start = ball(truth, torch.Generator().manual_seed(0), bumps=0.0)
    rows = []
    for size in (64, 128, 256):
        loss = DRKFS(image_size=size)
        parts: dict[str, Callable[[Mesh], Any]] = {
            "render alone": lambda m, loss=loss: render_views(m, loss.cameras[[5]], loss.render),
            "literal": lambda m, loss=loss: Literal(True)(
                *(render_views(x, loss.cameras[[5]], loss.render)[0] for x in (m, truth))
            ),
        }
        for kind in ("exact", "dense"):
            this = DRKFS(image_size=size, descriptor=kind, weights=weights if kind == "dense" else "bundled")
            parts[kind] = lambda m, this=this: this.per_view(m, batch_of(truth), [5])
        row = {"case": f"{size}², MB kept for the backward pass of one view"}
        for name, run in parts.items():
            kept: dict[int, int] = {}

            def note(t: Tensor, kept: dict[int, int] = kept) -> Tensor:
                kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
                return t

            with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
                alive = run(leaf(start))  # until counted, so that no address is given twice
            row[name] = round(sum(kept.values()) / 1e6, 2)
            del alive
        print(row, flush=True)
        rows.append(row)
    return rows


def pairs(targets: int, real: Path | None) -> Iterator[tuple[str, Mesh, list[tuple[str, Mesh]]]]:
    """True shapes, each with six reconstructions from near to far."""
    generator = torch.Generator().manual_seed(0)
    files = sorted(real.glob("*/*/mesh.npz")) if real else []
    if files:
        chosen = [files[i] for i in torch.randperm(len(files), generator=generator)[: targets + 1].tolist()]
        truths = [(f.parent.name, real_mesh(f)) for f in chosen]
    else:
        truths = [(f"{c}{i}", mesh_of(c, 2000 + i)) for i in range(-(-targets // 4) + 1) for c in CATEGORIES]
    for i, (name, truth) in enumerate(truths[:targets]):
        other = truths[(i + (1 if files else 4)) % len(truths)][1]
        unlike = truths[(i + (2 if files else 1)) % len(truths)][1]
        yield (
            name,
            truth,
            [
                ("bent 3 %", bent(truth, generator, 0.03)),
                ("bent 10 %", bent(truth, generator, 0.10)),
                ("bent 25 %", bent(truth, generator, 0.25)),
                ("ellipsoid", ball(truth, generator)),
                ("another of its kind", other),
                ("of another kind", unlike),
            ],
        )


def real_mesh(path: Path) -> Mesh:
    """A mesh of a built dataset."""
    stored = np.load(path)
    return Mesh(torch.tensor(stored["vertices"]).float(), torch.tensor(stored["faces"]).long())


def agreement(targets: int, size: int, real: Path | None, weights: str, gradients_of: int = 3) -> dict[str, Any]:
    """Rank correlation over pairs, and cosines of gradients, with the exact loss over all 25 views."""
    exact = DRKFS(image_size=size, half_fov=11.5)
    losses = {"exact": exact, "dense": DRKFS(image_size=size, half_fov=11.5, descriptor="dense", weights=weights)}
    iou = SilhouetteIoU(views_per_step=None, image_size=size, half_fov=11.5)
    mse = PixelMSE(images="shaded", views_per_step=None, image_size=size, half_fov=11.5)
    values: dict[str, list[float]] = {}
    cosines: dict[str, list[float]] = {}
    step = 0
    for at, (name, truth, recons) in enumerate(pairs(targets, real)):
        batch = batch_of(truth, name)
        with torch.no_grad():
            true_views = render_views(truth, exact.cameras, exact.render)
            features = {k: target_features(true_views[0], x.extractor) for k, x in losses.items()}
        for kind, recon in recons:
            step += 1
            four = choose_views(25, 4, seed=0, step=step)
            with torch.no_grad():
                views = render_views(recon, exact.cameras, exact.render)
                for key, loss in losses.items():
                    found_views = drkfs(views, features[key], loss.extractor, exact.radius)[0]
                    values.setdefault(key, []).append(float(found_views.mean()))
                    values.setdefault(f"{key}, 4 views", []).append(float(found_views[four].mean()))
                values.setdefault("MSE of shaded pixels", []).append(float((views - true_views).square().mean()))
            if at < gradients_of and kind in ("bent 10 %", "bent 25 %", "ellipsoid", "another of its kind"):
                found: dict[str, Tensor | None] = {}
                for key, loss in losses.items():
                    for name_of_views, chosen in (("", None), (", 4 views", four)):
                        mesh = leaf(recon)
                        drkfs_step(loss, mesh, batch, chosen)
                        found[key + name_of_views] = mesh.vertices.grad
                for key, simple in (("silhouette IoU", iou), ("MSE of shaded pixels", mse)):
                    mesh = leaf(recon)
                    simple(mesh, batch)["loss"].backward()
                    found[key] = mesh.vertices.grad
                for key, gradient in found.items():
                    cosines.setdefault(key, []).append(cosine(gradient, found["exact"]))
                cosines.setdefault("dense, 4 views to exact, the same 4", []).append(
                    cosine(found["dense, 4 views"], found["exact, 4 views"])
                )
        print(f"{at + 1} of {targets}", flush=True)
    reference = np.array(values["exact"])
    per_target = reference.reshape(-1, 6)
    out: dict[str, Any] = {"pairs": len(reference), "size": size, "shapes": "real" if real else "procedural"}
    for key, list_of_values in values.items():
        v = np.array(list_of_values)
        within = [spearmanr(a, b).statistic for a, b in zip(v.reshape(-1, 6), per_target, strict=True)]
        out[key] = {
            "spearman": float(spearmanr(v, reference).statistic),
            "spearman_within_target": float(np.mean(within)),
            "median_ratio": float(np.median(v / reference)),
        }
        print(f"{key:26} {out[key]}", flush=True)
    out["gradient_cosine"] = {
        k: {"median": float(np.median(v)), "least": float(np.min(v)), "count": len(v)} for k, v in cosines.items()
    }
    print(out["gradient_cosine"], flush=True)
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, after one to warm up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--targets", type=int, default=20, help="true shapes of the agreement, six pairs each")
    parser.add_argument("--real", type=Path, help="a built dataset for the agreement, besides procedural shapes")
    parser.add_argument("--size", type=int, default=128, help="pixels of the agreement's views")
    parser.add_argument("--dense-weights", default="bundled")
    parser.add_argument("--parts", nargs="+", default=["cost", "memory", "agreement"])
    options = parser.parse_args()
    limit_threads(options.threads)
    records: list[dict[str, Any]] = []
    if "memory" in options.parts:
        records += memory(options.dense_weights)
    if "cost" in options.parts:
        for size, half_fov in ((256, 15.0), (128, 11.5)):
            records.append(cost(size, half_fov, options.rounds, options.dense_weights))
    if "agreement" in options.parts:
        records.append(agreement(options.targets, options.size, None, options.dense_weights))
        if options.real:
            records.append(agreement(options.targets, options.size, options.real, options.dense_weights))
    records.append({"peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
    save(records, options)


if __name__ == "__main__":
    main()
