"""What keeps the house easy to live in: small files, light commands. Who may import whom is checked by `make lint`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "pipeline"
LONGEST_FILE = 400
#: The design's goal for all rooms together is 34,000. It was met before segmentation came in, which takes 4,600, and
#: radiomics, image fusion, pictures and sounds, and cohorts; the number only stops what grows unseen.
LARGEST_LIBRARY = 54_852
#: What must answer fast: `tandem --help`, `tandem status`, and the reading of headers.
LIGHT = (
    *("pipeline", "pipeline.errors", "pipeline.cases", "pipeline.spec.spec", "pipeline.store.records", "pipeline.cli"),
    *(
        "pipeline.run.status",
        "pipeline.child",
        "pipeline.dicom.sandbox",
        "pipeline.dicom.headers.scan",
        "pipeline.dicom.pixels.decode",  # a child process loads it for every decoded image
        "pipeline.dicom.series.select",
    ),
)
HEAVY = ("torch", "monai", "itk", "SimpleITK", "pandas", "matplotlib")


def lines_of(paths: list[Path]) -> dict[str, int]:
    return {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in paths}


def test_light_modules_load_nothing_heavy() -> None:
    code = f"import sys, importlib\nfor name in {LIGHT}: importlib.import_module(name)\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(HEAVY) & set(loaded)


def test_files_and_library_stay_small() -> None:
    lines = lines_of(sorted(PACKAGE.rglob("*.py")))
    assert max(lines.values()) <= LONGEST_FILE, max(lines, key=lambda name: lines[name])
    assert sum(lines.values()) <= LARGEST_LIBRARY


def test_no_module_gives_a_name_twice() -> None:
    """The second value would count everywhere, also where the first was meant."""
    for path in sorted(PACKAGE.rglob("*.py")):
        body = ast.parse(path.read_text()).body
        targets = [target for item in body if isinstance(item, ast.Assign) for target in item.targets]
        targets += [item.target for item in body if isinstance(item, ast.AnnAssign)]
        names = Counter(name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
        assert not [name for name, count in names.items() if count > 1], path
