"""Which cases an epoch of a training asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from ignite.distributed import get_rank, get_world_size
from torch.utils.data import Sampler

from pipeline.learning.table import Row


class BalancedCases(Sampler[int]):
    """Draw cases so that every class comes equally often; the draws of an epoch depend on the seed and the epoch alone.

    Several processes share the draws out among themselves.

    Args:
        rows: the training cases.
        seed: of the chance.
        draws: how many cases an epoch has over all processes; as many as there are rows when 0.
    """

    def __init__(self, rows: Sequence[Row], seed: int = 0, draws: int = 0) -> None:
        counts = Counter(row.label for row in rows)
        self.weights = torch.tensor([1.0 / counts[row.label] for row in rows], dtype=torch.float64)
        self.seed, self.epoch = seed, 0
        self.each = -(-(draws or len(rows)) // get_world_size())

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch's cases are asked for next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.each

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        drawn = torch.multinomial(self.weights, self.each * get_world_size(), replacement=True, generator=generator)
        return iter(drawn[get_rank() :: get_world_size()].tolist())
