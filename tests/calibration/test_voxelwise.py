"""Calibration of voxels: dilated foreground, equal cases, whole volumes in bounded memory."""

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import CalibrationErrorMetric
from scipy.spatial.transform import Rotation

from benchmarks.segmentation_comparison import case_ece
from pipeline.calibration import METHODS, About, dilated_foreground
from pipeline.calibration.rows import PIECE_VALUES
from pipeline.errors import CaseError
from pipeline.geometry import apply
from pipeline.volumes import affine_of, volume

ABOUT = About("simulated volumes", "2026-01-02")
pytestmark = pytest.mark.filterwarnings("ignore::pipeline.calibration.record.CalibrationWarning")
SPACING_MM = (1.5, 2.0, 3.0)


def oblique(angles=(12, -8, 25)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * SPACING_MM
    affine[:3, 3] = (-30, 20, 11)
    return affine


def case(seed, shape=(22, 18, 14), temperature=2.0, corner=(5, 4, 3), size=(8, 5, 4), classes=3):
    """A box of classes above 0 and background around it; logits that are too sure by a factor of the temperature."""
    random = np.random.default_rng(seed)
    signal = np.full(shape, 0)
    box = tuple(slice(start, start + length) for start, length in zip(corner, size, strict=True))
    signal[box] = random.integers(1, classes, signal[box].shape)
    z = 1.5 * random.normal(size=(classes, *shape)) + 2.0 * np.eye(classes)[signal].transpose(3, 0, 1, 2)
    p = np.exp(z) / np.exp(z).sum(axis=0)
    labels = (random.random(shape) > p.cumsum(axis=0)[:-1]).sum(axis=0)
    outside = np.ones(shape, dtype=bool)
    outside[box] = False
    labels[outside] = 0
    return volume((temperature * z).astype(np.float32), oblique()), volume(labels.astype(np.uint8), oblique())


def test_dilated_foreground_is_a_distance_in_mm():
    """Against the distances of all pairs of voxel centres, in world coordinates."""
    _, labels = case(0)
    index = np.array(list(itertools.product(*map(range, labels.shape[1:]))))
    points = apply(affine_of(labels), index)
    inside = labels.numpy()[0].ravel() > 0
    nearest = np.array([np.linalg.norm(points[inside] - point, axis=1).min() for point in points])
    for margin in (0.0, 4.1, 7.3):
        assert (dilated_foreground(labels, margin).ravel() == (nearest <= margin)).all()
    assert not dilated_foreground(volume(np.zeros((4, 5, 6)), oblique())).any()


def test_dilated_foreground_at_the_border():
    _, labels = case(0, corner=(0, 13, 9), size=(3, 5, 5))
    mask = dilated_foreground(labels, 5.0)
    assert mask.shape == labels.shape[1:] and mask[0, 17, 13] and not mask[21, 0, 0]


def fitted(*volumes):
    """The temperature of whole volumes, each a case."""
    rows = np.concatenate([logits.numpy().reshape(logits.shape[0], -1).T for logits, _ in volumes])
    labels = np.concatenate([truth.numpy().ravel() for _, truth in volumes])
    names = np.repeat(np.arange(len(volumes)), [truth.numel() for _, truth in volumes])
    return METHODS["temperature"].fit(rows, labels, ABOUT, names)


def test_a_volume_that_is_too_sure_is_mended():
    # foreground throughout, so that the labels follow the softmax of the halved logits everywhere
    whole = {"shape": (20, 16, 12), "corner": (0, 0, 0), "size": (20, 16, 12)}
    found = fitted(*(case(seed, **whole) for seed in range(4)))
    assert found.temperature == pytest.approx(2.0, abs=0.08)
    logits, truth = case(9, **whole)
    after = found.apply(logits)
    assert isinstance(after, MetaTensor)
    assert torch.equal(after.affine, logits.affine) and after.dtype == torch.float32
    raw = volume(torch.softmax(logits.as_tensor(), 0), affine_of(logits))
    assert case_ece(after, truth) < 0.03 < 0.1 < case_ece(raw, truth)


@pytest.mark.parametrize("name", ["temperature", "vector", "matrix", "beta", "isotonic"])
def test_volumes_and_rows_get_the_same_probabilities(name):
    logits, truth = case(3)
    fitted = METHODS[name].fit(logits.numpy().reshape(3, -1).T, truth.numpy().ravel(), ABOUT)
    rows = fitted.apply(logits.numpy().reshape(3, -1).T.astype(np.float64))
    for given in (logits, logits.as_tensor(), logits.numpy()):
        assert np.abs(np.asarray(fitted.apply(given)).reshape(3, -1).T - rows).max() < 1e-6
    double = fitted.apply(logits.numpy().astype(np.float64))
    assert double.dtype == np.float64 and double.shape == (3, 22, 18, 14)
    assert np.abs(double.sum(axis=0) - 1).max() < 1e-12


def test_one_channel_is_class_1_of_two():
    logits, truth = case(4, classes=2)
    odds = volume(logits.as_tensor()[1:] - logits.as_tensor()[:1], affine_of(logits))
    one, two = (fitted((item, truth), (item, truth)) for item in (odds, logits))
    assert one.temperature == pytest.approx(two.temperature, rel=1e-5)
    assert one.apply(odds).shape == (1, 22, 18, 14)
    assert float((one.apply(odds)[0] - two.apply(logits)[1]).abs().max()) < 1e-5
    assert case_ece(one.apply(odds), truth) == pytest.approx(case_ece(two.apply(logits), truth), abs=1e-5)


def test_large_volumes_are_worked_on_in_pieces(monkeypatch):
    rows = np.random.default_rng(0).normal(size=(400, 3))
    fitted = METHODS["temperature"].fit(rows, rows.argmax(1) * (np.arange(400) % 3 > 0), ABOUT)
    seen = []
    act = type(fitted).log_probabilities

    def watched(self, logits):
        seen.append(logits.numel())
        return act(self, logits)

    monkeypatch.setattr(type(fitted), "log_probabilities", watched)
    large = torch.randn(3, 80, 90, 100, generator=torch.Generator().manual_seed(0))
    found = fitted.apply(large)
    assert max(seen) <= PIECE_VALUES < large.numel() == sum(seen)
    assert float((found - torch.softmax(large.double() / fitted.temperature, 0)).abs().max()) < 1e-6


def test_case_ece_is_monais_on_the_region():
    logits, truth = case(5)
    p = volume(torch.softmax(logits.as_tensor(), 0), affine_of(logits))
    mask = dilated_foreground(truth, 6.0)
    chosen = p.numpy()[:, mask]
    hits = chosen.argmax(axis=0) == truth.numpy()[0][mask]
    metric = CalibrationErrorMetric(15)
    metric(torch.from_numpy(chosen.max(axis=0))[None, None], torch.from_numpy(hits)[None, None].float())
    assert case_ece(p, truth, margin_mm=6.0) == pytest.approx(float(metric.aggregate()), abs=1e-6)
    assert case_ece(p, volume(np.zeros(truth.shape[1:]), affine_of(truth))) is None


def test_refusals():
    logits, truth = case(6)
    with pytest.raises(CaseError, match="E_GRID"):
        case_ece(logits, volume(truth.as_tensor(), oblique((0, 0, 0))))
