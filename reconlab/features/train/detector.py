"""Trains the piecewise-linear detector: LIFT's hinge on corners that repeat between views."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from reconlab.features.detector import PiecewiseLinearDetector
from reconlab.features.train.patches import ViewPair, corners, cut, transfer, uniform

log = logging.getLogger(__name__)
WINDOW = 7  # the score of a point is the soft maximum over this many pixels a side


def detector_windows(
    pairs: Sequence[ViewPair], kernel: int, generator: torch.Generator, per_view: int = 8
) -> dict[str, Tensor]:
    """Windows of ``kernel + 6`` pixels: ``first`` and ``second`` of a repeated corner, and ``none`` without one.

    A corner repeats when the second view has a corner within 2 pixels of where the first one's surface point is.
    Half of ``none`` are 6 to 12 pixels beside a corner, so mostly on its edges; the others anywhere on or
    near the object, 6 pixels or more from every corner.

    Returns:
        Three tensors ``(N, s, s)`` of one length.
    """
    size = kernel + WINDOW - 1
    out: dict[str, list[Tensor]] = {"first": [], "second": [], "none": []}
    for pair in pairs:
        here, there = corners(pair.grey[0], 60), corners(pair.grey[1], 60)
        if len(here) == 0 or len(there) == 0:
            continue
        at, seen = transfer(pair, here)
        gap, nearest = torch.cdist(at, there.float()).min(dim=1)
        good = (seen & (gap < 2.0)).nonzero().squeeze(1)[:per_view]
        if len(good) == 0:
            continue
        height, width = pair.grey[0].shape
        near_object = (pair.grey[0] > 0).nonzero().float()
        candidates = []
        for i in range(40 * len(good)):
            if i % 2:
                angle, radius = uniform(generator, 0, 6.2832), uniform(generator, 6, 12)
                base = here[good[i // 2 % len(good)]].float()
                step = torch.tensor([angle]).sin() * radius, torch.tensor([angle]).cos() * radius
                candidates.append(base + torch.cat(step))
            else:
                pick = int(torch.randint(len(near_object), (), generator=generator))
                candidates.append(near_object[pick] + 8 * torch.randn(2, generator=generator))
        none = torch.stack(candidates)
        # Weak corners count here too: a 'none' must be none by any standard
        weak = corners(pair.grey[0], 1000, margin=1, quality=0.01).float()
        limit = torch.tensor([height - 1.0, width - 1.0])
        fits = (torch.cdist(none, weak).amin(dim=1) >= 6) & ((none >= 0) & (none <= limit)).all(dim=1)
        none = none[fits][: len(good)]
        if len(none) < len(good):
            good = good[: len(none)]
        out["first"].append(cut(pair.grey[0], here[good].float(), size))
        out["second"].append(cut(pair.grey[1], there[nearest[good]].float(), size))
        out["none"].append(cut(pair.grey[0], none, size))
    return {k: torch.cat(v) for k, v in out.items()}


def soft_maximum(scores: Tensor, strength: float = 10.0) -> Tensor:
    """``Σ softmax(strength · s) s`` over a map ``(M, 1, h, w)``: LIFT's pooled score, ``(M,)``."""
    flat = scores.flatten(1)
    return (torch.softmax(strength * flat, dim=1) * flat).sum(dim=1)


def hinge(first: Tensor, second: Tensor, none: Tensor) -> Tensor:
    """Squared hinge: corners above 1, the rest below -1, each side with half the weight."""
    positive = torch.relu(1 - first).square().mean() + torch.relu(1 - second).square().mean()
    return positive / 4 + torch.relu(1 + none).square().mean() / 2


def train_detector(
    windows: dict[str, Tensor],
    iterations: int,
    seed: int,
    kernel: int = 21,
    batch: int = 256,
    rate: float = 2e-3,
) -> tuple[PiecewiseLinearDetector, list[float]]:
    """Train from a random start with Adam and a linearly falling rate; left-right flips as augmentation.

    Returns:
        The detector in eval mode and the loss at each iteration.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = PiecewiseLinearDetector(kernel=kernel)
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    curve = []
    count = len(windows["first"])
    for step in range(iterations):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / iterations)
        chosen = torch.randint(count, (batch,), generator=generator)
        stack = torch.cat([windows[k][chosen] for k in ("first", "second", "none")]).unsqueeze(1)
        if uniform(generator, 0, 1) < 0.5:
            stack = stack.flip(-1)
        first, second, none = soft_maximum(net(stack, padded=False)).chunk(3)
        repeat = (first - second).square().mean()
        loss = hinge(first, second, none) + 0.1 * repeat
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        curve.append(float(loss.detach()))
        if step % 100 == 0:
            log.info("detector %d/%d: loss %.3f", step, iterations, curve[-1])
    return net.eval(), curve


@torch.no_grad()
def measure_range(net: PiecewiseLinearDetector, pairs: Sequence[ViewPair]) -> None:
    """Store the mean lowest and highest score of views as the detector's reference range."""
    low = high = 0.0
    for pair in pairs:
        flat = net(pair.grey.unsqueeze(1)).flatten(1)
        low += float(flat.amin(dim=1).mean()) / len(pairs)
        high += float(flat.amax(dim=1).mean()) / len(pairs)
    net.reference_range.copy_(torch.tensor([low, high]))


@torch.no_grad()
def separation(net: PiecewiseLinearDetector, windows: dict[str, Tensor]) -> float:
    """Area under the ROC curve of corners against non-corners on windows that were held out."""
    good = soft_maximum(net(windows["first"].unsqueeze(1), padded=False))
    none = soft_maximum(net(windows["none"].unsqueeze(1), padded=False))
    return float((good[:, None] > none[None, :]).float().mean())
