"""Around a training command: one run directory for all its processes, and one sentence for what goes wrong."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from reconlab.errors import ReconlabError
from reconlab.lab.run_directory import new_run_directory, write_atomic

RUN_DIRECTORY = "RECONLAB_RUN_DIRECTORY"  # inherited by the processes that Lightning's DDP starts
# Set by Lightning or by us while a command runs; none of it may reach a second command in the same process.
LAUNCH_VARIABLES = (RUN_DIRECTORY, "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


def choose_run_directory(out: str, name: str) -> Path:
    """The run directory of this command, the same on all its processes.

    Lightning's own launcher passes it on in the environment. Under torchrun or Slurm, which start every process
    themselves, rank 0 chooses and leaves a note for the others.

    Raises:
        ReconlabError: The folder cannot be written, or rank 0 left no note within a minute.
    """
    inherited = os.environ.get(RUN_DIRECTORY)
    if inherited:
        return Path(inherited)
    launch = _launch()
    if launch is None:
        return new_run_directory(out, name)
    key, rank = launch
    note = Path(out) / name / f".launch-{key}"
    if rank == 0:
        chosen = new_run_directory(out, name)
        write_atomic(note, str(chosen))
        return chosen
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if note.is_file() and time.time() - note.stat().st_mtime < 300:  # an older note is of another launch
            return Path(note.read_text())
        time.sleep(0.1)
    raise ReconlabError(f"Rank 0 chose no run directory within a minute (no note at {note}).")


def _launch() -> tuple[str, int] | None:
    """What all processes of an outside launcher share, and this one's global rank; None without such a launcher."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        # The agent is the parent of all its workers; on several nodes only the run id is shared.
        local = env.get("LOCAL_WORLD_SIZE") == env.get("WORLD_SIZE")
        key = f"{env['TORCHELASTIC_RUN_ID']}-{env.get('MASTER_PORT', '')}-{os.getppid() if local else ''}"
        return key, int(env.get("RANK", "0"))
    if int(env.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in env:
        return f"slurm-{env.get('SLURM_JOB_ID', '')}-{env.get('SLURM_STEP_ID', '')}", int(env["SLURM_PROCID"])
    return None


def as_sentence(error: Exception, files: Sequence[str]) -> ReconlabError | None:
    """A user's mistake that a library reported, as one sentence; None for what is a fault of ours.

    Args:
        error: What was raised.
        files: The config files in use.
    """
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, OmegaConfBaseException):
        return ReconlabError(f"{text} (an interpolation in {', '.join(files) or 'the config'}).")
    if isinstance(error, MisconfigurationException):
        return ReconlabError(f"The trainer cannot be set up so: {text}.")
    if isinstance(error, ValueError | KeyError | RuntimeError):
        frame = traceback.extract_tb(error.__traceback__)[-1].filename.replace("\\", "/")
        if "/torch/optim/" in frame:
            return ReconlabError(f"The checkpoint's optimiser does not fit the one configured: {text}.")
        if isinstance(error, ValueError) and ("/pytorch_lightning/" in frame or "/lightning_fabric/" in frame):
            return ReconlabError(f"The trainer cannot be set up so: {text}.")
    return None
