"""Who speaks of those who are seen: mouths written down, drawn, invented and real."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.face import load_face_detector
from encoders.voice import SAMPLE_RATE
from ingest.faces import follow_faces
from ingest.media import read_audio, read_frames
from ingest.mouths import MouthMotion, Passing
from ingest.pairing import LOUDNESS_RATE, PairingSettings, judge_speaking, loudness
from ingest.pipeline import every
from ingest.track import FaceTrack, Span, SpeechTurn
from training.population.films import Camera, make_film
from training.population.people import invent_people
from training.population.scenes import plan_scene

FPS = 25


def rhythm(seconds, seed=0, rate=FPS):
    """Syllables: loud and quiet at random, (seconds * rate,), 0 or 1, changing every 0.2 s."""
    steps = np.random.default_rng(seed).integers(0, 2, round(seconds * 5) + 1)
    return np.repeat(steps, rate // 5)[: round(seconds * rate)].astype(float)


def sound(seconds=10.0, seed=0):
    return (0.1 * rhythm(seconds, seed, LOUDNESS_RATE) + 0.001).astype(np.float32)


def mouth(moves, start=0.0):
    """A mouth that moves as much as told at each moment of a film of 25 pictures a second."""
    return MouthMotion(start + np.arange(len(moves)) / FPS, 0.1 * moves + 0.01, np.full(len(moves), 0.01))


def turn(start, end, speaker=0):
    return SpeechTurn(Span(start, end), speaker, np.zeros(0, np.float32))


def face(*seen):
    return FaceTrack(0, Span(seen[0][0], seen[-1][1]), (), 100.0, tuple(Span(*one) for one in seen))


WHOLE = turn(1, 9)


def judged(*mouths, turns=(WHOLE,), seen=((0, 10),), heard=None, settings=None):
    faces = [face(*seen)] * len(mouths)
    return judge_speaking(turns, sound() if heard is None else heard, faces, mouths, settings)


TALKING, MUTE, TO_OTHERS = mouth(rhythm(10)), mouth(np.zeros(250)), mouth(rhythm(10, seed=5))


def test_a_mouth_that_moves_with_the_sound_speaks():
    (one,) = judged(TALKING)
    assert one.track == 0 and one.probability > 0.9 and one.off_screen < 0.1


def test_a_face_whose_mouth_rests_does_not_speak():
    (one,) = judged(MUTE)
    assert one.track == 0 and one.probability < 0.1 and one.off_screen > 0.9


def test_of_two_faces_the_one_whose_mouth_moves_speaks():
    assert judged(MUTE, TALKING)[0].track == 1
    assert judged(TALKING, MUTE)[0].track == 0


def test_of_two_mouths_that_move_the_one_that_moves_with_the_sound_speaks():
    assert judged(TO_OTHERS, TALKING)[0].track == 1
    assert judged(TALKING, TO_OTHERS)[0].track == 0
    assert judged(TO_OTHERS)[0].probability < judged(TALKING)[0].probability


def test_sound_a_little_beside_the_pictures_changes_little():
    late = np.roll(sound(), 8)
    assert judged(TALKING, heard=late)[0].probability > 0.9


def test_when_nobody_is_seen_the_speaker_is_off_screen():
    (one,) = judged(TALKING, seen=((9.5, 10),))
    assert (one.track, one.probability, one.off_screen) == (None, 0.0, 1.0)
    assert judge_speaking([WHOLE], sound(), [], [])[0].track is None


def test_a_face_seen_for_a_moment_is_less_likely_than_one_seen_throughout():
    faces = [face((0, 10)), face((1, 3))]
    short = mouth(rhythm(10)[25:75], start=1.0)
    (one,) = judge_speaking([WHOLE], sound(), faces, [TALKING, short])
    assert one.track == 0


def test_a_face_whose_mouth_was_not_watched_may_speak_or_not():
    (one,) = judged(mouth(np.zeros(0)))
    assert one.track == 0 and one.probability == pytest.approx(0.5)


def test_every_turn_is_judged_by_its_own_moments():
    speaks_first = mouth(rhythm(10) * (np.arange(250) < 125))
    speaks_then = mouth(rhythm(10) * (np.arange(250) >= 125))
    found = judged(speaks_first, speaks_then, turns=(turn(0.2, 4.8), turn(5.2, 9.8)))
    assert [one.track for one in found] == [0, 1]


def test_what_a_neighbouring_turn_sounds_like_does_not_count():
    alone = judged(TALKING, turns=(turn(3, 5),))
    among = judged(TALKING, turns=(turn(0, 3, 1), turn(3, 5), turn(5, 9, 1)))
    assert alone[0].probability != among[1].probability
    without = judged(TALKING, turns=(turn(3, 5),), settings=PairingSettings(context=0.0))
    assert among[1].probability == without[0].probability


def test_a_silent_sound_and_a_turn_beyond_the_sound_are_no_error():
    assert judged(TALKING, heard=np.zeros(1000, np.float32))[0].track == 0
    assert judged(TALKING, heard=np.zeros(0, np.float32))[0].track == 0
    assert judged(TALKING, turns=(turn(4, 4),))[0].track is None


def test_a_face_without_its_motion_is_refused():
    with pytest.raises(ValueError, match="1 faces, 0 motions"):
        judge_speaking([], sound(), [face((0, 1))], [])


@pytest.mark.parametrize("wrong", [{"fps": 0.0}, {"context": -1.0}, {"largest_lag": -0.1}, {"least_share": 1.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        PairingSettings(**wrong)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.floats(0, 9), st.floats(0.1, 9))
def test_the_probabilities_of_all_who_may_speak_are_no_more_than_one(seeds, start, length):
    mouths = [mouth(rhythm(10, seed)) for seed in seeds]
    (one,) = judged(*mouths, turns=(turn(start, min(10.0, start + length)),))
    assert one.probability + one.off_screen <= 1 + 1e-9
    assert len(mouths) > 1 or one.probability + one.off_screen == pytest.approx(1)


def test_loudness_is_the_root_mean_square_around_each_moment():
    waveform = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    found = loudness(waveform)
    assert len(found) == LOUDNESS_RATE + 1
    middle = waveform[SAMPLE_RATE // 2 - 640 : SAMPLE_RATE // 2 + 640]
    assert found[50] == pytest.approx(np.sqrt(np.mean(middle**2)), rel=1e-5)


def test_loudness_keeps_its_place_in_time():
    waveform = np.zeros(2 * SAMPLE_RATE, np.float32)
    waveform[SAMPLE_RATE : SAMPLE_RATE + 160] = 0.5
    loud = np.flatnonzero(loudness(waveform)) / LOUDNESS_RATE
    assert loud.mean() == pytest.approx(1.005, abs=0.011)


def test_the_loudness_of_nothing_is_nothing():
    assert loudness(np.zeros(0, np.float32)).tolist() == [0.0]


# -- invented films and real clips ------------------------------------------------------------------


def watched(path):
    """The faces of a film, the motion of their mouths, and the loudness of its sound."""
    passing = Passing()

    def held():
        for time, picture in read_frames(path, 25.0):
            passing.pass_by(time, picture)
            yield time, picture

    faces, mouths = follow_faces(every(held(), 5.0), load_face_detector(), passing=passing)
    return faces, mouths, loudness(read_audio(path)[0])


def one_face(path):
    """The longest seen face of a clip, its mouth's motion, and the loudness of the sound."""
    faces, mouths, heard = watched(path)
    longest = max(range(len(faces)), key=lambda place: faces[place].span.duration)
    return faces[longest], mouths[longest], heard


def windows(track, heard, seconds):
    """Turns of equal length over a clip, where it is not silent for most of the time."""
    end = min(track.span.end, len(heard) / LOUDNESS_RATE)
    whole = [turn(start, start + seconds) for start in np.arange(0.0, end - seconds + 0.05, seconds)]
    quiet = 0.1 * np.percentile(heard, 95)
    return [one for one in whole if (part(heard, one.span.start, seconds) > quiet).mean() > 0.6]


def part(heard, start, seconds):
    return heard[round(start * LOUDNESS_RATE) : round((start + seconds) * LOUDNESS_RATE)]


CLIPS = ["av/grid/grid_s1/srbu7s.mpg", "av/grid/grid_u_lbbc2a/lbbc2a.mpg"]


def test_real_faces_speak_their_own_words_and_not_each_other_s(shared_media):
    one, other = (one_face(shared_media / name) for name in CLIPS)
    faces, mouths = [one[0], other[0]], [one[1], other[1]]
    spoken = [turn(0.2, 2.9)]
    assert judge_speaking(spoken, one[2], faces, mouths)[0].track == 0
    assert judge_speaking(spoken, other[2], faces, mouths)[0].track == 1


@pytest.mark.long
@pytest.mark.timeout(1200)  # beside other tests on two processors it takes longer than alone
@pytest.mark.parametrize(("seconds", "least"), [(2.5, 0.65), (5.0, 0.75)])
def test_most_real_talking_faces_are_told_from_the_same_faces_under_foreign_words(shared_media, seconds, least):
    paths = [path for path in sorted((shared_media / "av").rglob("*")) if path.suffix in (".mp4", ".mpg")]
    clips = {path.parent.name: one_face(path) for path in paths if "hamilton" not in path.name}  # one a person
    spoken, silenced = [], []
    for name, (track, motion, heard) in clips.items():
        for one in windows(track, heard, seconds):
            spoken += judge_speaking([one], heard, [track], [motion], PairingSettings(context=0.0))
            start = one.span.start
            for foreign, (_, _, words) in clips.items():
                if foreign != name and len(words) > (start + seconds) * LOUDNESS_RATE:
                    silenced += judge_speaking([one], words, [track], [motion], PairingSettings(context=0.0))
    right, wrong = (np.array([one.probability for one in side]) for side in (spoken, silenced))
    higher = (right[:, None] > wrong[None]).mean()
    print(f"{seconds} s: {len(right)} and {len(wrong)} turns, AUC {higher:.3f}, own words on screen")
    print(f"{(right > 0.5).mean():.2f}, foreign words off screen {(wrong <= 0.5).mean():.2f}")
    assert higher > least
    assert (right > 0.5).mean() > 0.6


@pytest.mark.long
@pytest.mark.timeout(1200)  # beside other tests on two processors it takes longer than alone
def test_who_speaks_in_invented_films_is_seen_and_who_is_off_screen_too(tmp_path):
    people = invent_people(12, 5)
    seconds = {True: [0.0, 0.0], False: [0.0, 0.0]}  # on screen or not: right, in all
    for number in range(6):
        cast = people[2 * number : 2 * number + 2]
        path = tmp_path / f"{number}.mp4"
        truth = make_film(path, plan_scene(cast, 20.0, number), number, Camera(fps=(25.0, 12.5)[number % 2]))
        faces, mouths, heard = watched(path)
        turns = [turn(said.start, said.end) for said in truth.speech]
        for said, one in zip(truth.speech, judge_speaking(turns, heard, faces, mouths), strict=True):
            who = None if one.off_screen > 0.5 else name_of(faces[one.track], truth)
            seconds[said.on_screen][0] += (said.end - said.start) * (who == (said.person if said.on_screen else None))
            seconds[said.on_screen][1] += said.end - said.start
    shares = {on_screen: right / whole for on_screen, (right, whole) in seconds.items()}
    print(f"speaking time judged rightly: on screen {shares[True]:.3f}, off screen {shares[False]:.3f}, {seconds}")
    assert shares[True] > 0.9 and shares[False] > 0.8


def name_of(track, truth):
    """Whose face a track shows, by its best shot's place."""
    shot = track.shots[0]
    here = [one for one in truth.visible if one.start - 0.1 <= shot.time <= one.end + 0.1]
    return min(here, key=lambda one: abs(one.box[0] + one.box[2] - shot.box[0] - shot.box[2])).person
