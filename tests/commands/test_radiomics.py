"""`tandem radiomics`: what it measures on whose files, and what becomes of files that cannot be measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from pipeline import api
from pipeline.commands.radiomics_files import SHOWN, write_pages
from pipeline.errors import UsageError
from pipeline.radiomics import extract, preset
from pipeline.radiomics.table import KEYS, read_csv
from tests.tandem_process import call

AFFINE = np.array([[-1.0, 0, 0, 30], [0, 1.5, 0, -20], [0, 0, 2.0, 5], [0, 0, 0, 1]])
SHAPE = (24, 20, 16)
CONFIG = "families: [morph, stat]\n"
rng = np.random.default_rng(5)
IMAGE = rng.normal(100, 10, SHAPE).astype(np.float32)
MASK = np.zeros(SHAPE, np.uint8)
MASK[4:12, 5:12, 4:10] = 1
MASK[14:20, 5:12, 4:10] = 2


def write(path: Path, values: Any, affine: Any = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "c.yaml").write_text(CONFIG)
    return {
        "image": write(tmp_path / "ct.nii.gz", IMAGE),
        "mask": write(tmp_path / "seg.nii.gz", MASK),
        "config": tmp_path / "c.yaml",
        "out": tmp_path / "made" / "features.csv",
    }


def measured(files: dict[str, Path], **more: Any) -> list[dict[str, str]]:
    given = {"images": [files["image"]], "masks": [files["mask"]], "config": [files["config"]], **more}
    api.radiomics(out=files["out"], **given)
    return read_csv(files["out"])


def test_every_label_has_a_row_with_the_values_of_its_voxels(files: dict[str, Path]) -> None:
    one, two = measured(files)
    assert [row["label"] for row in (one, two)] == ["1", "2"]
    assert float(one["stat_mean"]) == pytest.approx(IMAGE[MASK == 1].mean(dtype=np.float64), rel=1e-9)
    assert float(two["stat_max"]) == pytest.approx(float(IMAGE[MASK == 2].max()), rel=1e-9)
    assert float(two["morph_vol_approx"]) == pytest.approx(int((MASK == 2).sum()) * 3.0)  # 1 x 1.5 x 2 mm
    assert {path.name for path in files["out"].parent.iterdir()} == {
        *("features.csv", "features_by_case.csv", "features_dictionary.csv", "features_reporting.md")
    }


def test_a_mask_whose_axes_run_the_other_way_lies_where_it_lies(files: dict[str, Path], tmp_path: Path) -> None:
    expected = measured(files)
    turned = nib.as_closest_canonical(nib.load(files["mask"]))
    assert turned.affine[0, 0] > 0 > AFFINE[0, 0]
    nib.save(turned, files["mask"])
    assert measured(files) == expected


@pytest.mark.parametrize("way", ["one mask", "pairs", "table"])
def test_several_images(files: dict[str, Path], tmp_path: Path, way: str) -> None:
    pet = write(tmp_path / "pet.nii.gz", IMAGE * 2)
    both = {"images": [files["image"], pet], "masks": [files["mask"]]}
    if way == "pairs":
        both["masks"] = [files["mask"]] * 2
    if way == "table":
        (tmp_path / "t.csv").write_text("case_id,image,mask\np,ct.nii.gz,seg.nii.gz\np,pet.nii.gz,seg.nii.gz\n")
        both = {"images": [], "masks": [], "cases": tmp_path / "t.csv"}  # type: ignore[dict-item]
    rows = measured(files, labels=[1], case="p", jobs=2, **both)
    assert [(row["case_id"], row["image"]) for row in rows] == [("p", "ct"), ("p", "pet")]
    assert float(rows[1]["stat_mean"]) == pytest.approx(2 * float(rows[0]["stat_mean"]), rel=1e-6)
    (wide,) = read_csv(files["out"].with_name("features_by_case.csv"))
    assert wide["pet_seg_1_c_stat_mean"] == rows[1]["stat_mean"]


def test_a_table_says_which_configuration_and_label_an_image_has(files: dict[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    head = "case_id,image,mask,image_name,mask_name,label,config\n"
    table.write_text(head + "p,ct.nii.gz,seg.nii.gz,CT,tumour,2,c\nq,ct.nii.gz,seg.nii.gz,CT,tumour,1,ibsi_ct\n")
    rows = measured(files, images=[], masks=[], cases=table, config=[files["config"], "ibsi_ct"])
    assert [(row["image"], row["mask"], row["label"], row["configuration"]) for row in rows] == [
        ("CT", "tumour", "2", "c"),
        ("CT", "tumour", "1", "ibsi_ct"),
    ]
    expected = extract(IMAGE, MASK, AFFINE, preset("ibsi_ct")).values
    assert float(rows[1]["cm_joint_entr_3D_comb"]) == pytest.approx(expected["cm_joint_entr_3D_comb"], rel=1e-9)
    table.write_text(head + "p,ct.nii.gz,seg.nii.gz,CT,tumour,2,cc\n")
    with pytest.raises(UsageError, match="Expected one of c as config of p, got cc"):
        measured(files, images=[], masks=[], cases=table)


def test_a_bad_case_costs_itself_alone(files: dict[str, Path], tmp_path: Path) -> None:
    shifted = AFFINE.copy()
    shifted[0, 3] += 40
    holes = IMAGE.copy()
    holes[5, 6, 5] = np.nan
    write(tmp_path / "off.nii.gz", MASK, shifted)
    write(tmp_path / "small.nii.gz", MASK[:-1])
    write(tmp_path / "half.nii.gz", MASK * np.float32(0.5))
    write(tmp_path / "nan.nii.gz", holes)
    lines = ["case_id,image,mask,label", "good,ct.nii.gz,seg.nii.gz,1", "off,ct.nii.gz,off.nii.gz,1"]
    lines += ["small,ct.nii.gz,small.nii.gz,1", "half,ct.nii.gz,half.nii.gz,", "none,ct.nii.gz,seg.nii.gz,7"]
    lines += ["nan,nan.nii.gz,seg.nii.gz,1", "gone,gone.nii.gz,seg.nii.gz,1"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    done = call("radiomics", "--cases", tmp_path / "t.csv", "-c", files["config"], "-o", files["out"])
    codes = {row["case_id"]: row["error"].partition(":")[0] for row in read_csv(files["out"])}
    expected = {"good": "", "off": "E_GRID", "small": "E_GRID", "half": "E_LABEL", "none": "E_LABEL"}
    assert codes == {**expected, "nan": "E_NIFTI", "gone": "E_INPUT"}
    assert done.code == 1 and "1 rows, 6 failed" in done.out and "40.00 mm off" in done.err


def test_an_empty_mask_is_a_row_without_values(files: dict[str, Path]) -> None:
    write(files["mask"], MASK * 0)
    done = call("radiomics", "-i", files["image"], "-m", files["mask"], "-c", files["config"], "-o", files["out"])
    (row,) = read_csv(files["out"])
    assert done.code == 0 and row["flags"] == "empty" and row["stat_mean"] == "" and "1 empty" in done.out


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"config": []}, "E_CONFIG"),
        ({"config": ["ibsi_ct", "ibsi_ct"]}, "E_CONFIG"),
        ({"images": []}, "E_INPUT"),
        ({"names": "mirp"}, "E_OPTION"),
        ({"labels": [1, 0]}, "E_OPTION"),
        ({"map_radius": 2}, "E_OPTION"),
    ],
)
def test_what_cannot_start(files: dict[str, Path], more: dict[str, Any], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        measured(files, **more)
    assert caught.value.code == code and not files["out"].exists()


def test_the_same_case_twice(files: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="Expected each case once, got ct") as caught:
        measured(files, images=[files["image"]] * 2)
    assert caught.value.code == "E_ROWS"


def test_pages_show_every_region(files: dict[str, Path]) -> None:
    import pymupdf

    measured(files, page=True)
    page = files["out"].with_suffix(".html").read_text()
    assert page.count("<h2>") == 2 and page.count("data:image/jpeg") == 2 and "Not a medical device" in page
    with pymupdf.open(files["out"].with_suffix(".pdf")) as pdf:
        text = "".join(sheet.get_text() for sheet in pdf)
        assert "ct: seg, 2 in ct" in text and sum(len(sheet.get_images()) for sheet in pdf) == 2


def test_columns_by_pyradiomics_names(files: dict[str, Path]) -> None:
    one, _ = measured(files, names="pyradiomics")
    assert float(one["shape_VoxelVolume"]) == int((MASK == 1).sum()) * 3.0
    assert "firstorder_Kurtosis" not in one and "stat_kurt" not in one
    listed = {item["ibsi_tag"]: item["column"] for item in read_csv(files["out"].with_name("features_dictionary.csv"))}
    assert listed["stat_mean"] == "firstorder_Mean" and listed["stat_kurt"] == ""


def test_how_many_features_pyradiomics_does_not_name_is_said(files: dict[str, Path]) -> None:
    files["config"].write_text("families: [stat, cm]\naggregations: [3D_comb]\n")
    given = ("radiomics", "-i", files["image"], "-m", files["mask"], "-c", files["config"], "-o", files["out"])
    done = call(*given, "--names", "pyradiomics")
    stat, texture = (
        18,
        25,
    )  # IBSI 3.3 and 3.6; PyRadiomics averages over directions, so that no merged matrix has a name
    named = len(set(read_csv(files["out"])[0]) - set(KEYS))
    assert f"{stat + texture - named} of {stat + texture} features have no name of pyradiomics" in done.out


def test_regions_that_nothing_perturbs_agree_wholly(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "still.yaml").write_text("chain: []\nversions: 2\n")
    other = write(tmp_path / "other.nii.gz", np.roll(MASK, 3, 1))
    write(tmp_path / "again.nii.gz", IMAGE + 5)
    table = "case_id,image,mask,image_name,mask_name,label\na,ct.nii.gz,seg.nii.gz,CT,T,1\n"
    (tmp_path / "t.csv").write_text(f"{table}b,again.nii.gz,{other.name},CT,T,2\n")
    measured(files, images=[], masks=[], cases=tmp_path / "t.csv", robustness=str(tmp_path / "still.yaml"))
    rows = read_csv(files["out"].with_name("features_robustness.csv"))
    found = {row["feature"]: row for row in rows if row["region"] == "1"}
    assert found["stat_mean"]["icc_1_1"] == ""  # one region of label 1 alone
    (tmp_path / "t.csv").write_text(f"{table}b,again.nii.gz,{other.name},CT,T,1\n")
    measured(files, images=[], masks=[], cases=tmp_path / "t.csv", robustness=str(tmp_path / "still.yaml"))
    agreed = {row["feature"]: row for row in read_csv(files["out"].with_name("features_robustness.csv"))}
    assert (agreed["stat_mean"]["icc_1_1"], agreed["stat_mean"]["regions"]) == ("1.0", "2")
    assert agreed["morph_volume"]["icc_1_1"] == ""  # both boxes are alike: there is no variance to share out


@pytest.mark.parametrize(("text", "words"), [("version: 3\n", "did you mean `versions`"), ("chain: [spin]\n", "chain")])
def test_perturbations_that_there_are_not(files: dict[str, Path], tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        measured(files, robustness=str(tmp_path / "p.yaml"))
    assert caught.value.code == "E_CONFIG"


def test_a_map_is_the_feature_of_the_cube_around_each_voxel(files: dict[str, Path]) -> None:
    done = call(
        "radiomics",
        "-i",
        files["image"],
        "-m",
        files["mask"],
        "-c",
        files["config"],
        "-o",
        files["out"],
        "--label",
        1,
        "--map",
        "stat_mean",
    )
    assert done.code == 0
    (path,) = files["out"].with_name("features_maps").iterdir()
    assert path.name == "ct_ct_seg_1_c_stat_mean.nii.gz"
    found = nib.as_closest_canonical(nib.load(path))
    image, mask = (nib.as_closest_canonical(nib.load(files[name])).get_fdata() for name in ("image", "mask"))
    inside = mask == 1
    assert (np.isfinite(found.get_fdata()) == inside).all()
    for i, j, k in np.argwhere(inside)[::37]:
        cube = tuple(slice(max(0, at - 1), at + 2) for at in (i, j, k))
        assert found.get_fdata()[i, j, k] == pytest.approx(image[cube][inside[cube]].mean(), rel=1e-5)


def test_a_map_of_nothing(files: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="did you mean `stat_mean`") as caught:
        measured(files, maps=["stat_meen"])
    assert caught.value.code == "E_CONFIG"


def test_a_filtered_image_is_measured_and_said(files: dict[str, Path]) -> None:
    files["config"].write_text("families: [stat]\nfilter: {kind: mean, size: 3, dimensions: 3D, boundary: mirror}\n")
    one, _ = measured(files)
    from scipy.ndimage import uniform_filter

    truth = uniform_filter(IMAGE.astype(np.float64), 3, mode="reflect")[MASK == 1]
    assert float(one["stat_mean"]) == pytest.approx(truth.mean(), rel=1e-9)
    assert float(one["stat_var"]) == pytest.approx(truth.var(), rel=1e-9)
    assert "kind mean" in files["out"].with_name("features_reporting.md").read_text()


def test_a_device_that_there_is_not(files: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="cuda:9"):
        measured(files, device="cuda:9")


def test_a_label_named_twice_is_measured_once(files: dict[str, Path]) -> None:
    assert [row["label"] for row in measured(files, labels=[2, 2])] == ["2"]


@pytest.mark.parametrize("out", ["features.nii.gz", "folder.csv", "ct.nii.gz/features.csv"])
def test_a_table_that_cannot_be_written_is_refused_at_once(files: dict[str, Path], out: str) -> None:
    folder = files["image"].parent
    (folder / "folder.csv").mkdir()
    before = files["image"].read_bytes()
    files["out"] = folder / out
    with pytest.raises(UsageError) as caught:
        measured(files, config=[files["config"]])
    assert caught.value.code == "E_OUT" and files["image"].read_bytes() == before


@pytest.mark.parametrize("name", ["features.csv", "features_by_case.csv", "features_dictionary.csv"])
def test_no_table_replaces_the_table_of_cases(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("case_id,image,mask\na,ct.nii.gz,seg.nii.gz\n")
    files["out"] = tmp_path / "features.csv"
    with pytest.raises(UsageError, match="would replace") as caught:
        measured(files, images=[], masks=[], cases=tmp_path / name)
    assert caught.value.code == "E_OUT" and (tmp_path / name).read_text().startswith("case_id,image,mask\n")


def test_what_an_earlier_table_had_beside_it_goes(files: dict[str, Path]) -> None:
    measured(files, page=True, maps=["stat_mean", "stat_max"], robustness="default")
    other = files["out"].with_name("other.html")
    other.write_text("of somebody else")
    measured(files, maps=["stat_max"], labels=[1])
    assert sorted(path.name for path in files["out"].parent.rglob("*.*")) == [
        *("ct_ct_seg_1_c_stat_max.nii.gz", "features.csv", "features_by_case.csv", "features_dictionary.csv"),
        *("features_reporting.md", "other.html"),
    ]


def test_maps_of_two_cases_are_never_one_file(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("case_id,image,mask\na b,ct.nii.gz,seg.nii.gz\na-b,ct.nii.gz,seg.nii.gz\n")
    given = {"images": [], "masks": [], "cases": tmp_path / "t.csv"}
    with pytest.raises(UsageError, match="a-b_ct_seg") as caught:
        measured(files, **given, maps=["stat_mean"])
    assert caught.value.code == "E_ROWS" and len(measured(files, **given)) == 4


def test_a_label_that_pandas_wrote_as_a_real_number(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("case_id,image,mask,label\na,ct.nii.gz,seg.nii.gz,2.0\n")
    assert [row["label"] for row in measured(files, images=[], masks=[], cases=tmp_path / "t.csv")] == ["2"]


@pytest.mark.parametrize("line", [",ct.nii.gz,seg.nii.gz", "p,,seg.nii.gz", "p,ct.nii.gz,"])
def test_a_row_of_a_table_without_what_it_needs(files: dict[str, Path], tmp_path: Path, line: str) -> None:
    (tmp_path / "t.csv").write_text(f"case_id,image,mask\n{line}\n")
    with pytest.raises(UsageError, match="in row 2 of t") as caught:
        measured(files, images=[], masks=[], cases=tmp_path / "t.csv")
    assert caught.value.code == "E_TABLE"


def test_pages_of_a_large_cohort_show_the_flagged_and_the_first_and_say_so(tmp_path: Path) -> None:
    """Percentiles are still those among all regions."""
    picture = tmp_path / "x.png"
    Image.new("RGB", (20, 10)).save(picture)
    found = []
    for number in range(SHOWN + 20):
        named = dict.fromkeys(KEYS, "") | {"case_id": f"case-{number:03d}", "image": "ct", "mask": "lesion"}
        flags = "one_slice" if number == SHOWN + 10 else ""
        found.append(({**named, "flags": flags, "morph_volume": str(float(number))}, picture if number % 2 else None))
    write_pages(tmp_path / "features.csv", found)
    page = (tmp_path / "features.html").read_text()
    assert f"{SHOWN + 20} regions, {SHOWN} of them below: those with flags, then the first." in page
    shown = [number for number in range(SHOWN + 20) if f"case-{number:03d}: lesion in ct" in page]
    assert shown == [*range(SHOWN - 1), SHOWN + 10]
    assert page.count("data:image/jpeg") == len([number for number in shown if number % 2])
