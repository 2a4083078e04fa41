"""The network for inputs that share no grid: a token of each stream; single, early, intermediate and late fusion."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError
from pipeline.fusion.network import Heads, Mode, product_of_experts, wrong_mode
from pipeline.fusion.parts import VectorHead, masked
from pipeline.fusion.stream_parts import (
    ConcatTokens,
    CrossAttentionTokens,
    Features,
    GatedTokens,
    Token,
)
from pipeline.learning.encoders import build_encoder

TokenBlock = Literal["concat", "gated", "cross_attention"]
TOKEN_BLOCKS: tuple[TokenBlock, ...] = ("concat", "gated", "cross_attention")
#: What early fusion puts into one grid, and every report of it says.
EARLY_CAVEAT = (
    "Early fusion resized the streams to one size and stacked them as channels: a place of one stream and the same "
    "place of another have nothing in common."
)


class StreamNet(nn.Module):
    """Look at a volume, a radiograph, a sound … of one case, each on a grid of its own, and say its class.

    A token of a stream is the mean and the maximum of every channel on every level of its encoder, projected. Tokens
    are normalised over the cases of a batch, not over a case: how bright an input is as a whole stays in them.

    - `single`: one stream alone; the others are not looked at.
    - `early`: streams of one dimension, resized to one size, as channels of one encoder (`EARLY_CAVEAT`).
    - `intermediate`: a block makes one of all tokens.
    - `late`: a whole network for each stream; the mean of the log-probabilities of those that are there.

    Args:
        sizes: name of each stream -> its size: two numbers for images and sounds, three for volumes.
        classes: logits of a case.
        mode: see above.
        block: of intermediate fusion; `cross_attention` is between all places of the coarsest levels.
        only: the stream that `single` looks at; the first when empty.
        encoder: a name for all streams, or one for each stream, maybe for others, too
            (`pipeline.learning.encoders.ENCODERS`).
        width: channels of the first level of `unet`.
        levels: of `unet`.
        token: numbers of a token.
        table_features: numbers of a table that come with each case; 0 for none.
        dropout: of what the class is read from.

    Raises:
        UsageError: E_CONFIG for an argument that makes no network; E_EARLY for early fusion of two and three
            dimensions.
    """

    def __init__(  # noqa: PLR0913 - each is one line of a bundle's network_def
        self,
        sizes: Mapping[str, Sequence[int]],
        classes: int = 2,
        mode: Mode = "intermediate",
        block: TokenBlock = "gated",
        only: str = "",
        encoder: str | Mapping[str, str] = "unet",
        width: int = 16,
        levels: int = 4,
        token: int = 64,
        table_features: int = 0,
        dropout: float = 0.1,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        shapes = {str(name): [int(side) for side in size] for name, size in sizes.items()}
        _check(shapes, classes, mode, block, only, encoder)
        plain = {"sizes": shapes, "encoder": encoder if isinstance(encoder, str) else dict(encoder)}
        #: The arguments as JSON, and the name of the class: what a checkpoint keeps of the network's architecture.
        self.definition = json.dumps({"class": type(self).__name__, **given, **plain})
        self.modalities, self.sizes = list(shapes), list(shapes.values())
        self.mode, self.block = str(mode), str(block)
        self.classes, self.labels, self.table_features = classes, 0, table_features
        self.only = self.modalities.index(only or self.modalities[0])
        #: The streams that have an influence on what it says.
        self.sees = [self.modalities[self.only]] if mode == "single" else list(self.modalities)
        self.lengths = [math.prod(size) for size in self.sizes]
        self.common = [max(sides) for sides in zip(*self.sizes, strict=True)] if mode == "early" else [0]
        looks = self._looks(encoder)
        places = mode == "intermediate" and block == "cross_attention"
        made = [
            Features(build_encoder(name, len(size), channels, width, levels), size, places)
            for name, size, channels in looks
        ]
        #: One a stream, or one for all of early and single fusion.
        self.encoders = nn.ModuleList(made)
        self.feature_lengths, self.pooled = [part.length for part in made], [part.pooled for part in made]
        self.tokens = nn.ModuleList([Token(part.pooled, token) for part in made])
        self.fusions = nn.ModuleList([_fusion(block, made, token)] if mode == "intermediate" else [])
        readers = len(shapes) if mode == "late" else 1
        self.class_heads = nn.ModuleList([VectorHead(token, classes, table_features, dropout) for _ in range(readers)])

    def _looks(self, encoder: str | Mapping[str, str]) -> list[tuple[str, list[int], int]]:
        """Name, size and channels of every encoder."""
        names = {name: encoder if isinstance(encoder, str) else encoder[name] for name in self.modalities}
        if self.mode == "early":
            return [(names[self.modalities[0]], self.common, len(self.modalities))]
        return [(names[name], self.sizes[self.modalities.index(name)], 1) for name in self.sees]

    def forward(self, image: Tensor, available: Tensor | None = None, table: Tensor | None = None) -> Tensor:
        """The class logits.

        Args:
            image: (B, 1, N), all streams one after another (`PackStreamsd`).
            available: (B, M), False where a stream is missing; all are there when None. What stands in the place of a
                missing stream has no influence.
            table: (B, table_features), where the network was made for a table.

        Returns:
            (B, classes).
        """
        return self.heads(image, available, table).classes

    @torch.jit.export
    def heads(self, image: Tensor, available: Tensor | None = None, table: Tensor | None = None) -> Heads:
        """What each head says, with empty voxels; arguments as in `forward`."""
        there = self._there(image, available)
        return self._said(self._features(self.inputs(image, there), there), there, table)

    @torch.jit.export
    def features(self, image: Tensor, available: Tensor | None = None) -> Tensor:
        """What the encoders say of packed streams, packed again (B, 1, F): all that `heads_of_features` asks for."""
        there = self._there(image, available)
        return torch.cat(self._features(self.inputs(image, there), there), 1)[:, None]

    @torch.jit.export
    def heads_of_features(
        self, features: Tensor, available: Tensor | None = None, table: Tensor | None = None
    ) -> Heads:
        """What each head says of what `features` has given; it is what `heads` says of the streams."""
        parts: list[Tensor] = []
        start = 0
        for length in self.feature_lengths:
            parts.append(features[:, 0, start : start + length])
            start += length
        return self._said(parts, self._there(features, available), table)

    @torch.jit.ignore
    def class_logits(self, image: Tensor, available: Tensor, table: Tensor | None = None) -> Tensor:
        """The class logits alone (B, classes)."""
        return self.heads(image, available, table).classes

    @torch.jit.ignore
    def encoder_of(self, modality: str) -> nn.Module:
        """The encoder that looks at a stream; `all` names the one of early fusion.

        Raises:
            UsageError: E_MODALITY when there is none.
        """
        names = ["all"] if self.mode == "early" else self.sees
        if modality not in names:
            raise UsageError("E_MODALITY", f"Expected an encoder of {', '.join(names)}, got {modality}.")
        found: Any = self.encoders[names.index(modality)]
        encoder: nn.Module = found.encoder
        return encoder

    @torch.jit.ignore
    def require_patch(self, patch: Sequence[int]) -> None:
        """Raise E_CONFIG unless that is the shape of what the network is given: all streams, packed."""
        if list(patch) != [sum(self.lengths)]:
            what = f"Expected the {sum(self.lengths)} values of the packed streams as the patch, got {list(patch)}."
            raise UsageError("E_CONFIG", what)

    @torch.jit.ignore
    def example(self, patch: Sequence[int]) -> Tensor:
        """Zeros of the shape that the network is given of one case (1, 1, N)."""
        return torch.zeros((1, 1, *patch))

    def _there(self, image: Tensor, available: Tensor | None) -> Tensor:
        if available is None:
            return torch.ones([image.shape[0], len(self.modalities)], dtype=torch.bool, device=image.device)
        return available

    def inputs(self, image: Tensor, there: Tensor) -> list[Tensor]:
        """What each encoder is given: (B, channels, …)."""
        parts: list[Tensor] = []
        start = 0
        for number, size in enumerate(self.sizes):
            part = image[:, :, start : start + self.lengths[number]]
            start += self.lengths[number]
            part = masked(part, there[:, number : number + 1])
            parts.append(part.reshape([-1, 1] + size))  # noqa: RUF005 - TorchScript has no other way
        if self.mode == "single":
            return [parts[self.only]]
        if self.mode == "early":
            return [torch.cat([self._resized(part) for part in parts], 1)]
        return parts

    def _resized(self, part: Tensor) -> Tensor:
        if list(part.shape[2:]) == self.common:
            return part
        how = "bilinear" if part.ndim == 4 else "trilinear"
        return functional.interpolate(part, size=self.common, mode=how, align_corners=False)

    def _features(self, inputs: list[Tensor], there: Tensor) -> list[Tensor]:
        """Of each encoder (B, F)."""
        found: list[Tensor] = []
        for number, encoder in enumerate(self.encoders):
            found.append(encoder(inputs[number], self._seen(there, number)))
        return found

    def _seen(self, there: Tensor, number: int) -> Tensor:
        """Whether an encoder has something to look at (B,)."""
        if self.mode == "early":
            return there.any(1)
        return there[:, self.only if self.mode == "single" else number]

    def _said(self, features: list[Tensor], there: Tensor, table: Tensor | None) -> Heads:
        tokens: list[Tensor] = []
        places: list[Tensor] = []
        for number, token in enumerate(self.tokens):
            tokens.append(token(features[number][:, : self.pooled[number]], self._seen(there, number)))
            places.append(features[number][:, self.pooled[number] :])
        for fusion in self.fusions:
            tokens = [fusion(tokens, places, there)]
        classes: list[Tensor] = []
        for number, head in enumerate(self.class_heads):
            classes.append(head(tokens[number], table))
        return self._joined(classes, there)

    def _joined(self, classes: list[Tensor], there: Tensor) -> Heads:
        nothing = classes[0].new_zeros([classes[0].shape[0], 0, 1, 1, 1])
        if self.mode != "late":
            return Heads(nothing, classes[0], [], nothing[:, None], classes[0][:, None, :0])
        each = torch.stack(classes, 1)
        return Heads(nothing, product_of_experts(each, there), [], nothing[:, None], each)


def _fusion(block: str, encoders: Sequence[Features], token: int) -> nn.Module:
    if block == "concat":
        return ConcatTokens(len(encoders), token)
    if block == "gated":
        return GatedTokens(len(encoders), token)
    return CrossAttentionTokens([part.grid for part in encoders], token)


def _check(
    sizes: Mapping[str, Sequence[int]], classes: int, mode: str, block: str, only: str, encoder: str | Mapping[str, str]
) -> None:
    problem = ""
    if not sizes or any(len(size) not in (2, 3) or min(size) < 1 for size in sizes.values()):
        problem = f"streams with sizes of two or three sides, got {dict(sizes) or 'none'}"
    elif wrong := wrong_mode(sizes, mode, only, "streams"):
        problem = wrong
    elif block not in TOKEN_BLOCKS:
        problem = f"one of {', '.join(TOKEN_BLOCKS)} as the block of streams, got {block}"
    elif classes < 2:
        problem = f"two or more classes, got {classes}"
    if problem:
        raise UsageError("E_CONFIG", f"Expected {problem}.")
    _check_encoders(sizes, mode, encoder)


def _check_encoders(sizes: Mapping[str, Sequence[int]], mode: str, encoder: str | Mapping[str, str]) -> None:
    found = {name: encoder for name in sizes} if isinstance(encoder, str) else dict(encoder)
    if not set(found) >= set(sizes):
        what = (
            f"Expected one encoder, or one for each of {', '.join(sizes)}, got those of {', '.join(found) or 'none'}."
        )
        raise UsageError("E_CONFIG", what)
    if mode == "early" and len({len(size) for size in sizes.values()}) > 1:
        got = ", ".join(f"{name} of {len(size)}" for name, size in sizes.items())
        raise UsageError("E_EARLY", f"Expected streams of one dimension for early fusion, got {got}.")
    if mode == "early" and len({found[name] for name in sizes}) > 1:
        got = ", ".join(found[name] for name in sizes)
        raise UsageError("E_CONFIG", f"Expected one encoder for early fusion, which has no more, got {got}.")
