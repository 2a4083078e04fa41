"""Break the bytes of a DICOM file by chance, as bad disks, cut transfers and careless software do."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable

#: An element in explicit VR, little endian: group and element, two letters, and the length that follows them.
_SHORT = re.compile(
    rb"[\x02-\x54][\x00-\x54]..(?:AE|AS|AT|CS|DA|DS|DT|FL|FD|IS|LO|LT|PN|SH|SL|SS|ST|TM|UI|UL|US)", re.S
)
_LONG = re.compile(rb"[\x02-\xe0][\x00-\x7f]..(?:OB|OD|OF|OW|SQ|UC|UN|UR|UT)\x00\x00", re.S)
_LENGTHS = (0, 1, 2, 7, 0x7FFF, 0xFFFE, 0xFFFF)
_LONG_LENGTHS = (*_LENGTHS, 0x10000, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF)
_NASTY = (b"NaN", b"1e999", b"-1", b"0", b"0,9", b"99999999999", b"\\\\\\\\", b"\xff\xfe", b"../..", b"1\\2\\3")

Mutation = Callable[[bytes, random.Random], bytes]


def flipped_bits(data: bytes, chance: random.Random) -> bytes:
    """Flip 1 to 16 bits, every other time within the first 2 KiB, where the header is."""
    broken = bytearray(data)
    end = min(len(data), 2048) if chance.random() < 0.5 else len(data)
    for _ in range(chance.randint(1, 16)):
        broken[chance.randrange(end)] ^= 1 << chance.randrange(8)
    return bytes(broken)


def truncated(data: bytes, chance: random.Random) -> bytes:
    """Cut the file anywhere."""
    return data[: chance.randrange(len(data))]


def wrong_length(data: bytes, chance: random.Random) -> bytes:
    """Give one element a length that it does not have."""
    long = chance.random() < 0.3
    places = [match.end() for match in (_LONG if long else _SHORT).finditer(data)]
    if not places:
        return flipped_bits(data, chance)
    length = struct.pack("<L", chance.choice(_LONG_LENGTHS)) if long else struct.pack("<H", chance.choice(_LENGTHS))
    return _put(data, chance.choice(places), length)


def wrong_value(data: bytes, chance: random.Random) -> bytes:
    """Write something unfit over the start of one element's value."""
    places = [match.end() + 2 for match in _SHORT.finditer(data)]
    value = chance.choice(_NASTY) if chance.random() < 0.7 else chance.randbytes(chance.randint(1, 8))
    return _put(data, chance.choice(places), value) if places else flipped_bits(data, chance)


def nested_sequences(data: bytes, chance: random.Random) -> bytes:
    """Put a sequence that nests 1 to 3,000 deep in front of one element."""
    depth = chance.choice((1, 30, 300, 3000))
    opened = struct.pack("<HH2sHLHHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    closed = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    places = [match.start() for match in _SHORT.finditer(data)] or [len(data)]
    place = chance.choice(places)
    ends = closed * (depth if chance.random() < 0.5 else chance.randrange(depth))
    return data[:place] + opened * depth + ends + data[place:]


def swapped_chunks(data: bytes, chance: random.Random) -> bytes:
    """Exchange two chunks of up to 512 bytes."""
    size = chance.randint(1, max(1, min(512, len(data) // 2)))
    first, second = sorted(chance.randrange(len(data) - size + 1) for _ in range(2))
    if second < first + size:
        return data[first:] + data[:first]
    between = data[first + size : second]
    return data[:first] + data[second : second + size] + between + data[first : first + size] + data[second + size :]


def zeroed_chunk(data: bytes, chance: random.Random) -> bytes:
    """Set up to 4 KiB to zero, as a block that was never written."""
    return _put(data, chance.randrange(len(data)), bytes(chance.randint(1, 4096)))


def inserted_noise(data: bytes, chance: random.Random) -> bytes:
    """Put up to 64 bytes of noise anywhere."""
    place = chance.randrange(len(data))
    return data[:place] + chance.randbytes(chance.randint(1, 64)) + data[place:]


def _put(data: bytes, place: int, value: bytes) -> bytes:
    return (data[:place] + value + data[place + len(value) :])[: len(data)]


MUTATIONS: tuple[Mutation, ...] = (
    *(flipped_bits, truncated, wrong_length, wrong_value, nested_sequences, swapped_chunks, zeroed_chunk),
    inserted_noise,
)
