"""Convolutional filters of IBSI-2: from an image to a response map.

The public names are imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "apply": ["filtered", "needed"],
        "base": ["Filter"],
        "gabor": ["Gabor"],
        "kinds": ["KINDS", "AnyFilter"],
        "laplacian": ["LaplacianOfGaussian"],
        "laws": ["Laws"],
        "mean": ["Mean"],
        "riesz": ["Riesz"],
        "simoncelli": ["Simoncelli"],
        "wavelet": ["SeparableWavelet"],
    },
)
