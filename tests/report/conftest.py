"""A small asymmetric, oblique, anisotropic pair, and the records of its stages."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline.cases import Artifact, Fault, Geometry, Record
from pipeline.geometry import apply
from pipeline.volumes import affine_of, volume

SHAPE = (40, 44, 30)
SPACING_MM = (2.0, 1.5, 3.0)
QUALITY = {"verdict": "pass", "reason": "Two starts agree.", "start_disagreement_mm": 0.4123, "rotation_deg": 9.03}


def affine(angles_deg, spacing_mm, shape, centre):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix() * np.asarray(spacing_mm)
    matrix[:3, 3] = np.asarray(centre) - matrix[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return matrix


def scene(points, inside, outside, cube):
    """An ellipsoid with a cube at the patient's right, front and head, at world points (N, 3)."""
    body = ((points / [28.0, 24.0, 32.0]) ** 2).sum(axis=1) < 1
    marked = np.all(np.abs(points - [12.0, 9.0, 12.0]) < 5, axis=1)
    return np.where(marked, cube, np.where(body, inside, outside))


def image(shape, matrix, values):
    index = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"), -1).reshape(-1, 3)
    return volume(scene(apply(matrix, index), *values).reshape(shape).astype(np.float32), matrix)


@pytest.fixture
def pair():
    """CT (fixed) and MR (moving) whose headers already agree, each on its own oblique grid."""
    ct = image(SHAPE, affine((4, -6, 8), SPACING_MM, SHAPE, (0, 0, 0)), (40, -1000, 900))
    grid = (36, 40, 34)
    mr = image(grid, affine((-7, 5, -3), (2.1, 1.9, 2.4), grid, (1, 2, -1)), (300, 2, 900))
    return ct, mr


def record(stage, status="done", **more):
    return Record("CASE-1", stage, f"{stage:x<12}".encode().hex()[:12] + "f" * 52, status, **more)


@pytest.fixture
def the_scene():
    """The scene itself, for comparison with what was drawn of it."""
    return scene


@pytest.fixture
def case(pair):
    """A case of three stages that all went well."""
    ct, mr = pair
    geometry = Geometry(tuple(ct.shape), tuple(tuple(row) for row in affine_of(ct).tolist()))
    aligned = Artifact(
        "mr_aligned", "image", "cases/CASE-1/register/mr_aligned.nii.gz", "ab12cd34ef56" + "0" * 52, geometry
    )
    windows = volume(np.stack([np.clip((ct.numpy()[0] + 160) / 400, 0, 1)] * 2), affine_of(ct))
    return {
        "case_id": "CASE-1",
        "ct": ct,
        "mr": mr,
        "mr_aligned": image(SHAPE, affine_of(ct), (300, 2, 900)),
        "ct_windows": windows,
        "mr_quality": QUALITY,
        "measures": {},
        "records": [
            record("ingest", measures={"seconds": 1.25, "files_read": 83}, flags=("N_PREAMBLE: ct had none.",)),
            record("register", artifacts=(aligned,), measures={"seconds": 14.8712}, versions={"itk-elastix": "0.25.4"}),
            record(
                "preprocess",
                measures={
                    "ct_windows_channels": "soft_tissue, bone",
                    "ct_body_volume_ml": 2211.34,
                    "ct_median_hu": -41.0,
                    "mr_bias_cv": None,
                },
            ),
        ],
    }


@pytest.fixture
def quarantined():
    """A case that was set aside before there were any images."""
    fault = Fault("E_GAP", "3 of 67 slices are missing.", "Export the missing slices again.")
    return {"case_id": "CASE-2", "records": [record("ingest", "quarantined", error=fault)]}
