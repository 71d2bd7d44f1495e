"""Distances of descriptors in numba: all view-to-view costs first, then sums of ten along the alignments."""

from __future__ import annotations

import numpy as np

from reconlab.kernels.jit import njit


@njit("void(uint8[:,:,::1], uint8[:,:,:,::1], int64[::1], int64[:,::1], int64[::1])", nogil=True, cache=True)
def match(query: np.ndarray, others: np.ndarray, weights: np.ndarray, perms: np.ndarray, out: np.ndarray) -> None:
    """Distance of one descriptor (10, 10, 47) to each of ``others`` (M, 10, 10, 47)."""
    fields, views, count = query.shape
    mine = np.empty((fields * views, count), np.int16)
    for i in range(fields * views):
        for k in range(count):
            mine[i, k] = weights[k] * query[i // views, i % views, k]
    theirs = np.empty((count, fields * views), np.int16)
    cost = np.empty((fields * views, fields * views), np.int16)
    block = np.empty((views, views), np.int32)
    for n in range(len(others)):
        for j in range(fields * views):
            for k in range(count):
                theirs[k, j] = weights[k] * others[n, j // views, j % views, k]
        for i in range(fields * views):
            row = cost[i]
            row[:] = 0
            for k in range(count):  # the inner loop runs over all views at once
                value = mine[i, k]
                for j in range(fields * views):
                    row[j] += np.int16(abs(value - theirs[k, j]))
        best = np.int64(1) << 40
        for a in range(fields):
            for b in range(fields):
                for m in range(views):
                    for j in range(views):
                        block[m, j] = cost[a * views + m, b * views + j]
                for p in range(len(perms)):
                    total = np.int64(0)
                    for m in range(views):
                        total += block[m, perms[p, m]]
                    best = min(best, total)
        out[n] = best
