"""Masks on other images' native grids, by saved alignments: against spheres whose place is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from monai.data import MetaTensor

from pipeline.geometry import LPS_RAS, apply
from pipeline.registration.carry import Carried, CarryLabelsd, aligned_masks, mask_keys, masks_to_carry, transform_kinds
from pipeline.spec.register import Moving, Register
from pipeline.spec.roles import Mask, Role
from pipeline.spec.spec import Spec
from pipeline.spec.stages import Radiomics
from pipeline.volumes import affine_of, volume

RADIUS_MM = 9.0
#: Where points of the fixed image lie in the MR and in the PET, RAS mm.
SHIFTS = {"mr": np.array([6.13, -4.29, 3.37]), "pet": np.array([-5.41, 2.17, 7.91])}
GRIDS = {
    "ct": np.diag([1.0, 1.0, 1.5, 1.0]),
    "mr": np.array([[0, 0, 1.2, 0], [1.0, 0, 0, -8], [0, -1.0, 0, 60], [0, 0, 0, 1]]),
    "pet": np.array([[-2.0, 0, 0, 70.3], [0, 2.0, 0, -10.6], [0, 0, 2.0, -9.7], [0, 0, 0, 1]]),
}
CENTRE = np.array([24.0, 22.0, 25.0])


def sphere(role: str) -> MetaTensor:
    """The sphere of CENTRE, which lies in the CT, on an image's own grid."""
    shape, affine = (48, 48, 48), GRIDS[role]
    points = apply(affine, np.indices(shape).reshape(3, -1).T)
    inside = np.linalg.norm(points - CENTRE - SHIFTS.get(role, 0), axis=1) <= RADIUS_MM
    return volume(inside.reshape(shape).astype(np.uint8), affine)


def case(folder: Path, verdict: str = "pass") -> dict[Any, Any]:
    """Images and masks, and what registration leaves of a translation."""
    found: dict[Any, Any] = {role: sphere(role) for role in GRIDS}
    found |= {"on_ct": sphere("ct"), "on_pet": sphere("pet")}
    for role, shift in SHIFTS.items():
        lps = apply(LPS_RAS, shift[None])[0]
        for name, sign in (("transform", 1), ("inverse", -1)):
            path = folder / f"{role}_{name}.h5"
            sitk.WriteTransform(sitk.TranslationTransform(3, (sign * lps).tolist()), str(path))
            found[f"{role}_{name}"] = path
        quality = folder / f"{role}_quality.json"
        quality.write_text(json.dumps({"verdict": verdict if role == "mr" else "warn"}))
        found[f"{role}_quality"] = quality
    return found


ONTO = [Carried("a", "on_ct", "ct", "mr"), Carried("b", "on_pet", "pet", "mr"), Carried("c", "on_ct", "ct", "pet")]


def looked_up(role: str, of: str) -> Any:
    """The label of the nearest voxel of the mask, for every voxel of an image, counted without any transform."""
    shape = (48, 48, 48)
    points = apply(GRIDS[role], np.indices(shape).reshape(3, -1).T) - SHIFTS.get(role, 0) + SHIFTS.get(of, 0)
    nearest = np.rint(apply(np.linalg.inv(GRIDS[of]), points)).astype(int)
    seen = ((nearest >= 0) & (nearest < shape)).all(1)
    values = np.zeros(len(points), np.uint8)
    values[seen] = sphere(of).numpy()[0][tuple(nearest[seen].T)]
    return values.reshape(shape)


@pytest.mark.parametrize(("key", "of", "role"), [("a", "ct", "mr"), ("b", "pet", "mr"), ("c", "ct", "pet")])
def test_a_carried_mask_has_the_label_of_the_nearest_voxel(tmp_path: Path, key: str, of: str, role: str) -> None:
    found = CarryLabelsd(ONTO, "ct")(case(tmp_path))[key]
    assert (affine_of(found) == GRIDS[role]).all()
    assert (found.numpy()[0] == looked_up(role, of)).all() and found.any()
    middle = apply(GRIDS[role], np.argwhere(found.numpy()[0])).mean(0)
    assert np.linalg.norm(middle - CENTRE - SHIFTS[role]) < 1.0


def test_a_failed_alignment_carries_nothing(tmp_path: Path) -> None:
    found = CarryLabelsd(ONTO, "ct")(case(tmp_path, "fail"))
    assert "c" in found and not {"a", "b"} & set(found)


def test_what_a_case_lacks_is_not_carried(tmp_path: Path) -> None:
    data = case(tmp_path)
    for key in ("on_pet", "pet_inverse"):
        del data[key]
    found = CarryLabelsd(ONTO, "ct")(data)
    assert "a" in found and not {"b", "c"} & set(found)


def test_which_masks_a_spec_carries_where() -> None:
    roles = {role: Role(modality=(kind,)) for role, kind in (("ct", "CT"), ("mr", "MR"), ("pet", "PT"))}
    masks = {name: Mask(of=of, labels={"gtv": "gtv"}) for name, of in (("on_ct", "ct"), ("on_pet", "pet"))}
    register = Register(fixed="ct", moving={"mr": Moving(), "pet": Moving()})
    section = Radiomics(images={"ct": ("ibsi_ct",), "mr": ("ibsi_mr",)})
    spec = Spec(name="s", description="d", roles=roles, masks=masks, register=register, radiomics=section)
    expected = {("on_pet", "ct"): "on_pet_aligned", ("on_ct", "mr"): "on_ct_on_mr", ("on_pet", "mr"): "on_pet_on_mr"}
    assert mask_keys(spec) == expected
    assert aligned_masks(spec) == {"on_pet_aligned": "label?"}
    carried = masks_to_carry(spec)
    assert {(item.key, item.mask, item.of, item.role) for item in carried} == {
        ("on_ct_on_mr", "on_ct", "ct", "mr"),
        ("on_pet_on_mr", "on_pet", "pet", "mr"),
    }
    assert set(transform_kinds(carried, "ct")) == {
        f"{role}_{name}" for role in ("mr", "pet") for name in ("transform", "inverse", "quality")
    }
