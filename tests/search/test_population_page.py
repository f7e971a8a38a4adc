"""The report on invented people as a page and a text: the figures of exact search, and the ceiling beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.space import Modality, Space
from search.crossmodal import evaluate_protocol
from search.points import Points
from search.population_page import as_lists_report
from search.protocol_report import with_all_lists
from search.protocols import Protocol, read_protocol
from search.published_lists import read_trial_lists
from search.report_page import as_html, as_markdown
from search.report_pictures import examples
from search.report_tables import tables
from search.sample_vectors import SampleVectors
from search.trial_lists import TrialLists
from tests.search.small_protocol import ceiling_points, write_small_protocol


@dataclass(frozen=True)
class Known:
    """A model that knows how people were made."""

    space: Space
    domain: str = "invented people"
    trained_on: str = "other invented people"
    identities: frozenset[str] = frozenset({"Somebody_00000001"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_protocol(tmp_path_factory.mktemp("protocol"), people=30, samples=3)


@pytest.fixture(scope="module")
def told(folder: Path) -> tuple[dict[str, Any], dict[str, Any], TrialLists, SampleVectors]:
    protocol: Protocol = read_protocol(folder)
    points: Points = ceiling_points(protocol)
    report, lists = evaluate_protocol(protocol, points, draws=20), read_trial_lists(folder)
    report["label_agreement"] = {"8": {"agreement": 0.5, "chance": 0.25, "pairs": 90, "batch": 128}}
    page, vectors = as_lists_report(report, lists, points, Known(points.space), intervals=False)
    return report, page, lists, vectors


def test_a_model_that_reaches_the_ceiling_is_shown_to_reach_it(told: tuple[Any, ...]) -> None:
    report, page, _, _ = told
    for way, figures in page["retrieval"].items():
        assert figures["map"] == pytest.approx(report["retrieval"][way]["map_exact"], abs=1e-6)
        assert figures["ceiling"] == pytest.approx(figures["map"], abs=1e-6)
        assert page["matching_1_to_n"][way]["U"]["5"]["ceiling"] is not None
    retrieval, verification = (
        next(table for table in tables(page) if table.title.startswith(words))
        for words in ("Retrieval", "Verification")
    )
    (both,) = next(table for table in tables(page) if table.title == "Retrieval, mean of both ways").rows
    means = sum(figures["map"] for figures in page["retrieval"].values()) / 2
    assert both[1] == f"{100 * means:.2f}"
    assert retrieval.head[-1] == "ceiling" and retrieval.rows[0][-1] == retrieval.rows[0][1]
    assert verification.head[-2] == "AUC, ceiling" and verification.rows[0][-2] == verification.rows[0][1]
    by_number = next(table for table in tables(page) if table.title.startswith("Matching 1:N"))
    assert by_number.rows[-1][0] == "ceiling, U" and by_number.rows[-1][1:] == by_number.rows[0][1:]


def test_the_page_asks_as_the_report_does(folder: Path) -> None:
    points = ceiling_points(read_protocol(folder))
    random = np.random.default_rng(3).normal(size=points.space.dimension)
    points = replace(points, probe_centres={Modality.FACE: 0.5 * random / np.linalg.norm(random)})
    report, lists = evaluate_protocol(read_protocol(folder), points, draws=20), read_trial_lists(folder)
    page, vectors = as_lists_report(report, lists, points, Known(points.space), intervals=False)
    figures = report["retrieval"]["face_to_voice"]
    assert page["retrieval"]["face_to_voice"]["map"] == pytest.approx(figures["map_exact"], abs=1e-6)
    assert abs(figures["gained"]["difference"]) > 1e-3
    assert page["model"]["centred_probes"] == report["model"]["centred_probes"] == ["face"]
    gained = page["retrieval"]["face_to_voice"]["gained"]
    for name in ("map_before", "difference"):
        assert gained[name] == pytest.approx(figures["gained"][name], abs=1e-6)
    page["retrieval"]["face_to_voice"] |= {
        "index_depth": 9, "map_at_1000": 0.5, "map_at_1000_exact": 0.5, "index_recall": 1.0
    }  # fmt: skip
    text = as_markdown(page)
    assert (
        "The mean of such probes is taken from each; as they are" in text
        and "Through the index, first 9 answers" in text
    )
    completed = with_all_lists({}, lists, points, intervals=False)
    assert completed["retrieval"]["face_to_voice"]["map"] == pytest.approx(figures["map_exact"], abs=1e-6)
    assert "gained" not in page["retrieval"]["voice_to_face"] and set(vectors.applied) == {Modality.FACE}


def test_what_was_measured_besides_is_on_the_page_too(told: tuple[Any, ...]) -> None:
    assert "| 8 | 50.00 | 25.00 | 90 |" in as_markdown(told[1])


def test_the_page_and_the_text_tell_who_was_measured(told: tuple[Any, ...]) -> None:
    report, page, lists, vectors = told
    html = as_html(page, [], examples(lists, vectors))
    text = as_markdown(page)
    for words in ("Voices and faces of small", "other invented people", report["protocol"]["digest"][:12], "ceiling"):
        assert words in html and words in text
    assert html.count('class="sample probe"') == 12
