"""Films in pieces: the same answer wherever they are cut, and results that survive a file."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import numpy as np
import pytest

from encoders.encoder import Encoder, packaged_encoders
from encoders.face import load_face_detector
from encoders.voice import SAMPLE_RATE, load_speech_detector
from ingest.faces import FaceSettings
from ingest.media import MediaError, probe, write_film
from ingest.pipeline import ExtractionSettings, Extractor
from ingest.shards import SHARD_SECONDS, Heard, PartError, Seen, plan, read_part, whole_film, write_part
from ingest.track import Span, media_id
from tests.ingest.coloured_faces import (
    ColourDetector,
    Colours,
    LoudnessDetector,
    scene,
    speech,
    told,
    write_coloured,
)

CELL = 1.0
SETTINGS = ExtractionSettings(faces=FaceSettings(cell=CELL))


@pytest.fixture(scope="module")
def colours():
    return Colours(replace(Encoder.load(packaged_encoders()["face_identity"]).space, dimension=3))


@pytest.fixture(scope="module")
def make(colours):
    def with_shards(seconds=SHARD_SECONDS, settings=SETTINGS):
        return Extractor(ColourDetector(), LoudnessDetector(), colours, None, settings, seconds)

    return with_shards


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Eight seconds, two people, two cuts (one at a border of cells), speech across every border."""
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    write_film(path, (scene(number) for number in range(200)), 25, speech())
    return path


@pytest.fixture(scope="module")
def uncut(make, film):
    return make().extract(film)


def test_the_film_holds_what_it_should(uncut):
    red, blue = uncut.faces
    assert red.seen == (Span(0.0, 8.0),)
    assert [(span.start, span.end) for span in blue.seen] == [(1.6, pytest.approx(3.2)), (5.0, pytest.approx(6.6))]
    assert [turn.span.start < 4 < turn.span.end for turn in uncut.turns] == [True, False]
    assert uncut.warnings == ()


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_the_answer_is_the_same_wherever_the_film_is_cut(make, film, uncut, cells):
    assert told(make(cells * CELL).extract(film)) == told(uncut)


def test_a_film_in_one_cell_shows_the_same_people_and_spans(make, film, uncut):
    whole = make(settings=ExtractionSettings()).extract(film)
    assert [(one.span, one.seen) for one in whole.faces] == [(one.span, one.seen) for one in uncut.faces]


OPEN = {"x264-params": "keyint=40:bframes=3:open-gop=1"}
CODECS = {
    "open.mp4": ("libx264", OPEN),
    "open.mkv": ("libx264", OPEN),
    "open.ts": ("libx264", OPEN),
    "refreshed.mp4": ("libx264", {"x264-params": "keyint=40:intra-refresh=1"}),
    "one_key.mp4": ("libx264", {"x264-params": "keyint=infinite:bframes=3"}),
    "film.mpg": ("mpeg2video", {"g": "15", "bf": "2"}),
    "film.avi": ("mpeg4", {"g": "25", "bf": "2"}),
}


@pytest.mark.parametrize("name", CODECS)
def test_pictures_that_need_their_neighbours_are_the_same_in_shards(make, tmp_path, name):
    codec, options = CODECS[name]
    write_coloured(tmp_path / name, codec, options, seconds=5.0)
    cut = make(2 * CELL).extract(tmp_path / name)
    assert told(cut) == told(make().extract(tmp_path / name)) and len(cut.faces) == 2


def test_a_clock_that_begins_late_is_cut_at_the_same_pictures(make, tmp_path):
    write_coloured(tmp_path / "late.mkv", seconds=4.0, first=7.24)
    assert told(make(CELL).extract(tmp_path / "late.mkv")) == told(make().extract(tmp_path / "late.mkv"))


def test_a_stamp_that_was_rounded_down_at_a_border_belongs_to_one_shard(make, film, monkeypatch):
    def pictures(path, fps, span=None, warnings=None):
        for number in range(200):
            time = number / 25 - 5e-7 * (number % 25 == 0 < number)
            if span is None or span.start - 1e-6 <= time < span.end:
                yield time, scene(number)

    monkeypatch.setattr("ingest.pipeline.read_frames", pictures)
    assert told(make(CELL).extract(film)) == told(make().extract(film))


def test_a_film_without_its_end_says_so_once_however_it_is_cut(make, tmp_path):
    write_coloured(tmp_path / "whole.mkv")
    content = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "film.mkv").write_bytes(content[: len(content) // 2])
    found = make(CELL).extract(tmp_path / "film.mkv")
    assert told(found) == told(make().extract(tmp_path / "film.mkv"))
    assert len(found.warnings) == 1 and "truncated" in found.warnings[0]


def test_pieces_made_by_others_in_any_order_are_joined_to_the_same(make, film, uncut, tmp_path):
    pieces = make(2 * CELL).plan(probe(film))
    for number in (3, 1, 0, 2):
        write_part(tmp_path / str(number), make(2 * CELL).look(film, pieces.pictures[number]), f"{number}")
    write_part(tmp_path / "sound", make().listen(film))
    seen = [read_part(tmp_path / str(number), Seen, f"{number}") for number in range(4)]
    heard = read_part(tmp_path / "sound", Heard)
    assert told(make().join(film, media_id(film), probe(film), heard, seen)) == told(uncut)


# -- plans ------------------------------------------------------------------------------------------


def lasting(film, seconds, **changes):
    return replace(probe(film), duration=seconds, **changes)


@pytest.mark.parametrize(("seconds", "shards"), [(0.5, 1), (600.0, 1), (600.5, 2), (1200.0, 2), (3 * 3600.0, 18)])
def test_a_film_is_cut_into_pieces_of_at_most_ten_minutes(film, seconds, shards):
    pieces = plan(lasting(film, seconds))
    assert len(pieces.pictures) == shards and pieces.is_cut == (shards > 1) and pieces.sound
    assert pieces.pictures[0].start == 0 and pieces.pictures[-1].end == seconds
    assert all(one.duration <= 600 for one in pieces.pictures)
    assert all(one.end == other.start for one, other in zip(pieces.pictures, pieces.pictures[1:], strict=False))


def test_a_sound_has_no_pictures_to_look_at(film):
    pieces = plan(lasting(film, 5000.0, kind="sound", has_pictures=False))
    assert (pieces.pictures, pieces.sound) == ((), True)


def test_a_shard_shorter_than_a_cell_is_refused(film):
    with pytest.raises(ValueError, match="shorter than a cell"):
        plan(lasting(film, 5.0), shard_seconds=59.0)


def test_a_span_that_is_no_shard_is_refused(make, film):
    with pytest.raises(ValueError, match="does not begin and end with cells"):
        make().look(film, Span(0.5, 2.0))


def test_a_missing_piece_is_told(make, film):
    pieces = make(2 * CELL).plan(probe(film))
    first, last = (make().look(film, pieces.pictures[number]) for number in (0, 3))
    for wrong in ([first], [first, last], [last], [first, first]):
        with pytest.raises(PartError):
            make().join(film, media_id(film), probe(film), None, wrong)
    assert list(whole_film([])) == []


# -- files that hold results ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(make, film):
    return make().look(film, Span(0.0, 2.0))


def flat(value):
    """Everything in a value, arrays as bytes."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if hasattr(value, "__dataclass_fields__"):
        return {name: flat(getattr(value, name)) for name in value.__dataclass_fields__}
    return [flat(one) for one in value] if isinstance(value, tuple) else value


def test_what_was_written_is_read_bit_for_bit(make, film, seen, tmp_path):
    heard = make().listen(film)
    for part in (seen, heard, Seen(3, None, refusal="broken")):
        write_part(tmp_path / "part", part, "work")
        assert flat(read_part(tmp_path / "part", type(part), "work")) == flat(part)
    assert os.listdir(tmp_path) == ["part"]


def test_a_file_of_other_work_is_refused(seen, tmp_path):
    write_part(tmp_path / "part", seen, "one film")
    for kind, stamp in ((Seen, "another film"), (Heard, "one film")):
        with pytest.raises(PartError, match="is not the"):
            read_part(tmp_path / "part", kind, stamp)


def test_a_missing_or_empty_file_is_refused(tmp_path):
    (tmp_path / "empty").touch()
    for name in ("empty", "missing"):
        with pytest.raises(PartError, match="cannot be read"):
            read_part(tmp_path / name, Seen)


def test_a_damaged_file_is_refused_wherever_it_is_damaged(seen, tmp_path):
    write_part(tmp_path / "part", seen)
    content = (tmp_path / "part").read_bytes()
    for place in np.linspace(0, len(content) - 1, 20).astype(int).tolist():
        broken = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        for wrong in (broken, content[:place], content + b"x"):
            (tmp_path / "part").write_bytes(wrong)
            with pytest.raises(PartError):
                read_part(tmp_path / "part", Seen)


def test_a_part_that_cannot_be_written_leaves_the_old_one_and_nothing_else(seen, tmp_path):
    write_part(tmp_path / "part", seen)
    before = (tmp_path / "part").read_bytes()
    with pytest.raises(TypeError):
        write_part(tmp_path / "part", replace(seen, warnings=(object(),)))
    assert (tmp_path / "part").read_bytes() == before and os.listdir(tmp_path) == ["part"]


def test_cells_out_of_order_or_place_are_refused(seen):
    for wrong in ({"first": 1}, {"after": 1}, {"cells": seen.cells[::-1]}):
        with pytest.raises(ValueError, match="do not lie in order"):
            replace(seen, **wrong)


# -- stopping, and what is of no use ----------------------------------------------------------------


@pytest.mark.parametrize("kind", [RuntimeError, KeyError])
def test_who_listens_to_progress_can_end_the_work_and_nothing_is_left(make, film, kind):
    def stop(share):
        if share > 0.3:
            raise kind("the lease is lost")

    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for work in (make().look, make(CELL).extract):
        with pytest.raises(kind, match="the lease is lost"):
            work(film, on_progress=stop)
    assert threading.active_count() == threads and len(os.listdir("/proc/self/fd")) == files


def test_sound_that_is_of_no_use_is_a_result(make, film, tmp_path):
    write_coloured(tmp_path / "mute.mp4", seconds=1.0)
    heard = make().listen(tmp_path / "mute.mp4")
    assert heard.refusal == "has no sound"
    found = make().join(film, media_id(film), probe(film), heard, [make().look(film)])
    assert len(found.faces) == 2 and found.warnings == ("has no sound",)


def test_one_shard_of_no_use_leaves_a_film_without_faces(make, film):
    seen = [make().look(film, Span(0.0, 4.0)), Seen(4, None, refusal="its pictures grow")]
    found = make().join(film, media_id(film), probe(film), make().listen(film), seen)
    assert (found.faces, found.warnings) == ((), ("its pictures grow",)) and found.turns
    with pytest.raises(MediaError, match="its pictures grow"):
        make().join(film, media_id(film), probe(film), None, seen)


def test_a_film_of_which_no_shard_shows_a_picture_is_refused(make, film):
    with pytest.raises(MediaError, match="none of its pictures decodes"):
        make().join(film, media_id(film), probe(film), None, [Seen(0, 4), Seen(4, None)])


# -- with the real networks -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    folders = packaged_encoders()
    encoders = [Encoder.load(folders[name]) for name in ("face_identity", "voice_identity")]

    def with_shards(seconds=SHARD_SECONDS):
        return Extractor(load_face_detector(), load_speech_detector(), *encoders, SETTINGS, seconds)

    return with_shards


def test_a_real_clip_is_the_same_in_shards(shared_media, real):
    path = shared_media / "av/grid/grid_s1/bbaf2n.mpg"
    assert told(real(2 * CELL).extract(path)) == told(real().extract(path))


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_real_clip_is_the_same_in_shards(shared_media, real):
    for path in sorted((shared_media / "av").rglob("*.mp[4g]")):
        assert told(real(CELL).extract(path)) == told(real().extract(path)), path


def test_hours_of_sound_are_the_same_from_a_file_as_from_memory(make, tmp_path, monkeypatch):
    write_film(tmp_path / "film.mp4", [scene(0)] * 100, 25, speech(4.0))
    short = make().listen(tmp_path / "film.mp4")
    monkeypatch.setattr("ingest.waveform.IN_MEMORY", SAMPLE_RATE)
    assert flat(make().listen(tmp_path / "film.mp4")) == flat(short)
