"""Conditional requests: entity tags, preconditions on them, and ranges of bytes (RFC 9110)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Header

from search.people import Person, PreconditionFailed

_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_RANGES = re.compile(r"bytes[ \t]*=(.*)", re.IGNORECASE)
_RANGE = re.compile(r"([0-9]{0,18})-([0-9]{0,18})")

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description="Change the person only while they are of this version: the `ETag` that was answered, or `*`.",
        examples=['"8f14e45fceea467f8b1d1e4b7a5f6c0d-3"'],
    ),
]
IfNoneMatch = Annotated[
    str | None,
    Header(
        alias="If-None-Match",
        description="Answer 304 without a body while this `ETag` still holds.",
        examples=['"8f14e45fceea467f8b1d1e4b7a5f6c0d-3"'],
    ),
]


class RangeUnsatisfiable(ValueError):
    """A range of bytes lies outside of the file.

    Args:
        length: of the file, bytes.
    """

    def __init__(self, length: int) -> None:
        super().__init__(f"the file has {length} bytes, and none of them lies in the range that was asked for")
        self.length = length


@dataclass(frozen=True)
class ByteRange:
    """Bytes from ``start`` up to, but without, ``end``."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a range holds a byte or more, got {self.start} to {self.end}")


def tag_of(person: str, version: int) -> str:
    """The entity tag of a person's record: another one after every change of name or samples."""
    return f'"{person}-{version}"'


def expected_version(if_match: str | None, person: Person) -> int | None:
    """The version that a change asks for, None for any.

    Args:
        if_match: the header; tags are compared strongly, so that a weak one never matches.
        person: as they are.

    Raises:
        PreconditionFailed: none of the tags is theirs.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    tag = tag_of(person.id, person.version)
    if all(weak or one != tag for weak, one in _TAG.findall(if_match)):
        raise PreconditionFailed(f"the person is {tag} by now: read them again, then decide")
    return person.version


def is_known(if_none_match: str | None, tag: str) -> bool:
    """Whether a caller has what a tag stands for already; weak tags count."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or any(one == tag for _, one in _TAG.findall(if_none_match))


def asked_range(header: str | None, if_range: str | None, tag: str, length: int) -> ByteRange | None:
    """The one range of bytes that is asked for, None for the whole file.

    What is not a range of bytes is ignored, as are several ranges at a time, and a range of what the file was
    under another tag.

    Args:
        header: ``Range``.
        if_range: ``If-Range``.
        tag: of the file.
        length: of the file, bytes.

    Raises:
        RangeUnsatisfiable: no byte of the file lies in it.
    """
    ranges = _RANGES.fullmatch((header or "").strip())
    if ranges is None or (if_range is not None and if_range.strip() != tag):
        return None
    found = _RANGE.fullmatch(ranges[1].strip())
    if found is None or found[1] + found[2] == "" or (found[1] and found[2] and int(found[2]) < int(found[1])):
        return None
    if not found[1]:  # the last so many bytes
        start, end = max(0, length - int(found[2])), length
    else:
        start, end = int(found[1]), min(int(found[2]) + 1 if found[2] else length, length)
    if start >= end:
        raise RangeUnsatisfiable(length)
    return ByteRange(start, end)
