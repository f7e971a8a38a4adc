"""The grid of cells on a film's clock, and sightings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from encoders.face import FaceCrop
from ingest.shots import KeptShot
from ingest.sightings import Cell, FaceSettings, Sighting, mean_vector, slot

LOOK = KeptShot(0.0, np.zeros(0, np.uint8), np.zeros((5, 2), np.float32), (0, 0, 9, 9), 0.5)
SIGHTING = Sighting(
    np.array([1.0, 1.2]), (0, 0, 9, 9), (0, 0, 9, 9), False, False, 162.0, 1.0, (LOOK,), None, np.zeros((0, 4))
)


@pytest.mark.parametrize("fps", [0.5, 2.0, 5.0, 29.97])
@pytest.mark.parametrize("cell", [2.0, 20.0, 60.0])
def test_borders_of_cells_are_where_looks_begin_and_begin_their_cell(fps, cell):
    settings = FaceSettings(fps=fps, cell=cell)
    for number in (1, 7, 500):
        border = settings.border(number)
        assert settings.cell_at(border) == number == settings.cell_at(border - 1e-4) + 1
        assert border * fps == pytest.approx(round(border * fps)) and settings.lead_in(number) < border
    assert settings.border(1) == pytest.approx(cell, abs=0.5 / fps)


def test_the_first_cell_needs_no_lead_in_and_the_others_two_seconds():
    assert [FaceSettings(cell=1.0).lead_in(number) for number in (0, 1, 5)] == [0.0, 0.0, 3.0]
    assert FaceSettings(fps=0.25, cell=8.0).lead_in(2) == 12.0


@pytest.mark.parametrize("time", [0.2 - 9e-7, 0.2, 0.2 + 1e-9])
def test_a_stamp_that_was_rounded_down_belongs_to_the_moment_it_means(time):
    assert slot(time, 5.0) == 1 and slot(time, 25.0) == 5


@pytest.mark.parametrize("wrong", [{"fps": 0.0}, {"cell": 0.5}, {"fps": 0.5, "cell": 1.0}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        FaceSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"times": np.zeros(0)}, {"shots": ()}, {"mouth": np.zeros((3, 2))}])
def test_a_sighting_without_moment_or_look_is_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        replace(SIGHTING, **wrong)


def test_a_cell_before_the_film_is_refused():
    with pytest.raises(ValueError, match="counted from 0"):
        Cell(-1, 0, None, np.zeros(0), ())


def test_the_mean_of_vectors_has_length_one_and_is_nothing_without_any():
    crops = [FaceCrop(np.zeros((4, 4, 3), np.uint8), LOOK.landmarks)] * 2
    found = mean_vector(crops, lambda some: [np.float32([1, 0]), np.float32([0, 1])][: len(some)])
    assert found.tolist() == pytest.approx([2**-0.5] * 2)
    assert mean_vector(crops, lambda some: [None] * len(some)) is None
    assert mean_vector(crops, None) is None and mean_vector([], lambda some: []) is None
