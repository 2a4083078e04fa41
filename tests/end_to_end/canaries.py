"""Plant made-up names in every place of a DICOM file that can hold one, and look for them in whatever comes out."""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import pymupdf
from pydicom import Dataset, config, dcmread
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import Tag

from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.phantoms.phantom import position_phantom

#: Made up: "canary bird" in kanji. DICOM PS3.5 H.3 shows how such names are written.
JAPANESE = "金糸雀鳥^太郎"
LATIN = "Grünkanarie^Zoë"
#: Where each of the plain canaries sits; its name ends with its number.
PLACES = (
    *(
        "patient name",
        "patient id",
        "accession",
        "address",
        "history",
        "text",
        "long code",
        "application entity",
        "code",
    ),
    *("nested", "private", "private sequence", "file name", "folder name", "overlay", "curve", "preamble", "padding"),
    *(
        "unknown value",
        "source entity",
        "icon",
        "address of a page",
        "date",
        "series",
        "uid",
        "code meaning",
        "other file",
    ),
    *("behind the end", "device", "protocol", "study", "station", "image comments", "person in a sequence"),
)
#: What every plain canary begins with; each of its forms begins each of theirs.
STEM = "KANARIE"
_ENCODINGS = ("utf-8", "latin-1", "utf-16-le", "utf-16-be", "iso2022_jp", "shift_jis", "euc_jp")


def canary(place: str) -> str:
    """The made-up word that sits in a place: capital letters and digits, so that a code string may hold it."""
    return f"{STEM}{PLACES.index(place):02d}"


def plant(root: Path, modality: str, encoding: str, name: str, number: int) -> list[Path]:
    """Write a series whose every file holds every canary.

    Args:
        root: the tree.
        modality: `CT` or `MR`.
        encoding: SpecificCharacterSet (0008,0005).
        name: PatientName in that character set.
        number: of the series.
    """
    header = SeriesHeader(modality=modality, patient_id=canary("patient id"), series_number=number)
    folder = root / canary("folder name") / str(number)
    paths = write_series(position_phantom(shape=(24, 22, 24), spacing_mm=(2.0, 2.0, 2.0)), folder, header)
    for path in paths:
        with config.disable_value_validation():
            data = dcmread(path)
            _fill(data, encoding, name)
            data.preamble = canary("preamble").encode().ljust(128, b"\0")
            data.file_meta.SourceApplicationEntityTitle = canary("source entity")
            target = path.with_name(f"{canary('file name')}-{path.name}.dcm")
            data.save_as(target, enforce_file_format=True)
        path.unlink()
    return sorted(folder.iterdir())


def _fill(data: Dataset, encoding: str, name: str) -> None:
    data.SpecificCharacterSet = encoding.split("/")
    data.PatientName = f"{name}={canary('patient name')}" if "2022" in encoding else f"{name}^{canary('patient name')}"
    data.ReferringPhysicianName = canary("code")
    data.ScanOptions = ["FS", canary("code")]
    for keyword, place in (
        *(("AccessionNumber", "accession"), ("InstitutionAddress", "address"), ("AdditionalPatientHistory", "history")),
        *(("TextValue", "text"), ("LongCodeValue", "long code"), ("StationAETitle", "application entity")),
        *(("StudyDescription", "study"), ("ProtocolName", "protocol")),
        *(("StationName", "station"), ("DeviceSerialNumber", "device"), ("ImageComments", "image comments")),
        *(("RetrieveURL", "address of a page"), ("ContentCreatorName", "person in a sequence")),
        *(
            ("SubstanceAdministrationDateTime", "date"),
            ("InstanceCreatorUID", "uid"),
            ("DerivationDescription", "text"),
        ),
    ):
        setattr(data, keyword, canary(place))
    data.SeriesDescription = f"t1 {canary('series')}"
    _nest(data)
    private = data.private_block(0x0099, canary("private"), create=True)
    private.add_new(0x01, "LO", canary("private"))
    inner = Dataset()
    inner.PatientComments = canary("private sequence")
    private.add_new(0x02, "SQ", [inner])
    data.add_new(0x60000010, "US", 1)
    data.add_new(0x60000022, "LO", canary("overlay"))
    data.add_new(0x60003000, "OW", canary("overlay").encode().ljust(10))
    data.add_new(0x50000022, "LO", canary("curve"))
    unknown = canary("unknown value").encode().ljust(10)
    for tag in (Tag(0x0018, 0xFFF2), Tag(0x0010, 0x2160)):
        data[tag] = RawDataElement(tag, "UN", len(unknown), unknown, 0, False, True)
    data.add(DataElement(0xFFFCFFFC, "OB", canary("padding").encode().ljust(10)))


def _nest(data: Dataset) -> None:
    deep, middle, outer, icon = Dataset(), Dataset(), Dataset(), Dataset()
    deep.PatientComments = canary("nested")
    deep.PersonName = canary("person in a sequence")
    middle.PurposeOfReferenceCodeSequence = [deep]
    outer.ReferencedImageSequence = [middle]
    outer.CodeValue, outer.CodingSchemeDesignator, outer.CodeMeaning = "1", "99X", canary("code meaning")
    data.DerivationImageSequence = [outer]
    data.AnatomicRegionSequence = [outer]
    icon.Rows, icon.Columns, icon.BitsAllocated, icon.PixelRepresentation = 2, 5, 8, 0
    icon.add_new("PixelData", "OB", canary("icon").encode().ljust(10))
    data.IconImageSequence = [icon]


def litter(root: Path) -> None:
    """Add files that are not DICOM, and bytes behind the end of one that is."""
    (root / f"{canary('other file')}.txt").write_text(canary("other file") * 30, encoding="utf-8")
    (root / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + canary("behind the end").encode() * 9)


def found_in(folder: Path, texts: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """The canaries in the names and contents of all files of a folder, and in what was printed.

    Args:
        folder: every file in it is looked at: as it is, unpacked, and as text where it is a PDF.
        texts: standard output, standard error and the like.

    Returns:
        place -> the files that hold its canary; empty where there is none.
    """
    hits: dict[str, list[str]] = {}
    stem = _forms(STEM, shortest=4)  # by chance it costs time alone
    wanted = {place: _forms(canary(place)) for place in PLACES}
    others = {"japanese": _forms("金糸雀鳥"), "latin": _forms("Grünkanarie")}
    contents = [("printed", text.encode("utf-8", "surrogateescape")) for text in texts]
    for name, content in (*contents, *_contents(folder)):
        likely = others | (wanted if any(form in content for form in stem) else {})
        for place, forms in likely.items():
            if any(form in content for form in forms):
                hits.setdefault(place, []).append(name)
    return hits


def _forms(text: str, shortest: int = 8) -> set[bytes]:
    forms = set()
    for written in (text, text.lower(), text.upper(), text.title()):
        for encoding in _ENCODINGS:
            try:
                forms.add(written.encode(encoding))
            except UnicodeEncodeError:
                continue
        plain = written.encode()
        forms |= {plain.hex().encode(), repr(written.encode("unicode_escape"))[2:-1].encode()}
        for shift in range(3):  # the middle of a base64 text, at each of its three alignments
            code = base64.b64encode(b"\0" * shift + plain)
            forms.add(code[4 if shift else 0 : len(code) - 4])
    return {form for form in forms if len(form) >= shortest}  # shorter ones are found by chance


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        yield f"name of {name}", name.encode("utf-8", "surrogateescape")
        if path.is_file():
            content = path.read_bytes()
            yield name, content
            if content[:2] == b"\x1f\x8b":
                yield f"{name}, unpacked", gzip.decompress(content)
            if path.suffix == ".pdf":
                yield from _pdf(name, content)


def _pdf(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    with pymupdf.open(stream=content, filetype="pdf") as document:
        yield f"{name}, text", "".join(page.get_text() for page in document).encode()
        yield f"{name}, properties", repr(document.metadata).encode()
    for part in content.split(b"stream\r\n" if b"stream\r\n" in content else b"stream\n")[1:]:
        try:
            yield f"{name}, stream", zlib.decompressobj().decompress(part)
        except zlib.error:
            continue
