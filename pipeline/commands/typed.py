"""What every command of the command line answers to: `-q`, `-v`, one sentence for an error, and an exit code."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from pipeline.console import echo, library_log, print_table, printing
from pipeline.errors import UsageError, pipeline_cause, root_words
from pipeline.run.room import MIN_FREE_GB
from pipeline.run.status import finish
from pipeline.run.stopping import code_of, sentence, stoppable
from pipeline.spec.explain import shipped_specs
from pipeline.spec.spec import Spec, load_spec
from pipeline.store.records import PAGE

Command = TypeVar("Command", bound=Callable[..., int | None])

#: How a command is asked what it does.
HELP = {"help_option_names": ["-h", "--help"]}

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone, and what was asked for.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print what libraries log, and where a defect is.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The run folder; a second run goes on where the first ended.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Do the work again even where it is done.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="How many processes work at once.")]
Device = Annotated[
    str, typer.Option("--device", "-d", help="For networks: cpu, cuda or cuda:N; without it, a GPU where there is one.")
]
MinFree = Annotated[
    float, typer.Option("--min-free", min=0, help="GB that must be free on the disk before a stage; 0: do not look.")
]
Limits = Annotated[
    Path | None, typer.Option("--resources", help="A YAML file: how long each stage may take of a case, what it needs.")
]
SchedulerAt = Annotated[
    str, typer.Option("--scheduler", help="tcp://HOST:PORT of a running dask scheduler, whose workers do the work.")
]
SlurmFile = Annotated[Path | None, typer.Option("--slurm", help="A YAML file of jobs of SLURM that do the work.")]
#: Options that are given to a command in one piece. `how`: who does the work, by the names of `pipeline.api.run`;
#: `profile`: what `pipeline.api.deidentify` keeps.
Options = dict[str, Any]
_HOW = {"jobs": (Jobs, 1), "device": (Device, ""), "resources": (Limits, None), "scheduler": (SchedulerAt, "")}
_HOW |= {"slurm": (SlurmFile, None), "min_free_gb": (MinFree, MIN_FREE_GB)}
_PROFILE = {
    "shift_dates": "Move a patient's dates by one secret number of days.",
    "retain_dates": "Keep dates and times as they are.",
    "retain_uids": "Keep the hospital's UIDs.",
    "retain_device": "Keep devices' names and numbers.",
    "retain_institution": "Keep institutions.",
    "retain_patient_characteristics": "Keep sex, age (90 at most), size and weight.",
    "retain_safe_private": "Keep private attributes that are known to be safe.",
    "clean_descriptors": "Keep the words of descriptions that are known to be safe.",
    "clean_structured_content": "Copy reports, without their texts.",
}
_GROUPS: dict[str, dict[str, tuple[Any, Any]]] = {
    "how": _HOW,
    "profile": {
        name: (Annotated[bool, typer.Option(f"--{name.replace('_', '-')}", help=words)], False)
        for name, words in _PROFILE.items()
    },
}
DEFECT = "This is a defect of Tandem: please report it with what `--verbose` prints."


def command(on: typer.Typer, name: str | None = None) -> Callable[[Command], Command]:
    """Make a function a command that can be quiet and verbose, as `tandem` itself can; what it gives is the exit code.

    Args:
        on: takes the command; the context's `obj` says whether `tandem` itself was asked to be `quiet` or `verbose`.
        name: of the command; the function's own when left out.
    """

    def decorate(function: Command) -> Command:
        own = dict(inspect.signature(function, eval_str=True).parameters)
        groups = {name: group for name, group in _GROUPS.items() if own.pop(name, None)}

        @functools.wraps(function)
        def typed(context: typer.Context, quiet: bool, verbose: bool, **arguments: Any) -> None:
            for key, group in groups.items():
                arguments[key] = {name: arguments.pop(name) for name in group}
            with _printed(quiet or context.obj["quiet"], verbose or context.obj["verbose"]):
                code = function(**arguments)
            raise typer.Exit(code or 0)

        more = {key: each for group in groups.values() for key, each in group.items()}
        more |= {"context": (typer.Context, inspect.Parameter.empty)}
        more |= {"quiet": (Quiet, False), "verbose": (Verbose, False)}
        added = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for key, (kind, default) in more.items()
        ]
        typed.__signature__ = inspect.Signature([*own.values(), *added])  # type: ignore[attr-defined]
        typed.__annotations__ = {part.name: part.annotation for part in (*own.values(), *added)}
        on.command(name)(typed)
        return function

    return decorate


def script(function: Callable[..., None]) -> None:
    """Run a script's function as a command that answers to `-h`, too."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False, context_settings=HELP)
    app.command()(function)
    app()


@contextmanager
def _printed(quiet: bool, verbose: bool) -> Iterator[None]:
    """Print as much as was asked for; say in one sentence why a command cannot do its work, and exit with 2."""
    with ExitStack() as stack:
        if quiet:
            stack.enter_context(printing("errors"))
        if verbose:
            stack.enter_context(library_log())
        try:
            with stoppable():
                yield
        except KeyboardInterrupt as stop:
            echo(sentence(code_of(stop)), error=True)
            raise typer.Exit(code_of(stop)) from stop
        except Exception as error:
            known = pipeline_cause(error)
            if known is None and verbose:
                raise
            echo(str(known or UsageError("E_INTERNAL", f"{root_words(error)}.", DEFECT)), error=True)
            raise typer.Exit(2) from error


def names_in(text: str) -> list[str]:
    """The names of a text in which commas part them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def pairs(given: Iterable[str], such_as: str) -> dict[str, str]:
    """Options that are typed as `ROLE=SOMETHING`.

    Raises:
        UsageError: E_OPTION.
    """
    parts = {item: item.partition("=") for item in given}
    if wrong := [item for item, (_, mark, _) in parts.items() if not mark]:
        what = f"Expected a role with what it is, such as {such_as}, got {wrong[0] or 'an empty text'}."
        raise UsageError("E_OPTION", what, "Write the role, = and its value, without spaces.")
    found = {role: value for role, _, value in parts.values()}
    if len(found) < len(parts):
        raise UsageError("E_OPTION", f"Expected each role once, got {' and '.join(parts)}.", "Leave one of them out.")
    return found


def finished(out: Path, found: dict[str, Any], passed: bool = False) -> int:
    """Say where a run's results are and what it has come to; the exit code."""
    report = out / PAGE
    echo(f"Report: {report}" if report.is_file() else f"Results: {out}")
    return finish(out, found, passed)


def specs() -> dict[str, Spec]:
    """The data specs that come with Tandem, by name: `tandem specs`."""
    return {name: load_spec(path) for name, path in shipped_specs().items()}


def show_specs(found: Mapping[str, Spec]) -> None:
    """Print one row a spec: its roles with their modalities, what its stages do, and what it is for."""
    table = Table("name", "roles", "sections", "description", box=None, header_style="bold")
    for name, spec in found.items():
        roles = ", ".join(f"{role} ({modality})" for role, modality in spec.modalities.items())
        table.add_row(name, roles, ", ".join(sections(spec)), spec.description)
    print_table(table)


def sections(spec: Spec) -> list[str]:
    """Which of the sections that a spec may do without it has, such as `masks` and `register`."""
    there = {
        "masks": spec.masks,
        "register": spec.register_,
        "segment": spec.segment,
        "radiomics": spec.radiomics_,
        "fuse_image": spec.fuse_image,
        "fuse": spec.fuse,
        "streams": spec.streams,
    }
    return [name for name, given in there.items() if given]
