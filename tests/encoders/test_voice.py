import numpy as np
import pytest

from encoders.packaging import drawn_voice
from encoders.voice import SAMPLE_RATE, load_speech_detector


@pytest.fixture(scope="module")
def detector():
    return load_speech_detector()


def test_every_started_frame_of_32_ms_gets_a_probability(detector):
    assert detector.frame_seconds == pytest.approx(0.032)
    for samples, frames in [(0, 0), (1, 1), (512, 1), (513, 2), (SAMPLE_RATE, 32)]:
        found = detector.probabilities(np.zeros(samples, dtype=np.float32))
        assert found.shape == (frames,) and found.dtype == np.float32


def test_silence_and_noise_are_no_speech(detector):
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE).astype(np.float32)
    assert detector.probabilities(np.zeros(2 * SAMPLE_RATE, dtype=np.float32)).max() < 0.2
    assert detector.probabilities(noise).mean() < 0.2


def test_a_voice_like_sound_between_silences_is_found_where_it_is(detector):
    silence = np.zeros(SAMPLE_RATE, dtype=np.float32)
    found = detector.probabilities(np.concatenate([silence, drawn_voice(2, 2.0), silence])) > 0.5
    inside = found[int(1.2 / 0.032) : int(2.8 / 0.032)]
    assert inside.mean() > found[: int(0.9 / 0.032)].mean() + 0.5


def test_long_sounds_are_judged_as_if_in_one_piece(detector, monkeypatch):
    sound = np.tile(drawn_voice(2, 2.0), 3)
    whole = detector.probabilities(sound)
    monkeypatch.setattr(type(detector), "_BLOCK", 7)
    np.testing.assert_allclose(detector.probabilities(sound), whole, atol=1e-5)


def test_a_detector_remembers_nothing_from_one_sound_to_the_next(detector):
    sound = drawn_voice(2, 1.0)
    first = detector.probabilities(sound)
    detector.probabilities(np.random.default_rng(0).normal(0, 0.3, 8000).astype(np.float32))
    np.testing.assert_array_equal(detector.probabilities(sound), first)


@pytest.mark.parametrize("sound", [np.zeros((2, 100), np.float32), np.array([0.1, np.nan], np.float32)])
def test_what_is_no_finite_mono_sound_is_refused(detector, sound):
    with pytest.raises(ValueError, match="waveform"):
        detector.probabilities(sound)


def test_an_unknown_detector_is_refused():
    with pytest.raises(ValueError, match="choose one of: silero"):
        load_speech_detector("other")
