from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.voice import load_speech_detector
from training.population.people import Person, invent_people
from training.population.synthesiser import SynthesiserError, synthesise
from training.population.voices import (
    SAMPLE_RATE,
    SENTENCES,
    Delivery,
    background_noise,
    draw_delivery,
    speak,
    voice_of,
)

PEOPLE = invent_people(12, 1)


def _spectrum(person: Person, text: str) -> NDArray[np.float64]:
    """Log power in 24 bands, mean removed: a crude picture of a voice."""
    sound = speak(person, Delivery(text))
    power = np.abs(np.fft.rfft(sound)) ** 2
    bands = np.array([band.mean() for band in np.array_split(power[len(power) // 80 :], 24)])
    decibels = 10 * np.log10(bands + 1e-12)
    return decibels - decibels.mean()


def test_a_voice_sounds_the_same_whatever_was_said_before() -> None:
    delivery = draw_delivery(np.random.default_rng(1))
    first = speak(PEOPLE[0], delivery)
    for person in PEOPLE[1:4]:
        speak(person, draw_delivery(np.random.default_rng(2)))
    assert np.array_equal(first, speak(PEOPLE[0], delivery))


def test_speech_is_16_khz_mono_at_the_level_asked_for() -> None:
    sound = speak(PEOPLE[0], Delivery(SENTENCES[0], level_dbfs=-25))
    assert sound.dtype == np.float32 and sound.ndim == 1
    assert 1.5 < len(sound) / SAMPLE_RATE < 6
    assert 20 * np.log10(np.sqrt(np.mean(sound**2))) == pytest.approx(-25, abs=0.2)


def test_the_speech_detector_finds_at_least_95_percent_of_the_speech() -> None:
    detector, heard, spoken = load_speech_detector(), 0.0, 0.0
    for index, person in enumerate(invent_people(30, 8)):
        sound = speak(person, draw_delivery(np.random.default_rng([8, index])))
        margin = SAMPLE_RATE // 25  # silence that speak leaves before and after
        probabilities = detector.probabilities(sound[margin:-margin])
        heard += float((probabilities > 0.5).sum())
        spoken += len(probabilities)
    assert heard >= 0.95 * spoken


def test_two_people_differ_more_than_two_sentences_of_one() -> None:
    def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
        return float(np.abs(one - other).mean())

    first = [_spectrum(person, SENTENCES[0]) for person in PEOPLE]
    second = [_spectrum(person, SENTENCES[7]) for person in PEOPLE]
    own = [distance(a, b) for a, b in zip(first, second, strict=True)]
    others = [distance(a, b) for i, a in enumerate(first) for j, b in enumerate(second) if i != j]
    assert np.mean(others) > 1.7 * np.mean(own)


def test_women_have_higher_voices_and_shorter_tracts_than_men_on_average() -> None:
    voices = [voice_of(person) for person in invent_people(100, 2)]
    pitch, tract = np.array([(voice.pitch, voice.tract) for voice in voices]).T
    assert pitch[0::2].mean() > 1.4 * pitch[1::2].mean()
    assert tract[0::2].mean() > 1.05 * tract[1::2].mean()


def test_private_latents_of_the_face_leave_the_voice_alone() -> None:
    person = PEOPLE[0]
    assert voice_of(replace(person, face=PEOPLE[1].face)) == voice_of(person)


def test_background_noise_has_its_level_and_sits_low() -> None:
    noise = background_noise(SAMPLE_RATE, -50, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(noise)) ** 2
    assert 20 * np.log10(np.sqrt(np.mean(noise**2))) == pytest.approx(-50, abs=0.1)
    assert power[:1000].sum() > power[4000:].sum()


def test_a_delivery_of_several_sentences_takes_longer() -> None:
    short, long = (draw_delivery(np.random.default_rng(1), count) for count in (1, 3))
    assert len(speak(PEOPLE[0], long)) > 2 * len(speak(PEOPLE[0], short))


def test_a_text_without_words_is_refused_by_name() -> None:
    with pytest.raises(SynthesiserError, match="did not speak ''"):
        synthesise("", "name x\nlanguage en-us\n", 160)
