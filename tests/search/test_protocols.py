"""Reading protocol folders: ours, and the published lists as they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from encoders.space import Modality
from search.protocols import Protocol, ProtocolError, read_protocol
from tests.search.small_protocol import published_lists, write_small_protocol

VERIFICATION = "veriflist/veriflist_test_random_unseenunheard.txt"
MATCHING = "matching/matching_v2f_U.csv"
SPLITS, META, FACES = "Splits/identity_splits.txt", "meta.csv", "retrieval/jpg_all.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_small_protocol(tmp_path / "small")


def replace_line(path: Path, number: int, line: str) -> None:
    """Put another text in place of a line, counted from 1."""
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_text("\n".join(lines) + "\n")


def test_a_folder_says_who_is_tested_and_who_may_be_trained_on(folder: Path) -> None:
    protocol = read_protocol(folder)
    assert (protocol.name, protocol.domain, protocol.digest) == ("small", "invented people", "d" * 64)
    assert len(protocol.identities) == 6 and protocol.sex["Person_000_00000000"] == "f"
    assert protocol.training == {"Trained_aaaaaaaa"} and protocol.validation == {"Validated_bbbbbbbb"}
    assert protocol.media == folder / "media"


def test_samples_are_named_once_however_many_lists_name_them(folder: Path) -> None:
    protocol = read_protocol(folder)
    for modality in Modality:
        samples = protocol.samples(modality)
        assert len(samples.paths) == len(set(samples.paths)) == 6 * 3
        assert all(path.startswith(f"{person}/") for path, person in zip(samples.paths, samples.people, strict=True))
        assert set(samples.paths) <= set(protocol.ceiling or {})


def test_labels_are_read_and_not_assumed_to_alternate(folder: Path) -> None:
    trials = read_protocol(folder).verification["U"]
    assert trials.same[:6] == (True, True, False) * 2
    told = [voice.split("/")[0] == face.split("/")[0] for voice, face in zip(trials.voices, trials.faces, strict=True)]
    assert list(trials.same) == told


def test_the_right_candidate_comes_first(folder: Path) -> None:
    protocol = read_protocol(folder)
    for lists in protocol.matching.values():
        for probe, (right, *others) in zip(lists.probes, lists.candidates, strict=True):
            assert protocol.person_of(probe) == protocol.person_of(right)
            assert protocol.person_of(probe) not in map(protocol.person_of, others)


def test_media_may_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    assert read_protocol(folder, tmp_path / "elsewhere").media == tmp_path / "elsewhere"


def test_the_digest_of_the_lists_follows_their_content(folder: Path) -> None:
    before = read_protocol(folder).lists_digest
    assert before == read_protocol(folder).lists_digest
    lines = (folder / VERIFICATION).read_text().splitlines()
    (folder / VERIFICATION).write_text("\n".join(lines[:-1]) + "\n")
    assert read_protocol(folder).lists_digest != before


def test_a_folder_without_a_name_of_its_own_has_the_digest_of_its_lists(folder: Path) -> None:
    (folder / "protocol.json").unlink()
    protocol = read_protocol(folder)
    assert (protocol.name, protocol.domain, protocol.digest) == ("small", "not stated", protocol.lists_digest)


def test_people_are_known_under_both_of_their_names(folder: Path) -> None:
    replace_line(folder / META, 4, "id10001\tPerson_000_00000000\tf\tinvented\ttest")
    protocol = read_protocol(folder)
    assert protocol.person_of("id10001/clip/00001.wav") == "Person_000_00000000"
    assert protocol.test_people_among(["id10001", "Trained_aaaaaaaa"]) == {"Person_000_00000000"}


@pytest.mark.parametrize(
    ("name", "number", "line", "message"),
    [
        (SPLITS, 3, "Person_000_00000000 7", r"line 3: the code of Person_000_00000000 is 1, 2, 3 or 4, got '7'"),
        (SPLITS, 3, "Person_000_00000000", r"line 3: needs 2 cells separated by space"),
        (SPLITS, 4, "Person_000_00000000 4", r"line 4: .* a second time"),
        (META, 1, "id,sex", r"line 1: begins with 'id,sex' instead of the header"),
        (META, 4, "Person_000_00000000\tPerson_000_00000000\tx\ty\ttest", r"line 4: the gender .* got 'x'"),
        (META, 4, "Somebody\tSomebody\tf\ty\ttest", r"does not name the test identity Person_000_00000000"),
        (VERIFICATION, 2, "1,1,1,2,Person_000_00000000/a.flac,Person_000_00000000/b.jpg", r"line 2: a label is 0 or 1"),
        (VERIFICATION, 2, "1,1,1,0,Person_000_00000000/a.flac,Person_000_00000000/b.jpg", r"line 2: .* of one person"),
        (VERIFICATION, 3, "1,1,1,1,Trained_aaaaaaaa/a.flac,Trained_aaaaaaaa/b.jpg", r"line 3: .* not of a test"),
        (VERIFICATION, 3, "1,1,1,1,../Person_000_00000000/a.flac,x/b.jpg", r"line 3: a path is relative"),
        (VERIFICATION, 3, "1 1 1 1", r"line 3: needs 6 cells separated by comma"),
        (MATCHING, 5, "Person_000_00000000/a.flac Person_001_00000001/b.jpg", r"line 5: needs 7 paths .* got 2"),
        (MATCHING, 1, "Person_000_00000000/a.flac", r"line 1: needs a probe and at least 2 candidates"),
        (FACES, 2, "Person_001_00000001\tPerson_000_00000000/face_00.jpg", r"line 2: .* in the folder of"),
        (FACES, 3, "Person_000_00000000\tPerson_000_00000000/face_00.jpg", r"line 3: .* a second time"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_meant_is_named(folder: Path, name: str, number: int, line: str, message: str) -> None:
    replace_line(folder / name, number, line)
    with pytest.raises(ProtocolError, match=message) as refused:
        read_protocol(folder)
    assert refused.value.path == folder / name


@pytest.mark.parametrize(
    ("order", "message"), [([0, 2, 1, 3, 4, 5], "is not of"), ([0, 1, 1, 3, 4, 5], "is of Person_000_00000000 too")]
)
def test_candidates_in_the_wrong_place_are_named(folder: Path, order: list[int], message: str) -> None:
    cells = (folder / MATCHING).read_text().splitlines()[0].split()
    replace_line(folder / MATCHING, 1, " ".join(cells[place] for place in [*order, *range(6, len(cells))]))
    with pytest.raises(ProtocolError, match=message):
        read_protocol(folder)


@pytest.mark.parametrize("name", [SPLITS, META, FACES, VERIFICATION, MATCHING])
def test_a_missing_list_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ProtocolError, match=Path(name).name):
        read_protocol(folder)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"format": 2}), json.dumps({"format": 1, "name": 3})])
def test_a_protocol_file_of_another_kind_is_refused(folder: Path, content: str) -> None:
    (folder / "protocol.json").write_text(content)
    with pytest.raises(ProtocolError, match=r"protocol\.json"):
        read_protocol(folder)


@pytest.mark.parametrize(
    "arrays",
    [
        {"path": np.array(["a"]), "vector": np.zeros((2, 3))},
        {"path": np.array(["a"]), "vector": np.full((1, 3), np.nan)},
        {"path": np.array(["a"]), "vector": np.zeros((1, 3))},
        {"vector": np.zeros((1, 3))},
        {"path": np.array([{}]), "vector": np.zeros((1, 3))},
    ],
)
def test_a_ceiling_that_does_not_fit_the_lists_is_refused(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(folder / "ceiling.npz", **arrays)
    with pytest.raises(ProtocolError, match=r"ceiling\.npz"):
        read_protocol(folder)


@pytest.fixture(scope="module")
def published() -> Protocol:
    return read_protocol(published_lists())


def test_the_published_lists_are_read_as_they_are(published: Protocol) -> None:
    assert (len(published.identities), len(published.training), len(published.validation)) == (250, 901, 100)
    sexes = [published.sex[name] for name in published.identities]
    assert (sexes.count("m"), sexes.count("f")) == (151, 99)
    rows = {name: len(trials.same) for name, trials in published.verification.items()}
    assert rows == {"U": 30496, "G": 30496, "A": 30496, "N": 28193, "GNA": 27280}
    rows = {name: len(lists.probes) for (_, name), lists in published.matching.items()}
    assert rows == {"U": 10000, "G": 10000, "N": 9360, "GN": 9120}
    assert {len(published.retrieval[modality].paths) for modality in Modality} == {20000}
    assert published.ceiling is None


def test_the_published_labels_do_not_alternate(published: Protocol) -> None:
    wrong = {
        name: sum(same == bool(row % 2) for row, same in enumerate(published.verification[name].same))
        for name in ("U", "N", "GNA")
    }
    assert wrong == {"U": 0, "N": 13_076, "GNA": 11_139}
