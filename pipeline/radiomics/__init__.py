"""Radiomics: IBSI's features of a region of an image.

The public names are imported when they are first used, so that `import pipeline.radiomics` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "features": ["Features", "extract"],
        "flags": ["FLAGS"],
        "glossary": ["Name", "names", "tags"],
        "harmonisation": ["Combat", "fit_combat"],
        "perturbation": ["Perturbations", "perturbed"],
        "robustness": ["Agreement", "agreements", "icc", "perturbed_features"],
        "maps": ["MAP_FAMILIES", "Maps", "feature_maps"],
        "settings": ["PRESETS", "Bins", "Settings", "preset"],
    },
)
