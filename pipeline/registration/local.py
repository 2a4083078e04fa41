"""How far parts of the body would go if each could move by itself: nowhere, where an alignment is right.

One rigid pose fits all parts of a body only when both images show that body, in that pose. A pose that is wrong, or the
best one for another patient, leaves parts that match better some millimetres away, though NMI as a whole has a peak.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.registration.similarity import BINS, FloatArray, Pose, SampledPair

#: Edge of a part: large enough to hold structure of its own, small enough to make some fifty of a head.
PART_MM = 40.0
#: A part with fewer points in view says nothing, nor do fewer parts than this.
LEAST_POINTS = 80
LEAST_PARTS = 4
#: Each part looks in all 26 directions, then again from the best place with a smaller step: up to about 11 mm along
#: each axis, to 0.75 mm.
STEPS_MM = (6.0, 3.0, 1.5, 0.75)
#: What a shift of 1 mm costs, in the pair's mean information: along a limb or a smooth border next to nothing tells
#: where a part belongs, and without a price noise would send it anywhere (the aperture problem).
PRICE_PER_MM = 0.02
#: A shift that brings more of a part out of view than this is not tried.
LEAST_KEPT = 0.7
#: Blurs the joint histogram, which is sparse; and a uniform share keeps the logarithm of its empty bins finite.
SMOOTHING_BINS = 0.7
UNIFORM_SHARE = 1e-3
_DIRECTIONS = [np.array(d, np.float64) for d in itertools.product((-1, 0, 1), repeat=3) if any(d)]


def local_shift_mm(pair: SampledPair, pose: Pose) -> float | None:
    """How far parts of the body would move to match better: the median, weighted by how much a part has to say.

    The match of a part is its mean pointwise mutual information log p(a, b) / (p(a) p(b)), with the probabilities of
    the whole pair in this pose: a few hundred points suffice, as no histogram is made of them. A shift has to pay, see
    `PRICE_PER_MM`. A part's say is its number of points times how much its best match exceeds those around the pose; a
    uniform one has none.

    Args:
        pair: the images, at the points to look at.
        pose: see `Pose`.

    Returns:
        mm; None where too little is in view.

    Source: Rogelj, Kovacic and Gee, Comput Vis Image Underst 92(1), 2003 (point similarity from the global joint
        histogram): doi 10.1016/S1077-3142(03)00116-4.
    """
    search = _Search(pair, pose)
    if len(search.usable) < LEAST_PARTS:
        return None
    shifts, weights = search.run()
    return _weighted_median(np.linalg.norm(shifts, axis=1), weights) if weights.any() else None


class _Search:
    """The parts of a pair in a pose, and their best shifts."""

    def __init__(self, pair: SampledPair, pose: Pose) -> None:
        self._pair, self._pose = pair, pose
        cells = np.floor((pair.points - pair.points.mean(axis=0)) / PART_MM + 0.5).astype(int)
        parts, part_of = np.unique(cells, axis=0, return_inverse=True)
        self._part_of = part_of.ravel()
        self._count = len(parts)
        bins, inside = pair.moving_bins(pose)
        self._information = pointwise_information(pair.fixed_bins[inside], bins[inside])
        self._seen = np.bincount(self._part_of[inside], minlength=self._count)
        self.usable = np.flatnonzero(self._seen >= LEAST_POINTS)

    def run(self) -> tuple[FloatArray, FloatArray]:
        """Best shift (parts, 3), mm, of each usable part, and its weight."""
        shifts: FloatArray = np.zeros((self._count, 3))
        best = self._match(shifts)
        price = PRICE_PER_MM * float(np.average(best[self.usable], weights=self._seen[self.usable]))
        around = []
        for step_mm in STEPS_MM:
            origin = shifts.copy()
            for direction in _DIRECTIONS:
                moved = origin + step_mm * direction
                match = self._match(moved) - price * np.linalg.norm(moved, axis=1)
                better = match > best
                shifts[better], best = moved[better], np.where(better, match, best)
                if step_mm == STEPS_MM[0]:
                    around.append(match)
        return shifts[self.usable], self._weights(best, np.array(around))

    def _match(self, shifts: FloatArray) -> FloatArray:
        """Mean pointwise information of each part, moved; -inf where that brings too much of it out of view."""
        bins, inside = self._pair.moving_bins(self._pose, shifts[self._part_of])
        parts = self._part_of[inside]
        information = self._information[self._pair.fixed_bins[inside], bins[inside]]
        seen = np.bincount(parts, minlength=self._count)
        total = np.bincount(parts, weights=information, minlength=self._count)
        kept = (seen >= LEAST_KEPT * self._seen) & (seen > 0)
        return np.where(kept, total / np.maximum(seen, 1), -np.inf)

    def _weights(self, best: FloatArray, around: FloatArray) -> FloatArray:
        tried = np.isfinite(around)
        mean = np.where(tried, around, 0.0).sum(axis=0) / np.maximum(tried.sum(axis=0), 1)
        say = np.where(tried.any(axis=0), best - mean, 0.0)[self.usable]
        return np.asarray(self._seen[self.usable] * np.maximum(say, 0.0))


def pointwise_information(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> FloatArray:
    """Pointwise mutual information log p(a, b) / (p(a) p(b)) of each pair of bins.

    Args:
        a: bin numbers of one image, shape (N,), 0 to `BINS` - 1.
        b: bin numbers of the other at the same points.

    Returns:
        (BINS, BINS); its mean over the points is about the mutual information in nats.
    """
    joint = np.bincount(a * BINS + b, minlength=BINS * BINS).reshape(BINS, BINS) / max(len(a), 1)
    joint = ndimage.gaussian_filter(joint, SMOOTHING_BINS, mode="constant") + UNIFORM_SHARE / BINS**2
    joint /= joint.sum()
    return np.asarray(np.log(joint / (joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True))))


def _weighted_median(values: FloatArray, weights: FloatArray) -> float:
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(share, 0.5)])
