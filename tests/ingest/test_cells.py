"""What one cell of a film shows depends on its pictures and its lead-in only."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.cells import follow_cells
from ingest.mouths import Passing
from ingest.sightings import FaceSettings
from tests.ingest.squares import SquareDetector, describe, film, scene

SETTINGS = FaceSettings(cell=2.0)


def cells(pictures, first=0, detector=None):
    return list(follow_cells(pictures, detector or SquareDetector(), describe, SETTINGS, None, first))


def flat(cell):
    sightings = [
        (one.times.tolist(), one.begins, one.ends, one.led_in, one.open, one.area_sum, one.score, one.mouth.tobytes())
        for one in cell.sightings
    ]
    shots = [[(shot.time, shot.packed.tobytes()) for shot in one.shots] for one in cell.sightings]
    return cell.number, cell.pictures, cell.lead_in, cell.cuts.tolist(), sightings, shots


def noisy(count):
    """A person who walks through a picture whose light changes."""
    light = np.random.default_rng(0).integers(0, 60, count)
    return [scene((1, 10 + 4 * k, 50), background=light[k]) for k in range(count)]


@pytest.mark.parametrize("first", [1, 2, 4])
def test_a_cell_is_the_same_whether_the_film_was_followed_from_its_beginning(first):
    pictures = film(*noisy(50))
    near = [one for one in pictures if one[0] >= SETTINGS.lead_in(first) - 1e-6]
    assert [flat(one) for one in cells(near, first)] == [flat(one) for one in cells(pictures)[first:]]


def test_mouths_too_are_the_same_without_what_lies_before_the_lead_in():
    def watched(since):
        passing = Passing()

        def pictures():
            for number in range(200):  # 25 a second
                time = number / 25
                if time >= since - 1e-6:
                    picture = scene((1, 100, 50))
                    picture[85:100, 115:145, 1] = 80 + 40 * (number % 3)
                    passing.pass_by(time, picture)
                    if number % 5 == 0:
                        yield time, picture

        first = SETTINGS.cell_at(since + 2.0) if since else 0
        return list(follow_cells(pictures(), SquareDetector(), None, SETTINGS, passing, first))

    whole, part = watched(0.0), watched(2.0)
    assert [flat(one) for one in part] == [flat(one) for one in whole[2:]]
    steps = np.concatenate([one.sightings[0].mouth[:, 0] for one in whole])
    assert np.diff(steps) == pytest.approx(np.full(len(steps) - 1, 0.04))  # no hole at a border


def test_a_lead_in_counts_as_no_sight():
    whole = cells(film(*[scene((1, 50, 50))] * 20))
    assert [one.pictures for one in whole] == [10, 10]
    assert whole[1].lead_in == 1.8 and whole[1].sightings[0].led_in
    assert whole[1].sightings[0].times[0] == 2.0
    assert min(shot.time for shot in whole[1].sightings[0].shots) >= 2.0


def test_a_face_that_is_seen_in_the_lead_in_only_is_not_in_the_cell():
    whole = cells(film(*[scene((1, 50, 50))] * 10, *[scene()] * 10))
    assert whole[1].sightings == ()


def test_a_face_that_ends_early_is_not_open_at_the_end_of_the_cell():
    here, gone = scene((1, 50, 50)), scene()
    early, late = cells(film(here, here, *[gone] * 8)), cells(film(*[here] * 7, *[gone] * 3))
    assert [one.sightings[0].open for one in (*early, *late)] == [False, True]


def test_a_cut_at_a_border_is_seen():
    whole = cells(film(*[scene((1, 50, 50))] * 10, *[scene((1, 50, 50), background=200)] * 10))
    assert [one.cuts.tolist() for one in whole] == [[], [2.0]]


def test_stretches_without_pictures_have_no_cell_and_lead_into_none():
    pictures = film(*[scene((1, 50, 50))] * 60)
    whole = cells(pictures[:10] + pictures[40:])
    assert [one.number for one in whole] == [0, 4, 5]
    assert [one.lead_in for one in whole] == [None, None, pytest.approx(9.8)]


def test_a_film_without_pictures_has_no_cells():
    assert cells([]) == []
