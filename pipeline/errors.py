"""Everything that can go wrong, each with a stable code, a sentence and a remedy.

Three kinds, by what happens next:

- `UsageError`: the command cannot start (exit code 2); nothing was written.
- `CaseError`: this case failed; its record says so and the cohort goes on (exit code 1).
- `QuarantineError`: this case's *input* is unfit; it is set aside with the reason and the cohort goes on (exit code 1).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

#: What an `OSError` has where a disk is full, a quota is reached or a file has grown too large.
DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: How ITK, SimpleITK and PyTorch (on a processor, on a GPU) say that memory ran out, as plain runtime errors.
_OUT_OF_MEMORY = ("Failed to allocate memory", "can't allocate memory", "out of memory")

#: code -> what a person can do about it. The codes are stable: scripts may rely on them.
REMEDIES: dict[str, str] = {
    # the command
    "E_EMPTY": "Check the path: the folder must exist, be open to you, and hold what is read.",
    "E_NO_DICOM": "Check the path; Tandem looks for DICOM by content, whatever the file names.",
    "E_NO_CASES": "Run the stages before this one on the same folder first, or check that they finished.",
    "E_NO_STAGE": "Use the names of stages that `tandem run -h` lists.",
    "E_OUT": "Choose an output folder that can be created and written to, outside the input folder.",
    "E_BUSY": "Wait for the other run to end, or choose another output folder.",
    "E_RESOURCES": "Correct the file of resources; docs/how-to/cohorts.md explains its keys.",
    "E_SCHEDULER": "Start it (`dask scheduler`) and its workers (`dask worker ADDRESS`), and check the address.",
    "E_SLURM": "Start it on a machine from which jobs are submitted to SLURM, or use --jobs or --scheduler.",
    "E_WORKER": "Start the workers with the same version of Tandem as the command's.",
    "E_SPEC": "Correct the data spec; docs/reference/data-specs.md explains every key.",
    "E_KEY": "Keep the pseudonym key outside the output folder, readable by you alone (TANDEM_HOME says where).",
    "E_CASE_ID": "Use letters, digits, _ and - in case ids.",
    "E_CONFIG": "Correct the value that the message names, where it was given: options, configuration or spec.",
    "E_EXTRA": "Install the extra that the message names.",
    # files and series
    "E_UNREADABLE": "Check the permissions and the disk, then run again: finished cases are not repeated.",
    "E_NOT_IMAGE": "Nothing to do: the series holds no images.",
    "E_WITHDRAWN": "Put the files back, or delete the case's folder below cases/ to drop what was made of it.",
    "E_HEADER": "Export the file again; its header is cut or broken.",
    "E_PIXEL_LENGTH": "Export the file again; its pixel data are shorter than its header says.",
    "E_SIZE": "Check the file's Rows and Columns; an image of that size is not read.",
    "E_DECODE": "Export the series again without compression, or install the codec that the message names.",
    "E_LIMIT": "Export the file again; to be read it asks for more memory or time than an image can need.",
    "E_GAP": "Export the missing slices again; a volume is not built across a gap.",
    "E_DUP_SOP": "Export the series again: two different files claim to be the same instance.",
    "E_DUP_POS": "Export the time points, echoes or reconstructions as separate series.",
    "E_NO_GEOMETRY": "Export the series with ImagePositionPatient, ImageOrientationPatient and PixelSpacing.",
    "E_BAD_DS": "Correct the number in the header (a decimal point, not a comma; no NaN) and export again.",
    "E_MIXED_GRID": "Split the series: its slices differ in size, spacing or orientation.",
    "E_IRREGULAR": "Export each spacing as a series of its own; its distances differ too much to be evened out.",
    "E_TILT": "Check ImagePositionPatient: no gantry leans that far.",
    "E_SINGLE_SLICE": "A volume needs at least two slices at different positions.",
    "E_MULTIFRAME": "Export the series as single-frame instances.",
    "E_MOSAIC": "Export the series as enhanced multi-frame or single-frame images instead of a mosaic.",
    "E_NOT_SCALAR": "Export the series as single-channel (MONOCHROME2) images.",
    "E_BURNED_IN": "Use the series without text in its pixels: names in them cannot be taken out.",
    "E_FREE_TEXT": "Leave it out, or read it by eye; `--clean-structured-content` copies reports without their texts.",
    "E_SCREENSHOT": "Use the series that the picture was taken of; a screenshot has no values to measure.",
    "E_RESCALE": "Export the series again with a valid RescaleSlope and RescaleIntercept.",
    "E_UID_COLLISION": "Correct the identifiers: one series belongs to one patient and one study.",
    "E_MIXED_MODALITY": "Correct the identifiers: the images of one series have one modality.",
    "E_CONTRADICTION": "Correct the headers that the private table names, or part the persons.",
    "E_UNIT": "Give the role the unit of its images, or use images in the role's unit.",
    "E_AMBIGUOUS": "Sharpen the role's rules in the spec (`tandem series ROOT` has the descriptions), or add `prefer` "
    "or `part`.",
    "E_MISSING_ROLE": "Add the missing series, loosen the role's rules, or set `required: false`; `tandem series ROOT` "
    "has the descriptions.",
    # masks and uptake values
    "E_MASK": "Export the structure set or segmentation again, drawn on the slices of the series that it refers to.",
    "E_MASK_ROI": "Correct the mask's `labels` in the spec (rois.csv, the private table, has the names), or export the "
    "object that was drawn on these very images.",
    "E_SUV": "Export the PET series with the header values that the message names, or use the unit Bq/ml.",
    # volumes
    "E_NIFTI": "Write the file again from its source; it is damaged or its geometry is not usable.",
    "E_GRID": "Bring the images onto one grid first.",
    "E_AFFINE": "Check the source's geometry: its affine is singular, sheared or not finite.",
    "E_BLANK": "Check the source image: it holds one value only, or nothing finite.",
    "E_DTYPE": "Check the stage that made the data: its values do not fit the kind that it declares.",
    # pictures, sounds and folders of them
    "E_PICTURE": "Save the picture again from its source, as a grey PNG, JPEG or TIFF of 8 or 16 bits.",
    "E_SOUND": "Record or export the sound again, as WAV, FLAC, OGG or MP3 with one channel or two.",
    "E_SILENT": "Leave the recording out, or record it again: it holds no sound.",
    "E_FOLDER": "Correct the folders as the message says; docs/how-to/classify-streams.md shows how they have to lie.",
    # predictions
    "E_ROWS": "Give one row a case, in the same order, in every file.",
    "E_PROBABILITY": "Give probabilities, not logits or scores: in [0, 1], finite, each row with the sum 1.",
    "E_LABEL": "Give classes as whole numbers from 0, in the columns' order; in label images, those that are declared.",
    "E_NAMES": "Give as many names as there are files or classes, each of them once.",
    "E_OPTION": "Give a value in the range that the message names.",
    "E_CONFORMAL": "Use a level between 0 and 1 and a rule of sets that there is, or more cases.",
    "E_CAL_CLASSES": "Use a calibration and a method that are made for this number of classes.",
    "E_CAL_CLASS_ABSENT": "Calibrate on cases of every class, and check the labels.",
    "E_CAL_FILE": "Give the file that `tandem calibrate --out` has written.",
    "E_CAL_METHOD": "Use one of the methods that the message names.",
    "E_CAL_NETWORK": "Use the calibration fitted on this network's own logits with these settings, or calibrate again.",
    "E_CAL_NONFINITE": "Check the model's outputs: they hold NaN or infinity.",
    "E_CAL_NO_FIT": "Check that labels and columns belong together; else use more cases or a simpler method.",
    "E_CAL_PROBABILITIES": "Give the model's logits, or the logarithm of its probabilities.",
    "E_CAL_TOO_FEW": "Use more cases, or fewer folds.",
    "E_CAL_TRAINING": "Calibrate on validation or out-of-fold cases: on its training cases a model is overconfident.",
    "E_TABLE": "Correct the table that the message names; an array is a .npy, .npz (one array) or .csv file of its "
    "values alone.",
    # harmonisation
    "E_BATCH": "Give each case a batch that the training cases have, and every batch enough of them; or leave it out.",
    # networks
    "E_WEIGHTS": "Name a checkpoint of this network's architecture, and check that the file is whole.",
    "E_CHECKPOINT": "Use the same network as the checkpoint's, or train anew in another output folder.",
    "E_FOLD": "Use more cases or fewer folds, so that the training and the validation cases hold every class.",
    "E_DUPLICATE": "Keep one of the equal files, or let `--duplicates leave_out` leave the others out.",
    "E_MODALITY": "Use the modalities that the message names, each in its place.",
    "E_CHANNELS": "Give the channels that the message names, in that order: the `channels` of the section `segment`.",
    "E_EXPLAIN": "Ask for what this network has, and by its name; docs/reference/fusion.md says what there is.",
    "E_ENGINE": "Use `engine: torch`, and report it: this processor's compiled network is not the network.",
    "E_EARLY": "Fuse streams of two and of three dimensions by intermediate or late fusion.",
    "E_NAN_LOSS": "Check the images of the cases that the message names, or lower the learning rate; then resume.",
    # stages
    "E_INPUT": "Check the path; an output of an earlier stage needs that stage to be run first.",
    "E_OUTPUT": "Check the stage's chain: it has to give every output that it declares.",
    "E_CHANGED": "The file is not the one that was recorded: run the stage that made it again with --overwrite.",
    "E_VERIFY": "Check the disk (space, quota, network), then run again.",
    "E_DISK": "Free some space on the disk of the file that the message names, or choose another folder, then run "
    "again: finished cases are not repeated.",
    "E_CRASH": "Run again with --jobs 1; if it crashes again, the log beside the case's outputs says where.",
    "E_MEMORY": "Give a process more memory: fewer --jobs, a coarser spacing in the data spec, or another machine.",
    "E_TIME": "Look whether the case is unlike the others, or give the stage more time in the file of resources.",
    "E_REGISTER": "Check that both images show one body part and are not blank; the message has elastix's words.",
    "E_OVERLAP": "Check that the two images belong to the same patient and body part.",
    "E_LANDMARKS": "Give both images' landmarks in mm, RAS or LPS stated: the same points, at least 3, not on a line.",
    "E_FRAME": "Align the role by its images (`transform: rigid`): its headers do not say how it lies to the other.",
    "E_PROJECTION": "Use a radiograph and a CT, and give in xray_ct.yaml what the radiograph's header does not say.",
    "E_ALIGNMENT": "Look at both images; give landmarks or masks, or let `on_fail: flag` keep the case without it.",
    "E_INTERNAL": "This is a defect of Tandem: please report it with the log beside the case's outputs.",
}


#: code -> what was seen and dealt with; nothing has to be done.
NOTES: dict[str, str] = {
    "N_NO_PREAMBLE": "The files had no DICOM preamble and were read all the same.",
    "N_WRONG_SYNTAX": "The files declared another transfer syntax than they have; they were read as what they are.",
    "N_COPIES_DROPPED": "The series held identical copies of instances; one of each was kept.",
    "N_NO_PATIENT_ID": "The patient has no ID; the study stands for the patient.",
    "N_ISSUER": "Only some of the patient's files name the issuer of the PatientID; nothing else parts them.",
    "N_TWO_NAMES": "The patient's name differs between series; birth date and sex agree.",
    "N_NO_FRAME": "Every slice names a frame of reference of its own: none was taken as known.",
    "N_NO_UID": "UIDs are blank; the files of one folder and series number were taken for a series.",
    "N_LATEST": "Of repeated acquisitions of one protocol the latest complete one was taken.",
    "N_UNIT_UNKNOWN": "The header does not say in which unit the values are; the role's was believed.",
    "N_UNIT_DOUBTFUL": "The values of the map cannot be in the unit that its role names: look at it.",
    "N_NOT_HU": "The CT's values are not HU; the role names no unit.",
    "N_QUANTITATIVE": "The series is a map of a quantity, and its role names no unit; filters leave it as it is.",
    "N_OTHER_FRAME": "Regions of another frame of reference than the image's were left out.",
    "N_SPLIT": "The series held several volumes (time points, echoes, kernels, orientations); this is one of them.",
    "N_MERGED": "One acquisition was stored as several series; they were put together.",
    "N_FILES_LOST": "A file beside the series' own cannot be read and may be of it: slices may be missing.",
    "N_ENDS_MISSING": "The acquisition had more images than there are: slices may be missing at the ends.",
    "N_TILT_CORRECTED": "The slices leaned (gantry tilt) and were resampled onto an upright grid.",
    "N_RESAMPLED": "The slices were unevenly spaced and were resampled onto even steps by their true positions.",
    "N_PADDING": "Voxels outside the scanned field held a padding value and were set to air (CT) or 0.",
    "N_DARK": "A picture has no part that is brighter than a tenth of white.",
    "N_NO_AIR": "The CT shows no air: check that its values are HU.",
    "N_INVERTED": "The radiograph was stored with low values white (MONOCHROME1) and was inverted.",
    "N_TURNED": "The picture was turned or mirrored as its file says (EXIF orientation).",
    "N_CLIPPED": "The recording was too loud for its converter or format: its loudest parts are cut off.",
    "N_NARROW_BAND": "The sound was recorded at a lower rate than it is looked at: its upper bands are empty.",
    "N_SHORT_SOUND": "The recording is shorter than the stretch that is looked at; the rest is silence.",
    "N_NUMBERS_PAIRED": "Files of one number were taken for one case: check that the numbers are those of patients.",
    "N_NAME_TWICE": "A name stands in two splits or classes: if it is a patient's, move all of it to one place.",
    "N_UNEQUAL_COUNTS": "The streams have different numbers of files: some are in no case, or cases lack a stream.",
    "N_WINDOWED": "The radiograph's values are those of its own display: its lookup table or window was applied.",
    "N_DETECTOR_SPACING": "The radiograph's pixel size is that at the detector: lengths in the body are shorter.",
    "N_NO_SPACING": "A picture of the input says no pixel size; 1 mm stands for it, and nothing is measured in it.",
    "N_NO_ROLE": "No series fits an optional role; the case went on without it.",
    "N_NO_MASK": "No structure set or segmentation fits an optional mask; the case went on without it.",
    "N_NO_LANDMARKS": "No file fits a role's `register.landmarks`; the case went on without them.",
    "N_MASK_OVERLAP": "Regions of different labels share voxels, which went to the label that stands later.",
    "N_MASK_CUT": "Contours reach beyond the image; they were cut at its edge.",
    "N_MASK_EMPTY": "A label of a mask has no voxel.",
    "N_CONTOUR_GAPS": "Slices between the contours of a region have none; they were left empty.",
    "N_CONTOUR_OFFSET": "The contours lie beside the slices, all by one part of a step; the nearest slice has them.",
    "N_OPEN_CONTOURS": "A region holds points or open contours, which enclose nothing; they were left out.",
    "N_INJECTION_DATE": "The date of injection does not fit the scan; the time of day was used.",
    "N_UNITS": "The header gave lengths in metres or microns; they were turned into mm.",
    "N_NOT_FUSED": "A modality has no aligned image, or a stream no file: the network did without, or none was made.",
    "N_PART_SHOWN": "The MR reaches over a part of the body on the CT alone: elsewhere the picture of both is CT.",
    "N_STREAM_CUT": "A volume was larger than the part of it that the network looks at, which is around its middle.",
    "N_UNSEEN_VOXELS": "The images' voxels are of another size than the fusion network has learned from.",
    "N_MEMORY": "The device's memory did not hold the whole image; sums were kept beside it, which takes longer.",
    "N_CLASS_PAIRED": "Cases were made of files of one class: they are no patients, and nothing in them is joint.",
    "N_BIAS_CORRECTED": "The MR's bias field was strong enough to be corrected.",
}


class PipelineError(Exception):
    """An error with a stable code, one sentence and a remedy.

    Args:
        code: one of the keys of `REMEDIES`.
        message: one sentence: what was expected, what came. Never holds patient data or input paths when
            it is about a case.
        remedy: what to do about it; the code's general remedy when left out.
    """

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(code, message, remedy)
        self.code = code
        self.message = message
        self.remedy = remedy or REMEDIES[code]

    def __str__(self) -> str:
        return f"{self.code}: {self.message} {self.remedy}"


class UsageError(PipelineError):
    """The command cannot start: wrong arguments, spec, folders. Exit code 2."""


class CaseError(PipelineError):
    """One case could not be processed; the others go on."""


class QuarantineError(CaseError):
    """One case's input is unfit to use; it is set aside with the reason, the others go on."""


@contextmanager
def told_of(key: str) -> Iterator[None]:
    """Within the block, an error of a case tells which key of the case it is about."""
    try:
        yield
    except CaseError as error:
        raise type(error)(error.code, f"{key}: {error.message}", error.remedy) from error


def flag_of(key: str, flag: str) -> str:
    """A flag that tells which key it is about: `N_TURNED: as its EXIF says` -> `N_TURNED: cxr: as its EXIF says`."""
    code, _, what = flag.partition(": ")
    return f"{code}: {key}: {what}" if what else f"{code}: {key}"


def pipeline_cause(error: BaseException) -> PipelineError | None:
    """Find the `PipelineError` behind an error that MONAI has wrapped in `RuntimeError`s, or None.

    A full disk is one wherever it shows, E_DISK, and so is memory that ran out, E_MEMORY.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, PipelineError):
            return seen
        if isinstance(seen, OSError) and seen.errno in DISK_IS_FULL:
            return CaseError("E_DISK", f"Expected room to write {seen.filename or 'a file'}, but its disk is full.")
        if isinstance(seen, MemoryError) or any(words in str(seen) for words in _OUT_OF_MEMORY):
            return CaseError("E_MEMORY", "The work asked for more memory than its process could have.")
        seen = seen.__cause__ or seen.__context__
    return None


def root_words(error: BaseException) -> str:
    """The first error behind one that nobody foresaw: its name and the first line of its words, for E_INTERNAL."""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    return f"{type(root).__name__}: {root}".split("\n")[0][:300]
