"""From a grey view to DR-KFS features: detector, PoI map, sliding window, descriptor; all frozen."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.errors import ReconlabError
from reconlab.features.dense import DenseDescriptor
from reconlab.features.detector import PiecewiseLinearDetector, poi_map, score_range, sigmoid_map
from reconlab.features.hardnet import HardNet
from reconlab.features.patches import PatchFeatures, extract_patches, flat_patches
from reconlab.features.weights import load_dense, load_detector, load_hardnet

Squash = Literal["minmax", "sigmoid"]
Descriptor = Literal["exact", "dense"]


class PatchExtractor(nn.Module):
    """Frozen feature extractor of DR-KFS (Fig. 3): gradients pass to the images, never to the weights.

    It stays in eval mode whatever ``train()`` says, and its parameters ask for no gradient, so an optimiser over
    ``requires_grad`` parameters leaves it out.

    Args:
        detector: Scores the pixels.
        hardnet: Describes the patches one by one, and is folded here; or a :class:`DenseDescriptor`, which describes
            all windows of a map at once (its patches are 32×32 at a stride of 16).
        squash: How scores become a PoI map. ``minmax``: by the ground-truth view's own lowest and highest score
            (the reconstruction of that view uses the same two numbers). ``sigmoid``: a fixed squash.
        flat_std: Patches of the PoI map with a smaller standard deviation are flat: all of them share the
            descriptor of a constant patch and are not computed. 0 computes all. A dense descriptor does without.
        size: Patch side in pixels.
        stride: Step between patches in pixels.
        bf16: Run the descriptor's convolutions in bfloat16 (norms and distances stay in full precision).

    Example:
        >>> extractor = PatchExtractor(PiecewiseLinearDetector(), HardNet())
        >>> extractor(torch.rand(2, 64, 64)).descriptors.shape
        torch.Size([2, 3, 3, 128])
    """

    def __init__(
        self,
        detector: PiecewiseLinearDetector,
        hardnet: HardNet | DenseDescriptor,
        squash: Squash = "minmax",
        flat_std: float = 5e-3,
        size: int = 32,
        stride: int = 16,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(hardnet, DenseDescriptor) and (size, stride) != (hardnet.patch_size, hardnet.stride):
            raise ReconlabError(f"A dense descriptor has patches of 32 at a stride of 16, not {size} and {stride}.")
        self.detector = detector.eval()
        self.hardnet = hardnet.fold()
        self.squash = squash
        self.flat_std = flat_std
        self.size, self.stride = size, stride
        self.bf16 = bf16
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def load(  # type: ignore[no-untyped-def]
        cls, weights: str = "bundled", detector: str = "bundled", descriptor: Descriptor = "exact", **settings
    ) -> PatchExtractor:
        """With trained weights; see :func:`load_hardnet`, :func:`load_dense` and :func:`load_detector`."""
        # The networks' initial values are thrown away: drawing them must not change what is drawn afterwards, or
        # two experiments that differ in the loss alone would start from different reconstruction networks.
        with torch.random.fork_rng(devices=[]):
            net = load_dense(weights) if descriptor == "dense" else load_hardnet(weights)
            return cls(load_detector(detector), net, **settings)

    def train(self, mode: bool = True) -> PatchExtractor:
        """Stays in eval mode: the weights are frozen and BatchNorm is folded."""
        return super().train(False)

    def poi(self, images: Tensor, like: PatchFeatures | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """PoI maps of images.

        Args:
            images: ``(M, H, W)`` grey in [0, 1].
            like: Features of the ground truth's views, whose range to use; by default each map's own.

        Returns:
            ``maps (M, 1, H, W)``, ``low (M,)``, ``high (M,)``.
        """
        scores = self.detector(images.unsqueeze(1))
        if self.squash == "sigmoid":
            zero = scores.new_zeros(len(scores))
            return sigmoid_map(scores, self.detector.reference_range.to(scores)), zero, zero + 1
        if like is None:
            low, high = score_range(scores, self.detector.reference_range.to(scores))
        else:
            low, high = like.low.to(scores), like.high.to(scores)
        return poi_map(scores, low, high), low, high

    def forward(self, images: Tensor, like: PatchFeatures | None = None) -> PatchFeatures:
        """Features of views.

        Args:
            images: ``(M, H, W)`` grey in [0, 1].
            like: Features of the ground truth's views, whose PoI range to use; by default each view's own.

        Returns:
            Features with leading shape ``(M,)``.
        """
        maps, low, high = self.poi(images, like)
        if isinstance(self.hardnet, DenseDescriptor):
            with torch.autocast(maps.device.type, torch.bfloat16, enabled=self.bf16):
                described = self.hardnet(maps)
            means = F.avg_pool2d(maps, self.size, self.stride).squeeze(1)
            return PatchFeatures(described, means.clamp(min=0.0), low, high)
        patches = extract_patches(maps, self.size, self.stride)
        weights = patches.mean(dim=(-2, -1)).clamp(min=0.0)
        return PatchFeatures(self.describe(patches), weights, low, high)

    def describe(self, patches: Tensor) -> Tensor:
        """Descriptors ``(..., 128)`` of patches ``(..., size, size)``; the flat ones share one constant."""
        with torch.autocast(patches.device.type, torch.bfloat16, enabled=self.bf16):
            if self.flat_std <= 0:
                described = self.hardnet(patches.reshape(-1, 1, self.size, self.size))
                return described.view(*patches.shape[:-2], -1)
            textured = ~flat_patches(patches, self.flat_std)
            with torch.no_grad():
                constant = self.hardnet(patches.new_zeros(1, 1, self.size, self.size))
            described = self.hardnet(patches[textured].unsqueeze(1))
        out = constant.expand(textured.numel(), -1).clone()
        where = textured.flatten().nonzero().squeeze(1)
        return out.index_copy(0, where, described).view(*patches.shape[:-2], -1)
