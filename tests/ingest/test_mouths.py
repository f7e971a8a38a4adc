"""Small looks at a mouth, and how much it moves while the head is held still."""

from __future__ import annotations

import numpy as np
import pytest

from encoders.chips import MEAN_LANDMARKS
from ingest.mouths import LOOK, MOST_HELD, MouthMotion, MouthTrace, Passing, look_at, motion_of
from tests.ingest.drawn_faces import draw_face, landmarks_at

FPS = 25


def face(left=60.0, top=40.0, side=90, opening=0.0, size=(240, 240)):
    picture = np.full(size, 90, np.uint8)
    draw_face(picture, left, top, side, opening)
    return picture


def traced(openings, places):
    trace = MouthTrace()
    for number, (opening, left) in enumerate(zip(openings, places, strict=True)):
        trace.add(number / FPS, look_at(face(left, opening=opening), landmarks_at(left, 40, 90).astype(float)))
    return motion_of([trace])


def turned(points, degrees):
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points - points.mean(axis=0)) @ matrix.T + points.mean(axis=0)


@pytest.mark.parametrize("side", [48, 90, 400])
@pytest.mark.parametrize("degrees", [0, 25])
def test_a_look_shows_a_face_upright_at_one_size(side, degrees):
    # A picture in which every pixel says how far down it lies in the face, also when the face is turned.
    points = turned(MEAN_LANDMARKS * side + 300, degrees)
    rows, columns = np.mgrid[:1000, :1000]
    along = np.deg2rad(degrees)
    eyes = points[:4].mean(axis=0)
    below = -(columns - eyes[0]) * np.sin(along) + (rows - eyes[1]) * np.cos(along)
    look = look_at((128 + 100 * below / side).clip(0, 255).astype(np.uint8), points).astype(float)
    assert np.abs(look.std(axis=1)).max() < 3
    assert np.diff(look.mean(axis=1)).mean() == pytest.approx(100 / LOOK, rel=0.05)
    assert look[round((0.217 - 0.1) * LOOK)].mean() == pytest.approx(128, abs=6)  # the eyes


def test_a_face_outside_the_picture_gives_a_black_look():
    assert not look_at(face(), landmarks_at(5000, 5000, 400).astype(float)).any()


def test_a_mouth_that_opens_and_closes_moves_and_the_head_does_not():
    motion = traced([0, 0.5, 1, 0.5] * 5, [60] * 20)
    assert motion.mouth.mean() > 5 * motion.head.mean()
    assert len(motion.times) == 19 and motion.times[0] == 1 / FPS


def test_a_head_that_moves_with_its_mouth_shut_moves_little_in_the_mouth():
    talking, nodding = traced([0, 0.5, 1, 0.5] * 5, [60] * 20), traced([0] * 20, [60, 62, 64, 62] * 5)
    assert nodding.mouth.mean() < 0.2 * talking.mouth.mean()


def test_what_the_landmarks_missed_of_a_heads_motion_is_taken_out():
    still, shaken = MouthTrace(), MouthTrace()
    for number, off in enumerate([0, 1, 0, -1] * 5):
        points = landmarks_at(60, 40, 90).astype(float)
        still.add(number / FPS, look_at(face(), points))
        shaken.add(number / FPS, look_at(face(), points + off))
    talking = traced([0, 0.5, 1, 0.5] * 5, [60] * 20)
    assert motion_of([still]).mouth.max() == 0
    assert motion_of([shaken]).mouth.mean() < 0.2 * talking.mouth.mean()


def test_a_dim_picture_moves_as_much_as_a_bright_one():
    bright, dim = MouthTrace(), MouthTrace()
    for number in range(20):
        look = look_at(face(opening=number % 2), landmarks_at(60, 40, 90).astype(float))
        bright.add(number / FPS, look)
        dim.add(number / FPS, look // 4)
    assert motion_of([dim]).mouth.mean() == pytest.approx(motion_of([bright]).mouth.mean(), rel=0.1)


def test_looks_too_far_apart_say_nothing():
    trace = MouthTrace()
    for time in (0.0, 0.04, 0.5, 0.54):
        trace.add(time, np.zeros((LOOK, LOOK), np.uint8))
    assert motion_of([trace]).times.tolist() == [0.04, 0.54]


def test_the_motion_of_several_sightings_comes_in_order_of_time():
    late, early = MouthTrace(), MouthTrace()
    for time in (0.0, 0.04):
        late.add(5 + time, np.zeros((LOOK, LOOK), np.uint8))
        early.add(1 + time, np.zeros((LOOK, LOOK), np.uint8))
    assert motion_of([late, early]).times.tolist() == [1.04, 5.04]


def test_a_face_never_watched_has_no_motion():
    assert len(motion_of([MouthTrace()]).times) == 0


def test_motion_of_unlike_lengths_is_refused():
    with pytest.raises(ValueError, match="one motion per moment"):
        MouthMotion(np.zeros(2), np.zeros(2), np.zeros(1))


def held(count=6):
    passing = Passing()
    for number in range(count):
        picture = face(60 + 4 * number)
        passing.pass_by(number / FPS, np.repeat(picture[..., None], 3, axis=2))
    return passing


def test_looks_between_two_sights_follow_the_face_from_one_to_the_other():
    looks = held().looks((0.0, landmarks_at(60, 40, 90)), (5 / FPS, landmarks_at(80, 40, 90)))
    assert [time for time, _ in looks] == [number / FPS for number in range(1, 6)]
    still = look_at(face(), landmarks_at(60, 40, 90).astype(float)).astype(int)
    assert all(np.abs(look - still).mean() < 3 for _, look in looks)


def test_a_new_face_is_looked_at_only_where_it_was_found():
    assert [time for time, _ in held().looks(None, (5 / FPS, landmarks_at(80, 40, 90)))] == [5 / FPS]


def test_pictures_that_were_forgotten_are_not_looked_at():
    passing = held()
    passing.forget()
    assert passing.looks(None, (5 / FPS, landmarks_at(80, 40, 90))) == []


def test_no_more_pictures_are_held_than_fit():
    looks = held(3 * MOST_HELD).looks((-1.0, landmarks_at(60, 40, 90)), (9.0, landmarks_at(60, 40, 90)))
    assert len(looks) == MOST_HELD
