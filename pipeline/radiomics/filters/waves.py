"""Spectra of an image's first axes; the image is periodic to what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.radiomics.levels import Floats

if TYPE_CHECKING:
    from torch import Tensor

#: Of each axis the frequencies (1 is the highest), shaped so that they go with each other.
Waves = Sequence["Tensor"]


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
