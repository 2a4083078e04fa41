"""What a bundle's configuration is made of, read as `python -m monai.bundle run` reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.console import quiet_libraries
from pipeline.errors import UsageError, pipeline_cause
from pipeline.run.options import as_value, require_known
from pipeline.run.plan import STAGES, STREAMS, Plan, configuration
from pipeline.run.stage import Case, Stage
from pipeline.shipped import bundle_root
from pipeline.spec.spec import SPEC_FILE, load_spec


class Finder(Protocol):
    """What finds a stage's cases; `of` is asked of all but ingest's, whose cases the input tree holds."""

    def __call__(self) -> list[Case]:
        """All of them."""

    def of(self, case_id: str) -> Case | None:
        """One case of the run folder; None where the stage has no use for it."""


@dataclass(frozen=True)
class Loaded:
    """A bundle's stage, ready to run: what it does, where its cases are, and what comes after them."""

    stage: Stage
    find_cases: Finder
    after: Sequence[Callable[[Path], Any]]


def load(name: str, plan: Plan) -> Loaded:
    """Read a bundle's configuration, as `python -m monai.bundle run` does.

    Raises:
        UsageError: E_NO_STAGE, E_CONFIG, or what the bundle's own parts raise.
    """
    parser = parser_of(name, plan)
    return Loaded(part_of(parser, "stage"), part_of(parser, "cases"), part_of(parser, "after", ()))


def parser_of(name: str, plan: Plan, **more: Any) -> Any:
    """MONAI's parser of a stage's configuration, with the folders and the device of a plan; nothing is built yet.

    Args:
        name: of the stage.
        plan: of the run.
        more: further settings: keys of the configuration.

    Raises:
        UsageError: E_NO_STAGE, E_OPTION.
    """
    import torch
    from monai.bundle import ConfigParser

    quiet_libraries()
    paths = _configurations(name, plan.output_dir)
    parser = ConfigParser()
    parser.read_config([str(path) for path in paths])
    dataset = plan.dataset_dir if name == STAGES[0] else plan.output_dir
    spec_file = str(plan.spec_file or "") if name == STAGES[0] else ""
    folders = {"bundle_root": bundle_root(name), "dataset_dir": str(dataset), "output_dir": str(plan.output_dir)}
    settings = {**folders, "overwrite": plan.overwrite, **more}
    if "spec_file" in parser:
        settings["spec_file"] = spec_file
    if plan.jobs > 1 and "readers" in parser:
        settings["readers"] = plan.jobs
    require_known(paths, settings)
    parser.update({key: as_value(value) for key, value in settings.items()})
    if plan.device and "device" in parser:
        parser["device"] = torch.device(plan.device)
    return parser


def _configurations(stage: str, output_dir: Path) -> tuple[Path, ...]:
    """The configuration of a stage's bundle, and what lies over it: inputs that share no grid are fused another way."""
    path, stored = configuration(stage), output_dir / SPEC_FILE
    streams = stage == "fuse" and stored.is_file() and load_spec(stored).streams
    return (path, path.parent / "overlays" / STREAMS) if streams else (path,)


def part_of(parser: Any, name: str, *otherwise: Any) -> Any:
    """A part of a configuration, built with all that it needs; `otherwise` where there is no such part.

    Raises:
        UsageError: E_CONFIG, or what its parts raise.
    """
    if otherwise and name not in parser:
        return otherwise[0]
    try:
        return parser.get_parsed_content(name)
    except Exception as error:
        if known := pipeline_cause(error):
            raise known from error
        what = f"The configuration of {parser['bundle_root']} cannot be used: {error}."
        raise UsageError("E_CONFIG", what) from error
