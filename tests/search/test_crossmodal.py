"""The cross-modal evaluation: by hand, at its two ends, and on the published lists."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from encoders.space import Modality, Space, SpaceMismatch
from search.crossmodal import Points, SeenInTraining, evaluate_protocol
from search.evaluation import NothingToMeasure
from search.milvus import MilvusStore
from search.protocols import Lists, Protocol, Samples, Trials, read_protocol
from search.store import Hit, MemoryStore
from tests.search.small_protocol import ceiling_points, points_of, published_lists, write_small_protocol

FACE, VOICE = Modality.FACE, Modality.VOICE


@dataclass(frozen=True)
class Stated:
    """What is said about a model."""

    space: Space
    domain: str = "invented people"
    trained_on: str = "600 other invented people"
    identities: frozenset[str] = frozenset({"Trained_aaaaaaaa"})


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    """60 people with 4 faces and 4 voices each."""
    return read_protocol(write_small_protocol(tmp_path_factory.mktemp("protocol"), people=60, samples=4))


def every_path(protocol: Protocol) -> list[str]:
    return [path for modality in Modality for path in protocol.samples(modality).paths]


def angle(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


# By hand: Ann and Cleo are women, Bob is a man. Cosines fall with the angle between voice and face:
#           face a 0°   face b 40°   face c 100°
# voice a 10°    10          30           90       a b c   its own first
# voice b 90°    90          50           10       c b a   its own second
# voice c 35°    35           5           65       b a c   its own last
BY_HAND = {
    "ann/f": angle(0), "bob/f": angle(40), "cleo/f": angle(100),
    "ann/v": angle(10), "bob/v": angle(90), "cleo/v": angle(35),
}  # fmt: skip


@pytest.fixture
def by_hand() -> Protocol:
    names = ("ann", "bob", "cleo")
    retrieval = {
        one: Samples(tuple(f"{name}/{'v' if one is VOICE else 'f'}" for name in names), names) for one in Modality
    }
    trials = Trials(
        ("ann/v", "bob/v", "cleo/v", "ann/v", "bob/v"),
        ("ann/f", "bob/f", "cleo/f", "cleo/f", "ann/f"),
        (True, True, True, False, False),
    )
    voices = Lists(
        ("ann/v", "bob/v", "cleo/v"),
        (("ann/f", "bob/f", "cleo/f"), ("bob/f", "ann/f", "cleo/f"), ("cleo/f", "ann/f", "bob/f")),
    )
    faces = Lists(("ann/f",), (("ann/v", "bob/v", "cleo/v"),))
    return Protocol(
        "by hand", "three people", "d" * 64, "e" * 64, Path("media"), frozenset(names), frozenset(), frozenset(),
        {"ann": "f", "bob": "m", "cleo": "f"}, {}, retrieval, {"U": trials}, {(VOICE, "U"): voices, (FACE, "U"): faces},
        {path: vector * 7 for path, vector in BY_HAND.items()},
    )  # fmt: skip


def test_retrieval_worked_out_by_hand(by_hand: Protocol) -> None:
    told = evaluate_protocol(by_hand, points_of(by_hand, BY_HAND), MemoryStore(), draws=20)["retrieval"]
    voices = told["voice_to_face"]
    assert voices["map"] == voices["map_exact"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert (voices["recall_at_1"], voices["recall_at_5"]) == (pytest.approx(1 / 3), 1.0)
    assert voices["mrr"] == voices["map"]  # with one right face each
    # faces: a -> voices a c b; b -> c a b; c -> b c a
    assert told["face_to_voice"]["map"] == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)
    assert voices["chance"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    # one of two women, or the only man
    assert voices["gender_oracle"] == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    assert (voices["gallery"], voices["probes"], voices["people"]) == (3, 3, 3)


def test_verification_worked_out_by_hand(by_hand: Protocol) -> None:
    told = evaluate_protocol(by_hand, points_of(by_hand, BY_HAND), draws=20)["verification"]
    # genuine at 10°, 50°, 65°; impostors at 90°, 90°
    assert (told["auc"], told["eer"], told["pairs"], told["genuine_pairs"]) == (1.0, 0.0, 5, 3)
    # the sexes agree in all genuine pairs and in one impostor pair of two
    assert told["gender_oracle_auc"] == pytest.approx(1 / 2 + 1 / 4)
    assert told["chance_auc"] == told["chance_eer"] == 0.5


def test_matching_worked_out_by_hand(by_hand: Protocol) -> None:
    told = evaluate_protocol(by_hand, points_of(by_hand, BY_HAND), draws=20)["matching_1_to_n"]
    voices = told["voice_to_face"]["all"]
    # a beats b; b beats a; c loses to a. Then a beats c too, b loses to c.
    assert voices["2"]["accuracy"] == pytest.approx(2 / 3) and voices["3"]["accuracy"] == pytest.approx(1 / 3)
    # a: b is a man; b: only he is one; c: a is a woman too. With c and b in, a and c tie with one woman each
    assert voices["2"]["gender_oracle"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert voices["3"]["gender_oracle"] == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    assert (voices["3"]["chance"], voices["3"]["trials"]) == (pytest.approx(1 / 3), 3)


def hub_points(protocol: Protocol, centres: dict[Modality, np.ndarray]) -> Points:
    """Every sample is its person's own direction; faces share another one, which is also that of one person's voices.

    Those voices come first for every face, before the person's own, and nowhere else in the way.
    """
    people = sorted(protocol.identities)
    own = np.eye(len(people) + 1)
    vectors = {}
    for modality in Modality:
        for path in protocol.samples(modality).paths:
            place = people.index(protocol.person_of(path))
            shared = 0.8 if modality is FACE else 0.95 if place == 0 else 0.0
            vectors[path] = np.sqrt(1 - shared**2) * own[place] + shared * own[-1]
    return replace(points_of(protocol, vectors), probe_centres=centres)


def test_a_hub_stands_before_everybody_until_its_centre_is_taken_from_the_probes(protocol: Protocol) -> None:
    direction = np.eye(len(protocol.identities) + 1)[-1]
    plain = evaluate_protocol(protocol, hub_points(protocol, {}), MemoryStore(), draws=20)
    centred = evaluate_protocol(protocol, hub_points(protocol, {FACE: 0.8 * direction}), MemoryStore(), draws=20)
    # of 60 people with 4 voices each, which tie, 59 find their own behind the 4 of one person
    behind = 4 / 8
    before = plain["retrieval"]["face_to_voice"]
    assert before["map"] == before["map_exact"] == pytest.approx((59 * behind + 1) / 60)
    after = centred["retrieval"]["face_to_voice"]
    assert after["map"] == after["map_exact"] == pytest.approx(1.0)
    assert after["gained"]["map_before"] == before["map_exact"]
    assert after["gained"]["difference"] == pytest.approx(1 - before["map"])
    low, high = after["gained"]["ci95"]
    assert 0 < low < after["gained"]["difference"] <= high
    assert after["ci95"] == [1.0, 1.0] and "gained" not in before
    # nothing else is asked in another way
    assert "gained" not in centred["retrieval"]["voice_to_face"]
    for name in ("verification", "matching_1_to_n"):
        assert centred[name] == plain[name]
    assert centred["retrieval"]["voice_to_face"] == plain["retrieval"]["voice_to_face"]
    assert (plain["model"]["centred_probes"], centred["model"]["centred_probes"]) == ([], ["face"])


def test_a_real_index_is_asked_without_the_centre_too(protocol: Protocol, tmp_path: Path) -> None:
    store = MilvusStore(str(tmp_path / "index.db"))
    points = ceiling_points(protocol)
    random = np.random.default_rng(3).normal(size=points.space.dimension)
    points = replace(points, probe_centres={one: 0.5 * random / np.linalg.norm(random) for one in Modality})
    try:
        report = evaluate_protocol(protocol, points, store, draws=20)
    finally:
        store.close()
    plain = evaluate_protocol(protocol, replace(points, probe_centres={}), draws=20)
    for way, figures in report["retrieval"].items():
        assert figures["map"] == pytest.approx(figures["map_exact"], abs=1e-9)
        assert figures["map_exact"] != pytest.approx(plain["retrieval"][way]["map"], abs=1e-4)


def test_the_true_latents_come_out_at_the_ceiling(protocol: Protocol) -> None:
    report = evaluate_protocol(protocol, ceiling_points(protocol), MemoryStore(), draws=20)
    for figures in report["retrieval"].values():
        assert figures["map"] == figures["map_exact"] == pytest.approx(figures["ceiling"], abs=2e-4)
        assert figures["ceiling"] > 0.3
        for name in ("recall_at_5", "mrr"):
            assert figures[name] == pytest.approx(figures["baselines"]["ceiling"][name], abs=1e-2)
    for figures in (report["verification"], report["verification"]["same_sex"]):
        assert figures["auc"] == pytest.approx(figures["ceiling_auc"], abs=1e-4) and figures["ceiling_auc"] > 0.85
        assert figures["eer"] == pytest.approx(figures["ceiling_eer"], abs=1e-3)
    for figures in _matching(report):
        assert figures["accuracy"] == pytest.approx(figures["ceiling"], abs=1e-2)


def _matching(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Figures of every matching task."""
    return [one for way in report["matching_1_to_n"].values() for kind in way.values() for one in kind.values()]


@pytest.mark.parametrize("through", [None, MemoryStore])
def test_a_constant_encoder_is_at_chance_by_every_figure(protocol: Protocol, through: Any) -> None:
    vector = np.random.default_rng(5).normal(size=128)
    points = points_of(protocol, dict.fromkeys(every_path(protocol), vector))
    report = evaluate_protocol(protocol, points, through and through(), draws=20)
    for figures in report["retrieval"].values():
        # all share one place: the share of right answers, which is at most what a random order finds
        assert figures["map"] == figures["map_exact"] == pytest.approx(4 / 240) and figures["map"] < figures["chance"]
        for name in ("recall_at_1", "recall_at_5", "recall_at_10", "mrr"):
            assert figures[name] == pytest.approx(figures["baselines"]["chance"][name])
    for figures in (report["verification"], report["verification"]["same_sex"]):
        assert (figures["auc"], figures["eer"], figures["ci95"]) == (0.5, 0.5, [0.5, 0.5])
    assert all(figures["accuracy"] == pytest.approx(figures["chance"]) for figures in _matching(report))


def test_shuffled_people_are_at_chance_by_every_figure(protocol: Protocol) -> None:
    random = np.random.default_rng(11)
    good = ceiling_points(protocol)
    people = sorted(protocol.identities)
    other = dict(zip(people, random.permutation(people), strict=True))
    # a voice keeps its person's company, but gets the points of somebody else
    rows = {path: row for row, path in enumerate(good.paths[VOICE])}
    moved = [rows[f"{other[protocol.person_of(path)]}/{path.split('/')[1]}"] for path in good.paths[VOICE]]
    vectors = {FACE: good.vectors[FACE], VOICE: good.vectors[VOICE][moved]}
    report = evaluate_protocol(protocol, replace(good, vectors=vectors))
    for figures in report["retrieval"].values():
        assert figures["map"] == pytest.approx(figures["chance"], abs=0.012) and figures["ceiling"] > 0.3
        assert figures["recall_at_5"] == pytest.approx(figures["baselines"]["chance"]["recall_at_5"], abs=0.06)
    for figures in (report["verification"], report["verification"]["same_sex"]):
        assert figures["ci95"][0] < 0.5 < figures["ci95"][1] and figures["ceiling_auc"] > 0.85
        assert figures["eer_ci95"][0] < 0.5 < figures["eer_ci95"][1]
    for figures in _matching(report):
        assert figures["accuracy"] == pytest.approx(figures["chance"], abs=0.09) and figures["ceiling"] > 0.6


def test_figures_are_those_of_scikit_learn_on_the_full_matrix(protocol: Protocol) -> None:
    random = np.random.default_rng(2)
    vectors = {path: np.round(random.normal(size=3)) + np.array([0, 0, 9]) for path in every_path(protocol)}  # ties
    points = points_of(protocol, vectors)
    report = evaluate_protocol(protocol, points, MemoryStore(), draws=20)
    unit = {
        path: vector.astype(np.float64)
        for one in Modality
        for path, vector in zip(points.paths[one], points.vectors[one], strict=True)
    }
    voices, faces = protocol.retrieval[VOICE], protocol.retrieval[FACE]
    precision = [
        average_precision_score(
            [person == shown for shown in faces.people], np.float32([unit[path] @ unit[face] for face in faces.paths])
        )
        for path, person in zip(voices.paths, voices.people, strict=True)
    ]
    assert report["retrieval"]["voice_to_face"]["map_exact"] == pytest.approx(np.mean(precision))
    trials = protocol.verification["G"]
    scores = np.float32([unit[one] @ unit[two] for one, two in zip(trials.voices, trials.faces, strict=True)])
    assert report["verification"]["same_sex"]["auc"] == pytest.approx(roc_auc_score(trials.same, scores))


class Forgetful(MemoryStore):
    """An index that finds only the best quarter."""

    def search(self, probes: Any, top: int, **rest: Any) -> list[list[Hit]]:
        return super().search(probes, top // 4, **rest)


def test_what_an_index_misses_is_the_difference_to_exact_search(protocol: Protocol) -> None:
    report = evaluate_protocol(protocol, ceiling_points(protocol), Forgetful(), draws=20)
    whole = evaluate_protocol(protocol, ceiling_points(protocol), draws=20)
    for way, figures in report["retrieval"].items():
        assert figures["map"] < figures["map_exact"] == whole["retrieval"][way]["map"]
        assert figures["recall_at_1"] == pytest.approx(whole["retrieval"][way]["recall_at_1"], abs=0.01)
    assert report["index"] == "Forgetful" and whole["index"] is None


class Confused(MemoryStore):
    """An index that finds everything, but scores half of it wrongly."""

    def search(self, probes: Any, top: int, **rest: Any) -> list[list[Hit]]:
        return [
            [replace(hit, score=-hit.score) if hit.row.key < "8" else hit for hit in hits]
            for hits in super().search(probes, top, **rest)
        ]


def test_wrong_scores_of_an_index_show(protocol: Protocol) -> None:
    report = evaluate_protocol(protocol, ceiling_points(protocol), Confused(), draws=20)
    assert all(figures["map"] < 0.8 * figures["map_exact"] for figures in report["retrieval"].values())


def test_the_interval_is_of_the_figure_and_the_seed_decides_it(protocol: Protocol) -> None:
    points = ceiling_points(protocol)
    once, again, other = (evaluate_protocol(protocol, points, seed=seed) for seed in (1, 1, 2))
    assert once == again != other
    for told in (once["retrieval"]["voice_to_face"] | {"figure": "map"}, once["verification"] | {"figure": "auc"}):
        low, high = told["ci95"]
        assert low < told[told["figure"]] < high < low + 0.2


def test_the_order_in_which_the_points_come_does_not_matter(by_hand: Protocol) -> None:
    points = points_of(by_hand, BY_HAND)
    turned = Points(
        points.space,
        {one: paths[::-1] for one, paths in points.paths.items()},
        {one: vectors[::-1] for one, vectors in points.vectors.items()},
    )
    told, expected = (evaluate_protocol(by_hand, one, MemoryStore(), draws=20) for one in (turned, points))
    assert told == expected


def without(protocol: Protocol, points: Points, missing: set[str]) -> Points:
    """The same points, some left out."""
    return points_of(
        protocol,
        {
            path: vector
            for one in Modality
            for path, vector in zip(points.paths[one], points.vectors[one], strict=True)
            if path not in missing
        },
        points.space,
    )


def test_an_unusable_sample_is_left_out_for_everybody_and_named(by_hand: Protocol) -> None:
    points = without(by_hand, points_of(by_hand, BY_HAND), {"bob/f"})
    report = evaluate_protocol(by_hand, points, MemoryStore(), draws=20)
    assert report["unusable"] == [{"path": "bob/f", "modality": "face", "reason": "no vector was given for it"}]
    voices = report["retrieval"]["voice_to_face"]
    # Bob's voice has nobody to find; Ann's finds hers first, Cleo's hers second
    assert (voices["probes"], voices["gallery"], voices["map"]) == (2, 2, pytest.approx(0.75))
    assert voices["gender_oracle"] == pytest.approx(0.5) and voices["chance"] == pytest.approx(0.75)
    assert voices["ceiling"] == voices["map_exact"]
    told = report["verification"]
    assert (told["pairs"], told["genuine_pairs"], told["pairs_left_out"]) == (4, 2, 1)
    # the next candidate takes the place of one that is left out; without the right one there is no trial
    matching = report["matching_1_to_n"]["voice_to_face"]["all"]
    assert list(matching) == ["2"] and matching["2"]["trials"] == 2
    assert matching["2"]["accuracy"] == matching["2"]["gender_oracle"] == 0.5


def test_longer_lists_are_scored_on_the_trials_that_have_as_many_candidates(by_hand: Protocol) -> None:
    lists = Lists(("ann/v", "cleo/v"), (("ann/f", "bob/f", "cleo/f"), ("cleo/f", "ann/f", "lost/f")))
    odd = replace(by_hand, matching={(VOICE, "U"): lists}, also_called={"lost": "bob"})
    points = points_of(by_hand, BY_HAND)
    odd_ceiling = {**(by_hand.ceiling or {}), "lost/f": angle(0)}
    told = evaluate_protocol(replace(odd, ceiling=odd_ceiling), points, draws=20)["matching_1_to_n"]["voice_to_face"][
        "all"
    ]
    assert (told["2"]["trials"], told["3"]["trials"]) == (2, 1) and told["3"]["accuracy"] == 1.0


def test_the_report_says_who_was_measured_on_whom(protocol: Protocol) -> None:
    points = ceiling_points(protocol)
    report = evaluate_protocol(protocol, points, model=Stated(points.space), draws=20)
    about, model = report["protocol"], report["model"]
    assert (about["digest"], about["people"], about["samples"]["face"]) == ("d" * 64, 60, 240)
    assert model["space_digest"] == points.space.digest and model["trained_on"] == "600 other invented people"
    assert (model["domain"], model["identities"]) == ("invented people", 1)
    assert json.loads(json.dumps(report)) == report


def test_a_model_that_knows_the_test_people_is_refused(protocol: Protocol) -> None:
    points = ceiling_points(protocol)
    known = Stated(points.space, identities=frozenset(protocol.identities))
    with pytest.raises(SeenInTraining, match=r"60 of the 60 people .* and 57 more"):
        evaluate_protocol(protocol, points, model=known)


def test_points_of_another_space_than_the_model_s_are_refused(protocol: Protocol) -> None:
    points = ceiling_points(protocol)
    with pytest.raises(SpaceMismatch):
        evaluate_protocol(protocol, points, model=Stated(Space("shared", 3, "6" * 64)))


def test_without_a_ceiling_there_are_still_chance_and_the_gender_oracle(protocol: Protocol) -> None:
    report = evaluate_protocol(replace(protocol, ceiling=None), ceiling_points(protocol), draws=20)
    told = report["retrieval"]["voice_to_face"]
    assert told["ceiling"] is None and "ceiling" not in told["baselines"] and told["gender_oracle"] > 0
    assert report["verification"]["ceiling_auc"] is None and report["verification"]["gender_oracle_auc"] > 0.6


@pytest.mark.parametrize("lost", ["f", "v"])
def test_nothing_left_to_measure_is_an_error(by_hand: Protocol, lost: str) -> None:
    points = without(by_hand, points_of(by_hand, BY_HAND), {f"{name}/{lost}" for name in ("ann", "bob", "cleo")})
    with pytest.raises(NothingToMeasure, match="has a vector"):
        evaluate_protocol(by_hand, points)


def sexes(protocol: Protocol) -> Points:
    """A model that knows sexes and nothing else."""
    one_hot = {"f": np.array([1.0, 0.0]), "m": np.array([0.0, 1.0])}
    return points_of(protocol, {path: one_hot[protocol.sex[protocol.person_of(path)]] for path in every_path(protocol)})


def percent(value: float) -> float:
    return round(100 * value, 2)


def test_the_gender_oracle_on_the_published_lists_is_the_published_one() -> None:
    whole = read_protocol(published_lists())
    few = {one: Samples(samples.paths[::50], samples.people[::50]) for one, samples in whole.retrieval.items()}
    report = evaluate_protocol(replace(whole, retrieval=few), sexes(whole), draws=5)
    told = report["verification"]
    kinds = ("same_sex", "same_nationality", "same_age_group", "same_sex_nationality_and_age_group")
    areas = [percent(one["gender_oracle_auc"]) for one in (told, *(told[kind] for kind in kinds))]
    assert areas == [73.08, 50.86, 73.78, 70.94, 50.97]
    matching = {
        way: [percent(kind["2"]["gender_oracle"]) for kind in kinds.values()]
        for way, kinds in report["matching_1_to_n"].items()
    }
    assert matching == {"voice_to_face": [74.57, 50.0, 73.87, 50.0], "face_to_voice": [73.75, 50.0, 74.13, 50.0]}
    assert told["auc"] == told["gender_oracle_auc"]


@pytest.mark.long
def test_retrieval_over_all_published_samples_has_the_known_oracle_and_chance() -> None:
    protocol = read_protocol(published_lists())
    told = evaluate_protocol(protocol, sexes(protocol), draws=5)["retrieval"]
    assert [percent(told[way]["gender_oracle"]) for way in ("voice_to_face", "face_to_voice")] == [1.07, 1.08]
    assert [round(100 * figures["chance"], 3) for figures in told.values()] == [0.599, 0.599]
    assert all(figures["map"] == figures["gender_oracle"] for figures in told.values())


class Counting(MemoryStore):
    """Remembers how many hits it was asked for."""

    def search(self, probes: Any, top: int, **rest: Any) -> list[list[Hit]]:
        self.asked = top
        return super().search(probes, top, **rest)


def test_an_index_asked_for_the_first_hits_only_is_completed_by_exact_search(protocol: Protocol) -> None:
    points, store = ceiling_points(protocol), Counting()
    shallow = evaluate_protocol(protocol, points, store, depth=4, draws=20)["retrieval"]["voice_to_face"]
    assert store.asked == shallow["depth"] == 4 < shallow["gallery"]
    assert shallow["map"] == pytest.approx(shallow["map_exact"], rel=1e-6)


class Skipping(MemoryStore):
    """An index that misses the nearest."""

    def search(self, probes: Any, top: int, **rest: Any) -> list[list[Hit]]:
        return [hits[1:] for hits in super().search(probes, top + 1, **rest)]


def test_what_a_shallow_index_misses_costs_its_place_among_the_first(protocol: Protocol) -> None:
    points = ceiling_points(protocol)
    told = evaluate_protocol(protocol, points, Skipping(), depth=4, draws=20)["retrieval"]["voice_to_face"]
    assert told["map"] < told["map_exact"]


class Short(MemoryStore):
    """An index that has lost all but one row of each answer."""

    def search(self, probes: Any, top: int, **rest: Any) -> list[list[Hit]]:
        return [hits[:1] for hits in super().search(probes, top, **rest)]


def test_an_index_that_has_less_than_was_asked_for_is_not_completed(protocol: Protocol) -> None:
    told = evaluate_protocol(protocol, ceiling_points(protocol), Short(), depth=4, draws=20)["retrieval"]
    assert all(figures["map"] < 0.9 * figures["map_exact"] for figures in told.values())
