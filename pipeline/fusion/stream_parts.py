"""The parts of the network for streams: tokens, and blocks that make one of the tokens of several streams.

All of them normalise over the cases of a batch (batch normalisation). A normalisation of each channel of a case would
leave nothing of a grid of one place, and one of a whole case would take away how bright it is: what one stream says
together with another may be in that alone. Streams that are not there take no part in a batch's statistics.
"""

# no `from __future__ import annotations`: TorchScript cannot read the annotations of an unused method as texts
import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.fusion.parts import masked

#: Heads of the attention between places.
HEADS = 4


class OfThose(nn.Module):
    """A module whose input some cases of a batch lack: while it learns, it sees those alone that have it.

    A lone case has no statistics of its own: it is seen with those that were learned so far.
    """

    def forward(self, given: Tensor, there: Tensor) -> Tensor:
        """What the module says of a batch (B, …), of which those that are `there` (B,) have the input."""
        if self.training:
            return self.look_at_some(given, there)
        return self.look(given)

    def look(self, given: Tensor) -> Tensor:
        """What the module says of all of a batch (B, …)."""
        raise NotImplementedError

    @torch.jit.unused
    def look_at_some(self, given: Tensor, there: Tensor) -> Tensor:
        """What it says of those cases that have the input, and 0 of the others.

        Raises:
            UsageError: E_CONFIG for a batch of one case.
        """
        if len(given) < 2:
            remedy = "Give a larger --batch; more cases where there is only one."
            raise UsageError("E_CONFIG", "Expected a batch of two or more cases to learn from, got 1.", remedy)
        if bool(there.all()):
            return self.look(given)
        rows = there.nonzero()[:, 0]
        if len(rows) == 0:
            with torch.no_grad():
                self.eval()
                found = torch.zeros_like(self.look(given[:1])).expand(len(given), -1)
            self.train()
            return found
        if len(rows) == 1:
            self.eval()
        said = self.look(given[rows])
        self.train()
        return said.new_zeros((len(given), *said.shape[1:])).index_copy(0, rows, said)


class Features(OfThose):
    """What an encoder says of a stream, in one row: mean and maximum of every channel on every level.

    Args:
        encoder: with its `channels`; gives a list of features, fine to coarse.
        size: of the stream.
        places: whether all places of the coarsest level follow, channel by channel.
    """

    def __init__(self, encoder: nn.Module, size: Sequence[int], places: bool) -> None:
        super().__init__()
        self.encoder = encoder
        channels: list[int] = list(encoder.channels)  # type: ignore[arg-type]
        #: Numbers of the pooled features.
        self.pooled = 2 * sum(channels)
        self.places = places
        #: Channels and places of the coarsest level.
        self.grid = (channels[-1], _places(encoder, size) if places else 0)
        self.length = self.pooled + math.prod(self.grid)

    def look(self, given: Tensor) -> Tensor:
        """Of a stream (B, channels, …): (B, length)."""
        levels: list[Tensor] = self.encoder(given)
        parts = [level.flatten(2).mean(2) for level in levels] + [level.flatten(2).amax(2) for level in levels]
        if self.places:
            parts.append(levels[-1].flatten(1))
        return torch.cat(parts, 1)


class Token(OfThose):
    """Project pooled features (B, features) to a token (B, token)."""

    def __init__(self, features: int, token: int) -> None:
        super().__init__()
        self.project = _mix(features, token)

    def look(self, given: Tensor) -> Tensor:
        """Project."""
        return self.project(given)


class ConcatTokens(nn.Module):
    """Concatenate the tokens and mix them.

    Args:
        streams: how many there are.
        token: numbers of a token, and of the result.
    """

    def __init__(self, streams: int, token: int) -> None:
        super().__init__()
        self.mix = _mix(streams * token, token)

    def forward(self, tokens: list[Tensor], places: list[Tensor], available: Tensor) -> Tensor:
        """Fuse.

        Args:
            tokens: of each stream (B, token).
            places: of each stream, its coarsest level's channels at all places (B, channels * places).
            available: (B, M), True where a stream is there.

        Returns:
            (B, token).
        """
        return self.mix(masked(torch.stack(tokens, 1), available).flatten(1))


class GatedTokens(nn.Module):
    """Weigh the tokens that are there by a softmax, and pass on their mean and their variance.

    Source: as of `GatedBlock`. Arguments as in `ConcatTokens`.
    """

    def __init__(self, streams: int, token: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList([nn.Linear(token, 1) for _ in range(streams)])
        self.mix = _mix(2 * token, token)

    @torch.jit.export
    def weights(self, tokens: list[Tensor], available: Tensor) -> Tensor:
        """How much each stream counts (B, M), with the sum 1; 0 where it is missing."""
        scores: list[Tensor] = []
        for number, gate in enumerate(self.gates):
            scores.append(gate(tokens[number]))
        return torch.softmax(torch.cat(scores, 1).masked_fill(~available, float("-inf")), 1)

    def forward(self, tokens: list[Tensor], places: list[Tensor], available: Tensor) -> Tensor:
        """Fuse; arguments and result as in `ConcatTokens.forward`."""
        weights = self.weights(tokens, available)[:, :, None]
        stacked = masked(torch.stack(tokens, 1), available)
        mean = (weights * stacked).sum(1)
        variance = (weights * (stacked - mean[:, None]) ** 2).sum(1)
        return self.mix(torch.cat([mean, variance], 1))


class CrossAttentionTokens(nn.Module):
    """Let every place of a stream's coarsest level ask all places of the streams that are there; then mix.

    Args:
        grids: channels and places of each stream's coarsest level.
        token: numbers of a place, and of the result: a multiple of `HEADS`.

    Raises:
        UsageError: E_CONFIG for another number.

    Source: Vaswani et al., Attention is all you need, NeurIPS 2017, section 3.2; without its normalisation of each
        place by itself.
    """

    def __init__(self, grids: Sequence[tuple[int, int]], token: int) -> None:
        super().__init__()
        if token % HEADS:
            raise UsageError("E_CONFIG", f"Expected a token of a multiple of {HEADS} numbers, got {token}.")
        self.grids = list(grids)
        self.projections = nn.ModuleList([nn.Conv1d(channels, token, 1) for channels, _ in grids])
        self.names = nn.ParameterList([torch.empty(places, token).normal_(std=0.02) for _, places in grids])
        self.attention = nn.MultiheadAttention(token, HEADS, batch_first=True)
        self.mix = _mix(2 * len(grids) * token, token)

    def forward(self, tokens: list[Tensor], places: list[Tensor], available: Tensor) -> Tensor:
        """Fuse; arguments and result as in `ConcatTokens.forward`."""
        rows: list[Tensor] = []
        ignored: list[Tensor] = []
        for number, (projection, name) in enumerate(zip(self.projections, self.names)):  # noqa: B905 - TorchScript
            channels, count = self.grids[number]
            grid = projection(places[number].reshape(-1, channels, count)).transpose(1, 2) + name
            rows.append(masked(grid, available[:, number : number + 1]))
            ignored.append((~available[:, number : number + 1]).expand(-1, count))
        asked = torch.cat(rows, 1)
        seen = self.attention(asked, asked, asked, key_padding_mask=torch.cat(ignored, 1), need_weights=False)[0]
        found: list[Tensor] = []
        start = 0
        for number, token in enumerate(tokens):
            count = self.grids[number][1]
            found.append(seen[:, start : start + count].mean(1))
            found.append(token)
            start += count
        stacked = torch.stack(found, 1).reshape(-1, len(tokens), 2 * tokens[0].shape[1])
        return self.mix(masked(stacked, available).flatten(1))


def _mix(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.LeakyReLU(0.01))


@torch.no_grad()
def _places(encoder: nn.Module, size: Sequence[int]) -> int:
    """How many places the coarsest level of an encoder has of an input of a size."""
    shadow = copy.deepcopy(encoder).to("meta").eval()
    first = next(parameter for parameter in shadow.parameters() if parameter.ndim > 2)
    return shadow(torch.zeros((1, first.shape[1], *size), device="meta"))[-1][0, 0].numel()
