"""Speech turns: with a detector and voices one can write down, and with the real ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from encoders.encoder import Encoder, packaged_encoders
from encoders.space import Embedding, Modality
from encoders.voice import SAMPLE_RATE, load_speech_detector
from ingest.media import MEDIA_EXTENSIONS, read_audio
from ingest.track import Span
from ingest.voices import VoiceSettings, find_speech_turns, speech_regions
from training.population.people import invent_people
from training.population.voices import draw_delivery, speak

FRAME = 0.032
SETTINGS = VoiceSettings()


def stretches(*parts):
    """(seconds, value) each, at 16 kHz: a made-up voice is a constant, silence is 0."""
    return np.concatenate([np.full(round(s * SAMPLE_RATE), v, np.float32) for s, v in parts])


class LoudnessDetector:
    """What is not zero is speech."""

    frame_seconds = 0.01

    def probabilities(self, waveform):
        frames = waveform[: len(waveform) // 160 * 160].reshape(-1, 160)
        return (np.abs(frames).mean(axis=1) > 1e-7).astype(np.float32)


def describe(sounds):
    """Two voices, told by the mean of what is not silent: low and high constants."""
    vectors = []
    for sound in sounds:
        loud = sound[np.abs(sound) > 1e-6]
        high = float((loud > 0.4).mean())
        vectors.append(np.array([1 - high, high], np.float32) / np.hypot(1 - high, high).astype(np.float32))
    return vectors


def turns_of(waveform, settings=None, voices=describe):
    found = find_speech_turns(waveform, LoudnessDetector(), voices, settings)
    return [(round(turn.span.start, 1), round(turn.span.end, 1), turn.speaker) for turn in found]


def regions(*probabilities, settings=SETTINGS):
    found = speech_regions(np.repeat(np.float32(probabilities), 20), FRAME, settings)
    return [(round(span.start / FRAME / 20), round(span.end / FRAME / 20)) for span in found]


def test_speech_begins_at_the_upper_threshold_and_ends_below_the_lower():
    assert regions(0.4, 0.9, 0.4, 0.1) == [(1, 3)]
    assert regions(0.4, 0.4, 0.1) == []


def test_speech_that_lasts_to_the_end_is_found():
    assert regions(0.1, 0.9) == [(1, 2)]


def test_speech_shorter_than_the_least_is_left_out():
    one_frame = np.zeros(100, np.float32)
    one_frame[50:55] = 1.0
    assert speech_regions(one_frame, FRAME, SETTINGS) == []


def test_a_pause_shorter_than_the_least_does_not_end_speech():
    probabilities = np.ones(100, np.float32)
    probabilities[50:54] = 0.0
    assert len(speech_regions(probabilities, FRAME, SETTINGS)) == 1
    probabilities[50:64] = 0.0
    assert len(speech_regions(probabilities, FRAME, SETTINGS)) == 2


def test_doubtful_speech_on_the_whole_is_no_speech():
    probabilities = np.full(100, 0.36, np.float32)
    probabilities[0] = 0.6
    assert speech_regions(probabilities, FRAME, SETTINGS) == []


def test_no_sound_has_no_turns():
    assert turns_of(np.zeros(0, np.float32)) == []
    assert turns_of(np.zeros(16000, np.float32)) == []


def test_a_turn_is_padded_within_the_sound():
    assert turns_of(stretches((1, 0), (2, 0.3), (1, 0))) == [(0.9, 3.1, 0)]
    assert turns_of(stretches((2, 0.3))) == [(0.0, 2.0, 0)]


def test_a_turn_carries_its_own_part_of_the_sound():
    wave = stretches((1, 0), (2, 0.3), (1, 0))
    (turn,) = find_speech_turns(wave, LoudnessDetector())
    assert len(turn.waveform) == round(turn.span.duration * SAMPLE_RATE)
    assert (turn.waveform == wave[round(turn.span.start * SAMPLE_RATE) :][: len(turn.waveform)]).all()
    assert turn.waveform.base is None


def test_speech_too_quiet_to_hear_is_no_speech():
    assert turns_of(stretches((1, 0), (2, 1e-5), (1, 0))) == []


def test_a_speakers_sentences_with_short_pauses_are_one_turn():
    assert turns_of(stretches((2, 0.3), (0.5, 0), (2, 0.3))) == [(0.0, 4.5, 0)]
    assert len(turns_of(stretches((2, 0.3), (1.5, 0), (2, 0.3)))) == 2


def test_two_speakers_are_told_apart_and_known_again():
    wave = stretches((3, 0.3), (0.5, 0), (3, 0.6), (0.5, 0), (3, 0.3))
    found = turns_of(wave)
    assert [speaker for _, _, speaker in found] == [0, 1, 0]
    assert [start for start, _, _ in found] == pytest.approx([0.0, 3.4, 6.9], abs=0.21)


def test_speakers_are_told_apart_without_a_pause_between_them():
    found = turns_of(stretches((4, 0.6), (4, 0.3)))
    assert [speaker for _, _, speaker in found] == [0, 1]
    assert found[0][1] == found[1][0] == pytest.approx(4.0, abs=0.3)


def test_without_voice_vectors_everybody_is_one_speaker():
    assert {speaker for _, _, speaker in turns_of(stretches((3, 0.3), (1, 0), (3, 0.6)), voices=None)} == {0}


def test_sounds_without_a_vector_are_still_turns():
    assert turns_of(stretches((3, 0.3)), voices=lambda sounds: [None] * len(sounds)) == [(0.0, 3.0, 0)]


def test_turns_are_in_order_and_do_not_overlap():
    random = np.random.default_rng(0)
    parts = [(random.uniform(0.2, 3), random.choice([0, 0.3, 0.6])) for _ in range(40)]
    found = find_speech_turns(stretches(*parts), LoudnessDetector(), describe)
    spans = [turn.span for turn in found]
    assert all(one.end <= other.start + 1e-9 for one, other in pairwise(spans))
    assert found[0].speaker == 0


def test_a_very_short_answer_of_another_speaker_keeps_its_own_turn_in_a_short_talk():
    found = turns_of(stretches((2, 0.3), (1.0, 0), (1.5, 0.6), (1.0, 0), (2, 0.3)))
    assert [speaker for _, _, speaker in found] == [0, 1, 0]


# -- the real detector and encoder ------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector():
    return load_speech_detector()


@pytest.fixture(scope="module")
def real_describe():
    encoder = Encoder.load(packaged_encoders()["voice_identity"])

    def vectors(sounds):
        found = encoder.encode(Modality.VOICE, sounds)
        return [one.vector if isinstance(one, Embedding) else None for one in found]

    return vectors


@pytest.fixture(scope="module")
def talk():
    """Two invented people in turn, half a second between them: the sound and who speaks when."""
    random, pause = np.random.default_rng(1), np.zeros(SAMPLE_RATE // 2, np.float32)
    pair = invent_people(2, 5)
    parts, truth, time = [], [], 0.0
    for speaker in (0, 1, 0, 1):
        said = speak(pair[speaker], draw_delivery(random))
        truth.append((Span(time, time + len(said) / SAMPLE_RATE), speaker))
        parts += [said, pause]
        time = truth[-1][0].end + 0.5
    return np.concatenate(parts), truth


def test_a_made_talk_is_cut_into_its_turns(talk, detector, real_describe):
    wave, truth = talk
    found = find_speech_turns(wave, detector, real_describe)
    assert [turn.speaker for turn in found] == [speaker for _, speaker in truth]
    for turn, (span, _) in zip(found, truth, strict=True):
        assert turn.span.start == pytest.approx(span.start, abs=0.35)
        assert turn.span.end == pytest.approx(span.end, abs=0.35)


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.1, 0.31, 0.5])
def test_a_very_short_sound_does_no_harm(talk, detector, real_describe, seconds):
    wave, _ = talk
    assert len(find_speech_turns(wave[8000 : 8000 + round(seconds * SAMPLE_RATE)], detector, real_describe)) <= 1


def test_noise_and_silence_are_no_speech(detector, real_describe):
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * SAMPLE_RATE).astype(np.float32)
    assert find_speech_turns(noise, detector, real_describe) == ()
    assert find_speech_turns(noise * 0, detector, real_describe) == ()


EDGE = [
    "noise/x/1-100032-A-0.wav",
    "noise/x/noise2.wav",
    "white_noise/x/empty.wav",
    "silent_audio/x/s32.mp4",
]


@pytest.mark.parametrize("name", EDGE)
def test_a_real_sound_without_speech_has_no_turn(shared_media, detector, real_describe, name):
    wave, _ = read_audio(shared_media / "edge" / name)
    assert find_speech_turns(wave, detector, real_describe) == ()


def speakers_in(path, detector, real_describe):
    wave, _ = read_audio(path)
    return len({turn.speaker for turn in find_speech_turns(wave, detector, real_describe)})


@pytest.mark.parametrize("name", ["voices/librispeech", "voices/speechbrain", "voices/tortoise/tom", "av/grid"])
def test_one_real_person_is_one_speaker(shared_media, detector, real_describe, name):
    paths = [path for path in sorted((shared_media / name).rglob("*")) if path.suffix[1:] in MEDIA_EXTENSIONS]
    for path in paths[::6][:3]:
        assert speakers_in(path, detector, real_describe) == 1, path


def test_two_real_people_in_one_sound_are_two_speakers(shared_media, detector, real_describe):
    readers = [sorted((shared_media / "voices/librispeech" / name).iterdir())[0] for name in ("1688", "2033")]
    wave = np.concatenate([read_audio(path)[0][: 6 * SAMPLE_RATE] for path in readers])
    found = find_speech_turns(wave, detector, real_describe)
    assert {turn.speaker for turn in found} == {0, 1}
    assert min(turn.span.start for turn in found if turn.speaker == 1) == pytest.approx(6.0, abs=0.5)


def test_a_real_meeting_is_told_apart(shared_media, detector, real_describe):
    assert speakers_in(shared_media / "diarization/ami/_/dev00.wav", detector, real_describe) == 2


@pytest.mark.long
def test_no_real_clip_of_one_person_has_two_speakers(shared_media, detector, real_describe):
    paths = [
        path
        for folder in ("voices", "av/grid", "av/talking", "av/vox2_pcavs")
        for path in sorted((shared_media / folder).rglob("*"))
        if path.suffix[1:] in MEDIA_EXTENSIONS and path.suffix != ".jpg"
    ]
    counts = {path: speakers_in(path, detector, real_describe) for path in paths}
    assert len(paths) > 150
    assert min(counts.values()) == 1
    assert sum(count > 1 for count in counts.values()) <= 2


def test_minutes_of_speech_without_a_pause_may_change_speakers_a_thousand_times():
    class Always:
        frame_seconds = 0.1

        def probabilities(self, waveform):
            return np.ones(-(-len(waveform) // 1600), np.float32)

    who = np.repeat(np.random.default_rng(0).integers(0, 2, 2000), SAMPLE_RATE * 3 // 10)  # anew every 0.3 s
    waveform = (0.1 + 0.1 * who).astype(np.float32)

    def describe(cuts):
        shares = [float((cut > 0.15).mean()) for cut in cuts]
        return [np.float32([1 - share, share]) / np.float32(np.hypot(1 - share, share)) for share in shares]

    turns = find_speech_turns(waveform, Always(), describe, VoiceSettings(least_loudness=0.0, same_speaker=0.9))
    assert len(turns) > 100 and {turn.speaker for turn in turns} >= {0, 1}
    assert sum(turn.span.duration for turn in turns) == pytest.approx(600.0)
