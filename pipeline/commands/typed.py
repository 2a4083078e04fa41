"""What every command of the command line answers to: `-q`, `-v`, one sentence for an error, and an exit code."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any, TypeVar

import typer

from pipeline.errors import UsageError, pipeline_cause

Command = TypeVar("Command", bound=Callable[..., int | None])

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone, and what was asked for.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print what libraries log, and where a defect is.")]
DEFECT = "This is a defect of Tandem: please report it with what `--verbose` prints."


def command(on: typer.Typer, name: str | None = None) -> Callable[[Command], Command]:
    """Make a function a command that can be quiet and verbose, as `tandem` itself can; what it gives is the exit code.

    Args:
        on: takes the command; the context's `obj` says whether `tandem` itself was asked to be `quiet` or `verbose`.
        name: of the command; the function's own when left out.
    """

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def typed(context: typer.Context, quiet: bool, verbose: bool, **arguments: Any) -> None:
            with _printed(quiet or context.obj["quiet"], verbose or context.obj["verbose"]):
                code = function(**arguments)
            raise typer.Exit(code or 0)

        more = {"context": typer.Context, "quiet": Quiet, "verbose": Verbose}
        own = inspect.signature(function, eval_str=True)
        added = [_keyword(key, kind) for key, kind in more.items()]
        typed.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
        typed.__annotations__ = {**function.__annotations__, **more}
        on.command(name)(typed)
        return function

    return decorate


def _keyword(name: str, kind: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if kind is typer.Context else False
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)


@contextmanager
def _printed(quiet: bool, verbose: bool) -> Iterator[None]:
    """Print as much as was asked for; say in one sentence why a command cannot do its work, and exit with 2."""
    from pipeline.console import echo, library_log, printing

    with ExitStack() as stack:
        if quiet:
            stack.enter_context(printing("errors"))
        if verbose:
            stack.enter_context(library_log())
        try:
            yield
        except Exception as error:
            known = pipeline_cause(error)
            if known is None and verbose:
                raise
            echo(str(known or UsageError("E_INTERNAL", f"{type(error).__name__}: {error}.", DEFECT)), error=True)
            raise typer.Exit(2) from error
