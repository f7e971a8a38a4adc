"""Sound that grows in one block of memory."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.waveform import Waveform


@pytest.mark.parametrize("expected", [0, 3, 1000])
def test_what_is_appended_comes_back_whatever_was_expected(expected):
    waveform = Waveform(expected)
    for start in range(0, 50, 5):
        waveform.append(np.arange(start, start + 5, dtype=np.float32) / 100)
    found = waveform.finish(1, [])
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([k / 100 for k in range(50)])


def test_padding_is_silence_up_to_a_place_and_never_cuts():
    waveform = Waveform(10)
    waveform.append(np.float32([0.5]))
    waveform.pad(4)
    waveform.pad(2)
    waveform.append(np.float32([0.25]))
    assert len(waveform) == 5
    assert waveform.finish(1, []).tolist() == [0.5, 0, 0, 0, 0.25]


def test_nothing_gives_nothing():
    warnings: list[str] = []
    assert Waveform(5).finish(2, warnings).shape == (0,) and not warnings


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_silence_and_the_rest_stays(bad):
    waveform, warnings = Waveform(0), []
    waveform.append(np.float32([0.5, bad, -3.0]))
    assert waveform.finish(2, warnings).tolist() == [0.5, 0.0, -1.0]
    assert "no numbers" in warnings[0]


def test_a_mix_of_many_channels_is_scaled_instead_of_clipped():
    waveform = Waveform(0)
    waveform.append(np.float32([-4.0, 2.0]))
    assert waveform.finish(6, []).tolist() == [-1.0, 0.5]
