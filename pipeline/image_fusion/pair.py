"""A pair of CT and MR on one grid as one picture: by what, made, and measured beside what needs no skill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.transforms.utils import generate_spatial_bounding_box

from pipeline.errors import CaseError, UsageError
from pipeline.geometry import orientation_of
from pipeline.grey import DARK, DARK_NOTE
from pipeline.image_fusion.applying import apply_network
from pipeline.image_fusion.baselines import fuse, require_methods
from pipeline.image_fusion.images import checked
from pipeline.image_fusion.metrics import Measures, measure
from pipeline.image_fusion.pictures import Floats, coarse_body, scaled, windowed
from pipeline.image_fusion.weights import Trained, load_trained
from pipeline.inference.engine import Engine, require_engine, require_processor
from pipeline.shipped import shipped
from pipeline.spec.stages import NETWORK, WINDOW, chosen, wrong_recipe

Windows = tuple[tuple[float, float], ...]
Turn = Callable[[Floats], Floats]

#: A picture as it was saved, from 0 to 1.
WHOLE = (0.5, 1.0)
#: What is measured beside every picture: the copy, the mean and the larger of both, of which each has good figures.
BESIDE = ("ct", "mean", "max")
#: The measures that tables show.
SHOWN = ("SD", "SF", "MI", "SCD", "VIF", "Qabf", "SSIM", "bone", "soft")
IN_WORDS = {
    "ct": "CT alone",
    "mr": "MR alone",
    "mean": "mean of both",
    "max": "larger of both",
    "gradient": "stronger gradient",
    "laplacian": "Laplacian pyramid",
    "atrous": "à trous",
    "guided": "guided filter",
    NETWORK: "network",
}
#: Values below this are air of CT, in HU; MR has none, but for single voxels. So many of them are more than a few.
AIR_HU, MORE_THAN_FEW = -500.0, 0.02
NO_AIR = "N_NO_AIR: the CT has no air; look whether it is in HU"
#: Values below this are fat in CT; few MR have many of them.
FAT_HU = -50.0
EXCHANGED = f"{NO_AIR}, and whether CT and MR are exchanged: the MR has values as of fat in HU"
#: An MR that reaches over less of the CT's body than this leaves the rest to CT alone.
WHOLE_BODY = 0.95
PART = "N_PART_SHOWN: the MR reaches over {share:.0%} of the body on the CT; elsewhere the picture is the CT's"
OTHER_WINDOW = "Choose a window, level and width, that the CT's values lie in: HU, or parts of white of a picture."
SWAPPED = "Give the CT, in HU, as CT, and the MR as MR."


@dataclass(frozen=True)
class Recipe:
    """How a pair becomes one picture.

    Attributes:
        method: a name of `BASELINES`, or `network`.
        windows: level and width in which CT is shown: in HU of volumes, of 0 to 1 of pictures; the first is fused.
        learned: of a network that has learned from pictures, and is given volumes: its windows of what the first shows.
        trained: the network, where that is the method.
        sha256: of its weights.
        engine: what runs it.
        simulated: the network is the one that comes with Tandem.
        pictures: CT is a picture, not a volume in HU.
    """

    method: str
    windows: Windows
    learned: Windows = ()
    trained: Trained | None = None
    sha256: str = ""
    engine: Engine = "torch"
    simulated: bool = False
    pictures: bool = False

    @property
    def name(self) -> str:
        """The method in words."""
        return IN_WORDS[self.method]

    @property
    def ends(self) -> tuple[float, float]:
        """What of CT is black, and what is white."""
        level, width = self.windows[0]
        return level - width / 2, level + width / 2

    @property
    def sentences(self) -> tuple[str, ...]:
        """By what the picture is made, and what has to be known of its figures."""
        if self.trained is None:
            return (f"Method: {self.name}. Nothing of it is learned: no weights of a network were named.",)
        measures = ", ".join(self.trained.preparation.learned_measures)
        flat = self.trained.network.spatial_dims == 2 and not self.pictures
        slices = "The network sees each axial slice by itself." if flat else ""
        pictures = "It has learned from pictures, not from HU." if self.learned else ""
        if self.pictures and self.trained.preparation.of_volumes:
            pictures = "It has learned from CT in HU: the picture is taken to show its first window."
        cheap = f"It was trained on {measures}: its figures of these are no surprise." if measures else ""
        heads = "It has learned from simulated heads alone, and is not for patients." if self.simulated else ""
        sentences = (f"Method: network, weights with the sha256 {self.sha256}.", heads, slices, pictures, cheap)
        return tuple(sentence for sentence in sentences if sentence)


@dataclass(frozen=True)
class Fused:
    """A picture and what it was made of, all 0 to 1, of the shape of the images.

    Attributes:
        image: the picture.
        ct: CT in its first window.
        mr: MR as it was fused.
        weights: (5, …) how much each candidate counts; the network's alone.
        attention: (levels, …) where the network looks; likewise.
        notes: sentences that a reader has to know.
    """

    image: Floats
    ct: Floats
    mr: Floats
    weights: Floats | None = None
    attention: Floats | None = None
    notes: tuple[str, ...] = ()


def recipe(
    method: str = "",
    windows: Windows = (),
    weights: str = "",
    sha256: str = "",
    device: Any = "cpu",
    pictures: bool = False,
    engine: Engine = "torch",
) -> Recipe:
    """Check what was asked for, and read the weights.

    Args:
        method: a name of `BASELINES`, or `network`; the network where weights are named, else `atrous`, when empty.
        windows: level and width of each; the network's own, or `WINDOW`, when empty.
        weights: what `train.yaml` has written; empty for none.
        sha256: their expected hash; not asked when empty.
        device: where the network works.
        pictures: CT is a picture of 0 to 1, not a volume in HU.
        engine: what runs the network: `torch`, or `openvino` on a processor: the same to six digits.

    Raises:
        UsageError: E_OPTION for what does not go together; E_WEIGHTS, E_CHECKPOINT, E_INPUT; E_CONFIG for an engine
            that there is not, or that does not run where the network is; E_EXTRA where it is not installed.
    """
    require_methods([method] if method else [], (NETWORK,))
    require_engine(engine)
    if wrong := wrong_recipe(method, windows, weights, sha256, engine):
        raise UsageError("E_OPTION", f"{wrong}.", "Leave it out, or name what it needs.")
    if pictures and (of_hu := [window for window in windows if not 0 <= window[0] <= 1]):
        what = f"Expected windows of pictures in parts of white, 0 to 1, got {of_hu[0][0]:g},{of_hu[0][1]:g}."
        raise UsageError("E_OPTION", what, "Give --window 0.5,1, or leave it out.")
    plain = (WHOLE if pictures else WINDOW,)
    if not weights:
        return Recipe(chosen(method, weights), tuple(windows) or plain)
    trained = load_trained(weights, device, sha256)
    if engine == "openvino":
        require_processor(trained.network)
    own = tuple((float(level), float(width)) for level, width in trained.preparation.windows)
    of_volumes = trained.preparation.of_volumes
    learned = () if of_volumes or pictures else own
    usual = plain if learned else of_pictures(own) if of_volumes and pictures else own
    if windows and len(windows) != len(usual):
        what = f"Expected {len(usual)} windows for this network, got {len(windows)}."
        raise UsageError("E_OPTION", what, "Leave them out: it has its own.")
    simulated = Path(weights).parent == shipped("bundles", "fuse_image", "models")
    return Recipe(NETWORK, tuple(windows) or usual, learned, trained, trained.sha256, engine, simulated, pictures)


def of_pictures(windows: Windows) -> Windows:
    """Windows in HU as those of a picture that shows CT in the first of them."""
    first, whole = windows[0]
    return tuple(((level - first) / whole + 0.5, width / whole) for level, width in windows)


def fuse_volumes(ct: npt.NDArray[Any], mr: npt.NDArray[Any], affine: npt.NDArray[np.float64], how: Recipe) -> Fused:
    """One picture of two volumes.

    Args:
        ct: (I, J, K), HU.
        mr: (I, J, K), any scale: 0 stays black, and white is what few voxels of the body are brighter than.
        affine: of both, RAS mm.
        how: the recipe.

    Raises:
        CaseError: E_MODALITY when MR has the values of CT; E_BLANK for a constant image, or a CT that is so in its
            window; E_GRID, E_NIFTI.
    """
    ct, mr = np.asarray(ct, np.float32), np.asarray(mr, np.float32)
    checked({"CT": ct, "MR": mr})
    notes = _doubts(ct, mr) or _uncovered(ct, mr, affine)
    return _fused(ct, scaled(mr, affine), how, notes, orientation_of(affine))


def fuse_pictures(ct: Floats, mr: Floats, how: Recipe) -> Fused:
    """One picture of two grey pictures (rows, columns), 0 to 1, CT as it was saved.

    Raises:
        CaseError: E_GRID for other shapes; E_BLANK for a constant one.
    """
    checked({"CT": ct, "MR": mr}, 1.0)
    dark = [f"{DARK_NOTE}: {name}" for name, picture in (("CT", ct), ("MR", mr)) if picture.max() < DARK]
    return _fused(ct, mr, how, dark)


def measured(made: Fused, how: Recipe, beside: Sequence[str] = BESIDE) -> dict[str, Measures]:
    """The measures of a picture, and of what other methods make of the same pair.

    Args:
        made: the picture.
        how: by what it was made.
        beside: names of `BASELINES`.

    Returns:
        Method -> measures, the picture's own first.
    """
    pictures = {how.method: made.image} | {name: fuse(made.ct, made.mr, name) for name in beside if name != how.method}
    return {name: measure(image, made.ct, made.mr, 1.0) for name, image in pictures.items()}


def _fused(ct: Floats, mr: Floats, how: Recipe, notes: Sequence[str] = (), axes: str = "RAS") -> Fused:
    """The picture; `axes`: where the axes of a volume lead: a network is shown all volumes alike."""
    shown = windowed(ct, how.windows)
    if how.learned:
        shown = windowed(shown[0], how.learned)
    if shown[0].min() == shown[0].max():
        level, width = how.windows[0]
        got = f"{shown[0].flat[0]:g} of it in every voxel"
        raise CaseError(
            "E_BLANK", f"Expected a CT that varies in the window {level:g},{width:g}, got {got}.", OTHER_WINDOW
        )
    checked({"MR": mr})
    if how.trained is None:
        return Fused(fuse(shown[0], mr, how.method), shown[0], mr, notes=tuple(notes))
    order, back = _upright(axes) if mr.ndim == 3 else (np.asarray, np.asarray)
    given = (order(shown), order(mr[None])[0], how.trained.preparation.patch)
    said = apply_network(how.trained.network, *given, engine=how.engine)
    fused, weights, attention = (back(item) for item in (said.fused[None], said.weights, said.attention))
    return Fused(fused[0], shown[0], mr, weights, attention, tuple(notes))


def _upright(axes: str) -> tuple[Turn, Turn]:
    """How (C, I, J, K) is brought to axes that lead right, front and up, as a network has learned, and back again."""
    order = [next(number for number, letter in enumerate(axes) if letter in pair) for pair in ("RL", "AP", "SI")]
    flipped = tuple(1 + number for number, letter in enumerate("RAS") if axes[order[number]] != letter)
    forth = (0, *(1 + number for number in order))
    return (
        lambda image: np.flip(image.transpose(forth), flipped),
        lambda image: np.flip(image, flipped).transpose(np.argsort(forth)),
    )


def _doubts(ct: npt.NDArray[Any], mr: npt.NDArray[Any]) -> list[str]:
    """What is strange in the values; images that are exchanged are refused.

    Raises:
        CaseError: E_MODALITY.
    """
    if _many_below(mr, AIR_HU):
        got = "values below -500 HU, as air has in CT"
        raise CaseError("E_MODALITY", f"Expected MR, got {got}.", SWAPPED)
    if _many_below(ct, AIR_HU):
        return []
    return [EXCHANGED if _many_below(mr, FAT_HU) and not _many_below(ct, FAT_HU) else NO_AIR]


def _many_below(values: npt.NDArray[Any], limit: float) -> bool:
    return float((values < limit).mean()) > MORE_THAN_FEW


def _uncovered(ct: npt.NDArray[Any], mr: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> list[str]:
    """That the MR, or the box around what of it is not black, ends within the body of a CT with air around."""
    try:
        every, body = coarse_body(ct, affine, "CT")
    except CaseError:  # it shows none
        return []
    ends = generate_spatial_bounding_box(mr[every][None], lambda image: image != 0)
    share = float(body[tuple(map(slice, *ends))].sum() / body.sum())
    return [PART.format(share=share)] if share < WHOLE_BODY else []
