"""How far parts of the body would go if each could move by itself: nowhere, where an alignment is right.

One rigid pose fits all parts of a body only when both images show that body, in that pose. A pose that is wrong, or the
best one for another patient, leaves parts that match better some millimetres away, though NMI as a whole has a peak.
And slices that were put into the stack in another order, or mirrored, match better elsewhere, though the others fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.geometry import FloatArray
from pipeline.registration.similarity import BINS, Pose, SampledPair

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
#: Slabs across the moving image's axes: so thick; those with less than this part of the points are passed over.
SLAB_MM = 12.0
LEAST_OF_SLAB = 0.005
#: They are read farther along the axis, to find slices in reversed order, and mirrored in planes near their middle.
ALONG_MM = tuple(float(way) for way in range(-100, 101, 5))
PLANE_MM = (-9.0, -6.0, -3.0, 0.0, 3.0, 6.0, 9.0)
#: There they have to match better by these parts of the pair's mean information, and here worse than this part of it.
MIRRORED_GAIN, REVERSED_GAIN, POOR = 0.2, 0.1, 0.7
#: The match of what cannot be seen.
NEVER = 1e6
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


def astray_fraction(pair: SampledPair, pose: FloatArray) -> float:
    """Which part of the body lies in neighbouring slices that fit the other image mirrored, or in reversed order.

    The slices are those across any axis of the moving image. They have to match poorly as they lie, and clearly better
    in the other way.

    Args:
        pair: the images, at the points to look at.
        pose: 4 x 4, fixed to moving points.
    """
    steps = np.linalg.inv(pair.to_index @ pose)[:3, :3]
    ways: FloatArray = np.asarray(steps / np.linalg.norm(steps, axis=0), np.float64)
    return max(_astray_along(pair, pose, ways[:, [axis, axis - 1, axis - 2]]) for axis in range(3))


def _astray_along(pair: SampledPair, pose: FloatArray, ways: FloatArray) -> float:
    """Of slabs across the first of three directions (3, 3), unit columns."""
    heights = pair.points @ ways
    number = ((heights[:, 0] - heights[:, 0].min()) / SLAB_MM).astype(int)
    slabs = _Parts(pair, pose, number)
    here, told = slabs.match(np.zeros(pair.points.shape)), slabs.seen >= LEAST_OF_SLAB * len(pair.points)
    if not told.any():
        return 0.0
    usual = float(np.average(here[told], weights=slabs.seen[told]))
    weights, lying = np.where(told, slabs.seen, 0), np.where(told, here, 0.0)
    poor = lying - POOR * usual
    count, found = slabs.count, 0.0
    middle = np.array([np.bincount(number, side) for side in heights.T]).T / np.maximum(np.bincount(number), 1)[:, None]
    for side in (1, 2):
        off = heights[:, side] - middle[number, side]
        flipped = [slabs.match(-2 * np.outer(off - plane_mm, ways[:, side])) for plane_mm in PLANE_MM]
        gain = np.max(flipped, axis=0) - lying - MIRRORED_GAIN * usual
        found = max(
            found,
            _largest(
                itertools.combinations(range(count + 1), 2),
                weights,
                np.where(gain > -MIRRORED_GAIN * usual, gain, -np.inf),
                poor,
            ),
        )
    along = [slabs.match(np.broadcast_to(way_mm * ways[:, 0], pair.points.shape)) for way_mm in ALONG_MM]
    for ends in range(2, 2 * count - 1):  # of a run about its middle, added up
        there = [np.interp((ends - 1 - 2 * n) * SLAB_MM, ALONG_MM, row, -np.inf, -np.inf) for n, row in _columns(along)]
        runs = ((low, ends - low) for low in range(max(0, ends - count), (ends + 1) // 2))
        found = max(found, _largest(runs, weights, np.array(there) - lying - REVERSED_GAIN * usual, poor))
    return found


def _columns(rows: list[FloatArray]) -> Iterator[tuple[int, FloatArray]]:
    """What each slab matches at every way along the axis, by its number; never where it leaves the view."""
    yield from enumerate(np.where(np.isfinite(table := np.array(rows).T), table, -NEVER))


def _largest(runs: Iterable[tuple[int, int]], weights: FloatArray, gain: FloatArray, poor: FloatArray) -> float:
    """The largest share of a run of slabs with a mean gain above 0 that is poor (below 0) as it lies."""
    gain, total, best = np.maximum(np.nan_to_num(gain), -NEVER), weights.sum(), 0.0
    for low, high in runs:
        size, own = weights[low:high].sum(), weights[low:high]
        if size > best * total and own @ gain[low:high] > 0 > own @ poor[low:high]:
            best = float(size / total)
    return best


class _Parts:
    """The parts of a pair in a pose, and how well each matches when its points move.

    Args:
        pair: the images, at the points to look at.
        pose: see `Pose`.
        part_of: (N,) number of each point's part.
    """

    def __init__(self, pair: SampledPair, pose: Pose, part_of: npt.NDArray[np.int64]) -> None:
        self._pair, self._pose, self.part_of = pair, pose, part_of
        self.count = int(part_of.max()) + 1
        bins, inside = pair.moving_bins(pose)
        self._information = pointwise_information(pair.fixed_bins[inside], bins[inside])
        self.seen = np.bincount(part_of[inside], minlength=self.count)

    def match(self, shifts: FloatArray) -> FloatArray:
        """Mean pointwise information of each part, its points moved by (N, 3) mm; -inf where too few are in view."""
        bins, inside = self._pair.moving_bins(self._pose, shifts)
        parts = self.part_of[inside]
        information = self._information[self._pair.fixed_bins[inside], bins[inside]]
        seen = np.bincount(parts, minlength=self.count)
        total = np.bincount(parts, weights=information, minlength=self.count)
        kept = (seen >= LEAST_KEPT * self.seen) & (seen > 0)
        return np.where(kept, total / np.maximum(seen, 1), -np.inf)


class _Search:
    """The parts of a pair in a pose, and their best shifts."""

    def __init__(self, pair: SampledPair, pose: Pose) -> None:
        cells = np.floor((pair.points - pair.points.mean(axis=0)) / PART_MM + 0.5).astype(int)
        _, part_of = np.unique(cells, axis=0, return_inverse=True)
        self._parts = _Parts(pair, pose, part_of.ravel())
        self._seen, self._count = self._parts.seen, self._parts.count
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
        """How well each part matches, moved by (parts, 3) mm."""
        return self._parts.match(shifts[self._parts.part_of])

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
