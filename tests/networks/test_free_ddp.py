"""Free shapes on two processes that see different names. Run as a script, this file is one rank."""

import json
import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from reconlab.batch import Batch
from reconlab.networks import FreePoints
from reconlab.networks.base import Network
from tests.ranks import one_rank, run_ranks

STEPS = [[["d", "a"], ["c", "a"]], [["b", "d"], ["c", "e"]]]  # by rank, then step


class Step(torch.nn.Module):
    """What Lightning wraps: a whole training step."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, names: list[str]) -> torch.Tensor:
        return self.network.reconstruct(Batch(names, ["x"] * len(names))).points().square().sum()


def rank_main(folder: Path, rank: int) -> None:
    with one_rank(folder, rank):
        network = FreePoints(3, samples=6)
        start = [row.detach().clone() for row in network.values]
        step = DistributedDataParallel(Step(network))
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        for names in STEPS[rank]:
            optimizer.zero_grad()
            step(names).backward()
            optimizer.step()
        scale = [(row / first).mean().item() for row, first in zip(network.values, start, strict=True)]
        (folder / f"{rank}.json").write_text(json.dumps({"rows": network.rows, "scale": scale}))


def test_ranks_agree_on_rows_and_values(tmp_path: Path) -> None:
    run_ranks(__file__, tmp_path)
    one, two = (json.loads((tmp_path / f"{r}.json").read_text()) for r in range(2))
    # Names of each step together, in order: a b d, then c e.
    assert one["rows"] == two["rows"] == {"x/a": 0, "x/b": 1, "x/d": 2, "x/c": 3, "x/e": 4}
    # The gradient 2 x is the mean of the ranks', so a row on one rank shrinks by 0.9, on both (d, c) by 0.8.
    expected = [0.9 * 0.9, 0.9, 0.8, 0.8, 0.9, 1.0]
    for found in (one, two):
        assert torch.allclose(torch.tensor(found["scale"]), torch.tensor(expected), atol=1e-5), found


if __name__ == "__main__":
    rank_main(Path(sys.argv[1]), int(sys.argv[2]))
