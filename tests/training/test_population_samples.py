from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoders.face import load_face_detector
from encoders.space import Modality
from encoders.voice import load_speech_detector
from ingest.media import write_flac
from ingest.samples import NoSample, read_face, read_voice
from training.population.people import Stream, invent_people
from training.population.production import write_jpeg
from training.population.protocol import write_protocol
from training.population.samples import NOISE, PHOTO_SIDE, draw_latents, draw_photo, draw_utterance
from training.population.splits import PopulationSpec
from training.population.voices import SAMPLE_RATE

PEOPLE = invent_people(60, 0, Stream.VALIDATION)
ANNA, BERND = PEOPLE[:2]


def _shares(photos: list[Path], sounds: list[Path]) -> tuple[float, float]:
    """Of the photos, how many show a face that is found; of the speech, how much is heard."""
    faces, speech, found, heard = load_face_detector(), load_speech_detector(), 0, []
    for path in photos:
        try:
            read_face(path, faces)
            found += 1
        except NoSample:
            pass
    for path in sounds:
        margin = SAMPLE_RATE // 25  # silence that is left before and after the words
        heard.append(speech.probabilities(read_voice(path)[margin:-margin]) > 0.5)
    return found / len(photos), float(np.concatenate(heard).mean())


def test_a_sample_is_drawn_from_seed_person_modality_and_number_alone() -> None:
    first = draw_photo(ANNA, 2), draw_utterance(ANNA, 2)
    draw_photo(BERND, 1)
    assert first == (draw_photo(ANNA, 2), draw_utterance(ANNA, 2))
    others = {draw_photo(ANNA, 1), draw_photo(ANNA, 2, seed=1), draw_photo(BERND, 2)}
    assert first[0] not in others and len(others) == 3


def test_photo_and_utterance_show_the_latents_that_the_truth_is_told() -> None:
    assert draw_photo(ANNA, 3).person.shared == draw_latents(ANNA, Modality.FACE, 3)
    assert draw_utterance(ANNA, 3).person.shared == draw_latents(ANNA, Modality.VOICE, 3)


def test_a_sample_differs_from_its_person_in_the_continuous_shared_latents_only() -> None:
    shown = draw_photo(BERND, 1).person
    assert (shown.name, shown.seed, shown.face, shown.voice) == (BERND.name, BERND.seed, BERND.face, BERND.voice)
    assert shown.shared.sex == BERND.shared.sex
    assert (shown.shared.as_array()[1:] != BERND.shared.as_array()[1:]).all()


def test_the_noise_is_normal_with_its_deviation_and_independent_between_samples_and_modalities() -> None:
    people = invent_people(700, 1, Stream.TRAINING)
    own = np.array([person.shared.as_array()[1:] for person in people])
    noise = [
        np.array([draw_latents(person, modality, number).as_array()[1:] for person in people]) - own
        for modality in Modality
        for number in (1, 2)
    ]
    for values, modality in zip(noise, [Modality.FACE] * 2 + [Modality.VOICE] * 2, strict=True):
        assert abs(values.std() - NOISE[modality]) < 0.03 and abs(values.mean()) < 0.03
    together = np.corrcoef([values.ravel() for values in (*noise, own)])
    assert np.abs(together - np.eye(5)).max() < 0.06


def test_a_photo_and_an_utterance_have_the_sizes_that_are_told() -> None:
    picture, sound = draw_photo(ANNA, 1).render(), draw_utterance(ANNA, 1).render()
    assert picture.shape == (PHOTO_SIDE, PHOTO_SIDE, 3) and picture.dtype == np.uint8
    assert sound.dtype == np.float32 and 1.5 < len(sound) / SAMPLE_RATE < 7


@pytest.mark.parametrize(("number", "seed"), [(-1, 0), (0, -1), (0, 2**32)])
def test_a_number_or_seed_out_of_range_is_refused(number: int, seed: int) -> None:
    with pytest.raises(ValueError, match="number must be at least 0"):
        draw_latents(ANNA, Modality.FACE, number, seed)


def test_the_detectors_find_95_percent_of_faces_and_speech(tmp_path: Path) -> None:
    photos = [tmp_path / f"{number}.jpg" for number in range(len(PEOPLE))]
    sounds = [tmp_path / f"{number}.flac" for number in range(24)]
    for person, path in zip(PEOPLE, photos, strict=True):
        write_jpeg(path, draw_photo(person, 1).render())
    for person, path in zip(PEOPLE, sounds, strict=False):
        write_flac(path, draw_utterance(person, 1).render())
    faces, speech = _shares(photos, sounds)
    assert faces >= 0.95 and speech >= 0.95


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_detectors_find_95_percent_of_the_whole_population(tmp_path: Path) -> None:
    media = write_protocol(tmp_path, PopulationSpec(films=0)) / "media"
    photos, sounds = sorted(media.rglob("*.jpg")), sorted(media.rglob("*.flac"))
    assert len(photos) == len(sounds) == 200 * 5 + 60 * 4
    faces, speech = _shares(photos, sounds)
    assert faces >= 0.95 and speech >= 0.95
