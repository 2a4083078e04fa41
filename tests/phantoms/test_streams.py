from __future__ import annotations

import csv
import hashlib
import runpy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile
from scipy.signal import find_peaks, welch
from scipy.stats import norm
from sklearn.metrics import log_loss, roc_auc_score

from pipeline.columns import read_rows
from pipeline.errors import UsageError
from tests.phantoms.streams.cohort import Shown, simulate_streams
from tests.phantoms.streams.cough import FORMANTS_HZ, RATE_HZ, Airway, airway, cough_sound, through_formants
from tests.phantoms.streams.cues import HALF_DISTANCE, MECHANISMS, draw_cues
from tests.phantoms.streams.files import CLASSES, FOUR_CLASSES, PARTS, write_cohort, write_four_classes
from tests.phantoms.streams.limb import ATTENUATION, DEPTH_CM, Limb, mr_volume, radiograph
from tests.phantoms.streams.shapes import BRIGHTNESS, CUE_BRIGHTNESS

STRAIGHT = Limb(soft=0.85, outer=0.5, inner=0.4, place=(0, 0), lean=(0, 0), height=0.0, slope=0.0)
SOUND = Shown("sound", (RATE_HZ,))
SCRIPT = Path(__file__).parents[2] / "scripts" / "simulate_streams.py"


def by_enumeration(mechanism: str, shown: np.ndarray, classes: int) -> np.ndarray:
    """The posterior of one case (M, B) by summing normal densities over all hidden signs."""
    streams, bits = shown.shape
    weights = np.zeros(classes)
    for hidden in np.ndindex(*[2] * (streams * bits)):
        signs = np.array(hidden).reshape(streams, bits)
        label = [int(signs[:, bit].sum() % 2) for bit in range(bits)]
        if mechanism == "additive":
            if (signs != signs[:1]).any():
                continue
            label = signs[0].tolist()
        density = norm.pdf(shown - HALF_DISTANCE[mechanism] * (2 * signs - 1)).prod()
        weights[sum(bit << place for place, bit in enumerate(label))] += density
    return weights / weights.sum()


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("classes", "streams"), [(2, 2), (4, 3), (2, 1)])
def test_posterior_is_bayes_rule_over_all_hidden_signs(mechanism: str, classes: int, streams: int) -> None:
    cues = draw_cues(mechanism, classes, streams, 40, np.random.default_rng(3))
    expected = [by_enumeration(mechanism, shown, classes) for shown in cues.shown]
    np.testing.assert_allclose(cues.posterior, expected, atol=1e-12)


def test_additive_cues_of_two_streams_reach_the_stated_auc() -> None:
    cues = draw_cues("additive", 2, 2, 40_000, np.random.default_rng(0))
    assert roc_auc_score(cues.labels, cues.posterior[:, 1]) == pytest.approx(0.875, abs=0.006)
    alone = roc_auc_score(cues.labels, cues.shown[:, 0, 0])
    assert alone == pytest.approx(norm.cdf(np.sqrt(2) * HALF_DISTANCE["additive"]), abs=0.007)


def test_exclusive_cues_tell_nothing_alone_and_nearly_all_together() -> None:
    cues = draw_cues("exclusive", 4, 2, 20_000, np.random.default_rng(0))
    assert roc_auc_score(cues.labels, cues.posterior, multi_class="ovr") > 0.98
    assert roc_auc_score(cues.labels % 2, cues.shown[:, 0, 0]) == pytest.approx(0.5, abs=0.012)
    np.testing.assert_array_equal(cues.alone, 0.25)


def test_class_pairing_moves_persons_within_their_class_and_leaves_exclusive_cues_worthless() -> None:
    for mechanism in MECHANISMS:
        cues = draw_cues(mechanism, 4, 3, 400, np.random.default_rng(1), "class")
        assert (cues.labels[cues.persons] == cues.labels[:, None]).all()
        assert (cues.persons[:, 0] != cues.persons[:, 1]).mean() > 0.9
        for place in range(3):
            assert sorted(cues.persons[:, place]) == list(range(400))
    assert log_loss(cues.labels, cues.posterior) == pytest.approx(np.log(4))


def test_the_posterior_is_calibrated() -> None:
    cues = draw_cues("exclusive", 2, 3, 60_000, np.random.default_rng(5))
    chance = cues.posterior[:, 1]
    for low in np.arange(0, 1, 0.1):
        inside = (chance >= low) & (chance < low + 0.1)
        assert cues.labels[inside].mean() == pytest.approx(chance[inside].mean(), abs=4 * 0.5 / np.sqrt(inside.sum()))


def test_shapes_show_the_cue_as_brightness() -> None:
    cohort = simulate_streams("additive", 300, 0)
    for place, name in enumerate(cohort.streams):
        arrays = cohort.arrays(name).reshape(300, -1)
        brightest = np.sort(arrays, 1)[:, -arrays.shape[1] // 12 :].mean(1)
        assert np.corrcoef(brightest, cohort.cues.shown[:, place, 0])[0, 1] > 0.7
        assert np.median(arrays[:, 0]) == pytest.approx(0, abs=0.3)  # a corner, mostly outside


def test_the_second_cue_is_told_from_the_first_wherever_it_lies() -> None:
    cohort = simulate_streams("additive", 300, 0, {"image": Shown("image", (48, 48))}, classes=4)
    ordered = np.sort(cohort.arrays("image").reshape(300, -1), 1)
    bright, dark = ordered[:, -100:].mean(1), -ordered[:, :100].mean(1)
    shown = cohort.cues.shown[:, 0]
    told = np.corrcoef([bright, dark, shown[:, 0], shown[:, 1]])
    assert told[0, 2] > 0.8 and told[1, 3] > 0.8  # each cue by its own end of the grey values
    assert abs(told[0, 3]) < 0.2 and abs(told[1, 2]) < 0.2


def test_radiograph_is_the_chord_through_tissue() -> None:
    image = radiograph(STRAIGHT, (400, 40), 0.0)
    across = (np.arange(400) + 0.5) / 200 - 1
    soft, outer, inner = (np.sqrt(np.clip(r**2 - across**2, 0, None)) * DEPTH_CM for r in (0.85, 0.5, 0.4))
    a = ATTENUATION
    expected = a["soft"] * (soft - outer) + a["cortex"] * (outer - inner) + a["marrow"] * inner
    step = max(a.values()) * DEPTH_CM / 48 * 2
    np.testing.assert_allclose(image[:, 0], expected, atol=2 * step)
    line = image[:, 0] - image[:, 20]
    np.testing.assert_allclose(line[np.abs(across) < 0.48], BRIGHTNESS, atol=1e-5)
    np.testing.assert_allclose(line[np.abs(across) > 0.52], 0, atol=1e-5)
    deeper = image[200, 20] - radiograph(STRAIGHT, (400, 40), 1.5)[200, 20]
    assert deeper == pytest.approx(1.5 * CUE_BRIGHTNESS, abs=1e-5)


def test_oedema_is_in_the_marrow_at_the_height_of_the_line() -> None:
    one, none = mr_volume(STRAIGHT, (32, 32, 32), 2.0), mr_volume(STRAIGHT, (32, 32, 32), 0.0)
    changed = one - none
    np.testing.assert_allclose(np.unique(changed), [0, 2 * CUE_BRIGHTNESS], atol=1e-6)
    i, j, k = (values / 16 - 31 / 32 for values in np.nonzero(changed))
    assert np.hypot(i, j).max() < 0.4 and np.abs(k).max() < 0.38 and np.hypot(i, j).max() > 0.33


def test_one_person_has_one_limb_in_both_streams_and_another_one_where_classes_are_paired() -> None:
    together = simulate_streams("additive", 4, 2, scene="limb")
    again = simulate_streams("additive", 4, 2, scene="limb")
    np.testing.assert_array_equal(together.array("image", 3), again.array("image", 3))
    wide = {"volume": Shown("volume", (48, 48, 48)), "image": Shown("image", (96, 96))}
    cohort = simulate_streams("additive", 12, 2, wide, scene="limb")
    heights = []
    for case in range(12):
        image, volume = cohort.array("image", case)[40:56], cohort.array("volume", case)[20:28, 20:28]
        bright = volume.mean((0, 1))
        smooth = np.convolve(image.mean(0), np.ones(8) / 8, "same")[12:-12]
        heights.append(
            (
                smooth.argmin() + 12,
                2 * (bright * (bright > bright.mean()) @ np.arange(48)) / bright[bright > bright.mean()].sum(),
            )
        )
    assert np.corrcoef(np.array(heights).T)[0, 1] > 0.9


def test_formants_are_where_they_were_put() -> None:
    noise = np.random.default_rng(0).standard_normal(30 * RATE_HZ)
    hz, power = welch(through_formants(noise, FORMANTS_HZ, RATE_HZ), RATE_HZ, nperseg=2048)
    peaks = hz[find_peaks(10 * np.log10(power), prominence=3)[0]]
    np.testing.assert_allclose(peaks[:3], FORMANTS_HZ, rtol=0.05)


def test_cues_raise_the_formants_and_voice_the_source() -> None:
    rng = np.random.default_rng(0)
    low, high = airway((-2, -1), rng), airway((2, 1), rng)
    assert high.formants_hz[0] / low.formants_hz[0] == pytest.approx(1.06**4)
    assert low.voiced + high.voiced == pytest.approx(1) and high.voiced > 0.6
    sounds = {share: cough_sound(Airway(FORMANTS_HZ, share, 200.0), RATE_HZ, rng) for share in (0.05, 0.95)}
    periodic = {}
    for share, sound in sounds.items():
        loud = sound[np.abs(sound).argmax() + 1500 :][:2000].astype(float)
        periodic[share] = loud[:-80] @ loud[80:] / (loud @ loud)  # one period of 200 Hz
    assert periodic[0.95] > periodic[0.05] + 0.3
    assert np.abs(sounds[0.05]).max() == pytest.approx(0.7)


def test_files_hold_the_arrays_and_the_truth_stands_apart(tmp_path: Path) -> None:
    streams = {"mr": Shown("volume", (8, 9, 10)), "xray": Shown("image", (10, 14)), "cough": SOUND}
    cohort = simulate_streams("additive", 5, 4, streams, classes=4, pairing="class", scene="limb")
    table = write_cohort(tmp_path, cohort)
    with table.open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["case_id", "patient_id", "mr", "xray", "cough", "label", "pairing"]
    assert {row["pairing"] for row in rows} == {"class"}
    volume = nib.load(tmp_path / rows[2]["mr"])
    np.testing.assert_allclose(np.asarray(volume.dataobj) / 100 - 10, cohort.array("mr", 2), atol=0.006)
    picture = np.asarray(Image.open(tmp_path / rows[2]["xray"]), float)
    assert picture.shape == (14, 10)  # rows, columns
    np.testing.assert_allclose(picture[0, 0] / 2500 - 6, cohort.array("xray", 2)[-1, -1], atol=6e-4)
    rate, samples = wavfile.read(tmp_path / rows[2]["cough"])
    assert rate == RATE_HZ
    np.testing.assert_allclose(samples / 32767, cohort.array("cough", 2), atol=2e-5)
    with (tmp_path / "truth.csv").open() as stream:
        truth = list(csv.DictReader(stream))
    np.testing.assert_allclose([float(row["posterior_3"]) for row in truth], cohort.cues.posterior[:, 3])
    np.testing.assert_allclose([float(row["xray_posterior_1"]) for row in truth], cohort.cues.alone[:, 1, 1])
    with pytest.raises(UsageError, match="E_OUT"):
        write_cohort(tmp_path, cohort)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    main = runpy.run_path(str(SCRIPT))["main"]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        main(tmp_path / name, cases=2, seconds=0.5, seed=seed)
    hashes = {
        name: [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((tmp_path / name).rglob("*")) if p.is_file()]
        for name in "abc"
    }
    assert hashes["a"] == hashes["b"] != hashes["c"] and len(hashes["a"]) == 2 * 3 + 2


def test_four_class_layout_has_no_common_stems_and_a_truth_for_every_file(tmp_path: Path) -> None:
    truth = write_four_classes(tmp_path, (12, 6, 6), seed=3)
    with truth.open() as stream:
        rows = list(csv.DictReader(stream))
    files = {path.relative_to(tmp_path).as_posix() for part in PARTS for path in (tmp_path / part).rglob("*.*")}
    assert files == {row["file"] for row in rows} and len(files) == 3 * 24
    assert {Path(file).parts[1] for file in files} == set(FOUR_CLASSES)
    assert all(CLASSES[int(row["label"])] == Path(row["file"]).parts[2] for row in rows)
    stems = [Path(file).stem for file in files if file.startswith("train")]
    assert len(set(stems)) == len(stems)
    assert len({Path(file).parent for file in files}) == 3 * 3 * 4  # no class's folder is missing
    with pytest.raises(UsageError, match="E_OUT"):
        write_four_classes(tmp_path)
    with pytest.raises(UsageError, match="E_CONFIG"):
        write_four_classes(tmp_path / "few", (8, 4, 3))
    with pytest.raises(UsageError, match=r"E_CONFIG.*got friend"):
        write_four_classes(tmp_path / "few", (8, 4, 4), pairing="friend")  # type: ignore[arg-type]


def test_the_layout_may_name_the_files_of_a_patient_alike(tmp_path: Path) -> None:
    """The streams of one name are one patient's: the joint posterior tells more than the best of one stream."""
    truth = read_rows(write_four_classes(tmp_path, (300, 4, 4), pairing="patient"), ["file", "label"])
    named: dict[str, list[dict[str, str]]] = {}
    for row in truth:
        if row["file"].startswith("train"):
            named.setdefault(Path(row["file"]).stem, []).append(row)
    assert len(named) == 300 and {len(rows) for rows in named.values()} == {3}
    assert all(len({row["label"] for row in rows}) == 1 for rows in named.values())


@pytest.mark.parametrize(
    "wrong",
    [{"classes": 3}, {"mechanism": "sum"}, {"count": 0}, {"pairing": "visit"}, {"scene": "hand"}],
)
def test_what_there_is_not_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="E_CONFIG"):
        simulate_streams(**{"mechanism": "additive", "count": 4, "seed": 0, **wrong})


@pytest.mark.parametrize("wrong", [("image", (24,)), ("volume", (16, 16, 4)), ("sound", (100,)), ("video", (9, 9))])
def test_streams_of_another_kind_or_size_are_refused(wrong: tuple[str, tuple[int, ...]]) -> None:
    with pytest.raises(UsageError, match="E_CONFIG"):
        Shown(*wrong)
