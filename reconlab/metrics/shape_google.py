"""Shape Google: bags of quantised heat kernel signatures, compared by L1."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.metrics.descriptors import Descriptor, DescriptorMetric
from reconlab.metrics.heat_kernel import (
    EIGENPAIRS,
    POINTS,
    Spectrum,
    Surface,
    heat_kernel_signature,
    surface_spectrum,
)
from reconlab.metrics.protocol import Protocol
from reconlab.shapes import Mesh

BUNDLED = Path(__file__).parent / "weights" / "shape_google.safetensors"
FACTOR = 10.0
"""The L1 distance of two bags, each of sum 1, is at most 2; papers print numbers up to about 10."""


@dataclass(frozen=True)
class Vocabulary:
    """Geometric words: cluster centres of heat kernel signatures.

    Attributes:
        words: ``(V, T)`` float64, centres in the space of :func:`signatures`.
        sigma: Width of the soft assignment, in that space.
        times: ``(T,)`` of the heat kernel, in units of the surface's area.
        points: See :func:`~reconlab.metrics.heat_kernel.surface_spectrum`.
        eigenpairs: Likewise.
        surface: Likewise.
    """

    words: np.ndarray
    sigma: float
    times: np.ndarray
    points: int = POINTS
    eigenpairs: int = EIGENPAIRS
    surface: Surface = "points"

    def __post_init__(self) -> None:
        words, times = self.words, self.times
        fits = words.ndim == 2 and times.ndim == 1 and words.shape[1] == len(times) and words.size > 0
        if not (fits and np.isfinite(words).all() and self.sigma > 0 and bool((times > 0).all())):
            raise ReconlabError(
                f"Shape Google: a vocabulary has finite words (V, T), positive times (T,) and a positive sigma; this "
                f"one has {words.shape}, {times.shape} and {self.sigma}."
            )

    def digest(self) -> str:
        """Twelve hex digits that change with anything in it."""
        text = repr((self.sigma, self.points, self.eigenpairs, self.surface)).encode()
        return hashlib.sha256(self.words.tobytes() + self.times.tobytes() + text).hexdigest()[:12]

    def save(self, path: Path, card: dict[str, Any]) -> None:
        """Write ``*.safetensors`` and beside it a JSON card: settings, sha256 and what ``card`` says."""
        from safetensors.numpy import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"words": self.words, "times": self.times, "sigma": np.array([self.sigma])}, str(path))
        path.chmod(0o644)  # safetensors writes files that only their owner may read
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        config = {"points": self.points, "eigenpairs": self.eigenpairs, "surface": self.surface}
        text = json.dumps({"file": path.name, "sha256": sha, "config": config, **card}, indent=2)
        path.with_suffix(".json").write_text(text + "\n")

    @classmethod
    def load(cls, vocabulary: str = "bundled") -> Vocabulary:
        """The vocabulary of a file that :meth:`save` wrote.

        Args:
            vocabulary: ``bundled``, or the path of a ``.safetensors`` file with its card beside it.

        Raises:
            ReconlabError: A file is missing or damaged, or the two do not belong together.
        """
        from safetensors.numpy import load

        path = BUNDLED if vocabulary == "bundled" else Path(vocabulary).expanduser()
        try:
            raw, card = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())
            if hashlib.sha256(raw).hexdigest() != card["sha256"]:
                raise ValueError("the card's sha256 is another one")
            arrays, config = load(raw), card["config"]
            return cls(arrays["words"], float(arrays["sigma"][0]), arrays["times"], **config)
        except ReconlabError:
            raise
        except Exception as error:  # a damaged file makes the readers raise nearly anything
            raise ReconlabError(
                f"Shape Google's vocabulary {vocabulary!r} could not be read from {path} and the .json beside it "
                f"({error}): make one with python -m reconlab.metrics.train_vocabulary --root DATA --out FILE."
            ) from error


@lru_cache(maxsize=8)
def _vocabulary(name: str) -> Vocabulary:
    return Vocabulary.load(name)


def mesh_spectrum(mesh: Mesh, points: int, eigenpairs: int, surface: Surface) -> Spectrum:
    """:func:`surface_spectrum` of a batch of one."""
    vertices, faces = mesh.item(0)
    return surface_spectrum(vertices.detach().cpu().numpy(), faces.cpu().numpy(), points, eigenpairs, surface)


def signatures(spectrum: Spectrum, times: np.ndarray) -> np.ndarray:
    """Heat kernel signatures scaled to unit length at each point, ``(N, T)``."""
    raw = heat_kernel_signature(spectrum, times)
    length = np.linalg.norm(raw, axis=1, keepdims=True)
    return raw / np.maximum(length, 1e-300)  # 0 where a part carries none of the eigenfunctions kept


def soft_assignment(found: np.ndarray, words: np.ndarray, sigma: float) -> np.ndarray:
    """How much of each word each signature is: ``exp(-|p - v|² / 2σ²)``, rows of sum 1.

    Args:
        found: ``(N, T)``.
        words: ``(V, T)``.
        sigma: Width.

    Returns:
        ``(N, V)``.
    """
    square = ((found[:, None] - words) ** 2).sum(-1)
    weight = np.exp((square.min(1, keepdims=True) - square) / (2 * sigma**2))
    return weight / weight.sum(1, keepdims=True)


def bags_of_features(spectrum: Spectrum, vocabulary: Vocabulary) -> Descriptor:
    """Both descriptors of a surface.

    Returns:
        ``bag`` ``(V,)``: how much of the area each word covers, sum 1. ``spatial`` ``(V, V)``: the same of pairs of
        points, weighted by the heat that passes between them in the shortest of the times,
        ``∬ θ(x) θ(y)ᵀ K_t(x, y)``; sum 1.
    """
    share = soft_assignment(signatures(spectrum, vocabulary.times), vocabulary.words, vocabulary.sigma)
    share = share * spectrum.areas[:, None]
    # Through the eigenfunctions: (V, K) instead of (N, N).
    modes = share.T @ spectrum.functions
    near = np.exp(-spectrum.values * vocabulary.times.min())
    return {"bag": share.sum(0), "spatial": (modes * near) @ modes.T}


class ShapeGoogleParts(NamedTuple):
    """Per-sample distances, each ``(B,)`` float64 in [0, 20] (the spatial one may exceed it slightly)."""

    bag: Tensor
    spatial: Tensor


def shape_google(pred: Mesh, target: Mesh, vocabulary: str | Vocabulary = "bundled") -> ShapeGoogleParts:
    """Shape Google distances between meshes (Bronstein, Bronstein, Guibas & Ovsjanikov, TOG 2011).

    Args:
        pred: ``B`` meshes of any kind; soups, parts and open sheets are allowed.
        target: ``B`` meshes.
        vocabulary: ``bundled``, a path, or a :class:`Vocabulary`.

    Returns:
        10 × the L1 distance of the bags of features, and of the spatially sensitive ones.

    Raises:
        ReconlabError: The numbers of meshes differ, a mesh has no surface, or robust_laplacian is not installed.
    """
    if len(pred) != len(target):
        raise ReconlabError(f"shape_google: {len(pred)} predictions for {len(target)} true meshes.")
    words = vocabulary if isinstance(vocabulary, Vocabulary) else _vocabulary(vocabulary)
    rows = [_distances(_describe(pred[i], words), _describe(target[i], words)) for i in range(len(pred))]
    return ShapeGoogleParts(*torch.tensor(rows, dtype=torch.float64).reshape(-1, 2).unbind(1))


def _describe(mesh: Mesh, words: Vocabulary) -> Descriptor:
    return bags_of_features(mesh_spectrum(mesh, words.points, words.eigenpairs, words.surface), words)


def _distances(pred: Descriptor, truth: Descriptor) -> list[float]:
    return [FACTOR * float(np.abs(pred[key] - truth[key]).sum()) for key in ("bag", "spatial")]


class ShapeGoogle(DescriptorMetric):
    """Mean Shape Google distance over samples: ``shape_google`` and ``shape_google_spatial``.

    It compares how heat spreads over the surfaces: isometric shapes, bent or turned, are alike. It needs the extra
    ``eval``. Two samplings of one surface are not at distance 0 (docs/metrics/shape_google.md).

    Args:
        vocabulary: ``bundled``, or the path of a file by ``python -m reconlab.metrics.train_vocabulary``.
        name: What the keys begin with.
        cache: Folder for the true meshes' descriptors; null keeps them in memory.
    """

    higher_is_better = False

    def __init__(self, vocabulary: str = "bundled", name: str = "shape_google", cache: str | None = None) -> None:
        words = _vocabulary(vocabulary)
        common: dict[str, Any] = {
            "unit": "10 × L1 of distributions over words (at most 20); no unit can be derived from DR-KFS' Table 3",
            "squared": None,
            "points": words.points,
            "alignment": "none needed: invariant to isometry",
            "scale": "both surfaces scaled to area 1",
            "threshold": None,
            "factor": 1.0,
            "higher_is_better": False,
            "worst_value": 2 * FACTOR,
        }
        source = "Bronstein et al. 2011 (Shape Google); DR-KFS (2020) Table 3"
        kind = f"{len(words.words)} words, vocabulary {vocabulary if vocabulary == 'bundled' else words.digest()}"
        bag = Protocol(name=name, formula=f"10 Σ_v |P_v - T_v|, {kind}", source=source, **common)
        spatial = Protocol(
            name=f"{name}_spatial",
            formula=f"10 Σ_uv |P_uv - T_uv|, pairs weighted by the heat kernel, {kind}",
            source=source,
            **common,
        )
        super().__init__({p.name: p for p in (bag, spatial)}, cache)
        self.vocabulary = words

    def settings(self) -> str:
        """The code's version and the vocabulary's digest."""
        return f"1|{self.vocabulary.digest()}"

    def describe(self, mesh: Mesh) -> Descriptor:
        """``bag`` (V,) and ``spatial`` (V, V); see :func:`bags_of_features`."""
        return _describe(mesh, self.vocabulary)

    def compare(self, pred: Descriptor, truth: Descriptor) -> dict[str, float]:
        """Both distances."""
        return dict(zip(self.protocols, _distances(pred, truth), strict=True))
