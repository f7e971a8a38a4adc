"""Where two speak at once: with voices written down, and with real ones mixed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from encoders.encoder import Encoder, packaged_encoders
from encoders.space import Embedding, Modality
from encoders.voice import SAMPLE_RATE, load_speech_detector
from ingest.media import read_audio
from ingest.overlaps import OverlapSettings, find_overlaps
from ingest.track import Span
from ingest.voices import find_speech_turns

VOICES = np.eye(3, dtype=np.float32)


def scene(*stretches, seconds=12.0):
    """A sound in which sample values say who speaks: speaker k adds 4 ** k / 100."""
    wave = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for start, end, speaker in stretches:
        wave[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)] += np.float32(4**speaker / 100)
    return wave


def describe(sounds):
    """The mean of the voices of those who speak, sample by sample."""
    vectors = []
    for sound in sounds:
        codes = np.round(sound * 100).astype(int)
        weights = [float(((codes // 4**k) % 4 > 0).mean()) for k in range(3)]
        total = np.array(weights, np.float32) @ VOICES
        length = np.linalg.norm(total)
        vectors.append((total / length).astype(np.float32) if length > 0 else None)
    return vectors


def overlaps(wave, *pieces, settings=None):
    found = find_overlaps(wave, [(Span(start, end), who) for start, end, who in pieces], describe, settings)
    return [(round(span.start, 1), round(span.end, 1)) for span in found]


def test_where_two_speak_at_once_is_found():
    wave = scene((0, 7, 0), (5, 12, 1))
    ((start, end),) = overlaps(wave, (0, 6, 0), (6, 12, 1))
    assert start == pytest.approx(5.0, abs=0.4) and end == pytest.approx(7.0, abs=0.4)


def test_a_change_of_speaker_is_no_overlap():
    assert overlaps(scene((0, 6, 0), (6, 12, 1)), (0, 6, 0), (6, 12, 1)) == []


def test_a_pause_between_two_speakers_is_no_overlap():
    assert overlaps(scene((0, 5, 0), (7, 12, 1)), (0, 5, 0), (7, 12, 1)) == []


def test_one_speaker_alone_overlaps_nobody():
    assert overlaps(scene((0, 12, 0)), (0, 12, 0)) == []


def test_voices_too_alike_are_not_told_apart_in_a_mixture():
    wave = scene((0, 7, 0), (5, 12, 1))
    assert overlaps(wave, (0, 6, 0), (6, 12, 1), settings=OverlapSettings(too_alike=-0.1)) == []


def test_only_speakers_who_are_heard_nearby_can_overlap():
    # Between 2.5 and 4.5 s the mixture is of voices 0 and 1, and voice 1 is answered 10 s later only.
    wave = scene((0, 6, 0), (2.5, 4.5, 1), (6, 14, 2), (14, 20, 1), seconds=20.0)
    assert overlaps(wave, (0, 6, 0), (6, 14, 2), (14, 20, 1)) == []
    assert len(overlaps(wave, (0, 6, 0), (6, 14, 2), (14, 20, 1), settings=OverlapSettings(reach=12.0))) == 1


def test_a_speaker_heard_too_briefly_to_know_the_voice_is_left_out():
    assert overlaps(scene((0, 12, 0), (11, 12, 1)), (0, 11.2, 0), (11.2, 12, 1)) == []


def test_sounds_without_vectors_have_no_overlaps():
    pieces = [(Span(0, 6), 0), (Span(6, 12), 1)]
    assert find_overlaps(scene(), pieces, lambda sounds: [None] * len(sounds)) == []


def test_nothing_has_no_overlaps():
    assert find_overlaps(np.zeros(0, np.float32), [], describe) == []


@pytest.mark.parametrize("wrong", [{"window": 0.0}, {"step": 0.0}, {"reach": -1.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        OverlapSettings(**wrong)


# -- real voices ------------------------------------------------------------------------------------


def spoken(folder):
    """A reader's clips in a row without the silence at their ends, equally loud."""
    clips = [read_audio(path)[0] for path in sorted(folder.iterdir())[:3]]
    clips = [clip[slice(*np.flatnonzero(np.abs(clip) > 0.03 * np.abs(clip).max())[[0, -1]])] for clip in clips]
    whole = np.concatenate(clips)
    return whole * np.float32(0.06 / np.sqrt(np.mean(whole**2)))


def mixed(one, other, random, share):
    """A dialogue of two, some of whose turns begin 1 to 2 s before the last one ends, and where each turn lies."""
    sound, turns, used = np.zeros(80 * SAMPLE_RATE, np.float32), [], [0, 0]
    for number in range(6):
        length = int(random.uniform(3, 6) * SAMPLE_RATE)
        voice, begin = (one, other)[number % 2], used[number % 2]
        if begin + length > len(voice):
            break
        early = random.uniform(1, 2) if random.random() < share else -random.uniform(0.1, 0.5)
        start = round((turns[-1][1] - early if turns else 0.5) * SAMPLE_RATE)
        sound[start : start + length] += voice[begin : begin + length]
        used[number % 2] += length
        turns.append((start / SAMPLE_RATE, (start + length) / SAMPLE_RATE))
    return sound[: round((max(end for _, end in turns) + 0.5) * SAMPLE_RATE)], turns


@pytest.mark.long
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_overlaps_of_real_voices_are_mostly_real(shared_media, share):
    encoder = Encoder.load(packaged_encoders()["voice_identity"])

    def real(sounds):
        return [one.vector if isinstance(one, Embedding) else None for one in encoder.encode(Modality.VOICE, sounds)]

    readers = sorted(path for path in (shared_media / "voices/librispeech").iterdir() if path.name[0] != "_")
    voices = [spoken(path) for path in readers]
    random, detector = np.random.default_rng(4), load_speech_detector()
    right = wrong = there = whole = 0.0
    for _ in range(10):
        one, other = random.choice(len(voices), 2, replace=False)
        sound, turns = mixed(voices[one], voices[other], random, share)
        found = [span for turn in find_speech_turns(sound, detector, real) for span in turn.overlaps]
        truth = [Span(later[0], first[1]) for first, later in pairwise(turns) if later[0] < first[1]]
        right += sum(span.overlap(one) for span in found for one in truth)
        wrong += sum(span.duration - sum(span.overlap(one) for one in truth) for span in found)
        there += sum(one.duration for one in truth)
        whole += len(sound) / SAMPLE_RATE
    print(f"overlap share {share}: {right:.1f} s right, {wrong:.1f} s wrong, {there:.1f} s there, {whole:.0f} s in all")
    assert wrong < 0.03 * whole
    assert share == 0.0 or (right > 0.7 * (right + wrong) and right > 0.2 * there)
