"""From what the stages say of pictures to drawn ones: which image stands where, on which grid, in which window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor

from pipeline.geometry import apply
from pipeline.report.figures import Column, Labels, Swatch, Window, draw_columns, scrollable, thumbnail
from pipeline.report.images import CaseImages
from pipeline.report.slices import Frame, body_frame, robust_window, through_headers, triple, voxels
from pipeline.store.sections import Display, Panel, Picture, Regions, Sections
from pipeline.volumes import affine_of, require_same_grid
from pipeline.words import clean, in_words

#: Bright on grey, and apart for every kind of colour vision; those near to the amber of overlays and letters come last,
#: and from the ninth label on all come again.
LABEL_COLOURS = ("#00c8ff", "#ff5fd2", "#b8f04a", "#a98bff", "#ff5a4f", "#2fe0a5", "#ff8c1a", "#f5e960")


@dataclass(frozen=True)
class Drawn:
    """A drawn picture.

    Attributes:
        key: its file name.
        title: a heading.
        caption: what it shows, in a sentence or two.
        png: the file's bytes.
        rank: of the picture; the highest one stands on the first page.
        slices: to scroll through: where the slice lies, such as `z = -12.0 mm`, and its JPEG bytes.
        thumbnail: PNG bytes of its last column's axial slice, small.
    """

    key: str
    title: str
    caption: str
    png: bytes
    rank: int = 0
    slices: tuple[tuple[str, bytes], ...] = ()
    thumbnail: bytes = b""


def flicker_groups(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """Pictures that are shown in turn, together; every other one alone."""
    groups: dict[tuple[str, str], list[Picture]] = {}
    for picture in pictures:
        name = ("", picture.flicker) if picture.flicker else (picture.key, "")
        groups.setdefault(name, []).append(picture)
    return list(groups.values())


class Atlas:
    """Draws the pictures of a case.

    Args:
        images: of the case.
        said: by all of its stages.
    """

    def __init__(self, images: CaseImages, said: Sections) -> None:
        self.images = images
        self.displays = {display.key: display for display in said.displays}
        self.regions = _merged(regions for regions in said.regions if regions.key in images)
        labels = [(regions.key, value) for regions in said.regions for value in regions.names]
        self.colours = {label: _colour(number) for number, label in enumerate(dict.fromkeys(labels))}
        names = Counter(name for item in self.regions for name in set(item.names.values()))
        self.shared = {name for name, count in names.items() if count > 1}  # two label images say `lesion`

    def needed(self, picture: Picture) -> list[str]:
        """Keys of the images without which the picture cannot be drawn."""
        keys = [key for panel in picture.panels for key in (panel.image, panel.checkered, panel.overlaid)]
        return [key for key in (*keys, *(panel.coloured.key for panel in picture.panels if panel.coloured)) if key]

    def draw(self, pictures: Sequence[Picture]) -> tuple[Drawn, ...]:
        """Draw pictures that are shown in turn: through the same planes, in the windows of the last one.

        Raises:
            CaseError: E_GRID when a map is not on its image's grid.
        """
        last = pictures[-1]
        grid = self.images[last.panels[0].image]
        frame = self._frame(last, grid)
        return tuple(self._drawn(picture, last, grid, frame) for picture in pictures)

    def _drawn(self, picture: Picture, last: Picture, grid: MetaTensor, frame: Frame) -> Drawn:
        columns = [
            self._column(panel, model, grid, picture.without)
            for panel, model in zip(picture.panels, _models(picture, last), strict=True)
        ]
        title, caption = clean(picture.title), clean(picture.caption)
        drawn = Drawn(
            picture.key, title, caption, draw_columns(columns, grid, frame, title, picture.axes), picture.rank
        )
        if picture.rank <= 0:
            return drawn
        return replace(
            drawn, slices=scrollable(columns[:2], grid, frame), thumbnail=thumbnail(columns[-1], grid, frame)
        )

    def _frame(self, picture: Picture, grid: MetaTensor) -> Frame:
        """The body, with planes through its middle or through the largest value of the picture's focus."""
        if picture.axes:
            return Frame((0, 0, 0), (0, 0, 0), triple(np.asarray(grid.shape[1:])))
        others = [key for panel in picture.panels for key in (panel.image, panel.overlaid) if key]
        other = next((key for key in others if key != others[0]), None)
        moving = None if other is None else self._on_grid(other, 0, grid)
        modality = "CT" if self._display(others[0]).unit == "HU" else ""
        frame = body_frame(grid[:1], modality, moving)
        if picture.focus not in self.images:
            return frame
        focus = self.images[picture.focus]
        values = np.abs(np.asarray(focus)).max(axis=0)
        if values.shape == tuple(grid.shape[1:]):  # of one grid: not where the image is filled up
            seen = np.where(np.asarray(grid[0]) > float(grid[0].min()), values, 0)
            values = seen if seen.any() else values
        largest = np.argwhere(values == values.max())
        # one of the voxels that share the largest value, in the middle of them
        nearest = largest[np.abs(largest - np.median(largest, axis=0)).sum(axis=1).argmin()]
        index = apply(np.linalg.inv(affine_of(grid)) @ affine_of(focus), nearest).round()
        i, j, k = (int(at) for at in np.clip(index, frame.low, np.asarray(frame.high) - 1))
        return replace(frame, centre=(i, j, k))

    def _column(self, panel: Panel, model: Panel, grid: MetaTensor, without: str = "") -> Column:
        """One column; `model` is the panel at its place in the last picture of the group, whose windows it shares."""
        window = model.window or self._window(model.image, model.channel)
        column = Column(
            clean(panel.name),
            voxels(self._on_grid(panel.image, panel.channel, grid)),
            window,
            unit=self._display(model.image).unit,
            outlined=tuple(self._outlined(panel, grid, without)),
        )
        if top := panel.checkered or panel.overlaid:
            column = self._with_image(column, top, model.checkered or model.overlaid, grid)
        if over := panel.coloured:
            require_same_grid(grid, self.images[over.key], ("the image", in_words(over.key)))
            values = voxels(self.images[over.key], over.channel)
            if over.names:
                return replace(column, filled=Labels(values, self._swatches(over.key, over.names)))
            column = replace(column, top=values, coloured=over)
        return replace(column, checkered=bool(panel.checkered))

    def _with_image(self, column: Column, key: str, like: str, grid: MetaTensor) -> Column:
        """The column with another image over it, in the window of the image `like`."""
        above = voxels(self._on_grid(key, 0, grid))
        unit = self._display(like).unit or "arbitrary units"
        return replace(column, top=above, top_window=self._window(like, 0), top_unit=unit)

    def _outlined(self, panel: Panel, grid: MetaTensor, without: str = "") -> Iterator[Labels]:
        """The regions of every image that the panel shows, but those of the image `without`."""
        shown = {panel.image, panel.checkered, panel.overlaid}
        for regions in self.regions:
            if without not in regions.over and not shown.isdisjoint(regions.over):
                labels = voxels(self._on_grid(regions.key, 0, grid, labels=True))
                yield Labels(labels, self._swatches(regions.key, regions.names))

    def _swatches(self, key: str, names: Mapping[int, str]) -> dict[int, Swatch]:
        """Name and colour of each label; one that is outlined has the same colour everywhere.

        A name that several label images have says which of them is meant.
        """
        found = {}
        for number, (value, name) in enumerate(names.items()):
            shown = (f"{clean(name)} ({key})" if name in self.shared else clean(name)).replace("_", " ")
            found[value] = Swatch(shown, self.colours.get((key, value), _colour(number)))
        return found

    def _on_grid(self, key: str, channel: int, grid: MetaTensor, labels: bool = False) -> MetaTensor:
        return through_headers(self.images[key][channel : channel + 1], grid, labels)

    def _display(self, key: str) -> Display:
        return self.displays.get(key) or Display(key, in_words(key))

    def _window(self, key: str, channel: int) -> Window:
        return self._display(key).window or robust_window(voxels(self.images[key], channel))


def _merged(said: Iterable[Regions]) -> list[Regions]:
    """What several stages say of label images, each image once."""
    found: dict[str, Regions] = {}
    for item in said:
        known = found.get(item.key, item)
        over, names = dict.fromkeys((*known.over, *item.over)), {**known.names, **item.names}
        found[item.key] = Regions(item.key, tuple(over), names)
    return list(found.values())


def _models(picture: Picture, last: Picture) -> tuple[Panel, ...]:
    return last.panels if len(last.panels) == len(picture.panels) else picture.panels


def _colour(number: int) -> npt.NDArray:
    code = LABEL_COLOURS[number % len(LABEL_COLOURS)]
    return np.array([int(code[at : at + 2], 16) for at in (1, 3, 5)]) / 255
