"""What dcm2niix and dicom2nifti have made of real DICOM is what Tandem makes of it: same voxels, same place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real_data.catalogue import DCM_QA, DICOM2NIFTI, REFUSED, Source
from tests.real_data.references import difference, folder_of, pairs, parts_of, references_of


@pytest.mark.parametrize("source", [*DCM_QA, *DICOM2NIFTI], ids=lambda source: source.path)
def test_every_volume_equals_its_reference(real_images: Path, tmp_path: Path, source: Source) -> None:
    parts = parts_of(folder_of(real_images / source.path, tmp_path))
    references = [volume for name in source.references for volume in references_of(real_images / name)]
    assert len(references) == source.volumes
    equal = pairs(parts, references)
    apart = [difference(part.volume, reference) for part in parts if part.volume for reference in references]
    assert sorted(equal.values()) == list(range(source.volumes)), apart or [part.code for part in parts]
    assert sorted(part.code for index, part in enumerate(parts) if index not in equal) == sorted(source.codes)


@pytest.mark.parametrize("source", [s for s in DCM_QA if s.volumes > 2], ids=lambda source: source.path)
def test_time_points_come_in_their_order(real_images: Path, source: Source) -> None:
    parts = parts_of(real_images / source.path)
    references = [volume for name in source.references for volume in references_of(real_images / name)]
    equal = pairs(parts, references)
    assert [equal[index] for index in range(len(parts))] == list(range(source.volumes))
    words = [part.series.part.split(" ", 1)[1] for part in parts]
    assert words == [f"{number} of {len(parts)}" for number in range(1, len(parts) + 1)]


@pytest.mark.parametrize("source", REFUSED, ids=lambda source: source.path)
def test_what_is_no_volume_is_refused_with_its_reason(real_images: Path, source: Source) -> None:
    parts = parts_of(real_images / source.path)
    assert [part.code for part in parts] == list(source.codes)
    for part in parts:
        assert part.volume is None
        assert part.series.fault is not None and part.series.fault.remedy
