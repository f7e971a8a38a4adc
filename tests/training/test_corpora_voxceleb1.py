"""VoxCeleb1 as distributed: both splits, what is kept for testing, what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from encoders.space import Modality
from tests.training.corpus_trees import make, make_stills, make_voxceleb1, write_lists_d, write_lists_p
from training.corpora import CorpusError, Manifest, Source, Split, read_corpus
from training.corpora.voxceleb1 import canonical_path


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Media, P's lists and D's lists in folders of their own."""
    folder = tmp_path_factory.mktemp("voxceleb1")
    make_voxceleb1(folder / "media")
    write_lists_p(folder / "p")
    write_lists_d(folder / "d")
    make_stills(folder / "stills")
    return folder


def read(made: Path, split: Split = Split.TRAIN, name: str = "voxceleb1", **changed) -> Manifest:
    lists = made / ("d" if name.endswith("-d") else "p")
    return read_corpus(name, Source(made / "media", **{"lists": lists} | changed), split)


def listed(manifest: Manifest) -> set[str]:
    return {one.known_as for one in manifest.samples}


@pytest.mark.parametrize(
    ("split", "people"),
    [
        (Split.TRAIN, ("A.J._Buckley", "Aaron_Tveit")),
        (Split.VALIDATION, ("Aaron_Yoo", "Abbie_Cornish")),
        (Split.TEST, ("A.R._Rahman", "Aamir_Khan")),
    ],
)
def test_p_has_its_people_from_the_dev_and_the_test_tree(made, split, people) -> None:
    manifest = read(made, split)
    assert manifest.identities == people and manifest.missing == () and manifest.notes == ()
    assert all(manifest.locate(one).is_file() for one in manifest.samples)


def test_a_sample_knows_its_video_its_person_and_its_published_name(made) -> None:
    (voice,) = [one for one in read(made, Split.TEST).samples if one.known_as == "id10003/onevideo/00002.wav"]
    assert voice.path == "vox1_test_wav/wav/id10003/onevideo/00002.wav"
    assert (voice.identity, voice.sex, voice.nationality, voice.video) == ("Aamir_Khan", "m", "India", "onevideo")
    face = read(made, Split.TEST).samples[0]
    assert face.path == "faces/A.R._Rahman/1.6/onevideo/0000025.jpg" and face.modality is Modality.FACE
    assert face.known_as == "A.R._Rahman/1.6/onevideo/0000025.jpg"


def test_clips_that_a_seen_heard_list_names_are_not_learned_from(made) -> None:
    names = listed(read(made))
    assert not names & {"id10001/seenvideo/00001.wav", "A.J._Buckley/1.6/seenvideo/0000025.jpg"}
    assert names >= {"id10001/seenvideo/00002.wav", "A.J._Buckley/1.6/seenvideo/0000050.jpg"}
    assert len(names) == 16 - 2


def test_without_the_seen_heard_lists_nothing_is_learned(made, tmp_path) -> None:
    shutil.copytree(made / "p", tmp_path / "p")
    shutil.rmtree(tmp_path / "p" / "veriflist")
    with pytest.raises(CorpusError, match="clips that are kept for testing would be learned from"):
        read(made, lists=tmp_path / "p")
    assert len(read(made, Split.VALIDATION, lists=tmp_path / "p").samples) == 8


def test_lists_may_lie_beside_the_media(tmp_path) -> None:
    write_lists_p(make_voxceleb1(tmp_path))
    assert read_corpus("voxceleb1", Source(tmp_path), Split.TRAIN).identities == ("A.J._Buckley", "Aaron_Tveit")


def test_d_takes_stills_from_a_root_of_their_own(made) -> None:
    manifest = read(made, name="voxceleb1-d", faces=made / "stills")
    assert manifest.identities == ("A.J._Buckley", "A.R._Rahman") and manifest.notes == ()
    assert "A.J._Buckley/00000002.jpg" in listed(manifest) and "id10002/onevideo/00001.wav" in listed(manifest)
    assert {manifest.locate(one).parents[1] for one in manifest.samples if one.path.endswith("jpg")} == {
        made / "stills"
    }


def test_who_has_no_stills_is_nobody_s_in_d(made) -> None:
    manifest = read(made, Split.TEST, "voxceleb1-d", faces=made / "stills", least_people=1)
    assert manifest.identities == ("Aaron_Yoo",) and manifest.missing == ()


def test_frames_that_stand_in_for_stills_are_told(made) -> None:
    manifest = read(made, name="voxceleb1-d")
    assert "stand in for VGGFace stills" in manifest.notes[0]
    assert "A.J._Buckley/1.6/onevideo" not in listed(manifest)
    assert "A.J._Buckley/1.6/othervideo/0000025.jpg" in listed(manifest)


def test_somebody_on_two_sides_of_d_is_refused(made, tmp_path) -> None:
    shutil.copytree(made / "d", tmp_path / "d")
    with (tmp_path / "d/vox1_test.csv").open("a") as rows:
        rows.write("id10001,A.J._Buckley,m,Ireland,dev\r\n")
    with pytest.raises(CorpusError, match=r"A\.J\._Buckley is in vox1_train\.csv and in vox1_test\.csv"):
        read(made, name="voxceleb1-d", lists=tmp_path / "d")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("id1,Somebody,x,USA,dev", "line 4: expected 5 cells with f or m"),
        ("id10001,A.J._Buckley,m,Ireland,dev", "line 4: A.J"),
    ],
)
def test_a_wrong_row_of_d_is_named_by_its_line(made, tmp_path, row, told) -> None:
    shutil.copytree(made / "d", tmp_path / "d")
    with (tmp_path / "d/vox1_train.csv").open("a") as rows:
        rows.write(f"{row}\r\n")
    with pytest.raises(CorpusError, match=told):
        read(made, name="voxceleb1-d", lists=tmp_path / "d")


def test_people_without_media_are_refused_beyond_the_allowed_share(made, tmp_path) -> None:
    shutil.copytree(made / "media", tmp_path / "media")
    shutil.rmtree(tmp_path / "media/faces/Aaron_Yoo")
    source = Source(tmp_path / "media", lists=made / "p", least_people=1)
    with pytest.raises(CorpusError, match=r"1 of 2 people of split VALIDATION are not there \(Aaron_Yoo has no face"):
        read_corpus("voxceleb1", source, Split.VALIDATION)
    allowed = read_corpus(
        "voxceleb1", Source(tmp_path / "media", lists=made / "p", least_people=1, most_missing=0.5), Split.VALIDATION
    )
    assert allowed.identities == ("Abbie_Cornish",) and "Aaron_Yoo has no face" in allowed.missing[-1]


def test_files_that_the_test_lists_name_and_that_are_not_there_are_counted(made, tmp_path) -> None:
    shutil.copytree(made / "p", tmp_path / "p")
    (tmp_path / "p/matching").mkdir()
    (tmp_path / "p/matching/matching_v2f_U.csv").write_text(
        "id10002/onevideo/00009.wav A.R._Rahman/1.6/onevideo/0000025.jpg Aamir_Khan/1.6/onevideo/0000050.jpg\n"
    )
    with pytest.raises(CorpusError, match=r"1 of 3 files of the lists are not there \(id10002/onevideo/00009\.wav\)"):
        read(made, Split.TEST, lists=tmp_path / "p")
    told = read(made, Split.TEST, lists=tmp_path / "p", most_missing=0.4).missing
    assert told == ("1 of 3 files of the lists are not there (id10002/onevideo/00009.wav)",)


def test_a_clip_that_is_in_two_trees_is_taken_once(made, tmp_path) -> None:
    shutil.copytree(made / "media", tmp_path / "media")
    make(tmp_path / "media", ["copy/wav/id10005/onevideo/00001.wav"])
    manifest = read_corpus("voxceleb1", Source(tmp_path / "media", lists=made / "p"), Split.VALIDATION)
    assert len(manifest.samples) == 8 and manifest.notes == (
        "1 files are there twice, in two trees: the first is taken",
    )


def test_a_test_person_of_another_protocol_is_not_learned_from(made) -> None:
    with pytest.raises(
        CorpusError, match=r"1 people of split TRAIN are test people of a protocol, such as Aaron_Tveit"
    ):
        read(made, test={"Aaron_Tveit"})


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("A.J._Buckley/_Y8h_IVO_0000012.wav", "id10001/_Y8h_IVO/00012.wav"),
        ("A.J._Buckley/Y8hIVOBuels/0002275.jpg", "A.J._Buckley/1.6/Y8hIVOBuels/0002275.jpg"),
        ("A.J._Buckley/1.6/Y8hIVOBuels/0002275.jpg", "A.J._Buckley/1.6/Y8hIVOBuels/0002275.jpg"),
        ("id10001/Y8hIVOBuels/00012.wav", "id10001/Y8hIVOBuels/00012.wav"),
        ("CCH_Pounder/00000295.jpg", "CCH_Pounder/00000295.jpg"),
    ],
)
def test_names_of_lists_become_names_of_files(name, told) -> None:
    assert canonical_path(name, {"A.J._Buckley": "id10001"}) == told


def test_an_unknown_corpus_a_file_for_a_folder_and_a_root_that_is_not_there_are_told(made) -> None:
    with pytest.raises(CorpusError, match="no corpus 'voxceleb9': there are voxceleb1, voxceleb1-d"):
        read_corpus("voxceleb9", Source(made), Split.TRAIN)
    with pytest.raises(CorpusError, match="is a file, and the root of voxceleb1 is a folder"):
        read_corpus("voxceleb1", Source(made / "p/vox1_meta.csv"), Split.TRAIN)
    with pytest.raises(CorpusError, match="is not there: name the folder of the corpus"):
        Source(made / "nowhere")
    with pytest.raises(CorpusError, match=r"share that may be absent is 0 to 1, got 5"):
        Source(made, most_missing=5)
