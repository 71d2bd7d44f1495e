"""Two gloo processes for a test: a test file that runs itself as a script is one rank."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist


def run_ranks(file: str, folder: Path) -> None:
    """Run `python FILE FOLDER RANK` twice beside each other; both must end well."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RECONLAB_THREADS": "1"}
    path = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    commands = [[sys.executable, file, str(folder), str(rank)] for rank in range(2)]
    ranks = [subprocess.Popen(c, env=environment, stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        errors = [process.communicate(timeout=600)[1] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(errors)


@contextmanager
def one_rank(folder: Path, rank: int) -> Iterator[None]:
    """The body runs as one of two; then the process ends.

    It ends without tearing gloo down: in CI a rank that had done all its work once aborted while gloo's threads were
    destroyed ("terminate called without an active exception").
    """
    meeting = f"file://{folder / 'rendezvous'}"
    # A rank whose partner died before the meeting gives up before the test does, so that both errors are seen.
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(minutes=5))
    yield
    dist.barrier()  # nobody leaves while the other still listens
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
