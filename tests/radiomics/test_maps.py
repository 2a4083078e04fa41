"""Maps of features: at each voxel what the cube around it has by itself, whatever is measured at a time."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.transform import Rotation

from pipeline.errors import UsageError
from pipeline.geometry import apply
from pipeline.radiomics import MAP_FAMILIES, Bins, Maps, Settings, extract, feature_maps, tags
from pipeline.radiomics.features import Upright
from pipeline.radiomics.maps import Cubes
from pipeline.radiomics.prepare import prepared
from pipeline.radiomics.settings import AGGREGATIONS
from tests.radiomics import definitions as by_hand

Array = npt.NDArray[Any]
TEXTURE = ("cm", "rlm", "szm", "dzm", "ngt", "ngl")
EVERY = tags(TEXTURE, AGGREGATIONS)
#: Levels of the whole region go into these; of a cube that is cut out, `extract` knows its own highest only.
BY_BINS = ("cm_inv_diff_norm", "cm_inv_diff_mom_norm")
#: Slices along the first axis, of 3 mm; oblique, with a flip; pixels of 1.9 and 1.5 mm.
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", (4, -7, 9), degrees=True).as_matrix() @ [
    [0, 1.9, 0],
    [0, 0, 1.5],
    [-3, 0, 0],
]
OBLIQUE[:3, 3] = 5, -7, 9


def levels_of(seed: int, shape: tuple[int, int, int] = (9, 8, 7)) -> Array:
    """Levels with holes, up to the border; a corner stands alone, as do a line and a slice."""
    random = np.random.default_rng(seed)
    levels = random.integers(1, 6, shape) * (random.random(shape) < 0.8)
    levels[:3, :3, :3], levels[-3:, :, 4:] = 0, 0
    levels[0, 0, 0], levels[0, 0, 2], levels[-1, :, -1] = 4, 3, 2
    return levels


def around(levels: Array, voxel: Array, radius: int) -> Array:
    """A cube, 0 beyond the edge."""
    i, j, k = (slice(place, place + 2 * radius + 1) for place in voxel)
    return np.pad(levels, radius)[i, j, k]


def plain(radius: int = 1, **settings: Any) -> tuple[Settings, int]:
    return Settings(bins=None, ivh_bins=None, families=TEXTURE, **settings), radius


@pytest.mark.parametrize(
    ("case", "affine"),
    [
        (plain(), np.eye(4)),
        (plain(2), np.eye(4)),
        (plain(2, distance=2, alpha=1), np.eye(4)),
        (plain(), OBLIQUE),
    ],
)
def test_each_voxel_has_what_extract_measures_of_the_cube(case: tuple[Settings, int], affine: Array) -> None:
    (settings, radius), levels = case, levels_of(0)
    upright = Upright.of(levels.astype(float), (levels > 0).astype(np.uint8), affine, 1)
    region = prepared(upright.image, upright.mask, upright.spacing_mm, settings)
    start = np.argwhere(upright.mask).min(0) - np.argwhere(region.value_mask).min(0)
    cubes = Cubes(region, settings, radius)
    found = {tuple(voxel): row for some in cubes.measured(EVERY, 4.0) for voxel, row in in_rows(*some)}
    assert len(found) == np.count_nonzero(levels)
    turned = levels.transpose(upright.order)
    for voxel in list(found)[:: len(found) // 12]:
        cube = around(turned, np.array(voxel) + start, radius)
        wanted = extract(cube.astype(float), (cube > 0).astype(np.uint8), np.eye(4), settings).values
        for tag, value in wanted.items():
            if not tag.startswith(BY_BINS):
                assert found[voxel][tag] == pytest.approx(np.nan if value is None else value, rel=1e-9, nan_ok=True), (
                    tag
                )


def in_rows(voxels: Array, found: dict[str, Array]) -> Any:
    for number, voxel in enumerate(voxels.tolist()):
        yield tuple(voxel), {tag: values[number] for tag, values in found.items()}


def mapped(levels: Array, *wanted: str, **options: Any) -> Maps:
    """Of levels as they are."""
    mask = (levels > 0).astype(np.uint8)
    return feature_maps(levels.astype(float), mask, np.eye(4), plain()[0], wanted, **options)


def test_pairs_against_loops_with_the_whole_regions_levels() -> None:
    levels = levels_of(1)
    names = ["inv_diff_norm", "inv_diff_mom_norm", "joint_entr", "clust_prom", "info_corr2"]
    wanted = [f"cm_{name}_{kind}" for name in names for kind in AGGREGATIONS]
    maps = mapped(levels, *wanted).values
    for voxel in map(tuple, np.add(np.argwhere(levels[3:6, :5]), (3, 0, 0))[::20].tolist()):
        for kind, each in by_hand.by_aggregation(around(levels, np.array(voxel), 1), by_hand.pairs).items():
            features = by_hand.mean_of([by_hand.pair_features(matrix, 5) for matrix in each if matrix.any()])
            for name in names:
                assert maps[f"cm_{name}_{kind}"][voxel] == pytest.approx(features[name], rel=2e-7), (name, kind)


def test_values_do_not_depend_on_how_many_are_measured_at_a_time() -> None:
    levels = levels_of(2)[3:7, 2:6, :6]
    wanted = [*EVERY, "stat_kurt", "ih_mode"]
    whole = mapped(levels, *wanted).values
    for memory_mb in (1e-6, 0.9, 3.0):
        parts = mapped(levels, *wanted, memory_mb=memory_mb).values
        for tag in wanted:
            np.testing.assert_array_equal(whole[tag], parts[tag], tag)


@pytest.mark.parametrize("bins", [5, 2000])
def test_memory_has_a_limit(bins: int) -> None:
    random, limit = np.random.default_rng(3), 12.0
    image, mask = random.normal(size=(9, 10, 8)), np.ones((9, 10, 8), np.uint8)
    wanted = [next(tag for tag in EVERY if tag.startswith(f"{family}_") and "3D" in tag) for family in TEXTURE]
    tracemalloc.start()
    feature_maps(image, mask, np.eye(4), Settings(bins=Bins(number=bins)), wanted, memory_mb=limit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / 2**20 < limit + 2  # and the maps


def test_nothing_where_a_feature_is_undefined() -> None:
    levels = levels_of(3)
    maps = mapped(levels, "cm_contrast_3D_comb", "cm_contrast_2D_comb", "rlm_sre_2D_comb", "ngt_contrast_2_5D").values
    for values in maps.values():
        assert np.isnan(values[levels == 0]).all()
    alone = {tag: values[0, 0, 0] for tag, values in maps.items()}
    assert alone.pop("rlm_sre_2D_comb") == 1 and np.isnan(list(alone.values())).all()
    # a row of one level, in one slice
    assert maps["cm_contrast_2D_comb"][-1, 3, -1] == 0 and np.isnan(maps["cm_contrast_3D_comb"][-1, 3, -1])
    assert not np.isnan(maps["cm_contrast_3D_comb"][4, 4, 4])


def test_statistics_and_histogram() -> None:
    random = np.random.default_rng(4)
    image, mask = random.normal(10, 3, (7, 8, 6)), (random.random((7, 8, 6)) < 0.7).astype(np.uint8)
    maps = feature_maps(image, mask, np.eye(4), Settings(bins=Bins(width=2)), ["stat_var", "ih_mean"]).values
    assert set(MAP_FAMILIES) == {"stat", "ih", *TEXTURE}
    levels = np.floor((image - image[mask == 1].min()) / 2) + 1
    for voxel in np.argwhere(mask)[::20]:
        inside = around(mask, voxel, 1) > 0
        assert maps["stat_var"][tuple(voxel)] == pytest.approx(around(image, voxel, 1)[inside].var(), rel=1e-6)
        assert maps["ih_mean"][tuple(voxel)] == pytest.approx(around(levels, voxel, 1)[inside].mean(), rel=1e-6)


def test_a_resampled_map_lies_where_its_affine_says() -> None:
    shape, slope = (9, 16, 20), np.array([1.0, -2.0, 0.5])
    image = (apply(OBLIQUE, np.argwhere(np.ones(shape))) @ slope).reshape(shape)
    mask = np.zeros(shape, np.uint8)
    mask[2:-2, 3:-3, 4:-4] = 3
    settings = Settings(spacing_mm=(1.3, None, 2.0))
    found = feature_maps(image, mask, OBLIQUE, settings, ["stat_mean"], label=3)
    values = found.values["stat_mean"]
    known = np.argwhere(np.isfinite(values))
    # the settings' axes: slices, which are the image's first axis, come last
    np.testing.assert_allclose(np.linalg.norm(found.affine[:3, :3], axis=0)[[1, 2, 0]], [1.3, 1.5, 2.0])
    inner = [voxel for voxel in known if around(np.isfinite(values), voxel, 1).all()]
    assert len(inner) > 200
    wanted = apply(found.affine, np.array(inner)) @ slope
    np.testing.assert_allclose(values[tuple(np.array(inner).T)], wanted, rtol=1e-5, atol=1e-4)


def test_one_slice_and_no_region() -> None:
    levels = levels_of(5)[:, :, 3:4]
    maps = mapped(levels, "cm_contrast_2D_avg", "cm_contrast_3D_avg", radius_voxels=2).values
    assert np.isnan(maps["cm_contrast_3D_avg"]).all() and np.isfinite(maps["cm_contrast_2D_avg"]).any()
    assert np.isnan(mapped(np.zeros((4, 5, 6)), "cm_contrast_3D_avg").values["cm_contrast_3D_avg"]).all()
    away = Settings(range=(1e6, None))
    nothing = feature_maps(levels_of(5), levels_of(5) > 0, np.eye(4), away, ["stat_mean"]).values["stat_mean"]
    assert nothing.shape == (9, 8, 7) and np.isnan(nothing).all()


@pytest.mark.parametrize(
    ("tag", "options", "words"),
    [
        ("cm_joint_ent_3D_avg", {}, "cm_joint_entr_3D_avg"),
        ("morph_volume", {}, "got morph_volume"),
        ("stat_mean", {"radius_voxels": 0}, "Expected a radius above 0, got 0"),
        ("stat_mean", {"memory_mb": 0.0}, "memory in MB above 0, got 0"),
    ],
)
def test_what_is_refused(tag: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        mapped(levels_of(6), tag, **options)
    assert error.value.code == "E_CONFIG"
