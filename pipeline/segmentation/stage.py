"""The stage `segment`: images in; labels, how sure they are, volumes and what the report says of them out."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor
from monai.transforms import Transform
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from pipeline.errors import CaseError, UsageError
from pipeline.geometry import FloatArray, spacing_mm
from pipeline.label_measures import label_measures
from pipeline.segmentation.labels import require_channels
from pipeline.segmentation.model import Model
from pipeline.segmentation.predict import Calibrated, Predictor
from pipeline.store.sections import Answer, Coloured, Display, Panel, Picture, Regions, Section, Sections, Table
from pipeline.volumes import affine_of, require_same_grid, volume
from pipeline.words import clean, in_words, measure_text

LABEL, ENTROPY, PROBABILITY = "segment_label", "segment_entropy", "segment_probability"
#: Of the picture that shows best what the stage has found: below that of fusion.
RANK = 20
PANELS_A_PICTURE = 5
CAPTION = (
    "The labels of the segmentation network over the images that it saw, and where it was unsure: the entropy of its "
    "probabilities, from 0 (sure) to 1 (all labels are as likely). Planes through the labels."
)


class Segmentd(Transform):
    """Segment a case: `segment_label`, `segment_entropy`, on request `segment_probability`, and measures.

    All lie on the grid of the images, with exactly their affine. The network is shown its images in the orientation
    that it has learned, whatever the order and direction of their axes.

    Args:
        predictor: a model, and how images go through it.
        images: role of each channel -> the key of its image in the case, in the model's order.
        probabilities: whether `segment_probability` is written: a float32 volume for each label or region.
        calibration: of the logits; without it the probabilities are the network's own, and it says so.

    Raises:
        UsageError: E_CHANNELS when the roles are not the model's channels in its order.
    """

    def __init__(
        self,
        predictor: Predictor,
        images: Mapping[str, str],
        probabilities: bool = False,
        calibration: Calibrated | None = None,
    ) -> None:
        self.predictor, self.images, self.probabilities = predictor, dict(images), probabilities
        self.calibration = calibration
        try:
            require_channels(predictor.model.channels, list(images))
        except CaseError as error:  # not of one case: none can be segmented
            raise UsageError(error.code, error.message, error.remedy) from error

    @property
    def model(self) -> Model:
        """The predictor's."""
        return self.predictor.model

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        more = {PROBABILITY: "probability"} if self.probabilities else {}
        return {LABEL: "label", ENTROPY: "image", **more}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Segment.

        Raises:
            CaseError: E_CHANNELS for a channel that is missing, E_GRID for channels on two grids, E_BLANK for zeros.
        """
        volumes, flags = self._predicted(stacked(data, self.images))
        case = {**data, **volumes}
        measures = label_measures(LABEL, volumes[LABEL], self.model.label_names, "segmentation network")
        about = {
            "segment_channels": ", ".join(self.images),
            "segment_folds": ", ".join(self.model.networks),
            "segment_calibrated": self.calibration is not None,
            "segment_calibration": self._calibrated_by(),
        }
        case["measures"] = {**(case.get("measures") or {}), **about, **measures}
        case["flags"] = [*case.get("flags", ()), *flags]
        return case

    def _predicted(self, image: MetaTensor) -> tuple[dict[Hashable, Any], tuple[str, ...]]:
        """What the stage writes, by key, on the grid of the images (C, I, J, K), and flags."""
        affine, orientation = affine_of(image), self.model.orientation
        array, spacing = to_network(np.asarray(image.numpy(), dtype=np.float32), affine, orientation)
        found = self.predictor(array, spacing, self.probabilities, self.calibration)
        said: dict[Hashable, Any] = {LABEL: found.labels[None], ENTROPY: found.entropy[None]}
        if found.probabilities is not None:
            said[PROBABILITY] = found.probabilities
        volumes = {key: volume(from_network(values, affine, orientation), affine) for key, values in said.items()}
        return volumes, found.flags

    def sections(self, case: Mapping[Hashable, Any]) -> Sections:
        """A table of volumes, an answer for each label, pictures of labels and of where they are unsure."""
        names = {value: clean(name) for name, value in self.model.label_names.items()}
        keys = [key for key in self.images.values() if key in case]
        rows = tuple(self._rows(case["measures"]))
        sentences = (
            f"Images, in the order of the network's channels: {', '.join(map(in_words, keys))}.",
            f"Probabilities are {self._calibrated_by()}.",
        )
        tables = (Table("Labels of the segmentation network", ("Label", "Volume", "Long axis"), rows),)
        labels = Coloured(LABEL, limit=float(max(1, len(names))), unit="label", names=names)
        panels = [Panel(f"Labels over {in_words(key)}", key, coloured=labels) for key in keys[: PANELS_A_PICTURE - 1]]
        panels += [Panel("Unsure", keys[0], coloured=Coloured(ENTROPY, unit="entropy, 0 to 1"))] if keys else []
        pictures = (Picture("segment_labels", "Labels of the network", CAPTION, tuple(panels), LABEL, rank=RANK),)
        return Sections(
            (Section("Segmentation", sentences, tables, pictures if keys else ()),),
            tuple(Answer(f"Volume of {row[0]}", row[1], "by the segmentation network") for row in rows),
            (Display(ENTROPY, "Entropy of the segmentation", window=(0.0, 1.0)),),
            (Regions(LABEL, tuple(keys), names),),
        )

    def _calibrated_by(self) -> str:
        return "not calibrated" if self.calibration is None else f"calibrated by {self.calibration.in_words}"

    def _rows(self, measures: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
        for name in self.model.label_names:
            sizes = {part: measures[f"{LABEL}_{name}_{part}"] for part in ("volume_ml", "long_axis_mm")}
            yield clean(name), *("–" if size is None else measure_text(part, size) for part, size in sizes.items())


def images_of(channels: Mapping[str, str], aligned: Mapping[str, str], given: Sequence[str] = ()) -> dict[str, str]:
    """Role of each channel -> the key of its image.

    Args:
        channels: role -> name of the channel, as the data spec has them.
        aligned: the images of all of them, in the same order: key -> kind.
        given: roles in another order, as a setting has them; empty: those of the data spec.

    Raises:
        UsageError: E_CHANNELS for a role that the data spec does not name as a channel.
    """
    found = dict(zip(channels, aligned, strict=True))
    if strangers := [role for role in given if role not in found]:
        raise UsageError("E_CHANNELS", f"Expected channels out of {', '.join(found)}, got {', '.join(strangers)}.")
    return {role: found[role] for role in given or found}


def reads_of(images: Mapping[str, str]) -> dict[str, str]:
    """What the stage reads: key -> kind. All may be missing: the stage itself says which, and all that it expects."""
    return dict.fromkeys(images.values(), "image?")


def stacked(case: Mapping[Hashable, Any], images: Mapping[str, str]) -> MetaTensor:
    """The images of a case as one (C, I, J, K), in order.

    Raises:
        CaseError: E_CHANNELS, E_GRID.
    """
    there = [role for role, key in images.items() if key in case]
    if len(there) < len(images):
        what = f"Expected images for the channels {', '.join(images)}, got {', '.join(there) or 'none'}."
        raise CaseError("E_CHANNELS", what)
    (first, one), *others = [(role, case[key]) for role, key in images.items()]
    for role, other in others:
        require_same_grid(one, other, (first, role))
    array = _together([case[key].numpy() for key in images.values()])
    return volume(array.astype(np.float32, copy=False), affine_of(one))


def _together(channels: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Channels (1, …) as one array (C, …); a single one, which may be large, is not copied."""
    return channels[0] if len(channels) == 1 else np.concatenate(channels)


def to_network(
    array: npt.NDArray[Any], affine: FloatArray, orientation: str
) -> tuple[npt.NDArray[Any], tuple[float, ...]]:
    """An image (C, I, J, K) as (C, z, y, x), its axes as a network has learned them, and the spacing along these.

    Axes are turned and swapped, never resampled; `from_network` undoes it.
    """
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(orientation))
    turned = _together([apply_orientation(channel, turn)[None] for channel in array])
    order = np.argsort(turn[:, 0])  # axis of the turned image -> axis of the given one
    sides = spacing_mm(affine)[order]
    return turned.transpose(0, 3, 2, 1), tuple(float(side) for side in sides[::-1])


def from_network(array: npt.NDArray[Any], affine: FloatArray, orientation: str) -> npt.NDArray[Any]:
    """What a network said, (C, z, y, x), with the axes I, J, K of the image that it was of."""
    turn = ornt_transform(axcodes2ornt(orientation), io_orientation(affine))
    return np.ascontiguousarray(np.stack([apply_orientation(channel.transpose(2, 1, 0), turn) for channel in array]))
