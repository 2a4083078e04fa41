"""Penalised softmax regression by Newton's method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from pipeline.calibration.optimise import GRADIENT_END, one_thread, require_settled, weighted_nll
from pipeline.calibration.rows import PIECE_VALUES, Rows

#: Newton's steps, and steps of conjugate gradients for each.
STEPS, INNER_STEPS = 100, 200
#: Parameters up to which the whole Hessian is made; of more, its blocks of one class each ease the inner steps.
WHOLE_PARAMETERS = 500
#: Share of the largest curvature that is added to all: it keeps regular what no row and no penalty holds.
REGULAR = 1e-10
#: How much of a step is tried, one after the other, the share of its decrease that is asked for (Armijo), and what
#: rounding makes of a loss.
SHARES, DECREASE, ROUNDING = tuple(0.5**halvings for halvings in range(30)), 1e-4, 1e-15


@dataclass(frozen=True, eq=False)
class Regression:
    """Mean NLL of softmax(W z scale + b), plus the sum of `penalty` times the squares of (W, b).

    Attributes:
        rows: what to fit on.
        scale: of the logits.
        penalty: (C, C + 1), of each parameter.
    """

    rows: Rows
    scale: float
    penalty: torch.Tensor

    def pieces(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Features (n, C + 1), of which the last is 1, labels and weights (n,) of some rows at once."""
        for logits, labels, weights in self.rows.pieces():
            ones = torch.ones(len(labels), 1, dtype=torch.float64)
            yield torch.cat([logits * self.scale, ones], dim=1), labels, weights

    def loss(self, parameters: torch.Tensor) -> float:
        """At (C, C + 1), W and b side by side."""
        total = sum(float(weighted_nll(x @ parameters.T, labels, weights)) for x, labels, weights in self.pieces())
        return total + float((self.penalty * parameters**2).sum())


@dataclass(frozen=True, eq=False)
class Slope:
    """How a regression's loss changes about some parameters (C, C + 1), W and b side by side."""

    regression: Regression
    parameters: torch.Tensor

    def shares(self) -> Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Features (n, C + 1), probabilities (n, C), labels (n, 1) and weights (n, 1) of some rows at once."""
        return self._kept if self.regression.rows.logits.numel() <= PIECE_VALUES else self._made()

    @cached_property
    def _kept(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
        return list(self._made())

    def _made(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
        for features, labels, weights in self.regression.pieces():
            yield features, (features @ self.parameters.T).softmax(dim=1), labels[:, None], weights[:, None]

    def gradient(self) -> torch.Tensor:
        """(C, C + 1)."""
        found = 2 * self.regression.penalty * self.parameters
        for features, shares, labels, weights in self.shares():
            found += (weights * shares.scatter_add(1, labels, torch.full_like(weights, -1))).T @ features
        return found

    def curved(self, step: torch.Tensor) -> torch.Tensor:
        """The Hessian's product with a step, (C, C + 1) both."""
        found = 2 * self.regression.penalty * step
        for features, shares, _, weights in self.shares():
            change = shares * (features @ step.T)
            change -= shares * change.sum(dim=1, keepdim=True)
            found += (weights * change).T @ features
        return found

    def factors(self) -> torch.Tensor:
        """Cholesky factors of the Hessian, (1, P, P) of P = C (C + 1), or of its blocks, (C, C + 1, C + 1)."""
        classes, width = self.parameters.shape
        whole = classes * width <= WHOLE_PARAMETERS
        found = torch.diag_embed(2 * self.regression.penalty)
        between = torch.zeros(classes * width, classes * width, dtype=torch.float64) if whole else None
        for features, shares, _, weights in self.shares():
            held = shares if whole else shares * (1 - shares)
            for block, share in zip(found, (weights * held).T, strict=True):
                block += (features * share[:, None]).T @ features
            if between is not None:
                pairs = ((weights.sqrt() * shares)[:, :, None] * features[:, None, :]).flatten(1)
                between += pairs.T @ pairs
        if between is not None:
            found = (torch.block_diag(*found) - between)[None]
        largest = found.diagonal(dim1=1, dim2=2).max()
        return torch.linalg.cholesky(found + REGULAR * largest * torch.eye(found.shape[1], dtype=torch.float64))

    def step(self, gradient: torch.Tensor) -> torch.Tensor:
        """Newton's step, as precisely as the gradient deserves. Source: Nocedal, Wright 2006, algorithm 7.1."""
        factors, found, left = self.factors(), torch.zeros_like(gradient), -gradient
        if len(factors) == 1:
            return torch.cholesky_solve(left.reshape(-1, 1), factors[0]).reshape(left.shape)
        size = float(gradient.norm())
        way, before = torch.zeros_like(gradient), math.inf
        for _ in range(INNER_STEPS):
            eased = torch.cholesky_solve(left.reshape(len(factors), -1, 1), factors).reshape(left.shape)
            product = float((left * eased).sum())
            way = eased + product / before * way
            bent = self.curved(way)
            curvature = float((way * bent).sum())
            if curvature <= 0:  # rounding has eaten it
                break
            length = product / curvature
            found, left, before = found + length * way, left - length * bent, product
            if float(left.norm()) <= min(0.1, math.sqrt(size)) * size:
                break
        return found


def newton(regression: Regression, start: torch.Tensor, name: str) -> torch.Tensor:
    """Find the parameters (C, C + 1) with the smallest loss, which is convex.

    Where classes are all but separated the loss is steep in some directions and next to flat in others: a search by
    gradients alone (LBFGS) is far from the minimum after 500 steps, this one is there in about ten.

    Args:
        regression: the loss.
        start: (C, C + 1) float64.
        name: of the method, for the message.

    Raises:
        UsageError: E_CAL_NO_FIT when no minimum was found.
    """
    with torch.no_grad(), one_thread():
        found, loss = start, regression.loss(start)
        for _ in range(STEPS):
            there = Slope(regression, found)
            gradient = there.gradient()
            if float(gradient.abs().max()) <= GRADIENT_END:
                break
            step = there.step(gradient)
            slope = float((gradient * step).sum())
            for share in SHARES:
                lower = regression.loss(found + share * step)
                if lower <= loss + DECREASE * share * slope + ROUNDING * abs(loss):
                    break
            else:  # rounding has eaten the decrease
                break
            found, loss = found + share * step, lower
    require_settled(gradient, name)
    return found
