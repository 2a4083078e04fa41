"""What to run, checked before anything runs. Nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.shipped import shipped
from pipeline.spec.explain import did_you_mean

if TYPE_CHECKING:
    from pipeline.spec.spec import Spec

STAGES = ("ingest", "register", "preprocess", "segment", "radiomics", "fuse_image", "fuse", "report")
#: What lies over the configuration of `fuse` for inputs that share no grid.
STREAMS = "streams_inference.yaml"


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        dataset_dir: the DICOM tree.
        output_dir: the run folder.
        spec_file: the data spec, or the name of a shipped one; None takes every volume as a case of its own.
        stages: whose names are known, in any order; empty for all that the data spec has a use for.
        overwrite: do the work again even where it is done.
        jobs: how many processes work at once.
        device: `cpu`, `cuda` or `cuda:N`, for networks; empty for a GPU where there is one.
        min_free_gb: GB that have to be free on the disk before a stage starts (`pipeline.run.room`); 0: not asked.
        cases: the only ones that are worked on; empty: all. Such a run leaves the manifest of the run as it is.
        resources: what stages may take (`pipeline.spec.resources`); None for no limits.
        scheduler: the address of dask's scheduler whose workers do the work, instead of `jobs` processes.
        slurm: what is asked of SLURM (`pipeline.spec.resources`), whose jobs do the work then.

    Raises:
        UsageError: E_NO_STAGE; E_OPTION for a device that there is not, or for two who are to do the work.
    """

    dataset_dir: Path
    output_dir: Path
    spec_file: Path | None = None
    stages: tuple[str, ...] = ()
    overwrite: bool = False
    jobs: int = 1
    device: str = ""
    min_free_gb: float = 0.0
    cases: frozenset[str] = frozenset()
    resources: Path | None = None
    scheduler: str = ""
    slurm: Path | None = None

    def resolved(self) -> Plan:
        """The same with folders that do not depend on where a process works, where others than its own may."""
        if not (self.scheduler or self.slurm):
            return self
        spec = self.spec_file.resolve() if self.spec_file and self.spec_file.exists() else self.spec_file
        root, out = self.dataset_dir.resolve(), self.output_dir.resolve()
        return replace(self, dataset_dir=root, output_dir=out, spec_file=spec)

    def __post_init__(self) -> None:
        for name in self.stages:
            configuration(name)
        if self.device:
            require_device(self.device)
        if self.scheduler and self.jobs != 1:
            what = f"Expected --jobs or --scheduler, got {self.jobs} jobs beside {self.scheduler}."
            raise UsageError("E_OPTION", what, "The scheduler's own workers do the work.")
        if self.slurm and (self.scheduler or self.jobs != 1):
            raise UsageError("E_OPTION", "Expected --slurm alone, got --jobs or --scheduler beside it.")


def configuration(stage: str) -> Path:
    """The configuration of a stage's bundle.

    Raises:
        UsageError: E_NO_STAGE.
    """
    path = shipped("bundles", stage, "configs", "inference.yaml")
    if not path.is_file():
        near = did_you_mean(stage, STAGES)
        raise UsageError("E_NO_STAGE", f"There is no stage {stage}{near or '.'} Known are {', '.join(STAGES)}.")
    return path


def stages_for(spec: Spec) -> tuple[str, ...]:
    """The stages of a run with a data spec: those that need a section or a modality of it only where it has that."""
    prepared = spec.of_modality("CT") or spec.of_modality("MR") or None
    segmented = spec.segment and (spec.segment.model or None)  # without a model the section serves conversion
    needed: dict[str, object] = {"register": spec.register_, "preprocess": prepared, "segment": segmented}
    needed |= {"radiomics": spec.radiomics_, "fuse_image": spec.fuse_image, "fuse": spec.fuse}
    return tuple(name for name in STAGES if name not in needed or needed[name] is not None)


def in_order(stages: Sequence[str], spec: Spec) -> tuple[str, ...]:
    """The stages of a plan in the order in which they run: a stage that is not of `STAGES` runs before the report.

    Raises:
        UsageError: E_SPEC when the data spec has no section, or no role, for one of them; E_CONFIG when it names
            settings of radiomics that are none.
    """
    usable = stages_for(spec)
    for name in stages:
        if name in STAGES and name not in usable:
            part = "role of CT or MR" if name == "preprocess" else f"section `{name}`"
            what = f"Expected a {part} in the data spec {spec.name}, for the stage {name}, got none."
            raise UsageError("E_SPEC", what, "Leave the stage out, or add that: docs/reference/data-specs.md.")
    if spec.radiomics_ and "radiomics" in (stages or usable):
        from pipeline.radiomics.configurations import of_spec

        of_spec(spec.radiomics_)
    places = {name: float(index) for index, name in enumerate(STAGES)}
    return tuple(sorted(dict.fromkeys(stages), key=lambda name: places.get(name, len(STAGES) - 1.5))) or usable


def require_device(name: str) -> None:
    """Refuse a device that is none, or that this machine does not have.

    Raises:
        UsageError: E_OPTION.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError("E_OPTION", f"Expected cpu, cuda or cuda:N as the device, got {name}.")
    if name == "cpu":
        return
    found = gpus()
    if int(name.partition(":")[2] or 0) >= found:
        remedy = "Use -d cpu, or leave it out." if not found else f"Use cuda:0 to cuda:{found - 1}."
        raise UsageError("E_OPTION", f"Expected a device of this machine, which has {found} GPUs, got {name}.", remedy)


def gpus() -> int:
    """How many GPUs this process can use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
