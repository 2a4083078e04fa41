"""The measures of calibration, each as a function of many weightings or many sets of labels at once.

A kernel is made for probabilities that stay, and then maps weights (R or 1, N) and labels (R or 1, N) to R values: R
sets of weights are a bootstrap, R sets of labels a null distribution. Bins stay those of the given probabilities.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from pipeline.calibration.binning import FloatArray, IntArray, Scheme, make_bins

Kernel = Callable[[FloatArray, IntArray], FloatArray]
#: Mean confidence, frequency (0 where a bin is empty), and share of the weight, each (R, B).
BinMeans = tuple[FloatArray, FloatArray, FloatArray]


def nll(probabilities: FloatArray) -> Kernel:
    """Negative log-likelihood, mean of -ln p of the true class, in nats; infinite if a probability of 0 came true."""
    with np.errstate(divide="ignore"):
        losses = -np.log(probabilities)
    return lambda weights, labels: _mean(weights, losses[np.arange(len(losses)), labels])


def brier(probabilities: FloatArray) -> Kernel:
    """Brier score: mean over rows of the sum over classes of (p - y)^2; with two classes, of class 1 alone.

    Source: Brier 1950. Halved for two classes, as everyone writes it (and as scikit-learn does).
    """
    share = 0.5 if probabilities.shape[1] == 2 else 1.0
    # sum of (p_k - y_k)^2 = sum of p_k^2 - 2 p_true + 1
    losses = share * ((probabilities**2).sum(axis=1, keepdims=True) - 2 * probabilities + 1)
    return lambda weights, labels: _mean(weights, losses[np.arange(len(losses)), labels])


def ece(probabilities: FloatArray, bins: int, scheme: Scheme = "equal_width") -> Kernel:
    """Expected calibration error of the predicted class, plug-in: mean over rows of |confidence - frequency| of a bin.

    Source: Naeini, Cooper, Hauskrecht 2015; Guo et al. 2017. Biased upwards: a perfect model has a positive one.
    """
    means = top_means(probabilities, bins, scheme)

    def kernel(weights: FloatArray, labels: IntArray) -> FloatArray:
        confidence, frequency, share = means(weights, labels)
        return np.asarray((share * np.abs(confidence - frequency)).sum(axis=1))

    return kernel


def ece_debiased(probabilities: FloatArray, bins: int) -> Kernel:
    """ECE of the predicted class in equal-mass bins, less an estimate of what chance adds to it; may fall below 0.

    2 |d| - E|d + e| in each bin, d = confidence - frequency and e normal of the frequency's variance: the mean over e
    is in closed form (folded normal), where the source draws e. For a perfect model about 2 - sqrt(2), or .59, of
    the bias stays, because |d| has a kink at 0.

    Source: Kumar, Liang, Ma 2019, "Verified uncertainty calibration", and its library (`get_ece` with
    `debias=True`); for squared errors, Bröcker 2012 and Ferro, Fricker 2012 do the same exactly.
    """
    means = top_means(probabilities, bins, "equal_mass")

    def kernel(weights: FloatArray, labels: IntArray) -> FloatArray:
        confidence, frequency, share = means(weights, labels)
        count = share * weights.sum(axis=1, keepdims=True)
        spread = np.sqrt(frequency * (1 - frequency) / np.maximum(count, 1))
        gap = np.abs(confidence - frequency)
        return np.asarray((share * (2 * gap - folded_normal_mean(gap, spread))).sum(axis=1))

    return kernel


def folded_normal_mean(mean: FloatArray, spread: FloatArray) -> FloatArray:
    """E|x| of a normal x. Source: Leone, Nelson, Nottingham 1961."""
    safe = np.where(spread > 0, spread, 1.0)
    ratio = mean / safe
    folded = safe * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + mean * (1 - 2 * ndtr(-ratio))
    return np.asarray(np.where(spread > 0, folded, np.abs(mean)))


def top_means(probabilities: FloatArray, bins: int, scheme: Scheme) -> Callable[[FloatArray, IntArray], BinMeans]:
    """What bins of the predicted class's probability hold, of weights and labels."""
    top, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    return bin_means(confidence, bins, scheme, lambda labels: labels == top)


def bin_means(
    confidence: FloatArray, bins: int, scheme: Scheme, hits_of: Callable[[IntArray], npt.NDArray[np.bool_]]
) -> Callable[[FloatArray, IntArray], BinMeans]:
    """What bins of confidence (N,) hold, of weights and labels; `hits_of` says of labels (R, N) which are right."""
    members = make_bins(confidence, bins, scheme).members()
    confidences = members * confidence[:, None]

    def means(weights: FloatArray, labels: IntArray) -> BinMeans:
        total = weights @ members
        filled = np.where(total > 0, total, 1.0)
        confident = weights @ confidences / filled
        hits = hits_of(labels)
        # the smaller of the two is multiplied: (N, B) where one set of labels meets many of weights
        held = weights @ (members * hits.T) if len(hits) == 1 else (weights * hits) @ members
        frequency = held / filled
        return confident, frequency, total / total.sum(axis=1, keepdims=True)

    return means


def _mean(weights: FloatArray, losses: FloatArray) -> FloatArray:
    if len(losses) == 1 and np.isfinite(losses).all():
        return np.asarray(weights @ losses[0] / weights.sum(axis=1))
    # 0 times an infinite loss is no loss: a row that a resample has left out
    with np.errstate(invalid="ignore"):
        weighted = np.where(weights > 0, weights * losses, 0.0)
    return np.asarray(weighted.sum(axis=1) / weights.sum(axis=1))
