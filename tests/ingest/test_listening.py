"""Which of several streams of sound is listened to."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.listening import LISTEN_SECONDS, MOST_LISTENED_TO, Levels


def heard(*amplitudes, seconds=1.0):
    """Streams of steady sound, one of each amplitude."""
    levels = Levels([f"number {place}" for place in range(1, len(amplitudes) + 1)])
    for place, amplitude in enumerate(amplitudes[: levels.tried]):
        levels.add(place, np.full(100, amplitude, np.float32), seconds)
    return levels


def test_the_first_is_chosen_as_soon_as_it_is_heard_even_if_another_is_louder():
    levels = heard(0.01, 0.9)
    assert levels.chosen == 0 and levels.decided


def test_the_loudest_is_chosen_where_the_first_is_silent():
    levels = heard(0.0, 0.1, 0.5, 0.2)
    assert levels.chosen == 2 and not levels.decided
    assert levels.sentence() == "holds 4 streams of sound: number 3 was used, because number 1 is silent"


def test_the_first_is_chosen_where_all_are_silent():
    levels = heard(0.0, 5e-4)
    assert levels.chosen == 0
    assert levels.sentence() == "holds 2 streams of sound: number 1 was used, the others were left out"


def test_silence_is_listened_to_for_a_bounded_time():
    assert heard(0.0, 0.0, seconds=LISTEN_SECONDS).decided
    assert not heard(0.0, 0.0, seconds=LISTEN_SECONDS - 1).decided


def test_of_very_many_streams_only_some_are_tried():
    assert heard(*[0.0] * 50).tried == MOST_LISTENED_TO


@pytest.mark.parametrize(
    ("silence", "half"),
    [(np.uint8(128), np.uint8(192)), (np.int16(0), np.int16(16384)), (np.int32(0), np.int32(2**30)), (np.nan, 0.5)],
)
def test_samples_of_every_type_are_measured_alike(silence, half):
    for first, chosen in ((silence, 1), (half, 0)):
        levels = Levels(["number 1", "number 2"])
        levels.add(0, np.full((2, 10), first), 1.0)
        levels.add(1, np.full(10, 0.25), 1.0)
        assert levels.chosen == chosen


def test_nothing_to_choose_from_is_an_error():
    with pytest.raises(ValueError, match="no stream"):
        Levels([])
