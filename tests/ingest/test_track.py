"""Spans and content hashes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.track import Span, media_id

MOMENTS = st.floats(0, 1e5)
SPANS = st.tuples(MOMENTS, MOMENTS).map(lambda pair: Span(min(pair), max(pair)))


def test_a_span_that_ends_before_it_starts_is_refused():
    with pytest.raises(ValueError, match="0 <= start <= end"):
        Span(2.0, 1.0)


def test_a_span_before_the_beginning_of_the_medium_is_refused():
    with pytest.raises(ValueError, match="0 <= start"):
        Span(-0.1, 1.0)


def test_not_a_number_is_no_time():
    with pytest.raises(ValueError, match="span"):
        Span(0.0, float("nan"))


def test_spans_that_only_touch_do_not_overlap():
    assert Span(0, 1).overlap(Span(1, 2)) == 0


@given(SPANS, SPANS)
def test_overlap_is_symmetric_and_no_longer_than_either_span(one, other):
    assert one.overlap(other) == other.overlap(one)
    assert 0 <= one.overlap(other) <= min(one.duration, other.duration)


def test_spans_sort_by_start():
    assert sorted([Span(2, 3), Span(0, 9)]) == [Span(0, 9), Span(2, 3)]


def test_milliseconds_are_rounded_not_cut():
    assert Span(0.0006, 1.2346).milliseconds() == (1, 1235)


def test_two_files_of_one_content_are_one_medium(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"the same")
    assert media_id(tmp_path / "one") == media_id(tmp_path / "two") == hashlib.sha256(b"the same").hexdigest()


def test_a_missing_file_has_no_hash(tmp_path):
    with pytest.raises(FileNotFoundError):
        media_id(tmp_path / "absent")
