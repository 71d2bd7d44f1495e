"""Reconstruction of a user's own image files."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.lab.export import export_shape
from reconlab.lab.pictures import gallery, save_picture
from reconlab.networks import Network
from reconlab.networks.checkpoint import load_checkpoint, network_state
from reconlab.shapes import Shape

# The object's share of the image in the training views: its bounding box spans .59 (airplanes) to .80
# (lamps) of the frame under the cameras of reconlab.datasets.views, .70 on the mean of four categories.
FILL = 0.70
BACKGROUND_TOLERANCE = 24  # of 255: how far from the border's colour a pixel must be to count as the object


@dataclass
class Prediction:
    """What came of one image: the network's input, its shape, the files, and what was assumed."""

    image: Tensor
    shape: Shape
    files: list[Path]
    note: str


def load_network(path: Path | str) -> Network:
    """The trained network of a checkpoint, in evaluation mode.

    A checkpoint of a network that was passed in Python does not say how to build it: build it yourself and load
    ``reconlab.networks.checkpoint.network_state(path)`` into it.

    Raises:
        ReconlabError: The file is no reconlab checkpoint, or its network's class cannot be found.
    """
    recipe = load_checkpoint(path)["hyper_parameters"].get("network")
    if not isinstance(recipe, dict) or "class_path" not in recipe:
        raise ReconlabError(
            f"Checkpoint {path} does not say which network it holds; build the network and "
            "load reconlab.networks.checkpoint.network_state(path) into it."
        )
    module, _, name = str(recipe["class_path"]).rpartition(".")
    try:
        kind = getattr(importlib.import_module(module or "reconlab.networks"), name)
    except (ImportError, AttributeError) as error:
        raise ReconlabError(f"Checkpoint {path} holds a {recipe['class_path']}, which cannot be imported.") from error
    if not (isinstance(kind, type) and issubclass(kind, Network)):
        raise ReconlabError(f"Checkpoint {path} names {recipe['class_path']}, which is not a network.")
    arguments: dict[str, Any] = dict(recipe.get("init_args") or {})
    # The checkpoint holds those weights; the files they came from may be gone
    arguments |= {key: None for key in arguments if key.endswith("_from")}
    network = kind(**arguments)
    try:
        network.load_state_dict(network_state(path))
    except RuntimeError as error:
        raise ReconlabError(
            f"Checkpoint {path} does not fit its own {name}: it is damaged or of another version."
        ) from error
    if "images" not in network.needs:
        raise ReconlabError(f"{name} in {path} does not read images; predict needs a network that does.")
    return network.eval()


def pick_device(name: str) -> torch.device:
    """A device by name.

    Raises:
        ReconlabError: There is no such device here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ReconlabError(
            f"The device {name!r} cannot be used here; choose cpu, or cuda where there is one."
        ) from error
    return device


def trained_image_size(path: Path) -> int | None:
    """The input side of the run that a checkpoint lies in, from its ``config.yaml``; None if it is not there."""
    import yaml

    config = path.parent.parent / "config.yaml"
    try:
        return int(yaml.safe_load(config.read_text())["data"]["image_size"])
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError):
        return None


def read_image(path: Path, size: int, crop: bool = True) -> tuple[Tensor, Tensor, str]:
    """An image file and its mask as a network's input.

    The object is cut out, centred to fill as much of the frame as in the training views, and set on white.

    Args:
        path: Any format that Pillow reads.
        size: Side in pixels.
        crop: Centre and scale the object; otherwise the whole picture is used, padded to a square.

    Returns:
        ``(3, size, size)`` in [0, 1] on white, the mask ``(1, size, size)`` in [0, 1], and a sentence on what was
        assumed.

    Raises:
        ReconlabError: The file is missing, is no image, or shows no object.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            has_alpha = "A" in opened.getbands() or "transparency" in opened.info
            upright = ImageOps.exif_transpose(opened)  # as a viewer shows a phone's photograph
            rgba = np.asarray(_eight_bits(upright).convert("RGBA"), dtype=np.float32) / 255
    except FileNotFoundError as error:
        raise ReconlabError(f"Image {path} does not exist.") from error
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ReconlabError(f"Image {path} cannot be read: {error}.") from error
    mask, note = rgba[..., 3], "alpha channel used as the mask"
    if not has_alpha or float(mask.min()) > 0.99:
        seen = "the alpha channel is opaque" if has_alpha else "no alpha channel"
        mask, note = _plain_background(rgba[..., :3]), f"{seen}: a plain background was assumed"
    rows, columns = np.nonzero(mask > 0.5)
    if len(rows) == 0:
        raise ReconlabError(f"Image {path} shows no object: its mask is empty ({note}).")
    white = np.concatenate([rgba[..., :3] * mask[..., None] + (1 - mask[..., None]), mask[..., None]], -1)
    if crop:
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        side = int(np.ceil(max(bottom - top, right - left) / FILL))
        centre = ((top + bottom) / 2, (left + right) / 2)
    else:
        side = max(white.shape[:2])
        centre = (white.shape[0] / 2, white.shape[1] / 2)
    square = (_window(white, centre, side) * 255).round().astype(np.uint8)
    parts = [Image.fromarray(part).resize((size, size), Image.Resampling.LANCZOS) for part in
             (np.ascontiguousarray(square[..., :3]), np.ascontiguousarray(square[..., 3]))]  # fmt: skip
    resized = np.concatenate([np.array(parts[0]), np.array(parts[1])[..., None]], -1).astype(np.float32) / 255
    channels = torch.from_numpy(resized).permute(2, 0, 1).contiguous()
    return channels[:3], channels[3:], note


def predict_file(
    network: Network, path: Path, target: Path, size: int, formats: Sequence[str] = ("obj", "glb"), crop: bool = True
) -> Prediction:
    """Reconstruct one image file and write ``target.<format>``."""
    image, mask, note = read_image(path, size, crop)
    device = next(network.parameters()).device
    with torch.no_grad():
        if "masks" in network.needs:  # the file's own alpha: an estimate from the resized colours has a halo
            batch = Batch(ids=[path.stem], categories=[""], images=image[None], masks=mask[None])
            shape = network.reconstruct(batch.to(device))
        else:
            shape = network(image.unsqueeze(0).to(device))
    return Prediction(image, shape, export_shape(shape, 0, target, tuple(formats)), note)


def picture_of(rows: Sequence[tuple[str, Prediction]], path: Path) -> None:
    """Inputs and reconstructions in one PNG."""
    from PIL import Image as Pictures

    sheets = [gallery(r.image.unsqueeze(0), None, {"reconstruction": r.shape}, [name]) for name, r in rows]
    whole = Pictures.new("RGB", (sheets[0].width, sum(s.height for s in sheets)), "white")
    y = 0
    for sheet in sheets:
        whole.paste(sheet, (0, y))
        y += sheet.height
    save_picture(whole, path)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Sixteen-bit and floating-point greys scaled by their own range; Pillow would clip them to white."""
    if not image.mode.startswith(("I", "F")):
        return image
    grey = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = float(grey.min()), float(grey.max())
    return Image.fromarray(((grey - low) / max(high - low, 1e-12) * 255).round().astype(np.uint8))


def _plain_background(rgb: np.ndarray) -> np.ndarray:
    border = np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]])
    distance = np.abs(rgb - np.median(border, axis=0)).max(-1) * 255
    return (distance > BACKGROUND_TOLERANCE).astype(np.float32)


def _window(image: np.ndarray, centre: tuple[float, float], side: int) -> np.ndarray:
    """A ``side × side`` window of colours and mask around ``centre``, white and empty outside the image."""
    top, left = round(centre[0] - side / 2), round(centre[1] - side / 2)
    window = np.ones((side, side, 4), np.float32)
    window[..., 3] = 0
    y0, y1 = max(top, 0), min(top + side, image.shape[0])
    x0, x1 = max(left, 0), min(left + side, image.shape[1])
    window[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return window
