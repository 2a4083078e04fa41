"""The stage `fuse`: aligned images in; calibrated probabilities of labels and of the case's class out."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from monai.transforms import Transform
from torch import Tensor

from pipeline.errors import CaseError, UsageError
from pipeline.fusion.checkpoint_file import Network
from pipeline.fusion.resample import GRID_AFFINE, GRID_SHAPE, onto_grid
from pipeline.fusion.tiles import TiledInferer, not_looked_at
from pipeline.fusion.whole import WholeInferer
from pipeline.label_measures import label_measures
from pipeline.store.sections import Answer, Coloured, Display, Panel, Picture, Regions, Section, Sections, Table
from pipeline.volumes import affine_of, volume
from pipeline.words import clean, in_words, measure_text, number_text

Data = Mapping[Hashable, Any]
Row = tuple[str, str, str]
PANELS_A_PICTURE = 5
#: Of the picture that shows best what the network says; higher than that of any stage before.
RANK = 30
CAPTION = (
    "The label that is most probable at each voxel, over the images that the network saw; planes through the labels. "
    "Whether the probabilities are calibrated stands in the table."
)
CHANCES_CAPTION = "The probability of each label. Whether it is calibrated stands in the table."


class Calibrated(Protocol):
    """What turns logits into calibrated probabilities.

    Attributes:
        name: of the method.
        in_words: the method, and the data, cases and date on which it was fitted.
        record: how it came to be.
    """

    name: str
    in_words: str
    record: Any

    def apply(self, logits: Any) -> Any:
        """Probabilities of rows (N, C) or of a volume (C, I, J, K)."""

    def sets(self, logits: Any) -> Any:
        """Which classes are not excluded, bool (N, C) of rows; None where no sets were fitted."""


def roles_of(modalities: Sequence[str], known: Sequence[str], roles: Mapping[str, str]) -> list[str]:
    """Which role of the run shows each modality of the network.

    Args:
        modalities: of the network.
        known: roles of the data spec.
        roles: modality -> role, where they have other names.

    Returns:
        A role for each modality, in order; the modality's own name where the run has none: it is then missing.

    Raises:
        UsageError: E_MODALITY when `roles` names a modality that was never trained or a role that the run does not
            know, when one role would be two modalities, or the run has none of them.
    """
    strangers = [name for name in roles if name not in modalities]
    trained = ", ".join(modalities)
    if strangers:
        raise UsageError("E_MODALITY", f"Expected modalities of the network ({trained}), got {strangers[0]}.")
    unknown = [role for role in roles.values() if role not in known]
    if unknown:
        raise UsageError("E_MODALITY", f"Expected roles of the run ({', '.join(known)}), got {unknown[0]}.")
    found = [roles.get(name, name) for name in modalities]
    twice = [role for role in found if found.count(role) > 1]
    if twice:
        raise UsageError("E_MODALITY", f"Expected a role of its own for each of {trained}, got {twice[0]} twice.")
    if not set(found) & set(known):
        raise UsageError("E_MODALITY", f"Expected a role for one of {trained}, got the roles {', '.join(known)}.")
    return found


class NameModalitiesd(Transform):
    """Give images (`keys` of the run) the `names` of the network's modalities, in the same order."""

    def __init__(self, keys: Sequence[str], names: Sequence[str]) -> None:
        self.names = dict(zip(keys, names, strict=True))

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Rename."""
        others = {key: value for key, value in data.items() if key not in self.names}
        return {**others, **{name: data[key] for key, name in self.names.items() if key in data}}


class Predictd(Transform):
    """Add `pred`, the network's logits (labels + classes, I, J, K) of the whole image.

    Raises:
        UsageError: E_CONFIG when the inferer's engine cannot run the network on its device.
        CaseError: E_MISSING_ROLE when the only modality that a network of `single` looks at is missing.
    """

    def __init__(self, network: Network, inferer: TiledInferer | WholeInferer) -> None:
        self.network, self.inferer = network, inferer
        inferer.check(network)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Predict."""
        only = self.network.modalities[self.network.only]
        if self.network.mode == "single" and not bool(data["available"][self.network.only]):
            raise CaseError("E_MISSING_ROLE", f"Expected {only}, which alone the network looks at, got none.")
        return {**data, "pred": logits_of(data, self.network, self.inferer)}


def logits_of(case: Data, network: Network, inferer: Any) -> Tensor:
    """What a network says of a whole case, prepared as the network's preparation says.

    Args:
        case: with `image`, `available`, and where there are any `body` and `table`.
        network: which.
        inferer: of the network (`pipeline.fusion.whole.inferer_for`).

    Returns:
        Logits (labels + classes, I, J, K), on the processor; of streams (classes, 1, 1, 1).
    """
    image, available, table = inputs_of(case, network)
    body = case["body"].as_tensor()[None] if "body" in case else None
    found: Tensor = inferer(image, network, available, body, table)[0]
    return found.cpu()


def inputs_of(case: Data, network: Network) -> tuple[Tensor, Tensor, Tensor | None]:
    """A case's `image`, `available`, and `table` where there is one, as a batch of one on the network's device."""
    device = next(network.parameters()).device
    image, available = (
        torch.as_tensor(case[key]).as_subclass(Tensor)[None].to(device) for key in ("image", "available")
    )
    return image, available, torch.as_tensor(case["table"])[None].to(device) if "table" in case else None


class FusedOutputsd(Transform):
    """Make of `pred` what the stage writes: `fused_probability`, `fused_label` and `fused_class`, and measures.

    They lie on the grid that the images came on: probabilities are calibrated where the network saw the images, brought
    back linearly, and only then made labels.

    Args:
        modalities: of the network.
        labels: how many voxel labels; 0 for none.
        classes: how many classes; 0 for none.
        label_names: of the labels above 0; `label_1` … when empty.
        class_names: of the classes; `class_0` … when empty.
        voxel_calibration: of the voxel logits; without it the probabilities are the network's own, and it says so.
        class_calibration: of the class logits, likewise.
        pooling: how the class of a case was made, in words.
        sees: the modalities that the network looks at; all when empty.
        images: keys of the modalities' images in the run, in their order; the modalities' own names when empty.
        caveats: further sentences about the network (`pipeline.fusion.whole.caveats`).

    Raises:
        UsageError: E_NAMES when there are other names than labels or classes.
    """

    def __init__(  # noqa: PLR0913 - each is one line of a bundle's postprocessing
        self,
        modalities: Sequence[str],
        labels: int,
        classes: int,
        label_names: Sequence[str] = (),
        class_names: Sequence[str] = (),
        voxel_calibration: Calibrated | None = None,
        class_calibration: Calibrated | None = None,
        pooling: str = "",
        sees: Sequence[str] = (),
        images: Sequence[str] = (),
        caveats: Sequence[str] = (),
    ) -> None:
        self.caveats = tuple(caveats)
        self.modalities, self.labels, self.classes = tuple(modalities), labels, classes
        self.sees, self.images = tuple(sees or modalities), tuple(images)
        self.label_names = _names(label_names, [f"label_{value}" for value in range(1, labels)])
        self.class_names = _names(class_names, [f"class_{number}" for number in range(classes)])
        self.voxel_calibration, self.class_calibration, self.pooling = voxel_calibration, class_calibration, pooling

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        voxels = {"fused_probability": "probability", "fused_label": "label"} if self.labels else {}
        return {**voxels, **({"fused_class": "measure"} if self.classes else {})}

    def sections(self, case: Data) -> Sections:
        """Probabilities and volumes, each with its calibration, and the labels over the images."""
        measures, seen = case["measures"], self._seen(case)
        said = clean(measures.get("fused_class", ""))
        sentence = f"The network saw {', '.join(map(in_words, seen))}."
        rows = (*self._class_rows(measures), *self._label_rows(measures))
        pictures = self._pictures(list(seen.values())) if self.labels and seen else ()
        title = f"Fusion: {said}" if said else "Fusion"
        sentences = (sentence, *self.caveats, *self._promise(), *self._doubts())
        section = Section(title, sentences, (Table("", ("What", "Value", "Calibration"), rows),), pictures)
        answers = [Answer(*row) for row in self._label_rows(measures)]
        if said:
            sure = "calibrated" if measures["fused_class_calibrated"] else "not calibrated"
            sure += ", with a caveat" if self._doubts() else ""
            missing = [in_words(name) for name in self.sees if name not in seen]
            without = f", without {', '.join(missing)}" if missing else ""
            value = f"{said}, probability {measures['fused_class_probability']:.2f}, {sure}{without}"
            found = Answer("Class", value, "; ".join((measures["fused_class_calibration"], *self._doubts())))
            answers = [found, *self._set_answer(measures), *answers]
        if not self.labels:
            return Sections((section,), tuple(answers))
        displays = (Display("fused_probability", "Probability of the labels", "", (0.0, 1.0)),)
        regions = (Regions("fused_label", tuple(seen.values()), self._values()),)
        return Sections((section,), tuple(answers), displays, regions)

    def _doubts(self) -> tuple[str, ...]:
        """What a reader has to know of the calibration of the classes, such as that it was made of few cases."""
        return self.class_calibration.record.notes if self.classes and self.class_calibration else ()

    def _promise(self) -> tuple[str, ...]:
        """What the set of classes promises, where there is one."""
        promise = self.class_calibration.record.promise if self.classes and self.class_calibration else ""
        return (f"Classes not excluded: {promise}",) if promise else ()

    def _set_answer(self, measures: Mapping[str, Any]) -> Iterator[Answer]:
        if self.class_calibration is not None and "fused_class_set" in measures:
            sets = self.class_calibration.record.sets
            said = clean(measures["fused_class_set"]) or "none: the case is unlike the cases of the calibration"
            yield Answer("Classes not excluded", said, sets.in_short())

    def _values(self) -> dict[int, str]:
        return {value: clean(name) for value, name in enumerate(self.label_names, 1)}

    def _class_rows(self, measures: Mapping[str, Any]) -> Iterator[Row]:
        for name in self.class_names if self.classes else ():
            chance = number_text(measures[f"fused_class_{name}_probability"])
            yield f"Probability of {clean(name)}", chance, measures["fused_class_calibration"]

    def _label_rows(self, measures: Mapping[str, Any]) -> Iterator[Row]:
        for name in self.label_names if self.labels else ():
            size = measure_text("volume_ml", measures[f"fused_label_{name}_volume_ml"])
            yield (
                f"Volume of {clean(name)}",
                size,
                f"by the fusion network; voxel probabilities {measures['fused_label_calibration']}",
            )

    def _pictures(self, images: Sequence[str]) -> tuple[Picture, ...]:
        """The labels over every image, and the probability of each label over the first one."""
        labels = Coloured("fused_label", limit=float(max(1, self.labels - 1)), unit="label", names=self._values())
        maps = [Panel(f"Labels over {in_words(image)}", image, coloured=labels) for image in images]
        chances = [
            Panel(f"P({name})", images[0], coloured=Coloured("fused_probability", value, unit="probability"))
            for value, name in self._values().items()
        ]
        focus = "fused_label"
        return (
            *pictures_of("fused_labels", "Labels of the fusion network", CAPTION, maps, focus, RANK),
            *pictures_of("fused_probabilities", "Probabilities of the labels", CHANCES_CAPTION, chances, focus),
        )

    def _seen(self, case: Data) -> dict[str, str]:
        there = images_there(self.modalities, self.images, case)
        return {name: image for name, image in there.items() if name in self.sees}

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Make the outputs."""
        case, pred = dict(data), torch.as_tensor(data["pred"]).as_subclass(Tensor)
        seen = ", ".join(self._seen(data))
        measures: dict[str, Any] = {**(case.get("measures") or {}), "fused_modalities": seen}
        if self.labels:
            measures |= self._voxels(case, pred)
        if self.classes:
            logits = pred[self.labels :, 0, 0, 0]
            measures |= self._class(case, logits)
        case["measures"] = measures
        return case

    def _voxels(self, case: dict[Hashable, Any], pred: Tensor) -> dict[str, Any]:
        logits = pred[: self.labels]
        inside = probabilities_of(logits, self.voxel_calibration)
        # a calibration knows what the network says; beyond the body it has said nothing
        sure = torch.eye(self.labels)[0][:, None, None, None]
        found = volume(torch.where(not_looked_at(logits), sure, inside), affine_of(case["image"]))
        affine, shape = (case[key].numpy() for key in (GRID_AFFINE, GRID_SHAPE))
        chances = onto_grid(found, affine, shape)
        case["fused_probability"] = chances
        case["fused_label"] = volume(chances.as_tensor().argmax(0, keepdim=True).to(torch.uint8), affine)
        values = {name: number for number, name in enumerate(self.label_names, 1)}
        measured = label_measures("fused_label", case["fused_label"], values, "fusion network")
        return {
            **measured,
            "fused_label_calibrated": self.voxel_calibration is not None,
            "fused_label_calibration": calibration_in_words(self.voxel_calibration),
        }

    def _class(self, case: dict[Hashable, Any], logits: Tensor) -> dict[str, Any]:
        chances = class_chances(logits, self.class_calibration).tolist()
        named = {name: round(chance, 6) for name, chance in zip(self.class_names, chances, strict=True)}
        likely = self.class_names[chances.index(max(chances))]
        calibrated = self.class_calibration is not None
        kept = self.class_calibration.sets(logits[None]) if self.class_calibration is not None else None
        names = () if kept is None else [name for name, is_in in zip(self.class_names, kept[0], strict=True) if is_in]
        case["fused_class"] = {
            "class": likely,
            "probabilities": named,
            "logits": [round(number, 6) for number in logits.tolist()],
            "calibrated": calibrated,
            "calibration": calibration_in_words(self.class_calibration),
            "pooling": self.pooling,
            **({} if kept is None else {"not_excluded": names}),
        }
        return {
            "fused_class": likely,
            "fused_class_probability": max(named.values()),
            "fused_class_calibrated": calibrated,
            "fused_class_calibration": calibration_in_words(self.class_calibration),
            **{f"fused_class_{name}_probability": chance for name, chance in named.items()},
            **({} if kept is None else {"fused_class_set": ", ".join(names)}),
        }


def images_there(modalities: Sequence[str], images: Sequence[str], case: Data) -> dict[str, str]:
    """Modality -> key of its image, for those that a case has; the key is the modality's name without `images`."""
    keys = zip(modalities, images or modalities, case["available"].tolist(), strict=True)
    return {name: key for name, key, there in keys if there}


def pictures_of(
    key: str, title: str, caption: str, panels: Sequence[Panel], focus: str, rank: int = 0
) -> tuple[Picture, ...]:
    """Panels on as many pictures as they need; the first one has the rank."""
    groups = [tuple(panels[at : at + PANELS_A_PICTURE]) for at in range(0, len(panels), PANELS_A_PICTURE)]
    return tuple(
        Picture(
            f"{key}_{number + 1}",
            f"{title}, continued" if number else title,
            caption,
            group,
            focus,
            rank=0 if number else rank,
        )
        for number, group in enumerate(groups)
    )


def prepare_whole(
    batch: Mapping[str, Any], device: str | torch.device, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, None, tuple[Tensor | None, ...], dict[str, Any]]:
    """What MONAI's evaluator gives to the inferer: the image, what is available, the body, and the table's numbers."""
    image, available = (batch[key].to(device, non_blocking=non_blocking) for key in ("image", "available"))
    table = batch["table"].to(device, non_blocking=non_blocking) if "table" in batch else None
    return image, None, (available, batch.get("body"), table), {}


def calibration_in_words(calibration: Calibrated | None) -> str:
    """What stands beside a probability: what its calibration was fitted on, or that there is none."""
    return "not calibrated" if calibration is None else f"calibrated by {calibration.in_words}"


def probabilities_of(logits: Tensor, calibration: Calibrated | None, axis: int = 0) -> Tensor:
    """Calibrated probabilities; without a calibration the network's own, of which it is then said."""
    if calibration is None:
        return torch.softmax(logits.double(), axis).float()
    return torch.as_tensor(calibration.apply(logits)).float().clamp(0, 1)


def class_chances(logits: Tensor, calibration: Calibrated | None) -> Tensor:
    """`probabilities_of` the class logits (classes,) of one case, on the processor."""
    return probabilities_of(logits.cpu()[None], calibration, axis=1)[0]


def _names(given: Sequence[str], otherwise: Sequence[str]) -> tuple[str, ...]:
    if given and (len(given) != len(otherwise) or len(set(given)) < len(given)):
        raise UsageError("E_NAMES", f"Expected {len(otherwise)} different names, got {', '.join(given)}.")
    return tuple(given or otherwise)
