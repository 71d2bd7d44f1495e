"""The auction on the CPU: Gauss-Seidel bids that mostly look at a short list of candidates.

Prices never fall. So what an object outside a person's list cost when the list was made bounds from below what it
costs now: while the second best of the list is not above that bound, the list gives the bid that a search of all
objects would give. Lists survive the scaling of ε, because prices do.
"""

from __future__ import annotations

import math

import numpy as np

from reconlab.kernels.jit import njit

CANDIDATES = 12
"""Length of the lists: shorter ones are refilled more often, longer ones are slower to read."""

START = 20.0
"""The first ε is the clouds' extent over this."""

SCALE = 5.0
"""Factor from one ε to the next."""


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _costs(x, y, z, xs, ys, zs, prices, out):
    """Distance plus price of every object."""
    for j in range(len(prices)):
        a, b, c = xs[j] - x, ys[j] - y, zs[j] - z
        out[j] = math.sqrt(a * a + b * b + c * c) + prices[j]


@njit(nogil=True, cache=True)
def _refill(i, source, xs, ys, zs, prices, costs, near, apart, bound):
    """Make a person's list: the ``K`` cheapest objects and their distances; ``bound`` is the next one's cost."""
    keep = near.shape[1]
    n = len(prices)
    _costs(source[i, 0], source[i, 1], source[i, 2], xs, ys, zs, prices, costs)
    best = np.empty(keep + 1)
    who = np.empty(keep + 1, np.int64)
    found = 0
    worst = np.inf
    for j in range(n):
        c = costs[j]
        if c < worst:
            k = min(found, keep)
            while k > 0 and best[k - 1] > c:
                best[k] = best[k - 1]
                who[k] = who[k - 1]
                k -= 1
            best[k] = c
            who[k] = j
            found = min(found + 1, keep + 1)
            if found == keep + 1:
                worst = best[keep]
    for k in range(keep):
        near[i, k] = who[k] if k < found else -1
        if k < found:
            apart[i, k] = best[k] - prices[who[k]]
    bound[i] = best[keep] if found == keep + 1 else np.inf


@njit(nogil=True, cache=True)
def _best(i, prices, near, apart):
    """Of a person's list, the cheapest object, its cost and the second lowest cost."""
    first, second, which = np.inf, np.inf, np.int64(-1)
    for k in range(near.shape[1]):
        j = near[i, k]
        if j < 0:
            break
        c = apart[i, k] + prices[j]
        if c < first:
            second = first
            first = c
            which = j
        elif c < second:
            second = c
    return which, first, second


@njit("float64(float32[:,::1], float32[:,::1], float64, int64[::1])", nogil=True, cache=True)
def match(source, target, tolerance, chosen):
    """Write the target of each source point; return by how much their mean distance may be above the least.

    Args:
        source: ``(N, 3)`` finite.
        target: ``(N, 3)`` finite.
        tolerance: Share of the mean distance by which it may be above the least.
        chosen: ``(N,)``, overwritten.
    """
    n = len(source)
    keep = min(CANDIDATES, n)
    people = source.astype(np.float64)
    xs, ys, zs = target[:, 0].astype(np.float64), target[:, 1].astype(np.float64), target[:, 2].astype(np.float64)
    prices, costs, bound = np.zeros(n), np.empty(n), np.empty(n)
    near, apart = np.empty((n, keep), np.int64), np.empty((n, keep))
    owner = np.full(n, -1, np.int64)
    queue = np.empty(n, np.int64)
    low = 0.0
    for i in range(n):
        chosen[i] = -1
        _refill(i, people, xs, ys, zs, prices, costs, near, apart, bound)
        low += apart[i, 0]
    low /= n  # of each to its nearest: the mean of a bijection is at least this
    extent = 0.0
    for values in (xs, ys, zs):
        extent = max(extent, values.max() - values.min())
    for a in range(3):
        extent = max(extent, people[:, a].max() - people[:, a].min())
    finest = max(extent, low, 1e-20) * 1e-9  # where float64 prices end
    epsilon = max(extent, 1e-20) / START
    gap = np.inf
    while True:
        # Whoever is still within ε of the best offer keeps what they have.
        waiting = 0
        for i in range(n):
            j = chosen[i]
            if j >= 0:
                which, first, second = _best(i, prices, near, apart)
                if first > bound[i]:
                    _refill(i, people, xs, ys, zs, prices, costs, near, apart, bound)
                    which, first, second = _best(i, prices, near, apart)
                a, b, c = people[i, 0] - xs[j], people[i, 1] - ys[j], people[i, 2] - zs[j]
                if math.sqrt(a * a + b * b + c * c) + prices[j] > first + epsilon:
                    owner[j] = -1
                    chosen[i] = -1
            if chosen[i] < 0:
                queue[waiting] = i
                waiting += 1
        head = 0
        while waiting > 0:
            i = queue[head]
            which, first, second = _best(i, prices, near, apart)
            if second > bound[i]:
                _refill(i, people, xs, ys, zs, prices, costs, near, apart, bound)
                which, first, second = _best(i, prices, near, apart)
            step = epsilon if second == np.inf else second - first + epsilon
            prices[which] += step
            loser = owner[which]
            owner[which] = i
            chosen[i] = which
            if loser >= 0:
                chosen[loser] = -1
                queue[head] = loser  # whoever was outbid is next: their list is still in the cache
            else:
                head += 1
                waiting -= 1
        # The duality gap: what the prices prove about the least mean.
        total, proven = 0.0, 0.0
        for i in range(n):
            j = chosen[i]
            a, b, c = people[i, 0] - xs[j], people[i, 1] - ys[j], people[i, 2] - zs[j]
            d = math.sqrt(a * a + b * b + c * c)
            total += d
            which, first, second = _best(i, prices, near, apart)
            if first > bound[i]:
                _refill(i, people, xs, ys, zs, prices, costs, near, apart, bound)
                which, first, second = _best(i, prices, near, apart)
            proven += first - prices[j]
        gap = max(total - proven, 0.0) / n
        if gap <= tolerance * total / n or epsilon <= finest:
            return gap
        epsilon = max(epsilon / SCALE, finest)
