"""Why the network says what it says of a case: maps on its grid, and what it would say without a modality."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.fusion.explanations import (
    ExplainedCase,
    check_level,
    gate_maps,
    gated_blocks,
    gradcam_maps,
    logits_without,
    occluded_logits,
    streams_of,
)
from pipeline.fusion.network import FusionNet
from pipeline.fusion.predict import Calibrated, class_chances, images_there, inputs_of, pictures_of, probabilities_of
from pipeline.fusion.resample import GRID_AFFINE, GRID_SHAPE, onto_grid
from pipeline.fusion.tiles import TiledInferer
from pipeline.store.sections import Coloured, Display, Panel, Section, Sections, Table
from pipeline.volumes import affine_of, volume
from pipeline.words import NOT_AVAILABLE, clean, in_words, value_text

#: Method -> key and kind of its map. Gates lie in [0, 1]; the other two have a unit of their own.
MAPS = {
    "gradcam": ("fused_gradcam", "image"),
    "gates": ("fused_gates", "probability"),
    "occlusion": ("fused_occlusion", "image"),
}
#: Method -> name and unit of its map, and what it shows.
WORDS = {
    "gradcam": (
        "Grad-CAM",
        "added log-odds",
        "Grad-CAM: what each place adds to the log-odds of the class, in the tiles that make it.",
    ),
    "gates": ("Gate", "share of the modality", "Gate: how much each modality counts at a place; the shares sum to 1."),
    "occlusion": (
        "Occlusion",
        "fall of the probability",
        "Occlusion: how far the probability falls when a block shows the mean of the body; blue: rises.",
    ),
}
#: With every map, because a picture persuades more than it proves.
CAVEAT = (
    "A map shows what the network's answer is sensitive to. It does not prove that this is why the case is of the "
    "class, nor that the rest of the image does not matter."
)
_COLUMNS = {
    "gradcam": ("Part of Grad-CAM",),
    "gates": ("Mean gate",),
    "occlusion": ("Probability without it", "Change", "Class without it"),
}
#: Of the places that add something; brighter ones share the brightest colour.
GRADCAM_PERCENTILE = 99.0


class Explaind(Transform):
    """Add maps that show what moves the network's answer, and measures.

    A map shows what the network is sensitive to. It proves neither that this is what makes the class true nor that
    other places do not matter.

    - `gradcam`: `fused_gradcam`, a channel for each encoder: what each place adds to the log-odds of the class
      (`gradcam_maps`); measures `fused_gradcam_channels` and `fused_gradcam_share_<stream>`.
    - `gates`: `fused_gates`, a channel for each modality: how much it counts at each place (`gate_maps`); measures
      `fused_gates_channels` and `fused_gate_share_<modality>`, its mean over the body.
    - `occlusion`: `fused_occlusion`: by how much the calibrated probability of the class falls when a block around the
      voxel shows the mean of the body (`occluded_logits`); measures of each modality that is there,
      `fused_class_without_<modality>`, `fused_class_probability_without_<modality>` (of the class that all of them
      say) and `fused_class_probability_change_without_<modality>`.

    The class is the most probable one: `fused_explained_class`; `fused_explained_tiles` of all tiles make it.

    Args:
        methods: some of `gradcam`, `gates`, `occlusion`; nothing is done for none.
        network: on its device.
        inferer: as in `Predictd`.
        class_names: of the network's classes, in order.
        calibration: of the class logits; the network's own probabilities when None.
        gradcam_level: of the encoders: 0 the finest, -1 the coarsest.
        occlusion_parts: blocks along each side of a tile.
        images: keys of the modalities' images in the run, in their order; the modalities' own names when empty.

    Raises:
        UsageError: E_EXPLAIN for a method that does not exist or that the network has nothing for.
    """

    def __init__(
        self,
        methods: Sequence[str],
        network: FusionNet,
        inferer: TiledInferer,
        class_names: Sequence[str],
        calibration: Calibrated | None = None,
        gradcam_level: int = 0,
        occlusion_parts: int = 4,
        images: Sequence[str] = (),
    ) -> None:
        _check(methods, network, gradcam_level, occlusion_parts)
        self.methods = tuple(name for name in MAPS if name in methods)
        self.network, self.inferer, self.class_names = network, inferer, tuple(class_names)
        self.calibration, self.gradcam_level, self.occlusion_parts = calibration, gradcam_level, occlusion_parts
        self.images = tuple(images)

    def writes(self) -> dict[str, str]:
        """What the stage writes more: key -> kind."""
        return dict(MAPS[method] for method in self.methods)

    def sections(self, case: Mapping[Hashable, Any]) -> Sections:
        """What each modality has to do with the class, and the maps over the images."""
        if not self.methods:
            return Sections()
        said = clean(case["measures"].get("fused_explained_class", ""))
        title = f"Why {said}" if said else "What the network looks at"
        there = images_there(self.network.modalities, self.images, case)
        first = next(iter(there.values()))
        panels = [
            Panel(f"{WORDS[method][0]} {in_words(name)}".strip(), there.get(name, first), coloured=coloured)
            for method in self.methods
            for name, coloured in self._coloured(method, case).items()
        ]
        caption = " ".join(WORDS[method][2] for method in self.methods)
        focus = next((MAPS[name][0] for name in ("occlusion", "gradcam") if name in self.methods), "")
        pictures = pictures_of("why", title, f"{caption} {CAVEAT}", panels, focus)
        table = findings_table("Modality", self.methods, self._streams(), case["measures"])
        displays = tuple(Display(MAPS[method][0], *WORDS[method][:2]) for method in self.methods)
        return Sections((Section(title, (CAVEAT,), (table,), pictures),), (), displays)

    def _streams(self) -> list[str]:
        """Whatever one of the methods speaks of: streams, modalities."""
        streams = streams_of(self.network) if "gradcam" in self.methods else ()
        modalities = self.network.modalities if {"gates", "occlusion"} & {*self.methods} else ()
        return list(dict.fromkeys([*streams, *modalities]))

    def _coloured(self, method: str, case: Mapping[Hashable, Any]) -> dict[str, Coloured]:
        """The channels of a map by what they are of; occlusion is of all modalities together."""
        key, (_, unit, _) = MAPS[method][0], WORDS[method]
        of = {"gradcam": streams_of(self.network), "gates": self.network.modalities, "occlusion": ("",)}[method]
        values = torch.as_tensor(case[key]).as_subclass(Tensor)
        limit = brightest(method, values)
        signed, beyond = method == "occlusion", float(values.max()) > limit
        return {name: Coloured(key, at, limit, unit, signed, beyond) for at, name in enumerate(of)}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Explain a case that has `image`, `available`, and perhaps `body` and `table`."""
        case = dict(data)
        if not self.methods:
            return case
        explained = self._explained(case)
        chosen = int(class_chances(explained.logits(), self.calibration).argmax()) if self.network.classes else 0
        measures: dict[str, Any] = dict(case.get("measures") or {})
        if self.network.classes:
            measures["fused_explained_class"] = self.class_names[chosen]
            measures["fused_explained_tiles"] = f"{len(explained.counted())} of {len(explained.found.boxes)}"
        makers = {"gradcam": self._gradcam, "gates": self._gates, "occlusion": self._occlusion}
        for method in self.methods:
            found, more = makers[method](explained, chosen)
            measures |= more
            # as the probabilities go: from the network's voxel size back onto the grid of the images
            image = volume(found.float().cpu(), affine_of(case["image"]))
            if GRID_SHAPE in case:
                image = onto_grid(image, case[GRID_AFFINE].numpy(), case[GRID_SHAPE].tolist())
            case[MAPS[method][0]] = image
        case["measures"] = measures
        return case

    def _explained(self, case: Mapping[Hashable, Any]) -> ExplainedCase:
        batch, there, table = inputs_of(case, self.network)
        image, available = batch[0], there[0]
        body = case["body"].as_tensor()[0].to(image.device) > 0 if "body" in case else torch.ones_like(image[0]) > 0
        if not bool(body.any()):
            body = torch.ones_like(body)
        found = self.inferer.tiles(image, self.network, available, body, table)
        return ExplainedCase(self.network, self.inferer, image, available, body, found, table)

    def _gradcam(self, explained: ExplainedCase, chosen: int) -> tuple[Tensor, dict[str, Any]]:
        maps, streams = gradcam_maps(explained, chosen, self.gradcam_level), streams_of(explained.network)
        sums = maps.sum((1, 2, 3))
        shares = (sums / sums.sum().clamp(min=torch.finfo(sums.dtype).tiny)).tolist()
        named = {f"fused_gradcam_share_{name}": round(share, 4) for name, share in zip(streams, shares, strict=True)}
        return maps, {"fused_gradcam_channels": ", ".join(streams), **named}

    def _gates(self, explained: ExplainedCase, chosen: int) -> tuple[Tensor, dict[str, Any]]:
        maps, names = gate_maps(explained), explained.network.modalities
        shares = maps[:, explained.inside].mean(1).tolist()
        named = {f"fused_gate_share_{name}": round(share, 4) for name, share in zip(names, shares, strict=True)}
        return maps.clamp(0, 1), {"fused_gates_channels": ", ".join(names), **named}

    def _occlusion(self, explained: ExplainedCase, chosen: int) -> tuple[Tensor, dict[str, Any]]:
        whole = float(class_chances(explained.logits(), self.calibration)[chosen])
        occluded = occluded_logits(explained, self.occlusion_parts).cpu()
        fall = whole - probabilities_of(occluded, self.calibration)[chosen : chosen + 1]
        without = {name: class_chances(logits, self.calibration) for name, logits in logits_without(explained).items()}
        return fall, measures_without(without, self.class_names, chosen, whole)


def measures_without(
    without: Mapping[str, Tensor], class_names: Sequence[str], chosen: int, whole: float
) -> dict[str, Any]:
    """What a network would say without each modality or stream.

    Args:
        without: name -> probabilities (classes,).
        class_names: in order.
        chosen: the class that is explained.
        whole: its probability of the whole case.
    """
    measures: dict[str, Any] = {}
    for name, chances in without.items():
        measures[f"fused_class_without_{name}"] = class_names[int(chances.argmax())]
        measures[f"fused_class_probability_without_{name}"] = round(float(chances[chosen]), 6)
        measures[f"fused_class_probability_change_without_{name}"] = round(float(chances[chosen]) - whole, 6)
    return measures


def brightest(method: str, values: Tensor) -> float:
    """The value of the brightest colour; of Grad-CAM below the few voxels that a largest value alone may rest on."""
    above = values.abs()[values != 0].numpy()
    if method == "gates" or not above.size:
        return 1.0
    return float(np.percentile(above, GRADCAM_PERCENTILE)) if method == "gradcam" else float(above.max())


def findings_table(first: str, methods: Sequence[str], names: Iterable[str], measures: Mapping[str, Any]) -> Table:
    """What the methods have found, a row each; the first column says of what."""
    columns = (first, *(column for method in methods for column in _COLUMNS[method]))
    return Table("", columns, tuple(_row(methods, name, measures) for name in names))


def _row(methods: Sequence[str], name: str, measures: Mapping[str, Any]) -> tuple[str, ...]:
    change = measures.get(f"fused_class_probability_change_without_{name}")
    cells = {
        "gradcam": (value_text(measures.get(f"fused_gradcam_share_{name}")),),
        "gates": (value_text(measures.get(f"fused_gate_share_{name}")),),
        "occlusion": (
            value_text(measures.get(f"fused_class_probability_without_{name}")),
            NOT_AVAILABLE if change is None else f"{change:+.3f}",
            value_text(measures.get(f"fused_class_without_{name}")),
        ),
    }
    return (in_words(name), *(cell for method in methods for cell in cells[method]))


def check_methods(methods: Sequence[str]) -> None:
    """Raise E_EXPLAIN for a method that does not exist, or a text in the place of a list."""
    strangers = [methods] if isinstance(methods, str) else [name for name in methods if name not in MAPS]
    if strangers:
        raise UsageError("E_EXPLAIN", f"Expected some of {', '.join(MAPS)} in explain, got {strangers[0]}.")


def _check(methods: Sequence[str], network: FusionNet, level: int, parts: int) -> None:
    check_methods(methods)
    problem = ""
    if "gates" in methods and not gated_blocks(network):
        problem = (
            f"a network with gates (intermediate fusion with block gated), got one of {network.mode} fusion without"
        )
    elif {"gradcam", "occlusion"} & set(methods) and not network.classes:
        problem = "a network with classes, of which gradcam and occlusion speak, got one without"
    elif parts < 1:
        problem = f"1 or more blocks along a tile in occlusion_parts, got {parts}"
    if problem:
        raise UsageError("E_EXPLAIN", f"Expected {problem}.")
    if "gradcam" in methods:
        check_level(len(network.encoders[0].layers), level)  # type: ignore[arg-type]
