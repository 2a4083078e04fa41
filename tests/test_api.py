"""The Python API: its page's examples run, and it has what the command line has."""

from __future__ import annotations

import doctest
import pydoc
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import api
from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.phantoms.phantom import position_phantom
from tests.tandem_process import call

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "python-api.md"
#: Commands that are not functions of the API, or have another name there.
OTHER = {"demo", "evaluate", "convert", "weights", "slurm_script"}


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the page's examples name, in the working folder."""
    monkeypatch.chdir(tmp_path)
    ct = SeriesHeader(series_description="HEAD 3.0")
    mr = replace(ct, modality="MR", study="2", series_number=4, series_description="t1_mprage", tr_ms=1900, te_ms=2.5)
    for header, slices in ((ct, 24), (mr, 22)):
        write_series(position_phantom((12, 10, slices), angles_deg=(0, 0, 0)), Path("DICOM") / header.modality, header)
    labels = np.arange(80) % 2
    odds = np.random.default_rng(0).normal(4 * (2 * labels - 1), 6)
    np.save("labels.npy", labels)
    np.save("logits.npy", odds)
    np.save("probabilities.npy", 1 / (1 + np.exp(-odds)))
    return tmp_path


def test_the_examples_of_the_page_give_what_it_says(examples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert found.failed == 0, capsys.readouterr().out
    assert found.attempted >= 20


def test_every_function_is_on_the_page_and_is_typed() -> None:
    page = PAGE.read_text(encoding="utf-8")
    stated = re.search(r"if TYPE_CHECKING:\n((?:    from .*\n)+)", Path(api.__file__).read_text(encoding="utf-8"))
    assert stated is not None
    imported = {name for line in re.findall(r"import (.*)", stated[1]) for name in line.split(", ")}
    assert imported == set(api.__all__)
    for name in api.__all__:
        function = getattr(api, name)
        assert function.__name__ == name and function.__doc__ and "return" in function.__annotations__
        assert f"`api.{name}" in page


def test_it_has_what_the_command_line_has() -> None:
    commands = re.findall(r"^  ([a-z-]+)  ", call("--help").out.split("Commands:")[1], re.M)
    assert len(commands) == 23 and {name.replace("-", "_") for name in commands} - OTHER <= set(api.__all__)


def test_no_name_of_it_hides_a_package() -> None:
    """A bundle finds `pipeline.run.stage.Stage` by its path, whatever was asked of the API before."""
    for name in api.__all__:
        getattr(api, name)
    assert pydoc.locate("pipeline.run.stage.Stage") is not None
    assert pydoc.locate("pipeline.commands.calibrate.BundleCalibration") is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute registr"):
        _ = api.registr


def test_it_costs_nothing_to_import() -> None:
    code = "import sys; from pipeline import api; print(*(name for name in sys.modules if name in ('numpy', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
