"""A command loads MONAI without what it does not need, and everything else is still there to be loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

CODE = """
import sys
from pipeline import cli
cli.app = lambda: {app}
{main}
import monai
from monai.networks.nets import UNet
print(*[name for name in ("torchvision", "ignite", "matplotlib", "scipy.signal") if name in sys.modules])
import ignite.engine, matplotlib.figure, scipy.signal
print(ignite.engine.Engine.__name__, matplotlib.figure.Figure.__name__, scipy.signal.hilbert.__name__)
import gc
print(gc.isenabled(), gc.get_freeze_count() > 100_000)
"""


def printed(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_program_spares_them_and_a_program_of_ones_own_does_not() -> None:
    """`tandem` alone: who uses Tandem in Python finds MONAI whole."""
    program = "try: cli.main()\nexcept SystemExit: pass"
    assert printed(CODE.format(app="0", main=program)) == ["", "Engine Figure hilbert", "True True"]
    loaded, _, collected = printed(CODE.format(app="0", main=""))
    assert "ignite" in loaded and collected == "True False"


COMPARE = """
import sys
from pipeline import cli
sys.argv = ["tandem", "compare", "cases.csv", "--out", "out"]

def trained(*given):
    from monai.engines import SupervisedTrainer
    print(any(base.__module__.startswith("ignite.") for base in SupervisedTrainer.__mro__))
    raise SystemExit(0)

cli.api.compare = trained
cli.main()
"""


def test_the_command_that_trains_in_its_own_process_finds_what_engines_need() -> None:
    assert printed(COMPARE)[-1] == "True"
