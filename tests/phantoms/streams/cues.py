"""What the streams of a simulated case show of its class: cues by two mechanisms, with the true posterior.

A class is written in bits (two classes: one bit, four: two), and each stream shows a cue of every bit:

- `additive` (A): every cue leans towards its bit, and the cues add up: any strategy of fusion can use all streams.
- `exclusive` (B): a bit is whether an odd number of the streams' hidden signs is up (exclusive or): one stream alone
  says nothing, and neither does any sum of what the streams say; the cues have to meet.

A cohort is paired by patient, or by class: then each stream of a case is another person's of the same class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit

from pipeline.errors import UsageError

Mechanism = Literal["additive", "exclusive"]
Pairing = Literal["patient", "class"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MECHANISMS: tuple[Mechanism, ...] = ("additive", "exclusive")
PAIRINGS: tuple[Pairing, ...] = ("patient", "class")
#: Number of classes -> bits in which they are written.
BITS = {2: 1, 4: 2}
#: Half the distance of a bit's cues, in standard deviations. Additive: AUC .792 of one stream of two classes, .875 of
#: two (Phi(2 d); Green and Swets, Signal detection theory, 1966). Exclusive: nearly certain, AUC .99.
HALF_DISTANCE: dict[Mechanism, float] = {"additive": 0.57517, "exclusive": 2.0}


@dataclass(frozen=True, eq=False)
class Cues:
    """Cues of N cases in M streams, of B bits of K classes.

    Attributes:
        mechanism: that has made them.
        pairing: by patient or by class.
        labels: (N,) classes.
        shown: (N, M, B) the cues, in standard deviations.
        persons: (N, M) whose stream it is: the number of the case itself, or of another of its class.
    """

    mechanism: Mechanism
    pairing: Pairing
    labels: Ints
    shown: Floats
    persons: Ints

    @property
    def classes(self) -> int:
        """K."""
        return int(2 ** self.shown.shape[2])

    @property
    def posterior(self) -> Floats:
        """(N, K): the probability of each class given all cues of a case, by Bayes' rule."""
        half = HALF_DISTANCE[self.mechanism]
        if self.mechanism == "additive":
            return _of_bits(2 * half * self.shown.sum(1))
        if self.pairing == "class" and self.shown.shape[1] > 1:  # the signs of other persons say nothing of one another
            return np.full((len(self.labels), self.classes), 1 / self.classes)
        odd = (1 - np.prod(-np.tanh(half * self.shown), axis=1)) / 2
        return _of_bits(np.log(odd) - np.log1p(-odd))

    @property
    def alone(self) -> Floats:
        """(N, M, K): the probability of each class given the cues of one stream."""
        if self.mechanism == "additive":
            return _of_bits(2 * HALF_DISTANCE[self.mechanism] * self.shown)
        if self.shown.shape[1] == 1:
            return self.posterior[:, None]
        return np.full((*self.shown.shape[:2], self.classes), 1 / self.classes)


def draw_cues(
    mechanism: Mechanism, classes: int, streams: int, count: int, rng: np.random.Generator, pairing: Pairing = "patient"
) -> Cues:
    """Draw cues of cases, as many of each class.

    Args:
        mechanism: `additive` or `exclusive`.
        classes: K, two or four.
        streams: M.
        count: N.
        rng: the source of chance.
        pairing: `patient`, or `class`: each stream is then shuffled between the cases of a class.

    Raises:
        UsageError: E_CONFIG for another mechanism, pairing, or number.
    """
    if mechanism not in MECHANISMS or pairing not in PAIRINGS or classes not in BITS or streams < 1 or count < 1:
        expected = f"a mechanism of {', '.join(MECHANISMS)}, a pairing of {', '.join(PAIRINGS)}, two or four classes"
        got = f"{mechanism}, {pairing}, {classes} classes, {streams} streams, {count} cases"
        raise UsageError("E_CONFIG", f"Expected {expected}, streams and cases, got {got}.", "Choose other values.")
    labels = rng.permutation(np.arange(count) % classes)
    bits = labels[:, None] >> np.arange(BITS[classes]) & 1
    signs = 2 * _hidden(mechanism, bits, streams, rng) - 1
    shown = HALF_DISTANCE[mechanism] * signs + rng.standard_normal(signs.shape)
    persons = np.repeat(np.arange(count)[:, None], streams, 1)
    if pairing == "class":
        persons = _shuffled_within_class(labels, streams, rng)
        shown = np.take_along_axis(shown, persons[:, :, None], 0)
    return Cues(mechanism, pairing, labels, shown, persons)


def _hidden(mechanism: Mechanism, bits: Ints, streams: int, rng: np.random.Generator) -> Ints:
    """(N, M, B) of 0 and 1: the bit itself, or signs of which an odd number is up where the bit is 1."""
    if mechanism == "additive":
        return np.repeat(bits[:, None], streams, 1)
    free = rng.integers(0, 2, (len(bits), streams - 1, bits.shape[1]))
    return np.concatenate([free, (free.sum(1) % 2 ^ bits)[:, None]], 1)


def _shuffled_within_class(labels: Ints, streams: int, rng: np.random.Generator) -> Ints:
    persons = np.empty((len(labels), streams), np.int64)
    for label in np.unique(labels):
        inside = np.flatnonzero(labels == label)
        persons[inside] = np.stack([rng.permutation(inside) for _ in range(streams)], 1)
    return persons


def _of_bits(log_odds: Floats) -> Floats:
    """Log odds of each bit (…, B) -> probability of each class (…, 2 ** B)."""
    bits = log_odds.shape[-1]
    up = np.arange(2**bits)[:, None] >> np.arange(bits) & 1
    signed = np.where(up, log_odds[..., None, :], -log_odds[..., None, :])
    found = np.exp(log_expit(signed).sum(-1))
    return np.asarray(found / found.sum(-1, keepdims=True))
