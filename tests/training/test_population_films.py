from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from encoders.face import load_face_detector
from ingest.media import probe, read_audio, read_frames
from training.population.films import Camera, make_film, mix_sound
from training.population.folder import MediaSize, write_demo_media
from training.population.people import invent_people
from training.population.scenes import Scene, Truth, plan_portrait, plan_scene
from training.population.voices import SAMPLE_RATE

PEOPLE = invent_people(3, 1)
CAMERA = Camera(fps=10)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return plan_scene(PEOPLE, 12.0, 3)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> tuple[Path, Truth]:
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    return path, make_film(path, scene, 3, CAMERA)


def _level(waveform: np.ndarray, start: float, end: float) -> float:
    part = waveform[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    return float(20 * np.log10(np.sqrt(np.mean(part**2)) + 1e-9))


def test_the_film_lasts_as_long_as_the_truth_says(film: tuple[Path, Truth]) -> None:
    path, truth = film
    info = probe(path)
    assert info.duration == pytest.approx(truth.duration, abs=0.15)
    assert (info.width, info.height, info.fps) == (640, 360, 10)
    assert info.has_sound


def test_the_film_is_loud_inside_the_turns_and_quiet_between_them(film: tuple[Path, Truth]) -> None:
    path, truth = film
    waveform, _ = read_audio(path)
    for turn in truth.speech:
        assert _level(waveform, turn.start, turn.end) > -35
    for before, after in pairwise(truth.speech):
        assert _level(waveform, before.end + 0.1, after.start - 0.1) < -50
    assert _level(waveform, 0.0, truth.speech[0].start - 0.1) < -50


def test_faces_are_seen_where_and_when_the_truth_says(film: tuple[Path, Truth]) -> None:
    path, truth = film
    detector, expected, found = load_face_detector(), 0, 0
    for time, picture in read_frames(path, 1.0):
        centres = [
            ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (f.box for f in detector.detect(picture, smallest=50))
        ]
        for one in truth.visible:
            if one.start + 0.15 <= time < one.end - 0.15:
                left, top, right, bottom = one.box
                expected += 1
                found += any(left < x < right and top < y < bottom for x, y in centres)
    assert expected >= 10
    assert found >= 0.85 * expected


def test_a_film_of_several_people_has_an_off_screen_voice_and_somebody_mute(film: tuple[Path, Truth]) -> None:
    _, truth = film
    away = [turn for turn in truth.speech if not turn.on_screen]
    assert away
    seen_meanwhile = [one for one in truth.visible if one.start < away[0].end and away[0].start < one.end]
    assert seen_meanwhile and away[0].person not in {one.person for one in seen_meanwhile}


def test_the_speakers_mouth_moves_and_the_mute_ones_stays(film: tuple[Path, Truth]) -> None:
    path, truth = film
    turn = next(turn for turn in truth.speech if turn.on_screen)
    shots = [one for one in truth.visible if one.start <= turn.start and turn.end <= one.end]
    pictures = [picture.astype(float) for time, picture in read_frames(path, 10.0) if turn.start < time < turn.end]
    changes = {}
    for one in shots:
        left, top, right, bottom = (int(side) for side in one.box)
        lower = [p[(top + bottom) // 2 : bottom, left:right] for p in pictures]
        changes[one.person] = np.mean([np.abs(a - b).mean() for a, b in pairwise(lower)])
    speaker = changes.pop(turn.person)
    assert all(speaker > 1.5 * mute for mute in changes.values())


def test_shots_leave_no_gap_and_turns_do_not_overlap(scene: Scene) -> None:
    edges = [(shot.start, shot.end) for shot in scene.shots]
    assert edges[0][0] == 0.0 and edges[-1][1] == scene.duration
    assert all(one[1] == other[0] for one, other in pairwise(edges))
    assert all(one.end < other.start for one, other in pairwise(scene.turns))


def test_everybody_speaks_and_the_same_seed_gives_the_same_sound(scene: Scene) -> None:
    assert {turn.person for turn in scene.turns} == set(PEOPLE)
    again = plan_scene(PEOPLE, 12.0, 3)
    assert np.array_equal(mix_sound(scene, CAMERA, 3), mix_sound(again, CAMERA, 3))


def test_a_portrait_shows_the_speaker_all_the_time() -> None:
    portrait = plan_portrait(PEOPLE[0], 5.0, 1)
    assert len(portrait.shots) == 1
    assert portrait.duration >= 5.0
    assert all(spoken.on_screen for spoken in portrait.speech())


def test_a_film_of_nobody_or_of_a_crowd_is_refused() -> None:
    with pytest.raises(ValueError, match="one to three people, got 0"):
        plan_scene([], 10.0, 1)
    with pytest.raises(ValueError, match="one to three people, got 4"):
        plan_scene(invent_people(4, 1), 10.0, 1)


def test_the_same_seed_writes_the_same_film(tmp_path: Path) -> None:
    small = Camera(width=160, height=96, fps=5)
    paths = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    for path in paths:
        make_film(path, plan_portrait(PEOPLE[1], 3.0, 9), 9, small)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_demo_folder_holds_what_its_description_says(tmp_path: Path) -> None:
    size = MediaSize(people=3, strangers=1, films=1, film_seconds=4.0, clip_seconds=3.0, fps=5, photo_side=128)
    media = write_demo_media(tmp_path, 2, size)
    assert [one.person.name for one in media.people] == sorted(
        (folder.name for folder in (tmp_path / "people").iterdir()), key=[p.person.name for p in media.people].index
    )
    assert all(path.stat().st_size > 1000 for one in media.people for path in (*one.photos, *one.clips))
    told = json.loads((tmp_path / "clips" / "truth.json").read_text())
    assert [clip["people"] for clip in told["clips"]] == [list(clip.truth.people) for clip in media.clips]
    assert told["strangers"] == list(media.strangers) and len(media.strangers) == 1
    assert json.loads((tmp_path / "films" / "film_1.json").read_text()) == media.films[0].truth.to_json()


def test_fewer_than_three_people_do_not_make_a_demo() -> None:
    with pytest.raises(ValueError, match="at least 3 people"):
        MediaSize(people=2)
