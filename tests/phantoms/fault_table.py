"""Every fault that a series is tested for, with what has to become of it.

The numbers are those of a list of what goes wrong with real data; 0 stands for clean series in every dress in which
they come. What a number does not show here is tested elsewhere: radiographs of 26 in
tests/dicom/series/test_radiograph.py; 31 to 34 (NIfTI) in tests/nifti/; 35, 39 and 40 (outputs) in
tests/store/test_output_faults.py; 36 (orientation) in tests/test_geometry.py; 37 (labels) in
tests/registration/test_resample.py; 38 (failed registration) in tests/registration/test_quality.py. 41 (bits beside the
stored ones), 42 (files of before Part 10) and 43 (units) came from reports of other readers' users; of 43, dose is
tested in tests/dicom/series/test_units.py, maps in tests/dicom/pixels/test_diffusion.py and SUV in tests/dicom/pet/.
"""

from __future__ import annotations

from functools import partial

from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.phantoms import faults
from tests.phantoms.enhanced import Layout
from tests.phantoms.phantom import position_phantom
from tests.phantoms.planted import (
    MR,
    Planted,
    as_moved,
    as_sheared,
    both_blocks,
    compressed,
    declared,
    enhanced,
    phantom,
    planted,
    several,
    turned,
    volumes,
    with_padding,
)

#: JPEG 2000 halves an image five times, so it needs 32 rows and columns.
LARGER = partial(position_phantom, shape=(40, 36, 12))

CLEAN = (
    planted(0, "oblique CT", "read", "", phantom()),
    planted(0, "axial CT", "read", "", turned((0.0, 0.0, 0.0))),
    planted(0, "sagittal CT", "read", "", turned((90.0, 0.0, 90.0))),
    planted(0, "coronal CT", "read", "", turned((-90.0, 0.0, 0.0))),
    planted(0, "steeply oblique CT", "read", "", turned((38.0, -29.0, 61.0))),
    planted(0, "CT, feet first", "read", "", turned((0.0, 180.0, 0.0))),
    planted(0, "CT, numbered from the other end", "read", "", phantom(faults.reversed_numbers)),
    planted(0, "CT of two slices", "read", "", phantom(image=partial(position_phantom, (32, 28, 2)))),
    planted(0, "MR, oblique", "read", "", phantom(header=MR)),
    planted(0, "implicit VR", "read", "", phantom(faults.implicit)),
    planted(0, "big endian", "read", "", phantom(faults.big_endian)),
    planted(0, "deflated", "read", "", phantom(faults.deflated)),
    planted(0, "RLE", "read", "", phantom(compressed(RLELossless))),
    planted(0, "JPEG lossless", "read", "", phantom(compressed(JPEGLosslessSV1))),
    planted(0, "JPEG-LS lossless", "read", "", phantom(compressed(JPEGLSLossless))),
    planted(0, "JPEG 2000 lossless", "read", "", phantom(compressed(JPEG2000Lossless), image=LARGER)),
    planted(0, "12 bits, signed, others above", "read", "", phantom(faults.twelve_bits)),
    planted(0, "8 bits", "read", "", phantom(faults.eight_bits)),
    planted(0, "32 bits", "read", "", phantom(faults.thirty_two_bits)),
    planted(0, "32-bit floats", "read", "", phantom(faults.floats)),
    planted(0, "64-bit floats", "read", "", phantom(partial(faults.floats, double=True))),
)

COUNT = (
    planted(1, "one slice missing", "refused", "E_GAP", phantom(faults.missing_slice)),
    planted(1, "three slices missing", "refused", "E_GAP", phantom(partial(faults.missing_slice, count=3))),
    planted(1, "every second missing, half way", "refused", "E_GAP", phantom(faults.missing_alternate)),
    planted(2, "end slices missing", "fixed", "N_ENDS_MISSING", phantom(faults.missing_ends, truths=as_moved)),
    planted(
        *(2, "end slices missing, not told", "read", ""),
        phantom(partial(faults.missing_ends, told=False), truths=as_moved),
    ),
    planted(3, "the same file twice", "fixed", "N_COPIES_DROPPED", phantom(faults.duplicate_file)),
    planted(3, "the same UID, other values", "refused", "E_DUP_SOP", phantom(faults.duplicate_sop)),
    planted(4, "a position taken twice", "refused", "E_DUP_POS", phantom(faults.duplicate_position)),
    planted(
        *(4, "every position taken twice", "refused", "E_DUP_POS"),
        phantom(partial(faults.duplicate_position, everywhere=True), truths=several),
    ),
)

MIXED = (
    planted(5, "two series in a folder", "read", "", phantom(faults.second_series, truths=several)),
    planted(
        6, "three time points, by position", "fixed", "N_SPLIT", volumes(3, MR, TemporalPositionIdentifier=[1, 2, 3])
    ),
    planted(
        *(6, "two time points, by acquisition", "fixed", "N_SPLIT"),
        volumes(AcquisitionNumber=[1, 2], AcquisitionTime=["101500", "101530"]),
    ),
    planted(6, "two time points, by time alone", "fixed", "N_SPLIT", volumes(AcquisitionTime=["101500", "101530"])),
    planted(6, "three phases, by trigger", "fixed", "N_SPLIT", volumes(3, MR, TriggerTime=["0", "45.5", "91"])),
    planted(6, "two echoes", "fixed", "N_SPLIT", volumes(header=MR, EchoTime=["4.6", "9.2"], EchoNumbers=[1, 2])),
    planted(6, "two kernels", "fixed", "N_SPLIT", volumes(ConvolutionKernel=["Br38", "Br64"])),
    planted(6, "two b-values", "fixed", "N_SPLIT", volumes(header=MR, DiffusionBValue=[0.0, 1000.0])),
    planted(
        *(6, "magnitude and phase", "fixed", "N_SPLIT"),
        volumes(header=MR, ImageType=[["ORIGINAL", "PRIMARY", kind] for kind in "MP"]),
    ),
    planted(
        *(6, "two stacks, one turned", "fixed", "N_SPLIT"),
        phantom(partial(faults.second_block, turned=True), truths=both_blocks),
    ),
    planted(
        *(6, "two stacks of other pixels", "fixed", "N_SPLIT"),
        phantom(partial(faults.second_block, gap_mm=40.0, spacing_factor=1.3), truths=both_blocks),
    ),
    planted(
        *(6, "two stacks far apart", "refused", "E_GAP"),
        phantom(partial(faults.second_block, gap_mm=30.0), truths=both_blocks),
    ),
    planted(7, "two patients, half each", "refused", "E_UID_COLLISION", phantom(faults.second_patient, truths=several)),
    planted(
        *(7, "two patients, in turn", "refused", "E_UID_COLLISION"),
        phantom(partial(faults.second_patient, interleaved=True), truths=several),
    ),
    planted(
        *(7, "two persons under one ID, half each", "refused", "E_CONTRADICTION"),
        phantom(partial(faults.contradicting, PatientName="Other^Person"), truths=several),
    ),
    planted(
        *(7, "two birth dates, in turn", "refused", "E_CONTRADICTION"),
        phantom(partial(faults.contradicting, interleaved=True, PatientBirthDate="19880630"), truths=several),
    ),
    planted(
        *(8, "two frames of reference, half each", "refused", "E_CONTRADICTION"),
        phantom(partial(faults.contradicting, FrameOfReferenceUID="1.2.3.4"), truths=several),
    ),
    planted(
        *(8, "two frames of reference, two volumes", "fixed", "N_SPLIT"),
        volumes(FrameOfReferenceUID=["1.2.3.4", "1.2.3.5"]),
    ),
    planted(
        *(8, "two days, half each", "refused", "E_CONTRADICTION"),
        phantom(partial(faults.contradicting, StudyDate="20230301", AcquisitionDate="20230301"), truths=several),
    ),
    planted(8, "UIDs blanked", "fixed", "N_NO_UID", phantom(faults.blanked_uids)),
    planted(8, "one acquisition, two UIDs, half each", "fixed", "N_MERGED", phantom(faults.two_uids)),
    planted(
        *(8, "one acquisition, two UIDs, in turn", "fixed", "N_MERGED"),
        phantom(partial(faults.two_uids, interleaved=True)),
    ),
    planted(11, "one slice turned", "refused", "E_GAP E_SINGLE_SLICE", phantom(faults.other_orientation)),
    planted(11, "localizer inside, other planes", "fixed", "N_SPLIT E_SINGLE_SLICE", phantom(faults.localizer_inside)),
    planted(
        *(11, "localizer inside, same plane", "fixed", "N_SPLIT E_SINGLE_SLICE"),
        phantom(partial(faults.localizer_inside, same_plane=True)),
    ),
    planted(30, "CT and MR mixed", "refused", "E_MIXED_MODALITY", phantom(faults.mixed_modality, truths=several)),
    planted(30, "a single slice", "refused", "E_SINGLE_SLICE", phantom(faults.single_slice, truths=as_moved)),
)

PLACED = (
    planted(9, "jittered slices", "fixed", "N_RESAMPLED", phantom(faults.jittered, truths=as_moved)),
    planted(9, "2.5 mm, then 5 mm", "fixed", "N_RESAMPLED", phantom(faults.two_distances, truths=as_moved)),
    planted(9, "growing distances", "fixed", "N_RESAMPLED", phantom(faults.growing_distances, truths=as_moved)),
    planted(
        *(9, "2.5 mm, then 10 mm", "refused", "E_IRREGULAR"),
        phantom(partial(faults.two_distances, far_mm=10.0), truths=as_moved),
    ),
    planted(9, "torn apart", "refused", "E_GAP", phantom(faults.torn_apart, truths=as_moved)),
    *(
        planted(
            *(10, f"tilt of {angle:g} degrees", "fixed", "N_TILT_CORRECTED"),
            phantom(partial(faults.gantry_tilt, angle_deg=angle), truths=as_sheared),
        )
        for angle in (12.0, -18.5, 30.0)
    ),
    planted(
        *(10, "tilt of -8 degrees, axial", "fixed", "N_TILT_CORRECTED"),
        phantom(
            partial(faults.gantry_tilt, angle_deg=-8.0),
            truths=as_sheared,
            image=partial(position_phantom, angles_deg=(0.0, 0.0, 0.0)),
        ),
    ),
    planted(
        *(10, "tilt of 50 degrees", "refused", "E_TILT"),
        phantom(partial(faults.gantry_tilt, angle_deg=50.0), truths=as_sheared),
    ),
    planted(17, "one position missing", "refused", "E_GAP", phantom(faults.missing_geometry)),
    planted(
        *(17, "one orientation missing", "refused", "E_GAP"),
        phantom(partial(faults.missing_geometry, keyword="ImageOrientationPatient")),
    ),
    planted(
        *(17, "all positions missing", "refused", "E_NO_GEOMETRY"),
        phantom(partial(faults.missing_geometry, everywhere=True)),
    ),
    planted(
        *(17, "all orientations missing", "refused", "E_NO_GEOMETRY"),
        phantom(partial(faults.missing_geometry, keyword="ImageOrientationPatient", everywhere=True)),
    ),
    planted(18, "all positions equal", "refused", "E_DUP_POS", phantom(faults.equal_positions)),
    planted(18, "NaN in a position", "refused", "E_BAD_DS", phantom(faults.nan_position)),
    planted(18, "spacing 0", "refused", "E_NO_GEOMETRY", phantom(faults.zero_spacing)),
    planted(19, "comma in PixelSpacing", "refused", "E_BAD_DS", phantom(faults.comma_decimal)),
    planted(
        *(19, "comma in the positions", "refused", "E_BAD_DS"),
        phantom(partial(faults.comma_decimal, keyword="ImagePositionPatient")),
    ),
    planted(20, "one slice of another spacing", "refused", "E_GAP E_SINGLE_SLICE", phantom(faults.other_spacing)),
    planted(20, "one slice of another matrix", "refused", "E_GAP E_SINGLE_SLICE", phantom(faults.other_matrix)),
    planted(21, "axes not at a right angle", "refused", "E_NO_GEOMETRY", phantom(faults.skewed_axes)),
    planted(21, "axes no unit vectors", "refused", "E_NO_GEOMETRY", phantom(faults.long_axes)),
    planted(21, "one slice shifted in its plane", "refused", "E_MIXED_GRID", phantom(faults.shifted_in_plane)),
    planted(22, "instance numbers shuffled", "read", "", phantom(faults.shuffled_numbers)),
    planted(23, "SliceThickness lies", "read", "", phantom(faults.lying_thickness)),
)

FILES = (
    planted(12, "pixels cut", "refused", "E_GAP", phantom(faults.truncated_pixels)),
    planted(
        12, "pixels of the last slice cut", "refused", "E_GAP", phantom(partial(faults.truncated_pixels, last=True))
    ),
    planted(12, "header cut", "refused", "E_GAP", phantom(faults.truncated_header)),
    planted(
        12, "header of the last slice cut", "refused", "E_GAP", phantom(partial(faults.truncated_header, last=True))
    ),
    planted(12, "an empty file", "refused", "E_GAP", phantom(faults.empty_file)),
    planted(12, "the last file empty", "refused", "E_GAP", phantom(partial(faults.empty_file, last=True))),
    planted(12, "the last file zeroed", "refused", "E_GAP", phantom(faults.zeroed_file)),
    planted(13, "short pixels", "refused", "E_GAP", phantom(faults.short_pixels)),
    planted(13, "short pixels everywhere", "refused", "E_GAP", phantom(partial(faults.short_pixels, everywhere=True))),
    planted(14, "clutter and a DICOMDIR", "read", "", phantom(faults.clutter)),
    planted(15, "no preamble", "fixed", "N_NO_PREAMBLE", phantom(faults.no_preamble)),
    planted(16, "sequences as UN", "read", "", enhanced(Layout(shuffled=True), unknown=True)),
    planted(16, "native, declared JPEG", "fixed", "N_WRONG_SYNTAX", declared(JPEGBaseline8Bit)),
    planted(16, "native, declared RLE", "fixed", "N_WRONG_SYNTAX", declared(RLELossless)),
    planted(16, "explicit, declared implicit", "fixed", "N_WRONG_SYNTAX", declared(ImplicitVRLittleEndian)),
    planted(
        16, "implicit, declared explicit", "fixed", "N_WRONG_SYNTAX", declared(ExplicitVRLittleEndian, faults.implicit)
    ),
    planted(
        *(16, "JPEG 2000, declared native", "fixed", "N_WRONG_SYNTAX"),
        declared(ExplicitVRLittleEndian, compressed(JPEG2000Lossless), image=LARGER),
    ),
    planted(
        *(16, "RLE, declared JPEG-LS", "fixed", "N_WRONG_SYNTAX"), declared(JPEGLSLossless, compressed(RLELossless))
    ),
    planted(
        *(16, "JPEG lossless, declared JPEG 2000", "fixed", "N_WRONG_SYNTAX"),
        declared(JPEG2000Lossless, compressed(JPEGLosslessSV1)),
    ),
    planted(16, "little endian, declared big", "fixed", "N_WRONG_SYNTAX", declared(ExplicitVRBigEndian)),
    planted(29, "one slice of 60000 x 60000", "refused", "E_GAP", phantom(faults.huge_matrix)),
    planted(
        29, "all slices of 60000 x 60000", "refused", "E_GAP", phantom(partial(faults.huge_matrix, everywhere=True))
    ),
    planted(29, "deflated to 1 GiB", "refused", "E_GAP", phantom(faults.deflate_bomb)),
    planted(29, "a sequence nested 20,000 deep", "refused", "E_GAP", phantom(faults.nested_bomb)),
)

VALUES = (
    planted(24, "rescale changes, whole numbers", "read", "", phantom(faults.changing_rescale)),
    planted(24, "rescale changes, fractions", "read", "", phantom(faults.fractional_rescale)),
    planted(25, "CT without rescale", "refused", "E_RESCALE", phantom(faults.missing_rescale)),
    planted(
        *(25, "one slice without rescale", "refused", "E_RESCALE"),
        phantom(partial(faults.missing_rescale, everywhere=False)),
    ),
    planted(25, "slope 0", "refused", "E_RESCALE", phantom(faults.zero_slope)),
    planted(25, "slope 0 in one slice", "refused", "E_RESCALE", phantom(partial(faults.zero_slope, everywhere=False))),
    planted(25, "intercept 0 in one slice", "refused", "E_RESCALE", phantom(faults.wrong_intercept)),
    planted(
        *(25, "intercept off by 100 in one slice", "refused", "E_RESCALE"),
        phantom(partial(faults.wrong_intercept, intercept_hu=-924.0)),
    ),
    planted(26, "CT as MONOCHROME1", "refused", "E_NOT_SCALAR", phantom(faults.monochrome1)),
    planted(26, "MR as MONOCHROME1", "refused", "E_NOT_SCALAR", phantom(faults.monochrome1, header=MR)),
    planted(
        *(27, "padding of 63536", "fixed", "N_PADDING"),
        phantom(partial(faults.padded, stored=63536), truths=with_padding),
    ),
    planted(
        *(27, "padding from 60000 to 63536", "fixed", "N_PADDING"),
        phantom(partial(faults.padded, stored=60000, up_to=63536), truths=with_padding),
    ),
    planted(
        *(27, "padding of -2000", "fixed", "N_PADDING"),
        phantom(partial(faults.padded, stored=-2000), truths=with_padding),
    ),
    planted(
        *(27, "padding from -2000 down to -2100", "fixed", "N_PADDING"),
        phantom(partial(faults.padded, stored=-2000, up_to=-2100), truths=with_padding),
    ),
    planted(
        *(27, "MR, padding of 65535", "fixed", "N_PADDING"),
        phantom(partial(faults.padded, stored=65535), truths=partial(with_padding, padding=0.0), header=MR),
    ),
    planted(28, "enhanced CT", "read", "", enhanced(Layout())),
    planted(28, "enhanced CT, shuffled", "read", "", enhanced(Layout(shuffled=True))),
    planted(28, "enhanced CT, own rescale", "read", "", enhanced(Layout(shuffled=True, own_rescale=True))),
    planted(28, "enhanced CT, two stacks", "fixed", "N_SPLIT", enhanced(Layout(shuffled=True), volumes=2)),
    planted(28, "enhanced MR", "read", "", enhanced(Layout(), MR)),
    planted(28, "enhanced MR, shuffled", "read", "", enhanced(Layout(shuffled=True), MR)),
    planted(28, "enhanced MR, three times", "fixed", "N_SPLIT", enhanced(Layout(True, apart="time"), MR, 3)),
    planted(28, "enhanced MR, two echoes", "fixed", "N_SPLIT", enhanced(Layout(True, apart="echo"), MR, 2)),
    planted(30, "RGB", "refused", "E_NOT_SCALAR", phantom(faults.colour)),
    planted(30, "text burned in", "refused", "E_BURNED_IN", phantom(faults.burned_in)),
    planted(30, "secondary capture", "refused", "E_SCREENSHOT", phantom(faults.secondary_capture)),
)

#: 12 bits stored in 16, overlays in the others (PS3.5 8.1.2): what a codec keeps of them is no part of a value.
BITS = (
    *(
        planted(
            *(41, f"overlays above 12 bits, {name}", "read", ""),
            phantom(partial(faults.twelve_bits, syntax=syntax), image=LARGER),
        )
        for name, syntax in (("RLE", RLELossless), ("JPEG-LS", JPEGLSLossless), ("JPEG 2000", JPEG2000Lossless))
    ),
    *(
        planted(
            *(41, f"overlays on both sides of 12 bits, {name}", "read", ""),
            phantom(partial(faults.twelve_bits, syntax=syntax, high_bit=13)),
        )
        for name, syntax in (("native", None), ("RLE", RLELossless))
    ),
    planted(
        *(41, "overlays above 12 bits, JPEG 2000 with loss", "refused", "E_DECODE"),
        phantom(partial(faults.twelve_bits, syntax=JPEG2000, lossy=True), image=LARGER),
    ),
    planted(
        *(41, "overlays on both sides of 12 bits, JPEG-LS", "refused", "E_DECODE"),
        phantom(partial(faults.twelve_bits, syntax=JPEGLSLossless, high_bit=13)),
    ),
)

BARE = (
    planted(
        42, "the prefix without preamble", "fixed", "N_NO_PREAMBLE", phantom(partial(faults.no_preamble, prefix=True))
    ),
    planted(42, "ACR-NEMA", "refused", "E_HEADER", phantom(faults.acr_nema)),
)

#: Headers that say in which unit the values are, and values that are in it; roles ask for Bq/ml and HU.
UNITS = (
    planted(43, "PET in Bq/ml", "read", "", phantom(faults.pet)),
    *(
        planted(
            *(43, f"PET in {unit}", "refused", "E_UNIT"),
            phantom(faults.pet, partial(faults.in_unit, factor=factor, Units=unit)),
        )
        for unit, factor in (("PROPCPS", 0.04), ("CNTS", 0.6), ("GML", 0.0002))
    ),
    planted(
        *(43, "PET, half in Bq/ml and half in CNTS", "refused", "E_UNIT"),
        phantom(faults.pet, partial(faults.in_unit, factor=0.6, half=True, Units="CNTS")),
    ),
    planted(43, "CT of no RescaleType", "read", "", phantom(partial(faults.in_unit, RescaleType=""))),
    planted(43, "CT in HU, RescaleType US", "read", "", phantom(partial(faults.in_unit, RescaleType="US"))),
    planted(
        *(43, "CT in MGML", "refused", "E_UNIT"),
        phantom(partial(faults.in_unit, offset=1000.0, RescaleType="MGML")),
    ),
    planted(
        *(43, "CT in Z_EFF", "refused", "E_UNIT"),
        phantom(partial(faults.in_unit, factor=0.003, offset=7.4, RescaleType="Z_EFF")),
    ),
)

TABLE: tuple[Planted, ...] = tuple(
    sorted((*CLEAN, *COUNT, *MIXED, *PLACED, *FILES, *VALUES, *BITS, *BARE, *UNITS), key=lambda item: item.row)
)
