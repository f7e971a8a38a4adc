"""Files of embeddings: what is read from them, how it is compared, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.space import Modality
from search.measurement import PointsError
from search.published_lists import read_trial_lists
from search.ranking import retrieval
from search.sample_vectors import SampleVectors, read_sample_vectors
from search.scores import Similarity
from search.trial_lists import UNSEEN, TrialLists
from search.two_way import rank_both_ways
from tests.search.protocol_vectors import all_names, random_vectors, write_vectors
from tests.search.small_lists import write_small_lists


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> TrialLists:
    return read_trial_lists(write_small_lists(tmp_path_factory.mktemp("lists")))


@pytest.fixture(scope="module")
def vectors(lists: TrialLists, tmp_path_factory: pytest.TempPathFactory) -> SampleVectors:
    path = write_vectors(tmp_path_factory.mktemp("vectors") / "some.npz", lists, random_vectors(lists))
    return read_sample_vectors(path, lists)


def test_names_may_be_written_as_either_list_writes_them(lists: TrialLists, tmp_path: Path) -> None:
    given = random_vectors(lists)
    names = all_names(lists)
    other = {
        name: f"{lists.people.names[lists.people.number[first]]}/{rest[0]}_00{rest[1]}"
        if name.endswith(".wav") else f"{first}/{'/'.join(rest[1:])}"
        for name in names for first, *rest in [name.split("/")]
    }  # fmt: skip
    canonical = read_sample_vectors(write_vectors(tmp_path / "a.npz", lists, given), lists)
    listed = np.array([other[name] for name in names])
    written = read_sample_vectors(write_vectors(tmp_path / "b.npz", lists, given, path=listed), lists)
    assert listed[0].count("/") == 2 and listed[-1].count("/") == 1
    for modality in Modality:
        np.testing.assert_array_equal(canonical.rows[modality], written.rows[modality])


@pytest.mark.parametrize("similarity", list(Similarity))
def test_pairs_are_compared_in_double_precision(
    lists: TrialLists, vectors: SampleVectors, similarity: Similarity
) -> None:
    pairs = lists.verification[UNSEEN]["U"]
    told = replace(vectors, similarity=similarity).pairs(pairs.voices, pairs.faces)
    raw = vectors.vectors.astype(np.float64)
    one = raw[vectors.rows[Modality.VOICE][pairs.voices]]
    two = raw[vectors.rows[Modality.FACE][pairs.faces]]
    expected = {
        Similarity.COSINE: lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b),
        Similarity.EUCLIDEAN: lambda a, b: -np.linalg.norm(a - b),
        Similarity.CORRELATION: lambda a, b: np.corrcoef(a, b)[0, 1],
    }[similarity]
    np.testing.assert_allclose(told, [expected(a, b) for a, b in zip(one, two, strict=True)], atol=2e-13)


@pytest.mark.parametrize("similarity", list(Similarity))
def test_products_of_the_sides_rank_as_the_scores_do(
    lists: TrialLists, vectors: SampleVectors, similarity: Similarity
) -> None:
    chosen = replace(vectors, similarity=similarity)
    sides = chosen.sides(lists)
    products = sides[Modality.VOICE].vectors @ sides[Modality.FACE].vectors.T
    assert np.abs(products).max() <= 1 + 1e-12
    voices, faces = lists.retrieval[Modality.VOICE], lists.retrieval[Modality.FACE]
    for row in (0, 17, 40):
        scores = chosen.pairs(np.full(len(faces), voices[row]), faces)
        np.testing.assert_array_equal(np.argsort(products[row]), np.argsort(scores))
    rank_both_ways(sides[Modality.VOICE], sides[Modality.FACE])


@pytest.mark.parametrize("centred", [(Modality.FACE,), (Modality.VOICE,), tuple(Modality)])
def test_each_way_is_asked_without_its_own_centre(
    lists: TrialLists, vectors: SampleVectors, centred: tuple[Modality, ...]
) -> None:
    random = np.random.default_rng(4)
    centres = {one: random.normal(size=vectors.vectors.shape[1]) / 20 for one in centred}
    plain, sides = vectors.both_ways(lists), vectors.sides(lists)
    moved = replace(vectors, probe_centres=centres).both_ways(lists)
    for probe in Modality:
        if probe not in centred:
            np.testing.assert_array_equal(moved[probe].average_precision, plain[probe].average_precision)
            continue
        asking, held = sides[probe], sides[probe.other]
        expected = retrieval(asking.vectors - centres[probe], asking.person, held.vectors, held.person)
        np.testing.assert_allclose(moved[probe].average_precision, expected.average_precision, atol=1e-12)
        assert not np.array_equal(moved[probe].average_precision, plain[probe].average_precision)


@pytest.mark.parametrize("similarity", [Similarity.EUCLIDEAN, Similarity.CORRELATION])
def test_only_cosines_are_asked_without_a_centre(
    lists: TrialLists, vectors: SampleVectors, similarity: Similarity
) -> None:
    plain = replace(vectors, similarity=similarity)
    centre = np.random.default_rng(6).normal(size=vectors.vectors.shape[1]) / 20
    moved = replace(plain, probe_centres=dict.fromkeys(Modality, centre))
    assert moved.applied == {} and set(replace(moved, similarity=Similarity.COSINE).applied) == set(Modality)
    for probe in Modality:
        one, other = (chosen.both_ways(lists)[probe].average_precision for chosen in (plain, moved))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("centre", [np.zeros(2), np.array("middle"), np.full(16, np.inf)])
def test_a_file_whose_centre_is_none_is_refused(lists: TrialLists, tmp_path: Path, centre: np.ndarray) -> None:
    path = write_vectors(tmp_path / "a.npz", lists, random_vectors(lists), centre_face=centre)
    with pytest.raises(PointsError, match=r"a\.npz: centre_face is no centre of probes"):
        read_sample_vectors(path, lists)


def test_vectors_of_other_known_people_are_no_mistake_and_those_of_validation_people_are_kept(
    lists: TrialLists, tmp_path: Path
) -> None:
    more = ["id10048/film/00001.wav", "Person_47/1.6/film/0000025.jpg", "id10030/film/00001.wav"]
    given = random_vectors(lists)
    names = np.array([*all_names(lists), *more])
    path = write_vectors(tmp_path / "a.npz", lists, np.append(given, given[:3], axis=0), path=names)
    told = read_sample_vectors(path, lists)
    for modality, row in ((Modality.VOICE, len(given)), (Modality.FACE, len(given) + 1)):
        assert [told.validation[modality][0].tolist(), told.validation[modality][1].tolist()] == [[row], [47]]


def broken(lists: TrialLists, **changed: Any) -> dict[str, Any]:
    return {"path": np.array(all_names(lists)), "vector": random_vectors(lists)} | changed


WRONG: dict[str, tuple[Any, str]] = {
    "not a number": (lambda a: a["vector"].__setitem__((7, 2), np.nan), "the vector of Person_.* is not finite"),
    "infinite": (lambda a: a["vector"].__setitem__((7, 2), np.inf), "is not finite"),
    "length zero": (lambda a: a["vector"].__setitem__(7, 0), "has length 0, so no direction"),
    "whole numbers": (lambda a: a.update(vector=np.ones((len(a["path"]), 3), dtype=int)), "of floats"),
    "one too few": (lambda a: a.update(vector=a["vector"][1:]), "for each path"),
    "no vectors": (lambda a: a.pop("vector"), "lacks the array 'vector'; it holds path"),
    "unknown array": (lambda a: a.update(vectors=a["vector"]), "unknown array 'vectors'; it may hold"),
    "unknown person": (lambda a: a["path"].__setitem__(0, "Nobody/1.6/a/0000001.jpg"), "'Nobody', whom the protocol"),
    "no sample": (lambda a: a["path"].__setitem__(0, "notes.txt"), "neither a voice .* nor a face"),
    "climbing path": (lambda a: a["path"].__setitem__(0, "id10001/../a.wav"), "is no relative path"),
    "twice": (lambda a: a["path"].__setitem__(1, a["path"][0]), "comes twice"),
    "missing": (lambda a: a["path"].__setitem__(0, "Person_00/1.6/x/0000001.jpg"), "no vector for 1 of the .* such as"),
    "two spaces": (lambda a: a.update(space_digest=np.array(["a" * 64, "b" * 64])), "vectors of 2 spaces"),
    "two dimensions": (lambda a: a.update(dimension=np.arange(len(a["path"]))), "must share one space"),
    "odd modality": (lambda a: a.update(modality=np.array(["gait"] * len(a["path"]))), "face or voice, got 'gait'"),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(WRONG))
def test_a_file_that_cannot_be_meant_is_refused_in_one_sentence(lists: TrialLists, tmp_path: Path, what: str) -> None:
    change, message = WRONG[what]
    arrays = broken(lists)
    change(arrays)
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(PointsError, match=message) as refused:
        read_sample_vectors(tmp_path / "wrong.npz", lists)
    assert "wrong.npz" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not a zip"])
def test_a_file_of_another_kind_is_refused(lists: TrialLists, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wrong.npz").write_bytes(content)
    with pytest.raises(PointsError, match="is no npz file"):
        read_sample_vectors(tmp_path / "wrong.npz", lists)
    with pytest.raises(PointsError, match="there is no such file"):
        read_sample_vectors(tmp_path / "absent.npz", lists)


def test_objects_are_never_unpickled(lists: TrialLists, tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", **broken(lists, path=np.array([{}], dtype=object)))
    with pytest.raises(PointsError, match="is no npz file of plain arrays"):
        read_sample_vectors(tmp_path / "wrong.npz", lists)
