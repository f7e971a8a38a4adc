from __future__ import annotations

import numpy as np
import pytest

from encoders.face import load_face_detector
from training.population.faces import Light, View, draw_view, render_face, render_head
from training.population.features import Expression
from training.population.people import invent_people

ANNA, BERND = invent_people(2, 1)


def test_the_same_arguments_give_the_same_pixels() -> None:
    view = draw_view(np.random.default_rng(5))
    assert np.array_equal(render_face(ANNA, view, 160, seed=3), render_face(ANNA, view, 160, seed=3))


def test_a_picture_is_rgb_of_the_size_asked_for() -> None:
    picture = render_face(ANNA, View(), 160)
    assert picture.shape == (160, 160, 3) and picture.dtype == np.uint8


def test_a_picture_too_small_to_show_a_face_is_refused() -> None:
    with pytest.raises(ValueError, match="64 pixels"):
        render_face(ANNA, View(), 32)


@pytest.mark.long
def test_the_face_detector_finds_at_least_95_percent_of_the_faces() -> None:
    detector, found = load_face_detector(), 0
    for index, person in enumerate(invent_people(60, 21)):
        picture = render_face(person, draw_view(np.random.default_rng([21, index])), 256)
        found += len(detector.detect(picture, smallest=40)) == 1
    assert found >= 57


def test_two_people_differ_more_than_two_views_of_one() -> None:
    one, other = (render_face(ANNA, View(yaw=yaw), 128).astype(float) for yaw in (0.0, 0.08))
    stranger = render_face(BERND, View(), 128).astype(float)
    assert np.abs(one - stranger).mean() > 1.5 * np.abs(one - other).mean()


def _centre_of_change(first: View, second: View) -> float:
    """Row, as a share of the height, around which two views differ."""
    change = np.abs(render_head(ANNA, first, 192)[0] - render_head(ANNA, second, 192)[0]).sum((1, 2))
    return float((change * np.arange(192)).sum() / change.sum() / 192)


def test_opening_the_mouth_changes_the_lower_face_and_closing_the_eyes_the_upper() -> None:
    rest = View()
    mouth = _centre_of_change(rest, View(expression=Expression(mouth=0.8)))
    eyes = _centre_of_change(rest, View(expression=Expression(eyes=0.1)))
    assert eyes < 0.5 < mouth


def test_a_lamp_from_the_left_lights_the_left_cheek() -> None:
    def brightness(azimuth: float) -> tuple[float, float]:
        head, _ = render_head(BERND, View(light=Light(azimuth=azimuth, elevation=0.0)), 192)
        return float(head[90:120, 60:80].mean()), float(head[90:120, 112:132].mean())

    left, right = brightness(-1.0)
    assert left > 1.1 * right
    left, right = brightness(1.0)
    assert right > 1.1 * left


def test_turning_the_head_moves_the_face_to_where_it_looks_and_the_nose_most() -> None:
    detector, moves = load_face_detector(), []
    for person in invent_people(6, 1):
        pictures = [render_face(person, View(yaw=yaw), 256) for yaw in (-0.3, 0.3)]
        left, right = (detector.detect(picture, smallest=40)[0].landmarks[:, 0] for picture in pictures)
        moves.append(right - left)
    moved = np.mean(moves, axis=0)  # landmarks are whole pixels: one person alone may be two off
    assert moved.min() > 6
    assert moved[4] > moved[:4].mean() + 1  # the nose stands out furthest


def test_an_occlusion_hides_the_lower_face_only() -> None:
    free, hidden = render_head(ANNA, View(), 192)[0], render_head(ANNA, View(occlusion=0.5), 192)[0]
    assert np.array_equal(free[:100], hidden[:100])
    assert not np.array_equal(free[130:], hidden[130:])


def test_noise_adds_grain_of_about_its_deviation() -> None:
    clean, noisy = (render_face(ANNA, View(noise=noise), 128).astype(float) for noise in (0.0, 8.0))
    assert 6 < (noisy - clean).std() < 9
