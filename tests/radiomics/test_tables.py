"""Configurations, tables of features, their dictionary, and what a page says of a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.errors import UsageError
from pipeline.learning.table import read_numbers
from pipeline.radiomics import PRESETS, Bins, Settings, extract
from pipeline.radiomics.configurations import Configuration, configuration, of_spec, read_configurations
from pipeline.radiomics.reporting import sheet
from pipeline.radiomics.summary import flag_sentences, main_rows, percentile_text, unit_in, values_of
from pipeline.radiomics.table import Row, as_csv, as_naming, by_case, columns, dictionary, read_csv, require_apart
from pipeline.spec.stages import Radiomics

SMALL = Configuration("small", Settings(families=("stat", "cm"), aggregations=("3D_avg", "3D_comb")))


def row(case_id: str = "a", image: str = "ct", mean: float | None = -1 / 3, **more: object) -> Row:
    values = {"stat_mean": mean, "stat_kurt": 2.0, "cm_contrast_3D_avg": 5.0, "cm_contrast_3D_comb": 6.0}
    given = {"mask": "tumour", "label": 1, "region": "tumour", "configuration": SMALL, "values": values, **more}
    return Row(case_id, image, **given)  # type: ignore[arg-type]


def test_a_preset_with_other_bins_is_another_configuration() -> None:
    found = configuration("mine", {"preset": "ibsi_ct", "bins": {"number": 64}})
    assert found.settings == PRESETS["ibsi_ct"].model_copy(update={"bins": Bins(number=64)})
    assert found.digest != Configuration("ibsi_ct", PRESETS["ibsi_ct"]).digest


def test_the_order_of_keys_changes_no_hash() -> None:
    one = configuration("a", {"distance": 2, "alpha": 1})
    other = configuration("b", {"alpha": 1, "distance": 2})
    assert one.digest == other.digest != configuration("a", {"distance": 1, "alpha": 1}).digest


def test_a_file_of_several_configurations(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({"configurations": {"a": {"distance": 2}, "b": {"preset": "ibsi_mr"}}}))
    assert [item.name for item in read_configurations(str(path))] == ["a", "b"]
    path.write_text("distance: 2\n")
    (alone,) = read_configurations(str(path))
    assert (alone.name, alone.settings.distance) == ("two", 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("distence: 2\n", "did you mean `distance`"),
        ("preset: ibsi_ctt\n", "did you mean `ibsi_ct`"),
        ("bins: {width: 0}\n", "bins.width"),
        ("families: [glcm]\n", "families"),
        ("- 1\n", "keys with their values"),
        ("configurations: {}\n", "keys with their values"),
        ("configurations: {a: {}}\ndistance: 2\n", "alone"),
        ("a: [\n", "YAML"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        read_configurations(str(path))
    assert caught.value.code == "E_CONFIG"


def test_a_preset_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="did you mean `ibsi_pet`"):
        read_configurations("ibsi_pett")


def test_a_data_spec_names_its_own_configurations_and_presets() -> None:
    section = Radiomics(images={"ct": "mine", "mr": ["ibsi_mr", "mine"]}, configurations={"mine": {"distance": 2}})  # type: ignore[arg-type, dict-item]
    found = of_spec(section)
    assert [item.name for item in found["mr"]] == ["ibsi_mr", "mine"]
    assert found["ct"][0].settings.distance == 2
    with pytest.raises(UsageError, match="did you mean `mine`"):
        of_spec(section.model_copy(update={"images": {"ct": ("mime",)}}))


def test_numbers_are_read_back_bit_for_bit_and_nothing_stays_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(as_csv([row().plain(), row("b", mean=None).plain()]))
    first, second = read_csv(path)
    assert float(first["stat_mean"]) == -1 / 3 and second["stat_mean"] == ""
    assert first["configuration_sha256"] == SMALL.digest


def test_a_name_that_a_spreadsheet_would_run_is_text() -> None:
    assert "'=cmd" in as_csv([row("=cmd").plain()])


def test_names_of_pyradiomics_are_given_to_what_it_defines_alike() -> None:
    plain = row().plain(as_naming("pyradiomics"))
    assert plain["firstorder_Mean"] == repr(-1 / 3) and plain["glcm_Contrast"] == "5.0"
    assert not {"stat_kurt", "firstorder_Kurtosis", "cm_contrast_3D_comb"} & set(plain)
    with pytest.raises(UsageError, match="ibsi, pyradiomics"):
        as_naming("mirp")


def test_the_same_region_twice() -> None:
    require_apart([row().plain(), row("b").plain(), row(image="mr").plain()])
    with pytest.raises(UsageError, match="two of case_id a") as caught:
        require_apart([row().plain(), row().plain()])
    assert caught.value.code == "E_ROWS"


def test_one_row_a_case_feeds_the_network_that_fuses(tmp_path: Path) -> None:
    rows = [row().plain(), row(image="mr", mean=4.0).plain(), row("b", mean=None).plain()]
    path = tmp_path / "radiomics_by_case.csv"
    path.write_text(as_csv(by_case(rows)))
    wanted = ["ct_tumour_small_stat_mean", "mr_tumour_small_stat_mean"]
    found = read_numbers(path, wanted)
    np.testing.assert_equal(found, {"a": (-1 / 3, 4.0), "b": (np.nan, np.nan)})


def test_no_two_regions_share_a_column() -> None:
    rows = [row(image="x_y", mask="t", region="t").plain(), row(image="x", mask="y_t", region="y_t", mean=4.0).plain()]
    (found,) = by_case(rows)
    assert (float(found["x_y__t__small_stat_mean"]), float(found["x__y_t__small_stat_mean"])) == (-1 / 3, 4.0)
    with pytest.raises(UsageError, match="differ in letters") as caught:
        by_case([row(image="a b").plain(), row(image="a-b").plain()])
    assert caught.value.code == "E_ROWS"


def test_the_dictionary_has_codes_units_and_pyradiomics_names() -> None:
    (mean,) = [item for item in dictionary(row().values) if item["column"] == "stat_mean"]
    assert (mean["ibsi_code"], mean["unit"], mean["pyradiomics"]) == ("Q4LE", "x", "firstorder_Mean")
    (contrast,) = [item for item in dictionary(row().values) if item["column"] == "cm_contrast_3D_avg"]
    assert (contrast["ibsi_code"], contrast["ibsi_aggregation"]) == ("ACUI", "ITBB")
    assert list(columns(row().values)) == ["stat_mean", "stat_kurt", "cm_contrast_3D_avg", "cm_contrast_3D_comb"]


def test_percentiles_count_ties_half_and_need_a_cohort() -> None:
    assert percentile_text("3.0", [1.0, 2.0, 3.0, 4.0, 5.0]) == "50 % of 5"
    assert percentile_text("5.0", [1.0, 5.0, 5.0, 5.0, 5.0]) == "60 % of 5"
    assert percentile_text("3.0", [1.0, 3.0]) == "–" and percentile_text("", [1.0] * 9) == "–"


def test_what_a_page_says_of_a_row() -> None:
    plain = row(flags=("few_voxels",), error="").plain()
    assert ("Mean", "-0.3333 HU", "–") in list(main_rows(plain, {"stat_mean": "HU"}, values_of([plain])))
    assert flag_sentences(plain) == ("The region has less than 75 voxels.",)
    assert flag_sentences(row(error="E_GRID: no.").plain()) == ("E_GRID: no.",)
    assert [unit_in(unit, "HU") for unit in ("1", "x²", "mm³")] == ["", "HU²", "mm³"] and unit_in("x", "") == ""


def test_the_reporting_sheet_says_every_setting() -> None:
    text = sheet([Configuration("ct", PRESETS["ibsi_ct"])], {"tandem-imaging": "1.2"}, "rigid")
    for words in ("2 x 2 x 2 mm", "from -1000 to 400", "fixed bin size, 25, from -1000", "tandem-imaging 1.2", "rigid"):
        assert words in text
    plain = sheet([Configuration("raw", Settings(bins=None, outliers_sd=3, range=(0, None)))], {})
    for words in ("the image's own grid", "from 0", "beyond 3 standard", "the values are levels", "the study's to say"):
        assert words in plain


def test_rows_hold_what_is_extracted() -> None:
    image = np.random.default_rng(0).normal(0, 5, (8, 8, 8))
    found = extract(image, np.ones(image.shape, np.uint8), np.eye(4), SMALL.settings)
    plain = row(values=found.values).plain()
    assert float(plain["stat_mean"]) == pytest.approx(image.mean(), rel=1e-12)
