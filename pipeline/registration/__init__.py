"""Alignment by elastix in a child process or by landmarks, a verdict on it, and resampling through its transform.

The public names are imported when they are first used, so that `import pipeline.registration` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "dictionary": ["Registerd"],
        "findings": ["AlignmentLimits"],
        "landmarks": ["Landmarks", "read_landmarks"],
        "register": ["Registration", "RegistrationSettings"],
        "request": ["Method", "Side", "method"],
        "transforms": ["resample_image", "resample_labels"],
        "xray_dictionary": ["AlignRadiographd"],
    },
)
