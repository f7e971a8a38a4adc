"""The room's one door: a file in, everything found in it out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from encoders.encoder import Encoder, EncoderError, packaged_encoders
from encoders.face import DetectedFace, load_face_detector
from encoders.voice import SAMPLE_RATE, load_speech_detector
from ingest.faces import FaceSettings
from ingest.media import MediaError, read_frames, write_film, write_flac
from ingest.overlaps import OverlapSettings
from ingest.pairing import PairingSettings
from ingest.pipeline import ExtractionSettings, Extractor, every
from ingest.track import Speaking, media_id
from ingest.voices import VoiceSettings
from tests.ingest.coloured_faces import LoudnessDetector
from tests.ingest.drawn_faces import FixedFaces, draw_face


class BrightSquare:
    """Finds one face wherever a picture is bright in the middle."""

    def detect(self, picture, *, smallest=30):
        height, width = picture.shape[:2]
        if picture[height // 2, width // 2].mean() < 128:
            return []
        middle = np.float32([width / 2, height / 2])
        eyes = np.float32([[20, -10], [10, -10], [-20, -10], [-10, -10], [0, 10]])
        box = (width / 2 - 30, height / 2 - 30, width / 2 + 30, height / 2 + 30)
        return [DetectedFace(box, 2.0, eyes + middle)]


def tone(seconds):
    return (0.3 * np.sin(np.arange(round(seconds * SAMPLE_RATE)) * 0.2)).astype(np.float32)


def bright(count):
    return [np.full((120, 160, 3), 200, np.uint8)] * count


@pytest.fixture
def extractor():
    return Extractor(BrightSquare(), LoudnessDetector(), None, None)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Two seconds with a face and a sound."""
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    write_film(path, bright(50), 25, tone(2.0))
    return path


def test_a_film_gives_its_face_and_its_speech(extractor, film):
    found = extractor.extract(film)
    assert (found.kind, len(found.faces), len(found.turns), found.warnings) == ("film", 1, 1, ())
    assert found.media == media_id(film)
    assert found.duration == pytest.approx(2.0, abs=0.05)
    assert found.faces[0].span.duration == pytest.approx(2.0, abs=0.05)
    assert found.turns[0].span.duration == pytest.approx(2.0, abs=0.1)


def test_the_same_file_gives_the_same_answer(extractor, film):
    one, other = extractor.extract(film), extractor.extract(film)
    assert [track.span for track in one.faces] == [track.span for track in other.faces]
    assert (one.faces[0].shots[0].pixels == other.faces[0].shots[0].pixels).all()
    assert (one.turns[0].waveform == other.turns[0].waveform).all()


def test_a_sound_gives_speech_only(extractor, tmp_path):
    write_flac(tmp_path / "sound.flac", tone(1.0))
    found = extractor.extract(tmp_path / "sound.flac")
    assert (found.kind, found.faces, len(found.turns)) == ("sound", (), 1)


def test_a_photo_gives_faces_only(extractor, tmp_path):
    Image.new("RGB", (200, 100), "white").save(tmp_path / "photo.png")
    found = extractor.extract(tmp_path / "photo.png")
    assert (found.kind, found.duration, len(found.faces), found.turns) == ("photo", 0.0, 1, ())


def test_a_film_without_face_and_speech_is_no_error(extractor, tmp_path):
    write_film(tmp_path / "dark.mp4", [np.zeros((120, 160, 3), np.uint8)] * 10, 25, np.zeros(6400, np.float32))
    found = extractor.extract(tmp_path / "dark.mp4")
    assert (found.faces, found.turns) == ((), ())


def test_a_mute_film_gives_its_face(extractor, tmp_path):
    write_film(tmp_path / "mute.mp4", bright(10), 25, None)
    found = extractor.extract(tmp_path / "mute.mp4")
    assert (len(found.faces), found.turns, found.warnings) == (1, (), ())


def test_sound_that_fails_does_not_lose_the_faces(extractor, film, monkeypatch):
    def fail(path, span=None):
        raise MediaError(path, "the sound is broken")

    monkeypatch.setattr("ingest.pipeline.read_audio", fail)
    found = extractor.extract(film)
    assert len(found.faces) == 1
    assert found.warnings == ("the sound is broken",)


def test_pictures_that_fail_do_not_lose_the_speech(extractor, film, monkeypatch):
    def fail(path, fps, span=None, warnings=None):
        raise MediaError(path, "the pictures are broken")

    monkeypatch.setattr("ingest.pipeline.read_frames", fail)
    found = extractor.extract(film)
    assert len(found.turns) == 1
    assert found.warnings == ("the pictures are broken",)


def test_a_file_fails_only_if_nothing_of_it_decodes(extractor, film, monkeypatch):
    def fail(path, *_, **__):
        raise MediaError(path, "broken")

    monkeypatch.setattr("ingest.pipeline.read_audio", fail)
    monkeypatch.setattr("ingest.pipeline.read_frames", fail)
    with pytest.raises(MediaError, match="broken"):
        extractor.extract(film)


def detector_that_raises(error):
    class Failing:
        def detect(self, picture, *, smallest=30):
            raise error

    return Extractor(Failing(), LoudnessDetector(), None, None)


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, AttributeError, MemoryError, cv2.error])
def test_what_breaks_on_the_content_of_a_file_is_the_file_s_refusal(film, kind):
    with pytest.raises(MediaError, match=r"film\.mp4: cannot be processed .*stumbled") as refusal:
        detector_that_raises(kind("stumbled")).extract(film)
    assert isinstance(refusal.value.__cause__, kind)


def test_an_encoder_that_cannot_be_used_is_not_the_file_s_fault(film):
    with pytest.raises(EncoderError, match="damaged weights"):
        detector_that_raises(EncoderError("damaged weights")).extract(film)


def test_a_file_that_is_no_medium_is_refused(extractor, tmp_path):
    (tmp_path / "notes.mp4").write_text("not a film")
    with pytest.raises(MediaError, match="looks like text"):
        extractor.extract(tmp_path / "notes.mp4")


def test_a_truncated_photo_gives_its_warning(extractor, tmp_path):
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(150, 255, (300, 300, 3), dtype=np.uint8)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    found = extractor.extract(tmp_path / "half.jpg")
    assert "cut off" in found.warnings[0]


def test_progress_rises_from_nothing_to_all(extractor, film):
    shares: list[float] = []
    extractor.extract(film, shares.append)
    assert shares[0] == 0.0 and shares[-1] == 1.0
    assert shares == sorted(shares) and len(shares) > 5


def test_equal_settings_have_one_digest_and_others_another():
    assert ExtractionSettings().digest() == ExtractionSettings(FaceSettings(), VoiceSettings()).digest()
    assert ExtractionSettings().digest() != ExtractionSettings(faces=FaceSettings(fps=2.0)).digest()
    assert ExtractionSettings().digest() != ExtractionSettings(voices=VoiceSettings(window=2.0)).digest()
    assert ExtractionSettings().digest() != ExtractionSettings(pairing=PairingSettings(fps=12.0)).digest()
    assert (
        ExtractionSettings().digest()
        != ExtractionSettings(voices=VoiceSettings(overlaps=OverlapSettings(step=0.3))).digest()
    )
    assert len(ExtractionSettings().digest()) == 64


PLACES = (20, 30, 70), (140, 30, 70)


@pytest.fixture(scope="module")
def dialogue(tmp_path_factory):
    """Two drawn faces; the left one's mouth moves with the first two seconds of sound, the right one's with nothing."""
    path = tmp_path_factory.mktemp("films") / "dialogue.mp4"
    syllables = np.random.default_rng(0).integers(0, 2, 12)
    beats = np.concatenate([np.repeat(syllables, 5), np.zeros(30, int), np.repeat(syllables, 5)])  # 25 a second
    pictures = []
    for number, beat in enumerate(beats):
        picture = np.full((144, 240, 3), 60, np.uint8)
        draw_face(picture, *PLACES[0], opening=beat * (number % 3) / 2 * (number < 60))
        draw_face(picture, *PLACES[1])
        pictures.append(picture)
    loud = np.repeat(np.where(np.isin(np.arange(150), range(60, 90)), 0, 0.3 * beats + 0.03), SAMPLE_RATE // 25)
    write_film(path, pictures, 25, (loud * np.sin(np.arange(len(loud)) * 0.2)).astype(np.float32))
    return path


def test_who_speaks_and_who_is_off_screen_is_judged_for_every_turn(dialogue):
    found = Extractor(FixedFaces(*PLACES), LoudnessDetector(), None, None).extract(dialogue)
    assert len(found.faces) == 2 and len(found.turns) == len(found.speaking) == 2
    assert found.speaking[0].track == 0 and found.speaking[0].probability > 0.5
    assert found.speaking[1].off_screen > 0.9


def test_faces_are_looked_for_in_no_other_pictures_because_mouths_are_watched(dialogue, monkeypatch):
    watching, blind = FixedFaces(*PLACES), FixedFaces(*PLACES)
    one = Extractor(watching, LoudnessDetector(), None, None).extract(dialogue)
    monkeypatch.setattr("ingest.pipeline.Passing", lambda: None)
    other = Extractor(blind, LoudnessDetector(), None, None).extract(dialogue)
    assert watching.looked == blind.looked == 30
    assert [(track.span, track.seen) for track in one.faces] == [(track.span, track.seen) for track in other.faces]
    assert {judged.probability for judged in other.speaking} != {judged.probability for judged in one.speaking}


@pytest.mark.parametrize("fps", [5.0, 12.5, 24.0, 25.0, 29.97, 60.0])
def test_of_more_pictures_those_are_looked_at_that_would_be_read_alone(tmp_path, fps):
    write_film(tmp_path / "film.mp4", [np.zeros((32, 32, 3), np.uint8)] * round(2.5 * fps), fps, None)
    alone = [time for time, _ in read_frames(tmp_path / "film.mp4", 5.0)]
    assert [time for time, _ in every(read_frames(tmp_path / "film.mp4", 25.0), 5.0)] == alone


def test_a_film_that_shows_nobody_has_its_speech_off_screen(extractor, tmp_path):
    write_film(tmp_path / "dark.mp4", [np.zeros((120, 160, 3), np.uint8)] * 25, 25, tone(1.0))
    assert extractor.extract(tmp_path / "dark.mp4").speaking == (Speaking(None, 0.0, 1.0),)


def test_who_speaks_is_not_judged_where_there_is_nothing_to_see(extractor, tmp_path):
    write_flac(tmp_path / "sound.flac", tone(1.0))
    assert extractor.extract(tmp_path / "sound.flac").speaking == ()


# -- with the real networks -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_extractor():
    folders = packaged_encoders()
    return Extractor(
        load_face_detector(),
        load_speech_detector(),
        Encoder.load(folders["face_identity"]),
        Encoder.load(folders["voice_identity"]),
        ExtractionSettings(faces=FaceSettings(fps=2.0)),
    )


def test_a_real_talking_clip_has_one_face_and_one_speaker(shared_media, real_extractor):
    found = real_extractor.extract(shared_media / "av/vox2_pcavs/id05176/517600055.mp4")
    assert len(found.faces) == 1
    assert {turn.speaker for turn in found.turns} == {0}
    assert found.warnings == ()


def test_a_real_film_without_sound_gives_its_face(shared_media, real_extractor):
    found = real_extractor.extract(shared_media / "edge/no_audio_stream/x/mouth_source.mp4")
    assert (len(found.faces), found.turns, found.warnings) == (1, (), ())


def test_a_real_film_of_silence_has_no_turn(shared_media, real_extractor):
    found = real_extractor.extract(shared_media / "edge/silent_audio/x/s32.mp4")
    assert (len(found.faces), found.turns) == (1, ())


def test_a_real_photo_of_two_people_has_two_faces(shared_media, real_extractor):
    found = real_extractor.extract(shared_media / "edge/many_faces/x/two_people.jpg")
    assert len(found.faces) == 2
    assert found.faces[0].area >= found.faces[1].area


@pytest.mark.long
def test_every_real_talking_clip_has_a_face_and_speech(shared_media, real_extractor):
    paths = [path for path in sorted((shared_media / "av").rglob("*")) if path.suffix in (".mp4", ".mpg")]
    for path in paths:
        found = real_extractor.extract(path)
        assert found.faces and found.turns and not found.warnings, path
