"""Reading networks' weights out of training checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reconlab.errors import ReconlabError


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """A Lightning checkpoint, read without running any code that it might carry.

    Raises:
        ReconlabError: The file is missing or is not such a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise ReconlabError(f"Checkpoint {path} does not exist.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ReconlabError(
            f"Checkpoint {path} cannot be read: it is damaged or not a reconlab checkpoint."
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content or "hyper_parameters" not in content:
        raise ReconlabError(
            f"Checkpoint {path} is not a reconlab checkpoint: it has no state_dict and hyper_parameters."
        )
    return content


def network_state(path: Path | str) -> dict[str, Tensor]:
    """The network's state of a training checkpoint, names as in the network."""
    state = load_checkpoint(path)["state_dict"]
    prefix = "network."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
