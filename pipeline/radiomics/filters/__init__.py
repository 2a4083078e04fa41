"""Convolutional filters of IBSI-2: from an image to a response map."""

from typing import Annotated

from pydantic import BaseModel, Field

from pipeline.radiomics.filters.base import Filter, filtered, needed
from pipeline.radiomics.filters.gabor import Gabor
from pipeline.radiomics.filters.laplacian import LaplacianOfGaussian
from pipeline.radiomics.filters.laws import Laws
from pipeline.radiomics.filters.mean import Mean
from pipeline.radiomics.filters.riesz import Riesz
from pipeline.radiomics.filters.simoncelli import Simoncelli
from pipeline.radiomics.filters.wavelet import SeparableWavelet

__all__ = [
    "KINDS",
    "AnyFilter",
    "Filter",
    "Gabor",
    "LaplacianOfGaussian",
    "Laws",
    "Mean",
    "Riesz",
    "SeparableWavelet",
    "Simoncelli",
    "filtered",
    "needed",
]

AnyFilter = Annotated[
    Mean | LaplacianOfGaussian | Laws | Gabor | SeparableWavelet | Simoncelli, Field(discriminator="kind")
]
#: Kind -> its filter.
KINDS: dict[str, type[BaseModel]] = {
    "mean": Mean,
    "log": LaplacianOfGaussian,
    "laws": Laws,
    "gabor": Gabor,
    "wavelet": SeparableWavelet,
    "simoncelli": Simoncelli,
}
