"""A case as the network has looked at it: what every explanation of its class starts from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.fusion.network import FusionNet
from pipeline.fusion.tiles import Box, Tiled, TiledInferer, padded_to, without_padding


@dataclass(frozen=True)
class ExplainedCase:
    """A network, a case, and what the one says of the other.

    Attributes:
        network: on the image's device, evaluating.
        inferer: as the stage uses it.
        image: (M, I, J, K), zeros where a modality is missing.
        available: (M,) bool.
        inside: (I, J, K) bool, True in the body.
        found: of all tiles.
        table: (1, features), where the network was made for a table and the case has one.
    """

    network: FusionNet
    inferer: TiledInferer
    image: Tensor
    available: Tensor
    inside: Tensor
    found: Tiled
    table: Tensor | None = None

    def logits(self) -> Tensor:
        """The class logits of the case (classes,)."""
        return self.inferer.pooled(self.found)

    def class_logits(self, tiles: Tensor) -> Tensor:
        """The class logits (B, classes) of tiles (B, M, …) of this case."""
        there = self.available[None].expand(len(tiles), -1)
        return self.network.class_logits(tiles, there, self.rows_of_table(len(tiles)))

    def rows_of_table(self, count: int) -> Tensor | None:
        """The case's table for so many tiles."""
        return None if self.table is None else self.table.expand(count, -1)

    def counted(self) -> list[tuple[int, float]]:
        """Number and share of the tiles that make the class, largest share first.

        With `top_k` these are all that count; with `attention` the `top_k` that count most.
        """
        shares = self.inferer.shares(self.found)
        best = shares.topk(min(self.inferer.top_k, len(shares))).indices.tolist()
        return [(number, float(shares[number])) for number in best if shares[number] > 0]

    def tiles(self, image: Tensor) -> Iterator[tuple[int, float, Box, Tensor]]:
        """Number, share, place and content (1, C, tile) of the tiles that make the class.

        Args:
            image: (C, I, J, K), the case's or another on its grid.
        """
        padded = padded_to(image, self.inferer.patch)
        for number, share in self.counted():
            box = self.found.boxes[number]
            yield number, share, box, padded[(slice(None), *box)][None]

    def assembled(self, parts: Iterable[tuple[Box, Tensor]], channels: int) -> Tensor:
        """The sum of tiles (channels, tile), each at its place: (channels, I, J, K)."""
        shape = self.image.shape[1:]
        total = padded_to(torch.zeros((channels, *shape), device=self.image.device), self.inferer.patch)
        for box, part in parts:
            total[(slice(None), *box)] += part
        return without_padding(total, shape)
