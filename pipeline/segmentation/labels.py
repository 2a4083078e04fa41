"""Labels and channels as nnU-Net takes them: consecutive labels and the map back, regions, `ignore`, channel order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import CaseError, UsageError

#: nnU-Net's names of the label 0, and of the label whose voxels are not learned.
BACKGROUND, IGNORE = "background", "ignore"
LABELS_REMEDY = "Correct the labels in the data spec or dataset.json, or the label image."
_ORDER = "Write regions from the outermost to the innermost, so that each one has one label that no later one has."


@dataclass(frozen=True)
class LabelMap:
    """Labels 1, 2 … as nnU-Net takes them, and what they are in the source.

    Attributes:
        names: of the labels 1, 2 …, in the order of their values in the source; the ignored one is the last.
        sources: their values in the source.
        regions: name -> labels (1, 2 …) of each region, in the order in which they were written; empty: no regions.
        ignored: whether the last label is nnU-Net's `ignore`.
    """

    names: tuple[str, ...]
    sources: tuple[int, ...]
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ignored: bool = False

    @classmethod
    def of(
        cls, values: Sequence[tuple[str, int]], regions: Mapping[str, Sequence[str]] | None = None, ignore: str = ""
    ) -> LabelMap:
        """Number the labels of a source.

        Args:
            values: names and values, without the background, which is 0.
            regions: name -> names of labels, from the outermost to the innermost.
            ignore: the label whose voxels are not learned; one that is called `ignore` is one.

        Raises:
            UsageError: E_LABEL for a name or a value that comes twice, two ignored labels, a region of an unknown
                label, a label in no region, or regions that do not say which label each voxel has.
        """
        _require_different(values)
        ignored = [name for name, _ in values if name == ignore or name.casefold() == IGNORE]
        if ignore and ignore not in ignored:
            raise _wrong(f"Expected the ignored label {ignore} among the labels, got {_listed(values)}.")
        if len(ignored) > 1:
            raise _wrong(f"Expected one ignored label, got {' and '.join(ignored)}.")
        ordered = sorted(values, key=lambda item: (item[0] in ignored, item[1]))
        names = tuple(name for name, _ in ordered)
        numbers = {name: number for number, name in enumerate(names, start=1) if name not in ignored}
        if not numbers:
            raise _wrong("Expected a label to learn, got none.")
        made = {name: _region(name, of, numbers) for name, of in (regions or {}).items()}
        found = cls(names, tuple(value for _, value in ordered), made, bool(ignored))
        if made:
            _require_painted(found, numbers)
        return found

    @property
    def learned(self) -> dict[str, int]:
        """Name -> label, without background and ignored."""
        count = len(self.names) - int(self.ignored)
        return {name: number for number, name in enumerate(self.names[:count], start=1)}

    def as_dataset(self) -> dict[str, Any]:
        """`labels`, and `regions_class_order` where there are regions, as dataset.json has them: their order counts."""
        labels: dict[str, Any] = {BACKGROUND: 0}
        labels |= {name: list(of) for name, of in self.regions.items()} if self.regions else self.learned
        labels |= {IGNORE: len(self.names)} if self.ignored else {}
        return {"labels": labels, **({"regions_class_order": self.class_order} if self.regions else {})}

    @property
    def class_order(self) -> list[int]:
        """The label that each region leaves, where they are painted one over the other in their order."""
        return [(_left(self.regions, name) or [0])[0] for name in self.regions]

    @property
    def label_map(self) -> dict[str, int]:
        """Label 1, 2 …, as JSON names it -> value in the source."""
        return {str(number): value for number, value in enumerate(self.sources, start=1)}

    def to_network(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Number a label image of the source, of any shape.

        Raises:
            CaseError: E_LABEL when it holds a value that is not declared.
        """
        return renumbered(values, {0: 0, **{value: int(number) for number, value in self.label_map.items()}})


def renumbered(values: npt.NDArray[Any], numbers: Mapping[int, int]) -> npt.NDArray[Any]:
    """Replace each value of a label image by another one.

    Args:
        values: whole numbers, of any shape.
        numbers: value -> its replacement, 0 to 65535.

    Returns:
        uint8 or uint16, the same shape.

    Raises:
        CaseError: E_LABEL when there is a value that has none.
    """
    found, places = np.unique(values, return_inverse=True)
    strange = [f"{value:g}" for value in found.tolist() if value not in numbers]
    if strange:
        wanted = ", ".join(str(value) for value in sorted(numbers))
        what = f"Expected the labels {wanted}, got {', '.join(strange[:5])} too."
        raise CaseError("E_LABEL", what, LABELS_REMEDY)
    kind = np.uint8 if max(numbers.values()) <= 255 else np.uint16
    table = np.array([numbers[value] for value in found.tolist()], dtype=kind)
    return table[places].reshape(values.shape)


def require_channels(expected: Sequence[str], got: Sequence[str]) -> None:
    """Refuse other channels than a network's, or the same in another order.

    Raises:
        CaseError: E_CHANNELS, with both lists.
    """
    if list(expected) != list(got):
        what = f"Expected the channels {', '.join(expected)}, in this order, got {', '.join(got) or 'none'}."
        raise CaseError("E_CHANNELS", what)


def _require_different(values: Sequence[tuple[str, int]]) -> None:
    names, numbers = [name for name, _ in values], [value for _, value in values]
    twice = [name for name in names if names.count(name) > 1] + [str(n) for n in numbers if numbers.count(n) > 1]
    if twice:
        raise _wrong(f"Expected different names and values of labels, got {twice[0]} twice.")
    if any(name.casefold() == BACKGROUND for name in names) or not all(0 < value <= 65535 for value in numbers):
        raise _wrong(f"Expected labels from 1 to 65535 beside the background, got {_listed(values)}.")


def _region(name: str, of: Sequence[str], numbers: Mapping[str, int]) -> tuple[int, ...]:
    unknown = [label for label in of if label not in numbers]
    if unknown or not of:
        got = unknown[0] if unknown else "none"
        raise _wrong(f"Expected the region {name} to be of labels among {', '.join(numbers)}, got {got}.")
    return tuple(sorted(numbers[label] for label in of))


def _left(regions: Mapping[str, Sequence[int]], name: str) -> list[int]:
    """The labels of a region that no later one has."""
    names = list(regions)
    later = {number for other in names[names.index(name) + 1 :] for number in regions[other]}
    return [number for number in regions[name] if number not in later]


def _require_painted(found: LabelMap, numbers: Mapping[str, int]) -> None:
    """Regions give every label back: nnU-Net paints one label a region, each over those before it."""
    for name in found.regions:
        left = _left(found.regions, name)
        if len(left) != 1:
            got = ", ".join(found.names[number - 1] for number in left) or "none"
            raise UsageError("E_LABEL", f"Expected one label of {name} that is in no later region, got {got}.", _ORDER)
    held = {number for of in found.regions.values() for number in of}
    absent = [name for name, number in numbers.items() if number not in held]
    if absent:
        raise UsageError("E_LABEL", f"Expected every label in a region, got {absent[0]} in none.", _ORDER)


def _listed(values: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values) or "none"


def _wrong(message: str) -> UsageError:
    return UsageError("E_LABEL", message, LABELS_REMEDY)
