"""The real sets that come with a truth: where the DICOM is, where its truth, and what Tandem is expected to say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One folder of DICOM files.

    Attributes:
        path: of the folder, or of a single file, below TANDEM_DATA.
        references: NIfTI files, below TANDEM_DATA; a 4D file holds several volumes.
        volumes: how many volumes are expected, each of them equal to its truth.
        codes: the refusals that are expected, one for each part that cannot be used.
        why: a sentence on what is refused, or on what a reference does otherwise.
    """

    path: str
    references: tuple[str, ...] = ()
    volumes: int = 0
    codes: tuple[str, ...] = ()
    why: str = ""


_NIH = "dcm_qa_nih"
_ENH = "dcm_qa_enh"
_BIT = "dcm_qa_12bit"
_PROSTATE = "picai_prostatex/tests/input/dcm/ProstateX"
_D2N = "dicom2nifti_tests/tests/data"

#: Siemens, GE and Philips, converted by dcm2niix.
DCM_QA = (
    *(
        Source(f"{_NIH}/In/20180918GE/mr_000{number}", (f"{_NIH}/Ref/DCM2NIIX_regression_test_{number}.nii",), 10)
        for number in (4, 5, 6, 7)
    ),
    *(
        Source(f"{_NIH}/In/20180918Si/mr_000{number}", (f"{_NIH}/Ref/EPI_PE={encoding}_{number}.nii",), 2)
        for number, encoding in ((3, "AP"), (4, "PA"), (5, "RL"), (6, "LR"))
    ),
    Source(
        f"{_ENH}/In/Philips",
        (f"{_ENH}/Ref/Philips_WIP_B0_NS_801_e1.nii", f"{_ENH}/Ref/Philips_WIP_B0_NS_801_e2_fieldmaphz.nii"),
        2,
        why="dcm2niix divides by Philips' private scale slope; compared in the standard's rescaled values",
    ),
    Source(f"{_ENH}/In/Siemens/XA10", (f"{_ENH}/Ref/Siemens_REST1_w_SMS_PF7-8_6.nii",), 4),
    Source(f"{_BIT}/In/12bitUnsigned.dcm", (f"{_BIT}/Ref/2.nii",), 1),
    Source(f"{_BIT}/In/12bitUnsigned_0x0F0F.dcm", (f"{_BIT}/Ref/3.nii",), 1),
    Source(f"{_BIT}/In/12bitSigned_0x0F0F.dcm", (f"{_BIT}/Ref/4.nii",), 1),
    Source(f"{_BIT}/In", codes=("E_DUP_SOP",), why="three different files claim to be one instance"),
)


def _converted(path: str, volumes: int = 1, why: str = "") -> Source:
    return Source(f"{_D2N}/{path}", (f"{_D2N}/{path}_ground_truth.nii.gz",), volumes, why=why)


#: GE, Philips, Siemens, Hitachi, Hyperfine and compressed files, converted by dicom2nifti.
DICOM2NIFTI = (
    *(
        _converted(f"{vendor}anatomical/001{syntax}")
        for vendor in ("", "ge/", "generic/", "hitachi/", "philips_enhanced/")
        for syntax in ("", "_implicit")
    ),
    *(
        _converted(f"{kind}/001{syntax}", volumes)
        for kind, volumes in (("ge/dti", 2), ("ge/fmri", 2), ("philips_enhanced/fmri", 4))
        for syntax in ("", "_implicit")
    ),
    _converted("ge/dti/002", 4),
    _converted("generic/anatomical/002_non_isotropic"),
    *(_converted(f"generic/compressed{codec}/001") for codec in ("", "_j2k", "_jpeg", "_jpegls", "_rle")),
    _converted("siemens_multiframe/anatomical/001"),
    _converted("hyperfine/anatomical/001"),
    _converted("failing/slicecount/001", why="two slices are few, but a volume"),
)

#: Sets that are refused, with the reason.
REFUSED = (
    Source(
        f"{_D2N}/ge/anatomical/001_single_slice",
        codes=("E_SINGLE_SLICE",),
        why="one slice is no volume; dicom2nifti makes one of it",
    ),
    Source(f"{_D2N}/generic/rgb/001", codes=("E_NOT_SCALAR",), why="colour"),
    Source(f"{_D2N}/failing/notavolume/001", codes=("E_DUP_POS",), why="one slice, four times over"),
    Source(f"{_D2N}/failing/sliceincrement/001", codes=("E_GAP",), why="steps of 5, 5 and 10 mm: a slice is missing"),
    Source(
        f"{_D2N}/failing/sliceincrement/002",
        codes=("E_GAP",),
        why="slice 4 of 5 is missing, in a tilted stack; dicom2nifti interpolates it",
    ),
    Source(
        "picai_prostatex/tests/input/dcm/ProstateX-missing-slice", codes=("E_GAP",), why="one of 19 slices is missing"
    ),
)

#: Sets without a converted volume: what is read is compared with the files' own slices, at the grid's points.
SLICES = (
    Source("dcm_qa_ct/In", volumes=1, why="gantry tilt of -18.5 degrees, sheared right"),
    Source("dcm_qa_agfa/Agfa", volumes=4, why="four time points, private elements moved by the archive"),
    Source("dcm_qa_agfa/Siemens", volumes=4, why="the same four time points as the scanner sent them"),
    Source(f"{_D2N}/failing/gantrytilting/001", volumes=1, why="gantry tilt of 14 degrees, sheared right"),
    Source(f"{_D2N}/failing/sliceorientation/001", volumes=2, why="two planes in one series: two volumes"),
    *(
        Source(
            f"{_D2N}/philips_enhanced/dti/001{syntax}",
            volumes=4,
            why="b 0 and three directions; the NIfTI that is shipped holds one direction and three empty volumes",
        )
        for syntax in ("", "_implicit")
    ),
    Source("mirp_dce_mr/UCSF-BR-06/image_dce_pe1", volumes=1),
    Source("udacity_hippocampus/data/TestVolumes/Study3", volumes=5, why="five series of one brain"),
    Source(
        "remind_petct/example_patients/cervical_cancer/PET_images",
        volumes=1,
        codes=("E_NOT_IMAGE",),
        why="234 slices of 7 bed positions, up to 0.05 mm off the even grid; beside them a table of SUV factors",
    ),
)

ALL = (*DCM_QA, *DICOM2NIFTI, *SLICES, *REFUSED)


def table() -> str:
    """The table of docs/reference/dicom.md: what the tests have found of each source."""
    rows = [
        f"| {_name(source)} | {_truth(source)} | {source.volumes or ''} | {_refused(source)} | {source.why} |"
        for source in ALL
    ]
    head = ["| set | truth | equal volumes | refused parts | remark |", "|---|---|---|---|---|"]
    volumes = sum(source.volumes for source in ALL)
    refusals = sum(len(source.codes) for source in ALL)
    return "\n".join([*head, *rows, f"| **{len(ALL)} sets** |  | **{volumes}** | **{refusals}** |  |"])


def _name(source: Source) -> str:
    return f"`{source.path.replace('/tests/data', '').replace('/tests/input/dcm', '')}`"


def _truth(source: Source) -> str:
    if source.references:
        return "dicom2nifti" if source.path.startswith("dicom2nifti") else "dcm2niix"
    return "the slices" if source.volumes else ""


def _refused(source: Source) -> str:
    counts = {code: source.codes.count(code) for code in source.codes}
    return ", ".join(f"`{code}`" if count == 1 else f"`{code}` x {count}" for code, count in counts.items())
