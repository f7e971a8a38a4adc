"""MAV-Celeb: languages, videos, names, and the anonymous test files beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.corpus_trees import make, make_mav_celeb
from training.corpora import CorpusError, Manifest, NobodyForSplit, Source, Split, read_corpus


@pytest.fixture
def root(tmp_path) -> Path:
    """Three people, one of each split but two for training."""
    make_mav_celeb(tmp_path / "v2", 4)
    (tmp_path / "v2/Splits").mkdir()
    (tmp_path / "v2/Splits/identity_splits.txt").write_text("id0001 1\nid0002 1\nid0003 2\nid0004 4\n")
    return tmp_path / "v2"


def name_people(root: Path, rows: str = "id0001,Anu Kapoor,Male\nid0002,Rani Mukerji,Female\n") -> None:
    (root / "v2_meta.csv").write_text(f"ids,name,gender\n{rows}")


def read(root: Path, split: Split = Split.TRAIN, **options) -> Manifest:
    return read_corpus("mav-celeb", Source(root, **options), split)


def test_voices_and_faces_have_language_and_video(root) -> None:
    manifest = read(root)
    assert manifest.domain == "MAV-Celeb" and len(manifest.samples) == 2 * 2 * 3
    assert {(one.language, one.video) for one in manifest.samples if "id0002" in one.path} == {
        ("English", "Envideo2"),
        ("Urdu", "Urvideo2"),
    }
    assert all(manifest.locate(one).is_file() for one in manifest.samples)


def test_an_id_alone_is_nobody_in_another_version(root, tmp_path) -> None:
    assert read(root).identities == ("MAV-Celeb_v2_id0001", "MAV-Celeb_v2_id0002")
    make_mav_celeb(tmp_path / "v3", 4)
    splits = root / "Splits"
    (tmp_path / "v3/Splits").symlink_to(splits)
    assert not set(read(tmp_path / "v3").identities) & set(read(root).identities)


def test_the_meta_file_gives_names_as_other_corpora_write_them_and_sexes(root) -> None:
    name_people(root)
    assert read(root).sexes == {"Anu_Kapoor": "m", "Rani_Mukerji": "f"}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("id0001,Anu Kapoor,Unknown\n", r"v2_meta\.csv, line 2: expected id, name and Male or Female"),
        ("id0001,A,Male\nid0001,B,Male\n", "line 3: id0001 is named a second time"),
    ],
)
def test_a_wrong_row_of_the_meta_file_is_named_by_its_line(root, rows, told) -> None:
    name_people(root, rows)
    with pytest.raises(CorpusError, match=told):
        read(root)


def test_files_outside_of_the_layout_such_as_anonymous_test_files_are_nobody_s(root) -> None:
    everybody = [one for split in Split for one in read(root, split, least_people=1).samples]
    assert len(everybody) == 4 * 2 * 3
    make(root, ["voices/id0001/loose.wav", "faces/id0001/English/loose.jpg", "voices/id0001/English/v/cover.jpg"])
    assert len(read(root).samples) == 2 * 2 * 3
    assert not [one for one in everybody if one.path in ("voices/English/00000.wav", "faces/English/00000.jpg")]


def test_somebody_of_no_split_or_of_two_is_refused(root) -> None:
    name_people(root)
    splits = root / "Splits/identity_splits.txt"
    splits.write_text("id0001 1\nid0002 1\nid0003 2\nid0004 4\nAnu_Kapoor 4\n")
    with pytest.raises(CorpusError, match=r"id0001 \(Anu_Kapoor\) is in two splits"):
        read(root)
    splits.write_text("id0001 1\nid0002 1\nid0003 2\n")
    with pytest.raises(CorpusError, match=r"id0004 .* is in no split"):
        read(root)


def test_a_root_without_voices_or_a_split_without_people_is_told(root, tmp_path) -> None:
    with pytest.raises(CorpusError, match="voices is missing: the root of MAV-Celeb holds"):
        read(tmp_path)
    (root / "Splits/identity_splits.txt").write_text("".join(f"id000{number} 1\n" for number in range(1, 5)))
    with pytest.raises(NobodyForSplit, match="nobody of 4 people is for TEST"):
        read(root, Split.TEST)
