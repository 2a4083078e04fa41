"""Measures of calibration beside those that `tandem calibrate` prints.

As in `pipeline.calibration.kernels`: a kernel maps weights (R or 1, N) and labels (R or 1, N) to R values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from pipeline.calibration.binning import FloatArray, IntArray
from pipeline.calibration.kernels import BinMeans, Kernel, bin_means, ece, top_means
from pipeline.calibration.metrics import MEASURES, Kind


def squared_error_debiased(probabilities: FloatArray, bins: int) -> Kernel:
    """Squared calibration error of the predicted class in equal-mass bins, less what chance adds to it.

    Mean over rows of (confidence - frequency)^2 - frequency (1 - frequency) / (n - 1) of a bin: 0 on average for a
    perfect model, so that it may fall below 0.

    Source: Bröcker 2012, "Estimating reliability and resolution of probability forecasts"; Ferro, Fricker 2012; Kumar,
    Liang, Ma 2019, definition 5.1.
    """
    means = top_means(probabilities, bins, "equal_mass")

    def kernel(weights: FloatArray, labels: IntArray) -> FloatArray:
        confidence, frequency, share = means(weights, labels)
        count = share * weights.sum(axis=1, keepdims=True)
        chance = frequency * (1 - frequency) / np.maximum(count - 1, 1)
        return np.asarray((share * ((confidence - frequency) ** 2 - chance)).sum(axis=1))

    return kernel


def ece_classwise(probabilities: FloatArray, bins: int) -> Kernel:
    """Mean over the classes of the ECE of the class's own probability, equal-width bins.

    Source: Nixon, Dusenberry, Zhang, Jerfel, Tran 2019, "Measuring calibration in deep learning" (static calibration
    error); Kull et al. 2019 (classwise-ECE).
    """
    parts = [_class_means(probabilities, number, bins) for number in range(probabilities.shape[1])]

    def kernel(weights: FloatArray, labels: IntArray) -> FloatArray:
        total = np.zeros(1)
        for means in parts:
            confidence, frequency, share = means(weights, labels)
            total = total + (share * np.abs(confidence - frequency)).sum(axis=1)
        return np.asarray(total / len(parts))

    return kernel


def _class_means(probabilities: FloatArray, number: int, bins: int) -> Callable[[FloatArray, IntArray], BinMeans]:
    return bin_means(probabilities[:, number], bins, "equal_width", lambda labels: labels == number)


def mce(probabilities: FloatArray, bins: int) -> Kernel:
    """Maximum calibration error: the largest |confidence - frequency| of a bin, however few rows the bin holds.

    Source: Naeini, Cooper, Hauskrecht 2015.
    """
    means = top_means(probabilities, bins, "equal_width")

    def kernel(weights: FloatArray, labels: IntArray) -> FloatArray:
        confidence, frequency, share = means(weights, labels)
        return np.asarray((np.abs(confidence - frequency) * (share > 0)).max(axis=1))

    return kernel


def kolmogorov_smirnov(probabilities: FloatArray) -> Kernel:
    """KS calibration error of the predicted class: largest distance between the cumulated confidence and frequency.

    Needs no bins. Source: Gupta, Rahimi, Ajanthan, Mensink, Sminchisescu, Hartley 2021, "Calibration of neural networks
    using splines", equation 6.
    """
    top = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    order = np.argsort(confidence, kind="stable")
    rising = confidence[order]
    # rows of the same confidence come together: only behind the last of them is the sum one of the curve
    ends = np.append(np.diff(rising) > 0, True)

    def kernel(weights: FloatArray, labels: IntArray) -> FloatArray:
        gaps = weights * (confidence - (labels == top))
        curve = np.cumsum(gaps[:, order], axis=1)[:, ends]
        return np.asarray(np.abs(curve).max(axis=1) / weights.sum(axis=1))

    return kernel


#: KS is a sum over rows whose bias is small; chance adds to all others.
ALL: dict[str, Kind] = {
    **MEASURES,
    "ece_equal_mass": Kind(partial(ece, scheme="equal_mass"), "basic"),
    "squared_error_debiased": Kind(squared_error_debiased, "normal"),
    "ece_classwise": Kind(ece_classwise, "basic"),
    "ks": Kind(lambda probabilities, bins: kolmogorov_smirnov(probabilities), "percentile"),
    "mce": Kind(mce, "basic"),
}
