"""What the stages of a run may take of a machine: `tandem run --resources FILE`. Nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, StrictBool, StrictFloat, StrictInt

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


def load_resources(path: Path | None, known: Sequence[str]) -> Resources:
    """Read what stages take; without a file nothing is limited.

    Args:
        path: a YAML file, or None.
        known: names of stages.

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
