"""Old and new model on the same probes, against figures worked out one probe at a time."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from encoders.space import Embedding, Modality, Space
from search import metrics
from search.comparison import NOBODY_WITH_BOTH, compare_models
from search.store import MemoryStore, Row, row_key

OLD, NEW = Space("shared", 6, "a" * 64), Space("shared", 8, "b" * 64)
PEOPLE = [*(["ann", "bob", "cid", "dor", "eve"] * 3), *[""] * 6]


def vector(space: Space, modality: Modality, number: int, noise: float) -> np.ndarray:
    """Of the sample with a number: near its person's own direction, the nearer the less noise."""
    own = np.random.default_rng(hash_of(PEOPLE[number] or f"track {number}")).normal(size=space.dimension)
    drawn = np.random.default_rng([number, space.dimension, modality is Modality.FACE])
    return own + noise * drawn.normal(size=space.dimension)


def hash_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def make_row(space: Space, modality: Modality, number: int, noise: float) -> Row:
    media, evidence = f"{number:064x}", f"{number}-{modality}"
    embedding = Embedding.of(space, modality, vector(space, modality, number, noise))
    key = row_key(media, modality, (0, 1000), evidence, space)
    return Row(key, embedding, media, 0, (0, 1000), evidence, PEOPLE[number])


def filled(store: MemoryStore, space: Space, noise: float, without: set[int] = frozenset()) -> dict[int, list[Row]]:  # type: ignore[assignment]
    rows = {
        number: [make_row(space, modality, number, noise) for modality in Modality]
        for number in range(len(PEOPLE))
        if number not in without
    }
    store.upsert(space, [row for held in rows.values() for row in held])
    return rows


def mean_precision(rows: dict[int, list[Row]], tracks: bool) -> float:
    """One probe after the other."""
    values = []
    for probe in Modality:
        gallery = [row for held in rows.values() for row in held if row.embedding.modality is probe.other]
        gallery = [row for row in gallery if tracks or row.person]
        for row in (row for held in rows.values() for row in held if row.embedding.modality is probe and row.person):
            scores = [float(row.embedding.vector @ other.embedding.vector) for other in gallery]
            values.append(metrics.average_precision(scores, [other.person == row.person for other in gallery]))
    return float(np.mean(values))


def test_both_models_are_measured_as_one_probe_after_the_other_would_be() -> None:
    store = MemoryStore()
    old, new = filled(store, OLD, 2.0), filled(store, NEW, 0.8)
    told = compare_models(store, OLD, NEW)
    assert told["old"] == pytest.approx(mean_precision(old, tracks=False), abs=1e-6)
    assert told["new"] == pytest.approx(mean_precision(new, tracks=False), abs=1e-6)
    assert (told["probes"], told["people"], told["left_out"], told["note"]) == (30, 5, 0, None)
    among = told["with_tracks"]
    assert among["new"] == pytest.approx(mean_precision(new, tracks=True), abs=1e-6) and among["tracks"] == 12
    assert among["old"] == pytest.approx(mean_precision(old, tracks=True), abs=1e-6) and not among["sampled"]
    assert told["voice_to_face"]["gallery"] == 15 and among["face_to_voice"]["gallery"] == 21


def test_the_difference_and_its_interval_are_of_the_same_probes() -> None:
    store = MemoryStore()
    filled(store, OLD, 1.2), filled(store, NEW, 0.1)
    told = compare_models(store, OLD, NEW)
    gained, (low, high) = told["difference"]["mean"], told["difference"]["ci95"]
    assert gained == pytest.approx(told["new"] - told["old"]) and low <= gained <= high and low > 0
    assert told["old_ci95"][0] <= told["old"] <= told["old_ci95"][1] and told["chance"] < told["old"] < told["new"]
    assert compare_models(store, NEW, NEW)["difference"] == {"mean": 0.0, "ci95": [0.0, 0.0]}


def test_what_one_model_could_not_use_is_left_out_for_both() -> None:
    store = MemoryStore()
    old, new = filled(store, OLD, 1.0, without={0, 7}), filled(store, NEW, 1.0)
    told = compare_models(store, OLD, NEW)
    both = {number: held for number, held in new.items() if number in old}
    assert (told["left_out"], told["probes"]) == (4, 26)
    assert told["new"] == pytest.approx(mean_precision(both, tracks=False), abs=1e-6)


def test_the_first_model_is_measured_alone() -> None:
    store = MemoryStore()
    new = filled(store, NEW, 1.0)
    told = compare_models(store, None, NEW)
    assert told["old"] is told["difference"] is told["old_ci95"] is None
    assert told["new"] == pytest.approx(mean_precision(new, tracks=False), abs=1e-6)


def test_a_sample_of_a_large_archive_is_the_same_for_both() -> None:
    store = MemoryStore()
    old, new = filled(store, OLD, 1.0), filled(store, NEW, 1.0)
    among = compare_models(store, OLD, NEW, most_tracks=20)["with_tracks"]
    assert among["sampled"] and 0 < among["tracks"] < 12
    assert among["voice_to_face"]["gallery"] + among["face_to_voice"]["gallery"] == 30 + among["tracks"]
    assert len(old) == len(new)


@pytest.mark.parametrize("kept", [set(), {Modality.FACE}])
def test_where_nobody_is_enrolled_with_both_it_says_so(kept: set[Modality]) -> None:
    store = MemoryStore()
    store.create(NEW)
    store.upsert(NEW, [make_row(NEW, modality, number, 1.0) for modality in kept for number in range(4)])
    told = compare_models(store, None, NEW)
    assert told["note"] == NOBODY_WITH_BOTH and told["new"] is told["with_tracks"] is None and told["probes"] == 0


def test_each_model_asks_without_its_own_centres() -> None:
    store = MemoryStore()
    old, new = filled(store, OLD, 2.0), filled(store, NEW, 0.8)
    centre = np.random.default_rng(8).normal(size=NEW.dimension)
    centre *= 0.5 / np.linalg.norm(centre)
    told = compare_models(store, OLD, NEW, probe_centres={"new": {Modality.FACE: centre}})
    plain = compare_models(store, OLD, NEW)
    assert told["old"] == plain["old"] == pytest.approx(mean_precision(old, tracks=False), abs=1e-6)
    assert told["voice_to_face"]["new"] == plain["voice_to_face"]["new"]
    gallery = [row for held in new.values() for row in held if row.embedding.modality is Modality.VOICE]
    expected = []
    for row in (row for held in new.values() for row in held if row.embedding.modality is Modality.FACE and row.person):
        for some, tracks in (([one for one in gallery if one.person], False), (gallery, True)):
            scores = [float((row.embedding.vector - centre) @ other.embedding.vector) for other in some]
            expected.append((tracks, metrics.average_precision(scores, [one.person == row.person for one in some])))
    for tracks, figures in ((False, told), (True, told["with_tracks"])):
        mean = np.mean([value for among, value in expected if among is tracks])
        assert figures["face_to_voice"]["new"] == pytest.approx(mean, abs=1e-6)
    assert told["face_to_voice"]["new"] != pytest.approx(plain["face_to_voice"]["new"], abs=1e-3)
    # the same rows asked in two ways: what asking without a centre is worth
    apart = compare_models(store, NEW, NEW, probe_centres={"new": {Modality.FACE: centre}})
    assert apart["old"] == plain["new"] and apart["difference"]["mean"] == pytest.approx(told["new"] - plain["new"])
