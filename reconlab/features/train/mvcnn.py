"""Turns a run of ``reconlab fit --config configs/mvcnn.yaml`` into the weights and the card that are bundled."""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reconlab.errors import ReconlabError
from reconlab.features.weights import MVCNN_FILE, load_mvcnn, save_state

log = logging.getLogger("reconlab.features.train.mvcnn")


def export(checkpoint: Path, out: Path, licence: str) -> dict[str, Any]:
    """Write ``mvcnn.safetensors`` (fp16) and ``mvcnn.json``; returns what the card says.

    Args:
        checkpoint: Inside its run directory, whose ``run.json`` says where the weights come from.
        out: Folder for the two files.
        licence: Of the weights and of what they were trained on.

    Raises:
        ReconlabError: The checkpoint cannot be read, or lies outside its run directory.
    """
    # The only import of a higher floor: this is a program, not part of the library.
    from reconlab.lab.mvcnn import MultiViewClassification

    net = load_mvcnn(str(checkpoint))
    record = checkpoint.resolve().parent.parent / "run.json"
    if not record.is_file():
        raise ReconlabError(f"{checkpoint} lies outside its run directory: {record} does not exist.")
    run = json.loads(record.read_text())
    module = MultiViewClassification.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    card = {
        "config": {"widths": list(module.hparams["widths"]), "dimensions": net.dimensions, "size": net.size},
        "classes": module.classes,
        "steps": run.get("steps"),
        "wall_seconds": run.get("wall_seconds"),
        "validation": run.get("metrics"),
        "command": portable(run.get("command", "")),
        "commit": run.get("commit"),
        "seed": run.get("seed"),
        "torch": run.get("versions", {}).get("torch"),
        "machine": run.get("machine"),
        "licence": licence,
    }
    save_state(out / MVCNN_FILE, net, card)
    return card


def portable(command: str) -> str:
    """The command without the folders of one machine: no ``--out``, absolute paths cut to their last two parts.

    Example:
        >>> portable("reconlab fit --data.root /home/me/data/real --out /tmp/runs --data.build never")
        'reconlab fit --data.root data/real --data.build never'
    """
    command = re.sub(r" --out[ =]\S+", "", command)
    return re.sub(r"(?<![\w.])/\S+", lambda match: "/".join(match[0].split("/")[-2:]), command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m reconlab.features.train.mvcnn", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="runs/mvcnn/NNN/checkpoints/last.ckpt")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and card")
    parser.add_argument("--licence", default="Apache-2.0", help="what the card says")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    log.info("%s", export(given.checkpoint, given.out, given.licence))


if __name__ == "__main__":
    main()
