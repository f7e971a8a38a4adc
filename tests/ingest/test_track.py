"""Spans and content hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.track import Extraction, Span, Speaking, SpeechTurn, media_id

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


def test_who_speaks_is_told_for_every_turn_or_for_none():
    turns = (SpeechTurn(Span(0, 1), 0, np.zeros(0, np.float32)),) * 2
    assert Extraction(media_id(Path(__file__)), "film", 2.0, (), turns).speaking == ()
    with pytest.raises(ValueError, match="1 of 2 turns"):
        Extraction(media_id(Path(__file__)), "film", 2.0, (), turns, (), (Speaking(None, 0.0, 1.0),))


def test_who_speaks_is_a_face_that_was_found():
    turns = (SpeechTurn(Span(0, 1), 0, np.zeros(0, np.float32)),)
    with pytest.raises(ValueError, match="beyond the 0"):
        Extraction(media_id(Path(__file__)), "film", 2.0, (), turns, (), (Speaking(0, 0.5, 0.5),))


@pytest.mark.parametrize("wrong", [(0, 1.1, 0.0), (0, 0.5, -0.1), (-1, 0.5, 0.5), (0, float("nan"), 0.5)])
def test_a_judgement_that_is_no_probability_or_no_track_is_refused(wrong):
    with pytest.raises(ValueError, match=r"probabilities|track"):
        Speaking(*wrong)
