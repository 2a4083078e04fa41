from __future__ import annotations

import numpy as np
import pytest

from pipeline.simulation.tissues import (
    CT_NOISE_HU,
    MR_NOISE,
    MR_SCALE,
    TISSUES,
    Sequence,
    Tissue,
    attenuation_hu,
    ct_scan,
    mr_scan,
    mr_signal,
    random_bias,
)


def test_spin_echo_signal_worked_out_by_hand() -> None:
    tissue = Tissue(0.0, 0.8, 1000.0, 100.0)
    # TR = T1 ln 2: half recovered; TE = T2 ln 2: half decayed
    sequence = Sequence(1000.0 * np.log(2), 100.0 * np.log(2))
    assert sequence.signal(tissue) == pytest.approx(0.8 / 4)
    assert mr_signal([(tissue, np.array([1.0, 0.5, 0.0]))], sequence) == pytest.approx([200.0, 100.0, 0.0])


def test_contrasts_are_those_of_t1_and_t2_weighting() -> None:
    t1, t2 = Sequence(500, 10), Sequence(4000, 90)
    white, gray, csf = (TISSUES[name] for name in ("white", "gray", "csf"))
    assert t1.signal(white) > t1.signal(gray) > t1.signal(csf)
    assert t2.signal(white) < t2.signal(gray) < t2.signal(csf)


def test_attenuation_mixes_linearly_with_air() -> None:
    half = np.array([0.5])
    assert attenuation_hu([(TISSUES["white"], half)]) == pytest.approx([(31 - 1000) / 2])
    assert attenuation_hu([(TISSUES["fat"], half), (TISSUES["muscle"], half)]) == pytest.approx([-20.0])


def test_ct_noise_and_point_spread() -> None:
    rng = np.random.default_rng(0)
    flat = ct_scan(np.full((40, 40, 40), 30.0), rng)
    assert flat.mean() == pytest.approx(30, abs=0.2) and flat.std() == pytest.approx(CT_NOISE_HU, rel=0.02)
    impulse = np.zeros((15, 15, 15))
    impulse[7, 7, 7] = 1e7
    spread = ct_scan(impulse, rng)[7, 7, 4:11]  # beyond 3 voxels there is noise only
    width = np.sqrt((spread * np.arange(-3, 4) ** 2).sum() / spread.sum())
    assert width == pytest.approx(0.6, rel=0.03)
    assert ct_scan(np.full((20, 20, 20), -1024.0), rng).min() == -1024


def test_mr_noise_is_rician() -> None:
    rng = np.random.default_rng(0)
    sigma = MR_NOISE * MR_SCALE
    background = mr_scan(np.zeros((40, 40, 40)), rng)
    # without signal: Rayleigh, mean sigma sqrt(pi / 2), second moment 2 sigma^2
    assert background.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.01)
    assert (background**2).mean() == pytest.approx(2 * sigma**2, rel=0.02)


def test_bias_departs_by_ten_to_thirty_five_percent_and_is_smooth() -> None:
    strengths = []
    for seed in range(30):
        bias = random_bias((12, 9, 7), np.random.default_rng(seed))
        strengths.append(np.abs(bias - 1).max())
        third = np.diff(bias, 3, axis=0)
        assert np.abs(third).max() < 1e-9  # a quadratic
    assert min(strengths) >= 0.10 and max(strengths) <= 0.35 and np.ptp(strengths) > 0.1
