"""A manifest of one's own: every wrong row is named by its line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ingest.track import Span
from tests.training.corpus_trees import make, write_lists_p
from training.corpora import CorpusError, Manifest, NobodyForSplit, Source, Split, media_digest, read_corpus

HEADER = "path,person,modality,split,sex,video,start,end\n"
ROWS = (
    "a/1.jpg,Ada Bel,face,train,f,,,\n"
    "talk.wav,Ada Bel,voice,train,,talk,0.01,0.03\n"
    "talk.wav,Cid,voice,train,m,talk,0.03,\n"
    '"c, 2.jpg",Cid,face,train,m,,,\n'
    "d.jpg,Dora,face,test,,,,\n"
    "d.wav,Dora,voice,test,,,,\n"
)


@pytest.fixture
def root(tmp_path) -> Path:
    make(tmp_path, ["a/1.jpg", "talk.wav", "c, 2.jpg", "d.jpg", "d.wav"])
    return write(tmp_path, ROWS)


def write(root: Path, rows: str, header: str = HEADER) -> Path:
    (root / "manifest.csv").write_text(header + rows)
    return root


def read(root: Path, split: Split = Split.TRAIN, **options) -> Manifest:
    return read_corpus("csv", Source(root, **{"least_people": 1} | options), split)


def test_rows_become_samples(root) -> None:
    manifest = read(root)
    assert [one.path for one in manifest.samples] == ["a/1.jpg", "c, 2.jpg", "talk.wav", "talk.wav"]
    assert manifest.sexes == {"Ada_Bel": "f", "Cid": "m"} and manifest.name == root.name
    assert all(manifest.locate(one).is_file() for one in manifest.samples)
    assert read(root, Split.TEST).sexes == {"Dora": ""}


def test_two_stretches_of_one_sound_may_be_of_two_people(root) -> None:
    first, second = (one for one in read(root).samples if one.path == "talk.wav")
    assert (first.identity, first.span) == ("Ada_Bel", Span(0.01, 0.03))
    assert (second.identity, second.span) == ("Cid", Span(0.03, math.inf))
    moved = write(root, ROWS.replace("0.01,0.03", "0.02,0.03"))
    assert media_digest(read(moved)) != media_digest(read(write(root, ROWS)))


def test_the_root_may_be_the_file_itself(root) -> None:
    (root / "manifest.csv").rename(root / "mine.csv")
    manifest = read(root / "mine.csv")
    assert manifest.name == "mine" and manifest.media == root


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("x.jpg,Ada Bel,face,test,,,,", "line 8: Ada_Bel is in test, and in train in line 2: a person is on one side"),
        ("x.jpg,Ada Bel,face,train,m,,,", "line 8: Ada_Bel is m, but f in line 2"),
        ("a/1.jpg,Ada Bel,face,train,,,,", "line 8: a/1.jpg is named a second time, see line 2"),
        ("a/1.jpg,Cid,face,train,,,,", "line 8: a/1.jpg is of Ada_Bel too, see line 2"),
        ("/x.jpg,Eve,face,train,,,,", "line 8: a path is relative and stays beside the manifest, got '/x.jpg'"),
        ("../x.jpg,Eve,face,train,,,,", "line 8: a path is relative"),
        ("x.jpg,,face,train,,,,", "line 8: the person is empty"),
        ("x.jpg,Eve,nose,train,,,,", "line 8: a modality is face or voice, got 'nose'"),
        ("x.jpg,Eve,face,dev,,,,", "line 8: a split is train, validation, test, got 'dev'"),
        ("x.jpg,Eve,face,train,female,,,", "line 8: x.jpg: a sex is f, m or empty, got 'female'"),
        ("x.jpg,Eve,face,train,,,1,2", "line 8: start and end belong to sounds"),
        ("x.wav,Eve,voice,train,,,1,one", "line 8: end is a number of seconds, got 'one'"),
        ("x.wav,Eve,voice,train,,,nan,", "line 8: start is a number of seconds, got 'nan'"),
        ("x.wav,Eve,voice,train,,,3,2", "line 8: x.wav: a sample ends after it begins, got 3.0 to 2.0 s"),
        ("x.wav,Eve,voice,train", "line 8: expected 8 cells"),
        ("x.wav,Eve,voice,train,,,,,", "line 8: expected 8 cells"),
        ('"x.wav,Eve,voice,train,,,,', "line 8: is no CSV"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_line(root, row, told) -> None:
    write(root, f"{ROWS}{row}\n")
    with pytest.raises(CorpusError) as refused:
        read(root)
    assert "manifest.csv, " + told in str(refused.value)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("path,person,modality\n", "lacks split"),
        ("path,person,modality,split,age\n", "has 'age'"),
        ("path,person,modality,split,path\n", "names a column twice"),
        ("", "lacks path"),
    ],
)
def test_a_wrong_header_is_refused(root, header, told) -> None:
    write(root, "", header)
    with pytest.raises(CorpusError, match=f"line 1: the header {told}"):
        read(root)


def test_files_that_are_not_there_are_counted_and_refused_beyond_a_share(root) -> None:
    (root / "c, 2.jpg").unlink()
    with pytest.raises(CorpusError, match=r"1 of 4 files of manifest\.csv are not there \(c, 2\.jpg\).*at most 5%"):
        read(root)
    allowed = read(root, most_missing=0.25)
    assert allowed.identities == ("Ada_Bel",)
    assert allowed.missing[1] == "Cid has no face in manifest.csv"


def test_ids_and_names_of_one_person_are_one_person(root) -> None:
    write_lists_p(root)
    rows = "a/1.jpg,A.J._Buckley,face,train\ntalk.wav,id10001,voice,{}\n"
    header = "path,person,modality,split\n"
    write(root, rows.format("train"), header)
    assert read(root).sexes == {"A.J._Buckley": "m"}
    write(root, rows.format("test"), header)
    with pytest.raises(CorpusError, match=r"line 3: A\.J\._Buckley is in test, and in train in line 2"):
        read(root)


def test_a_split_without_rows_a_missing_file_and_a_face_root_are_told(root, tmp_path_factory) -> None:
    with pytest.raises(NobodyForSplit, match=r"manifest\.csv has no row of split validation"):
        read(root, Split.VALIDATION)
    with pytest.raises(CorpusError, match=r"manifest\.csv cannot be read"):
        read(tmp_path_factory.mktemp("empty"))
    with pytest.raises(CorpusError, match="names its faces itself"):
        read(root, faces=root)
