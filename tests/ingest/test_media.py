"""Films and sound in and out."""

from __future__ import annotations

import contextlib
import io
import os
import tracemalloc
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from PIL import Image

from ingest import media
from ingest.limits import MediaLimits, reading_within
from ingest.media import (
    MEDIA_EXTENSIONS,
    SAMPLE_RATE,
    MediaError,
    probe,
    read_audio,
    read_frames,
    write_film,
)
from ingest.track import Span


def tone(seconds, hertz=440.0, rate=SAMPLE_RATE):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def counting_frames(count, height=48, width=64):
    """Frame k is grey of brightness 10 k, so that a decoded one says which it is."""
    return [np.full((height, width, 3), 10 * k, np.uint8) for k in range(count)]


def write_wav(path, samples, rate, form="flt", layout="mono"):
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_f32le" if form == "flt" else "pcm_s16le", rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.reshape(1, -1)), format=form, layout=layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_stamped(path, times, *, sound_times=(), rotation=0, ratio=None):
    """A Matroska film whose frames and blocks of sound carry the given stamps (seconds)."""
    with av.open(str(path), "w", format="matroska") as container:
        pictures = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency"})
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        pictures.codec_context.time_base = Fraction(1, 1000)
        if ratio:
            pictures.codec_context.sample_aspect_ratio = ratio
        if rotation:
            pictures.set_display_rotation(rotation)
        sound = container.add_stream("pcm_s16le", rate=16000, layout="mono") if sound_times else None
        for number, time in enumerate(times):
            picture = np.full((48, 64, 3), min(250, 10 * number), np.uint8)
            picture[:24, :32] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        for time in sound_times:
            block = np.full((1, 1600), 8000, np.int16)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, round(time * 16000), Fraction(1, 16000)
            container.mux(sound.encode(frame))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Two seconds, ten frames a second, a tone."""
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    write_film(path, counting_frames(20), 10, tone(2.0))
    return path


def test_a_written_film_says_what_it_holds(film):
    info = probe(film)
    assert (info.kind, info.width, info.height, info.fps) == ("film", 64, 48, 10.0)
    assert info.has_sound and info.has_pictures
    assert info.duration == pytest.approx(2.0, abs=0.01)


def test_a_written_film_gives_its_frames_back_in_order(film):
    frames = list(read_frames(film, 10))
    assert [time for time, _ in frames] == pytest.approx([k / 10 for k in range(20)])
    assert [round(picture.mean() / 10) for _, picture in frames] == list(range(20))


def test_the_same_film_is_written_as_the_same_bytes(film, tmp_path):
    write_film(tmp_path / "again.mp4", iter(counting_frames(20)), 10, tone(2.0))
    assert (tmp_path / "again.mp4").read_bytes() == film.read_bytes()


def test_a_film_can_be_written_without_sound(tmp_path):
    write_film(tmp_path / "mute.mp4", counting_frames(3), 25, None)
    assert not probe(tmp_path / "mute.mp4").has_sound


def test_odd_sizes_are_made_even(tmp_path):
    write_film(tmp_path / "odd.mp4", counting_frames(2, 47, 63), 25, None)
    assert next(read_frames(tmp_path / "odd.mp4", 5))[1].shape == (48, 64, 3)


def test_a_film_of_frames_of_two_sizes_is_refused(tmp_path):
    frames = counting_frames(1) + counting_frames(1, 20, 20)
    with pytest.raises(ValueError, match=r"frame 2 is \(20, 20, 3\)"):
        write_film(tmp_path / "mixed.mp4", frames, 25, None)


def test_a_film_without_frames_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        write_film(tmp_path / "none.mp4", [], 25, None)


def test_sound_comes_back_at_its_moment(tmp_path):
    wave = np.zeros(32000, np.float32)
    wave[16000:16800] = tone(0.05, 1000)
    write_film(tmp_path / "beep.mp4", counting_frames(20), 10, wave)
    found, warnings = read_audio(tmp_path / "beep.mp4")
    loud = np.flatnonzero(np.abs(found) > 0.1)
    assert loud[0] / SAMPLE_RATE == pytest.approx(1.0, abs=0.01)
    assert not warnings and found.dtype == np.float32


def test_fewer_frames_are_sampled_than_the_film_has(film):
    assert [round(p.mean() / 10) for _, p in read_frames(film, 2)] == [0, 5, 10, 15]


def test_only_the_span_is_read(film):
    frames = list(read_frames(film, 10, Span(1.2, 1.5)))
    assert [round(picture.mean() / 10) for _, picture in frames] == [12, 13, 14]
    assert len(read_audio(film, Span(0.5, 0.75))[0]) == 4000


def test_a_span_of_sound_is_the_same_part_of_the_whole(film):
    whole, part = read_audio(film)[0], read_audio(film, Span(0.5, 0.75))[0]
    assert (whole[8000:12000] == part).all()


def test_zero_frames_a_second_is_no_rate(film):
    with pytest.raises(ValueError, match="above 0"):
        next(read_frames(film, 0))


def test_frames_of_a_variable_rate_keep_their_own_times(tmp_path):
    times = [0.0, 0.1, 0.9, 1.0, 2.5]
    write_stamped(tmp_path / "variable.mkv", times)
    assert [time for time, _ in read_frames(tmp_path / "variable.mkv", 100)] == pytest.approx(times, abs=2e-3)


def test_a_gap_in_the_sound_is_silence_so_that_it_stays_on_the_clock(tmp_path):
    sound_times = [*np.arange(0, 0.5, 0.1), *np.arange(1.5, 2.0, 0.1)]
    write_stamped(tmp_path / "gap.mkv", np.arange(0, 2, 0.1), sound_times=sound_times)
    wave, _ = read_audio(tmp_path / "gap.mkv")
    assert len(wave) == 32000
    assert np.abs(wave[8200:23800]).max() < 1e-3
    assert wave[24500:].mean() == pytest.approx(8000 / 32768, abs=0.01)


def test_the_clock_starts_with_the_earliest_stream(tmp_path):
    write_stamped(tmp_path / "late.mkv", np.arange(5, 6, 0.1), sound_times=[5.5, 5.6])
    assert probe(tmp_path / "late.mkv").duration == pytest.approx(1.0, abs=0.15)
    assert next(read_frames(tmp_path / "late.mkv", 10))[0] == pytest.approx(0.0)
    wave, warnings = read_audio(tmp_path / "late.mkv")
    assert len(wave) == pytest.approx(0.7 * SAMPLE_RATE, abs=50) and not warnings
    assert np.flatnonzero(np.abs(wave) > 0.1)[0] / SAMPLE_RATE == pytest.approx(0.5, abs=0.01)


def test_a_turned_film_is_shown_upright(tmp_path):
    write_film(tmp_path / "flat.mp4", counting_frames(2), 10, None)
    with av.open(str(tmp_path / "turned.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(90)  # to be turned counter-clockwise for showing
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:24, 32:] = (255, 0, 0)  # the top right goes to the top left
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    shown = next(read_frames(tmp_path / "turned.mp4", 5))[1]
    assert shown.shape == (64, 48, 3)
    assert shown[5, 5, 0] > 200 and shown[60, 5, 0] < 50
    assert (probe(tmp_path / "turned.mp4").width, probe(tmp_path / "turned.mp4").height) == (48, 64)


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    write_stamped(tmp_path / "wide.mkv", [0.0, 0.1], ratio=Fraction(2, 1))
    assert next(read_frames(tmp_path / "wide.mkv", 5))[1].shape == (48, 128, 3)


@pytest.mark.parametrize(("rate", "layout", "channels"), [(8000, "mono", 1), (44100, "stereo", 2), (48000, "5.1", 6)])
def test_any_rate_and_number_of_channels_becomes_mono_at_16_khz(tmp_path, rate, layout, channels):
    samples = np.repeat(tone(1.0, rate=rate)[:, None], channels, axis=1)
    write_wav(tmp_path / "sound.wav", samples, rate, layout=layout)
    wave, _ = read_audio(tmp_path / "sound.wav")
    assert len(wave) == pytest.approx(16000, abs=2)
    spectrum = np.abs(np.fft.rfft(wave))
    assert np.argmax(spectrum) == pytest.approx(440, abs=1)
    assert np.abs(wave).max() <= 1.0


def test_values_that_are_no_numbers_become_silence_with_a_warning(tmp_path):
    samples = tone(0.5)
    samples[1000] = np.nan
    write_wav(tmp_path / "nan.wav", samples, 16000)
    wave, warnings = read_audio(tmp_path / "nan.wav")
    assert np.isfinite(wave).all() and "no numbers" in warnings[0]


def test_sound_beyond_full_scale_is_clipped(tmp_path):
    write_wav(tmp_path / "loud.wav", tone(0.5) * 10, 16000)
    assert np.abs(read_audio(tmp_path / "loud.wav")[0]).max() == 1.0


def test_one_sample_of_sound_is_read(tmp_path):
    write_wav(tmp_path / "short.wav", tone(1 / 16000), 16000)
    assert len(read_audio(tmp_path / "short.wav")[0]) == 1


def test_the_content_decides_not_the_extension(film, tmp_path):
    (tmp_path / "liar.jpg").write_bytes(film.read_bytes())
    assert probe(tmp_path / "liar.jpg").kind == "film"
    Image.new("RGB", (9, 7)).save(tmp_path / "photo.mp4", format="png")
    assert probe(tmp_path / "photo.mp4").kind == "photo"
    assert (probe(tmp_path / "photo.mp4").width, probe(tmp_path / "photo.mp4").height) == (9, 7)


def test_an_mpeg_film_named_like_a_picture_is_a_film(tmp_path):
    with av.open(str(tmp_path / "film.jpg"), "w", format="mpeg") as container:
        stream = container.add_stream("mpeg1video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(25):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade * 10, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    assert probe(tmp_path / "film.jpg").kind == "film"
    assert len(list(read_frames(tmp_path / "film.jpg", 5))) >= 4


def test_a_cover_picture_does_not_make_a_film_of_a_song(tmp_path):
    cover = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(cover, format="jpeg")
    write_film(tmp_path / "plain.mp4", counting_frames(1), 1, None)
    picture = b"\0image/jpeg\0\x03\0" + cover.getvalue()
    frame = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
    size = len(frame)
    header = b"ID3\x03\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127])
    song = io.BytesIO()
    with av.open(song, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=16000, layout="mono")
        block = av.AudioFrame.from_ndarray(tone(1.0)[None], format="fltp", layout="mono")
        block.sample_rate = 16000
        container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    (tmp_path / "song.mp3").write_bytes(header + frame + song.getvalue())
    with av.open(str(tmp_path / "song.mp3")) as container:
        assert container.streams.video, "the cover must be there for the test to mean anything"
    assert probe(tmp_path / "song.mp3").kind == "sound"
    assert len(read_audio(tmp_path / "song.mp3")[0]) >= 16000


def test_a_sound_has_no_frames_and_a_mute_film_no_sound(tmp_path):
    write_wav(tmp_path / "sound.wav", tone(0.5), 16000)
    write_film(tmp_path / "mute.mp4", counting_frames(2), 25, None)
    with pytest.raises(MediaError, match="no pictures"):
        next(read_frames(tmp_path / "sound.wav", 5))
    with pytest.raises(MediaError, match="has no sound"):
        read_audio(tmp_path / "mute.mp4")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (bytes(5000), "nothing but zeros"),
        (b"just words\n" * 50, "looks like text"),
        (b"PK\x03\x04" + bytes(range(200)), "ZIP"),
        (b"\x1aE\xdf\xa3" + bytes(range(256)) * 4, "begins like a Matroska"),
        (np.random.default_rng(0).bytes(20_000), "no film, sound or photo"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "looks like text"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "looks like text"),
    ],
)
def test_what_is_no_medium_is_refused_with_its_reason(tmp_path, content, reason):
    (tmp_path / "file.mp4").write_bytes(content)
    with pytest.raises(MediaError, match=reason) as refusal:
        probe(tmp_path / "file.mp4")
    assert refusal.value.path == tmp_path / "file.mp4"


def test_a_film_without_its_index_is_refused_as_damaged(film, tmp_path):
    whole = film.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: whole.rindex(b"moov") - 4])
    with pytest.raises(MediaError, match="begins like an MP4"):
        probe(tmp_path / "cut.mp4")


def test_of_a_truncated_film_what_decodes_is_kept_with_a_warning(tmp_path):
    noise = np.random.default_rng(0)
    frames = (noise.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(100))
    write_film(tmp_path / "whole.mp4", frames, 25, None)
    with (
        av.open(str(tmp_path / "whole.mp4")) as source,
        # the same film with its index in front
        av.open(str(tmp_path / "front.mp4"), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    whole = (tmp_path / "front.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    warnings: list[str] = []
    times = [time for time, _ in read_frames(tmp_path / "half.mp4", 25, warnings=warnings)]
    assert 25 < len(times) < 75
    assert "truncated: of 4.0 s of pictures" in warnings[0]


def test_a_wav_that_is_shorter_than_it_says_is_kept_with_a_warning(tmp_path):
    write_wav(tmp_path / "whole.wav", tone(2.0), 16000)
    whole = (tmp_path / "whole.wav").read_bytes()
    (tmp_path / "half.wav").write_bytes(whole[: len(whole) // 2])
    wave, warnings = read_audio(tmp_path / "half.wav")
    assert len(wave) == pytest.approx(16000, abs=100)
    assert "truncated" in warnings[0]


def test_a_header_without_any_sound_is_refused(tmp_path):
    write_wav(tmp_path / "whole.wav", tone(0.5), 16000)
    whole = (tmp_path / "whole.wav").read_bytes()
    (tmp_path / "head.wav").write_bytes(whole[: whole.index(b"data") + 8])
    with pytest.raises(MediaError, match="none of its sound decodes"):
        read_audio(tmp_path / "head.wav")


def unknown_codec(film, target, *, sound=True):
    """The film with its pictures said to be of a codec that nobody knows."""
    with av.open(str(film)) as source, av.open(str(target), "w") as copy:
        for kept in source.streams if sound else source.streams.video:
            copy.add_stream_from_template(kept)
        for packet in source.demux(*(source.streams if sound else source.streams.video)):
            if packet.dts is not None:
                packet.stream = copy.streams[packet.stream.index]
                copy.mux(packet)
    target.write_bytes(target.read_bytes().replace(b"avc1", b"zzzz"))


def test_pictures_of_an_unknown_codec_are_told_and_the_sound_is_used(film, tmp_path):
    unknown_codec(film, tmp_path / "odd.mp4")
    info = probe(tmp_path / "odd.mp4")
    assert (info.kind, info.has_pictures, info.has_sound) == ("sound", False, True)
    wave, warnings = read_audio(tmp_path / "odd.mp4")
    assert len(wave) == pytest.approx(2 * SAMPLE_RATE, abs=2000)
    assert warnings == ["its pictures cannot be read, the codec is not known: convert it"]


def test_a_film_of_nothing_but_an_unknown_codec_is_refused_as_such(film, tmp_path):
    unknown_codec(film, tmp_path / "odd.mp4", sound=False)
    with pytest.raises(MediaError, match=r"odd\.mp4: its pictures cannot be read, the codec is not known"):
        probe(tmp_path / "odd.mp4")


def write_live(target, film, form):
    """A film copied as a live stream is recorded: nobody knows yet how long it becomes."""
    options = {"live": "1"} if form in ("webm", "matroska") else {}
    with av.open(str(target), "w", format=form, options=options) as live:
        pictures = live.add_stream("libx264" if form != "webm" else "libvpx", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = live.add_stream("libopus", rate=48000, layout="mono") if form != "h264" else None
        for picture in film:
            live.mux(pictures.encode(av.VideoFrame.from_ndarray(picture)))
        live.mux(pictures.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(tone(1.0, rate=48000)[None], format="flt", layout="mono")
            frame.sample_rate = 48000
            live.mux(sound.encode(frame))
            live.mux(sound.encode(None))


@pytest.mark.parametrize("form", ["webm", "matroska", "h264"])
def test_a_film_whose_header_does_not_say_is_as_long_as_its_packets(tmp_path, form):
    write_live(tmp_path / "live", counting_frames(20), form)
    with av.open(str(tmp_path / "live")) as container:
        assert not container.duration, "the header must not say for the test to mean anything"
    assert probe(tmp_path / "live").duration == pytest.approx(2.0, abs=0.1)


def test_a_film_whose_header_does_not_say_is_refused_beyond_the_longest(tmp_path):
    write_live(tmp_path / "live", counting_frames(20), "webm")
    with reading_within(MediaLimits(seconds=1.0)), pytest.raises(MediaError, match="cut it"):
        probe(tmp_path / "live")


def test_long_sound_is_in_memory_once(tmp_path):
    write_wav(tmp_path / "long.wav", tone(120.0) * 5, 16000)
    tracemalloc.start()
    try:
        wave, _ = read_audio(tmp_path / "long.wav")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 1.2 * wave.nbytes
    assert len(wave) == 120 * SAMPLE_RATE and np.abs(wave).max() == 1.0


def test_stereo_is_as_loud_as_its_mono_copy_up_to_full_scale(tmp_path):
    full = tone(0.5) / 0.3
    write_wav(tmp_path / "full.wav", np.repeat(full[:, None], 2, axis=1), 16000, layout="stereo")
    assert np.abs(read_audio(tmp_path / "full.wav")[0] - full).max() < 1e-3


def test_a_voice_in_the_centre_is_as_loud_as_broadcasters_mix_it(tmp_path):
    six = np.zeros((8000, 6), np.float32)
    six[:, 2] = tone(0.5)
    write_wav(tmp_path / "centre.wav", six, 16000, layout="5.1")
    assert np.abs(read_audio(tmp_path / "centre.wav")[0] - tone(0.5) * 0.5**0.5).max() < 1e-3


def test_a_span_of_a_mix_is_as_loud_as_in_the_whole(tmp_path):
    loud = np.repeat(tone(2.0)[:, None] * 10, 6, axis=1)  # beyond full scale, as float sound may be
    loud[:16000] /= 10
    write_wav(tmp_path / "loud.wav", loud, 16000, layout="5.1")
    whole, part = read_audio(tmp_path / "loud.wav")[0], read_audio(tmp_path / "loud.wav", Span(0.25, 0.5))[0]
    assert (whole[4000:8000] == part).all()


@pytest.mark.parametrize("seed", range(12))
def test_damage_anywhere_gives_frames_or_a_reason_but_never_a_crash(film, tmp_path, seed):
    random = np.random.default_rng(seed)
    content = np.frombuffer(film.read_bytes(), np.uint8).copy()
    content[random.integers(8, len(content), 4 ** (1 + seed % 4))] = random.integers(0, 256)
    (tmp_path / "damaged.mp4").write_bytes(content.tobytes())
    with contextlib.suppress(MediaError):
        info = probe(tmp_path / "damaged.mp4")
        times = [time for time, _ in read_frames(tmp_path / "damaged.mp4", 5)] if info.has_pictures else []
        assert all(one < other for one, other in pairwise(times))
        if info.has_sound:
            assert np.isfinite(read_audio(tmp_path / "damaged.mp4")[0]).all()


@pytest.mark.parametrize("name", ["a%03d.mp4", "concat:a|b.mp4", "http:x.mp4", "ü ☃.mp4", os.fsdecode(b"bad\xff.mp4")])
def test_a_strange_name_is_only_a_name(film, tmp_path, name):
    (tmp_path / name).write_bytes(film.read_bytes())
    assert probe(tmp_path / name).kind == "film"


def test_pictures_beyond_the_bound_are_refused(film):
    with reading_within(MediaLimits(frame_pixels=64 * 48 - 1)), pytest.raises(MediaError, match="64 x 48 pixels"):
        probe(film)


def test_films_beyond_the_longest_are_refused(film):
    with reading_within(MediaLimits(seconds=1.0)), pytest.raises(MediaError, match="cut it"):
        probe(film)


def test_decoding_damage_writes_nothing_to_standard_error(film, tmp_path, capfd):
    whole = bytearray(film.read_bytes())
    middle = len(whole) // 3
    whole[middle : middle + 200] = bytes(200)
    (tmp_path / "damaged.mp4").write_bytes(bytes(whole))
    with contextlib.suppress(MediaError):
        list(read_frames(tmp_path / "damaged.mp4", 5))
    assert capfd.readouterr().err == ""


@pytest.mark.long
def test_every_real_medium_decodes_without_a_warning(shared_media):
    paths = [path for path in sorted(shared_media.rglob("*")) if path.suffix[1:] in MEDIA_EXTENSIONS]
    kinds = {"film": 0, "sound": 0, "photo": 0}
    for path in paths:
        info = probe(path)
        kinds[info.kind] += 1
        warnings: list[str] = []
        if info.kind == "film":
            assert list(read_frames(path, 1, warnings=warnings)), path
        if info.has_sound:
            wave, oddities = read_audio(path)
            assert len(wave) / SAMPLE_RATE == pytest.approx(info.duration, abs=0.1) and not oddities, path
        if info.kind == "photo":
            assert media.read_photo(path, warnings).shape == (info.height, info.width, 3), path
        assert not warnings, path
    assert kinds == {"film": 31, "sound": 140, "photo": 179}
