"""Reading the lists of both splits: as they are published, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoders.space import Modality
from search.list_folder import ProtocolError
from search.published_lists import read_trial_lists
from search.trial_lists import SEEN, TEST, TRAIN, UNSEEN, VALIDATION, TrialLists
from tests.search.small_lists import write_small_lists
from tests.search.small_protocol import published_lists, write_small_protocol
from tests.search.test_protocols import replace_line

VOICE, FACE = Modality.VOICE, Modality.FACE
SPLITS, META = "Splits/identity_splits.txt", "vox1_meta.csv"
PAIRS, SEEN_PAIRS = (
    "veriflist/veriflist_test_random_unseenunheard.txt",
    "veriflist/veriflist_test_random_seenheard.txt",
)
MATCHING, VOICES = "matching/matching_v2f_U.csv", "retrieval/wav_20k.csv"


@pytest.fixture
def published(published_trials: TrialLists) -> TrialLists:
    return published_trials


@pytest.fixture(scope="module")
def of_d() -> TrialLists:
    return read_trial_lists(published_lists().parent / "protocol_d")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_small_lists(tmp_path / "small")


def test_all_twenty_lists_of_the_p_split_are_read(published: TrialLists) -> None:
    rows = {
        split: {name: len(pairs.voices) for name, pairs in groups.items()}
        for split, groups in published.verification.items()
    }
    assert rows[UNSEEN] == {"U": 30496, "G": 30496, "A": 30496, "N": 28193, "GNA": 27280}
    assert rows[SEEN] == {"U": 18020, "G": 18020, "A": 18020, "N": 17840, "GNA": 17380}
    trials = {key: len(one.probes) for key, one in published.matching.items()}
    for probe in (VOICE, FACE):
        assert [trials[probe, group] for group in ("U", "G", "N", "GN")] == [10000, 10000, 9360, 9120]
        assert len(published.retrieval[probe]) == 20000
    assert [len(published.people.of(split)) for split in (TRAIN, VALIDATION, TEST)] == [901, 100, 250]


def test_the_published_labels_are_read_and_not_assumed_to_alternate(published: TrialLists) -> None:
    def wrong(group: str) -> int:
        same = published.verification[UNSEEN][group].genuine
        return int((same != (np.arange(len(same)) % 2 == 0)).sum())

    assert (wrong("U"), wrong("N"), wrong("GNA")) == (0, 13_076, 11_139)


def test_a_sample_has_one_row_however_the_lists_write_it(published: TrialLists) -> None:
    voices, faces = published.catalogues[VOICE], published.catalogues[FACE]
    assert all(len(path.split("/")) == 3 and path.startswith("id1") for path in voices.paths)
    assert all(path.split("/")[1] == "1.6" for path in faces.paths)
    first = published.verification[UNSEEN]["U"]
    assert voices.paths[first.voices[0]] == "id10002/gaQqIoV_aLY/00001.wav"
    assert faces.paths[first.faces[0]] == "A.R._Rahman/1.6/QanuGhOhb9A/0035550.jpg"
    searched = set(published.retrieval[VOICE].tolist())
    assert searched & set(first.voices.tolist())  # the same clips under both of their names


def test_positives_of_seen_and_heard_people_come_from_their_own_video(published: TrialLists) -> None:
    pairs = published.verification[SEEN]["U"]
    voices, faces = published.catalogues[VOICE].recording, published.catalogues[FACE].recording
    same = voices[pairs.voices] == faces[pairs.faces]
    assert same[pairs.genuine].all() and not same[~pairs.genuine].any()


def test_the_lists_of_the_d_split_are_read_both_ways(of_d: TrialLists) -> None:
    assert [len(of_d.people.of(split)) for split in (TRAIN, VALIDATION, TEST)] == [924, 112, 189]
    pairs = of_d.verification[UNSEEN]["U"]
    assert pairs.asked_by is not None
    assert (len(pairs.voices), int(pairs.asked_by.sum())) == (65_550 + 60_228, 65_550)
    assert (len(of_d.retrieval[VOICE]), len(of_d.retrieval[FACE])) == (21_850, 20_076)
    assert of_d.catalogues[FACE].paths[0] == "CCH_Pounder/00000657.jpg"
    assert (of_d.catalogues[FACE].recording == -1).all() and not of_d.matching


def test_169_test_people_of_the_p_split_are_trained_on_in_the_d_split(published: TrialLists, of_d: TrialLists) -> None:
    assert len(published.people.known_among(of_d.people.of(TRAIN))) == 169
    ids = {of_d.people.ids[of_d.people.number[name]] for name in of_d.people.of(TRAIN)}
    assert len(published.people.known_among(ids)) == 169


def test_the_population_s_own_folder_is_read_too(tmp_path: Path) -> None:
    lists = read_trial_lists(write_small_protocol(tmp_path / "population", people=12))
    assert (lists.name, lists.domain, set(lists.verification)) == ("small", "invented people", {UNSEEN})
    assert lists.matching[VOICE, "U"].candidates.shape[1] == 2
    assert lists.matching_1_to_n[VOICE, "U"].candidates.shape[1] == 10 and not lists.drawn


TWO = "two splits are mixed"


@pytest.mark.parametrize(
    ("name", "number", "line", "message"),
    [
        (SPLITS, 2, "Person_00 1", r"line 2: Person_00 is in two splits, test and train"),
        (SPLITS, 2, "Person_01 9", r"line 2: the code of Person_01 is 1, 2, 3 or 4, got '9'"),
        (META, 1, "id\tname", r"line 1: begins with 'id\\tname' instead of the header"),
        (META, 2, "id10001\tPerson_00\tx\tUSA\tdev", r"line 2: the gender of Person_00"),
        (META, 2, "id10001\tNobody\tf\tUSA\tdev", r"does not name Person_00"),
        (PAIRS, 1, "id,label,voice-path,face-path", r"line 1: begins with .* instead of the header"),
        (PAIRS, 7, "1,1,1,2,Person_00/a_0000001.wav,Person_00/a/0000025.jpg", r"line 7: a label is 0 or 1, got '2'"),
        (PAIRS, 7, "1,1,1,0,Person_00/a_0000001.wav,Person_00/a/0000025.jpg", r"line 7: the label is 0.* one person"),
        (PAIRS, 7, "1,1,1,1,Person_00/a_0000001.wav", r"line 7: needs 6 cells"),
        (PAIRS, 7, "1,1,1,1,Person_30/a_0000001.wav,Person_30/a/0000025.jpg", rf"line 7: .* train people.*{TWO}"),
        (SEEN_PAIRS, 7, "1,1,1,1,Person_00/a_0000001.wav,Person_00/a/0000025.jpg", rf"line 7: .* test people.*{TWO}"),
        (PAIRS, 7, "1,1,1,1,Who/a_0000001.wav,Person_00/a/0000025.jpg", r"line 7: .* 'Who', whom the protocol"),
        (PAIRS, 7, "1,1,1,1,../a_0000001.wav,Person_00/a/0000025.jpg", r"line 7: .* does not know"),
        (MATCHING, 3, "id10001/a/00001.wav Person_00/1.6/a/0000025.jpg", r"line 3: needs 3 paths .* got 2"),
        (MATCHING, 3, "id10001/a/00001.wav Person_01/1.6/a/0000025.jpg Person_02/1.6/a/0000025.jpg", r"line 3: .* not"),
        (VOICES, 3, "id10002\tid10001/a/00001.wav", r"line 3: .* said to be of id10002"),
        (VOICES, 3, "id10001\tid10001/00video_x000/00001.wav", r"line 3: .* a second time"),
        (VOICES, 1, "VoxCeleb1 ID\tmp3", r"line 1: begins with"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_meant_is_named(small: Path, name: str, number: int, line: str, message: str) -> None:
    replace_line(small / name, number, line)
    with pytest.raises(ProtocolError, match=message):
        read_trial_lists(small)


@pytest.mark.parametrize("name", [SPLITS, META, SEEN_PAIRS, "matching/matching_f2v_GN.csv", VOICES])
def test_a_list_that_is_missing_is_named(small: Path, name: str) -> None:
    (small / name).unlink()
    with pytest.raises(ProtocolError, match=Path(name).name.split("_")[0]):
        read_trial_lists(small)


def test_a_folder_of_two_splits_is_refused(small: Path) -> None:
    (small / "vox1_test.csv").write_text("VoxCeleb1_ID,VGGFace1_ID,Gender,Nationality,Set\n")
    with pytest.raises(ProtocolError, match="the lists of two splits"):
        read_trial_lists(small)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="there is no such folder"):
        read_trial_lists(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [SPLITS, META, PAIRS, VOICES])
def test_a_list_that_leads_out_of_where_may_be_read_is_not_read(small: Path, tmp_path: Path, name: str) -> None:
    read_trial_lists(small, within=[str(small)])
    (small / name).rename(tmp_path / "elsewhere")
    (small / name).symlink_to(tmp_path / "elsewhere")
    read_trial_lists(small)
    with pytest.raises(ProtocolError, match=f"{Path(name).name}: lies outside of the folders that may be read"):
        read_trial_lists(small, within=[str(small)])
