"""What stages may take of a machine (`tandem run --resources`), and jobs of SLURM (`--slurm`). Nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, field_validator

from pipeline.errors import UsageError
from pipeline.spec.explain import Model, did_you_mean, read_model


class Need(Model):
    """What one stage takes of the process that works on a case.

    Attributes:
        time_s: seconds after which the process is stopped and the case has failed; 0 for no limit.
        memory_gb: what each process has to be allowed; 0 where it is not known.
        gpu: whether it runs only in processes that have a GPU.
    """

    time_s: StrictInt | StrictFloat = Field(default=0, ge=0)
    memory_gb: StrictInt | StrictFloat = Field(default=0, ge=0)
    gpu: StrictBool = False


class Resources(Model):
    """What the stages of a run take.

    Attributes:
        default: of each stage that is not named.
        stages: stage -> what it takes.
    """

    default: Need = Need()
    stages: dict[str, Need] = Field(default={})

    def of(self, stage: str) -> Need:
        """What a stage takes."""
        return self.stages.get(stage, self.default)


class Slurm(Model):
    """What a run asks of SLURM: jobs of one worker process each.

    Attributes:
        jobs: how many run at once; one that reaches its `walltime` is followed by another.
        cores: of each job, for one case at a time.
        memory_gb: of each job.
        walltime: of each job, as SLURM has it: `"04:00:00"`, `"2-00"`.
        queue: the partition; SLURM's own where it is empty.
        account: who pays; SLURM's own where it is empty.
        gpus: of each job; with one or more it takes the stages that need a GPU.
        python: the interpreter with the same Tandem on the nodes; that of the command where it is empty.
        interface: the network by which nodes reach the command, such as `ib0`.
        env: lines of shell before the worker starts, such as `module load cuda`.
        job_extra: more directives, such as `--exclusive`.
        logs: a folder for what the jobs print; nothing is kept where it is empty.
        wait_min: minutes to wait for the first job.
    """

    jobs: StrictInt = Field(ge=1)
    cores: StrictInt = Field(ge=1)
    memory_gb: StrictInt | StrictFloat = Field(gt=0)
    walltime: StrictStr
    queue: StrictStr = ""
    account: StrictStr = ""
    gpus: StrictInt = Field(default=0, ge=0)
    python: StrictStr = ""
    interface: StrictStr = ""
    env: list[StrictStr] = Field(default=[])
    job_extra: list[StrictStr] = Field(default=[])
    logs: StrictStr = ""
    wait_min: StrictInt | StrictFloat = Field(default=60, gt=0)

    @field_validator("walltime", mode="before")
    @classmethod
    def _is_a_time(cls, given: Any) -> Any:
        """YAML reads 04:00:00 as a number unless it stands in quotes. Source: sbatch(1), `--time`."""
        if not isinstance(given, str) or not re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", given):
            raise ValueError('expected a time in quotes, such as "04:00:00" or "2-00"')
        return given


def load_slurm(path: Path) -> Slurm:
    """Read what a run asks of SLURM; E_RESOURCES names the key and the line."""
    return read_model(path, Slurm, "file of jobs", "E_RESOURCES", lambda _: list(Slurm.model_fields))


def load_resources(path: Path | None, known: Sequence[str]) -> Resources:
    """Read what stages, which have to be known ones, take; without a file nothing is limited.

    Raises:
        UsageError: E_RESOURCES; the message names the key and the line.
    """
    if path is None:
        return Resources()
    found = read_model(path, Resources, "file of resources", "E_RESOURCES", _keys_beside)
    for name in found.stages:
        if name not in known:
            near = did_you_mean(name, known) or f"; known are {', '.join(known)}."
            raise UsageError("E_RESOURCES", f"{path}: there is no stage {name}{near}")
    return found


def _keys_beside(where: list[str]) -> list[str]:
    return list((Resources if len(where) < 2 else Need).model_fields)
