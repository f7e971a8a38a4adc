"""The tables for people say what the reports say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from encoders.space import Modality
from search.crossmodal import evaluate_protocol
from search.protocols import read_protocol
from search.report import as_table
from search.store import MemoryStore
from tests.search.small_protocol import ceiling_points, write_small_protocol

PEOPLE_REPORT: dict[str, Any] = {
    "retrieval": {
        "face_to_face": {
            "map": 0.5, "map_exact": 0.75, "ci95": [0.4, 0.6], "chance": 0.125, "probes": 4, "people_asked": 2,
            "gallery": 3, "people": 2, "recall_at_1": 0.25, "recall_at_5": 1.0, "recall_at_10": 1.0,
        }
    },
    "verification": {"face": {"auc": 0.875, "eer": 0.25, "genuine_pairs": 2, "pairs": 6}},
    "models": {"face_identity": {"trained_on": "many people"}},
    "unusable": [{"path": "a.jpg", "reason": "shows nothing"}],
    "duplicates": ["b.jpg is a.jpg"],
}  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of the true latents of 12 people, one face of which could not be used."""
    folder: Path = write_small_protocol(tmp_path_factory.mktemp("protocol"), people=12, samples=3)
    protocol = read_protocol(folder)
    points = ceiling_points(protocol)
    cut = {
        "paths": {one: paths[one is Modality.FACE :] for one, paths in points.paths.items()},
        "vectors": {one: vectors[one is Modality.FACE :] for one, vectors in points.vectors.items()},
        "people": {},
    }
    return evaluate_protocol(protocol, replace(points, **cut), MemoryStore(), draws=50)


def line_of(table: str, words: str, after: str = "") -> list[str]:
    """Cells of the first line that begins with these words, behind another text."""
    lines = table[table.index(after) :].splitlines()
    return next(line for line in lines if line.strip().startswith(words)).replace(words, "", 1).split()


def test_people_s_own_media_are_told_in_a_few_lines() -> None:
    table = as_table(PEOPLE_REPORT)
    assert "face to face: mAP 0.500 (95 % interval 0.400–0.600), exact 0.750, chance 0.125" in table
    assert "AUC 0.8750, EER 0.2500 (2 genuine of 6 pairs)" in table
    assert "unusable: a.jpg: shows nothing" in table and "counted once: b.jpg is a.jpg" in table


def test_each_figure_stands_between_chance_and_ceiling(report: dict[str, Any]) -> None:
    figures = report["retrieval"]["face_to_voice"]
    told = line_of(as_table(report), "mean average precision", after="A face looks")
    between = "–".join(f"{bound:.3f}" for bound in figures["ci95"])
    bounds = [f"{figures[name]:.3f}" for name in ("chance", "gender_oracle", "ceiling")]
    assert told == [f"{figures['map']:.3f}", between, *bounds, "100", "%"]


def test_the_share_of_the_way_is_counted_from_chance_also_for_errors(report: dict[str, Any]) -> None:
    half = {
        **report,
        "verification": {**report["verification"], "auc": 0.7, "ceiling_auc": 0.9, "eer": 0.4, "ceiling_eer": 0.1},
    }
    table = as_table(half)
    assert line_of(table, "AUC, any two people")[-2:] == ["50", "%"]
    assert line_of(table, "EER, any two people")[-2:] == ["25", "%"]


AGREEMENT = {
    "8": {"agreement": 0.77, "chance": 0.2, "pairs": 256, "batch": 128},
    "64": {"agreement": None, "chance": None, "pairs": 0, "batch": 128},
}


def test_agreement_of_labels_stands_beside_chance_where_there_were_people_enough(report: dict[str, Any]) -> None:
    table = as_table(report | {"label_agreement": AGREEMENT})
    assert line_of(table, "of 8 clusters") == ["0.770", "0.200", "-", "-", "-"]
    assert "of 64 clusters" not in table and "clusters" not in as_table(report)


def test_every_task_has_its_line(report: dict[str, Any]) -> None:
    table = as_table(report)
    for words in ("found first", "found in first 10", "1 of 2", "1 of 6, all of one sex", "EER, people of one sex"):
        assert line_of(table, words)
    sizes = report["matching_1_to_n"]["voice_to_face"]["all"]
    assert line_of(table, "1 of 2", after="A voice looks")[0] == f"{sizes['2']['accuracy']:.3f}"


def test_a_newcomer_is_told_what_the_words_mean(report: dict[str, Any]) -> None:
    table = as_table(report)
    for word in ("chance  ", "sex only  ", "ceiling  ", "of the way  ", "AUC  ", "EER  ", "mean reciprocal rank  "):
        assert word in table[table.index("How to read it") :]
    assert max(map(len, table.splitlines())) <= 120


def test_what_was_left_out_and_what_is_not_known_is_said(report: dict[str, Any]) -> None:
    table = as_table(report)
    assert (
        "1 samples could not be used" in table and "left out, unusable: face Person_000_00000000/face_00.jpg" in table
    )
    assert "Whom it was trained on is not stated" in table
    stated = {**report, "model": {**report["model"], "identities": 600, "trained_on": "600 people"}}
    assert "trained on: 600 people" in as_table(stated) and "none of these people" in as_table(stated)


def test_a_missing_ceiling_leaves_a_gap_and_not_a_number(report: dict[str, Any]) -> None:
    unknown = {**report["verification"], "ceiling_auc": None}
    assert line_of(as_table({**report, "verification": unknown}), "AUC, any two people")[-2:] == ["-", "-"]


def test_what_the_index_costs_is_said_where_it_costs_something(report: dict[str, Any]) -> None:
    assert "through the index" not in as_table(report)
    ways = report["retrieval"]
    worse = {**ways, "voice_to_face": {**ways["voice_to_face"], "map_exact": 0.987}}
    assert "through the index; searched exactly it is 0.987" in as_table({**report, "retrieval": worse})


def test_what_probes_gain_without_their_mean_is_said_where_they_ask_so(report: dict[str, Any]) -> None:
    assert "the mean of such probes" not in as_table(report)
    gained = {"map_before": 0.102, "difference": 0.0052, "ci95": [0.0022, 0.0087]}
    ways = report["retrieval"]
    told = as_table({**report, "retrieval": ways | {"face_to_voice": ways["face_to_voice"] | {"gained": gained}}})
    (line,) = [one for one in told.splitlines() if "the mean of such probes" in one]
    assert "as they are 0.102, +0.005 by that (+0.002 to +0.009)" in line
