"""The auction in plain torch, all who wait bidding at once: the definition of the kernel, and its path on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor


def match(source: Tensor, target: Tensor, tolerance: float) -> tuple[Tensor, float]:
    """A bijection of nearly least mean distance (Bertsekas 1988).

    Everyone without an object bids for the one of lowest cost (distance + price), raising its price until it costs
    ε more than their second best; the highest bid has it. When all have one, each is within ε of their best, so the
    mean distance is within ε of the least; and ``mean(least cost of each) - mean(price)`` is a lower bound of it.
    With that, ε shrinks until the difference is small enough, prices being kept.

    Args:
        source: ``(N, 3)`` finite, ``N >= 1``.
        target: ``(N, 3)`` finite.
        tolerance: Share of the mean distance by which it may be above the least.

    Returns:
        ``(N,)`` int64, the target of each source point, and the duality gap in the clouds' unit.
    """
    n = len(source)
    distance = torch.cdist(source.double(), target.double(), compute_mode="donot_use_mm_for_euclid_dist")
    scale = max(float((torch.cat([source, target]).amax(0) - torch.cat([source, target]).amin(0)).max()), 1e-20)
    prices = distance.new_zeros(n)
    everyone = torch.arange(n, device=source.device)
    epsilon = scale / 20
    while True:
        chosen = torch.full((n,), -1, dtype=torch.int64, device=source.device)
        owner = chosen.clone()
        while bool((chosen < 0).any()):
            waiting = everyone[chosen < 0]
            cost = distance[waiting] + prices
            best = cost.topk(min(2, n), dim=1, largest=False)
            which = best.indices[:, 0]
            bid = prices[which] + epsilon + (best.values[:, 1] - best.values[:, 0] if n > 1 else 0.0)
            highest = prices.scatter_reduce(0, which, bid, "amax")
            wins = bid == highest[which]
            winner = torch.full_like(owner, -1).scatter_reduce(0, which[wins], waiting[wins], "amax")
            sold = winner >= 0
            losers = owner[sold & (owner >= 0)]
            chosen[losers] = -1
            owner = torch.where(sold, winner, owner)
            chosen[winner[sold]] = everyone[sold]
            prices = highest
        total = distance[everyone, chosen].mean()
        gap = max(float(total - (distance + prices).amin(1).mean() + prices.mean()), 0.0)
        if gap <= tolerance * float(total) or epsilon <= 1e-9 * scale:
            return chosen, gap
        epsilon /= 5
