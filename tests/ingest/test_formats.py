"""Media of every extension, container and codec that archives hold: right pictures, right sound, right moments."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import count

import av
import numpy as np
import pytest

from ingest import listening
from ingest.media import MEDIA_EXTENSIONS, SAMPLE_RATE, MediaError, probe, read_audio, read_frames, read_photo
from ingest.track import Span
from tests.ingest import real_formats as formats
from tests.ingest.real_formats import CLICKS, COUNT, FILMS, PHOTOS, RATE, SECONDS, SOUNDS, Recipe

TOGETHER_SECONDS = 0.04
SPANS = ((1.1, 1.3), (1.72, 2.0), (3.0, 3.44), (3.5, 9.0))
ALL_PICTURES = 1000.0
# Without an index, or with a broken one.
CUES, INDEX_OF_AVI = b"\x1c\x53\xbb\x6b", b"idx1"


def by(extension, pictures):
    """The recipe of an extension and a picture codec."""
    return next(one for one in FILMS if (one.extension, one.pictures) == (extension, pictures))


MP4, MOV, MKV = by("mp4", "libx264"), by("mov", "libx264"), by("mkv", "libx264")
TS, FLV, AVI, WEBM = by("ts", "libx264"), by("flv", "libx264"), by("avi", "mpeg4"), by("webm", "libvpx-vp9")
MPG = by("mpg", "mpeg1video")


@pytest.fixture(scope="module", autouse=True)
def quiet_encoders():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVT_LOG", "0")
        yield


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes a medium, once for each recipe."""
    folder, made, numbers = tmp_path_factory.mktemp("formats"), {}, count()

    def maker(recipe, **how):
        if missing := [one for one in (recipe.pictures, *recipe.sounds) if one and one not in av.codecs_available]:
            pytest.skip(f"this PyAV has no encoder {missing[0]}: films of it are not tested")
        key = (str(recipe), recipe.layout, str(recipe.options), str(recipe.container_options), str(how))
        if key not in made:
            made[key] = formats.write(folder / f"{next(numbers)}.{recipe.extension}", recipe, **how)
        return made[key]

    return maker


@pytest.fixture
def changed(tmp_path):
    """Writes changed bytes beside a file."""

    def write(path, content):
        (tmp_path / path.name).write_bytes(content)
        return tmp_path / path.name

    return write


def shown(path, warnings=None):
    """Number to second of all pictures, in order."""
    pictures = list(read_frames(path, ALL_PICTURES, warnings=warnings))
    assert all(formats.is_upright(pixels) for _, pixels in pictures)
    return {formats.number_of(pixels): time for time, pixels in pictures}


def assert_known(path, times=None):
    """All pictures, in order and in their time, beside the sound."""
    times = times or [k / RATE for k in range(COUNT)]
    warnings: list[str] = []
    seconds = shown(path, warnings)
    wave, oddities = read_audio(path)
    clicks = formats.clicks_in(wave)
    assert list(seconds) == list(range(len(times)))
    late = np.array([seconds[k] - (time - times[0]) for k, time in enumerate(times)])
    assert late.min() > -2e-3 and late.max() < TOGETHER_SECONDS + 2e-3 and np.ptp(late) < 2e-3
    assert clicks == pytest.approx([click + late[0] for click in CLICKS], abs=TOGETHER_SECONDS)
    assert formats.level_of(wave) == pytest.approx(formats.TONE_LEVEL, rel=0.1)
    assert warnings == oddities == []


def assert_spans_are_parts_of_the_whole(path, *, told=False):
    whole, wave = list(read_frames(path, ALL_PICTURES)), read_audio(path)[0]
    assert len(whole) > 50
    for begin, end in SPANS:
        warnings: list[str] = []
        part = list(read_frames(path, ALL_PICTURES, Span(begin, end), warnings))
        expected = [(time, pixels) for time, pixels in whole if begin <= time < end]
        assert [time for time, _ in part] == [time for time, _ in expected], begin
        assert all((one == other).all() for (_, one), (_, other) in zip(part, expected, strict=True)), begin
        assert told or not warnings
    for begin, end in ((1.7, 2.5), (3.5, 9.0)):
        assert (read_audio(path, Span(begin, end))[0] == wave[round(begin * 16000) : round(end * 16000)]).all(), begin


def test_every_extension_is_made_here():
    made = {one.extension for one in (*FILMS, *SOUNDS)} | set(PHOTOS)
    assert made == MEDIA_EXTENSIONS


@pytest.mark.parametrize("recipe", FILMS, ids=str)
def test_pictures_and_sound_of_every_film_come_at_their_moment(make, recipe):
    info = probe(make(recipe))
    assert (info.kind, info.width, info.height, info.has_sound) == ("film", 128, 96, True)
    assert info.duration == pytest.approx(SECONDS, abs=0.1) and info.fps == pytest.approx(RATE, rel=0.01)
    assert_known(make(recipe))


@pytest.mark.parametrize("recipe", [MP4, MKV, WEBM, AVI, MPG, TS, FLV], ids=str)
def test_a_span_of_a_film_is_exactly_that_part_of_the_whole(make, recipe):
    assert_spans_are_parts_of_the_whole(make(recipe))


@pytest.mark.long
@pytest.mark.parametrize("recipe", FILMS, ids=str)
def test_a_span_of_every_film_anywhere_is_exactly_that_part_of_the_whole(make, recipe):
    path = make(recipe)
    whole, wave, random = list(read_frames(path, ALL_PICTURES)), read_audio(path)[0], np.random.default_rng(0)
    for begin in random.uniform(0, 5, 40):
        end = begin + random.uniform(0, 1)
        part = list(read_frames(path, ALL_PICTURES, Span(begin, end)))
        expected = [(time, pixels) for time, pixels in whole if begin <= time < end]
        assert [time for time, _ in part] == [time for time, _ in expected], begin
        assert all((one == other).all() for (_, one), (_, other) in zip(part, expected, strict=True)), begin
        sound = read_audio(path, Span(begin, end))[0]
        assert (sound == wave[round(begin * SAMPLE_RATE) : round(end * SAMPLE_RATE)]).all(), begin


@pytest.mark.parametrize("recipe", SOUNDS, ids=str)
def test_every_sound_comes_at_its_moment_and_as_loud_as_it_is(make, recipe):
    path = make(recipe)
    info, (wave, warnings) = probe(path), read_audio(path)
    assert (info.kind, info.has_pictures) == ("sound", False)
    assert info.duration == pytest.approx(SECONDS, abs=0.1)
    assert len(wave) / SAMPLE_RATE == pytest.approx(SECONDS, abs=0.05)
    assert formats.clicks_in(wave) == pytest.approx(CLICKS, abs=TOGETHER_SECONDS)
    assert formats.level_of(wave) == pytest.approx(formats.TONE_LEVEL, rel=0.1)
    assert (read_audio(path, Span(0.9, 1.4))[0] == wave[14400:22400]).all() and not warnings


@pytest.mark.parametrize("extension", PHOTOS)
def test_every_photo_shows_its_picture(tmp_path, extension):
    path, warnings = formats.write_photo(tmp_path / f"photo.{extension}"), []
    assert (probe(path).kind, probe(path).width, probe(path).height) == ("photo", 128, 96)
    assert formats.number_of(read_photo(path, warnings)) == 77 and not warnings
    assert extension == "pgm" or formats.is_upright(read_photo(path))


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_a_turned_photo_is_shown_upright(tmp_path, extension, orientation):
    path = formats.write_photo(tmp_path / f"photo.{extension}", orientation)
    assert (probe(path).width, probe(path).height) == (128, 96)
    assert formats.is_upright(read_photo(path)) and formats.number_of(read_photo(path)) == 77


@pytest.mark.parametrize(("recipe", "rotation"), [(MP4, 90), (MP4, 180), (MP4, 270), (MOV, 90), (MKV, 90), (MKV, 270)])
def test_a_turned_film_is_shown_upright_in_every_container_that_can_say_so(make, recipe, rotation):
    path = make(recipe, rotation=rotation)
    assert (probe(path).width, probe(path).height) == (128, 96)
    assert list(shown(path)) == list(range(COUNT))


@pytest.mark.parametrize("recipe", [MP4, MKV, WEBM, TS, FLV], ids=str)
def test_pictures_of_a_variable_rate_keep_their_moments(make, recipe):
    steps = np.random.default_rng(1).choice([0.01, 0.02, 0.04, 0.1], COUNT - 1)
    times = [0.0, *np.round(np.cumsum(steps), 3).tolist()]
    path = make(recipe, times=times)
    assert_known(path, times)
    if recipe in (MP4, TS):
        assert_spans_are_parts_of_the_whole(path)


@pytest.mark.parametrize("recipe", [MP4, MKV, TS, FLV], ids=str)
def test_a_rate_that_is_no_whole_number_does_not_drift(make, recipe):
    times = [k * 1001 / 30000 for k in range(COUNT)]
    assert_known(make(recipe, times=times, clock=30_000), times)


def test_a_time_base_that_divides_nothing_does_not_drift(make):
    assert_known(make(replace(MP4, container_options={"video_track_timescale": "12347"})))


@pytest.mark.parametrize("recipe", [MKV, TS, WEBM, replace(MPG, container_options={"muxdelay": "0"})], ids=str)
def test_a_film_that_starts_before_second_zero_is_read_from_its_start(make, recipe):
    below = replace(recipe, container_options={"avoid_negative_ts": "disabled"})
    times = [-0.52 + k / RATE for k in range(COUNT)]
    path = make(below, times=times, clock=RATE)
    with av.open(str(path)) as container:
        assert container.start_time < 0, "the film must start early for the test to mean anything"
    assert_known(path, times)
    assert_spans_are_parts_of_the_whole(path)


def test_of_a_film_whose_edit_list_leaves_out_its_beginning_that_is_left_out(make):
    below = replace(MP4, container_options={"avoid_negative_ts": "disabled"})
    path = make(below, times=[-0.52 + k / RATE for k in range(COUNT)], clock=RATE)
    seconds = shown(path)
    assert list(seconds) == list(range(13, COUNT)) and seconds[13] == 0.0
    assert formats.clicks_in(read_audio(path)[0])[0] == pytest.approx(CLICKS[0] - 0.52, abs=TOGETHER_SECONDS)


@pytest.mark.parametrize(
    ("recipe", "begin"), [(MP4, 3600.5), (MKV, 3600.5), (WEBM, 3600.5), (FLV, 3600.5), (TS, 3600.5), (TS, 95_442.7)]
)
def test_a_film_that_starts_late_starts_at_zero_even_if_its_clock_wraps(make, recipe, begin):
    times = [begin + k / RATE for k in range(COUNT)]
    path = make(recipe, times=times)
    assert probe(path).duration == pytest.approx(SECONDS, abs=0.1)
    assert_known(path, times)
    assert_spans_are_parts_of_the_whole(path)


GRADUAL = {"preset": "ultrafast", "x264-params": "intra-refresh=1:keyint=12:threads=1"}


@pytest.mark.parametrize("options", [formats.X264_OPEN, GRADUAL], ids=["open groups", "gradual refresh"])
@pytest.mark.parametrize("recipe", [MP4, TS], ids=str)
def test_a_span_is_exact_where_pictures_need_what_lies_before_a_key_frame(make, recipe, options):
    assert_spans_are_parts_of_the_whole(make(replace(recipe, options=options)))


@pytest.mark.parametrize(
    "recipe",
    [
        replace(MKV, container_options={"live": "1"}),
        replace(WEBM, container_options={"live": "1"}),
        replace(FLV, container_options={"flvflags": "no_metadata+no_duration_filesize"}),
        replace(MP4, container_options={"movflags": "frag_keyframe+delay_moov"}),
        replace(MP4, container_options={"movflags": "faststart"}),
    ],
    ids=["live mkv", "live webm", "flv without metadata", "mp4 in fragments", "mp4 with its index in front"],
)
def test_a_film_written_without_an_index_or_in_pieces_is_read_like_any(make, recipe):
    assert_known(make(recipe))
    if recipe.container_options.get("movflags") != "faststart":
        assert_spans_are_parts_of_the_whole(make(recipe))


@pytest.mark.parametrize(
    ("recipe", "index", "damage"),
    [
        (MKV, CUES, "lost"),
        (MKV, CUES, "noise"),
        (WEBM, CUES, "lost"),
        (AVI, INDEX_OF_AVI, "lost"),
        (AVI, INDEX_OF_AVI, "zeros"),
        (AVI, INDEX_OF_AVI, "noise"),
    ],
)
def test_a_film_whose_index_is_lost_or_wrong_is_read_like_any(make, changed, recipe, index, damage):
    whole = make(recipe).read_bytes()
    place = whole.rindex(index)
    rest = len(whole) - place - 8
    noise = np.random.default_rng(0).bytes(rest)
    tail = {"lost": b"", "zeros": whole[place:][:8] + bytes(rest), "noise": whole[place:][:8] + noise}[damage]
    path = changed(make(recipe), whole[:place] + tail)
    assert list(shown(path)) == list(range(COUNT))
    assert_spans_are_parts_of_the_whole(path, told=True)


def test_sound_that_begins_in_the_middle_of_a_broadcast_comes_at_its_moment(make, tmp_path):
    mute = make(replace(TS, sounds=()), times=[k / RATE for k in range(250)])
    loud = make(TS, times=[10 + k / RATE for k in range(COUNT)])
    path = tmp_path / "late.ts"
    path.write_bytes(mute.read_bytes() + loud.read_bytes())
    numbers = [(formats.number_of(pixels), time) for time, pixels in read_frames(path, ALL_PICTURES, Span(10.5, 11.5))]
    wave, warnings = read_audio(path)
    assert probe(path).has_sound and not warnings
    assert formats.clicks_in(wave)[0] == pytest.approx(dict(numbers)[25], abs=TOGETHER_SECONDS)


def test_a_film_without_the_index_that_it_cannot_be_read_without_is_refused(make, changed):
    whole = make(MP4).read_bytes()
    path = changed(make(MP4), whole[: whole.rindex(b"moov") - 4])
    with pytest.raises(MediaError, match="begins like an MP4 or MOV film, but its header or index is damaged"):
        list(read_frames(path, 5))


FRONT = replace(MP4, container_options={"movflags": "faststart"})


@pytest.mark.parametrize("recipe", [one for one in FILMS if one.extension not in ("mp4", "mov")] + [FRONT], ids=str)
def test_of_a_film_that_is_cut_off_what_is_there_comes_at_its_moment(make, changed, recipe):
    whole = make(recipe).read_bytes()
    path = changed(make(recipe), whole[: len(whole) * 6 // 10])
    seconds = dict(list(shown(path).items())[:-4])  # of the last ones only a part may be there
    wave, _ = read_audio(path)
    late = {round(time - number / RATE, 3) for number, time in seconds.items()}
    assert len(seconds) > 40 and len(late) == 1
    assert formats.clicks_in(wave) == pytest.approx([CLICKS[0] + late.pop()], abs=TOGETHER_SECONDS)


@pytest.mark.parametrize("recipe", [MKV, WEBM, AVI, FLV, FRONT], ids=str)
def test_a_film_that_is_cut_off_says_so_where_its_header_tells_its_length(make, changed, recipe):
    whole = make(recipe).read_bytes()
    warnings: list[str] = []
    shown(changed(make(recipe), whole[: len(whole) // 2]), warnings)
    assert "truncated" in warnings[0]


def without_a_size(path):
    """An AVI film whose headers say 0 x 0."""
    content = bytearray(path.read_bytes())
    form, main = content.index(b"strf"), content.index(b"avih")
    content[form + 12 : form + 20] = content[main + 40 : main + 48] = bytes(8)
    return bytes(content)


RAW = Recipe("avi", "avi", "rawvideo", ("pcm_s16le",), rate=8000)


def test_of_a_film_of_0_x_0_pixels_the_sound_is_used_and_the_rest_told(make, changed):
    path = changed(make(RAW), without_a_size(make(RAW)))
    wave, warnings = read_audio(path)
    assert (probe(path).kind, probe(path).has_pictures) == ("sound", False)
    assert formats.clicks_in(wave) == pytest.approx(CLICKS, abs=TOGETHER_SECONDS)
    assert warnings == ["its pictures are said to be of 0 x 0 pixels and cannot be read: convert it"]


def test_a_film_of_nothing_but_0_x_0_pixels_is_refused_as_such(make, changed):
    mute = replace(RAW, sounds=())
    with pytest.raises(MediaError, match="0 x 0 pixels"):
        probe(changed(make(mute), without_a_size(make(mute))))


def test_a_header_that_says_0_x_0_is_not_believed_if_the_pictures_know_better(make, changed):
    path = changed(make(AVI), without_a_size(make(AVI)))
    assert (probe(path).width, probe(path).height) == (128, 96)
    assert list(shown(path)) == list(range(COUNT))


@pytest.mark.parametrize(
    ("recipe", "level"),
    [
        (replace(MP4, rate=8000), 1.0),
        (Recipe("mp3", "mp3", None, ("libmp3lame",), rate=8000), 1.0),
        (replace(MP4, layout="stereo"), 1.0),
        (replace(MP4, layout="5.1"), 1 + 2**0.5),
        (replace(by("mkv", "mpeg2video"), layout="5.1"), 1 + 2**0.5),
        (Recipe("wav", "wav", None, ("pcm_s16le",), layout="7.1"), 1 + 1.5 * 2**0.5),
    ],
    ids=["8 kHz aac", "8 kHz mp3", "stereo", "5.1 aac", "5.1 ac3", "7.1"],
)
def test_the_same_sound_on_all_channels_is_mixed_by_fixed_shares(make, recipe, level):
    wave, warnings = read_audio(make(recipe))
    assert formats.clicks_in(wave) == pytest.approx(CLICKS, abs=TOGETHER_SECONDS) and not warnings
    assert formats.level_of(wave) == pytest.approx(level * formats.TONE_LEVEL, rel=0.1)


SILENCE = np.zeros(4 * 48_000, np.float32)
HUM = 0.2 * np.sin(np.arange(4 * 48_000) * 0.02).astype(np.float32)
SPEECH = formats.sound(48_000)
DEFAULT, COMMENTARY = 1, 8


CHOICES = {
    "first": ([SPEECH, HUM], [], "number 1 was used, the others were left out"),
    "default": ([HUM, SPEECH], [0, DEFAULT], "number 2 was used, the others were left out"),
    "commentary": ([HUM, SPEECH], [DEFAULT | COMMENTARY, 0], "number 2 was used, the others were left out"),
    "silent": ([SILENCE, SPEECH], [], "number 2 was used, because number 1 is silent"),
    "loudest": ([SILENCE, HUM / 100, SPEECH], [], "number 3 was used, because number 1 is silent"),
}


# Not every container can say which of its streams is which.
@pytest.mark.parametrize(
    ("recipe", "choice"),
    [(MKV, one) for one in CHOICES]
    + [(MP4, one) for one in CHOICES]
    + [(MOV, "default"), (TS, "first"), (TS, "silent")],
)
def test_of_several_streams_of_sound_the_one_that_players_choose_is_used(make, recipe, choice):
    waves, flags, sentence = CHOICES[choice]
    path = make(replace(recipe, sounds=recipe.sounds * len(waves)), waves=waves, dispositions=flags)
    wave, warnings = read_audio(path)
    assert formats.clicks_in(wave) == pytest.approx(CLICKS, abs=TOGETHER_SECONDS)
    assert warnings == [f"holds {len(waves)} streams of sound: {sentence}"]
    assert (read_audio(path, Span(1.5, 2.0))[0] == wave[24000:32000]).all()


def test_a_second_stream_of_sound_does_not_move_the_pictures(make):
    path = make(replace(TS, sounds=TS.sounds * 2), waves=[SILENCE, SPEECH])
    seconds, wave = shown(path), read_audio(path)[0]
    assert formats.clicks_in(wave)[0] == pytest.approx(seconds[25], abs=TOGETHER_SECONDS)


def test_a_stream_is_listened_to_for_a_while_only_before_it_counts_as_silent(make, monkeypatch):
    late = SPEECH.copy()
    late[: 2 * 48_000] = 0
    path = make(replace(MKV, sounds=MKV.sounds * 2), waves=[late, SPEECH])
    monkeypatch.setattr(listening, "LISTEN_SECONDS", 1.5)
    assert "because number 1 is silent" in read_audio(path)[1][0]


def test_a_mute_moment_at_the_beginning_does_not_change_the_stream(make):
    late = SPEECH.copy()
    late[: 2 * 48_000] = 0
    path = make(replace(MKV, sounds=MKV.sounds * 2), waves=[late, SPEECH])
    assert formats.clicks_in(read_audio(path)[0]) == pytest.approx([CLICKS[1]], abs=TOGETHER_SECONDS)
    assert not read_audio(path, Span(0.5, 1.5))[0].any()


HOURS = 3
READING = """
import resource, sys
from pathlib import Path
from ingest.media import probe, read_frames, read_audio
from ingest.track import Span
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
path = Path(sys.argv[1])
print(peak())
print(sum(1 for _ in read_frames(path, 1.0)), peak())
part = [time for time, _ in read_frames(path, 1.0, Span(10200.0, 10800.0))]
print(len(part), min(part), peak())
print(len(read_audio(path, Span(10200.0, 10800.0))[0]), peak())
print(len(read_audio(path)[0]), peak())
"""


@pytest.mark.long
def test_a_film_of_hours_is_read_in_bounded_memory(tmp_path):
    with av.open(str(tmp_path / "long.mkv"), "w", format="matroska") as container:
        pictures = container.add_stream("mpeg4", rate=1, options={"g": "60"})
        pictures.width, pictures.height, pictures.pix_fmt = 640, 360, "yuv420p"
        sound = container.add_stream("flac", rate=8000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        still = av.VideoFrame.from_ndarray(np.full((360, 640, 3), 99, np.uint8))
        for second in range(HOURS * 3600):
            still.pts, still.time_base = second, Fraction(1)
            container.mux(pictures.encode(still))
            block.sample_rate, block.pts, block.time_base = 8000, second * 8000, Fraction(1, 8000)
            container.mux(sound.encode(block))
        container.mux(pictures.encode(None))
        container.mux(sound.encode(None))
    told = subprocess.run(
        [sys.executable, "-c", READING, str(tmp_path / "long.mkv")], capture_output=True, text=True, check=True
    )
    start, frames, part, span, whole = ([float(one) for one in line.split()] for line in told.stdout.splitlines())
    print(told.stdout)
    assert frames[0] == HOURS * 3600 and frames[1] - start[0] < 100
    assert part[:2] == [600, 10_200.0] and part[2] - start[0] < 100
    assert span[0] == 600 * SAMPLE_RATE and span[1] - start[0] < 200
    assert whole[0] == HOURS * 3600 * SAMPLE_RATE and whole[1] - start[0] < 1.3 * whole[0] * 4 / 2**20 + 100


def test_making_these_media_leaves_this_process_an_ordinary_one(tmp_path):
    formats.write(tmp_path / "film.mp4", next(one for one in FILMS if one.pictures == "libsvtav1"))
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
