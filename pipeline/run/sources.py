"""Where ingest's cases come from: a tree of DICOM files, or one of NIfTI files, as the data spec says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.cases import Fault
from pipeline.console import echo
from pipeline.dicom.ingest import FindSeries
from pipeline.nifti.ingest import FindFiles
from pipeline.registration.landmarks import landmarks_key
from pipeline.spec.paths import compile_pattern, owner
from pipeline.spec.spec import Spec
from pipeline.store.files import walk
from pipeline.store.pseudonyms import Pseudonyms

Case = dict[str, Any]
_SHARPEN = "Sharpen `register.landmarks` in the data spec: one file for each role of a case."


def find_cases(dataset_dir: str | Path, output_dir: str | Path, spec: Spec) -> Callable[[], list[Case]]:
    """What finds the cases of an input folder.

    Args:
        dataset_dir: the input folder.
        output_dir: the run folder.
        spec: with `files` for its roles: NIfTI; without: DICOM. With `register.landmarks`: their files too.
    """
    find = (FindFiles if spec.from_files else FindSeries)(dataset_dir, output_dir, spec)
    return FindLandmarks(find, Path(dataset_dir), Path(output_dir), spec) if spec.landmark_files else find


class FindLandmarks:
    """Find the landmark files of cases: `{case}` is the patient, as for NIfTI; with DICOM it is the PatientID.

    Args:
        find: finds the cases.
        dataset_dir: the input folder.
        output_dir: the run folder.
        spec: with `register.landmarks`.
    """

    def __init__(self, find: Callable[[], list[Case]], dataset_dir: Path, output_dir: Path, spec: Spec) -> None:
        self.find = find
        self.dataset_dir = dataset_dir
        self.output_dir = output_dir
        self.patterns = {role: compile_pattern(pattern) for role, pattern in spec.landmark_files.items()}

    def __call__(self) -> list[Case]:
        """The cases, each with a path under `<role>_landmarks` where a file fits, and else with a flag.

        Raises:
            UsageError: what finding the cases raises.
        """
        cases = self.find()
        files = self._files()
        for case in cases:
            for role in self.patterns:
                self._give(case, role, files.pop((case["case_id"], role), []))
        if files:
            echo(f"{sum(map(len, files.values()))} files of landmarks belong to no case", error=True)
        return cases

    def _files(self) -> dict[tuple[str, str], list[Path]]:
        """The files by case id and role."""
        names = Pseudonyms(self.output_dir)
        found: defaultdict[tuple[str, str], list[Path]] = defaultdict(list)
        for path in walk(self.dataset_dir):
            relative = path.relative_to(self.dataset_dir).as_posix()
            for role, pattern in self.patterns.items():
                if match := pattern.fullmatch(relative):
                    found[names.of("case", *owner(match)), role].append(path)
        return dict(found)

    def _give(self, case: Case, role: str, files: list[Path]) -> None:
        if role not in case:
            return
        if len(files) > 1:
            case["fault"] = case["fault"] or Fault(
                "E_AMBIGUOUS", f"{len(files)} files fit {landmarks_key(role)}.", _SHARPEN
            )
        elif files:
            case[landmarks_key(role)] = files[0]
        else:
            case["flags"] = [*case["flags"], f"N_NO_LANDMARKS: {role}: no file fits"]
