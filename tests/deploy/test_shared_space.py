"""The shared space at its full size: how far it comes on people whom nobody was trained on. Minutes long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.training import FACE_DETECTOR, MEASURED, PREPARED
from encoders.encoder import Encoder
from search.metrics import chance_average_precision
from search.points import read_points
from training.corpora import Split, read_manifest
from training.loop import RunSettings, TrainingData, train
from training.population.protocol import population_folder
from training.population.splits import TrainingSpec
from training.prepared import Prepared, prepare
from training.reading import Preparation
from training.recipe import load_recipe

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]
WAYS = ("voice_to_face", "face_to_voice")


def visavox(home: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "deploy.cli", *arguments, "--json"]
    environment = os.environ | {"VISAVOX_HOME": str(home), "VISAVOX_DEVICE": "cpu"}
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def trained(home: Path) -> Mapping[str, Any]:
    document: Mapping[str, Any] = visavox(home, "train", "bi_quintuple", "--population")
    return document


def share(value: float, ceiling: float) -> float:
    return (value - 0.5) / (ceiling - 0.5)


def test_unseen_people_are_found_ten_times_better_than_by_chance(trained: Mapping[str, Any]) -> None:
    for way in WAYS:
        told = trained["report"]["retrieval"][way]
        assert told["map"] >= 10 * told["chance"] and told["ci95"][0] > 5 * told["chance"]
        assert told["map"] == pytest.approx(told["map_exact"], rel=0.005)
        assert told["map"] < told["ceiling"]


def test_verification_comes_most_of_the_way_to_the_ceiling_also_within_a_sex(trained: Mapping[str, Any]) -> None:
    told = trained["report"]["verification"]
    assert 0.93 <= told["ceiling_auc"] <= 0.98
    assert share(told["auc"], told["ceiling_auc"]) >= 0.80
    assert share(told["same_sex"]["auc"], told["same_sex"]["ceiling_auc"]) >= 0.6


def test_evaluating_the_published_folder_gives_the_same_report_and_exports_and_draws_it(
    home: Path, trained: Mapping[str, Any]
) -> None:
    export, page, text = (home / name for name in ("points.npz", "report.html", "report.md"))
    written = ("--export", str(export), "--html", str(page), "--markdown", str(text))
    told = visavox(home, "evaluate", "--population", "--model", trained["encoder"], *written)
    assert told == trained["report"]
    assert page.read_text().count("<svg") > 6 and 'src="data:image/jpeg;base64,' in page.read_text()
    ceiling = trained["report"]["retrieval"]["voice_to_face"]["ceiling"]
    assert f"| {100 * ceiling:.2f} |" in text.read_text()
    points = read_points(export)
    assert points.space.digest == Encoder.load(Path(trained["encoder"])).space.digest
    assert sum(map(len, points.paths.values())) > 1900


def prepared(home: Path, digest: str, split: Split) -> Prepared:
    folder = population_folder(home, digest)
    return prepare(read_manifest(folder, split), folder / PREPARED, Preparation(detector=FACE_DETECTOR))


def test_taught_whose_voice_is_whose_at_random_it_knows_nothing(
    home: Path, trained: Mapping[str, Any], tmp_path: Path
) -> None:
    people, unseen = (
        prepared(home, TrainingSpec().digest, Split.TRAIN),
        prepared(home, MEASURED.digest, Split.VALIDATION),
    )
    mixed = np.random.default_rng(3).permutation(len(people.identities))
    shuffled = replace(people, voice_people=mixed[people.voice_people], digest="shuffled")
    recipe = load_recipe("bi_quintuple")
    told = train(
        recipe,
        replace(recipe.POPULATION, epochs=6),
        TrainingData(shuffled, unseen),
        tmp_path / "run",
        RunSettings(threads=2),
    ).validated
    chance = chance_average_precision(MEASURED.validation_samples, len(unseen.faces))
    assert told.mean < 2 * chance
