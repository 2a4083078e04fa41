"""The conventions of the command line: what every command answers to, and what is refused before anything runs."""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import nibabel as nib
import numpy as np
import pytest
import typer

from pipeline import __version__, api
from pipeline.calibration.comparison import METHODS
from pipeline.calibration.conformal import METHODS as RULES
from pipeline.calibration.record import SOURCES
from pipeline.cli import app
from pipeline.commands.calibrate import RECOMMENDED
from pipeline.console import echo
from pipeline.errors import UsageError
from pipeline.run.plan import STAGES
from pipeline.shipped import shipped
from pipeline.spec.register import Transform
from tests.tandem_process import call

ROOT = Path(__file__).parent.parent
GROUP: Any = typer.main.get_command(app)


def commands(group: Any = GROUP, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    for name, command in group.commands.items():
        yield from commands(command, (*path, name)) if hasattr(command, "commands") else [((*path, name), command)]


COMMANDS = dict(commands())


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("-")} | {"-h", "--help"}


def asked_for(monkeypatch: pytest.MonkeyPatch, name: str, answer: Any) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Replace a function of the Python API by one that notes what it was asked for."""
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def function(*arguments: Any, **options: Any) -> Any:
        asked.append((arguments, options))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(api, name, function, raising=False)
    return asked


def test_the_version_is_that_of_the_package() -> None:
    assert call("--version").out == f"tandem {__version__}\n"


@pytest.mark.parametrize("words", [(), ("evaluate",), *COMMANDS], ids=" ".join)
def test_h_is_help_everywhere(words: tuple[str, ...]) -> None:
    short, long = call(*words, "-h"), call(*words, "--help")
    assert short.code == long.code == 0 and short.out == long.out and short.out.startswith("Usage: ")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_can_be_quiet_and_verbose(words: tuple[str, ...]) -> None:
    assert {"-q", "--quiet", "-v", "--verbose"} <= options_of(COMMANDS[words])


def test_the_help_of_run_lists_the_stages() -> None:
    assert f"{', '.join(STAGES)}." in re.sub(r"\s+", " ", call("run", "-h").out)


@pytest.mark.parametrize(
    ("command", "option", "accepted"),
    [
        ("run", "--stages", STAGES),
        ("register", "--transform", get_args(Transform)),
        ("calibrate", "--method", (*METHODS, RECOMMENDED)),
        ("calibrate", "--sets-rule", RULES),
        ("calibrate", "--source", SOURCES),
    ],
)
def test_the_help_names_every_value_that_is_accepted(command: str, option: str, accepted: tuple[str, ...]) -> None:
    (found,) = [item for item in COMMANDS[command,].params if option in item.opts]
    assert set(accepted) <= set(re.findall(r"\w+", found.help))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("register image.nii image.nii -o out --transform rigd", "E_OPTION"),
        ("calibrate --logits l.npy --labels y.npy -o c.json --method recomended", "E_CAL_METHOD"),
    ],
)
def test_a_value_that_is_misspelt_is_answered_with_all_that_there_are(given: Path, line: str, code: str) -> None:
    done = call(*line.split())
    known, near = {
        "E_OPTION": (get_args(Transform), "rigid"),
        "E_CAL_METHOD": ((*METHODS, RECOMMENDED), RECOMMENDED),
    }[code]
    assert done.code == 2 and done.err.startswith(f"{code}: Expected one of {', '.join(known)}")
    assert f"did you mean `{near}`?" in done.err


@pytest.mark.parametrize("given", [("IN",), ("-i", "IN"), ("--input", "IN")])
def test_the_input_may_be_an_option(monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]) -> None:
    known = inspect.signature(api.run).parameters.keys()
    asked = asked_for(monkeypatch, "run", {})
    assert call("run", *given, "-o", "OUT", "-s", "ct_mr_head", "-d", "cpu", "--stages", "ingest, report").code == 0
    how = {"jobs": 1, "device": "cpu", "resources": None, "scheduler": "", "slurm": None, "min_free_gb": 1.0}
    expected = (Path("IN"), Path("OUT"), "ct_mr_head", ["ingest", "report"], False)
    assert asked == [(expected, {"progress": True, **how})]
    assert how.keys() < known


@pytest.mark.parametrize("given", [(), ("IN", "-i", "IN")])
@pytest.mark.parametrize("command", ["run", "ingest", "series", "deidentify"])
def test_the_input_is_given_once(command: str, given: tuple[str, ...]) -> None:
    more = {"run": ("-o", "OUT", "-s", "ct_mr_head"), "series": ()}.get(command, ("-o", "OUT"))
    done = call(command, *given, *more)
    assert done.code == 2 and done.err.startswith("E_OPTION") and ("both" in done.err) == bool(given)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("-s", "ct_mr_haed"), "E_SPEC", "did you mean `ct_mr_head`?"),
        (("-s", "ct_mr_head", "--stages", "ingest,registr"), "E_NO_STAGE", "did you mean `register`?"),
        (("-s", "ct_mr_head", "--stages", "ingest,fuse"), "E_SPEC", "section `fuse`"),
        (("-s", "ct_mr_head", "-d", "gpu"), "E_OPTION", "cuda:N"),
    ],
)
def test_what_is_misspelt_is_refused_before_anything_runs(
    tmp_path: Path, options: tuple[str, ...], code: str, words: str
) -> None:
    (tmp_path / "in").mkdir()
    done = call("run", tmp_path / "in", "-o", tmp_path / "out", *options)
    assert done.code == 2 and done.err.startswith(f"{code}: ") and words in done.err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an image, a mask, logits and labels."""
    monkeypatch.chdir(tmp_path)
    nib.save(nib.Nifti1Image(np.arange(512, dtype=np.int16).reshape(8, 8, 8), np.eye(4)), "image.nii")
    np.save("l.npy", np.random.default_rng(0).normal(size=60))
    np.save("p.npy", np.full(60, 0.5))
    np.save("y.npy", np.arange(60) % 2)
    Path("folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "register {} image.nii -o out",
        "register image.nii {} -o out",
        "register image.nii image.nii -o out --moving-mask {}",
        "register image.nii image.nii -o out --apply-to {}",
        "register image.nii image.nii -o out --fixed-landmarks {}",
        "calibrate --logits {} --labels y.npy -o c.json",
        "calibrate --logits l.npy --labels {} -o c.json",
        "calibrate --logits l.npy --labels y.npy --cases {} -o c.json",
        "calibrate --logits l.npy --apply {} -o c.npy",
        "evaluate classification -p {} -l y.npy -o out",
        "evaluate classification -p p.npy -l y.npy -o out --cases {}",
        "compare {} -o out",
    ],
)
def test_a_file_that_does_not_exist_is_said_to_be_so_and_nothing_is_written(given: Path, line: str) -> None:
    for name in ("none.npy", "y.npy/none.csv"):
        before = sorted(given.rglob("*"))
        done = call(*line.format(name).split())
        assert done.code == 2 and done.err.startswith("E_INPUT: Expected a ")
        assert f"but {name} does not exist. Check the path; an output of an earlier stage" in done.err
        assert sorted(given.rglob("*")) == before


@pytest.mark.parametrize(
    "line",
    [
        "run {0}/none -o new/out -s ct_mr_head",
        "run {0}/folder -o new/out -s ct_mr_head",
        "ingest {0}/folder -o new/out",
        "ingest {0}/folder -o folder",
        "deidentify {0}/folder -o new/out",
        "register {0}/folder image.nii -o new/out",
        "register image.nii {0}/folder -o new/out",
        "register image.nii image.nii -o new/out --parameters none.txt",
        "register image.nii image.nii -o new/out --transform headers --parameters rigid_ct_mr",
        "status new/out",
        "compare none.csv -o new/out",
    ],
)
def test_a_command_that_cannot_start_leaves_nothing(
    given: Path, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("TANDEM_HOME", str(tmp_path_factory.mktemp("home")))
    source = tmp_path_factory.mktemp("source")
    (source / "folder").mkdir()
    before = sorted(given.rglob("*"))
    assert call(*line.format(source).split()).code == 2
    assert sorted(given.rglob("*")) == before


def test_the_specs_are_those_of_the_folder() -> None:
    lines = [line.split() for line in call("specs").out.splitlines()]
    assert [line[0] for line in lines[1:]] == sorted(path.stem for path in shipped("data_specs").glob("*.yaml"))
    row = next(" ".join(line) for line in lines if line[0] == "sts_ct_pet_mr")
    assert "ct (CT), pet (PT), mr (MR) masks, register" in row and api.specs()["sts_ct_pet_mr"].description in row


def test_a_spec_is_printed_as_it_is() -> None:
    assert call("specs", "prostate_mr").out == shipped("data_specs", "prostate_mr.yaml").read_text()
    assert call("specs", "prostate").err.startswith("E_SPEC: ")


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_leaves_errors_alone(tmp_path: Path, place: str) -> None:
    labels = np.arange(60) % 2
    np.save(tmp_path / "y.npy", labels)
    np.save(tmp_path / "l.npy", np.random.default_rng(0).normal(labels, 1.0))
    words = ["calibrate", "--logits", tmp_path / "l.npy", "--labels", tmp_path / "y.npy", "-o", tmp_path / "c.json"]
    assert "Calibration: " in call(*words).out
    assert call(*(["-q", *words] if place == "before" else [*words, "-q"])).out == ""
    assert call("-q", *words[:3], "-o", tmp_path / "c.json").err.startswith("E_TABLE")


@pytest.mark.parametrize(("option", "logged"), [((), False), (("-v",), True)])
def test_verbose_shows_what_libraries_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: tuple[str, ...], logged: bool
) -> None:
    def specs() -> dict[str, Any]:
        logging.getLogger("library").info("reads a file")
        return {}

    monkeypatch.setattr(api, "specs", specs, raising=False)
    before = list(logging.getLogger().handlers)
    done = call("specs", *option)
    assert done.code == 0 and ("reads a file" in done.err) == logged
    assert logging.getLogger().handlers == before


def test_a_defect_is_one_sentence_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for(monkeypatch, "specs", ValueError("odd"))
    done = call("specs")
    assert done.code == 2 and done.err.startswith("E_INTERNAL: ValueError: odd. This is a defect of Tandem")
    assert "Traceback" not in done.err and "--verbose" in done.err
    with pytest.raises(ValueError, match="odd"):
        typer.main.get_command(app)(["specs", "-v"], standalone_mode=False)


def test_an_error_behind_another_says_its_own_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("MONAI wraps it")
    error.__cause__ = UsageError("E_OUT", "Expected a folder.")
    asked_for(monkeypatch, "specs", error)
    assert call("specs").err.startswith("E_OUT: Expected a folder.")


def test_the_python_api_prints_nothing_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.run import batch

    def run(plan: batch.Plan) -> dict[str, Any]:
        echo("ingest: 1 done")
        echo("1 files could not be read", error=True)
        return {}

    monkeypatch.setattr(batch, "run", run)
    assert api.ingest("IN", "OUT") == {}
    assert capsys.readouterr() == ("", "")
    api.ingest("IN", "OUT", progress=True)
    assert capsys.readouterr() == ("ingest: 1 done\n", "1 files could not be read\n")


def test_compare_is_asked_for_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asked_for(monkeypatch, "compare", UsageError("E_TABLE", "Expected a table."))
    options = (
        "--modalities",
        "ct, pet",
        "--ct-modalities",
        "ct",
        "--folds",
        "3",
        "--seeds",
        "2",
        "--streams",
        "x.yaml",
        "--fact",
        "source",
        "--judge",
        "1",
        "--class-name",
        "well",
    )
    bare = call("compare", "cases.csv", "-o", "OUT", "--settings", "max_epochs")
    assert bare.code == 2 and bare.err.startswith("E_OPTION: Expected --settings KEY=VALUE, got max_epochs.")
    done = call("compare", "cases.csv", "-o", "OUT", *options, "--settings", "max_epochs=5", "--settings", "patch=[8]")
    assert done.code == 2 and done.err.startswith("E_TABLE")
    chosen = {"max_epochs": "5", "patch": "[8]"}
    assert asked == [
        (
            (
                Path("cases.csv"),
                Path("OUT"),
                ["ct", "pet"],
                ["ct"],
                2,
                3,
                2,
                chosen,
                "x.yaml",
                ["source"],
                [1],
                ["well"],
            ),
            {},
        )
    ]


def documented() -> Iterator[tuple[str, str]]:
    """Every `tandem …` line in a block of code of README and docs, with its page."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        blocks = re.findall(r"^ *```(?:bash|sh)\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S)
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            if found := re.match(r"\s*(?:\.venv/bin/)?tandem (.*?)(?:\s#.*)?$", line):
                yield page.name, found[1]


DOCUMENTED = list(documented())


@pytest.mark.parametrize(("page", "line"), DOCUMENTED, ids=lambda text: text[:60])
def test_every_documented_command_and_option_exists(page: str, line: str) -> None:
    words = line.split()
    if words[0].startswith("-"):
        assert set(words) <= options_of(GROUP)
        return
    path = tuple(words[:2]) if tuple(words[:2]) in COMMANDS else (words[0],)
    assert path in COMMANDS, page
    options = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert options <= options_of(COMMANDS[path]), page


def test_the_readme_shows_the_main_commands() -> None:
    shown = {line.split()[0] for page, line in DOCUMENTED if page == "README.md"}
    assert {"run", "ingest", "series", "specs", "register", "status", "compare", "calibrate", "evaluate"} <= shown


def test_a_name_that_is_no_text_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """A folder's name in Latin-1, as it comes from a zip of Windows."""
    echo("Results: " + os.fsdecode(b"M\xfcller"))
    assert capsys.readouterr().out == "Results: M\\udcfcller\n"
