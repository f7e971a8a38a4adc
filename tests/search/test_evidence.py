from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from encoders.face import FaceCrop
from ingest.samples import stored_face, stored_voice
from search.evidence import Evidence, EvidenceMissing, face_id, voice_id


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return Evidence(tmp_path)


def crop(seed: int = 0) -> FaceCrop:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    return FaceCrop(pixels, random.uniform(0, 30, (5, 2)).astype(np.float32))


def test_a_face_comes_back_bit_for_bit(evidence: Evidence) -> None:
    back = evidence.face(evidence.put_face(crop()))
    assert np.array_equal(back.pixels, crop().pixels)
    assert np.array_equal(back.landmarks, stored_face(crop()).landmarks)


def test_a_voice_comes_back_bit_for_bit(evidence: Evidence) -> None:
    sound = np.random.default_rng(1).uniform(-1, 1, 16_000).astype(np.float32)
    assert np.array_equal(evidence.voice(evidence.put_voice(sound)), stored_voice(sound))


def test_the_same_content_is_stored_once(evidence: Evidence, tmp_path: Path) -> None:
    assert evidence.put_face(crop()) == evidence.put_face(crop())
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_other_landmarks_are_other_evidence(evidence: Evidence) -> None:
    moved = FaceCrop(crop().pixels, crop().landmarks + 1)
    assert evidence.put_face(crop()) != evidence.put_face(moved)


def test_deleted_evidence_is_gone(evidence: Evidence) -> None:
    identity = evidence.put_face(crop())
    assert evidence.delete(identity) and not evidence.delete(identity)
    with pytest.raises(EvidenceMissing):
        evidence.face(identity)


@pytest.mark.parametrize("identity", ["../../etc/passwd", "", "0" * 63, "0" * 64])
def test_only_stored_ids_have_files(evidence: Evidence, identity: str) -> None:
    with pytest.raises(EvidenceMissing):
        evidence.file(identity)


def test_a_write_that_fails_leaves_nothing(evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match=r"No space left on device: make room there .*\.flac") as failed:
        evidence.put_voice(np.zeros(1600, np.float32))
    assert failed.value.errno == errno.ENOSPC
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_id_is_known_before_anything_is_written(evidence: Evidence) -> None:
    sound = np.random.default_rng(1).uniform(-1, 1, 1600).astype(np.float32)
    assert (face_id(crop()), voice_id(sound)) == (evidence.put_face(crop()), evidence.put_voice(sound))


def test_deleting_removes_what_was_left_half_written_and_half_removed(evidence: Evidence, tmp_path: Path) -> None:
    identity = evidence.put_face(crop())
    for left in (f".{identity}.gone.png", f".{identity}.0123.png"):
        evidence.file(identity).with_name(left).write_bytes(b"half")
    assert evidence.delete(identity) and not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_removal_that_stops_on_the_way_leaves_no_damaged_piece(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_path: Path) -> None:
        raise KeyboardInterrupt

    identity = evidence.put_face(crop())
    monkeypatch.setattr("search.evidence._overwrite", stop)
    with pytest.raises(KeyboardInterrupt):
        evidence.delete(identity)
    assert evidence.put_face(crop()) == identity
    assert np.array_equal(evidence.face(identity).pixels, crop().pixels)


def test_sweeping_removes_only_what_is_unknown_and_old(evidence: Evidence, tmp_path: Path) -> None:
    known, unknown, young = (evidence.put_face(crop(seed)) for seed in range(3))
    for identity in (known, unknown):
        os.utime(evidence.file(identity), (0, 0))
    assert evidence.sweep({known}) == 1
    assert evidence.file(known) and evidence.file(young)
    with pytest.raises(EvidenceMissing):
        evidence.file(unknown)


def test_damaged_evidence_is_missing_evidence(evidence: Evidence) -> None:
    identity = evidence.put_voice(np.zeros(1600, np.float32))
    evidence.file(identity).write_bytes(b"garbage")
    with pytest.raises(EvidenceMissing):
        evidence.voice(identity)


def test_evidence_that_is_stored_again_counts_as_young(evidence: Evidence) -> None:
    identity = evidence.put_face(crop())
    os.utime(evidence.file(identity), (0, 0))
    evidence.put_face(crop())
    assert evidence.sweep(set()) == 0
