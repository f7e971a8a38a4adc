"""What a file is, told from its bytes; photos."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from ingest.content import MediaError, Problems, describe, is_photo, photo_size, read_head, read_photo
from ingest.limits import MediaLimits, reading_within


@pytest.fixture
def picture():
    random = np.random.default_rng(0)
    return (random.random((40, 60, 3)) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"PK\x03\x04rest", "ZIP"),
        (b"%PDF-1.7", "PDF"),
        (b"<html><body>", "web page"),
        ("Grüße\n".encode() * 1000, "text"),
        (b"\x7fELF\x02", "program"),
        (b"\x01\x02\xfe\xff" * 50, "unknown"),
    ],
)
def test_what_is_no_medium_is_described_by_what_it_looks_like(head, words):
    assert words in describe(head[:4096])


def test_an_empty_file_is_refused_as_empty(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(MediaError, match=r"empty\.mp4: is empty"):
        read_head(tmp_path / "empty.mp4")


def test_a_zeroed_file_is_refused_as_a_broken_copy(tmp_path):
    (tmp_path / "zeros.mp4").write_bytes(bytes(9000))
    with pytest.raises(MediaError, match="nothing but zeros"):
        read_head(tmp_path / "zeros.mp4")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(MediaError, match="no such file"):
        read_head(tmp_path / "absent.jpg")
    with pytest.raises(MediaError, match="is a folder"):
        read_head(tmp_path)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediaError, match="not a regular file"):
        read_head(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused_as_such(tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0)
    with pytest.raises(MediaError, match="permission"):
        read_head(tmp_path / "secret")


def test_a_permission_error_is_translated(tmp_path, monkeypatch):
    (tmp_path / "secret").write_bytes(b"x")

    def refuse(*_):
        raise PermissionError(13, "no")

    monkeypatch.setattr(type(tmp_path), "open", refuse)
    with pytest.raises(MediaError, match="give this user permission"):
        read_head(tmp_path / "secret")


@pytest.mark.parametrize("form", ["png", "bmp", "tiff", "ppm"])
def test_photos_without_loss_come_back_exactly(tmp_path, picture, form):
    path = tmp_path / "no_extension"
    Image.fromarray(picture).save(path, format=form)
    assert is_photo(read_head(path))
    assert (read_photo(path) == picture).all()


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_photos_with_loss_come_back_alike(tmp_path, picture, form):
    smooth = np.full_like(picture, 90)
    Image.fromarray(smooth).save(tmp_path / "photo", format=form)
    assert np.abs(read_photo(tmp_path / "photo").astype(int) - 90).max() <= 3


def test_text_that_begins_with_bm_is_no_photo():
    assert not is_photo(b"BMW is a maker of cars in Munich")


def test_a_photo_is_turned_as_its_orientation_says(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    assert (read_photo(tmp_path / "turned.png") == np.rot90(picture, -1)).all()
    assert photo_size(tmp_path / "turned.png") == (40, 60)


def test_transparency_is_shown_on_white(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_photo(tmp_path / "clear.png") == 255).all()


def test_a_palette_photo_gives_its_colours(tmp_path):
    Image.new("RGB", (4, 4), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert (read_photo(tmp_path / "p.png") == (10, 200, 30)).all()


def test_sixteen_bits_become_eight(tmp_path):
    grey = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    pixels = read_photo(tmp_path / "deep.png")
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels[:, :, 1] - grey / 257.0).max() <= 1


def test_a_grey_pgm_becomes_rgb(tmp_path):
    (tmp_path / "face.pgm").write_bytes(b"P5\n3 2\n255\n" + bytes([0, 50, 100, 150, 200, 250]))
    assert read_photo(tmp_path / "face.pgm")[1, 2].tolist() == [250, 250, 250]


def test_of_a_truncated_photo_what_decodes_is_kept_with_a_warning(tmp_path, picture):
    Image.fromarray(picture).resize((600, 400)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    warnings: list[str] = []
    assert read_photo(tmp_path / "half.jpg", warnings).shape == (400, 600, 3)
    assert "cut off" in warnings[0]


def test_a_photo_of_which_nothing_decodes_is_refused(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"garbage" * 30)
    with pytest.raises(MediaError, match="nothing of it decodes"):
        read_photo(tmp_path / "bad.png")


def test_a_photo_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "large.png")
    with reading_within(MediaLimits(picture_pixels=40 * 60 - 1)), pytest.raises(MediaError, match="60 x 40 pixels"):
        read_photo(tmp_path / "large.png")


def test_streams_that_cannot_be_read_are_told_beside_what_is_damaged(tmp_path):
    problems = Problems(tmp_path / "a.mp4", cut_short=False, unread=["its sound cannot be read"], frames=3)
    problems.broken_packets = 2
    warnings: list[str] = []
    problems.report("pictures", warnings, reached=1.0, expected=1.0)
    assert warnings[0] == "its sound cannot be read" and "2 pieces of the pictures" in warnings[1]


def test_a_decompression_bomb_is_refused(tmp_path):
    header = b"P6\n60000 60000\n255\n"
    (tmp_path / "bomb.ppm").write_bytes(header + bytes(100))
    with pytest.raises(MediaError, match=r"bomb\.ppm"):
        read_photo(tmp_path / "bomb.ppm")
