"""What a segmentation loses when it is given one fused picture in the place of CT and MR.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.image_fusion_segmentation OUT [--write]

Simulates heads with lesions, fuses their CT and MR, lets one classifier of voxels learn from each input, all alike, and
judges it by heads that it has not learned from. OUT keeps the heads. `--write` puts the section into
docs/benchmarks/image-fusion-segmentation.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import typer
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks.document import write_section
from pipeline.evaluation.results import Comparison, Settings
from pipeline.evaluation.segmentation import compare_means, mean_over_cases
from pipeline.image_fusion.pair import Recipe, fuse_volumes, recipe
from pipeline.image_fusion.pictures import windowed
from pipeline.report.classification import interval, number, p_text
from pipeline.shipped import shipped
from pipeline.spec.stages import WINDOW
from scripts.head_files import write_head_cases

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

PAGE, TITLE = shipped("docs", "benchmarks", "image-fusion-segmentation.md"), "Image fusion and segmentation"
SHIPPED = shipped("bundles", "fuse_image", "models", "heads.pt")
#: Not that of the demo's cohort, nor those of the shipped weights.
SEED, SPACING_MM = 1708, 3.0
#: Numbers of the heads: to learn from, to choose the threshold of the probability by, and to judge by.
LEARN, CHOOSE, TEST = range(0, 16), range(16, 21), range(1000, 1016)
#: Level and width in HU in which CT by itself is seen: soft tissue.
SOFT = (40.0, 120.0)
CT, MR, BOTH = "CT alone", "MR alone", "CT and MR as two channels"
DEFAULT, LEARNED = "fused, à trous", "fused, the shipped network"
NARROW = "fused, à trous, CT in the window of CT alone"
#: Input -> images that are its channels.
INPUTS = {CT: ("ct",), MR: ("mr",), BOTH: ("ct", "mr")} | {name: (name,) for name in (DEFAULT, LEARNED, NARROW)}
#: The differences that are asked for.
PAIRS = [(MR, BOTH), *((name, other) for name in (DEFAULT, LEARNED, NARROW) for other in (BOTH, MR))]
#: Of Gaussians of a channel and of its gradient and Laplacian, voxels.
SCALES = (0.7, 1.5, 3.0)
#: So many voxels of the rest of the brain for each of a lesion.
REST = 15
THRESHOLDS = np.arange(0.05, 1, 0.05)


@dataclass(frozen=True)
class Head:
    """A simulated head, as far as its brain reaches.

    Attributes:
        images: name -> (I, J, K).
        brain: (I, J, K).
        lesions: (I, J, K).
    """

    images: Mapping[str, Floats]
    brain: Flags
    lesions: Flags

    def features(self, channels: Sequence[str]) -> Floats:
        """(N, F) of the brain's voxels: each channel at several scales, and how deep the voxel lies."""
        depth = ndimage.distance_transform_edt(self.brain).astype(np.float32)
        maps = [depth, *(found for name in channels for found in _scaled_maps(self.images[name], self.brain))]
        return np.stack([item[self.brain] for item in maps], 1)

    @property
    def truth(self) -> Flags:
        """(N,) of the brain's voxels."""
        return self.lesions[self.brain]


def main(out: Path, write: bool = False) -> None:
    """Simulate, fuse, learn, judge, print, and write."""
    folder = out / "cases"
    recipes = {DEFAULT: recipe("atrous"), LEARNED: recipe(weights=str(SHIPPED)), NARROW: recipe("atrous", (SOFT,))}
    parts = {"learn.csv": range(LEARN.start, CHOOSE.stop), "test.csv": TEST}
    for table, numbers in parts.items():
        write_head_cases(folder, table, numbers, 1, SEED, SPACING_MM)
    started = time.process_time()
    heads = {number: read_head(folder, number, recipes) for numbers in parts.values() for number in numbers}
    found = {name: dice_of_input(heads, channels) for name, channels in INPUTS.items()}
    text = section(found, time.process_time() - started)
    print(text)
    if write:
        write_section(PAGE, TITLE, "segmentation", text)


def read_head(folder: Path, number: int, recipes: Mapping[str, Recipe]) -> Head:
    """Read a head, and fuse its images."""
    ct, mr, anatomy = (nib.load(folder / f"head-{number:04d}_{name}.nii.gz") for name in ("ct", "mr", "anatomy"))
    pair = [np.asarray(image.get_fdata(), np.float32) for image in (ct, mr)]
    fused = {name: fuse_volumes(*pair, ct.affine, how).image for name, how in recipes.items()}
    labels = np.asarray(anatomy.dataobj)
    places = ndimage.find_objects(np.minimum(labels, 1).astype(np.int32))[0]
    box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in places)  # the depth begins outside the brain
    images = {"ct": windowed(pair[0], (SOFT,))[0], "mr": pair[1], **fused}
    return Head({name: image[box] for name, image in images.items()}, labels[box] > 0, labels[box] == 2)


def dice_of_input(heads: Mapping[int, Head], channels: Sequence[str]) -> npt.NDArray[np.float64]:
    """Learn from the first heads, choose a threshold by the next ones, and judge by the last."""
    random, features, truth = np.random.default_rng(SEED), [], []
    for head in (heads[item] for item in LEARN):
        chosen = _sample(head.truth, random)
        features.append(head.features(channels)[chosen])
        truth.append(head.truth[chosen])
    learner = HistGradientBoostingClassifier(max_iter=100, learning_rate=0.1, early_stopping=False, random_state=0)
    learner.fit(np.concatenate(features), np.concatenate(truth))

    def dice(numbers: range, thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(heads, thresholds)."""
        chances = [learner.predict_proba(heads[item].features(channels))[:, 1] for item in numbers]
        pairs = zip(chances, (heads[item].truth for item in numbers), strict=True)
        return np.array([[_dice(chance > least, true) for least in thresholds] for chance, true in pairs])

    best = int(dice(CHOOSE, THRESHOLDS).mean(0).argmax())
    return dice(TEST, THRESHOLDS[best : best + 1])[:, 0]


def section(found: Mapping[str, npt.NDArray[np.float64]], seconds: float) -> str:
    """The text of the page."""
    heads, settings = [str(item) for item in TEST], Settings()
    return "\n".join(
        [
            "## Dice of lesions from one picture, and from both\n",
            f"`OMP_NUM_THREADS=1 python -m benchmarks.image_fusion_segmentation OUT --write`: {len(TEST)} simulated "
            f"heads at {SPACING_MM:g} mm (seed {SEED}), three lesions each, from which nothing was learned or chosen; "
            "MR lies on the CT's grid as an alignment that passes leaves it. Each row is one training, all alike, of "
            "gradient boosting on voxels of the brain: each channel, its gradient and its Laplacian at "
            f"{len(SCALES)} scales, and the depth below the brain's surface. The brain is given, the simulation's. "
            f"{len(LEARN)} other heads to learn from, {len(CHOOSE)} to choose the threshold by. "
            f"{seconds / 60:.1f} minutes of one core for fusing and learning.\n",
            "It is no network: one of the bundle `fuse` takes longer to learn, and may lose more or less. CT alone "
            f"is seen in the window {SOFT[0]:g} ± {SOFT[1] / 2:g} HU, soft tissue. The fused pictures show CT in "
            f"{WINDOW[0]:g} ± {WINDOW[1] / 2:g} HU, as `tandem fuse-image` does where no window is named; that of the "
            "last row as CT alone. The intervals resample heads: they say nothing of how other heads to learn "
            "from would have turned out.\n",
            *means(found, heads, settings),
            "\nPaired differences of the mean Dice on the same heads (first less second; p after Holm):\n",
            *differences(compare_means("dice", found, PAIRS, heads, settings)),
        ]
    )


def means(found: Mapping[str, npt.NDArray[np.float64]], heads: Sequence[str], settings: Settings) -> Iterator[str]:
    """A row an input."""
    yield "| input | Dice | 95 % interval | least head |"
    yield "|---|---|---|---|"
    for name, dice in found.items():
        mean = mean_over_cases("dice", dice, heads, settings)
        yield f"| {name} | {number(mean.value)} | {interval(mean.low, mean.high)} | {number(dice.min())} |"


def differences(found: Sequence[Comparison]) -> Iterator[str]:
    """A row a pair."""
    yield "| first | second | difference | 95 % interval | p |"
    yield "|---|---|---|---|---|"
    for item in found:
        ends = interval(item.low, item.high)
        yield f"| {item.first} | {item.second} | {number(item.difference)} | {ends} | {p_text(item.p_holm)} |"


def _scaled_maps(image: Floats, brain: Flags) -> Iterator[Floats]:
    """The image, and Gaussian, gradient and Laplacian at each scale; the brain has mean 0 and deviation 1."""
    values = np.where(brain, (image - image[brain].mean()) / image[brain].std(), 0).astype(np.float32)
    yield values
    for scale in SCALES:
        yield ndimage.gaussian_filter(values, scale, mode="constant")
        yield ndimage.gaussian_gradient_magnitude(values, scale, mode="constant")
        yield ndimage.gaussian_laplace(values, scale, mode="constant")


def _sample(truth: Flags, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """All voxels of lesions, and `REST` times as many others."""
    lesions, others = np.flatnonzero(truth), np.flatnonzero(~truth)
    return np.concatenate([lesions, random.choice(others, min(len(others), REST * len(lesions)), replace=False)])


def _dice(found: Flags, truth: Flags) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


if __name__ == "__main__":
    typer.run(main)
