"""Faces across the borders of cells, and the sightings of one person."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.cells import follow_cells
from ingest.faces import find_face_tracks
from ingest.joining import Joining, described
from ingest.sightings import FaceSettings
from tests.ingest.squares import SquareDetector, describe, film, scene

CELLS = FaceSettings(cell=2.0)
HERE, GONE = scene((1, 50, 50)), scene()


def tracks(*pictures, describe=describe, settings=CELLS):
    return find_face_tracks(film(*pictures), SquareDetector(), describe, settings)


def times(found):
    return [[(round(span.start, 2), round(span.end, 2)) for span in track.seen] for track in found]


def test_a_face_across_borders_is_one_track_also_without_vectors():
    (track,) = tracks(*[scene((1, 10 + 5 * k, 50)) for k in range(45)], describe=None)
    assert times([track]) == [[(0.0, 9.0)]] and track.area == 3600
    assert len(track.shots) == 3


@pytest.mark.parametrize("unseen", [1, 3])
@pytest.mark.parametrize("before", [6, 8, 9, 10])
def test_a_short_gap_at_a_border_is_closed_without_vectors(before, unseen):
    pictures = [HERE] * before + [GONE] * unseen + [HERE] * 8
    assert len(tracks(*pictures, describe=None)) == 1


def test_a_long_gap_at_a_border_is_closed_by_vectors_only():
    pictures = [HERE] * 8 + [GONE] * 8 + [HERE] * 4
    assert times(tracks(*pictures)) == [[(0.0, 1.6), (3.2, 4.0)]]
    assert len(tracks(*pictures, describe=None)) == 2


@pytest.mark.parametrize("cut", [9, 10, 11])
def test_a_cut_at_a_border_is_a_cut(cut):
    pictures = [scene((1, 100, 50))] * cut + [scene((2, 100, 50), background=200)] * 10
    assert len(tracks(*pictures)) == len(tracks(*pictures, settings=FaceSettings())) == 2


@pytest.mark.parametrize("cut", [9, 10, 11])
def test_a_person_is_known_again_behind_a_cut_at_a_border(cut):
    pictures = [scene((1, 100, 50))] * cut + [scene((1, 130, 60), background=200)] * 10
    assert times(tracks(*pictures)) == [[(0.0, round((cut + 10) / 5, 2))]]


def test_a_face_that_changes_place_and_gap_across_a_cut_is_not_followed_by_its_place():
    bright = scene((2, 60, 50), background=200)
    pictures = [HERE] * 9 + [scene(background=200)] * 2 + [bright] * 6
    assert times(tracks(*pictures, describe=None)) == [[(0.0, 1.8)], [(2.2, 3.4)]]


def test_two_faces_keep_apart_across_a_border():
    pictures = [scene((1, 20, 50), (2, 90, 50))] * 15
    assert times(tracks(*pictures, describe=None)) == [[(0.0, 3.0)]] * 2


def test_people_who_return_cells_later_are_one_track():
    one, other = scene((1, 100, 50)), scene((2, 100, 50), background=200)
    found = tracks(*([one] * 12 + [other] * 12 + [GONE] * 12) * 2)
    assert [len(track.seen) for track in found] == [2, 2]


def test_more_sightings_than_are_compared_do_not_stop_the_work(monkeypatch):
    monkeypatch.setattr("ingest.joining._MOST_COMPARED", 5)
    found = tracks(*([HERE, HERE, HERE, *[GONE] * 7] * 20))
    assert len(found) == 16 and sum(len(track.seen) for track in found) == 20


def test_the_costly_vectors_are_not_asked_for_where_there_is_nothing_to_compare():
    asked = []
    alone = tracks(*[HERE] * 8, describe=lambda crops: asked.append(crops) or describe(crops))
    assert len(alone) == 1 and not asked


def test_it_is_the_same_whether_vectors_came_with_the_cells_or_not():
    pictures = ([scene((1, 20, 50))] * 13 + [scene((2, 90, 50), background=150)] * 14) * 2
    cells = list(follow_cells(film(*pictures), SquareDetector(), describe, CELLS))
    with_them, without = Joining(CELLS, None), Joining(CELLS, describe)
    for cell in cells:
        with_them.add(described(cell, describe))
        without.add(cell)
    assert times(with_them.tracks(np.inf)[0]) == times(without.tracks(np.inf)[0])


def test_cells_out_of_order_are_refused():
    cells = list(follow_cells(film(*[HERE] * 20), SquareDetector(), describe, CELLS))
    joining = Joining(CELLS, describe)
    joining.add(cells[1])
    for wrong in cells:
        with pytest.raises(ValueError, match="in their order, once"):
            joining.add(wrong)
