"""Riesz transforms, plain and steered, and spectra of an image's first axes: the image is periodic to both.

Source: IBSI 2 (AYRS); Unser and Van De Ville, IEEE TIP 19, 2010.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import factorial, prod
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from pipeline.radiomics.filters.base import Filter
from pipeline.radiomics.filters.lines import convolution, separable
from pipeline.radiomics.levels import Floats
from pipeline.spec.explain import Model

if TYPE_CHECKING:
    from torch import Tensor

Order = tuple[int, ...]
#: Of each axis the frequencies (1 is the highest), shaped so that they go with each other.
Waves = Sequence["Tensor"]
#: Directions of so many voxels at a time.
_CHUNK = 2**18
#: Where the window of the structure tensor ends, in standard deviations.
_CUT = 4


class Riesz(Model):
    """A Riesz transform: derivatives, whose frequencies all keep their size. The image is periodic to it.

    Attributes:
        order: of the derivative along each axis; in all at least 1.
        steering_mm: the axes are turned at each voxel to where the filtered image varies most, next and least within a
            Gaussian window so wide (structure tensor of the first-order transforms); orders are even then, since
            directions have no sign. None keeps the image's axes.
    """

    order: Annotated[tuple[Annotated[int, Field(ge=0, le=8)], ...], Field(min_length=2, max_length=3)]
    steering_mm: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not sum(self.order):
            raise ValueError("order must be at least 1 along one axis, got 0 along all")
        if self.steering_mm and any(power % 2 for power in self.order):
            raise ValueError(f"order must be even along each axis where it is steered, got {self.order}")
        return self

    def of(self, image: Tensor, spacing_mm: Floats) -> Tensor:
        """The transform of an image (I, J, K) along its first axes, as many as there are orders."""
        if self.steering_mm is None:
            return _transformed(image, self.order)
        frames = _frames(image, self.steering_mm / spacing_mm, len(self.order))
        return _steered(image, self.order, frames) * _weight(self.order)


class RieszFilter(Filter):
    """A filter whose response may be transformed.

    Attributes:
        riesz: the transform; None leaves the response.
    """

    riesz: Riesz | None = None

    @model_validator(mode="after")
    def _one_order_for_each_axis(self) -> Self:
        if self.riesz and len(self.riesz.order) != self.axes:
            raise ValueError(f"riesz.order must be {self.axes} for {self.dimensions}, got {len(self.riesz.order)}")
        return self

    def _transformed(self, response: Tensor, spacing_mm: Floats) -> Tensor:
        return response if self.riesz is None else self.riesz.of(response, spacing_mm)


def _transformed(image: Tensor, order: Order) -> Tensor:
    axes = len(order)
    transfer = _transfer(frequencies(image, axes), order) * _weight(order)
    return synthesis(spectrum(image, axes) * transfer, image, axes)


def _weight(order: Order) -> float:
    """So that the squares of all transforms of one order sum to the image's."""
    return float(np.sqrt(factorial(sum(order)) / prod(factorial(power) for power in order)))


def _transfer(waves: Waves, order: Order) -> Tensor:
    """What frequencies are multiplied with: (-i)^|l| times a polynomial of their direction, and 0 for the mean."""
    found = radius(waves).clamp(min=1e-30) ** -sum(order)
    found[(0,) * found.ndim] = 0
    for wave, power in zip(waves, order, strict=True):
        # an odd derivative has no value at the highest frequency of an even number of voxels
        found = found * (wave.where(wave.abs() < 1, 0) if power % 2 else wave) ** power
    return found * (-1j) ** sum(order)


def _frames(image: Tensor, sigma: Floats, axes: int) -> Iterator[Tensor]:
    """Chunks (n, axes, axes) of the voxels' directions as columns, that of the strongest variation first."""
    import torch

    units = [tuple(int(n == axis) for n in range(axes)) for axis in range(axes)]
    first = [_transformed(image, unit) for unit in units]
    window = [_window(width, size) for width, size in zip(sigma, image.shape[:axes], strict=False)]
    pairs = {(a, b): separable(first[a] * first[b], window).flatten() for a in range(axes) for b in range(a, axes)}
    for start in range(0, image.numel(), _CHUNK):
        rows = [
            torch.stack([pairs[min(a, b), max(a, b)][start : start + _CHUNK] for b in range(axes)], -1)
            for a in range(axes)
        ]
        yield torch.linalg.eigh(torch.stack(rows, -2)).eigenvectors.flip(-1)


def _window(sigma: float, size: int) -> Floats:
    half = int(_CUT * sigma + 0.5)
    return convolution(np.exp(-((np.arange(-half, half + 1) / sigma) ** 2) / 2), size, "periodic")


def _steered(image: Tensor, order: Order, frames: Iterator[Tensor]) -> Tensor:
    """The transform, without its weight, along each voxel's own directions: a sum of all those along the axes."""
    axes = len(order)
    waves, bins = frequencies(image, axes), spectrum(image, axes)
    orders = [each for each in product(range(sum(order) + 1), repeat=axes) if sum(each) == sum(order)]
    parts = {each: synthesis(bins * _transfer(waves, each), image, axes).flatten() for each in orders}
    found, start = image.new_empty(image.numel()), 0
    for frame in frames:
        inside = slice(start, start + len(frame))
        terms = _polynomial(frame, order).items()
        found[inside] = sum((factor * parts[each][inside] for each, factor in terms), frame.new_zeros(len(frame)))
        start += len(frame)
    return found.reshape(image.shape)


def _polynomial(frame: Tensor, order: Sequence[int]) -> dict[Order, Tensor]:
    """A product of powers of directions, as factors (n,) of the products of powers of axes."""
    axes = len(order)
    terms = {(0,) * axes: frame.new_ones(len(frame))}
    for direction in (axis for axis, power in enumerate(order) for _ in range(power)):
        longer: dict[Order, Tensor] = {}
        for (each, factor), axis in product(terms.items(), range(axes)):
            raised = tuple(power + (number == axis) for number, power in enumerate(each))
            longer[raised] = longer.get(raised, 0) + factor * frame[:, axis, direction]
        terms = longer
    return terms


def spectrum(image: Tensor, axes: int) -> Tensor:
    """Half of it: along the last of the axes frequencies from 0 on."""
    import torch

    return torch.fft.rfftn(image, dim=tuple(range(axes)))


def synthesis(half: Tensor, image: Tensor, axes: int) -> Tensor:
    """The image of half a spectrum, as large as another image."""
    import torch

    return torch.fft.irfftn(half, s=image.shape[:axes], dim=tuple(range(axes)))


def frequencies(image: Tensor, axes: int) -> Waves:
    """Those of half a spectrum."""
    return crossed([np.asarray(np.fft.fftfreq(size) * 2, np.float64) for size in image.shape[:axes]], image)


def crossed(lines: Sequence[Floats], image: Tensor) -> Waves:
    """Lines of whole spectra as those of half a one."""
    halves = [*lines[:-1], lines[-1][: len(lines[-1]) // 2 + 1]]
    shapes = ([-1 if number == axis else 1 for number in range(3)] for axis in range(len(lines)))
    return [image.new_tensor(line).reshape(shape) for line, shape in zip(halves, shapes, strict=True)]


def radius(waves: Waves) -> Tensor:
    """How far frequencies are from 0."""
    return sum((wave * wave for wave in waves[1:]), waves[0] * waves[0]).sqrt_()
