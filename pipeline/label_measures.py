"""What is recorded of a label image: where it comes from, which value is which label, and how large each label is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from monai.data import MetaTensor

from pipeline.volumes import affine_of


def label_measures(name: str, image: MetaTensor, values: Mapping[str, int], source: str) -> dict[str, Any]:
    """The measures of a label image.

    Args:
        name: its key in the case.
        image: (1, I, J, K), whole numbers, RAS mm.
        values: label name -> value.
        source: where it comes from, such as `RTSTRUCT`.

    Returns:
        `<name>_source`, `<name>_labels` (`1 tumour, 2 lymph_nodes`) and `<name>_<label>_volume_ml` of each label.
    """
    voxel_ml = abs(float(np.linalg.det(affine_of(image)[:3, :3]))) / 1000
    array = image.numpy()
    volumes = {label: round(int(np.count_nonzero(array == value)) * voxel_ml, 6) for label, value in values.items()}
    return {
        f"{name}_source": source,
        f"{name}_labels": ", ".join(f"{value} {label}" for label, value in values.items()),
        **{f"{name}_{label}_volume_ml": volume for label, volume in volumes.items()},
    }
