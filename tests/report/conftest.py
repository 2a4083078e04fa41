"""A small asymmetric, oblique, anisotropic pair; and a run folder in which stages have left it, with what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline.cases import Fault, Record
from pipeline.geometry import apply
from pipeline.store.artifacts import save
from pipeline.store.sections import (
    SECTIONS,
    Answer,
    Coloured,
    Display,
    Panel,
    Picture,
    Regions,
    Section,
    Sections,
    Table,
)
from pipeline.volumes import affine_of, volume

SHAPE = (40, 44, 30)
SPACING_MM = (2.0, 1.5, 3.0)
CASE_ID = "CASE-1"


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


def simulated_pair():
    ct = image(SHAPE, affine((4, -6, 8), SPACING_MM, SHAPE, (0, 0, 0)), (40, -1000, 900))
    grid = (36, 40, 34)
    mr = image(grid, affine((-7, 5, -3), (2.1, 1.9, 2.4), grid, (1, 2, -1)), (300, 2, 900))
    return ct, mr


@pytest.fixture
def pair():
    """CT (fixed) and MR (moving) whose headers already agree, each on its own oblique grid."""
    return simulated_pair()


@pytest.fixture
def the_scene():
    """The scene itself, for comparison with what was drawn of it."""
    return scene


def leave_outputs(folder: Path, stage: str, items, sections=None, **more) -> Record:
    """What a stage leaves in a run folder: its outputs, what it says, and its record (returned, not written)."""
    artifacts = []
    said = [(SECTIONS, "measure", sections.as_json())] if sections else []
    for key, kind, value in (*items, *said):
        path, artifact = save(key, kind, value, folder / "cases" / CASE_ID / stage)
        artifacts.append(replace(artifact, path=path.relative_to(folder).as_posix()))
    return Record(
        CASE_ID, stage, f"{stage:x<12}".encode().hex()[:12] + "f" * 52, "done", tuple(), tuple(artifacts), **more
    )


@pytest.fixture
def leave():
    """What a stage leaves: `leave(folder, stage, items, sections, **more)`."""
    return leave_outputs


@pytest.fixture(scope="session")
def simulate():
    """Leave in a run folder the outputs of three stages that all went well; their records, which are not written."""
    return simulated_records


@pytest.fixture
def records(tmp_path):
    """Three stages that all went well; one of them is one that no report has heard of."""
    return simulated_records(tmp_path)


def simulated_records(folder: Path) -> list[Record]:
    ct, mr = simulated_pair()
    shape, matrix = SHAPE, affine_of(ct)
    lesion = volume((ct.numpy()[0] == 900).astype(np.uint8), matrix)
    read = Sections(
        answers=(Answer("Tumour", "1.3 mL", "CT 900 HU"),),
        displays=(Display("ct", "CT", "HU", (-160.0, 240.0)), Display("mr", "MR")),
        regions=(Regions("lesion", ("ct",), {1: "Tumour"}),),
    )
    pictures = tuple(
        Picture(
            f"mr_{when}",
            f"MR and CT {when} alignment",
            "Edges should run on.",
            (
                Panel("CT", "ct"),
                Panel("MR", key),
                Panel("Both", "ct", checkered=key),
                Panel("Over", "ct", overlaid=key),
            ),
            flicker="mr",
            rank=10 * (when == "after"),
        )
        for when, key in (("before", "mr"), ("after", "mr_aligned"))
    )
    table = Table(
        "", ("Measure", "Value", "Limit"), (("Shift", "0.4123 mm", "at most 2 mm"),), {"Shift": "How far it moved."}
    )
    heat = np.zeros(shape, np.float32)
    heat[26:29, 24:27, 18:20] = 0.4
    toy = Picture(
        "toy_map",
        "The toy's map",
        "What the toy sees.",
        (Panel("Map", "ct", coloured=Coloured("heat", 0, 0.4, "toys")), Panel("Gone", "ct")),
        focus="heat",
    )
    missing = Picture("missing", "A picture of nothing", "", (Panel("Nothing", "nothing"),))
    return [
        leave_outputs(
            folder,
            "ingest",
            [("ct", "image", ct), ("mr", "image", mr), ("lesion", "label", lesion)],
            read,
            measures={"seconds": 1.25, "files_read": 83},
            flags=("N_PREAMBLE: ct had none.",),
        ),
        leave_outputs(
            folder,
            "register",
            [("mr_aligned", "image", image(SHAPE, matrix, (300, 2, 900)))],
            Sections((Section("MR aligned to CT", ("The alignment passed.",), (table,), pictures),)),
            measures={"seconds": 14.8712, "mr_inverse_error_mm": 8e-14, "counts": {"done": 2}},
            versions={"itk-elastix": "0.25.4"},
        ),
        leave_outputs(
            folder,
            "toybox",
            [("heat", "image", volume(heat, matrix))],
            Sections((Section("What the toy found", ("Three bricks.",), (), (toy, missing)),)),
        ),
    ]


@pytest.fixture
def quarantined():
    """The records of a case that was set aside before there were any images."""
    fault = Fault("E_GAP", "3 of 67 slices are missing.", "Export the missing slices again.")
    return [Record("CASE-2", "ingest", "1" * 64, "quarantined", error=fault)]
