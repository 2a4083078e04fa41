"""The `streams` of a data spec and of a training: what a network sees of a case where its inputs share no grid."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, StrictFloat, StrictInt, ValidationError, field_validator, model_validator

from pipeline.errors import UsageError
from pipeline.spec.explain import Model, did_you_mean
from pipeline.spec.roles import ROLE_NAME

Kind = Literal["volume", "image", "sound"]
#: Numbers of a stream's size, by its kind, and what they are.
AXES: dict[str, tuple[str, ...]] = {
    "volume": ("I", "J", "K"),
    "image": ("I", "J"),
    "sound": ("bands", "frames"),
}
#: Of one side, and of all values of a stream: what is more is no input of a network, but a slip of the keyboard.
LARGEST_SIDE, MOST_VALUES = 4096, 2**25
#: Kind -> what may stand as its intensity, the default first.
INTENSITIES: dict[str, tuple[str, ...]] = {"volume": ("zscore", "ct", "none"), "image": ("full", "percentiles")}
#: Keys that only some kinds have.
_OF_KINDS: dict[str, tuple[str, ...]] = {
    "spacing_mm": ("volume",),
    "orientation": ("volume",),
    "intensity": ("volume", "image"),
    "window": ("volume",),
    "seconds": ("sound",),
}


class Stream(Model):
    """One input of a case, on a grid of its own.

    Attributes:
        kind: `volume` (NIfTI), `image` (a radiograph, slice or photograph in grey) or `sound`.
        size: of what the network is given: voxels (I, J, K), pixels (I, J), or bands and frames of the log-mel.
        spacing_mm: of a volume: one or three voxel sides that it is brought to; empty: its own. What then lies beyond
            `size` is cut, what is missing is filled, both around its middle: nothing is stretched.
        orientation: of a volume: where its axes run.
        intensity: of a volume: `ct`: the `window` in HU becomes 0 to 1; `zscore`: mean 0 and deviation 1 over the
            foreground, so that how bright all of it is can no longer say anything; `none`: as it is stored. Of an
            image, what is black and white: all its file can hold (`full`), its own `percentiles`, or [low, high].
        window: level and width in HU of `ct`.
        seconds: of a sound: the loudest stretch of this length is heard.
    """

    kind: Kind
    size: tuple[StrictInt, ...]
    spacing_mm: tuple[StrictFloat, ...] = ()
    orientation: str = "RAS"
    intensity: str | tuple[StrictFloat, StrictFloat] = ""
    window: tuple[StrictFloat, StrictFloat] = (40.0, 400.0)
    seconds: StrictFloat = Field(default=4.0, gt=0, le=600)

    @model_validator(mode="before")
    @classmethod
    def _usual_intensity(cls, content: Any) -> Any:
        usual = INTENSITIES.get(str(content.get("kind"))) if isinstance(content, Mapping) else None
        return {"intensity": usual[0], **content} if usual else content

    @field_validator("spacing_mm", mode="before")
    @classmethod
    def _one_for_all(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("spacing_mm")
    @classmethod
    def _are_lengths(cls, sides: tuple[float, ...]) -> tuple[float, ...]:
        if len(sides) not in (0, 1, 3) or not all(0 < side < math.inf for side in sides):
            raise ValueError(f"1 or 3 voxel sides above 0 mm are needed, got {list(sides)}")
        return sides

    @model_validator(mode="after")
    def _size_fits(self) -> Stream:
        axes = AXES[self.kind]
        if len(self.size) != len(axes):
            raise ValueError(f"the size of a `{self.kind}` is {', '.join(axes)}, got {list(self.size)}")
        if not all(1 <= side <= LARGEST_SIDE for side in self.size) or math.prod(self.size) > MOST_VALUES:
            most = f"1 to {LARGEST_SIDE} along each side and {MOST_VALUES:,} in all"
            raise ValueError(f"a size has {most}, got {list(self.size)}")
        return self

    @model_validator(mode="after")
    def _keys_fit(self) -> Stream:
        for key in sorted(self.model_fields_set & _OF_KINDS.keys()):
            if self.kind not in _OF_KINDS[key]:
                raise ValueError(f"`{key}` is not for the kind `{self.kind}`")
        known = INTENSITIES.get(self.kind, ())
        if known and self.intensity not in known and not (self.kind == "image" and _rises(self.intensity)):
            hint = did_you_mean(str(self.intensity), known)
            pair = " or [low, high]" if self.kind == "image" else ""
            raise ValueError(f"`intensity` is one of {', '.join(known)}{pair}, got {self.intensity}{hint}")
        if "window" in self.model_fields_set and self.intensity != "ct":
            raise ValueError("`window` goes with `intensity: ct`")
        if not 0 < self.window[1] < math.inf or not math.isfinite(self.window[0]):
            raise ValueError(f"a window is a level and a positive width, got {list(self.window)}")
        return self

    @property
    def values(self) -> int:
        """How many numbers the network is given."""
        return math.prod(self.size)

    def to_plain(self) -> dict[str, Any]:
        """As a checkpoint keeps it: the keys that its kind has."""
        content = self.model_dump(mode="json", exclude=set() if self.intensity == "ct" else {"window"})
        return {key: item for key, item in content.items() if self.kind in _OF_KINDS.get(key, (self.kind,))}


def _rises(pair: str | tuple[float, float]) -> bool:
    return not isinstance(pair, str) and -math.inf < pair[0] < pair[1] < math.inf


def given_streams(streams: Mapping[str, Any], spec_file: str = "") -> dict[str, Any]:
    """The streams of a training: those that it names, or those of a data spec.

    Raises:
        UsageError: E_CONFIG when there are none, or those of both; E_SPEC for a data spec that cannot be read.
    """
    if streams and spec_file:
        raise UsageError("E_CONFIG", f"Expected either streams or a spec_file, got both: {spec_file}.")
    if not spec_file:
        return dict(streams_of(streams))
    return dict(read_streams(spec_file))


def read_streams(path: str | Path) -> dict[str, Stream]:
    """The streams of a data spec: a file, or a shipped one by its name.

    Raises:
        UsageError: E_SPEC, also when it has none.
    """
    from pipeline.spec.spec import load_spec  # which knows of streams

    found = load_spec(path).streams
    if not found:
        raise UsageError("E_SPEC", f"Expected `streams` in the data spec {path}, got none.")
    return found


def streams_of(given: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Stream]:
    """Check the streams of a training.

    Args:
        given: name -> `Stream`, or its keys and values.
        names: those that are looked at, in their order; all when None.

    Returns:
        Name -> stream.

    Raises:
        UsageError: E_CONFIG for a stream that is none, with the nearest key; E_MODALITY for a name that is not there.
    """
    if not isinstance(given, Mapping) or not given:
        what = f"Expected streams, each a name with its kind and size, got {given or 'none'}."
        raise UsageError("E_CONFIG", what, "Give `streams` as in bundles/fuse/configs/overlays/streams.yaml.")
    found = {str(name): _checked(str(name), content) for name, content in given.items()}
    wanted = list(found if names is None else names)
    for name in wanted:
        if name not in found:
            hint = did_you_mean(name, found) or "."
            raise UsageError("E_MODALITY", f"Expected one of the streams {', '.join(found)}, got {name}{hint}")
    return {name: found[name] for name in wanted}


def plain_streams(given: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """The streams as a checkpoint keeps them; arguments and errors as of `streams_of`."""
    return {name: stream.to_plain() for name, stream in streams_of(given, names).items()}


def agreeing_streams(trained: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The streams of a checkpoint, with which those given by a data spec, if any, agree.

    Returns:
        Name -> keys and values, in the order of the checkpoint.

    Raises:
        UsageError: E_CHECKPOINT when the checkpoint has none, or a stream of the data spec is another one. A spec may
            have more streams than a network of some of them, or fewer.
    """
    if not trained:
        what = "Expected the checkpoint of a network of streams, got one of modalities on one grid."
        raise UsageError("E_CHECKPOINT", what, "Name another checkpoint, or take `streams` out of the data spec.")
    learned, said = streams_of(trained), streams_of(given) if given else {}
    if (unknown := [name for name in said if name not in learned]) and not learned.keys() <= said.keys():
        what = f"Expected the streams {', '.join(learned)}, as in the checkpoint, got {unknown[0]}"
        remedy = "Give roles and streams the names with which the network was trained."
        raise UsageError("E_CHECKPOINT", f"{what}{did_you_mean(unknown[0], learned)}.", remedy)
    for name in learned.keys() & said.keys():
        if learned[name] != said[name]:
            wanted, got = learned[name].to_plain(), said[name].to_plain()
            key = next(key for key in {**wanted, **got} if wanted.get(key) != got.get(key))
            what = f"Expected {key} {wanted.get(key)} of the stream {name}, as in the checkpoint, got {got.get(key)}."
            raise UsageError("E_CHECKPOINT", what)
    return plain_streams(learned)


def sizes_of(given: Mapping[str, Any]) -> dict[str, list[int]]:
    """Name -> size of every stream, as the network takes them; errors as of `streams_of`."""
    return {name: list(stream.size) for name, stream in streams_of(given).items()}


def packed_shape(given: Mapping[str, Any]) -> list[int]:
    """The shape of all streams in one row: how many values they have together; errors as of `streams_of`."""
    return [sum(stream.values for stream in streams_of(given).values())]


def names_by_kind(given: Mapping[str, Any]) -> dict[str, list[str]]:
    """Kind -> the streams that are of it; errors as of `streams_of`."""
    found = streams_of(given)
    return {kind: [name for name, stream in found.items() if stream.kind == kind] for kind in AXES}


def _checked(name: str, content: Any) -> Stream:
    if not re.match(ROLE_NAME, name):
        raise UsageError("E_CONFIG", f"Expected streams named with lower-case letters, digits and _, got {name}.")
    if isinstance(content, Stream):
        return content
    try:
        return Stream.model_validate(dict(content) if isinstance(content, Mapping) else content)
    except ValidationError as error:
        raise UsageError("E_CONFIG", f"Expected the stream {name} to be one: {_told(error.errors()[0])}") from error


def _told(fault: Any) -> str:
    """What is wrong with a stream, as the end of a sentence."""
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"it has the unknown key {key}" + (did_you_mean(key, Stream.model_fields) or ".")
    if fault["type"] == "missing":
        return f"it lacks the key {key}."
    problem = fault["msg"].removeprefix("Value error, ").replace("Input should", "must")
    got = "" if fault["type"] == "value_error" else f", got {str(fault['input'])[:60]}"
    hint = did_you_mean(str(fault["input"]), re.findall(r"'(\w+)'", problem)) or ("" if problem.endswith("?") else ".")
    return f"{key}: {problem}{got}{hint}" if key else f"{problem}{hint}"
