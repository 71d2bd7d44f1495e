"""DRWR's figures of trained networks: randomly chosen reconstructions (7, 9), training (11), latent space (12)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from reconlab.batch import Batch
from reconlab.datasets.datamodule import ReconstructionData, collate
from reconlab.errors import ReconlabError
from reconlab.lab.pictures import gallery_cameras, image_tile, render_shape
from reconlab.lab.predict import load_network
from reconlab.networks import DPC, Network
from reconlab.networks.checkpoint import load_checkpoint

VIEW = ((30.0, 20.0),)
INK = (210, 40, 40)


@dataclass(frozen=True)
class Samples:
    """Shapes of a built dataset for a figure.

    Attributes:
        root: The dataset's folder.
        split: Its split.
        category: Its category.
        seed: Of the choice.
    """

    root: str
    category: str
    split: str = "test"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ReconlabError(f"--seed is {self.seed}; expected 0 or more.")

    def choose(self, count: int, image_size: int) -> Batch:
        """``count`` random shapes seen from their first view at ``image_size`` pixels, with four silhouettes.

        Raises:
            ReconlabError: The dataset does not exist, or the split has fewer shapes.
        """
        data = ReconstructionData(self.root, [self.category], image_size, views=4)
        data.require({"images", "views"}, "the figure")
        data.setup("test" if self.split == "test" else "fit")
        dataset = data.dataset(self.split)
        if len(dataset) < count:
            raise ReconlabError(
                f"The figure shows {count} shapes, but {self.root}/{self.category} has {len(dataset)} in its "
                f"{self.split} list."
            )
        order = np.random.default_rng(self.seed).permutation(len(dataset))[:count]
        return collate([dataset[int(i)] for i in order])


def reconstructions_figure(
    checkpoints: dict[str, Path], samples: Samples, count: int = 8, size: int = 128
) -> Image.Image:
    """Figs. 7 and 9: the inputs and, per network, the reconstruction of ``count`` randomly chosen shapes.

    Args:
        checkpoints: By row title.
        samples: Where shapes come from; they are drawn by seed, not picked.
        count: Shapes, one column each.
        size: Pixels along a tile.
    """
    networks = {title: load_network(path) for title, path in checkpoints.items()}
    rows: list[tuple[str, list[np.ndarray]]] = []
    for title, network in networks.items():
        batch = samples.choose(count, input_size(network))
        if not rows:
            rows = [("input", [image_tile(i, size) for i in batch.require("images", "the figure")])]
        with torch.no_grad():
            shape = network.reconstruct(batch)
        rows.append((title, [render_shape(shape, i, gallery_cameras(VIEW), size)[0] for i in range(count)]))
    return sheet(rows, size)


def training_figure(checkpoints: Sequence[Path], samples: Samples, size: int = 128) -> Image.Image:
    """Fig. 11: one test shape reconstructed by the network's states along its training, and its projections.

    Args:
        checkpoints: In any order; a column each, titled by the step that it was saved at.
        samples: Where the shape comes from.
        size: Pixels along a tile.

    Raises:
        ReconlabError: There is no checkpoint, or one cannot be read.
    """
    if not checkpoints:
        raise ReconlabError("The figure needs checkpoints of several steps of one run; none was given.")
    steps = sorted((int(load_checkpoint(path).get("global_step", 0)), path) for path in checkpoints)
    networks = [(step, load_network(path)) for step, path in steps]
    batch = samples.choose(1, input_size(networks[0][1]))
    views = batch.require("views", "the figure")
    masks, cameras = views.silhouettes[0], views.cameras
    columns = []
    for step, network in networks:
        with torch.no_grad():
            shape = network.reconstruct(batch)
        points = shape.points()
        tiles = [render_shape(shape, 0, gallery_cameras(VIEW), size)[0]]
        xy = cameras[0].project(points.expand(len(masks), -1, -1))[0]
        tiles += [projections(xy[v], masks[v], size) for v in range(len(masks))]
        columns.append((f"step {step}", tiles))
    first = [image_tile(batch.require("images", "the figure")[0], size)] + [silhouette_tile(m, size) for m in masks]
    columns.insert(0, ("input, silhouettes", first))
    width, height = size * len(columns), size * len(first) + 22
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    for x, (title, tiles) in enumerate(columns):
        draw.text((x * size + 4, 5), title, fill="black")
        for y, tile in enumerate(tiles):
            picture.paste(Image.fromarray(tile), (x * size, 22 + y * size))
    return picture


def interpolation_figure(
    checkpoint: Path, samples: Samples, pairs: int = 3, between: int = 5, size: int = 128
) -> Image.Image:
    """Fig. 12: shapes along straight lines between the latent codes of two images.

    The code is the first fully connected layer's 1024 values, in which DPC interpolates.

    Args:
        checkpoint: Of a :class:`~reconlab.networks.DPC`.
        samples: Where the images come from.
        pairs: Rows.
        between: Shapes between the two ends.
        size: Pixels along a tile.

    Raises:
        ReconlabError: The network is another one.
    """
    network: Network = load_network(checkpoint)
    if not isinstance(network, DPC):
        raise ReconlabError(
            f"{checkpoint} holds a {type(network).__name__}; codes are interpolated in DPC's network."
        )
    every = samples.choose(2 * pairs, input_size(network)).require("images", "the figure")
    rows = []
    for k in range(pairs):
        images = every[2 * k : 2 * k + 2]
        with torch.no_grad():
            a, b = network.encoder.latent(images)
            weights = torch.linspace(0, 1, between + 2).unsqueeze(1)
            shape = network.decode(network.encoder.finish(torch.lerp(a, b, weights)))
        tiles = [render_shape(shape, i, gallery_cameras(VIEW), size)[0] for i in range(between + 2)]
        rows.append(("", [image_tile(images[0], size), *tiles, image_tile(images[1], size)]))
    return sheet(rows, size, head=0)


def input_size(network: Network) -> int:
    """The side of the images that a network is built for, or 128 where it takes any."""
    found = getattr(network, "image_size", getattr(getattr(network, "encoder", None), "image_size", 128))
    return int(found)


def sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], size: int, head: int = 18) -> Image.Image:
    """Rows of tiles, each under its title."""
    height = sum(size + (head if title else 0) for title, _ in rows)
    picture = Image.new("RGB", (size * max(len(tiles) for _, tiles in rows), height), "white")
    draw = ImageDraw.Draw(picture)
    y = 0
    for title, tiles in rows:
        if title:
            draw.text((4, y + 3), title, fill="black")
            y += head
        for x, tile in enumerate(tiles):
            picture.paste(Image.fromarray(tile), (x * size, y))
        y += size
    return picture


def silhouette_tile(mask: Tensor, size: int) -> np.ndarray:
    """A silhouette ``(H, H)`` in [0, 1] as grey on white."""
    grey = (255 - 90 * mask.clamp(0, 1)).round().byte().numpy()
    return np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR).convert("RGB"))


def projections(xy: Tensor, mask: Tensor, size: int) -> np.ndarray:
    """Projected points ``(J, 2)`` over their true silhouette."""
    tile = Image.fromarray(silhouette_tile(mask, size))
    draw = ImageDraw.Draw(tile)
    for x, y in ((xy + 1) / 2 * size).tolist():
        if np.isfinite(x) and np.isfinite(y):
            draw.rectangle((x - 0.5, y - 0.5, x + 0.5, y + 0.5), fill=INK)
    return np.asarray(tile)


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a run directory that were saved at a step, in order (``step=000800.ckpt``).

    Raises:
        ReconlabError: There are none.
    """
    inside = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    found = [p for p in inside.glob("*.ckpt") if re.search(r"\d", p.stem)]
    if not found:
        raise ReconlabError(
            f"{folder} has no checkpoints named by their step: train with several kept (see docs/drwr.md)."
        )
    return sorted(found)
