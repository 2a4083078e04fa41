"""Where ingest's cases come from: a tree of DICOM files, or one of NIfTI files, as the data spec says."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.cases import Fault
from pipeline.console import echo
from pipeline.dicom.ingest import FindSeries
from pipeline.errors import UsageError
from pipeline.nifti.ingest import FindFiles
from pipeline.registration.landmarks import landmarks_key
from pipeline.run.plan import STAGES
from pipeline.spec.paths import compile_pattern, name_below, owner
from pipeline.spec.spec import Spec
from pipeline.store import records
from pipeline.store.files import require_apart, walk
from pipeline.store.pseudonyms import Pseudonyms
from pipeline.words import counted

Case = dict[str, Any]
_SHARPEN = "Sharpen `register.landmarks` in the data spec: one file for each role of a case."


class FindInput:
    """What finds the cases of an input folder; `finder` does so without files of landmarks."""

    def __init__(self, finder: FindSeries | FindFiles, dataset_dir: Path, output_dir: Path, spec: Spec) -> None:
        self.finder, self._root, self._out, self._spec = finder, dataset_dir, output_dir, spec
        self._landmarks: dict[Path, str] = {}

    def __call__(self) -> list[Case]:
        """The cases; those of a former run that are not among them are set aside, if all of the folder was read."""
        cases = self.all()
        gone = records.absent(self._out, STAGES[0], {case["case_id"] for case in cases})
        told = counted(len(gone), "case")
        if gone and self.finder.unreadable:
            echo(f"{told} of an earlier run stay as they are: their files may be among those not read.", error=True)
        elif gone:
            records.withdraw(self._out, gone)
            echo(f"{told} of an earlier run withdrawn: the input holds no file of theirs any more.", error=True)
        return cases

    @property
    def owners(self) -> dict[Path, str]:
        """After a call: which case each file belongs to of which that is known."""
        return {**self.finder.owners, **self._landmarks}

    def all(self) -> list[Case]:
        """The cases, each with a path under `<role>_landmarks` where a file fits, and else with a flag.

        `{case}` is the patient, as for NIfTI; with DICOM it is the PatientID.
        """
        cases = [self._doubted(case) for case in self.finder()]
        patterns = {role: compile_pattern(pattern) for role, pattern in self._spec.landmark_files.items()}
        if not patterns:
            return cases
        names, self._landmarks = Pseudonyms(self._out), {}
        files: defaultdict[tuple[str, str], list[Path]] = defaultdict(list)
        for path in walk(self._root):
            if path.name.startswith("._"):  # macOS leaves one beside each file on foreign disks
                continue
            for role, pattern in patterns.items():
                if match := pattern.fullmatch(name_below(self._root, path)):
                    self._landmarks[path] = names.of("case", *owner(match))
                    files[self._landmarks[path], role].append(path)
        for case in cases:
            for role in patterns:
                _give(case, role, files.pop((case["case_id"], role), []))
        if files:
            echo(f"{sum(map(len, files.values()))} files of landmarks belong to no case", error=True)
        return cases

    def _doubted(self, case: Case) -> Case:
        """What is missing may be among what could not be read."""
        fault, number = case["fault"], self.finder.unreadable
        if not (number and fault and fault.code == "E_MISSING_ROLE"):
            return case
        message = f"{fault.message} It may be among what could not be read: {counted(number, 'file or folder')}."
        return {**case, "fault": replace(fault, message=message, remedy=f"Look at these first. {fault.remedy}")}


def find_cases(dataset_dir: str | Path, output_dir: str | Path, spec: Spec, readers: int = 0) -> FindInput:
    """What finds the cases of an input folder.

    Args:
        dataset_dir: the input folder.
        output_dir: the run folder.
        spec: with `files` for its roles: NIfTI; without: DICOM. With `register.landmarks`: their files too.
        readers: how many processes read headers of DICOM; 0: one for each core.

    Raises:
        UsageError: E_OUT when the run folder lies in the input folder; E_OPTION.
    """
    if readers < 0:
        raise UsageError("E_OPTION", f"Expected `readers` of 0 or more, got {readers}.")
    root, out = Path(dataset_dir), Path(output_dir)
    require_apart(out, root)
    find = FindFiles(root, out, spec) if spec.from_files else FindSeries(root, out, spec, readers)
    return FindInput(find, root, out, spec)


def _give(case: Case, role: str, files: list[Path]) -> None:
    if role not in case:
        return
    key = landmarks_key(role)
    if len(files) > 1:
        case["fault"] = case["fault"] or Fault("E_AMBIGUOUS", f"{len(files)} files fit {key}.", _SHARPEN)
    elif files:
        case[key] = files[0]
    else:
        case["flags"] = [*case["flags"], f"N_NO_LANDMARKS: {role}: no file fits"]
