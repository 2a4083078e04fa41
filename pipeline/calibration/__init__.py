"""Calibrated probabilities, and sets and masks with stated guarantees.

The public names are imported when they are first used, so that `import pipeline.calibration` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["Calibration"],
        "binning": ["ReliabilityBin", "reliability"],
        "comparison": ["Comparison", "compare"],
        "matrix": ["Dirichlet", "Matrix"],
        "methods": ["METHODS", "from_json"],
        "metrics": ["MEASURES", "Measure", "Resampling", "measures"],
        "one_vs_rest": ["Beta", "Isotonic"],
        "record": ["About", "CalibrationWarning", "FitRecord"],
        "rows": ["case_weights"],
        "scaling": ["Platt", "Temperature", "Vector"],
        "voxelwise": ["dilated_foreground"],
    },
)
