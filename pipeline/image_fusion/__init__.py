"""One picture of CT and MR: how to make it, and how good it is.

The public names are imported when they are first used, so that `import pipeline.image_fusion` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "baselines": ["BASELINES"],
        "metrics": ["MEASURES", "measure"],
    },
)
