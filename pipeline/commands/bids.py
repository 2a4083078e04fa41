"""`tandem cohort --bids`: what a run has made, as a derivative dataset of BIDS. Source: BIDS 1.11, Derivatives.

BIDS knows no CT, no radiographs and no transforms: they stand beside the rest and in `.bidsignore`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.cases import Artifact, Fault, Record
from pipeline.console import echo
from pipeline.errors import CaseError, UsageError
from pipeline.geometry import same_grid
from pipeline.run.status import of_folder
from pipeline.spec.spec import Spec, of_run
from pipeline.store import dictionary, records, upkeep
from pipeline.store.attempts import whole_folder
from pipeline.store.files import (
    TEMPORARY_PREFIX,
    open_file,
    run_lock,
    save_text,
    sha256_file,
    writable_folder,
    write_atomic,
)
from pipeline.store.plain import write_json
from pipeline.store.sections import SECTIONS, Sections, joined
from pipeline.words import counted

VERSION = "1.11.1"
#: Datatype -> what images of MR can be that need no further files. Source: BIDS 1.11, Magnetic Resonance Imaging.
SUFFIXES = {
    "anat": "T1w T2w PDw T2starw FLAIR inplaneT1 inplaneT2 PDT2 angio T1map T2map T2starmap R1map R2map R2starmap "
    "PDmap MTRmap MTsat UNIT1 T1rho MWFmap MTVmap Chimap M0map",
    "dwi": "ADC FA trace expADC colFA S0map",
}
#: Kind of output -> its suffix.
_OF_KIND = {"label": "dseg", "probability": "probseg", "transform": "xfm"}
_IGNORED = "*_xfm.*\nct\nother\nsub-*.pdf\n"
_README = """\
# {name}

What Tandem has made of {cases}: images as they were read (`desc-` and the name of the role), aligned and prepared
(`desc-mrAligned` …), labels, probabilities and transforms where there are any, a report of each case (`sub-*.pdf`),
and the measures in `participants.tsv`, explained in `participants.json`. `case_id` there is the name of the case in
Tandem's run folder. Without `space-` a file lies on its image's own grid, with it on that of the role that it names.

`from-mr_to-ct_mode-image_xfm.h5` resamples MR onto CT (ITK, LPS mm: it maps points of CT to points of MR). Tandem
strips no skulls. CT, radiographs and transforms are in `.bidsignore`: BIDS {version} knows none.

{missing}

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
        return _export(Path(out), Path(folder).resolve(), suffixes)


def _export(out: Path, folder: Path, suffixes: Mapping[str, str]) -> Exported:
    cases, spec = of_folder(out), of_run("", out)
    _require_named(spec, suffixes)
    _require_free(folder, out)
    with whole_folder(folder) as temporary:
        made = Exported(temporary)
        for case_id, found in cases.items():
            _case(made, out, _Case(case_id, found, spec, suffixes))
        if not made.subjects:
            reasons = [f"{fault.code}: {fault.message}" for fault in made.left_out.values()]
            what = f"Expected images or labels of a case in {out}, got none. {reasons[0] if reasons else ''}".strip()
            raise UsageError("E_NO_CASES", what, "See `tandem status` and `tandem verify` of the run folder.")
        _describe(made, out, spec.name, cases)
    made.folder = folder
    return made


def _require_free(folder: Path, out: Path) -> None:
    """Refuse a place that a finished dataset could not take.

    Raises:
        UsageError: E_OUT, E_DISK.
    """
    remedy = "Name a folder that is not there yet, outside the run folder."
    if folder.is_relative_to(out.resolve()):
        raise UsageError("E_OUT", f"Expected a folder outside the run folder {out}, got {folder}.", remedy)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("E_OUT", f"Expected a new or empty folder for the dataset of BIDS, got {folder}.", remedy)
    probe = writable_folder(folder.parent) / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}"
    if folder.exists():
        probe.mkdir()
        try:
            probe.rename(folder)
        except OSError as error:
            probe.rmdir()
            what = f"Expected a folder that a finished one can replace, but {folder} cannot be ({error.strerror})."
            raise UsageError("E_OUT", what, remedy) from error


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
        if item.kind == "probability" and not item.key.endswith("probability"):
            return "other", "image"  # from 0 to 1, such as attention: no segmentation
        if item.kind != "image":
            return "anat", _OF_KIND[item.kind]
        if role in self.suffixes:
            suffix = self.suffixes[role]
            return next(kind for kind, known in SUFFIXES.items() if suffix in known.split()), suffix
        modality = self.spec.roles[role].modality[0] if role else ""
        return {"PT": ("pet", "pet"), "CT": ("ct", "ct")}.get(modality, ("other", modality.lower() or "image"))

    def trusted(self) -> tuple[dict[str, Artifact], int]:
        """Key -> each output that nothing speaks against; how many a failed verdict, of theirs or before, keeps out."""
        good: dict[str, Artifact] = {}
        bad: dict[str, Artifact] = {}
        for record in self.records:
            fails = not records.went_well(record) or any(item.sha256 in bad for item in record.inputs)
            for item in record.artifacts:
                if fails:
                    bad[item.sha256] = item
                elif item.kind in ("image", *_OF_KIND):
                    good[item.key] = item
        return good, sum(item.kind in ("image", *_OF_KIND) for item in bad.values())

    def space(self, item: Artifact, grids: Mapping[str, Artifact]) -> str:
        """The role on whose grid an output lies, where that is another's than its own."""
        role, own = self.role_of(item.key) if item.kind == "image" else "", item.geometry
        if own is None or item.key == role:
            return ""
        # what was moved lies on the fixed grid, even if its own is the same; all else first on its own
        first = self.spec.fixed if role in self.spec.moving else role
        for key in (first, *grids):
            grid = grids[key].geometry if key in grids else None
            if grid is not None and same_grid(grid.shape, grid.affine, own.shape, own.affine):
                return "" if key == role else key
        return ""

    def name(self, item: Artifact, grids: Mapping[str, Artifact]) -> str:
        """Below the dataset's folder: `sub-X/anat/sub-X_space-ct_desc-mrAligned_T1w.nii.gz`."""
        datatype, suffix = self.place(item)
        space, role = self.space(item, grids), self.role_of(item.key)
        entities = [f"space-{_camel(space)}"] if space else []
        way = item.key.removeprefix(f"{role}_")
        if item.kind == "transform" and role in self.spec.moving and way in ("transform", "inverse"):
            ends = [_camel(role), _camel(self.spec.fixed)]
            first, last = ends if way == "transform" else ends[::-1]
            entities += [f"from-{first}", f"to-{last}", "mode-image"]
        else:
            entities.append(f"desc-{_camel(item.key)}")
        ending = ".h5" if item.kind == "transform" else ".nii.gz"
        return f"{self.subject}/{datatype}/{'_'.join((self.subject, *entities, suffix))}{ending}"

    @property
    def subject(self) -> str:
        """`sub-` and the letters and digits of the case's name, of a pseudonym what makes it one."""
        return f"sub-{re.sub('[_-]', '', self.case_id.removeprefix('case-'))}"


def _require_named(spec: Spec, given: Mapping[str, str]) -> None:
    """Refuse names of what is no MR, and words that BIDS does not know; each role of MR needs one.

    Raises:
        UsageError: E_OPTION.
    """
    known = " ".join(SUFFIXES.values()).split()
    wanted = [name for name, role in spec.roles.items() if role.modality[0] == "MR"]
    words = f"{', '.join(known[:5])} and others: docs/how-to/cohorts.md."
    for role, suffix in given.items():
        if role not in wanted:
            what = (
                f"Expected a role of MR ({', '.join(wanted) or 'there is none'}) in --bids-suffix, got {role or '='}."
            )
            raise UsageError("E_OPTION", what, f"Write --bids-suffix {wanted[0]}=T1w." if wanted else "Leave it out.")
        if suffix not in known:
            near = difflib.get_close_matches(suffix, known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else "."
            what = f"Expected a suffix of BIDS for {role}, got {suffix or 'none'}{hint}"
            raise UsageError("E_OPTION", what, f"Those of MR that need no further files are {words}")
    if missing := [role for role in wanted if role not in given]:
        what = f"Expected to be told what kind of MR {' and '.join(missing)} is, which no header says in BIDS's words."
        raise UsageError("E_OPTION", what, f"Add --bids-suffix {missing[0]}=T1w; other words are {words}")


def _case(made: Exported, out: Path, case: _Case) -> None:
    """Write a subject."""
    items, withheld = case.trusted()
    subject = made.folder / case.subject
    try:
        for path in records.case_folder(out, case.case_id).glob(f"[!.]*/{records.RECORD}"):
            if records.read(path.parent) is None:
                raise CaseError(
                    "E_CHANGED", f"Expected a record in {path.relative_to(out)}, got none that can be read."
                )
        if not any(item.kind in ("image", "label") for item in items.values()):
            stopped = next((record.error for record in case.records if record.error), None)
            made.left_out[case.case_id] = stopped or Fault("E_NO_CASES", "The case has no image and no label.", "")
            return
        if case.subject in made.subjects.values():
            what = f"Expected cases whose names differ in letters or digits, as BIDS asks, got {case.subject} twice."
            raise UsageError("E_CASE_ID", what, "Ingest them under other names.")
        _outputs(made.folder, out, case, items)
    except CaseError as error:
        if error.code == "E_DISK":
            raise
        shutil.rmtree(subject, ignore_errors=True)
        made.left_out[case.case_id] = Fault.from_error(error)
        return
    made.subjects[case.case_id] = case.subject
    made.withheld += withheld


def _outputs(folder: Path, out: Path, case: _Case, items: Mapping[str, Artifact]) -> None:
    """Write a subject's files.

    Raises:
        CaseError: E_CHANGED, E_DISK.
    """
    said = joined(_said(case.records, out))
    grids = {key: item for key, item in items.items() if key in case.spec.roles}
    names = {key: case.name(item, grids) for key, item in items.items()}
    of_hash = {item.sha256: f"bids::{names[key]}" for key, item in items.items()}
    for record in case.records:
        sources = [of_hash[item.sha256] for item in record.inputs if item.sha256 in of_hash]
        for item in (item for item in record.artifacts if items.get(item.key) == item):
            _copy(out, item, folder / names[item.key])
            space = case.space(item, grids)
            told: dict[str, Any] = {"Description": f"Output {item.key} of Tandem's stage {record.stage}."}
            told |= {"SpatialReference": f"bids::{names[space]}"} if space else {}
            told |= {"Sources": sources} if sources else {}
            _describe_file(folder / names[item.key], item, told, said)
    reports = (a for record in case.records for a in record.artifacts if a.path.endswith(".pdf"))
    if report := next(reports, None):
        _copy(out, report, folder / f"{case.subject}.pdf")


def _describe_file(path: Path, item: Artifact, told: dict[str, Any], said: Sections) -> None:
    """Write what says what a file is beside it, and which labels it has."""
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    for display in said.displays:
        if display.key == item.key:
            told |= {"Description": display.name, **({"Units": display.unit} if display.unit else {})}
    if item.kind == "image":
        told["SkullStripped"] = False
    names: dict[int, str] = {}  # first those of what it was made of: of `segment_label` for `segment_label_on_mr`
    for regions in sorted(said.regions, key=lambda regions: len(regions.key)):
        if f"{item.key}_".startswith(f"{regions.key}_"):
            names = {**regions.names, **names}
    if item.kind == "label" and names:
        rows = "".join(f"{value}\t{label}\n" for value, label in sorted({0: "background", **names}.items()))
        save_text(path.with_name(f"{stem}.tsv"), f"index\tname\n{rows}")
    write_json(path.with_name(f"{stem}.json"), told)


def _said(found: Iterable[Record], out: Path) -> Iterable[Sections]:
    for item in (item for record in found for item in record.artifacts if item.key == SECTIONS):
        try:
            data = (out / item.path).read_bytes()
        except OSError as error:
            raise _changed(item, error) from error
        if hashlib.sha256(data).hexdigest() != item.sha256:
            raise _changed(item)
        yield Sections.from_json(json.loads(data))


def _copy(out: Path, item: Artifact, path: Path) -> None:
    """Copy an output that is as it was recorded."""

    def require_same(temporary: Path) -> None:
        if sha256_file(temporary) != item.sha256:
            raise _changed(item)

    try:
        open_file(out / item.path).close()
    except OSError as error:
        raise _changed(item, error) from error
    write_atomic(path, lambda temporary: shutil.copyfile(out / item.path, temporary), require_same)


def _changed(item: Artifact, error: OSError | None = None) -> CaseError:
    got = f"none that can be read ({error.strerror})" if error else "another file"
    return CaseError("E_CHANGED", f"Expected {item.path} as it was recorded, got {got}.")


def _camel(key: str) -> str:
    first, *others = key.split("_")
    return first + "".join(word.capitalize() for word in others)


def _describe(made: Exported, out: Path, name: str, cases: Mapping[str, Sequence[Record]]) -> None:
    """Write what stands at the top of a dataset."""
    table = records.table(cases)
    rows = table.set_index("case_id").loc[list(made.subjects)].reset_index()
    rows.insert(0, "participant_id", list(made.subjects.values()))
    columns = dictionary.columns(out, cases, table.columns)
    meanings = {c.name: {"Description": c.meaning, **({"Units": c.unit} if c.unit else {})} for c in columns}
    plain = rows.replace("", "n/a").map(lambda cell: re.sub(r"\s+", " ", cell) if isinstance(cell, str) else cell)
    path = made.folder / "participants.tsv"
    write_atomic(path, lambda temporary: plain.to_csv(temporary, sep="\t", index=False, na_rep="n/a"))
    write_json(made.folder / "participants.json", {"participant_id": {"Description": "The subject."}, **meanings})
    done = {record.versions.get("tandem-imaging", "") for case in made.subjects for record in cases[case]}
    by = [{"Name": "Tandem", "Version": version} for version in sorted(done - {""})] or [{"Name": "Tandem"}]
    about = {"Name": name, "BIDSVersion": VERSION, "DatasetType": "derivative", "GeneratedBy": by}
    write_json(made.folder / "dataset_description.json", about)
    missing = [f"- {case}: {fault.code}: {fault.message}" for case, fault in made.left_out.items()]
    told = "\n".join(["Cases that are not here:", "", *missing]) if missing else "No case was left out."
    if made.withheld:
        told += f"\n\n{counted(made.withheld, 'output')} with a failed verdict, or made of such, kept out."
    text = _README.format(name=name, cases=counted(len(made.subjects), "case"), version=VERSION, missing=told)
    save_text(made.folder / "README.md", text)
    save_text(made.folder / ".bidsignore", _IGNORED)


def show_exported(made: Exported) -> int:
    """Say what was written and what was not; the exit code."""
    for case, fault in made.left_out.items():
        echo(f"Not in the dataset: {case}: {fault.code}: {fault.message}", error=True)
    told = f"; {counted(len(made.left_out), 'case')} left out" if made.left_out else ""
    told += f"; {counted(made.withheld, 'output')} with a failed verdict kept out" if made.withheld else ""
    echo(f"BIDS: {counted(len(made.subjects), 'subject')}{told}: {made.folder}")
    return int(bool(made.left_out))
