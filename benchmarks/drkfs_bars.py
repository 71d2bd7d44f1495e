"""DR-KFS Table 5: does a deleted bar cost more than the same bar shifted by 5 pixels?

Two families of chairs at 256²: drawn ones (front view, bars of 3 to 6 pixels), and the project's procedural
ones (first bar part or back slat of each, one rendered view, shifted by 5 pixels of that view). For each chair and
descriptor: DR-KFS of the deletion against the larger of the two shifts (up, down), and the same for the pixels' MSE.

    python benchmarks/drkfs_bars.py --chairs 24 --out bars.json [--others ../shared/weights]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.cameras import softras_cameras
from reconlab.datasets.synth import generate, move_part, remove_part
from reconlab.features import HardNet, PatchExtractor, load_dense, load_detector, load_hardnet
from reconlab.kernels.patch_matching import match_patches
from reconlab.renderers import soft_rasterize
from reconlab.shapes import Mesh

SIZE, SHIFT = 256, 5


def drawn_chair(seed: int) -> tuple[Tensor, list[Tensor]]:
    """A chair from the front in grey on black, and its variants: bar deleted, bar 5 px up, bar 5 px down."""
    rng = np.random.default_rng(seed)
    centre = int(rng.integers(118, 138))
    half = int(rng.integers(38, 60))
    seat = int(rng.integers(120, 150))
    top = int(rng.integers(28, 60))
    floor = int(rng.integers(205, 235))
    post = int(rng.integers(5, 10))
    slats = int(rng.integers(0, 4))
    bar = int(rng.integers(3, 7))
    below = bool(rng.random() < 0.6)
    low, high = (seat + 25, floor - 20) if below else (top + 22, seat - 22)
    at = int(rng.integers(low, high))
    greys = rng.uniform(0.5, 1.0, 5)

    def draw(position: int | None) -> Tensor:
        image = np.zeros((SIZE, SIZE), np.float32)

        def fill(y0: float, y1: float, x0: float, x1: float, grey: float) -> None:
            image[int(y0) : int(y1), int(x0) : int(x1)] = grey

        if position is not None:
            fill(position, position + bar, centre - half, centre + half, greys[4])
        for side in (centre - half, centre + half - post):
            fill(top, seat, side, side + post, greys[0])
            fill(seat, floor, side, side + post, greys[1])
        fill(top, top + post + 2, centre - half, centre + half, greys[2])
        if below:
            for i in range(slats):
                x = centre - half + (i + 1) * 2 * half / (slats + 1)
                fill(top, seat, x - 2, x + 2, greys[0])
        fill(seat - 4, seat + 8, centre - half - 4, centre + half + 4, greys[3])
        blurred = F.avg_pool2d(torch.from_numpy(image)[None, None], 3, 1, 1)[0, 0]
        return 0.5 * torch.from_numpy(image) + 0.5 * blurred

    return draw(at), [draw(None), draw(at - SHIFT), draw(at + SHIFT)]


def synthetic_chair(seed: int) -> tuple[Tensor, list[Tensor]] | None:
    """The same of a procedural chair with a bar or slats; None for a chair without."""
    shape = generate("chair", seed)
    names = [p.name for p in shape if p.kind == "bar"] + [p.name for p in shape if "slat" in p.name]
    if not names:
        return None
    camera = softras_cameras(20.0, 15.0, half_fov=11.5).reshape(1)
    # Up by 5 pixels of the image plane at the chair's centre: 256 pixels see 2 tan(11.5°) · 2.732 units
    unit = SHIFT * 2 * np.tan(np.radians(11.5)) * 2.732 / SIZE
    images = []
    for variant in (
        shape,
        remove_part(shape, names[0]),
        move_part(shape, names[0], (0, unit, 0)),
        move_part(shape, names[0], (0, -unit, 0)),
    ):
        vertices, faces, _ = variant.mesh()
        mesh = Mesh(torch.from_numpy(vertices), torch.from_numpy(faces))
        view = soft_rasterize(mesh, camera, SIZE, sigma=3e-5, normals="flat").shaded
        assert view is not None
        images.append(view[0, 0])
    if float((images[1] - images[0]).abs().sum()) < 50:  # the bar is hidden in this view
        return None
    return images[0], images[1:]


class Other(nn.Module):
    """A descriptor of others in HardNet's place, of unit norm."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def fold(self) -> Other:
        """Nothing to fold."""
        return self

    def forward(self, patches: Tensor) -> Tensor:
        """``(P, 1, 32, 32)`` to ``(P, 128)``."""
        if len(patches) == 0:
            return patches.new_zeros(0, 128)
        return F.normalize(self.net(patches), dim=1)


def others(folder: Path) -> dict[str, nn.Module]:
    """TFeat networks of others as far as their files are in ``folder``."""
    from kornia.feature import TFeat

    out: dict[str, nn.Module] = {}
    for name, file in (("HardTFeat", "HardTFeat.pth"), ("TFeat-liberty", "tfeat-liberty.params")):
        if not (folder / file).is_file():
            continue
        state = torch.load(folder / file, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        net = TFeat(pretrained=False)
        own = net.state_dict()
        given = {k: v for k, v in state.items() if not k.startswith("SIFT")}
        # Same layers in the same order under other names; the classifier is a convolution in one of the files
        matched = {k: v.reshape(own[k].shape) for k, v in zip(own, given.values(), strict=True)}
        net.load_state_dict(matched)
        out[name] = Other(net.eval())
    return out


@torch.no_grad()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chairs", type=int, default=24)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--weights", default="bundled")
    parser.add_argument("--detector", default="bundled")
    parser.add_argument("--others", type=Path, default=None, help="folder with HardTFeat.pth, tfeat-liberty.params")
    parser.add_argument("--dense-weights", default="bundled")
    parser.add_argument("--only", nargs="+", help="names of descriptors")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    nets: dict[str, nn.Module] = {"HardNet": load_hardnet(given.weights), "random HardNet": HardNet().eval()}
    nets["dense"] = load_dense(given.dense_weights)
    nets |= others(given.others) if given.others else {}
    nets = {k: v for k, v in nets.items() if not given.only or k in given.only}
    detector = load_detector(given.detector)
    families: dict[str, list[tuple[Tensor, list[Tensor]]]] = {"drawn": [drawn_chair(i) for i in range(given.chairs)]}
    found, seed = [], 0
    while len(found) < given.chairs:
        chair = synthetic_chair(seed)
        seed += 1
        if chair is not None:
            found.append(chair)
    families["procedural"] = found

    results: dict[str, dict[str, dict[str, float]]] = {}
    for family, chairs in families.items():
        rows: dict[str, list[tuple[float, float]]] = {}
        for truth, variants in chairs:
            mse = [float((v - truth).square().mean()) for v in variants]
            rows.setdefault("MSE of pixels", []).append((mse[0], max(mse[1:])))
            stack = torch.stack(variants)
            for name, net in nets.items():
                extractor = PatchExtractor(detector, net)  # type: ignore[arg-type]
                one = extractor(truth[None])
                there = one.map(lambda x: x.expand(3, *x.shape[1:]))
                here = extractor(stack, like=there)
                for radius in (1, 0):
                    both = [match_patches(q.descriptors, k.descriptors, radius)[0] * q.weights
                            for q, k in ((here, there), (there, here))]  # fmt: skip
                    value = sum(x.sum(dim=(1, 2)) for x in both).tolist()
                    rows.setdefault(f"{name}, r={radius}", []).append((value[0], max(value[1:])))
        results[family] = {}
        for name, pairs in rows.items():
            ratios = np.array([d / s for d, s in pairs])
            results[family][name] = {
                "deletion_highest": float((ratios > 1).mean()),
                "median_ratio": float(np.median(ratios)),
                "chairs": len(pairs),
            }
            print(f"{family:11} {name:22} {results[family][name]}", flush=True)
    if given.out:
        given.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
