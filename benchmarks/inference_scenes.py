"""What benchmarks/inference.py looks at, and with what: simulated patients in air, a network trained on such."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from monai.losses import DiceCELoss
from torch import Tensor

from pipeline import geometry, volumes
from pipeline.body import body_mask
from pipeline.fusion.network import FusionNet
from pipeline.preprocessing.intensity import foreground_zscore, window_channels
from pipeline.simulation.head import HEAD_CENTRE_MM, SHELLS_MM, HeadTemplate, load_head_template
from pipeline.simulation.subject import lesion_shares, random_lesions, random_subject
from pipeline.simulation.tissues import T2_WEIGHTED, TISSUES, attenuation_hu, ct_scan, mr_scan, mr_signal

#: Voxels along each axis and their side in mm: a head in 240 mm, a trunk of 340 x 230 mm in 400 mm.
GRIDS = {"head": ((96, 96, 96), 2.5), "trunk": ((136, 136, 80), 3.0)}
TRUNK_RADII_MM, TRUNK_FAT_MM = (170.0, 115.0), 20.0
LESIONS = 6
CT_WINDOW = {"ct": [40.0, 80.0]}
#: What is learned from, by seeds that no measured patient has.
TRAINING = {"head": (1, 2, 3, 4, 5), "trunk": (1, 2)}


@dataclass(frozen=True)
class Scene:
    """A patient.

    Attributes:
        image: prepared as the stage `fuse` does, (1, 2, I, J, K): CT and MR.
        body: body mask (1, 1, I, J, K).
        truth: 1 inside the skull, or inside the trunk's fat (I, J, K).
    """

    image: Tensor
    body: Tensor
    truth: Tensor


def scene(kind: str, seed: int, template: HeadTemplate) -> Scene:
    """Simulate CT and MR of a patient on one grid; `kind` is a key of `GRIDS`."""
    shape, side_mm = GRIDS[kind]
    affine = np.diag([side_mm] * 3 + [1.0])
    affine[:3, 3] = np.asarray(HEAD_CENTRE_MM) - side_mm * (np.asarray(shape) - 1) / 2
    rng = np.random.default_rng([seed, len(kind)])
    if kind == "head":
        subject = random_subject(template, rng, max_angle_deg=0.0, max_shift_mm=0.0, lesions=LESIONS)
        ct = subject.scan_ct(shape, affine, rng)
        mr = subject.scan_mr(shape, affine, T2_WEIGHTED, rng)
        points = geometry.apply(np.linalg.inv(subject.ct_pose) @ affine, np.argwhere(np.ones(shape, bool)))
        inside = template.brain_distance_mm(subject.warp(points)).reshape(shape) <= SHELLS_MM["csf"]
    else:
        ct_array, mr_array, inside = trunk(shape, affine, rng, template)
        ct, mr = volumes.volume(ct_array, affine), volumes.volume(mr_array, affine)
    body = body_mask(ct, "CT")
    image = torch.cat([window_channels(ct, CT_WINDOW), foreground_zscore(mr, body)]).as_tensor().float()
    return Scene(image[None], body.as_tensor()[None] > 0, torch.from_numpy(inside > 0))


def trunk(
    shape: tuple[int, ...], affine: npt.NDArray[np.float64], rng: np.random.Generator, template: HeadTemplate
) -> list[npt.NDArray[np.float64]]:
    """CT, MR and what fat surrounds (I, J, K): an elliptic cylinder, with the lesions of a head."""
    points = geometry.apply(affine, np.argwhere(np.ones(shape, bool)))
    across = (points[:, :2] - HEAD_CENTRE_MM[:2]) / TRUNK_RADII_MM
    depth_mm = (1 - np.hypot(*across.T)) * min(TRUNK_RADII_MM)
    whole, core = (np.clip(0.5 + depth / affine[0, 0], 0, 1) for depth in (depth_mm, depth_mm - TRUNK_FAT_MM))
    lesions = random_lesions(template, rng, LESIONS)
    ill = [(lesion.tissue, lesion_shares(lesion, points, affine[0, 0])) for lesion in lesions]
    rest = 1 - sum(share for _, share in ill)
    mixture = [(TISSUES["fat"], whole - core), (TISSUES["white"], core * rest), *ill]
    ct = ct_scan(attenuation_hu(mixture).reshape(shape), rng)
    mr = mr_scan(mr_signal(mixture, T2_WEIGHTED).reshape(shape), rng)
    return [ct, mr, (core > 0.5).reshape(shape)]


def new_network(width: int, levels: int) -> FusionNet:
    """The network that is measured: intermediate fusion of CT and MR, gated, voxel labels."""
    return FusionNet(["ct", "mr"], classes=0, labels=2, width=width, levels=levels)


def trained_network(path: Path, width: int, levels: int, patch: int, steps: int) -> FusionNet:
    """The network with the weights of a file; trained first, on patches of the size of use, where there is no file."""
    torch.manual_seed(0)
    network = new_network(width, levels)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        template = load_head_template()
        scenes = [scene(kind, seed, template) for kind, seeds in TRAINING.items() for seed in seeds]
        train(network, scenes, patch, steps)
        torch.save(network.state_dict(), path)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def train(network: FusionNet, scenes: list[Scene], patch: int, steps: int) -> None:
    """Learn the labels from patches, half of them around a voxel with the label, mirrored at random."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    loss_of = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, steps)
    for step in range(steps):
        drawn = [patch_of(scenes[rng.integers(len(scenes))], patch, rng, around=item == 0) for item in range(2)]
        images, truths = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images)
        loss = loss_of(logits.float(), truths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"Training: step {step}, loss {loss.item():.3f}.", flush=True)


def patch_of(drawn: Scene, patch: int, rng: np.random.Generator, around: bool) -> tuple[Tensor, Tensor]:
    """A patch of the image (2, …) and of the truth (1, …), around a labelled voxel or anywhere."""
    sizes = np.asarray(drawn.truth.shape)
    start = rng.integers(0, sizes - patch + 1)
    if around:
        voxels = drawn.truth.nonzero()
        start = np.clip(voxels[rng.integers(len(voxels))].numpy() - rng.integers(0, patch, 3), 0, sizes - patch)
    box = tuple(slice(int(first), int(first) + patch) for first in start)
    flips = [axis for axis in (1, 2, 3) if rng.random() < 0.5]
    return drawn.image[0][(slice(None), *box)].flip(flips), drawn.truth[box][None].float().flip(flips)
