"""Prepared samples: what serving would see, kept, resumed, and not stopped by bad files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from encoders.backbones.small_face import SmallFacePreparation, prepare_chip
from encoders.backbones.small_voice import SmallVoicePreparation, prepare_mel
from encoders.face import load_face_detector
from encoders.space import Modality
from ingest.samples import read_face, read_voice
from training import prepared as module
from training.corpora import Manifest, Sample, Split
from training.population.faces import draw_view, render_face
from training.population.folder import write_photo, write_wav
from training.population.people import invent_people
from training.prepared import Prepared, prepare, prepared_digest
from training.reading import FileReader, Preparation, PreparationError

SIDE, BANDS = 16, 4
SMALL = Preparation(SmallFacePreparation(side=SIDE), SmallVoicePreparation(bands=BANDS))


class NumberReader:
    """Reads files that hold a number n: a chip of n, or n frames of n. Bad files come in all kinds."""

    reads: list[str] = []  # noqa: RUF012 - of this process

    def __init__(self, preparation: Preparation) -> None:
        self.preparation = preparation

    def face(self, path: Path) -> np.ndarray | str:
        number = self._number(path)
        return number if isinstance(number, str) else np.full((SIDE, SIDE, 3), number, dtype=np.uint8)

    def voice(self, path: Path) -> np.ndarray | str:
        number = self._number(path)
        return number if isinstance(number, str) else np.full((number, BANDS), number, dtype=np.float16)

    def _number(self, path: Path) -> int | str:
        self.reads.append(path.name)
        text = path.read_text()
        if text == "deadly":
            os._exit(7)
        if text == "interrupt":
            raise KeyboardInterrupt
        return int(text) if text != "nobody" else "shows nobody"


def write_numbers(media: Path, people: int = 5, samples: int = 3) -> Manifest:
    """Sample s of person p holds the number 10 p + s; each person has as many faces as voices."""
    rows = []
    for person in range(people):
        name = f"Person_{person}"
        (media / name).mkdir(parents=True, exist_ok=True)
        for modality in Modality:
            for sample in range(1, samples + 1):
                path = f"{name}/{modality}_{sample}"
                (media / path).write_text(str(10 * person + sample))
                rows.append(Sample(path, name, modality, "fm"[person % 2]))
    return Manifest("numbers", "invented people", media, Split.TRAIN, tuple(sorted(rows)))


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    return write_numbers(tmp_path / "media")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(module, "SHARD_SAMPLES", 4)
    NumberReader.reads.clear()


def quickly(manifest: Manifest, cache: Path, **options) -> Prepared:
    return prepare(manifest, cache, SMALL, **{"workers": 0, "make_reader": NumberReader} | options)


def numbers_of(prepared: Prepared) -> tuple[list[int], list[int]]:
    """What every face and every voice holds; a voice's length is its number."""
    voices = np.split(prepared.mels, prepared.offsets[1:-1])
    assert all(len(voice) == voice[0, 0] and (voice == voice[0, 0]).all() for voice in voices)
    return prepared.faces[:, 0, 0, 0].tolist(), [len(voice) for voice in voices]


def test_every_sample_is_there_in_the_order_of_the_manifest(manifest, tmp_path) -> None:
    prepared = quickly(manifest, tmp_path / "cache")
    expected = [10 * person + sample for person in range(5) for sample in (1, 2, 3)]
    assert numbers_of(prepared) == (expected, expected)
    assert prepared.identities == tuple(f"Person_{person}" for person in range(5))
    assert prepared.sexes == ("f", "m", "f", "m", "f")
    assert prepared.face_people.tolist() == prepared.voice_people.tolist() == [place // 3 for place in range(15)]
    assert prepared.face_paths[4] == "Person_1/face_2" and prepared.voice_paths[4] == "Person_1/voice_2"
    assert prepared.failures == ()
    assert prepared.digest == prepared_digest(manifest, SMALL)


def test_worker_processes_prepare_the_same_as_this_one(manifest, tmp_path) -> None:
    one, other = quickly(manifest, tmp_path / "one"), quickly(manifest, tmp_path / "two", workers=2)
    assert np.array_equal(one.faces, other.faces) and np.array_equal(one.mels, other.mels)
    assert np.array_equal(one.offsets, other.offsets) and one.voice_paths == other.voice_paths
    assert len(NumberReader.reads) == 30  # by this process, for the first of them


def test_the_second_time_nothing_is_read(manifest, tmp_path) -> None:
    first = quickly(manifest, tmp_path)
    NumberReader.reads.clear()
    told = []
    second = quickly(manifest, tmp_path, on_progress=lambda *numbers: told.append(numbers))
    assert NumberReader.reads == [] and told == [(30, 30, 0)]
    assert np.array_equal(first.mels, second.mels) and first.face_paths == second.face_paths


def test_an_interrupted_preparation_goes_on_where_it_stopped(manifest, tmp_path) -> None:
    at = manifest.media / manifest.samples[17].path
    before = at.read_text()
    at.write_text("interrupt")
    changed = prepared_digest(manifest, SMALL)
    with pytest.raises(KeyboardInterrupt):
        quickly(manifest, tmp_path)
    at.write_text(before.rjust(len("interrupt")))  # of one length, so that it is the same corpus
    assert prepared_digest(manifest, SMALL) == changed
    NumberReader.reads.clear()
    told = []
    prepared = quickly(manifest, tmp_path, on_progress=lambda *numbers: told.append(numbers))
    assert told[0] == (16, 30, 0) and len(NumberReader.reads) == 14
    assert numbers_of(prepared) == numbers_of(quickly(manifest, tmp_path / "afresh"))


def test_a_damaged_shard_is_read_again(manifest, tmp_path) -> None:
    whole = quickly(manifest, tmp_path)
    shard = sorted(tmp_path.rglob("*.safetensors"))[2]
    shard.write_bytes(shard.read_bytes()[:-1])
    NumberReader.reads.clear()
    again = quickly(manifest, tmp_path)
    assert len(NumberReader.reads) == 4
    assert np.array_equal(whole.mels, again.mels)


def test_bad_files_are_listed_with_their_reason_and_stop_nothing(manifest, tmp_path) -> None:
    (manifest.media / "Person_1/face_2").write_text("nobody")
    (manifest.media / "Person_3/voice_1").write_text("no number")
    (manifest.media / "Person_4/voice_3").unlink()
    told = []
    prepared = quickly(manifest, tmp_path / "cache", on_progress=lambda *numbers: told.append(numbers))
    reasons = {failure.path: failure.reason for failure in prepared.failures}
    assert reasons.keys() == {"Person_1/face_2", "Person_3/voice_1", "Person_4/voice_3"}
    assert reasons["Person_1/face_2"] == "shows nobody"
    assert "ValueError: invalid literal" in reasons["Person_3/voice_1"]
    assert "FileNotFoundError" in reasons["Person_4/voice_3"]
    faces, voices = numbers_of(prepared)
    assert 12 not in faces and 31 not in voices and 43 not in voices
    assert len(faces) == 14 and len(voices) == 13
    assert told[0] == (0, 30, 0) and told[-1] == (30, 30, 3)
    assert [done for done, _, _ in told] == [0, *range(4, 30, 4), 30]
    assert quickly(manifest, tmp_path / "cache").failures == prepared.failures


@pytest.mark.long
def test_a_file_that_kills_its_reader_is_left_out(manifest, tmp_path) -> None:
    (manifest.media / "Person_2/voice_2").write_text("deadly")
    prepared = quickly(manifest, tmp_path / "cache", workers=1)
    (failure,) = prepared.failures
    assert failure.path == "Person_2/voice_2" and "kills the process that reads it" in failure.reason
    assert len(prepared.faces) == 15 and len(prepared.voice_people) == 14
    assert 22 not in numbers_of(prepared)[1]
    assert not list(tmp_path.rglob("*.reading")) and not list(tmp_path.rglob("*.partial"))


def make_nothing(preparation: Preparation) -> NumberReader:
    os._exit(3)


def test_processes_that_do_not_start_are_no_fault_of_a_file(manifest, tmp_path) -> None:
    with pytest.raises(PreparationError, match="do not start"):
        quickly(manifest, tmp_path, workers=1, make_reader=make_nothing)


@pytest.mark.parametrize("modality", list(Modality))
def test_a_person_with_one_usable_modality_is_left_out_and_listed(manifest, tmp_path, modality) -> None:
    for sample in (1, 2, 3):
        (manifest.media / f"Person_1/{modality}_{sample}").write_text("nobody")
    prepared = quickly(manifest, tmp_path / "cache")
    assert prepared.identities == ("Person_0", "Person_2", "Person_3", "Person_4")
    faces, voices = numbers_of(prepared)
    assert faces == voices == [10 * person + sample for person in (0, 2, 3, 4) for sample in (1, 2, 3)]
    assert prepared.face_people.tolist() == [place // 3 for place in range(12)]
    reasons = {failure.path: failure.reason for failure in prepared.failures}
    assert reasons[f"Person_1/{modality.other}_1"] == f"Person_1 has no usable {modality}" and len(reasons) == 6


def test_too_few_people_are_refused_with_an_example(tmp_path) -> None:
    manifest = write_numbers(tmp_path / "media", people=2)
    for path in (manifest.media / "Person_0").iterdir():
        path.write_text("nobody")
    with pytest.raises(PreparationError, match=r"1 people have .*6 of 12 samples.*Person_0/face_1: shows nobody"):
        quickly(manifest, tmp_path / "cache")


def test_other_samples_or_another_preparation_are_another_cache(manifest, tmp_path) -> None:
    fewer = replace(manifest, samples=manifest.samples[6:])
    sharper = replace(SMALL, face=SmallFacePreparation(side=SIDE, padding=0.2))
    digests = {
        prepared_digest(one, other)
        for one, other in ((manifest, SMALL), (fewer, SMALL), (manifest, sharper), (manifest, Preparation()))
    }
    assert len(digests) == 4
    assert len(quickly(fewer, tmp_path).faces) == 12 and len(quickly(manifest, tmp_path).faces) == 15


def test_a_reader_that_gives_another_shape_is_refused(manifest, tmp_path) -> None:
    wrong = replace(SMALL, face=SmallFacePreparation(side=32))
    with pytest.raises(ValueError, match="reshape"):
        prepare(manifest, tmp_path, wrong, workers=0, make_reader=NumberReader)


def test_a_shard_keeps_no_more_than_it_says(manifest, tmp_path) -> None:
    quickly(manifest, tmp_path)
    with safe_open(min(tmp_path.rglob("*.safetensors")), framework="numpy") as shard:
        assert set(shard.keys()) == {"faces", "mels", "lengths", "face_rows", "voice_rows"}
        assert shard.get_tensor("face_rows").tolist() == [0, 1, 2] and shard.get_tensor("lengths").tolist() == [1]


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Manifest:
    """Real photos and sounds of two invented people, and three files that hold neither."""
    folder, rows = tmp_path_factory.mktemp("media"), []
    for person in invent_people(2, 0):
        name = person.name.replace(" ", "_")
        (folder / name).mkdir()
        random = np.random.default_rng(person.seed)
        write_photo(folder / name / "face_01.jpg", render_face(person, draw_view(random), 160, seed=1))
        time = np.arange(16_000) / 16_000
        write_wav(folder / name / "voice_01.wav", (0.3 * np.sin(2 * np.pi * 300 * time)).astype(np.float32))
        rows += [(f"{name}/face_01.jpg", Modality.FACE), (f"{name}/voice_01.wav", Modality.VOICE)]
    write_photo(folder / name / "face_02.jpg", np.full((64, 64, 3), 90, dtype=np.uint8))
    (folder / name / "face_03.jpg").write_text("no photo")
    write_wav(folder / name / "voice_02.wav", np.zeros(16_000, dtype=np.float32))
    rows += [(f"{name}/face_0{number}.jpg", Modality.FACE) for number in (2, 3)]
    rows.append((f"{name}/voice_02.wav", Modality.VOICE))
    samples = tuple(sorted(Sample(path, path.split("/")[0], modality, "f") for path, modality in rows))
    return Manifest("media", "invented people", folder, Split.TRAIN, samples)


def test_prepared_samples_are_what_serving_would_see(media, tmp_path) -> None:
    prepared = prepare(media, tmp_path, workers=0)
    detector = load_face_detector()
    for chip, path in zip(prepared.faces, prepared.face_paths, strict=True):
        assert np.array_equal(chip, prepare_chip(read_face(media.media / path, detector), SmallFacePreparation()))
    for number, path in enumerate(prepared.voice_paths):
        kept = torch.from_numpy(prepared.mels[prepared.offsets[number] : prepared.offsets[number + 1]])
        served = prepare_mel(read_voice(media.media / path), SmallVoicePreparation())
        torch.testing.assert_close(kept.float(), served, atol=2e-3, rtol=0)


def test_files_without_face_or_sound_are_listed_in_the_words_of_serving(media, tmp_path) -> None:
    prepared = prepare(media, tmp_path, workers=0)
    reasons = [failure.reason for failure in prepared.failures]
    assert len(prepared.faces) == len(prepared.voice_people) == 2
    assert len(reasons) == 3
    assert "shows no face" in reasons[0] and "begins like" in reasons[1] and "dBFS" in reasons[2]


def test_the_file_reader_says_no_path_twice(media) -> None:
    reader = FileReader(Preparation())
    assert isinstance(reader.face(media.media / "gone.jpg"), str)
    assert "gone" not in reader.face(media.media / "gone.jpg")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"sexes": ("f",)}, "as many sexes"),
        ({"sexes": ("f", "x")}, "f or m"),
        ({"faces": np.zeros((2, 4, 4, 3), np.float32)}, "uint8"),
        ({"mels": np.zeros((5, 4), np.float32)}, "float16"),
        ({"face_people": np.array([0])}, "do not fit"),
        ({"offsets": np.array([0, 5, 5])}, "without empty voices"),
        ({"offsets": np.array([0, 2, 4])}, r"number of frames \(5\)"),
        ({"voice_people": np.array([0, 0])}, "needs a voice"),
        ({"face_people": np.array([1, 2])}, "needs a face"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(wrong, told) -> None:
    parts = {
        "identities": ("A", "B"),
        "sexes": ("f", "m"),
        "faces": np.zeros((2, 4, 4, 3), np.uint8),
        "face_people": np.array([0, 1]),
        "mels": np.zeros((5, 4), np.float16),
        "offsets": np.array([0, 2, 5]),
        "voice_people": np.array([1, 0]),
    }
    Prepared(**parts)
    with pytest.raises(ValueError, match=told):
        Prepared(**parts | wrong)
