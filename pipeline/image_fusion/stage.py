"""The stage `fuse_image`: CT and aligned MR in; one picture of both, with its measures, and what a report says, out."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.transforms import Transform

from pipeline.cases import Verdict
from pipeline.image_fusion.baselines import require_methods
from pipeline.image_fusion.candidates import CANDIDATES
from pipeline.image_fusion.metrics import MEASURES
from pipeline.image_fusion.pair import BESIDE, IN_WORDS, SHOWN, Fused, Recipe, fuse_volumes, measured
from pipeline.spec.spec import Spec
from pipeline.store.sections import Coloured, Display, Panel, Picture, Section, Sections, Table
from pipeline.volumes import affine_of, require_same_grid, volume
from pipeline.words import NOT_AVAILABLE, number_text

FUSED, WEIGHTS, ATTENTION = "fused_image", "fused_weights", "fused_attention"
TITLE = "CT and MR in one picture"
#: Of the report's pictures, as `pipeline.fusion.predict.RANK`: below what was warned of, and below labels.
RANK = 15
CAPTION = "CT as it was fused, in its first window; MR; and both in one picture, from 0 (black) to 1 (white)."
WEIGHTS_CAPTION = "How much each candidate counts at each voxel, over the picture; their sum is 1."
ATTENTION_CAPTION = "Where the network looks, from the finest scale to the coarsest."
OF_DOUBTFUL = "The picture is of an alignment to look at:"
FIGURES = (
    "Figures on the scale from 0 to 255, beside those of pictures that take no skill: each of these wins at some. They "
    "say nothing of the alignment: of a shifted pair they are as good."
)

Data = Mapping[Hashable, Any]


class FuseImaged(Transform):
    """Fuse a case's CT and MR: `fused_image` (0 to 1, float32); of a network `fused_weights` and `fused_attention`.

    A case whose MR (or CT) is not there, or whose alignment has failed, is not fused: it goes on with the flag
    `N_NOT_FUSED` and the verdict `warn`. The verdict `warn` of the alignment is passed on.

    Args:
        spec: the data spec, with a section `fuse_image`.
        images: keys of CT and of MR on one grid, in this order.
        how: the recipe.
        beside: methods whose measures stand beside: names of `BASELINES`.

    Raises:
        UsageError: E_OPTION for a method that there is not.
    """

    def __init__(self, spec: Spec, images: Sequence[str], how: Recipe, beside: Sequence[str] = BESIDE) -> None:
        require_methods(beside)
        self.ct, self.mr = images
        self.how, self.beside = how, tuple(beside)
        self.names = {key: spec.displays[role].name for key, role in zip(images, roles_of(spec), strict=True)}
        self.qualities = list(quality_kinds(spec))

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        maps = {WEIGHTS: "probability?", ATTENTION: "probability?"} if self.how.trained else {}
        return {FUSED: "image?", **maps}

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Fuse.

        Args:
            data: images (1, I, J, K) under both keys, and under `<role>_quality` the path of an alignment's quality.

        Raises:
            CaseError: E_GRID for images of two grids; E_MODALITY, E_BLANK, E_NIFTI.
        """
        case = dict(data)
        flags, found = list(case.get("flags", ())), [self._quality(case, key) for key in self.qualities]
        if why := self._missing(case, found):
            verdict = Verdict("warn", (f"Not fused: {why}",))
            return {**case, "flags": [*flags, f"N_NOT_FUSED: {why}"], "verdict": verdict}
        ct, mr = case[self.ct], case[self.mr]
        require_same_grid(ct, mr, (self.names[self.ct], self.names[self.mr]))
        affine = affine_of(ct)
        made = fuse_volumes(ct.numpy()[0], mr.numpy()[0], affine, self.how)
        case[FUSED] = volume(made.image, affine)
        if made.weights is not None and made.attention is not None:
            case |= {WEIGHTS: volume(made.weights, affine), ATTENTION: volume(made.attention, affine)}
        case["measures"] = {**(case.get("measures") or {}), **self._measures(made)}
        case["flags"] = [*flags, *made.notes]
        reasons = tuple(f"{OF_DOUBTFUL} {item['reason']}" for item in found if item.get("verdict") == "warn")
        if reasons:
            case["verdict"] = Verdict("warn", reasons)
        return case

    def _quality(self, case: Data, key: str) -> dict[str, Any]:
        """What registration has said of an alignment; nothing where there was none."""
        found: dict[str, Any] = json.loads(Path(case[key]).read_text(encoding="utf-8")) if key in case else {}
        return found

    def _missing(self, case: Data, qualities: Sequence[Mapping[str, Any]]) -> str:
        """Why a case cannot be fused; empty where it can."""
        failed = [quality["reason"] for quality in qualities if quality.get("verdict") == "fail"]
        if failed:
            return f"the alignment has failed: {failed[0]}"
        missing = [name for key, name in self.names.items() if key not in case]
        return f"there is no {' and no '.join(missing)}" if missing else ""

    def _measures(self, made: Fused) -> dict[str, Any]:
        own, *others = measured(made, self.how, self.beside).items()
        about = {"fused_method": self.how.method, "fused_weights_sha256": self.how.sha256 or None}
        numbers = {f"fused_{name}": value for name, value in own[1].items()}
        beside = {f"{method}_{name}": values[name] for method, values in others for name in SHOWN}
        return {**about, **numbers, **beside}

    def sections(self, case: Data) -> Sections:
        """The picture beside its sources, its measures beside those of others, and where it comes from."""
        if FUSED not in case:
            flag = next(flag for flag in case["flags"] if flag.startswith("N_NOT_FUSED"))
            return Sections((Section(TITLE, (f"Not fused: {flag.partition(': ')[2]}",)),))
        section = Section(
            TITLE, (*self.how.sentences, FIGURES), (self._table(case["measures"]),), tuple(self._pictures())
        )
        return Sections((section,), displays=(Display(FUSED, TITLE, "", (0.0, 1.0)),))

    def _table(self, measures: Mapping[str, Any]) -> Table:
        others = [name for name in self.beside if name != self.how.method]
        columns = ("Measure", "This picture", *map(_titled, others), "Meaning")
        rows = tuple(
            (name, *(_shown(measures[f"{of}_{name}"]) for of in ("fused", *others)), MEASURES[name]) for name in SHOWN
        )
        return Table("", columns, rows)

    def _pictures(self) -> Iterator[Picture]:
        sources = (Panel(self.names[self.ct], self.ct, window=self.how.ends), Panel(self.names[self.mr], self.mr))
        yield Picture(FUSED, TITLE, CAPTION, (*sources, Panel("Both", FUSED)), rank=RANK)
        if self.how.trained is None:
            return
        weights = tuple(
            Panel(_titled(name), FUSED, coloured=Coloured(WEIGHTS, number, unit="weight"))
            for number, name in enumerate(CANDIDATES)
        )
        yield Picture(WEIGHTS, "What the picture is made of", WEIGHTS_CAPTION, weights)
        looks = tuple(
            Panel(f"Scale {level + 1}", FUSED, coloured=Coloured(ATTENTION, level, unit="attention"))
            for level in range(self.how.trained.network.outputs - len(CANDIDATES) - 2)
        )
        yield Picture(ATTENTION, "Where the network looks", ATTENTION_CAPTION, looks)


def roles_of(spec: Spec) -> list[str]:
    """The roles that are CT and MR, in this order."""
    return [spec.image_fusion.ct, spec.image_fusion.mr]


def quality_kinds(spec: Spec) -> dict[str, str]:
    """What the stage reads of alignments: key -> kind."""
    return {f"{role}_quality": "measure?" for role in roles_of(spec) if role in spec.moving}


def _titled(method: str) -> str:
    words = IN_WORDS[method]
    return words[:1].upper() + words[1:]


def _shown(value: float | None) -> str:
    return NOT_AVAILABLE if value is None else number_text(float(f"{value:.3g}"))
