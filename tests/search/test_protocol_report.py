"""The report of a protocol: scikit-learn's figures, the traps that evaluators fell into, and two models compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from encoders.space import Modality, Space
from search.generated_lists import with_drawn
from search.measurement import NothingToMeasure, SeenInTraining
from search.protocol_report import Measured, report_on
from search.protocol_table import as_protocol_table
from search.published_lists import read_trial_lists
from search.report_page import as_markdown
from search.report_tables import tables
from search.sample_vectors import SampleVectors, read_sample_vectors
from search.trial_lists import SEEN, UNSEEN, CandidateList, TrialLists
from tests.search.protocol_vectors import all_names, people_vectors, random_vectors, write_vectors
from tests.search.small_lists import write_small_lists

VOICE, FACE = Modality.VOICE, Modality.FACE
WAYS = {VOICE: "voice_to_face", FACE: "face_to_voice"}


@dataclass(frozen=True)
class Stated:
    """What is said about a model."""

    space: Space
    identities: frozenset[str]
    domain: str = "VoxCeleb1"
    trained_on: str = "other people; its backbones on others still"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("protocol")


@pytest.fixture(scope="module")
def lists(folder: Path) -> TrialLists:
    return with_drawn(read_trial_lists(write_small_lists(folder / "small")))


def measured(folder: Path, lists: TrialLists, vectors: NDArray[Any], name: str = "some") -> Measured:
    return Measured(read_sample_vectors(write_vectors(folder / f"{name}.npz", lists, vectors), lists))


@pytest.fixture(scope="module")
def good(folder: Path, lists: TrialLists) -> Measured:
    return measured(folder, lists, people_vectors(lists), "good")


@pytest.fixture(scope="module")
def report(lists: TrialLists, good: Measured) -> dict[str, Any]:
    return report_on(lists, good, draws=100)


@pytest.fixture(scope="module")
def on_real_lists(published_trials: TrialLists, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Random embeddings of all names of the published lists, of which some thousand are searched."""
    some = {one: rows[::25] for one, rows in published_trials.retrieval.items()}
    trials = with_drawn(replace(published_trials, retrieval=some))
    given = random_vectors(trials, dimension=8, seed=4)
    told = measured(tmp_path_factory.mktemp("real"), trials, given)
    return {"lists": trials, "vectors": told.vectors, "report": report_on(trials, told, intervals=False)}


# The same as scikit-learn on the same scores


def unit(vectors: SampleVectors, modality: Modality, rows: NDArray[np.integer]) -> NDArray[np.float64]:
    given = vectors.vectors[vectors.rows[modality][rows]].astype(np.float64)
    return given / np.linalg.norm(given, axis=1, keepdims=True)


def crossing(genuine: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Where the line through scikit-learn's points crosses equal error."""
    accepted, found, _ = roc_curve(genuine, scores, drop_intermediate=False)
    gap = accepted - (1 - found)
    after = int(np.argmax(gap >= 0))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(accepted[after - 1] + share * (accepted[after] - accepted[after - 1]))


def test_verification_is_scikit_learn_s_on_every_list(on_real_lists: Mapping[str, Any]) -> None:
    lists, vectors, told = (on_real_lists[name] for name in ("lists", "vectors", "report"))
    assert {split: len(groups) for split, groups in lists.verification.items()} == {UNSEEN: 6, SEEN: 6}
    for split, groups in lists.verification.items():
        for group, pairs in groups.items():
            scores = np.einsum("nd,nd->n", unit(vectors, VOICE, pairs.voices), unit(vectors, FACE, pairs.faces))
            leaf = told["verification"][split][group]
            assert leaf["auc"] == pytest.approx(roc_auc_score(pairs.genuine, scores), abs=1e-9)
            assert leaf["eer"] == pytest.approx(crossing(pairs.genuine, scores), abs=1e-9)
            assert leaf["pairs"] == len(pairs.genuine)


@pytest.mark.parametrize("kind", ["matching", "matching_1_to_n"])
def test_matching_is_the_share_of_right_answers_on_every_list(on_real_lists: Mapping[str, Any], kind: str) -> None:
    lists, vectors, told = (on_real_lists[name] for name in ("lists", "vectors", "report"))
    for (probe, group), trials in getattr(lists, kind).items():
        asked = unit(vectors, probe, trials.probes)[:, None, :]
        offered = unit(vectors, probe.other, trials.candidates.ravel()).reshape(*trials.candidates.shape, -1)
        scores = (asked * offered).sum(axis=2)
        leaves = told[kind][WAYS[probe]][group]
        for size in range(2, scores.shape[1] + 1):
            leaf = leaves if kind == "matching" else leaves[str(size)]
            assert leaf["accuracy"] == pytest.approx((scores[:, :size].argmax(axis=1) == 0).mean(), abs=1e-9)
            assert (leaf["chance"], leaf["trials"]) == (1 / size, len(scores))


@pytest.mark.parametrize("probe", list(Modality))
def test_retrieval_is_scikit_learn_s(on_real_lists: Mapping[str, Any], probe: Modality) -> None:
    compare_retrieval(on_real_lists, probe)


def compare_retrieval(told: Mapping[str, Any], probe: Modality) -> None:
    lists, vectors = told["lists"], told["vectors"]
    rows, others = lists.retrieval[probe], lists.retrieval[probe.other]
    people, shown = lists.catalogues[probe].person[rows], lists.catalogues[probe.other].person[others]
    gallery = unit(vectors, probe.other, others).T
    precision = [
        average_precision_score(shown == person, line @ gallery)
        for person, line in zip(people, unit(vectors, probe, rows), strict=True)
        if (shown == person).any()
    ]
    leaf = told["report"]["retrieval"][WAYS[probe]]
    assert leaf["map"] == pytest.approx(np.mean(precision), abs=1e-9)
    assert (leaf["probes"], leaf["gallery"]) == (len(precision), len(others))


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_all_of_the_real_lists_equal_scikit_learn(published_trials: TrialLists, tmp_path: Path) -> None:
    given = random_vectors(published_trials, dimension=64, seed=9)
    some = measured(tmp_path, published_trials, given)
    told = {
        "lists": published_trials, "vectors": some.vectors, "report": report_on(published_trials, some, intervals=False)
    }  # fmt: skip
    test_verification_is_scikit_learn_s_on_every_list(told | {"lists": with_drawn(published_trials), "report":
        report_on(with_drawn(published_trials), some, intervals=False)})  # fmt: skip
    for probe in Modality:
        compare_retrieval(told, probe)


# What evaluators got wrong


def test_a_collapsed_model_scores_by_chance_and_not_by_position(folder: Path, lists: TrialLists) -> None:
    vector = np.random.default_rng(2).normal(size=192).astype(np.float32)
    told = report_on(lists, measured(folder, lists, np.tile(vector, (len(all_names(lists)), 1))), intervals=False)
    for way in WAYS.values():
        assert all(leaf["accuracy"] == 0.5 for leaf in told["matching"][way].values())
        for sizes in told["matching_1_to_n"][way].values():
            assert {int(size): leaf["accuracy"] for size, leaf in sizes.items()} == pytest.approx(
                {size: 1 / size for size in range(2, 11)}, abs=1e-12
            )
        # every person has 4 of 96 samples
        assert told["retrieval"][way]["map"] == pytest.approx(1 / 24, abs=1e-12)
        assert told["retrieval"][way]["recall_at_1"] == pytest.approx(1 / 24, abs=1e-12)
    for groups in told["verification"].values():
        assert all((leaf["auc"], leaf["eer"]) == (0.5, 0.5) for leaf in groups.values())


def test_labels_that_do_not_alternate_are_read(lists: TrialLists, report: dict[str, Any]) -> None:
    pairs = lists.verification[UNSEEN]["U"]
    assert pairs.genuine[:6].tolist() == [True, True, False] * 2
    # with labels assumed to alternate a model that knows everybody would look like a coin
    assert report["verification"][UNSEEN]["U"]["auc"] > 0.9


def test_the_order_of_the_gallery_decides_nothing(folder: Path, lists: TrialLists) -> None:
    """Rounded vectors tie often: an argsort without a rule for ties would rank them as they come."""
    given = np.round(random_vectors(lists, dimension=2)) + 0.5
    some = measured(folder, lists, given)
    turned = replace(lists, retrieval={one: rows[::-1] for one, rows in lists.retrieval.items()})
    one, two = (report_on(each, some, intervals=False)["retrieval"] for each in (lists, turned))
    for way in WAYS.values():
        for name in ("map", "map_other_videos", "recall_at_1", "recall_at_5", "mrr"):
            assert one[way][name] == pytest.approx(two[way][name], abs=1e-12)


def test_the_place_of_the_right_candidate_decides_nothing(folder: Path, lists: TrialLists) -> None:
    given = random_vectors(lists, dimension=2)
    given[:] = np.sign(given)
    some = measured(folder, lists, given)
    told = report_on(lists, some, intervals=False)["matching"]["voice_to_face"]["U"]["accuracy"]
    trials = lists.matching[VOICE, "U"]
    scores = np.stack([some.vectors.pairs(trials.probes, column) for column in trials.candidates.T], axis=1)
    tied, won = (scores[:, 0] == scores[:, 1]).mean(), (scores[:, 0] > scores[:, 1]).mean()
    assert told == pytest.approx(won + tied / 2, abs=1e-12) and tied > 0.1


def test_the_same_vectors_give_the_same_report_bit_for_bit(
    lists: TrialLists, good: Measured, report: dict[str, Any]
) -> None:
    assert json.dumps(report_on(lists, good, draws=100)) == json.dumps(report)


@pytest.mark.parametrize("name", ["Person_03", "id10004"])
def test_a_model_that_knows_test_people_is_refused_or_the_report_says_so(
    lists: TrialLists, good: Measured, name: str
) -> None:
    model = Stated(Space("shared", 16, "a" * 64), frozenset({name, "Person_30"}))
    knowing = Measured(good.vectors, model)
    with pytest.raises(SeenInTraining, match=r"trained on 1 of the 24 test people .*\(Person_03\)"):
        report_on(lists, knowing, intervals=False)
    told = report_on(lists, knowing, intervals=False, allow_seen=True)
    assert told["seen"]["people"] == 1 and told["seen"]["allowed"] and "too good" in told["seen"]["note"]
    assert told["model"]["trained_on"] == "other people; its backbones on others still"


def test_people_named_in_the_file_of_embeddings_are_refused_too(folder: Path, lists: TrialLists) -> None:
    path = write_vectors(folder / "known.npz", lists, people_vectors(lists), identities=np.array(["id10001"]))
    with pytest.raises(SeenInTraining, match="Person_00"):
        report_on(lists, Measured(read_sample_vectors(path, lists)), intervals=False)


def test_a_model_of_seen_and_heard_people_is_not_refused_for_their_list(lists: TrialLists, good: Measured) -> None:
    model = Stated(Space("shared", 16, "a" * 64), frozenset({"Person_30"}))
    told = report_on(lists, Measured(good.vectors, model), intervals=False)
    assert told["seen"]["people"] == 0 and "trained on none of the 24" in told["seen"]["note"]


# What stands beside a figure


def same_tree(one: Any, other: Any) -> bool:
    """Whether two trees have the same keys all the way down."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same_tree(one[k], other[k]) for k in one)
    return not isinstance(other, dict)


def test_every_figure_stands_beside_chance_and_both_oracles(report: dict[str, Any]) -> None:
    kinds = ("verification", "matching", "matching_1_to_n", "retrieval")
    for name in ("gender", "gender_nationality"):
        assert all(same_tree(report[kind], report["oracles"][name][kind]) for kind in kinds)
    leaf = report["verification"][SEEN]["GNA"]
    assert {"auc", "eer", "ci95", "pairs", "chance"} <= leaf.keys()
    assert {"accuracy", "ci95", "trials", "chance"} <= report["matching"]["voice_to_face"]["GN"].keys()
    assert list(report["matching_1_to_n"]["face_to_voice"]["U"]) == [str(size) for size in range(2, 11)]
    wanted = {"map", "map_other_videos", "recall_at_1", "recall_at_5", "recall_at_10", "mrr", "cmc", "chance", "ci95"}
    assert wanted | {"probes", "gallery"} <= report["retrieval"]["voice_to_face"].keys()


def test_intervals_hold_the_figure_and_people_are_what_is_resampled(report: dict[str, Any]) -> None:
    for leaf, name in (
        (report["verification"][UNSEEN]["U"], "auc"), (report["matching"]["voice_to_face"]["U"], "accuracy"),
        (report["matching_1_to_n"]["face_to_voice"]["G"]["7"], "accuracy"),
        (report["retrieval"]["voice_to_face"], "map"),
    ):  # fmt: skip
        low, high = leaf["ci95"]
        assert low < leaf[name] < high
    assert report["intervals"] == {"draws": 100, "seed": 20, "level": 0.95, "resampled": "people"}


def test_without_intervals_the_figures_are_the_same(lists: TrialLists, good: Measured, report: dict[str, Any]) -> None:
    told = report_on(lists, good, intervals=False)
    assert told["intervals"] is None and told["retrieval"]["voice_to_face"]["ci95"] is None
    for way in WAYS.values():
        assert told["retrieval"][way]["cmc"] == report["retrieval"][way]["cmc"]
        assert told["retrieval"][way]["map"] == report["retrieval"][way]["map"]


def test_a_model_that_serves_women_worse_is_seen_in_the_breakdown(folder: Path, lists: TrialLists) -> None:
    given = people_vectors(lists, noise=0.3)
    person = np.concatenate([lists.catalogues[modality].person for modality in Modality])
    women = lists.people.sex[person] == "f"
    given[women] += 4 * np.random.default_rng(1).normal(size=(int(women.sum()), 16)).astype(np.float32)
    told = report_on(lists, measured(folder, lists, given), draws=50)["breakdown"]
    f, m = told["sex"]["f"], told["sex"]["m"]
    assert (f["people"], m["people"]) == (12, 12)
    for way in WAYS.values():
        assert f["retrieval"][way]["ci95"][1] < m["retrieval"][way]["ci95"][0]
        assert f["matching"][way]["accuracy"] < m["matching"][way]["accuracy"]
    assert f["verification"]["G"]["auc"] < m["verification"]["G"]["auc"]
    assert {name: one["people"] for name, one in told["nationality"].items()} == {"India": 8, "UK": 8, "USA": 8}


def test_two_models_are_compared_on_the_same_trials_and_draws(folder: Path, lists: TrialLists, good: Measured) -> None:
    worse = measured(folder, lists, people_vectors(lists, noise=3.0), "worse")
    told = report_on(lists, good, other=worse, draws=100)
    alone = report_on(lists, worse, draws=100)
    gained = told["comparison"]["difference"]
    for way in WAYS.values():
        one = gained["retrieval"][way]["map"]
        assert one["difference"] == pytest.approx(told["retrieval"][way]["map"] - alone["retrieval"][way]["map"])
        assert one["ci95"][0] > 0
        assert told["comparison"]["figures"]["retrieval"][way] == alone["retrieval"][way]
    auc = gained["verification"][UNSEEN]["U"]["auc"]
    assert auc["difference"] > 0.1 and auc["ci95"][0] > 0
    assert gained["matching_1_to_n"]["voice_to_face"]["U"]["10"]["accuracy"]["difference"] > 0.1


def test_a_model_compared_with_itself_gains_nothing(lists: TrialLists, good: Measured) -> None:
    told = report_on(lists, good, other=good, draws=50)["comparison"]["difference"]
    assert told["retrieval"]["voice_to_face"]["map"] == {"difference": 0.0, "ci95": [0.0, 0.0]}
    assert told["verification"][UNSEEN]["U"]["eer"] == {"difference": 0.0, "ci95": [0.0, 0.0]}


# The threshold


def with_validation(folder: Path, lists: TrialLists, noise: float) -> Measured:
    """Vectors of the validation people too: of each two voices and two faces."""
    random, centres = np.random.default_rng(3), np.random.default_rng(0).normal(size=(len(lists.people.names), 16))
    more = [
        (path, centres[person] + noise * random.normal(size=16))
        for person in np.flatnonzero(lists.people.split == "validation")
        for name, one in [(lists.people.names[person], lists.people.ids[person])]
        for path in (
            f"{one}/v/00001.wav",
            f"{one}/v/00002.wav",
            f"{name}/1.6/v/0000001.jpg",
            f"{name}/1.6/v/0000026.jpg",
        )
    ]
    names = np.array([*all_names(lists), *(path for path, _ in more)])
    given = np.append(people_vectors(lists, noise=noise), np.array([one for _, one in more], dtype=np.float32), axis=0)
    return Measured(read_sample_vectors(write_vectors(folder / "validation.npz", lists, given, path=names), lists))


def test_a_threshold_is_fitted_on_validation_people_and_said_of_others(folder: Path, lists: TrialLists) -> None:
    told = report_on(lists, with_validation(folder, lists, noise=0.5), intervals=False)["threshold"]
    assert (told["people"], len(told["folds"])) == (12, 5)
    assert min(told["folds"]) - 0.05 < told["value"] < max(told["folds"]) + 0.05
    assert len(set(told["folds"])) > 1  # each fold is left out of its own threshold
    assert told["held_out"]["accuracy"] > 0.85
    rates = told["on_test"][UNSEEN]["U"]
    assert rates["accuracy"] == pytest.approx(told["held_out"]["accuracy"], abs=0.1)


def test_nothing_of_the_test_decides_the_threshold(folder: Path, lists: TrialLists) -> None:
    some = with_validation(folder, lists, noise=0.5)
    changed = some.vectors.vectors.copy()
    tested = np.concatenate(list(some.vectors.rows.values()))
    changed[tested] = np.random.default_rng(8).normal(size=(len(tested), 16))
    other = Measured(replace(some.vectors, vectors=changed))
    one, two = (report_on(lists, each, intervals=False)["threshold"] for each in (some, other))
    assert (one["value"], one["folds"], one["held_out"]) == (two["value"], two["folds"], two["held_out"])
    assert one["on_test"] != two["on_test"]


def test_validation_people_whom_the_model_was_trained_on_fit_no_threshold(folder: Path, lists: TrialLists) -> None:
    some = with_validation(folder, lists, noise=0.5)
    model = Stated(Space("shared", 16, "a" * 64), lists.people.of("validation"))
    told = report_on(lists, Measured(some.vectors, model), intervals=False)
    assert told["threshold"] is None and "12 more were left out" in told["threshold_note"]


def test_without_validation_people_there_is_no_threshold_but_a_note(report: dict[str, Any]) -> None:
    assert report["threshold"] is None and "at least 10 validation people" in report["threshold_note"]


# Probes that ask without the mean of their modality


def centred(lists: TrialLists, one: Measured) -> Measured:
    """The same vectors, with faces that ask without a vector of half their length."""
    random = np.random.default_rng(9).normal(size=one.vectors.vectors.shape[1])
    return Measured(replace(one.vectors, probe_centres={FACE: 0.5 * random / np.linalg.norm(random)}))


def test_a_report_and_its_tables_say_what_asking_without_the_mean_gains(
    lists: TrialLists, good: Measured, report: dict[str, Any]
) -> None:
    told = report_on(lists, centred(lists, good), draws=100)
    figures, before = told["retrieval"]["face_to_voice"], report["retrieval"]["face_to_voice"]
    gained = figures["gained"]
    assert gained["map_before"] == before["map"] and abs(gained["difference"]) > 1e-3
    assert gained["difference"] == pytest.approx(figures["map"] - before["map"])
    low, high = gained["ci95"]
    assert low < gained["difference"] < high
    assert told["retrieval"]["voice_to_face"] == report["retrieval"]["voice_to_face"]
    assert "gained" not in before
    was, more = f"{100 * before['map']:.2f}", f"{100 * gained['difference']:+.2f} by that"
    between = f"({100 * low:+.2f} to {100 * high:+.2f})"
    words = f"  the mean of such probes is taken from each; as they are mAP {was}, {more}"
    assert f"{words} {between}" in as_protocol_table(told).splitlines()
    note = f"The mean of such probes is taken from each; as they are, mAP is {was} %, {more} {between}."
    assert [table.note for table in tables(told) if "The mean of such probes" in table.note] == [note]
    bare = report_on(lists, centred(lists, good), intervals=False)
    assert bare["retrieval"]["face_to_voice"]["gained"] == gained | {"ci95": None}
    assert words in as_protocol_table(bare).splitlines()
    assert "the mean of such probes" not in as_protocol_table(report)


def test_probes_of_whom_none_has_a_right_answer_gain_nothing_that_has_a_number(
    folder: Path, lists: TrialLists, good: Measured
) -> None:
    names = np.array(all_names(lists))
    number = np.array([int(name[7:9]) if name.startswith("P") else int(name[5:7]) - 1 for name in names])
    kept = (number < 12) == np.char.startswith(names, "P")  # faces of some people, voices of the others
    path = write_vectors(folder / "apart.npz", lists, people_vectors(lists)[kept], path=names[kept])
    some = Measured(read_sample_vectors(path, lists, allow_missing=True))
    told, whole = (report_on(lists, centred(lists, one), draws=20) for one in (some, good))
    for way, figures in told["retrieval"].items():
        assert figures.keys() == whole["retrieval"][way].keys() and figures["probes"] == 0
    nothing = {"map_before": None, "difference": None, "ci95": None}
    assert told["retrieval"]["face_to_voice"]["gained"] == nothing
    json.dumps(told, allow_nan=False)
    assert "  the mean of such probes is taken from each; as they are mAP -" in as_protocol_table(told).splitlines()
    text = as_markdown(told)
    assert "as they are, mAP is – %." in text and "nan" not in text


# What is not there


def test_trials_without_vectors_are_left_out_for_everybody_and_counted(folder: Path, lists: TrialLists) -> None:
    given, names = people_vectors(lists), all_names(lists)
    kept = np.array([not name.startswith(("Person_00/", "id10002/")) for name in names])
    path = write_vectors(folder / "fewer.npz", lists, given[kept], path=np.array(names)[kept])
    some = Measured(read_sample_vectors(path, lists, allow_missing=True))
    told = report_on(lists, some, intervals=False)
    assert told["retrieval"]["voice_to_face"]["gallery"] == 92 and told["retrieval"]["voice_to_face"]["probes"] == 88
    oracles = told["oracles"]["gender"]["retrieval"]["voice_to_face"]
    assert (oracles["gallery"], oracles["probes"]) == (92, 88)
    assert told["protocol"]["left_out"]["retrieval_samples"] == 8 and told["protocol"]["left_out"]["pairs"] > 0
    assert {one["count"] for one in told["unusable"]} == {4}


def test_lists_without_a_single_usable_trial_have_no_figure(folder: Path, lists: TrialLists) -> None:
    names = np.array(all_names(lists))
    kept = np.array([int(name[7:9] if name.startswith("P") else name[5:7]) - (name[0] == "i") < 24 for name in names])
    path = write_vectors(folder / "unseen.npz", lists, people_vectors(lists)[kept], path=names[kept])
    told = report_on(lists, Measured(read_sample_vectors(path, lists, allow_missing=True)), draws=20)
    assert told["verification"][SEEN]["U"] == {
        "auc": None, "eer": None, "ci95": None, "eer_ci95": None, "chance": 0.5, "chance_eer": 0.5,
        "pairs": 0, "genuine_pairs": 0,
    }  # fmt: skip
    assert told["verification"][UNSEEN]["U"]["auc"] > 0.5


def test_nothing_at_all_is_an_error(lists: TrialLists) -> None:
    with pytest.raises(NothingToMeasure, match="no sample of the lists"):
        report_on(lists, Measured(SampleVectors.nothing(lists, 3)))


def test_a_drawn_prefix_is_a_trial_of_its_size(lists: TrialLists, good: Measured) -> None:
    """1:2 of the drawn lists is their first two candidates, also for a protocol without 1:2 lists of its own."""
    bare = with_drawn(replace(lists, matching={}, matching_1_to_n={}, drawn={}))
    key = VOICE, "U"
    assert isinstance(bare.matching[key], CandidateList)
    np.testing.assert_array_equal(bare.matching[key].candidates, bare.matching_1_to_n[key].candidates[:, :2])
    told = report_on(bare, good, intervals=False)
    assert told["matching"]["voice_to_face"]["U"] == told["matching_1_to_n"]["voice_to_face"]["U"]["2"]
    assert told["protocol"]["drawn"]["matching_1_to_2"] is True
