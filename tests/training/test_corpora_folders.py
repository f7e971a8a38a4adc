"""Any folder of people: whom they are for, what they are called, what is there twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.training.corpus_trees import make, write_lists_p
from training.corpora import CorpusError, Manifest, NobodyForSplit, Sample, Source, Split, read_corpus
from training.corpora.manifest import canonical_name, split_of_name


def person(folder: str, *videos: str) -> list[str]:
    return [f"{folder}/{video}{name}" for video in (videos or ("",)) for name in ("photo.jpg", "voice.wav")]


def read(root: Path, split: Split = Split.TRAIN, **options) -> Manifest:
    return read_corpus("folder", Source(root, **{"least_people": 1} | options), split)


def test_sorted_people_are_for_what_their_folder_says(tmp_path) -> None:
    make(tmp_path, [*person("train/Ada Bel"), *person("validation/Cid"), *person("test/Dora", "march/", "may/")])
    assert [read(tmp_path, split).identities for split in Split] == [("Ada_Bel",), ("Cid",), ("Dora",)]
    assert {one.video for one in read(tmp_path, Split.TEST).samples} == {"march", "may"}
    assert {one.sex for one in read(tmp_path).samples} == {""}


def test_somebody_in_two_sorted_folders_is_refused(tmp_path) -> None:
    make(tmp_path, [*person("train/Ada_Bel"), *person("test/Ada Bel")])
    with pytest.raises(CorpusError, match="Ada_Bel is in test and in train: keep one"):
        read(tmp_path)


def test_without_a_word_a_hash_of_the_name_decides_and_nobody_changes_sides(tmp_path) -> None:
    counts = Counter(split_of_name(f"Person_{number}") for number in range(2000))
    assert 150 < counts[Split.TEST] < 250 and 150 < counts[Split.VALIDATION] < 250
    tested = next(f"Person_{number}" for number in range(99) if split_of_name(f"Person_{number}") is Split.TEST)
    make(tmp_path, person(tested))
    assert read(tmp_path, Split.TEST).identities == (tested,)
    with pytest.raises(NobodyForSplit, match="nobody of 1 people is for TRAIN: sort them into folders"):
        read(tmp_path)


def test_a_list_of_splits_decides_and_must_name_everybody(tmp_path) -> None:
    make(tmp_path, [*person("Ada"), *person("Cid")])
    (tmp_path / "Splits").mkdir()
    (tmp_path / "Splits/identity_splits.txt").write_text("Ada 1\nCid 4\n")
    assert read(tmp_path).identities == ("Ada",) and read(tmp_path, Split.TEST).identities == ("Cid",)
    make(tmp_path, person("Eve"))
    with pytest.raises(CorpusError, match="does not say whom Eve is for"):
        read(tmp_path)


def test_a_meta_file_joins_the_folders_of_one_person(tmp_path) -> None:
    write_lists_p(tmp_path)
    for number, name in (("id10001", "A.J._Buckley"), ("id10002", "A.R._Rahman")):
        make(tmp_path, [f"{number}/talk/voice.wav", f"{name}/photo.jpg"])
    manifest = read(tmp_path)
    assert manifest.identities == ("A.J._Buckley",)
    assert {(one.path, one.sex, one.nationality) for one in manifest.samples} == {
        ("A.J._Buckley/photo.jpg", "m", "Ireland"),
        ("id10001/talk/voice.wav", "m", "Ireland"),
    }


def test_one_content_for_two_people_is_noticed(tmp_path) -> None:
    make(tmp_path, [*person("train/Ada"), *person("train/Cid")])
    assert read(tmp_path).notes == ()
    (tmp_path / "train/Cid/photo.jpg").write_bytes((tmp_path / "train/Ada/photo.jpg").read_bytes())
    assert read(tmp_path).notes == (
        "1 files are there for two people with one content, such as train/Ada/photo.jpg and train/Cid/photo.jpg",
    )


def test_people_without_voice_are_left_out_within_the_allowed_share(tmp_path) -> None:
    make(tmp_path, [*person("train/Ada"), "train/Cid/photo.jpg", "train/Cid/.hidden.wav"])
    with pytest.raises(CorpusError, match=r"1 of 2 people of split TRAIN are not there \(Cid has no voice"):
        read(tmp_path)
    assert read(tmp_path, most_missing=0.5).identities == ("Ada",)


def test_a_folder_that_is_called_like_a_sound_is_none(tmp_path) -> None:
    make(tmp_path, [*person("train/Ada"), "train/Ada/talk.wav/inner.jpg"])
    assert {one.path for one in read(tmp_path).samples if one.path.endswith("wav")} == {"train/Ada/voice.wav"}


def test_a_face_root_is_refused_for_a_folder_of_people(tmp_path) -> None:
    with pytest.raises(CorpusError, match="holds their faces too"):
        read(tmp_path, faces=tmp_path)


@pytest.mark.parametrize("name", ["Ada  Bel", " Ada Bel\t", "Ada_Bel"])
def test_an_identity_has_one_form(name) -> None:
    assert canonical_name(name) == "Ada_Bel"
    assert canonical_name("Zoe\u0301") == canonical_name("Zo\u00e9")


@pytest.mark.parametrize("wrong", [{"sex": "x"}, {"sex": "f", "start": 2.0, "end": 1.0}, {"sex": "f", "start": -1.0}])
def test_a_sample_that_cannot_be_is_refused(wrong) -> None:
    with pytest.raises(CorpusError, match=r"a\.wav: a s"):
        Sample("a.wav", "Ada", "voice", **wrong)
