"""Manifests: who may be learned from, and clear words about what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from encoders.space import Modality
from tests.conftest import SHARED
from training.corpora import CorpusError, Manifest, Sample, Split, media_digest, read_manifest

TRAINED = ("Abba_Aden_00000001", "Bera_Berg_00000002", "Cora_Cor_00000003")
CODES = dict.fromkeys(TRAINED, 1) | {"Dala_Val_00000004": 2, "Dala_Vol_00000005": 2, "Test_A_6": 4, "Test_B_7": 4}


def write_folder(folder: Path, codes: dict[str, int] = CODES, samples: int = 2) -> Path:
    """A population of empty files: only reading them needs content."""
    (folder / "Splits").mkdir(parents=True)
    (folder / "Splits" / "identity_splits.txt").write_text("".join(f"{name} {code}\n" for name, code in codes.items()))
    rows = [f"{name}\t{name}\t{'fm'[at % 2]}\tinvented\tdev\n" for at, name in enumerate(codes)]
    (folder / "meta.csv").write_text("VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n" + "".join(rows))
    (folder / "protocol.json").write_text(json.dumps({"name": "small", "domain": "invented people", "media": "media"}))
    for name in codes:
        (folder / "media" / name).mkdir(parents=True)
        for number in range(1, samples + 1):
            (folder / "media" / name / f"face_{number:02d}.jpg").touch()
            (folder / "media" / name / f"voice_{number:02d}.flac").touch()
    return folder


def test_a_manifest_lists_the_samples_of_its_split_only(tmp_path) -> None:
    manifest = read_manifest(write_folder(tmp_path))
    assert manifest.identities == TRAINED
    assert len(manifest.samples) == 12
    first, last = manifest.samples[0], manifest.samples[-1]
    assert first == Sample("Abba_Aden_00000001/face_01.jpg", TRAINED[0], Modality.FACE, "f")
    assert last == Sample("Cora_Cor_00000003/voice_02.flac", TRAINED[2], Modality.VOICE, "f")
    assert manifest.sexes == dict(zip(TRAINED, "fmf", strict=True))
    assert (manifest.name, manifest.domain, manifest.missing) == ("small", "invented people", ())


@pytest.mark.parametrize(("split", "people"), [(Split.TRAIN, 3), (Split.VALIDATION, 2), (Split.TEST, 2)])
def test_each_code_is_a_split(tmp_path, split, people) -> None:
    manifest = read_manifest(write_folder(tmp_path), split)
    assert {CODES[name] for name in manifest.identities} == {split.value}
    assert len(manifest.identities) == people


def test_somebody_who_is_tested_elsewhere_may_not_be_learned_from(tmp_path) -> None:
    folder = write_folder(tmp_path)
    with pytest.raises(CorpusError, match="1 people of split TRAIN are test people of a protocol, such as Bera_Berg"):
        read_manifest(folder, test={TRAINED[1], "Somebody_Else"})
    assert read_manifest(folder, Split.TEST, test={"Test_A_6"}).identities == ("Test_A_6", "Test_B_7")


def test_somebody_of_two_splits_is_refused_with_the_line(tmp_path) -> None:
    folder = write_folder(tmp_path)
    with (folder / "Splits" / "identity_splits.txt").open("a") as splits:
        splits.write(f"{TRAINED[0]} 4\n")
    with pytest.raises(CorpusError, match=f"line 8: {TRAINED[0]} is in TRAIN and in TEST"):
        read_manifest(folder)


@pytest.mark.parametrize("line", ["Somebody 3", "Somebody", "Some Body 1", "Somebody one"])
def test_a_line_that_is_no_code_is_refused_with_its_number(tmp_path, line) -> None:
    folder = write_folder(tmp_path)
    with (folder / "Splits" / "identity_splits.txt").open("a") as splits:
        splits.write(line)
    with pytest.raises(CorpusError, match=f"line 8: expected .* got '{line}'"):
        read_manifest(folder)


@pytest.mark.parametrize("lost", ["Splits/identity_splits.txt", "meta.csv"])
def test_a_missing_list_is_named(tmp_path, lost) -> None:
    folder = write_folder(tmp_path)
    (folder / lost).unlink()
    with pytest.raises(CorpusError, match=f"{lost} cannot be read"):
        read_manifest(folder)


def test_missing_media_folder_or_split_are_named(tmp_path) -> None:
    folder = write_folder(tmp_path / "here", dict.fromkeys(TRAINED, 1))
    with pytest.raises(CorpusError, match=r"lists nobody with code 2 \(VALIDATION\)"):
        read_manifest(folder, Split.VALIDATION)
    with pytest.raises(CorpusError, match="nowhere is missing: it should hold one folder"):
        read_manifest(folder, media=tmp_path / "nowhere")
    with pytest.raises(CorpusError, match="is no folder"):
        read_manifest(tmp_path / "gone")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_description_is_refused(tmp_path, text) -> None:
    folder = write_folder(tmp_path)
    (folder / "protocol.json").write_text(text)
    with pytest.raises(CorpusError, match=r"protocol\.json"):
        read_manifest(folder)


def test_a_row_without_sex_is_refused_with_its_number(tmp_path) -> None:
    folder = write_folder(tmp_path)
    with (folder / "meta.csv").open("a") as meta:
        meta.write("id\tSomebody\tx\tnowhere\tdev\n")
    with pytest.raises(CorpusError, match=r"meta\.csv, line 9: expected tab-separated ids and f or m"):
        read_manifest(folder)


def test_people_without_a_voice_or_a_row_are_left_out_and_named(tmp_path) -> None:
    folder = write_folder(tmp_path, CODES | {"Silent_Person_8": 1, "Nobody_9": 1})
    for path in (folder / "media" / "Silent_Person_8").glob("*.flac"):
        path.unlink()
    rows = (folder / "meta.csv").read_text().splitlines(keepends=True)
    (folder / "meta.csv").write_text("".join(row for row in rows if "Nobody" not in row))
    manifest = read_manifest(folder)
    assert manifest.identities == TRAINED
    assert len(manifest.missing) == 2
    assert manifest.missing[0] == "Nobody_9 has no row in meta.csv"
    assert manifest.missing[1].startswith("Silent_Person_8 has no voice in ")


def test_a_folder_without_two_people_says_what_is_missing(tmp_path) -> None:
    folder = write_folder(tmp_path, samples=0)
    with pytest.raises(CorpusError, match=r"of 0 people of split TRAIN, .*Abba_Aden_00000001 has no face and no voice"):
        read_manifest(folder)


def test_a_manifest_with_a_person_without_voice_cannot_be_made(tmp_path) -> None:
    samples = tuple(Sample(f"{name}/face.jpg", name, Modality.FACE, "f") for name in TRAINED)
    with pytest.raises(CorpusError, match="has no face or no voice"):
        Manifest("small", "invented people", tmp_path, Split.TRAIN, samples)


def test_other_files_in_a_person_s_folder_are_no_samples(tmp_path) -> None:
    folder = write_folder(tmp_path)
    (folder / "media" / TRAINED[0] / "notes.txt").touch()
    assert len(read_manifest(folder).samples) == 12


def test_the_digest_follows_rows_and_files_but_not_the_place(tmp_path) -> None:
    one, other = (read_manifest(write_folder(tmp_path / name)) for name in ("one", "other"))
    assert media_digest(one) == media_digest(other)
    assert media_digest(one) != media_digest(read_manifest(tmp_path / "one", Split.VALIDATION))
    (other.media / other.samples[3].path).write_bytes(b"changed")
    assert media_digest(one) != media_digest(other)
    before = media_digest(other)
    (other.media / other.samples[3].path).unlink()
    assert media_digest(other) != before


@pytest.mark.parametrize(
    "row", [f"1,1,1,1,{TRAINED[0]}/voice_01.flac,{TRAINED[0]}/face_02.jpg", f"{TRAINED[0]}/voice_01.flac x/face_01.jpg"]
)
def test_clips_that_a_seen_heard_list_keeps_for_testing_are_not_learned_from(tmp_path, row) -> None:
    folder = write_folder(tmp_path)
    (folder / "veriflist").mkdir()
    (folder / "veriflist" / "veriflist_test_G_seenheard.txt").write_text(f"id,label\n{row}\n")
    paths = {one.path for one in read_manifest(folder).samples}
    assert f"{TRAINED[0]}/voice_01.flac" not in paths and f"{TRAINED[0]}/voice_02.flac" in paths
    assert (f"{TRAINED[0]}/face_02.jpg" in paths) == (f"{TRAINED[0]}/face_02.jpg" not in row)


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def published(folder: Path) -> Path:
    """The published lists, if they are here, with media of three training people in the published layout."""
    lists = SHARED / "data" / "protocol"
    if not lists.is_dir():
        pytest.skip("the published lists are not beside this checkout")
    for name in ("Splits", "veriflist", "matching", "retrieval", "vox1_meta.csv"):
        (folder / name).symlink_to(lists / name)
    for number, name in (("id10001", "A.J._Buckley"), ("id10006", "Abbie_Cornish"), ("id10008", "Abigail_Spencer")):
        for path in (f"{number}/other_video/00001.wav", f"{name}/1.6/other_video/0001500.jpg"):
            touch(folder / "media" / path)
    return folder


def test_the_published_lists_and_layout_are_read(tmp_path) -> None:
    manifest = read_manifest(published(tmp_path))
    assert set(manifest.identities) == {"A.J._Buckley", "Abbie_Cornish", "Abigail_Spencer"}
    assert manifest.sexes["Abbie_Cornish"] == "f"
    assert len(manifest.missing) == 901 - 3


def test_seen_heard_clips_of_training_people_stay_out_of_training(tmp_path) -> None:
    folder = published(tmp_path)
    kept = ("id10001/Y8hIVOBuels/00001.wav", "A.J._Buckley/1.6/Y8hIVOBuels/0006000.jpg")
    for name in kept:  # the first row of the first seen-heard list
        touch(folder / "media" / name)
    paths = {one.path for one in read_manifest(folder).samples}
    assert not paths & set(kept)
    assert "id10001/other_video/00001.wav" in paths
