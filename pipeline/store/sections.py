"""What a stage says to a reader of its case: `sections.json` beside its outputs. Reports lay it out and know no stage.

A transform that has something to say has a method `sections(case)` beside its `writes()`; the stage that runs it keeps
what they all say. Images are named by their keys in the case dictionary, and drawn by the report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pipeline.cases import from_plain

#: The key, and so the file name, under which a stage keeps what it says.
SECTIONS = "sections"


@dataclass(frozen=True)
class Display:
    """How an image is shown, wherever it is shown.

    Attributes:
        key: of the image.
        name: as a reader knows it, such as `MR aligned to CT`.
        unit: of its values, such as `HU`, `SUVbw`; empty for arbitrary ones.
        window: low and high end of the grey scale in that unit; None: robust percentiles of the image.
    """

    key: str
    name: str
    unit: str = ""
    window: tuple[float, float] | None = None


@dataclass(frozen=True)
class Regions:
    """A label image: its outlines are drawn on every picture of the images that it belongs to.

    Attributes:
        key: of the label image.
        over: keys of the images on whose grid it lies.
        names: value -> name of the label.
    """

    key: str
    over: tuple[str, ...]
    names: Mapping[int, str]


@dataclass(frozen=True)
class Coloured:
    """Values that are laid over an image in colour.

    Attributes:
        key: of an image on the same grid.
        channel: which of its channels.
        limit: the value of the brightest colour.
        unit: of the values, in words.
        signed: there are values below 0, down to -limit, in another colour.
        beyond: values go on above the limit, and the colour scale says so.
        names: value -> name where the values are labels: each label has a colour of its own.
    """

    key: str
    channel: int = 0
    limit: float = 1.0
    unit: str = ""
    signed: bool = False
    beyond: bool = False
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Panel:
    """One column of a picture: an image in three planes, alone or with something over it.

    Attributes:
        name: what stands above it.
        image: key of the image.
        channel: which of its channels.
        window: low and high end of the grey scale, where it is not the image's own (`Display`).
        checkered: key of an image with which it alternates in tiles.
        overlaid: key of an image that lies over it in colour, by its brightness.
        coloured: values that lie over it in colour.
    """

    name: str
    image: str
    channel: int = 0
    window: tuple[float, float] | None = None
    checkered: str = ""
    overlaid: str = ""
    coloured: Coloured | None = None


@dataclass(frozen=True)
class Axis:
    """What runs along a side of a flat picture that lies nowhere in a patient, such as a sound or a photograph.

    Attributes:
        name: such as `Time`.
        ticks: place, 0 to 1 from the left or from the bottom, and text of each tick, such as (0.5, `1 s`).
    """

    name: str
    ticks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Picture:
    """A picture to be drawn: panels side by side on one grid, that of the first panel's image.

    An image of another grid is placed by its header alone, as a viewer would. A picture whose images are not there is
    left out, and the report says so.

    Attributes:
        key: its file name.
        title: a heading.
        caption: what it shows, in a sentence or two.
        panels: at most five.
        focus: key of an image through whose largest value the planes run; empty: through the middle of the body.
        flicker: pictures of one case with the same text here are shown in turn, in the same place: before and after.
        rank: the picture with the highest rank of all stages stands on the report's first page; 0 never does.
        without: key of an image; what is outlined over that one is not shown here: before an alignment, not where the
            alignment puts it.
        axes: of a flat picture, across and up: it is drawn whole, with ticks in the place of the patient's directions
            and of a scale in mm.
    """

    key: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    focus: str = ""
    flicker: str = ""
    rank: int = 0
    without: str = ""
    axes: tuple[Axis, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of texts. `help` explains a column or a row in one line: its text -> the explanation."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    help: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a reader wants to know first, such as (`Class`, `kind_b, probability 0.87`, `calibrated by …`)."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One part of a report, with its heading."""

    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Sections:
    """All that a transform, or a stage, says of a case.

    Attributes:
        sections: in the order in which they are read.
        answers: for the report's first page; they also stand in `cases.csv` and in `tandem status`.
        displays: how the stage's images are shown.
        regions: its label images.
    """

    sections: tuple[Section, ...] = ()
    answers: tuple[Answer, ...] = ()
    displays: tuple[Display, ...] = ()
    regions: tuple[Regions, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.sections or self.answers or self.displays or self.regions)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sections:
        """Read back what `as_json` gave.

        Raises:
            ValueError: when the data are no sections.
        """
        return from_plain(cls, data)


def joined(parts: Iterable[Sections]) -> Sections:
    """What several have said, one after the other."""
    found = tuple(parts)
    names = [item.name for item in fields(Sections)]
    return Sections(**{name: tuple(item for part in found for item in getattr(part, name)) for name in names})
