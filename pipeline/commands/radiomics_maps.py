"""Maps of features as files: `tandem radiomics --map`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.radiomics.maps import feature_maps
from pipeline.radiomics.settings import Settings
from pipeline.store.files import write_atomic

if TYPE_CHECKING:
    from pipeline.nifti.volume import Nifti


@dataclass(frozen=True)
class MapPlan:
    """Which maps are made, and where.

    Attributes:
        tags: IBSI's, of the features.
        radius_voxels: of the cube around each voxel.
        folder: for the files.
    """

    tags: tuple[str, ...]
    radius_voxels: int
    folder: Path

    def write(self, image: Nifti, mask: Nifti, settings: Settings, label: int, name: Sequence[str]) -> None:
        """Write a map of each feature of a region as NIfTI, float32, on the grid of the settings; NaN outside.

        Args:
            image: in canonical axes.
            mask: on its grid.
            settings: how the region is prepared.
            label: the region's value in the mask.
            name: what the files are called by: case, image, mask, label, configuration.

        Raises:
            UsageError: E_CONFIG for a tag that has no map, or a radius that is not above 0.
            CaseError: as `extract`; E_DISK.
        """
        found = feature_maps(image.values, mask.values, image.affine, settings, self.tags, self.radius_voxels, label)
        self.folder.mkdir(parents=True, exist_ok=True)
        for tag, values in found.values.items():
            stem = "_".join(re.sub(r"[^\w-]+", "-", part) for part in (*name, tag))
            write_atomic(self.folder / f"{stem}.nii.gz", partial(_save, values, found.affine))


def _save(values: object, affine: object, path: Path) -> None:
    import nibabel as nib

    made = nib.Nifti1Image(values, affine)
    made.header.set_xyzt_units("mm")
    made.set_sform(affine, code=1)
    made.set_qform(affine, code=1)
    nib.save(made, path)
