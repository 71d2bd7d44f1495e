"""Every Triton kernel on a real GPU, at full size: is it right, is it repeatable, does it wait, how fast is it?

One run on a machine with a GPU; nothing is built and nothing downloaded::

    python benchmarks/gpu_check.py --out results/benchmarks/gpu_check.json

For each operator and size: value and gradients against the torch reference in float64 (root mean square of the error
over that of the truth, the largest of the tensors); whether two runs give the same bits, by themselves and in torch's
deterministic mode; how often a call makes the host wait; and the time between CUDA events, in turns within one
process, of ours, the torch reference in float32 and ``torch.compile`` of it, against the roofline: the operations at
the GPU's peak rate or the bytes at its bandwidth, whichever takes longer. ``reconlab bench --gpu FILE`` puts the JSON
into the benchmark page. Exit status 1 if an answer is wrong.

Without a GPU, ``TRITON_INTERPRET=1 python benchmarks/gpu_check.py --device cpu --tiny`` runs the same code on small
inputs in Triton's interpreter; its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reconlab.bench import scenes
from reconlab.bench.case import Answer, difference
from reconlab.bench.gpu import answers, peaks, use
from reconlab.bench.machine import context
from reconlab.bench.timing import WALL, CudaClock, interleave, spread

Work = tuple[float, float]


@dataclass(frozen=True)
class Check:
    """One operator at one size.

    Attributes:
        operator: Its folder in ``reconlab/kernels``.
        case: The size, in words.
        run: A backend's name and the dtype of the inputs to value and gradients.
        work: Operations and bytes that it cannot do without.
        tolerance: Largest error.
        double: Whether the operations are in float64.
    """

    operator: str
    case: str
    run: Callable[[str, torch.dtype], Answer]
    work: Work
    tolerance: float
    double: bool = False


def added(*parts: Work) -> Work:
    """Work of passes one after the other."""
    return sum(p[0] for p in parts), sum(p[1] for p in parts)


def soft(device: str, subdivisions: int, size: int, views: int, shaded: bool, back: bool) -> Check:
    """Soft rasterisation of an ellipsoid."""
    from reconlab.cameras import hemisphere_views
    from reconlab.kernels.soft_rasterize import soft_rasterize
    from reconlab.kernels.soft_rasterize.cuda import work
    from reconlab.kernels.soft_rasterize.reference import Settings, pixel_boxes

    xyz, splits, grey = scenes.screen_faces(subdivisions, hemisphere_views()[:views])
    settings = Settings(size, size, 1e-4, 1e-3, 1.0, 5.0, 1e-3, 1e-5)
    boxes = pixel_boxes(xyz, size, size, settings.radius)
    pairs = int((boxes[:, 2] * boxes[:, 3]).sum())
    parts = [work(pairs, len(xyz), views * size**2, shaded, way) for way in ((False, True) if back else (False,))]
    xyz, grey = xyz.to(device), grey.to(device)

    def run(backend: str, kind: torch.dtype) -> Answer:
        shades = grey.to(kind) if shaded else None

        def image(x: Tensor) -> Tensor:
            out = soft_rasterize(x, splits, size, shades, near=1.0, far=5.0, backend=backend)  # type: ignore[arg-type]
            return (out.alpha if out.shade is None else out.alpha * out.shade).square()

        if back:
            return scenes.gradient_of(image, xyz.to(kind))
        with torch.no_grad():
            return (image(xyz.to(kind)),)

    name = f"{'shaded' if shaded else 'silhouette'}{', with gradient' if back else ''}"
    case = f"{name}, {20 * 4**subdivisions} faces, {size}², {views} views"
    return Check("soft_rasterize", case, run, added(*parts), 1e-2 if shaded else 1e-3)


def zbuffer(device: str, subdivisions: int, size: int, views: int) -> Check:
    """Depth and face of each pixel."""
    from reconlab.cameras import orbit_views
    from reconlab.kernels.soft_rasterize.reference import pixel_boxes
    from reconlab.kernels.zbuffer import zbuffer as draw
    from reconlab.kernels.zbuffer.cuda import work

    xyz, splits, _ = scenes.screen_faces(subdivisions, orbit_views(views))
    boxes = pixel_boxes(xyz, size, size, 0.0)
    xyz = xyz.to(device)

    def run(backend: str, kind: torch.dtype) -> Answer:
        out = draw(xyz, splits, size, backend=backend)  # type: ignore[arg-type]
        return torch.where(out.face >= 0, out.depth, 0.0), out.face.float()

    pairs = int((boxes[:, 2] * boxes[:, 3]).sum())
    case = f"{20 * 4**subdivisions} faces, {size}², {views} views"
    return Check("zbuffer", case, run, work(pairs, len(xyz), views * size**2), 1e-6, double=True)


def nearest(device: str, batch: int, count: int) -> Check:
    """Chamfer's search, with the gradient by both clouds."""
    from reconlab.kernels.nearest import nearest as search
    from reconlab.kernels.nearest.cuda import work

    source, target = (scenes.surface(batch, count, i).to(device) for i in (0, 1))

    def run(backend: str, kind: torch.dtype) -> Answer:
        return scenes.gradient_of(
            lambda s, t: search(s, t, backend=backend)[0],  # type: ignore[arg-type]
            source.to(kind),
            target.to(kind),
        )

    gradient = (0.0, 12.0 * batch * count * 4 + 12.0 * batch * count)  # both clouds, both gradients, index, upstream
    return Check("nearest", f"{batch} × {count}²", run, added(work(batch, count, count), gradient), 1e-4)


def pairwise(device: str, images: int, count: int) -> Check:
    """DRWR's repulsion, value and force."""
    from reconlab.kernels.pairwise import pairwise_repulsion
    from reconlab.kernels.pairwise.cuda import work

    points, weights, bias = (x.to(device) for x in scenes.disc(images, count, torch.Generator().manual_seed(0)))

    def run(backend: str, kind: torch.dtype) -> Answer:
        def value(p: Tensor) -> Tensor:
            return pairwise_repulsion(p, weights.to(kind), bias.to(kind), backend=backend)  # type: ignore[arg-type]

        return scenes.gradient_of(value, points.to(kind))

    return Check("pairwise", f"{images} images, J = {count}", run, work(images, count), 1e-4)


def splat(device: str, images: int, count: int, size: int) -> Check:
    """DPC's renderer, with the gradient by the positions."""
    from reconlab.kernels.splat import splat_silhouettes
    from reconlab.kernels.splat.cuda import work

    cloud = scenes.shell(images, count, torch.Generator().manual_seed(0)).to(device)
    position = (cloud + 0.5) * size - 0.5
    extent = tuple(int(n) for n in (position.amax((0, 1)) - position.amin((0, 1))).ceil().tolist())
    reach = min(10, int(1.6 * 6.4))

    def run(backend: str, kind: torch.dtype) -> Answer:
        def image(p: Tensor) -> Tensor:
            return splat_silhouettes(p, size, 1.6, backend=backend)  # type: ignore[arg-type]

        return scenes.gradient_of(image, position.to(kind))

    parts = [work(images, count, size, reach, extent, way) for way in (False, True)]  # type: ignore[arg-type]
    return Check("splat", f"{images} images, J = {count}, {size}³", run, added(*parts), 2e-3)


def matching(device: str, images: int, grid: int, radius: int) -> Check:
    """DR-KFS' Eq. 2, with the gradient by both grids."""
    from reconlab.kernels.patch_matching import match_patches
    from reconlab.kernels.patch_matching.cuda import work

    g = torch.Generator().manual_seed(0)
    query, key = (torch.randn(images, grid, grid, 128, generator=g).to(device) for _ in range(2))

    def run(backend: str, kind: torch.dtype) -> Answer:
        def distance(q: Tensor, k: Tensor) -> Tensor:
            return match_patches(q, k, radius, backend=backend)[0]  # type: ignore[arg-type]

        return scenes.gradient_of(distance, query.to(kind), key.to(kind))

    gradient = (0.0, 4.0 * 128 * 4 * images * grid**2)
    case = f"{images} views of {grid}² patches, {2 * radius + 1}² windows"
    return Check("patch_matching", case, run, added(work(images, grid, grid, 128, radius), gradient), 1e-4)


def detector(device: str, images: int, size: int) -> Check:
    """DR-KFS' Eq. 1, with the gradient by the images."""
    from reconlab.features import load_detector
    from reconlab.kernels.piecewise_linear import piecewise_linear
    from reconlab.kernels.piecewise_linear.cuda import work

    net = load_detector().requires_grad_(False).to(device)
    side = size + net.kernel - 1
    pictures = torch.rand(images, 1, side, side, generator=torch.Generator().manual_seed(0)).to(device)

    def run(backend: str, kind: torch.dtype) -> Answer:
        def score(x: Tensor) -> Tensor:
            filters = (p.to(kind) for p in (net.weight, net.bias, net.signs))
            return piecewise_linear(x, *filters, backend=backend)  # type: ignore[arg-type]

        return scenes.gradient_of(score, pictures.to(kind))

    sizes = (images, side, side, net.kernel, net.terms, net.pieces)
    parts = added(work(*sizes), work(*sizes, True))
    # Where two pieces are next to equal, rounding picks: torch's own float32 is 1e-3 off in the gradient.
    return Check("piecewise_linear", f"{images} views of {size}²", run, parts, 5e-3)


Build = Callable[[str], Check]

FULL: tuple[tuple[str, Build], ...] = (
    *(
        ("soft_rasterize", partial(soft, subdivisions=s, size=n, views=25, shaded=shaded, back=back))
        for s, n in ((3, 64), (3, 256), (4, 256))
        for shaded in (False, True)
        for back in (False, True)
    ),
    ("zbuffer", partial(zbuffer, subdivisions=3, size=256, views=24)),
    ("zbuffer", partial(zbuffer, subdivisions=5, size=256, views=24)),
    ("nearest", partial(nearest, batch=32, count=2500)),
    ("nearest", partial(nearest, batch=32, count=16384)),
    *(("pairwise", partial(pairwise, images=16, count=j)) for j in (2000, 8000, 16000)),
    *(("splat", partial(splat, images=16, count=j, size=v)) for j, v in ((2000, 32), (8000, 64), (16000, 128))),
    ("patch_matching", partial(matching, images=200, grid=15, radius=1)),
    ("piecewise_linear", partial(detector, images=25, size=256)),
)
TINY: tuple[tuple[str, Build], ...] = (
    ("soft_rasterize", partial(soft, subdivisions=0, size=12, views=1, shaded=False, back=True)),
    ("soft_rasterize", partial(soft, subdivisions=0, size=12, views=1, shaded=True, back=True)),
    ("zbuffer", partial(zbuffer, subdivisions=0, size=12, views=1)),
    ("nearest", partial(nearest, batch=1, count=40)),
    ("pairwise", partial(pairwise, images=1, count=40)),
    ("splat", partial(splat, images=1, count=30, size=8)),
    ("patch_matching", partial(matching, images=1, grid=3, radius=1)),
    ("piecewise_linear", partial(detector, images=1, size=6)),
)


def roofline_ms(check: Check, peak: dict[str, float] | None) -> float | None:
    """Least milliseconds of the operations or of the bytes, whichever is more."""
    if peak is None:
        return None
    operations, moved = check.work
    return 1e3 * max(operations / peak["float64" if check.double else "float32"], moved / peak["bytes"])


def repeatable(run: Callable[[], Answer], deterministic: bool) -> bool:
    """Whether two runs give the same bits."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    try:
        first, second = run(), run()
    finally:
        torch.use_deterministic_algorithms(before)
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def waits(run: Callable[[], Answer]) -> int | None:
    """How often a call makes the host wait for the GPU; None without one."""
    if not torch.cuda.is_available():
        return None
    run()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(w.message) for w in caught)


def examine(check: Check, options: argparse.Namespace, peak: dict[str, float] | None) -> dict[str, Any]:
    """One row: errors, repeatability, waits, times."""
    row: dict[str, Any] = {"operator": check.operator, "case": check.case, "tolerance": check.tolerance}
    ours = partial(check.run, "cuda", torch.float32)
    reference = partial(check.run, "reference", torch.float32)
    try:
        error = difference(ours(), check.run("reference", torch.float64))
        row |= {"error": error, "right": error <= check.tolerance}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own operations without a deterministic way
            row |= {"same_bits": repeatable(ours, False), "same_bits_deterministic": repeatable(ours, True)}
        row["waits"] = waits(ours)
    except Exception as problem:  # the other kernels are still worth a look
        return row | {"right": False, "problem": f"{type(problem).__name__}: {problem}"[:500]}
    functions: dict[str, Callable[[], Any]] = {"ours": ours, "reference": reference}
    if options.compile:
        compiled = torch.compile(reference)
        try:
            compiled()
            functions["compiled"] = compiled
        except Exception as problem:
            row["problem_compiled"] = f"{type(problem).__name__}: {problem}"[:200]
    clock = CudaClock() if options.device.startswith("cuda") else WALL
    times = {k: spread(v) for k, v in interleave(functions, options.rounds, clock, budget=8.0, warm=True).items()}
    row |= {f"{k}_ms": 1e3 * s.median for k, s in times.items()}
    row |= {f"{k}_ms_quartiles": [1e3 * s.low, 1e3 * s.high] for k, s in times.items()}
    row["roofline_ms"] = roofline_ms(check, peak)
    row["operations"], row["bytes"] = check.work
    for key in ("reference", "compiled", "roofline"):
        if row.get(f"{key}_ms") is not None:
            row[f"ratio_{key}"] = row[f"{key}_ms"] / row["ours_ms"]
    return row


HEAD = f"{'operator and case':<68}{'error':>9}{'bits':>6}{'waits':>6}{'ours':>11}{'ref.':>8}{'comp.':>8}{'roof':>7}"


def line(row: dict[str, Any]) -> str:
    """A row of the table: ratios to ours, except ours, which is in ms."""
    name = f"{row['operator']}: {row['case']}"[:67]
    if "problem" in row:
        return f"{name:<68}FAILED: {' '.join(row['problem'].split())[:120]}"

    def ratio(key: str) -> str:
        value = row.get(f"ratio_{key}")
        return "–" if value is None else f"{value:.3g}"

    bits = "=" if row["same_bits"] else "(=)" if row["same_bits_deterministic"] else "≠"
    error = f"{row['error']:.1e}{'' if row['right'] else '!'}"
    count = "–" if row["waits"] is None else str(row["waits"])
    return (
        f"{name:<68}{error:>9}{bits:>6}{count:>6}{row['ours_ms']:>8.3f} ms{ratio('reference'):>8}"
        f"{ratio('compiled'):>8}{ratio('roofline'):>7}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Check, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the JSON here, after every operator")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 …, or cpu under TRITON_INTERPRET=1")
    parser.add_argument("--only", nargs="+", choices=sorted({n for n, _ in FULL}), help="some of the operators")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tiny", action="store_true", help="small inputs")
    parser.add_argument("--compile", action="store_true", help="torch.compile the references too: minutes")
    options = parser.parse_args(argv)
    if options.device.startswith("cuda"):
        if not torch.cuda.is_available():
            parser.error("there is no GPU here; TRITON_INTERPRET=1 … --device cpu --tiny runs without one")
        use(options.device)
    torch.backends.cudnn.allow_tf32 = False  # a float32 reference that is one
    peak = peaks()
    record: dict[str, Any] = {**context(0, 1), "peak": peak, "rounds": options.rounds, "results": []}
    record["machine"]["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    print(f"{record['machine']['gpu'] or 'no GPU'}, torch {torch.__version__}\n{HEAD}", flush=True)
    for name, build in TINY if options.tiny else FULL:
        if options.only and name not in options.only:
            continue
        row = examine(build(options.device), options, peak)
        record["results"].append(row)
        print(line(row), flush=True)
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(record, indent=1) + "\n")
        if "problem" in row and not answers():
            print("The GPU answers no more; --only takes the other operators into a process of their own.")
            break
    wrong = [r for r in record["results"] if not r["right"]]
    print(f"{len(record['results']) - len(wrong)} of {len(record['results'])} right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
