"""`tandem cohort --bids`: what a run has made, as a derivative dataset of BIDS. Source: BIDS 1.11, Derivatives.

BIDS knows no CT, no radiographs and no transforms: they stand beside the rest and in `.bidsignore`.
"""

from __future__ import annotations

import difflib
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.cases import Artifact, Fault, Record
from pipeline.console import echo
from pipeline.errors import CaseError, UsageError
from pipeline.run.status import of_folder
from pipeline.spec.spec import Spec, of_run
from pipeline.store import dictionary, records, upkeep
from pipeline.store.attempts import whole_folder
from pipeline.store.files import open_file, require_apart, run_lock, writable_folder, write_atomic, write_text
from pipeline.store.plain import write_json
from pipeline.store.sections import SECTIONS, Sections, joined
from pipeline.words import counted

VERSION = "1.11.1"
#: Datatype -> what images of MR can be. Source: BIDS 1.11, Magnetic Resonance Imaging.
SUFFIXES = {
    "anat": "T1w T2w PDw T2starw FLAIR inplaneT1 inplaneT2 PDT2 angio T1map T2map T2starmap R1map R2map R2starmap "
    "PDmap MTRmap MTsat UNIT1 T1rho MWFmap MTVmap Chimap M0map",
    "dwi": "ADC FA trace expADC colFA S0map dwi",
    "perf": "asl m0scan",
}
#: Kind of output -> its suffix.
_OF_KIND = {"label": "dseg", "probability": "probseg", "transform": "xfm"}
_IGNORED = "*_xfm.*\nct\nother\nsub-*.html\n"
_README = """\
# {name}

What Tandem has made of {cases}: images as they were read, aligned and prepared, labels, probabilities, transforms, a
page of each case (`sub-*.html`), and the measures in `participants.tsv`, explained in `participants.json`.
`case_id` there is the name of the case in Tandem's run folder. What failed, or whose alignment failed its verdict, is
not here. CT, radiographs and transforms are in `.bidsignore`: BIDS {version} knows none.

Research use only; this is no medical device.
"""


@dataclass
class Exported:
    """What was written.

    Attributes:
        folder: the dataset's.
        subjects: case -> its subject, of those with an image or a label.
        left_out: case -> why it is not there.
        withheld: outputs that a failed verdict keeps out.
    """

    folder: Path
    subjects: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, Fault] = field(default_factory=dict)
    withheld: int = 0


def export_bids(out: str | Path, folder: str | Path, suffixes: Mapping[str, str]) -> Exported:
    """Write a derivative dataset of BIDS, wholly or not at all: `tandem cohort --bids`.

    A case whose outputs are not as recorded is left out, and named.

    Args:
        out: the run folder.
        folder: for the dataset, outside the run folder; empty, or not there.
        suffixes: role -> what kind of MR it is in BIDS's words, such as `T1w`, for each role of MR.

    Returns:
        What was written, and which cases were left out.

    Raises:
        UsageError: E_NO_CASES, E_SPEC, E_OPTION, E_OUT, E_CASE_ID, E_DISK; E_BUSY while a run is working in the folder.
    """
    upkeep.require_free(Path(out))
    with run_lock(Path(out)):
        return _export(Path(out), Path(folder), suffixes)


def _export(out: Path, folder: Path, suffixes: Mapping[str, str]) -> Exported:
    cases, spec = of_folder(out), of_run("", out)
    require_named(spec, suffixes)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("E_OUT", f"Expected a new or empty folder for the dataset of BIDS, got {folder}.")
    require_apart(folder, out)
    writable_folder(folder.absolute().parent)
    with whole_folder(folder) as temporary:
        made = Exported(temporary)
        for case_id, found in cases.items():
            _case(made, out, _Case(case_id, found, spec, suffixes))
        if not made.subjects:
            reasons = [f"{fault.code}: {fault.message}" for fault in made.left_out.values()]
            what = f"Expected images or labels of a case in {out}, got none. {reasons[0] if reasons else ''}".strip()
            raise UsageError("E_NO_CASES", what)
        _describe(made, out, spec.name, cases)
    made.folder = folder
    return made


@dataclass(frozen=True)
class _Case:
    """A case of the run."""

    case_id: str
    records: Sequence[Record]
    spec: Spec
    suffixes: Mapping[str, str]

    def role_of(self, key: str) -> str:
        """The role that an image's key begins with; empty where there is none."""
        return max((r for r in self.spec.roles if key == r or key.startswith(f"{r}_")), key=len, default="")

    def place(self, item: Artifact) -> tuple[str, str]:
        """Datatype, which names a folder, and suffix of an output."""
        role = self.role_of(item.key)
        if item.kind != "image":
            return "anat", _OF_KIND[item.kind]
        if role in self.suffixes:
            suffix = self.suffixes[role]
            return next(kind for kind, known in SUFFIXES.items() if suffix in known.split()), suffix
        modality = self.spec.roles[role].modality[0] if role else ""
        return {"PT": ("pet", "pet"), "CT": ("ct", "ct")}.get(modality, ("other", modality.lower() or "image"))

    def trusted(self) -> tuple[list[Artifact], int]:
        """The outputs that nothing speaks against, and how many a failed verdict, of theirs or before, keeps out."""
        good: list[Artifact] = []
        bad: dict[str, Artifact] = {}
        for record in self.records:
            fails = not records.went_well(record) or any(item.sha256 in bad for item in record.inputs)
            for item in record.artifacts:
                if fails:
                    bad[item.sha256] = item
                else:
                    good.append(item)
        kinds = ("image", *_OF_KIND)
        return [item for item in good if item.kind in kinds], sum(item.kind in kinds for item in bad.values())


def require_named(spec: Spec, given: Mapping[str, str]) -> None:
    """Refuse names of what is no MR, and words that BIDS does not know; each role of MR needs one.

    Raises:
        UsageError: E_OPTION.
    """
    known = " ".join(SUFFIXES.values()).split()
    wanted = [name for name, role in spec.roles.items() if role.modality[0] == "MR"]
    for role, suffix in given.items():
        if role not in wanted:
            what = f"Expected a role of MR in --bids-suffix ({', '.join(wanted) or 'there is none'}), got {role}."
            raise UsageError("E_OPTION", what)
        if suffix not in known:
            near = difflib.get_close_matches(suffix, known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else f"; it knows {', '.join(known)}."
            raise UsageError("E_OPTION", f"Expected a suffix of BIDS for {role}, got {suffix or 'none'}{hint}")
    if missing := [role for role in wanted if role not in given]:
        what = f"Expected to be told what kind of MR {' and '.join(missing)} is, which no header says in BIDS's words."
        remedy = f"Add --bids-suffix {missing[0]}=T1w, or one of {', '.join(known[1:5])} and others."
        raise UsageError("E_OPTION", what, remedy)


def _case(made: Exported, out: Path, case: _Case) -> None:
    """Write a subject."""
    items, withheld = case.trusted()
    if not any(item.kind in ("image", "label") for item in items):
        stopped = next((record.error for record in case.records if record.error), None)
        made.left_out[case.case_id] = stopped or Fault("E_NO_CASES", "The case has no image and no label.", "")
        return
    subject = re.sub(r"[_-]", "", case.case_id)
    if subject in made.subjects.values():
        what = f"Expected cases whose names differ in letters or digits, as BIDS asks, got {subject} twice."
        raise UsageError("E_CASE_ID", what)
    try:
        _outputs(made.folder / f"sub-{subject}", out, case, items)
    except CaseError as error:
        if error.code == "E_DISK":
            raise
        shutil.rmtree(made.folder / f"sub-{subject}", ignore_errors=True)
        made.left_out[case.case_id] = Fault(error.code, error.message, error.remedy)
        return
    made.subjects[case.case_id] = subject
    made.withheld += withheld


def _outputs(subject: Path, out: Path, case: _Case, items: Sequence[Artifact]) -> None:
    """Write a subject's files.

    Raises:
        CaseError: E_CHANGED, E_DISK.
    """
    said = joined(_said(case.records, out))
    grids = {item.key: item for item in items if item.key in case.spec.roles}
    for item in items:
        _write(subject, out, (case, item), grids, said)
    pages = (a for record in case.records for a in record.artifacts if a.path.endswith(".html"))
    if page := next(pages, None):
        _copy(out, page, subject.with_suffix(".html"))


def _said(found: Iterable[Record], out: Path) -> Iterable[Sections]:
    for item in (item for record in found for item in record.artifacts if item.key == SECTIONS):
        try:
            yield Sections.from_json(json.loads((out / item.path).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise CaseError("E_CHANGED", f"Expected {item.path} as it was recorded, got another file.") from error


def _copy(out: Path, item: Artifact, path: Path) -> None:
    """Copy an output that is as it was recorded."""
    try:
        open_file(out / item.path).close()
    except OSError as error:
        what = f"Expected {item.path} as it was recorded, got none that can be read ({error.strerror})."
        raise CaseError("E_CHANGED", what) from error
    if write_atomic(path, partial(shutil.copyfile, out / item.path)) != item.sha256:
        raise CaseError("E_CHANGED", f"Expected {item.path} as it was recorded, got another file.")


def _write(subject: Path, out: Path, of: tuple[_Case, Artifact], grids: Mapping[str, Artifact], said: Sections) -> None:
    """Copy an output, and write what says what it is beside it."""
    case, item = of
    datatype, suffix = case.place(item)
    space = _space(case.role_of(item.key), item, grids)
    entities = [subject.name, *([f"space-{_camel(space)}"] if space else []), f"desc-{_camel(item.key)}"]
    name = "_".join((*entities, suffix))
    path = subject / datatype / f"{name}{'.h5' if item.kind == 'transform' else '.nii.gz'}"
    _copy(out, item, path)
    told: dict[str, Any] = {"Description": f"Output {item.key} of Tandem."}
    for display in said.displays:
        if display.key == item.key:
            told = {"Description": display.name, **({"Units": display.unit} if display.unit else {})}
    if space:
        reference = grids[space]
        folder, word = case.place(reference)
        told["SpatialReference"] = f"bids::{subject.name}/{folder}/{subject.name}_desc-{_camel(space)}_{word}.nii.gz"
    if item.kind == "image":
        told["SkullStripped"] = False
    names = next((regions.names for regions in said.regions if regions.key == item.key), None)
    if item.kind == "label" and names:
        rows = "".join(f"{value}\t{label}\n" for value, label in {0: "background", **names}.items())
        write_atomic(path.with_name(f"{name}.tsv"), lambda temporary: write_text(temporary, f"index\tname\n{rows}"))
    write_json(path.with_name(f"{name}.json"), told)


def _space(role: str, item: Artifact, grids: Mapping[str, Artifact]) -> str:
    """The role on whose grid an output lies, where it is another's than its own."""
    if item.geometry is None or (role in grids and grids[role].geometry == item.geometry):
        return ""
    return next((key for key, image in grids.items() if image.geometry == item.geometry), "")


def _camel(key: str) -> str:
    first, *others = key.split("_")
    return first + "".join(word.capitalize() for word in others)


def _describe(made: Exported, out: Path, name: str, cases: Mapping[str, Sequence[Record]]) -> None:
    """Write what stands at the top of a dataset."""
    table = records.table(cases)
    subjects = [f"sub-{made.subjects[case]}" for case in made.subjects]
    rows = table.set_index("case_id").loc[list(made.subjects)].reset_index()
    rows.insert(0, "participant_id", subjects)
    columns = dictionary.columns(out, cases, table.columns)
    meanings = {c.name: {"Description": c.meaning, **({"Units": c.unit} if c.unit else {})} for c in columns}
    plain = rows.replace("", "n/a").map(lambda cell: re.sub(r"\s+", " ", cell) if isinstance(cell, str) else cell)
    path = made.folder / "participants.tsv"
    write_atomic(path, lambda temporary: plain.to_csv(temporary, sep="\t", index=False, na_rep="n/a"))
    write_json(made.folder / "participants.json", meanings)
    about = {"Name": name, "BIDSVersion": VERSION, "DatasetType": "derivative"}
    version = records.versions()["tandem-imaging"]
    about_tandem = {"GeneratedBy": [{"Name": "Tandem", "Version": version}]}
    write_json(made.folder / "dataset_description.json", {**about, **about_tandem})
    text = _README.format(name=name, cases=counted(len(subjects), "case"), version=VERSION)
    write_atomic(made.folder / "README.md", lambda temporary: write_text(temporary, text))
    write_atomic(made.folder / ".bidsignore", lambda temporary: write_text(temporary, _IGNORED))


def show_exported(made: Exported) -> int:
    """Say what was written and what was not; the exit code."""
    for case, fault in made.left_out.items():
        echo(f"Not in the dataset: {case}: {fault.code}: {fault.message}", error=True)
    kept = f"; {counted(made.withheld, 'output')} with a failed verdict kept out" if made.withheld else ""
    echo(f"BIDS: {counted(len(made.subjects), 'subject')}{kept}: {made.folder}")
    return int(bool(made.left_out))
