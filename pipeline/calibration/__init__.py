"""Calibrated probabilities, and sets with stated guarantees.

The public names are imported when they are first used, so that `import pipeline.calibration` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["Calibration"],
        "binning": ["reliability"],
        "comparison": ["METHODS", "Comparison", "compare", "from_json"],
        "matrix": ["Dirichlet", "Matrix"],
        "metrics": ["MEASURES", "Measure", "Resampling", "measures"],
        "one_vs_rest": ["Beta", "Isotonic"],
        "record": ["About", "CalibrationWarning", "FitRecord"],
        "rows": ["dilated_foreground"],
        "scaling": ["Platt", "Temperature", "Vector"],
    },
)
