"""What the image fusion network learns by: six terms, and others that may join them, four of them measures of fusion.

A picture is (B, 1, I, J) or (B, 1, I, J, K), 0 to 1. A network that has learned from a measure is good at that measure:
whoever reports it says so. Q^AB/F and VIF alone are met by pictures that nobody wants; they join other terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from pipeline.errors import UsageError
from pipeline.image_fusion.filters import laplacian, magnitude, mean_filter, sobel
from pipeline.image_fusion.images import BONE, BONE_RIM, SOFT_CT, SOFT_MR, SOFT_RIM, TOP
from pipeline.image_fusion.terms import TINY, qabf, scd, ssim, vif

#: Side of the window of the local contrast, and what is added to variances so that noise is none.
CONTRAST_SIDE, CONTRAST_LEAST = 7, 1e-4
#: How many levels of the encoders, from the finest, the features of the consistency are taken of.
CONSISTENT_LEVELS = 2
#: Where nothing has an edge, in greys of 0 to 255: how far CT's neighbours are apart at most, how steep MR is a voxel,
#: and more than what there is anything. Chosen on patients held out of `harvard_fusion_train`.
EVEN_CT, EVEN_MR, EVEN_LEAST = 2.5, 10.0, 10.0
#: How much each term counts; one with the weight 0 is not counted at all.
WEIGHTS = {
    "content": 15.0,
    "structure": 8.0,
    "detail": 5.0,
    "consistency": 3.0,
    "gradient": 2.0,
    "medical": 10.0,
    **dict.fromkeys(("qabf", "vif", "scd", "bone", "even"), 0.0),
}


@dataclass(frozen=True)
class Answer:
    """What a network that learns says: the fused picture (B, 1, …), and how far its features are from the sources'."""

    fused: Tensor
    consistency: Tensor


class ImageFusionLoss(nn.Module):
    """The weighted sum of the terms.

    Args:
        weights: term -> how much it counts, over the defaults (`WEIGHTS`).
        ssim_range: data range of the structure; 2 / 255 is the evaluator's, under which noise in the black background
            counts as much as the patient.
        ssim_greys: as many greys as a picture is saved in: the structure is that of the rounded picture, so that what
            is nearly a source counts as it; 0 for none.

    Raises:
        UsageError: E_CONFIG for a term that does not exist, or a weight below 0.
    """

    def __init__(
        self, weights: Mapping[str, float] | None = None, ssim_range: float = 1.0, ssim_greys: int = 0
    ) -> None:
        super().__init__()
        if ssim_greys < 0 or ssim_greys == 1:
            raise UsageError("E_CONFIG", f"Expected 2 greys or more, or 0, as ssim_greys, got {ssim_greys}.")
        for name, weight in (weights or {}).items():
            if name not in WEIGHTS or weight < 0:
                terms = ", ".join(WEIGHTS)
                raise UsageError("E_CONFIG", f"Expected weights of 0 or more for {terms}, got {name}: {weight:g}.")
        self.weights = {**WEIGHTS, **(weights or {})}
        self.ssim_range, self.ssim_greys = ssim_range, ssim_greys

    @property
    def counted(self) -> dict[str, float]:
        """What a checkpoint keeps: the terms that count, and how the structure is measured."""
        found = {name: weight for name, weight in self.weights.items() if weight > 0}
        ways = {"ssim_range": self.ssim_range, "ssim_greys": float(self.ssim_greys)} if "structure" in found else {}
        return {**found, **ways}

    def forward(self, answer: Answer, sources: Tensor) -> Tensor:
        """The loss of a batch: a number.

        Args:
            answer: what the network says.
            sources: (B, 2, …), what is to be fused, CT and MR.
        """
        terms = self.terms(answer, sources)
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()

    def terms(self, answer: Answer, sources: Tensor) -> dict[str, Tensor]:
        """Term -> its mean over the batch, unweighted; those that count."""
        ct, mr, fused = sources[:, :1], sources[:, 1:2], answer.fused
        found: dict[str, Callable[[], Tensor]] = {
            "content": lambda: content(fused, ct, mr),
            "structure": lambda: self._structure(fused, ct, mr),
            "detail": lambda: detail(fused, ct, mr),
            "consistency": lambda: answer.consistency,
            "gradient": lambda: gradient(fused, ct, mr),
            "medical": lambda: bone(fused, ct) + soft_tissue(fused, ct, mr),
            "qabf": lambda: 1 - qabf(fused, ct, mr),
            "vif": lambda: 1 - (vif(ct, fused) + vif(mr, fused)) / 2,
            "scd": lambda: 1 - scd(fused, ct, mr) / 2,
            "bone": lambda: bone(fused, ct),
            "even": lambda: even(fused, ct, mr),
        }
        return {name: count() for name, count in found.items() if self.weights[name] > 0}

    def _structure(self, fused: Tensor, ct: Tensor, mr: Tensor) -> Tensor:
        if self.ssim_greys:  # the gradient is that of the picture before it was rounded
            top = self.ssim_greys - 1
            fused = fused + (torch.round(top * fused) / top - fused).detach()
        return 1 - (ssim(fused, ct, self.ssim_range) + ssim(fused, mr, self.ssim_range)) / 2


def content(fused: Tensor, ct: Tensor, mr: Tensor) -> Tensor:
    """The mean distance from the larger source."""
    return (fused - torch.maximum(ct, mr)).abs().mean()


def detail(fused: Tensor, ct: Tensor, mr: Tensor) -> Tensor:
    """The mean distance of the Laplacian from that of the source where it is larger."""
    first, second = laplacian(ct), laplacian(mr)
    return (laplacian(fused) - torch.where(first.abs() >= second.abs(), first, second)).abs().mean()


def gradient(fused: Tensor, ct: Tensor, mr: Tensor) -> Tensor:
    """The mean distance of the gradient's length from that of the source where it is larger."""
    first, second = magnitude(sobel(ct)), magnitude(sobel(mr))
    return (magnitude(sobel(fused), TINY) - torch.maximum(first, second)).abs().mean()


def bone(fused: Tensor, ct: Tensor) -> Tensor:
    """The mean distance from CT in bone; 0 where there is none."""
    return _mean_where((fused - ct).abs(), _inside(ct >= BONE / TOP, BONE_RIM))


def even(fused: Tensor, ct: Tensor, mr: Tensor) -> Tensor:
    """The mean distance from the larger source where neither has an edge; 0 where there is no such place."""
    pool = functional.max_pool2d if ct.ndim == 4 else functional.max_pool3d
    flat = pool(ct, 3, 1, 1) + pool(-ct, 3, 1, 1) <= EVEN_CT / TOP
    still = pool(magnitude(sobel(mr)), 3, 1, 1) < EVEN_MR / TOP
    larger = torch.maximum(ct, mr)
    return _mean_where((fused - larger).abs(), flat & still & (larger > EVEN_LEAST / TOP))


def soft_tissue(fused: Tensor, ct: Tensor, mr: Tensor) -> Tensor:
    """1 - the local correlation with MR in soft tissue, its mean; 0 where there is none.

    The local correlation compares contrasts, whatever the brightness and the gain; what is flat in both is alike.
    """
    stack = torch.cat([fused, mr, fused * fused, mr * mr, fused * mr], 1)
    means = mean_filter(stack, CONTRAST_SIDE)
    a, b = means[:, :1], means[:, 1:2]
    var_a, var_b, both = means[:, 2:3] - a * a, means[:, 3:4] - b * b, means[:, 4:5] - a * b
    scale = (var_a.clamp(min=0) + CONTRAST_LEAST) * (var_b.clamp(min=0) + CONTRAST_LEAST)
    soft = (ct > SOFT_CT[0] / TOP) & (ct < SOFT_CT[1] / TOP) & (mr > SOFT_MR / TOP)
    return _mean_where(1 - (both + CONTRAST_LEAST) / torch.sqrt(scale), _inside(soft, SOFT_RIM))


def consistency(encoders: nn.ModuleList, fused: Tensor, sources: Tensor) -> Tensor:
    """How far the features of the fused picture are from those of each source, as a part of them.

    The encoders are looked through and do not learn from this, nor do their batch normalisations count: an encoder that
    sees nothing would find any two pictures alike.

    Args:
        encoders: of CT and of MR.
        fused: (B, 1, …).
        sources: (B, 2, …).
    """
    parts = []
    for number, encoder in enumerate(encoders):
        channels = next(encoder.parameters()).shape[1]
        with torch.no_grad():
            wanted = _seen(encoder, sources[:, number : number + 1], channels)
        found = _seen(encoder, fused, channels)
        for ours, theirs in list(zip(found, wanted, strict=True))[:CONSISTENT_LEVELS]:
            parts.append((ours - theirs).abs().mean() / (theirs.abs().mean() + TINY))
    return torch.stack(parts).mean()


def _seen(encoder: nn.Module, picture: Tensor, channels: int) -> list[Tensor]:
    """The features of a picture in all channels, without a way back to the encoder's weights."""
    learning = encoder.training
    encoder.eval()
    still = {name: value.detach() for name, value in encoder.state_dict().items()}
    found: list[Tensor] = functional_call(encoder, still, (picture.expand(-1, channels, *picture.shape[2:]),))
    encoder.train(learning)
    return found


def _inside(mask: Tensor, rim: int) -> Tensor:
    """A mask without its outermost voxels; the image's edge is not the tissue's."""
    for _ in range(rim):
        kept = mask.clone()
        for axis in range(2, mask.ndim):
            size = mask.shape[axis] - 1
            kept.narrow(axis, 0, size).logical_and_(mask.narrow(axis, 1, size))
            kept.narrow(axis, 1, size).logical_and_(mask.narrow(axis, 0, size))
        mask = kept
    return mask


def _mean_where(values: Tensor, inside: Tensor) -> Tensor:
    return (values * inside).sum() / inside.sum().clamp(min=1)
