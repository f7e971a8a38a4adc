"""The report of a protocol as a page and as text, on lists in the published form."""

from __future__ import annotations

import re
import xml.etree.ElementTree as Xml
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from encoders.space import Modality
from search.generated_lists import with_drawn
from search.protocol_report import Measured, report_on
from search.published_lists import read_trial_lists
from search.report_page import as_html, as_markdown
from search.report_pictures import EXAMPLES, HITS_SHOWN, Example, Found, examples, pictures
from search.report_tables import Table, facts, tables
from search.sample_vectors import SampleVectors, read_sample_vectors
from search.thumbnails import thumbnails
from search.trial_lists import TrialLists
from tests.search.protocol_vectors import people_vectors, write_vectors
from tests.search.small_lists import write_small_lists


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> TrialLists:
    return with_drawn(read_trial_lists(write_small_lists(tmp_path_factory.mktemp("lists"))))


def drawn_around_people(folder: Path, lists: TrialLists, noise: float) -> SampleVectors:
    return read_sample_vectors(write_vectors(folder / "some.npz", lists, people_vectors(lists, noise)), lists)


@pytest.fixture(scope="module")
def vectors(lists: TrialLists, tmp_path_factory: pytest.TempPathFactory) -> SampleVectors:
    return drawn_around_people(tmp_path_factory.mktemp("good"), lists, 0.7)


@pytest.fixture(scope="module")
def worse(lists: TrialLists, tmp_path_factory: pytest.TempPathFactory) -> SampleVectors:
    return drawn_around_people(tmp_path_factory.mktemp("worse"), lists, 3.0)


@pytest.fixture(scope="module")
def report(lists: TrialLists, vectors: SampleVectors, worse: SampleVectors) -> dict[str, Any]:
    told = report_on(lists, Measured(vectors), other=Measured(worse), draws=20)
    return told | {"test_evaluations": {"number": 1}}


def numbers_of(table: Table, name: str) -> list[str]:
    return list(next(row for row in table.rows if row[0] == name))


def test_tables_say_what_the_report_says(report: dict[str, Any]) -> None:
    titles = [table.title for table in tables(report)]
    retrieval = tables(report)[0]
    told = report["retrieval"]["voice_to_face"]
    low, high = told["ci95"]
    assert numbers_of(retrieval, "mAP")[1:4] == [
        f"{100 * told['map']:.2f}", f"{100 * low:.2f} to {100 * high:.2f}", f"{100 * told['chance']:.2f}",
    ]  # fmt: skip
    oracle = report["oracles"]["gender"]["retrieval"]["voice_to_face"]["map"]
    assert numbers_of(retrieval, "mAP")[4] == f"{100 * oracle:.2f}"
    for kind in (
        "Verification, un",
        "Verification, seen",
        "Matching 1:2",
        "By sex",
        "By nationality",
        "Beside another",
    ):
        assert any(title.startswith(kind) for title in titles), kind
    by_number = next(table for table in tables(report) if table.title == "Matching 1:N, voice → face")
    assert by_number.head[1:] == tuple(f"1:{number}" for number in range(2, 11))
    assert numbers_of(by_number, "chance")[1] == "50.00" and numbers_of(by_number, "chance")[-1] == "10.00"


def test_a_report_without_intervals_or_another_model_has_tables_too(lists: TrialLists, vectors: SampleVectors) -> None:
    plain = report_on(lists, Measured(vectors), intervals=False)
    titles = [table.title for table in tables(plain)]
    assert titles and not any(title.startswith("Beside another") for title in titles)
    assert numbers_of(tables(plain)[0], "mAP")[2] == ""
    assert dict(facts(plain))["trained on"] == "not stated"


def test_agreement_of_labels_is_a_table_where_it_was_measured(report: dict[str, Any]) -> None:
    told = {"8": {"agreement": 0.77, "chance": 0.2, "pairs": 1280, "batch": 128}}
    table = next(one for one in tables(report | {"label_agreement": told}) if "clusters" in one.head)
    assert table.rows == (("8", "77.00", "20.00", "1,280"),)
    assert not any("clusters" in one.head for one in tables(report))


def test_markdown_has_every_table_with_its_cells_apart(report: dict[str, Any]) -> None:
    text = as_markdown(report)
    for table in tables(report):
        assert f"## {table.title}" in text
        rows = text.partition(f"## {table.title}\n")[2].strip("\n").partition("\n\n")[0].splitlines()
        assert len(rows) == len(table.rows) + 2
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(table.head) + 1}


def test_words_from_outside_stay_words(report: dict[str, Any]) -> None:
    evil = "<script>alert(1)</script> | [x](javascript:y)"
    told = report | {"model": report["model"] | {"trained_on": evil}}
    page, text = as_html(told, []), as_markdown(told)
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "<script" not in text and "[x](" not in text
    shown = Example("voice_to_face", f"{evil}.wav", evil, (Found(f"{evil}.jpg", right=True),))
    assert "<script" not in as_html(report, [], [shown])


def test_the_page_holds_everything_and_fetches_nothing(
    report: dict[str, Any], lists: TrialLists, vectors: SampleVectors, worse: SampleVectors
) -> None:
    drawn = pictures(report, lists, vectors, worse)
    page = as_html(report, drawn, examples(lists, vectors))
    assert page.count("<svg") == len(drawn) and page.count("<table") == len(tables(report))
    titles = {one.title for one in drawn}
    maps = ("People (PCA)", "People (t-SNE)", "The voices alone (t-SNE)")
    for kind in ("ROC", "DET", "Scores of pairs", "Cumulative match", "Matching 1:N", *maps):
        assert any(title.startswith(kind) for title in titles), kind
    assert sum(title.endswith("side by side in two models") for title in titles) == len(maps)
    assert not re.search(r"<(script|link|iframe|img|object)\b|\bsrc=|@import|url\((?!#)", page)
    for one in drawn:
        Xml.fromstring(one.svg)


def test_examples_are_the_first_answers_and_the_right_ones_are_boxed(
    report: dict[str, Any], lists: TrialLists, vectors: SampleVectors
) -> None:
    shown = examples(lists, vectors)
    assert [one.way for one in shown] == ["voice_to_face"] * EXAMPLES + ["face_to_voice"] * EXAMPLES
    assert examples(lists, vectors) == shown and examples(lists, vectors, seed=1) != shown
    faces = lists.catalogues[Modality.FACE]
    for one in shown[:EXAMPLES]:
        probe = lists.catalogues[Modality.VOICE].row[one.probe]
        scores = vectors.pairs(np.full(len(faces.paths), probe, np.int32), np.arange(len(faces.paths), dtype=np.int32))
        searched = lists.retrieval[Modality.FACE]
        best = searched[np.argsort(-scores[searched], kind="stable")[:HITS_SHOWN]]
        assert [found.path for found in one.found] == [faces.paths[row] for row in best]
        own = lists.catalogues[Modality.VOICE].person[probe]
        assert [found.right for found in one.found] == (faces.person[best] == own).tolist()
    right = sum(found.right for one in shown for found in one.found)
    assert 0 < right < len(shown) * HITS_SHOWN and as_html(report, [], shown).count('"sample right"') == right


def test_examples_are_asked_without_the_centre_of_the_probes(lists: TrialLists, vectors: SampleVectors) -> None:
    centre = np.random.default_rng(2).normal(size=vectors.vectors.shape[1]) / 20
    plain, shown = examples(lists, vectors), examples(lists, replace(vectors, probe_centres={Modality.FACE: centre}))
    assert shown[:EXAMPLES] == plain[:EXAMPLES] and shown[EXAMPLES:] != plain[EXAMPLES:]
    voices, searched = lists.catalogues[Modality.VOICE], lists.retrieval[Modality.VOICE]
    sides = vectors.sides(lists)
    place = {lists.catalogues[Modality.FACE].paths[row]: at for at, row in enumerate(lists.retrieval[Modality.FACE])}
    for one in shown[EXAMPLES:]:
        probe = sides[Modality.FACE].vectors[place[one.probe]] - centre
        best = np.argsort(-(sides[Modality.VOICE].vectors @ probe), kind="stable")[:HITS_SHOWN]
        assert [found.path for found in one.found] == [voices.paths[searched[row]] for row in best]


def test_faces_are_shown_where_their_files_are(report: dict[str, Any], lists: TrialLists, tmp_path: Path) -> None:
    path, other = lists.catalogues[Modality.FACE].paths[:2]
    place = tmp_path / path
    place.parent.mkdir(parents=True)
    Image.new("RGB", (100, 200), (90, 90, 90)).save(place)
    seen = thumbnails(lists, tmp_path)
    small = seen(path)
    assert small is not None and small[:2] == b"\xff\xd8" and len(small) < 4000
    assert seen(other) is None and seen(lists.catalogues[Modality.VOICE].paths[0]) is None
    place.write_bytes(b"no picture")
    assert seen(path) is None
    shown = Example("voice_to_face", "a.wav", "Ann", (Found(path, right=True),))
    page = as_html(report, [], [shown], lambda _path: small)
    assert page.count("data:image/jpeg;base64,/9j/") == 2


def test_a_row_of_another_width_is_no_table() -> None:
    with pytest.raises(ValueError, match="needs 2 cells"):
        Table("x", ("a", "b"), (("1",),))
