"""Where the weights of detector and descriptors come from: bundled, kornia's, or a file. Never a fallback."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.features.dense import DenseDescriptor
from reconlab.features.detector import PiecewiseLinearDetector
from reconlab.features.hardnet import HardNet
from reconlab.features.mvcnn import MultiViewCNN

BUNDLED = Path(__file__).parent / "weights"
DETECTOR_FILE = "detector.safetensors"
HARDNET_FILE = "hardnet.safetensors"
DENSE_FILE = "dense.safetensors"
MVCNN_FILE = "mvcnn.safetensors"


def load_hardnet(weights: str = "bundled", eps: float = 1e-2) -> HardNet:
    """HardNet with trained weights, in eval mode, unfolded.

    Args:
        weights: ``bundled`` (trained by this project on its own renders, see docs/weights.md), ``kornia`` (UBC
            PhotoTour, Liberty with augmentation, downloaded by kornia), or the path of a ``.safetensors``,
            ``.pth`` or ``.pt`` file with HardNet's state dict.
        eps: See :class:`HardNet`.

    Raises:
        ReconlabError: The file is missing, is damaged, or holds another network; or kornia cannot download.
    """
    net = HardNet(eps=eps)
    if weights == "kornia":
        state = _kornia_state()
        source = "kornia's HardNet"
    else:
        path = BUNDLED / HARDNET_FILE if weights == "bundled" else Path(weights).expanduser()
        state = read_state(path, what="HardNet", setting=weights)
        source = str(path)
    _load(net, state, source, "HardNet (7 convolutions, 128 dimensions)")
    return net.eval()


def load_dense(weights: str = "bundled") -> DenseDescriptor:
    """The dense descriptor with trained weights, in eval mode; widths as in the file.

    Args:
        weights: ``bundled`` (made to answer as the bundled HardNet does, docs/weights.md), or the path of a
            ``.safetensors``, ``.pth`` or ``.pt`` file with its state dict.

    Raises:
        ReconlabError: The file is missing, is damaged, or holds another network.
    """
    if weights == "kornia":
        raise ReconlabError(
            "DR-KFS' dense descriptor has no weights of kornia's: give weights 'bundled' or a path, or take "
            "descriptor 'exact'."
        )
    path = BUNDLED / DENSE_FILE if weights == "bundled" else Path(weights).expanduser()
    state = read_state(path, what="the dense descriptor", setting=weights)
    kernels = [v for k, v in sorted(state.items()) if k.startswith("layers.") and v.dim() == 4]
    if len(kernels) != 5:
        raise ReconlabError(f"{path} does not hold a dense descriptor: it needs five convolutions 'layers.*.weight'.")
    net = DenseDescriptor(widths=cast(Any, tuple(len(k) for k in kernels)))
    _load(net, state, str(path), "the dense descriptor")
    # Rounding to fp16 leaves a trace of the mean in the first filters
    net.centre()
    return net.eval()


def load_detector(weights: str = "bundled") -> PiecewiseLinearDetector:
    """The piecewise-linear detector with trained weights, in eval mode; sizes as in the file.

    Args:
        weights: ``bundled``, or the path of a ``.safetensors``/``.pth`` file with ``weight (N·M, 1, k, k)``,
            ``bias (N·M)`` and ``reference_range (2,)``; N is 4.

    Raises:
        ReconlabError: The file is missing, is damaged, or holds another network.
    """
    path = BUNDLED / DETECTOR_FILE if weights == "bundled" else Path(weights).expanduser()
    state = read_state(path, what="the keypoint detector", setting=weights)
    weight = state.get("weight")
    if weight is None or weight.dim() != 4 or weight.shape[0] % 4 or weight.shape[1] != 1:
        raise ReconlabError(
            f"{path} does not hold a piecewise-linear detector: it needs 'weight' of shape (4·M, 1, k, k)."
        )
    net = PiecewiseLinearDetector(terms=4, pieces=weight.shape[0] // 4, kernel=weight.shape[-1])
    _load(net, state, str(path), "the piecewise-linear detector")
    return net.eval()


def load_mvcnn(weights: str = "bundled") -> MultiViewCNN:
    """The multi-view CNN with trained weights, in eval mode; widths, dimensions and classes as in the file.

    Args:
        weights: ``bundled`` (docs/metrics/mvcnn.md), or the path of a ``.safetensors`` file or of a checkpoint of
            ``reconlab fit --config configs/mvcnn.yaml``.

    Raises:
        ReconlabError: The file is missing, is damaged, or holds another network; or the bundled file is not the one
            that its card describes.
    """
    if weights == "kornia":
        raise ReconlabError("The multi-view CNN has no weights of kornia's: give weights 'bundled' or a path.")
    path = BUNDLED / MVCNN_FILE if weights == "bundled" else Path(weights).expanduser()
    state = read_state(path, what="the multi-view CNN", setting=weights)
    state = {k.removeprefix("network."): v for k, v in state.items()}
    kernels = [v for k, v in sorted(state.items(), key=lambda kv: _number(kv[0])) if v.dim() == 4]
    linear, classifier = state.get("descriptor.weight"), state.get("classifier.weight")
    if len(kernels) != 6 or linear is None or classifier is None or linear.dim() != 2 or classifier.dim() != 2:
        raise ReconlabError(
            f"{path} does not hold a multi-view CNN: it needs six convolutions 'trunk.*.weight', 'descriptor.weight' "
            "and 'classifier.weight'."
        )
    widths = [len(kernels[i]) for i in (0, 1, 3, 5)]
    side = max(1, math.isqrt(linear.shape[1] // widths[3]))
    net = MultiViewCNN(len(classifier), widths, len(linear), 16 * side)
    _load(net, state, str(path), "the multi-view CNN")
    if weights == "bundled":
        card = json.loads(path.with_suffix(".json").read_text())
        if card["sha256"] != hashlib.sha256(path.read_bytes()).hexdigest():
            raise ReconlabError(f"{path} is not the file that its card describes (sha256): reinstall reconlab.")
    return net.eval()


def _number(key: str) -> int:
    """Place of a layer in its sequence, for ``trunk.12.weight``."""
    return next((int(part) for part in key.split(".") if part.isdigit()), -1)


def read_state(path: Path, what: str, setting: str) -> dict[str, Tensor]:
    """A state dict from a safetensors or torch file (``weights_only=True``), as float32.

    Args:
        path: The file.
        what: The network, for messages.
        setting: What the user wrote, for messages.

    Raises:
        ReconlabError: The file is missing or cannot be read.
    """
    if not path.is_file():
        hint = (
            "this installation lacks its weight files: reinstall it, or make them with "
            "python -m reconlab.features.train --out DIR and give their path"
            if setting == "bundled"
            else "give 'bundled', 'kornia' or the path of a weight file"
        )
        raise ReconlabError(f"Weights {setting!r} for {what} were not found at {path}; {hint}.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(str(path))
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ReconlabError(f"{path} could not be read as weights of {what}: {reason}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ReconlabError(f"{path} does not hold a state dict of {what} (a mapping of names to tensors).")
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def save_state(path: Path, net: torch.nn.Module, card: dict[str, Any]) -> None:
    """Write a network as fp16 safetensors and its card (config, origin, sha256) as JSON beside it.

    Args:
        path: ``*.safetensors``.
        net: Its state dict is written; integer counters are left out.
        card: What to say of the weights; ``file``, ``sha256`` and ``dtype`` are added.
    """
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().half().contiguous() for k, v in net.state_dict().items() if v.is_floating_point()}
    save_file(state, str(path))
    path.chmod(0o644)  # safetensors writes files that only their owner may read
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    text = json.dumps({"file": path.name, "sha256": digest, "dtype": "float16", **card}, indent=2)
    path.with_suffix(".json").write_text(text + "\n")


def _load(net: torch.nn.Module, state: dict[str, Tensor], source: str, what: str) -> None:
    """``load_state_dict``, strict but for BatchNorm's counters; says in one sentence what does not fit."""
    own = net.state_dict()
    wanted = {k for k in own if not k.endswith("num_batches_tracked")}
    given = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    wrong = sorted(k for k in wanted & given.keys() if own[k].shape != given[k].shape)
    missing, extra = sorted(wanted - given.keys()), sorted(given.keys() - wanted)
    for problem, keys in (("lacks", missing), ("has another shape for", wrong), ("has besides", extra)):
        if keys:
            raise ReconlabError(
                f"{source} is not a state dict of {what}: it {problem} {keys[0]!r}"
                + (f" and {len(keys) - 1} more." if len(keys) > 1 else ".")
            )
    net.load_state_dict(given, strict=False)


def _kornia_state() -> dict[str, Tensor]:
    """State dict of kornia's pretrained HardNet; kornia downloads it once."""
    from kornia.feature import HardNet as KorniaHardNet

    try:
        return dict(KorniaHardNet(pretrained=True).state_dict())
    except Exception as error:  # whatever the network layer raised, the user's remedy is the same
        raise ReconlabError(
            "weights 'kornia' need kornia to download HardNet (UBC PhotoTour) once, and that failed "
            f"({type(error).__name__}: {error}): connect to the internet, or use weights 'bundled' or a path."
        ) from error
