"""Maps of features as files: `tandem radiomics --map`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
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

    def write(self, image: Nifti, mask: Nifti, settings: Settings, label: int, name: Sequence[str]) -> tuple[Path, ...]:
        """Write a map of each feature of a region as NIfTI, float32, on the grid of the settings; NaN outside.

        Args:
            image: in canonical axes.
            mask: on its grid.
            settings: how the region is prepared.
            label: the region's value in the mask.
            name: what the files are called by: case, image, mask, label, configuration.

        Returns:
            The files.

        Raises:
            UsageError: E_CONFIG for a tag that has no map, or a radius that is not above 0.
            CaseError: as `extract`; E_DISK.
        """
        found = feature_maps(image.values, mask.values, image.affine, settings, self.tags, self.radius_voxels, label)
        self.folder.mkdir(parents=True, exist_ok=True)
        files = {self.folder / f"{in_file_name((*name, tag))}.nii.gz": item for tag, item in found.values.items()}
        for path, values in files.items():
            write_atomic(path, partial(_save, values, found.affine))
        return tuple(files)

    def forget(self, written: Collection[Path]) -> None:
        """Remove the maps of an earlier table: all but those that were written now."""
        for path in self.folder.glob("*.nii.gz"):
            if path not in written:
                path.unlink()


def in_file_name(parts: Sequence[str]) -> str:
    """Texts as a part of a file's name."""
    return "_".join(re.sub(r"[^\w-]+", "-", part) for part in parts)


def _save(values: object, affine: object, path: Path) -> None:
    import nibabel as nib

    made = nib.Nifti1Image(values, affine)
    made.header.set_xyzt_units("mm")
    made.set_sform(affine, code=1)
    made.set_qform(affine, code=1)
    nib.save(made, path)
