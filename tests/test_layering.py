"""Who may import whom: the layers of docs/explanation/design.md, read from the source with `ast`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pipeline"
DOMAINS = (
    *("dicom", "nifti", "preprocessing", "registration", "segmentation", "radiomics", "fusion", "image_fusion"),
    *("calibration", "evaluation", "report", "simulation"),
)
BASE = {"errors": 0, "cases": 0}
SHARED = (
    *("storage", "shipped", "lazy", "describe", "progress", "geometry", "specs", "records", "artifacts", "foreground"),
    *("file_patterns", "spec_errors", "role_spec", "register_spec", "fuse_spec", "fused_words", "pseudonyms"),
    *("probabilities", "stage", "tables_in", "labels"),
)
TOP = {
    "ingest": 3,
    "batch": 3,
    "pair": 4,
    "demo": 4,
    "status": 4,
    "calibrate_command": 4,
    "fuse_command": 5,
    "comparison": 6,
    "deidentify_command": 4,
    "evaluate_command": 4,
    "cli": 5,
    "web": 5,
}
OWNERS = {
    "itk": ("geometry", "registration/"),
    "nnunetv2": ("segmentation/",),
    "dicomanonymizer": ("dicom/confidentiality/",),
    "pydicom": ("dicom/", "geometry", "simulation/"),
    "highdicom": ("dicom/", "geometry"),
    "matplotlib": ("report/",),
    "reportlab": ("report/",),
    "fastapi": ("web/",),
}
LIGHT = (
    "errors",
    "cases",
    "specs",
    "records",
    "storage",
    "cli",
    "status",
    "dicom/scan",
    "dicom/header",
    "dicom/sandbox",
    "dicom/multiframe",
    "dicom/mosaic",
    "dicom/select",
)
HEAVY = ("torch", "monai", "itk", "SimpleITK", "pandas", "matplotlib", "pipeline.geometry", "pipeline.artifacts")


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def layer(name: str) -> int:
    top = name.split("/")[0]
    if top in BASE or top == "__init__":
        return 0
    if top in SHARED:
        return 1
    return 2 if top in DOMAINS else TOP[top]


def imports(path: Path, module_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    nodes = tree.body if module_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules() -> list[str]:
    return sorted(name_of(path) for path in PACKAGE.rglob("*.py"))


def imported_rooms(name: str) -> set[str]:
    parts = (found.split(".") for found in imports(PACKAGE / f"{name}.py") if found.startswith("pipeline."))
    return {part[1] for part in parts if (PACKAGE / part[1]).is_dir() or (PACKAGE / f"{part[1]}.py").is_file()}


@pytest.mark.parametrize("name", modules())
def test_layers_look_only_down(name: str) -> None:
    for other in imported_rooms(name):
        if other != name.split("/")[0]:
            assert layer(other) <= layer(name), f"pipeline/{name}.py imports pipeline.{other}, which lies above it"


@pytest.mark.parametrize("name", [name for name in modules() if name.split("/")[0] in DOMAINS])
def test_rooms_do_not_import_each_other(name: str) -> None:
    others = imported_rooms(name) & set(DOMAINS) - {name.split("/")[0]}
    assert not others, f"pipeline/{name}.py imports its neighbours {others}"


@pytest.mark.parametrize("name", modules())
def test_libraries_have_owners(name: str) -> None:
    for found in imports(PACKAGE / f"{name}.py"):
        allowed = OWNERS.get(found.split(".")[0])
        assert allowed is None or any(name.startswith(owner) for owner in allowed), f"{name}.py imports {found}"


@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_import_nothing_heavy(name: str) -> None:
    found = imports(PACKAGE / f"{name}.py", module_level_only=True)
    heavy = {item for item in found if any(item == h or item.startswith(f"{h}.") for h in HEAVY)}
    assert not heavy, f"pipeline/{name}.py imports {heavy} at module level"


def test_every_module_has_a_layer_and_fits_in_400_lines() -> None:
    for name in modules():
        layer(name)
        assert len((PACKAGE / f"{name}.py").read_text().splitlines()) <= 400, name
