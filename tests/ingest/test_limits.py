"""What a file may weigh: hostile files are refused with a reason, in little time."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from ingest.limits import CONTAINERS, TRUSTED, UPLOADS, MediaLimits, in_force, reading_within
from ingest.media import MediaError, probe, read_audio, read_frames, read_photo
from tests.ingest import hostile_media as hostile
from tests.ingest.test_media import tone, write_wav

OPENERS = {"hls", "dash", "concat", "image2", "image2pipe", "lavfi", "sdp", "rtp", "rtsp", "sap", "svg_pipe", "webm_dash_manifest", "webvtt", "ivr"}  # fmt: skip  # noqa: E501


@pytest.fixture(params=[TRUSTED, UPLOADS], ids=["trusted", "upload"])
def limits(request):
    with reading_within(request.param):
        yield request.param


def reasons(path):
    """What every way of reading says of a file."""
    told = []
    for read in (probe, read_audio, read_photo, lambda one: list(read_frames(one, 1.0))):
        try:
            read(path)
        except MediaError as error:
            told.append(error.reason)
    return told


def test_nothing_that_opens_other_files_is_ever_read():
    assert not OPENERS & set(CONTAINERS) and not any(name.endswith("_pipe") for name in CONTAINERS)
    with pytest.raises(ValueError, match=r"containers \['hls'\] are never read"):
        MediaLimits(containers=("mov", "hls"))
    with pytest.raises(ValueError, match=r"photos \['EPS'\] are never read"):
        MediaLimits(photo_formats=("JPEG", "EPS"))


@pytest.mark.parametrize("name", ["picture_pixels", "frame_pixels", "seconds", "frames_per_second", "streams"])
def test_limits_that_allow_nothing_are_refused(name):
    with pytest.raises(ValueError, match="above 0"):
        MediaLimits(**{name: 0})


def test_limits_hold_in_all_threads_and_end_with_their_block():
    found = []
    with reading_within(UPLOADS):
        thread = threading.Thread(target=lambda: found.append(in_force()))
        thread.start()
        thread.join()
    assert found == [UPLOADS] and in_force() == TRUSTED


@pytest.mark.parametrize(
    "bomb",
    [hostile.png(50_000, 50_000, rows=9), hostile.bmp(50_000, 50_000), hostile.webp(16_384, 16_384)],
    ids=["png", "bmp", "webp"],
)
def test_a_bomb_is_refused_by_its_header(limits, tmp_path, bomb):
    (tmp_path / "bomb").write_bytes(bomb)
    assert len(bomb) < 4000
    begin = time.monotonic()
    assert any(f"more than {limits.picture_pixels} pixels" in one for one in reasons(tmp_path / "bomb"))
    assert len(reasons(tmp_path / "bomb")) == 4 and time.monotonic() - begin < 1


def test_a_bomb_between_warning_and_error_of_pillow_is_refused_without_a_word_on_standard_error(tmp_path):
    (tmp_path / "bomb.png").write_bytes(hostile.png(9_000, 9_000, rows=9))
    program = (
        "import sys; from pathlib import Path; from ingest.media import *\n"
        "try: read_photo(Path(sys.argv[1]))\nexcept MediaError as error: print(error.reason)"
    )
    told = subprocess.run([sys.executable, "-c", program, tmp_path / "bomb.png"], capture_output=True, check=True)
    assert b"pixels" in told.stdout and not told.stderr


def test_a_gif_of_huge_pictures_is_refused(limits, tmp_path):
    (tmp_path / "bomb.gif").write_bytes(hostile.gif(65_000, 65_000, 9))
    assert len(reasons(tmp_path / "bomb.gif")) == 4


def test_a_jpeg_that_is_gone_over_again_and_again_is_refused(tmp_path):
    (tmp_path / "scans.jpg").write_bytes(hostile.jpeg_of_many_scans(800, 600, 2000))
    begin = time.monotonic()
    with pytest.raises(MediaError, match="goes over its picture"):
        read_photo(tmp_path / "scans.jpg")
    assert time.monotonic() - begin < 1


def test_an_honest_progressive_jpeg_with_a_preview_inside_is_read(tmp_path):
    preview, stream = Image.new("RGB", (9, 9)).getexif(), io.BytesIO()
    preview[0x010E] = "text"
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format="jpeg", progressive=True, exif=preview)
    (tmp_path / "honest.jpg").write_bytes(stream.getvalue())
    with reading_within(UPLOADS):
        assert read_photo(tmp_path / "honest.jpg").shape == (64, 64, 3)


@pytest.mark.parametrize("seconds", [1e6, 1e9])
def test_a_header_that_claims_years_is_refused(limits, tmp_path, seconds):
    (tmp_path / "years.mkv").write_bytes(hostile.claiming(tmp_path / "film.mkv", seconds))
    with pytest.raises(MediaError, match="hours, and at most"):
        probe(tmp_path / "years.mkv")


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -9.0, 1e300])
def test_a_header_that_claims_no_time_at_all_is_not_believed(limits, tmp_path, seconds):
    (tmp_path / "odd.mkv").write_bytes(hostile.claiming(tmp_path / "film.mkv", seconds))
    assert probe(tmp_path / "odd.mkv").duration == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("said", [None, 0.001])
def test_hours_of_silence_in_a_few_bytes_are_refused_whatever_the_header_says(tmp_path, said):
    (tmp_path / "silent.flac").write_bytes(hostile.silent_flac(0.5, said=said))
    assert (tmp_path / "silent.flac").stat().st_size < 4000
    with reading_within(replace(UPLOADS, seconds=600.0)), pytest.raises(MediaError, match=r"hours, and at most 0\.2"):
        read_audio(tmp_path / "silent.flac")
    assert len(read_audio(tmp_path / "silent.flac")[0]) / 16000 == pytest.approx(1800, abs=10)


def test_a_film_that_is_edited_to_last_is_refused_once_it_has_lasted(tmp_path):
    (tmp_path / "again.mp4").write_bytes(hostile.edited(hostile.film(tmp_path / "film.mp4", 25, 16), 400))
    with reading_within(MediaLimits(seconds=8.0)), pytest.raises(MediaError, match="hours, and at most"):
        list(read_frames(tmp_path / "again.mp4", 1.0))


def test_pictures_without_end_at_one_moment_are_refused(tmp_path):
    (tmp_path / "still.mp4").write_bytes(hostile.film_without_a_clock(tmp_path / "film.mp4", 1700))
    with reading_within(UPLOADS), pytest.raises(MediaError, match=r"1501 pictures in 0\.0 s"):
        list(read_frames(tmp_path / "still.mp4", 1.0))


@pytest.mark.parametrize("count", [33, 201, 1000])
def test_a_container_of_very_many_streams_is_refused(limits, tmp_path, count):
    (tmp_path / "many.mkv").write_bytes(hostile.many_streams(tmp_path / "made.mkv", count))
    if count <= limits.streams:
        assert probe(tmp_path / "many.mkv").kind == "sound"
        return
    with pytest.raises(MediaError, match=f"more than {limits.streams} streams"):
        probe(tmp_path / "many.mkv")


@pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 2**31 - 1, 2**32 - 1])
def test_a_rate_that_is_none_is_refused(limits, tmp_path, rate):
    (tmp_path / "rate.wav").write_bytes(hostile.wav(rate, bytes(100_000)))
    assert len(reasons(tmp_path / "rate.wav")) == 4


@pytest.mark.parametrize("odd", [{"channels": 65_535}, {"channels": 500}, {"bits": 65_528}, {"channels": 0}])
def test_a_wav_of_odd_form_is_refused(limits, tmp_path, odd):
    (tmp_path / "odd.wav").write_bytes(hostile.wav(16_000, bytes(100_000), **odd))
    with pytest.raises(MediaError):
        read_audio(tmp_path / "odd.wav")


def test_a_wav_that_claims_more_than_it_holds_takes_only_what_it_holds(limits, tmp_path):
    (tmp_path / "years.wav").write_bytes(hostile.wav(8000, bytes(16_000), said=0xFFFFFFF0))
    assert len(read_audio(tmp_path / "years.wav")[0]) == 16_000


def test_a_codec_that_uploads_may_not_have_is_not_decoded(tmp_path):
    write_wav(tmp_path / "sound.wav", tone(0.2), 16000)
    assert probe(tmp_path / "sound.wav").kind == "sound"
    with reading_within(replace(UPLOADS, decoders=("h264",))), pytest.raises(MediaError, match="sound cannot be read"):
        probe(tmp_path / "sound.wav")


def test_what_names_other_files_or_addresses_opens_neither(limits, tmp_path):
    hostile.film(tmp_path / "target.mp4")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/film.mp4"
        for name, content in hostile.pointers(tmp_path / "target.mp4", address).items():
            (tmp_path / name).write_bytes(content)
            assert len(reasons(tmp_path / name)) == 4, name
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_even_a_list_that_is_understood_can_open_nothing(tmp_path):
    """The second lock behind the list of containers: FFmpeg's own list of files, without the first."""
    hostile.film(tmp_path / "target.mp4")
    (tmp_path / "list").write_text(f"ffconcat version 1.0\nfile file:{tmp_path}/target.mp4\n")
    for protocols, opens in (("fd,file", True), (None, False)):
        descriptor = os.open(tmp_path / "list", os.O_RDONLY)
        bounds = TRUSTED.for_containers(descriptor) | ({"protocol_whitelist": protocols} if protocols else {})
        del bounds["format_whitelist"]
        bounds["safe"] = "0"
        try:
            with av.open("fd:", "r", format="concat", container_options=bounds) as container:
                assert opens and container.streams.video
        except (av.FFmpegError, OSError):
            assert not opens
        finally:
            os.close(descriptor)
