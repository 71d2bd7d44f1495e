"""Samplers that shard without repeating: seven samples on two processes count as seven."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields ``(epoch, index)``, so that workers know the epoch even when they persist.

    Training: a seeded permutation per epoch, cut so that all ranks take equally many steps (gradients are
    reduced together, a rank with a step more would wait for ever). Evaluation: every sample exactly once, strided
    over the ranks, in order, always epoch 0.

    Args:
        size: Number of samples.
        shuffle: Training order if True.
        seed: Of the permutation.
        rank: Of this process.
        world: Number of processes.

    Examples:
        >>> [list(EpochSampler(5, False, rank=r, world=2)) for r in range(2)]
        [[(0, 0), (0, 2), (0, 4)], [(0, 1), (0, 3)]]
    """

    def __init__(self, size: int, shuffle: bool, seed: int = 0, rank: int = 0, world: int = 1) -> None:
        self.size, self.shuffle, self.seed, self.rank, self.world = size, shuffle, seed, rank, world
        self.epoch = 0
        self.skip = 0  # samples of the next epoch to leave out, once: what a resumed run has already seen

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (Lightning calls this)."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return -(-self.size // self.world)
        return len(range(self.rank, self.size, self.world))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if not self.shuffle:
            yield from ((0, i) for i in range(self.rank, self.size, self.world))
            return
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        # The last round is filled up from the start of the permutation: in training a repeat does no harm.
        order = np.resize(order, len(self) * self.world)
        skip, self.skip = self.skip, 0
        yield from ((self.epoch, int(i)) for i in order[self.rank :: self.world][skip:])
