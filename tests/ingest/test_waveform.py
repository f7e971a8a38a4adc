"""Sound that grows in one block of memory."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.waveform import Waveform, is_mapped, let_go


@pytest.mark.parametrize("expected", [0, 3, 1000])
def test_what_is_appended_comes_back_whatever_was_expected(expected):
    waveform = Waveform(expected)
    for start in range(0, 50, 5):
        waveform.append(np.arange(start, start + 5, dtype=np.float32) / 100)
    found = waveform.finish([])
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([k / 100 for k in range(50)])


def test_padding_is_silence_up_to_a_place_and_never_cuts():
    waveform = Waveform(10)
    waveform.append(np.float32([0.5]))
    waveform.pad(4)
    waveform.pad(2)
    waveform.append(np.float32([0.25]))
    assert len(waveform) == 5
    assert waveform.finish([]).tolist() == [0.5, 0, 0, 0, 0.25]


def test_nothing_gives_nothing():
    warnings: list[str] = []
    assert Waveform(5).finish(warnings).shape == (0,) and not warnings


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_silence_and_the_rest_stays(bad):
    waveform, warnings = Waveform(0), []
    waveform.append(np.float32([0.5, bad, -3.0]))
    assert waveform.finish(warnings).tolist() == [0.5, 0.0, -1.0]
    assert "no numbers" in warnings[0]


def test_what_is_too_loud_is_clipped_and_nothing_else_changes():
    waveform = Waveform(0)
    waveform.append(np.float32([-4.0, 0.5, 2.0]))
    assert waveform.finish([]).tolist() == [-1.0, 0.5, 1.0]


@pytest.mark.parametrize("expected", [0, 100, 5000])
def test_a_long_sound_lies_in_a_file_and_is_the_same(expected):
    noise = np.random.default_rng(0).normal(0, 0.1, 3000).astype(np.float32)
    waveform = Waveform(expected, in_memory=1000)
    for start in range(0, 3000, 70):
        waveform.append(noise[start : start + 70])
    waveform.pad(3100)
    found = waveform.finish([])
    assert is_mapped(found) and is_mapped(found[5:9]) and not is_mapped(noise)
    let_go(found)  # what was written is not lost
    assert (found[:3000] == noise).all() and not found[3000:].any() and len(found) == 3100


def test_a_long_sound_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    waveform = Waveform(0, in_memory=10)
    waveform.append(np.zeros(100, np.float32))
    assert is_mapped(waveform.finish([])) and not list(tmp_path.iterdir())


def test_where_no_file_can_be_written_a_long_sound_stays_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    waveform = Waveform(0, in_memory=10)
    for _ in range(5):
        waveform.append(np.full(100, 0.5, np.float32))
    found = waveform.finish([])
    assert not is_mapped(found) and found.tolist() == [0.5] * 500


def test_what_is_no_number_is_silence_in_a_file_too():
    waveform, warnings = Waveform(0, in_memory=1), []
    waveform.append(np.float32([0.5, np.nan, -3.0]))
    assert waveform.finish(warnings).tolist() == [0.5, 0.0, -1.0] and warnings
