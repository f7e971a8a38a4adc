"""One file, one sample: as the evidence keeps it, or a reason why not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from encoders.face import DetectedFace
from encoders.voice import SAMPLE_RATE
from ingest.media import MediaError, write_film, write_flac
from ingest.samples import NoSample, read_face, read_voice
from search.evidence import Evidence

THIRDS = np.float32([[1 / 3, 2 / 3], [3, 1], [2, 3], [4, 5], [0.005, 7]])


class BrightSquares:
    """Finds every bright square of a dark picture; its landmarks lie between pixels."""

    def detect(self, picture, *, smallest=30):
        _, _, boxes, _ = cv2.connectedComponentsWithStats((picture.mean(axis=2) > 128).astype(np.uint8))
        return [
            DetectedFace((x, y, x + width, y + height), 2.0, THIRDS + np.float32([x, y]))
            for x, y, width, height, _area in boxes[1:].tolist()
        ]


def photo(path: Path, *squares: tuple[int, int, int]) -> Path:
    """A dark photo with bright squares (left, top, side)."""
    pixels = np.full((200, 300, 3), 20, np.uint8)
    for left, top, side in squares:
        pixels[top : top + side, left : left + side] = 220
    Image.fromarray(pixels).save(path)
    return path


def sound(seconds: float) -> np.ndarray:
    return (0.4 * np.sin(np.arange(round(seconds * SAMPLE_RATE)) * 0.2)).astype(np.float32)


def test_the_largest_face_of_a_photo_is_the_sample(tmp_path):
    crop = read_face(photo(tmp_path / "two.png", (10, 10, 30), (150, 60, 80)), BrightSquares())
    assert crop.pixels.shape[0] >= 2 * 80 and crop.pixels.dtype == np.uint8
    assert (crop.pixels[crop.pixels.shape[0] // 2, crop.pixels.shape[1] // 2] == 220).all()


def test_a_face_is_what_the_evidence_would_give_back(tmp_path):
    crop = read_face(photo(tmp_path / "one.png", (100, 60, 80)), BrightSquares())
    evidence = Evidence(tmp_path / "evidence")
    kept = evidence.face(evidence.put_face(crop))
    assert np.array_equal(kept.pixels, crop.pixels) and np.array_equal(kept.landmarks, crop.landmarks)


def test_a_photo_without_a_face_is_no_sample(tmp_path):
    with pytest.raises(NoSample, match=r"empty\.png: shows no face"):
        read_face(photo(tmp_path / "empty.png"), BrightSquares())


def test_what_is_no_photo_is_refused(tmp_path):
    (tmp_path / "text.jpg").write_text("no photo")
    with pytest.raises(MediaError, match="photo"):
        read_face(tmp_path / "text.jpg", BrightSquares())


class Stumbling:
    """A detector that breaks on the content of a picture."""

    def detect(self, picture, *, smallest=30):
        raise cv2.error("unforeseen")


def test_what_breaks_on_the_content_of_a_file_is_the_file_s_refusal(tmp_path):
    with pytest.raises(MediaError, match=r"odd\.png: cannot be processed .*unforeseen"):
        read_face(photo(tmp_path / "odd.png"), Stumbling())


def test_a_voice_is_the_whole_sound_as_the_evidence_would_give_it_back(tmp_path):
    write_flac(tmp_path / "voice.flac", sound(1.5))
    waveform = read_voice(tmp_path / "voice.flac")
    evidence = Evidence(tmp_path / "evidence")
    assert waveform.shape == (round(1.5 * SAMPLE_RATE),) and waveform.dtype == np.float32
    assert np.array_equal(evidence.voice(evidence.put_voice(waveform)), waveform)


def test_the_sound_of_a_film_is_in_steps_of_16_bits_too(tmp_path):
    write_film(tmp_path / "film.mp4", [np.full((32, 32, 3), 90, np.uint8)] * 25, 25, sound(1.0))
    waveform = read_voice(tmp_path / "film.mp4")
    assert np.array_equal(waveform * 32768, np.round(waveform * 32768)) and np.abs(waveform).max() > 0.2


def test_a_photo_has_no_voice_and_a_missing_file_nothing(tmp_path):
    with pytest.raises(MediaError):
        read_voice(photo(tmp_path / "one.png", (100, 60, 80)))
    with pytest.raises(MediaError, match="no such file"):
        read_voice(tmp_path / "missing.flac")
