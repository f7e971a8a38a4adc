"""``evaluate``: what it may be asked for; what it measures is tested where the measuring is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.cli import main
from search.generated_lists import with_drawn
from search.protocol_report import Measured, report_on
from search.published_lists import read_trial_lists
from search.sample_vectors import read_sample_vectors
from tests.encoders.shared_encoder import make_shared_encoder, say_of_probes
from tests.search.protocol_vectors import people_vectors, random_vectors, write_vectors
from tests.search.small_lists import write_small_lists
from tests.search.small_protocol import published_lists


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, str]]:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *arguments, "--json"])
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)["error"]


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VISAVOX_MODEL", raising=False)
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "say whom to measure on: --population (invented people), --people DIR"),
        (["--population", "--people", "."], "say whom to measure on"),
        (["--people", ".", "--model", "some"], "--model goes with --population"),
        (["--population", "--export", "points"], "ends in .npz"),
    ],
)
def test_wrong_usage_says_what_goes_together(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    code, error = evaluate(capsys, *arguments)
    assert code == 2 and error["type"] == "usage" and told in error["message"]


def test_without_a_model_it_says_how_to_get_one(capsys: pytest.CaptureFixture[str], empty_home: Path) -> None:
    code, error = evaluate(capsys, "--population")
    assert code == 3 and error["type"] == "no_model" and "visavox train bi_quintuple --population" in error["message"]
    assert not (empty_home / "population").exists()


def test_a_folder_that_is_no_model_is_refused_before_anybody_is_invented(
    capsys: pytest.CaptureFixture[str], empty_home: Path, tmp_path: Path
) -> None:
    code, error = evaluate(capsys, "--population", "--model", str(tmp_path))
    assert code == 3 and "is not an encoder folder" in error["message"]
    assert not (empty_home / "population").exists()


def test_an_export_that_cannot_be_written_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, error = evaluate(capsys, "--population", "--export", str(tmp_path / "none" / "points.npz"))
    assert code == 3 and "points.npz" in error["message"]


# On a protocol's lists


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_lists(tmp_path_factory.mktemp("protocol") / "small")


@pytest.fixture(scope="module")
def vectors(lists: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trials = read_trial_lists(lists)
    return write_vectors(tmp_path_factory.mktemp("vectors") / "some.npz", trials, people_vectors(trials))


def measured(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    main_ended(["evaluate", *map(str, arguments), "--json"])
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def main_ended(arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_embeddings_of_the_listed_names_are_all_that_is_needed(
    capsys: pytest.CaptureFixture[str], lists: Path, vectors: Path, empty_home: Path
) -> None:
    told = measured(capsys, "--protocol", lists, "--embeddings", vectors, "--no-intervals")
    for split in ("unseen_unheard", "seen_heard"):
        for group in ("U", "G", "N", "A", "GNA", "GN"):
            assert {"auc", "eer", "ci95", "pairs"} <= told["verification"][split][group].keys()
    for way in ("voice_to_face", "face_to_voice"):
        assert {"U", "G", "N", "GN"} == told["matching"][way].keys()
        assert told["matching_1_to_n"][way]["U"]["10"]["accuracy"] > 0.5
        assert told["retrieval"][way]["map"] > 0.3 > told["retrieval"][way]["chance"]
        assert told["oracles"]["gender_nationality"]["retrieval"][way]["map"] > told["retrieval"][way]["chance"]
    kept = empty_home / told["protocol"]["drawn_in"]
    assert (kept / "matching" / "matching_voice_to_face_U.csv").is_file() and told["protocol"]["drawn"]["seed"] == 20


def test_the_same_file_gives_the_same_report_and_another_counts_as_another_evaluation(
    capsys: pytest.CaptureFixture[str], lists: Path, vectors: Path, tmp_path: Path
) -> None:
    other = write_vectors(tmp_path / "other.npz", read_trial_lists(lists), random_vectors(read_trial_lists(lists)))
    asked = ("--protocol", lists, "--no-intervals", "--embeddings")
    first, second, again = (measured(capsys, *asked, one) for one in (vectors, other, vectors))
    assert first == again and (first["test_evaluations"], second["test_evaluations"]) == ({"number": 1}, {"number": 2})


def test_another_file_is_compared_and_people_can_read_it(
    capsys: pytest.CaptureFixture[str], lists: Path, vectors: Path, tmp_path: Path
) -> None:
    other = write_vectors(tmp_path / "other.npz", read_trial_lists(lists), random_vectors(read_trial_lists(lists)))
    asked = ["evaluate", "--protocol", lists, "--embeddings", vectors, "--compare", other, "--no-intervals"]
    assert main_ended([*map(str, asked)]) == 0
    table = capsys.readouterr().out
    assert "24 test people" in table and "gender+nat." in table and "More than vectors" in table


def test_what_was_scored_is_exported_and_scores_the_same(
    capsys: pytest.CaptureFixture[str], lists: Path, vectors: Path, tmp_path: Path
) -> None:
    asked = ("--protocol", lists, "--no-intervals", "--similarity", "euclidean", "--embeddings")
    first = measured(capsys, *asked, vectors, "--export", tmp_path / "out.npz")
    second = measured(capsys, *asked, tmp_path / "out.npz")
    assert first["retrieval"] == second["retrieval"] and first["verification"] == second["verification"]
    assert first["model"]["similarity"] == "euclidean"


def test_the_index_is_asked_at_the_size_of_the_gallery(
    capsys: pytest.CaptureFixture[str], lists: Path, vectors: Path
) -> None:
    told = measured(capsys, "--protocol", lists, "--embeddings", vectors, "--no-intervals", "--through", "milvus")
    assert told["index"] == "MilvusStore"
    for figures in told["retrieval"].values():
        assert figures["map_at_1000"] == pytest.approx(figures["map"], abs=1e-6) and figures["index_recall"] == 1.0


@pytest.fixture(scope="module")
def centred(lists: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same vectors, with a centre that is taken from voices when they ask."""
    trials, centre = read_trial_lists(lists), np.random.default_rng(2).normal(size=16) / 10
    place = tmp_path_factory.mktemp("vectors") / "centred.npz"
    return write_vectors(place, trials, people_vectors(trials), centre_voice=centre)


def test_a_file_that_says_how_probes_ask_is_asked_so_through_the_index_too(
    capsys: pytest.CaptureFixture[str], lists: Path, vectors: Path, centred: Path
) -> None:
    asked = ("--protocol", lists, "--through", "milvus", "--embeddings")
    plain, told = measured(capsys, *asked, vectors), measured(capsys, *asked, centred)
    figures, before = (one["retrieval"]["voice_to_face"] for one in (told, plain))
    assert figures["map_at_1000"] == pytest.approx(figures["map"], abs=1e-6) and figures["index_recall"] == 1.0
    assert figures["map"] != pytest.approx(before["map"], abs=1e-4)
    gained = figures["gained"]
    assert gained["map_before"] == pytest.approx(before["map"])
    assert gained["difference"] == pytest.approx(figures["map"] - before["map"])
    assert gained["ci95"][0] <= gained["difference"] <= gained["ci95"][1]
    assert told["retrieval"]["face_to_voice"] == plain["retrieval"]["face_to_voice"]
    assert (told["model"]["centred_probes"], plain["model"]["centred_probes"]) == (["voice"], [])
    # another way to ask is another evaluation, but for a similarity that it is not for
    assert (plain["test_evaluations"], told["test_evaluations"]) == ({"number": 1}, {"number": 2})
    asked = ("--protocol", lists, "--similarity", "euclidean", "--no-intervals", "--embeddings")
    plain, told = measured(capsys, *asked, vectors), measured(capsys, *asked, centred)
    assert told["retrieval"] == plain["retrieval"] and told["test_evaluations"] == plain["test_evaluations"]
    assert told["model"]["centred_probes"] == []


def test_vectors_of_a_model_are_asked_as_the_model_asks(
    capsys: pytest.CaptureFixture[str], lists: Path, tmp_path: Path
) -> None:
    trials, random = read_trial_lists(lists), np.random.default_rng(2)
    encoder = make_shared_encoder(tmp_path / "model")
    centre = (random.normal(size=encoder.space.dimension) / 40).tolist()
    asked = ("--protocol", lists, "--no-intervals", "--model", encoder.folder, "--embeddings")
    given = random_vectors(trials, encoder.space.dimension)
    stated = {"space": np.array("shared_test"), "space_digest": np.array(encoder.space.digest)}
    plain = write_vectors(tmp_path / "plain.npz", trials, given, **stated)
    written = write_vectors(tmp_path / "centred.npz", trials, given, **stated, centre_voice=np.array(centre))
    before = [measured(capsys, *asked, one) for one in (plain, written)]
    say_of_probes(encoder.folder, {"face": {"centre": centre}})
    after = [measured(capsys, *asked, one) for one in (plain, written)]
    for told, probes in ((before, []), (after, ["face"])):
        assert [one["model"]["centred_probes"] for one in told] == [probes, probes]
        assert told[0]["retrieval"] == told[1]["retrieval"]
    assert after[0]["retrieval"]["face_to_voice"]["map"] != before[0]["retrieval"]["face_to_voice"]["map"]


def test_the_d_split_s_lists_are_measured_likewise(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = published_lists().parent / "protocol_d"
    trials = read_trial_lists(folder)
    kept = {one: rows[::100] for one, rows in trials.retrieval.items()}
    small = replace(trials, retrieval=kept)
    path = write_vectors(tmp_path / "d.npz", small, random_vectors(small, 4))
    told = report_on(with_drawn(small), Measured(read_sample_vectors(path, small)), intervals=False)
    leaf = told["verification"]["unseen_unheard"]["U"]
    assert leaf["pairs"] == leaf["voice_to_face"]["pairs"] + leaf["face_to_voice"]["pairs"] == 125_778
    assert told["matching"]["face_to_voice"]["GN"]["accuracy"] == pytest.approx(0.5, abs=0.03)
    assert told["verification"]["unseen_unheard"].keys() == {"U", "G", "N", "GN"}
    assert told["verification"]["unseen_unheard"]["N"]["auc"] == pytest.approx(0.5, abs=0.03)
    assert told["protocol"]["drawn"]["matching_1_to_2"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--protocol", "LISTS"], 2, "needs either --media DIR"),
        (["--protocol", "LISTS", "--media", ".", "--embeddings", "VECTORS"], 2, "needs either --media DIR"),
        (["--population", "--embeddings", "VECTORS"], 2, "go with --protocol"),
        (["--population", "--no-intervals"], 2, "go with --protocol"),
        (["--protocol", "LISTS", "--embeddings", "VECTORS", "--similarity", "dot"], 2, "--similarity is cosine"),
        (["--protocol", "LISTS", "--embeddings", "VECTORS", "--through", "faiss"], 2, "--through is milvus"),
        (["--protocol", "LISTS", "--embeddings", "VECTORS", "--through", "milvus", "--similarity", "euclidean"], 2,
         "an index of cosines"),
        (["--protocol", "LISTS", "--embeddings", "VECTORS", "--compare", "folder"], 2, "names another .npz file"),
        (["--protocol", "nowhere", "--embeddings", "VECTORS"], 3, "nowhere: there is no such folder"),
        (["--protocol", ".", "--embeddings", "VECTORS"], 3, "the protocol is incomplete"),
        (["--protocol", "LISTS", "--embeddings", "absent.npz"], 3, "absent.npz: there is no such file"),
        (["--protocol", "LISTS", "--embeddings", "VECTORS", "--model", "absent"], 3, "is not an encoder folder"),
        (["--protocol", "LISTS", "--media", "."], 3, "no shared-space encoder serves"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_said_in_one_sentence(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lists: Path,
    vectors: Path,
    arguments: list[str],
    code: int,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"LISTS": str(lists), "VECTORS": str(vectors)}
    ended, error = evaluate(capsys, *[named.get(one, one) for one in arguments])
    assert ended == code and told in error["message"] and "\n" not in error["message"]


def test_vectors_of_another_space_than_the_model_s_are_refused(
    capsys: pytest.CaptureFixture[str], lists: Path, vectors: Path, tmp_path: Path
) -> None:
    folder = make_shared_encoder(tmp_path / "model").folder
    code, error = evaluate(capsys, "--protocol", str(lists), "--embeddings", str(vectors), "--model", str(folder))
    assert code == 3 and error["type"] == "space_mismatch" and "they are not of this model" in error["message"]
