"""The fusion network: early, intermediate and late fusion of any number of modalities, and each one alone."""

from __future__ import annotations

import functools
import json
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.fusion.parts import (
    AttentionBlock,
    ClassHead,
    ConcatBlock,
    CrossAttentionBlock,
    GatedBlock,
    SqueezeBlock,
    VoxelHead,
    build_encoder,
    masked,
    widened,
)

Mode = Literal["single", "early", "intermediate", "late"]
Block = Literal["concat", "se", "cbam", "gated", "cross_attention"]
MODES: tuple[Mode, ...] = ("single", "early", "intermediate", "late")
BLOCKS: dict[str, type[nn.Module]] = {
    "concat": ConcatBlock,
    "se": SqueezeBlock,
    "cbam": AttentionBlock,
    "gated": GatedBlock,
    "cross_attention": CrossAttentionBlock,
}
#: At these widths, two modalities and five levels, every mode has about ten million parameters.
WIDTHS: dict[Mode, int] = {"single": 24, "early": 24, "intermediate": 20, "late": 18}
#: Attention between all places costs the square of their number: it is used on this many of the coarsest levels.
ATTENTION_LEVELS = 2


class Heads(NamedTuple):
    """What the network says.

    Attributes:
        voxels: logits (B, labels, I, J, K); (B, 0, I, J, K) without a voxel head.
        classes: logits (B, classes); (B, 0) without a class head.
        deep: coarser voxel logits for deep supervision, from fine to coarse.
        voxels_each: late fusion: the voxel logits of each modality's own network (B, M, labels, I, J, K).
        classes_each: late fusion: the class logits of each modality's own network (B, M, classes).
    """

    voxels: Tensor
    classes: Tensor
    deep: list[Tensor]
    voxels_each: Tensor
    classes_each: Tensor


class FusionNet(nn.Module):
    """Look at several modalities of one patient on one grid.

    - `single`: one encoder that sees one modality; the others are not looked at.
    - `early`: one encoder that sees all modalities as channels.
    - `intermediate`: an encoder for each modality; a block makes one of their features on every level.
    - `late`: a whole network for each modality; the mean of the log-probabilities of those that are there.

    Args:
        modalities: their names, in the order of the image's channels.
        classes: logits of a case; 0 for no class head.
        labels: logits of a voxel, background included; 0 for no voxel head.
        mode: see above.
        block: of intermediate fusion; `cross_attention` on the two coarsest levels, with `gated` on the others.
        only: the modality that `single` looks at; the first when empty.
        encoder: `unet`, `resnet10`, `resnet18` or `resnet34`.
        width: channels of the first level of `unet`; `WIDTHS` of the mode when 0.
        levels: of `unet`.
        class_levels: how many of the coarsest levels the class head looks at; all when 0. With `concat` and 1 it is the
            deep concatenation of the literature, which cannot compare textures.
        deep: how many coarser voxel maps are supervised.
        table_features: numbers of a table that come with each case, such as radiomics; 0 for none.
        dropout: of the pooled features.

    Raises:
        UsageError: E_CONFIG for an argument that makes no network.
    """

    def __init__(  # noqa: PLR0913 - each is one line of a bundle's network_def
        self,
        modalities: Sequence[str],
        classes: int = 2,
        labels: int = 2,
        mode: Mode = "intermediate",
        block: Block = "gated",
        only: str = "",
        encoder: str = "unet",
        width: int = 0,
        levels: int = 5,
        class_levels: int = 0,
        deep: int = 0,
        table_features: int = 0,
        dropout: float = 0.1,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        _check(modalities, classes, labels, mode, block, only)
        #: The arguments as JSON: what a checkpoint keeps of the network's architecture.
        self.definition = json.dumps({**given, "modalities": list(modalities)})
        self.modalities = list(modalities)
        self.mode, self.classes, self.labels, self.table_features = str(mode), classes, labels, table_features
        self.only = self.modalities.index(only or self.modalities[0])
        #: The modalities that have an influence on what it says.
        self.sees = [self.modalities[self.only]] if mode == "single" else list(modalities)
        inputs = {"single": [1], "early": [len(modalities)]}.get(mode, [1] * len(modalities))
        width = width or WIDTHS[mode]
        encoders = [build_encoder(encoder, count, width, levels) for count in inputs]
        self.encoders = nn.ModuleList(encoders)
        channels, stride = encoders[0].channels, encoders[0].first_stride
        fused = range(len(channels)) if mode == "intermediate" else range(0)
        coarse = len(channels) - ATTENTION_LEVELS
        self.fusions = nn.ModuleList([_fusion(block, len(modalities), channels[i], i >= coarse) for i in fused])
        readers = len(modalities) if mode == "late" else 1
        self.class_from = len(channels) - class_levels if class_levels else 0
        seen = channels[self.class_from :]
        self.voxel_heads = nn.ModuleList(
            [VoxelHead(channels, labels, stride, deep) for _ in range(readers if labels else 0)]
        )
        self.class_heads = nn.ModuleList(
            [ClassHead(seen, classes, table_features, dropout) for _ in range(readers if classes else 0)]
        )

    def forward(self, image: Tensor, available: Tensor | None = None, table: Tensor | None = None) -> Tensor:
        """Every logit as a channel of one tensor, so that any inferer can use the network.

        Args:
            image: (B, M, I, J, K), a channel for each modality, on one grid; each side a multiple of 2 ** (levels - 1).
            available: (B, M), False where a modality is missing; all are there when None. What a missing modality's
                channel holds has no influence.
            table: (B, table_features), where the network was made for a table.

        Returns:
            (B, labels + classes, I, J, K): the voxel logits, then the class logits, the same at every voxel; without a
            voxel head (B, classes).
        """
        heads = self.heads(image, available, table)
        if self.labels == 0:
            return heads.classes
        size = image.shape
        spread = heads.classes[:, :, None, None, None].expand(-1, -1, size[2], size[3], size[4])
        return torch.cat([heads.voxels, spread], 1)

    @torch.jit.ignore
    def encoder_of(self, modality: str) -> nn.Module:
        """The encoder that looks at a modality; `all` names the one of early and of single fusion.

        Raises:
            UsageError: E_MODALITY when there is none.
        """
        names = self.modalities if len(self.encoders) == len(self.modalities) > 1 else ["all"]
        if modality not in names:
            raise UsageError("E_MODALITY", f"Expected an encoder of {', '.join(names)}, got {modality}.")
        return self.encoders[names.index(modality)]

    def require_patch(self, patch: Sequence[int]) -> None:
        """Raise E_CONFIG unless the network can halve a patch as often as it has to."""
        encoder: Any = self.encoders[0]
        step = encoder.first_stride * 2 ** (len(encoder.channels) - 1)
        # of the smallest patch a single voxel would be left, which cannot be normalised
        if len(patch) != 3 or any(side < step or side % step for side in patch) or max(patch) == step:
            what = f"Expected a patch of three sides, each a multiple of {step} and one of them {2 * step} or more"
            remedy = f"Give other sides, such as --patch [{2 * step},{2 * step},{2 * step}]."
            raise UsageError("E_CONFIG", f"{what}, got {list(patch)}.", remedy)

    @torch.jit.ignore
    def example(self, patch: Sequence[int]) -> Tensor:
        """Zeros of the shape that the network is given of one patch (1, M, I, J, K)."""
        return torch.zeros((1, len(self.modalities), *patch))

    @torch.jit.export
    def heads(self, image: Tensor, available: Tensor | None = None, table: Tensor | None = None) -> Heads:
        """What each head says; arguments as in `forward`."""
        there = available
        if there is None:
            there = torch.ones(image.shape[:2], dtype=torch.bool, device=image.device)
        image = masked(image, there)
        streams = self._streams(image, there)
        voxels: list[list[Tensor]] = []
        for number, voxel_head in enumerate(self.voxel_heads):
            voxels.append(voxel_head(streams[number]))
        classes: list[Tensor] = []
        for number, class_head in enumerate(self.class_heads):
            classes.append(class_head(streams[number][self.class_from :], table))
        return self._joined(voxels, classes, image, there)

    @torch.jit.ignore
    def class_logits(self, image: Tensor, available: Tensor, table: Tensor | None = None) -> Tensor:
        """The class logits alone (B, classes), as `heads` gives them, without the work of the voxel head."""
        streams = self._streams(masked(image, available), available)
        each = [head(streams[number][self.class_from :], table) for number, head in enumerate(self.class_heads)]
        if not each:
            return image.new_zeros([len(image), 0])
        return product_of_experts(torch.stack(each, 1), available) if self.mode == "late" else each[0]

    def _streams(self, image: Tensor, there: Tensor) -> list[list[Tensor]]:
        """The features that each reader works on."""
        streams: list[list[Tensor]] = []
        for number, encoder in enumerate(self.encoders):
            if self.mode == "early":
                streams.append(encoder(image))
            else:
                channel = self.only if self.mode == "single" else number
                streams.append(encoder(image[:, channel : channel + 1]))
        if self.mode != "intermediate":
            return streams
        fused: list[Tensor] = []
        for level, fusion in enumerate(self.fusions):
            fused.append(fusion(torch.stack([stream[level] for stream in streams], 1), there))
        return [fused]

    def _joined(self, voxels: list[list[Tensor]], classes: list[Tensor], image: Tensor, there: Tensor) -> Heads:
        """One answer of all readers; for late fusion the mean of their log-probabilities."""
        batch, size = image.shape[0], image.shape[2:]
        empty_voxels = image.new_zeros([batch, 0, size[0], size[1], size[2]])
        empty_classes = image.new_zeros([batch, 0])
        if self.mode != "late":
            return Heads(
                voxels[0][0] if self.labels else empty_voxels,
                classes[0] if self.classes else empty_classes,
                voxels[0][1:] if self.labels else [],
                empty_voxels[:, None],
                empty_classes[:, None],
            )
        every_voxel = torch.stack([maps[0] for maps in voxels], 1) if self.labels else empty_voxels[:, None]
        every_class = torch.stack(classes, 1) if self.classes else empty_classes[:, None]
        deep: list[Tensor] = []
        if self.labels:
            for level in range(1, len(voxels[0])):
                deep.append(product_of_experts(torch.stack([maps[level] for maps in voxels], 1), there))
        return Heads(
            product_of_experts(every_voxel, there) if self.labels else empty_voxels,
            product_of_experts(every_class, there) if self.classes else empty_classes,
            deep,
            every_voxel,
            every_class,
        )


def product_of_experts(logits: Tensor, available: Tensor) -> Tensor:
    """The mean of the log-probabilities of the modalities that are there: their (geometric) product, normalised.

    Args:
        logits: (B, M, classes, …).
        available: (B, M).

    Returns:
        (B, classes, …), log-probabilities up to a constant.

    Source: Hinton, Training products of experts by minimizing contrastive divergence, 2002, equation 1.
    """
    return masked(torch.log_softmax(logits, 2), available).sum(1) / widened(available, logits).sum(1).clamp(min=1)


def _fusion(block: str, modalities: int, channels: int, coarse: bool) -> nn.Module:
    name = "gated" if block == "cross_attention" and not coarse else block
    return BLOCKS[name](modalities, channels)


def _check(modalities: Sequence[str], classes: int, labels: int, mode: str, block: str, only: str) -> None:
    problem = ""
    if len(set(modalities)) != len(modalities) or not modalities:
        problem = f"modalities with names of their own, got {', '.join(modalities) or 'none'}"
    elif wrong := wrong_mode(modalities, mode, only):
        problem = wrong
    elif block not in BLOCKS:
        problem = f"one of {', '.join(BLOCKS)} as the block, got {block}"
    elif min(classes, labels) < 0 or 1 in (classes, labels) or classes + labels == 0:
        problem = f"two or more classes or labels (0 for no such head), got {classes} and {labels}"
    if problem:
        raise UsageError("E_CONFIG", f"Expected {problem}.")


def wrong_mode(names: Collection[str], mode: str, only: str, what: str = "modalities") -> str:
    """Why inputs cannot be fused so, as what was expected and what came; empty where they can.

    Args:
        names: of the inputs.
        mode: of fusion.
        only: the input that `single` looks at; empty for the first.
        what: the inputs are called.
    """
    if mode not in MODES:
        return f"one of {', '.join(MODES)} as the mode, got {mode}"
    if mode != "single" and len(names) < 2:
        return f"two or more {what} to fuse, got {', '.join(names)}"
    if only and only not in names:
        return f"`only` to be one of {', '.join(names)}, got {only}"
    return ""


NARROWEST, WIDEST = 4, 128
#: Networks are compared whose parameters differ by less than this part.
TOLERANCE = 0.1


def parameter_count(definition: Mapping[str, Any], kind: Callable[..., nn.Module] = FusionNet) -> int:
    """Parameters of a network of a kind with these arguments, which is not built for it (torch's device `meta`).

    Raises:
        UsageError: E_CONFIG.
    """
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in kind(**definition).parameters())


def width_for(parameters: int, definition: Mapping[str, Any], kind: Callable[..., nn.Module] = FusionNet) -> int:
    """The width that comes nearest to a number of parameters; `definition` has the other arguments of the network.

    Raises:
        UsageError: E_CONFIG when no width comes within `TOLERANCE`.
    """
    count = functools.cache(lambda width: parameter_count({**definition, "width": width}, kind))
    first = NARROWEST + bisect_left(range(NARROWEST, WIDEST), parameters, key=count)  # with at least as many
    width = min((max(NARROWEST, first - 1), first), key=lambda item: abs(count(item) - parameters))
    if abs(count(width) / parameters - 1) > TOLERANCE:
        got = f"{count(width):,} at width {width}"
        raise UsageError("E_CONFIG", f"Expected a width with {parameters:,} parameters ± 10 %, got {got}.")
    return width
