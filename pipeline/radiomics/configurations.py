"""Named settings: a preset, a file, or what a data spec says; with a hash that stands in every row measured by them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.errors import UsageError
from pipeline.radiomics.perturbation import Perturbations
from pipeline.radiomics.settings import PRESETS, Settings, preset
from pipeline.spec.explain import did_you_mean
from pipeline.spec.stages import Radiomics

_REMEDY = "docs/reference/radiomics.md explains every key."


@dataclass(frozen=True)
class Configuration:
    """Settings under a name.

    Attributes:
        name: a preset's, or the user's.
        settings: what is done.
    """

    name: str
    settings: Settings

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of all settings, whatever the order in which they were written."""
        text = json.dumps(self.settings.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def configuration(name: str, values: Mapping[str, Any]) -> Configuration:
    """A configuration of plain values.

    Args:
        name: its own.
        values: settings by their keys; `preset` names one over which the others lie.

    Raises:
        UsageError: E_CONFIG, with the nearest name for a misspelt one.
    """
    own = {key: value for key, value in values.items() if key != "preset"}
    base = preset(str(values["preset"])).model_dump() if "preset" in values else {}
    try:
        return Configuration(name, Settings.read({**base, **own}))
    except UsageError as error:
        raise UsageError(error.code, f"{name}: {error.message}", _REMEDY) from error


def of_spec(section: Radiomics) -> dict[str, tuple[Configuration, ...]]:
    """Role -> how its image is measured: by a data spec's own configurations, or by presets.

    Raises:
        UsageError: E_CONFIG for a name of neither, or settings that are none.
    """
    own = {name: configuration(name, values) for name, values in section.configurations.items()}
    known = own | {name: Configuration(name, settings) for name, settings in PRESETS.items() if name not in own}
    for name in (name for names in section.images.values() for name in names):
        if name not in known:
            near = did_you_mean(name, known) or "."
            raise UsageError("E_CONFIG", f"Expected one of {', '.join(known)}, got {name}{near}", _REMEDY)
    return {role: tuple(known[name] for name in names) for role, names in section.images.items()}


def read_configurations(source: str) -> tuple[Configuration, ...]:
    """Configurations that a command names.

    Args:
        source: a preset's name, or a YAML file: settings, or several under `configurations`, each under its name.

    Raises:
        UsageError: E_CONFIG.
    """
    if source in PRESETS:
        return (Configuration(source, preset(source)),)
    path = Path(source)
    if not path.is_file():
        near = did_you_mean(source, PRESETS) or "."
        what = f"Expected a file, or one of {', '.join(PRESETS)}, got {source}{near}"
        raise UsageError("E_CONFIG", what, _REMEDY)
    values = _yaml(path)
    several = values.get("configurations", {path.stem: values}) if isinstance(values, dict) else None
    if not isinstance(several, dict) or not all(isinstance(item, dict) for item in several.values()) or not several:
        raise UsageError("E_CONFIG", f"Expected keys with their values in {path}, got others.", _REMEDY)
    if several is values.get("configurations") and len(values) > 1:
        raise UsageError("E_CONFIG", f"Expected `configurations` alone in {path}, got other keys beside it.", _REMEDY)
    return tuple(configuration(str(name), item) for name, item in several.items())


def read_perturbations(source: str | bool | Mapping[str, Any]) -> Perturbations | None:
    """How regions are perturbed, or None where they are not.

    Args:
        source: what a data spec says, or a command: true or `default`, false or nothing, keys with values, or a YAML
            file of these.

    Raises:
        UsageError: E_CONFIG.
    """
    if not source:
        return None
    values: Any = source
    if isinstance(source, str) and source != "default":
        values = _yaml(Path(source))
    try:
        return Perturbations() if values in (True, "default") else Perturbations.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or str(source)
        near = did_you_mean(where, Perturbations.model_fields) or "."
        said = f"Expected how regions are perturbed, got {where}: {first['msg']}{near}"
        raise UsageError("E_CONFIG", said, _REMEDY) from error


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError("E_CONFIG", f"Expected YAML in {path}, but it cannot be read: {error}.", _REMEDY) from error
