"""What the documents name exists: the benchmarks' and scripts' commands with their options, and the files."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pipeline.shipped import shipped

ROOT = shipped()
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("bundles/**/*.md")]
)
COMMAND = re.compile(r"python -m ((?:benchmarks|scripts)\.\w+)([^\n`]*)")
FILE = re.compile(r"`((?:pipeline|tests|benchmarks|scripts|data_specs|bundles)/[\w./]*\w)`")


def commands() -> dict[str, set[str]]:
    """Module -> the options with which the pages call it."""
    found: dict[str, set[str]] = {}
    for page in PAGES:
        for module, rest in COMMAND.findall(page.read_text()):
            found.setdefault(module, set()).update(re.findall(r"(?<!\S)--[a-z][\w-]*", rest.split("#")[0]))
    return found


def test_the_pages_name_benchmarks() -> None:
    assert len(commands()) >= 10


def help_of(main: Any) -> str:
    """What a command of typer says of itself, and each of its commands."""
    app = main if isinstance(main, typer.Typer) else typer.Typer(add_completion=False)
    if app is not main:
        app.command()(main)
    names = [item.name or str(getattr(item.callback, "__name__", "")) for item in app.registered_commands]
    calls = [["--help"], *([name.replace("_", "-"), "--help"] for name in names if len(names) > 1)]
    done = [CliRunner().invoke(app, call, env={"COLUMNS": "200", "TERM": "dumb"}) for call in calls]
    assert {item.exit_code for item in done} == {0}, [item.output for item in done]
    return "".join(item.output for item in done)


@pytest.mark.parametrize("module", sorted(commands()))
def test_a_command_in_the_pages_is_there_with_its_options(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked in this process for its help: a process for each would load torch as often."""
    loaded = importlib.import_module(module)
    main = getattr(loaded, "app", None) or loaded.main
    if isinstance(main, typer.Typer) or inspect.signature(main).parameters:
        said = help_of(main)
    else:  # one of argparse
        monkeypatch.setattr("sys.argv", [module, "--help"])
        with pytest.raises(SystemExit, match="0"):
            main()
        said = capsys.readouterr().out
    assert {option for option in commands()[module] if option not in said} == set()
    assert '__name__ == "__main__"' in Path(str(loaded.__file__)).read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_file_that_a_page_names_is_there(page: Path) -> None:
    missing = [name for name in FILE.findall(page.read_text()) if not (ROOT / name).exists()]
    assert missing == []
