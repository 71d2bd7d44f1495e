"""Trains HardNet with its hardest-in-batch triplet loss, and measures a descriptor as a matcher."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.features.detector import PiecewiseLinearDetector, poi_map, score_range
from reconlab.features.hardnet import HardNet
from reconlab.features.train.patches import ViewPair, corners, cut, spread, transfer, uniform

log = logging.getLogger(__name__)


@torch.no_grad()
def patch_pairs(
    pairs: Sequence[ViewPair],
    detector: PiecewiseLinearDetector,
    generator: torch.Generator,
    per_pair: int = 16,
    jitter: float = 3.0,
) -> Tensor:
    """Patches around the same surface point in two views, of the render and of its PoI map.

    Half of the points are corners, half any on the object; the patch is centred up to 10 pixels beside them (by
    the same offset in both views), since the loss' grid does not know corners either, and by up to ``jitter``
    pixels differently in the second view. Patches without texture in either source are left out. Points of one
    view are 12 pixels apart at least.

    Args:
        pairs: Views.
        detector: Gives the PoI maps; both views are scaled by the first's range, as in the loss.
        generator: Of every random choice.
        per_pair: Points per pair of views, at most.
        jitter: In pixels.

    Returns:
        ``(N, 2 sources, 2 views, 32, 32)`` float16: sources are render and PoI map.
    """
    out = []
    for pair in pairs:
        scores = detector(pair.grey.unsqueeze(1))
        low, high = score_range(scores[:1], detector.reference_range)
        maps = poi_map(scores, low.expand(2), high.expand(2))[:, 0]
        on = torch.isfinite(pair.depth[0]).nonzero()
        some = on[torch.randperm(len(on), generator=generator)[:200]]
        corner = corners(pair.grey[0], per_pair)
        points = torch.cat([corner[torch.randperm(len(corner), generator=generator)][: per_pair // 2], some])
        points = points[spread(points, 12.0, 2 * per_pair)]
        at, seen = transfer(pair, points)
        points, at = points[seen].float(), at[seen]
        offset = 20 * torch.rand(len(points), 2, generator=generator) - 10
        slip = jitter * (2 * torch.rand(len(points), 2, generator=generator) - 1)
        patches = torch.stack(
            [
                torch.stack([cut(source[0], points + offset), cut(source[1], at + offset + slip)], dim=1)
                for source in (pair.grey, maps)
            ],
            dim=1,
        )
        textured = (patches.std(dim=(-2, -1)) > 0.02).all(dim=2).all(dim=1)
        out.append(patches[textured][:per_pair].half())
    return torch.cat(out)


def hardest_in_batch(anchor: Tensor, positive: Tensor) -> Tensor:
    """HardNet's loss: ``mean relu(1 + d(a_i, p_i) - d(nearest wrong))``.

    The nearest wrong one is the least over row and column i of the distances ``sqrt(2 - 2 a_i·p_j)``, leaving
    out the pair itself and those nearer than 0.008, which are taken for the same patch.

    Args:
        anchor: ``(P, 128)`` unit vectors.
        positive: ``(P, 128)`` unit vectors.

    Returns:
        Scalar.
    """
    distance = (2 - 2 * anchor @ positive.T + 1e-6).clamp(min=1e-6).sqrt()
    own = distance.diagonal()
    wrong = distance + 10 * torch.eye(len(distance)) + 10 * (distance.detach() < 0.008)
    nearest = torch.minimum(wrong.amin(dim=0), wrong.amin(dim=1))
    return torch.relu(1 + own - nearest).mean()


def augment(patches: Tensor, generator: torch.Generator) -> Tensor:
    """A random flip and quarter turn, one for the whole stack ``(..., 32, 32)``, so the same for both views."""
    if uniform(generator, 0, 1) < 0.5:
        patches = patches.flip(-1)
    return torch.rot90(patches, int(torch.randint(4, (), generator=generator)), (-2, -1))


def train_hardnet(
    patches: Tensor,
    iterations: int,
    seed: int,
    batch: int = 256,
    rate: float = 1e-3,
    dropout: float = 0.1,
    check: Callable[[HardNet, int], None] | None = None,
    check_every: int = 50,
    bf16: bool = True,
) -> tuple[HardNet, list[tuple[int, float]]]:
    """Train from the orthogonal start with Adam and a linearly falling rate.

    Args:
        patches: Of :func:`patch_pairs`; each time a point is used, its render or its PoI map is drawn.
        iterations: Steps.
        seed: Of the start and of every draw.
        batch: Pairs per step.
        rate: First learning rate. Adam, because a few hundred steps are too few for the paper's SGD.
        dropout: Before the last layer.
        check: Called with the network (in eval mode) and the step, every ``check_every`` steps.
        check_every: Steps.
        bf16: Convolutions in bfloat16: half the time where the processor has it, slow where it has not.

    Returns:
        The network in eval mode, and (step, loss) at each step.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = HardNet(dropout=dropout).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-4)
    curve = []
    for step in range(iterations):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / iterations) * min(1.0, (step + 1) / 10)
        chosen = torch.randperm(len(patches), generator=generator)[:batch]
        source = torch.randint(2, (len(chosen),), generator=generator)
        both = augment(patches[chosen, source].float(), generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            described = net(both.transpose(0, 1).reshape(-1, 1, 32, 32))
        loss = hardest_in_batch(*described.chunk(2))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        curve.append((step, float(loss.detach())))
        if step % 10 == 0:
            log.info("hardnet %d/%d: loss %.3f", step, iterations, curve[-1][1])
        if check is not None and (step % check_every == 0 or step == iterations - 1):
            check(net.eval(), step)
            net.train()
    return net.eval(), curve


@torch.no_grad()
def matching(describe: Callable[[Tensor], Tensor], patches: Tensor, among: int = 256) -> dict[str, float]:
    """How well a descriptor matches pairs that it was not trained on.

    Args:
        describe: ``(P, 1, 32, 32)`` to ``(P, D)``.
        patches: ``(N, 2 views, 32, 32)``.
        among: Candidates of each query (all pairs if there are fewer); the pairs are taken in disjoint groups of
            this many.

    Returns:
        ``top1``: fraction of queries whose nearest candidate is the right one; ``fpr95``: fraction of wrong
        pairs that are nearer than the distance below which 95 % of the right ones are; ``queries``.
    """
    if len(patches) < 2:
        raise ReconlabError(f"Matching needs two pairs of patches at least, not {len(patches)}: take more shapes.")
    among = min(among, len(patches))
    a, b = (describe(patches[:, i].float().unsqueeze(1)) for i in (0, 1))
    hits = queries = 0
    positive, negative = [], []
    for i in range(0, len(patches) - among + 1, among):
        distance = torch.cdist(a[i : i + among], b[i : i + among])
        hits += int((distance.argmin(dim=1) == torch.arange(among)).sum())
        queries += among
        positive.append(distance.diagonal())
        negative.append(distance[~torch.eye(among, dtype=torch.bool)])
    threshold = torch.cat(positive).quantile(0.95)
    wrong = sum(float((n < threshold).sum()) for n in negative)
    total = sum(len(n) for n in negative)
    return {"top1": hits / queries, "fpr95": wrong / total, "queries": queries}
