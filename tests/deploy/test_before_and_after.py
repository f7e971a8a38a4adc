"""A measurement on invented people, drawn: three of them before and after training, and beside another encoder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deploy import measuring
from deploy.before_and_after import find_run
from deploy.measuring import take
from deploy.settings import load_settings
from deploy.training import RUNS, invite_measured
from deploy.wiring import Installation
from encoders.encoder import Encoder
from search.measurement import POPULATION, Measurement
from tests.training.small_run import RUN, SETTINGS, small_data
from tests.training.test_publish import ORIGIN
from training.loop import train
from training.population.splits import PopulationSpec
from training.publish import publish
from training.recipes import bi_quintuple

SMALL = PopulationSpec(4, 2, 4, 1, films=0)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with two encoders, the run of the first of which is there."""
    home = tmp_path_factory.mktemp("home")
    installation = Installation(load_settings({"VISAVOX_HOME": str(home), "VISAVOX_DEVICE": "cpu"}))
    for seed in (1, 2):
        settings, run = replace(SETTINGS, epochs=1, steps_per_epoch=1), home / RUNS / f"bi_quintuple-{seed}"
        trained = train(bi_quintuple, settings, small_data(), run, replace(RUN, seed=seed))
        made = publish(bi_quintuple, settings, small_data(), trained, ORIGIN, home / "encoders")
        (run / "published.json").write_text(json.dumps({"encoder": made.name}))
    yield installation
    installation.close()


@pytest.fixture(scope="module")
def folders(opened: Installation) -> list[Path]:
    runs = sorted((opened.settings.home / RUNS).glob("*/published.json"))
    return [opened.settings.home / "encoders" / json.loads(run.read_text())["encoder"] for run in runs]


@pytest.fixture(scope="module")
def told(opened: Installation, folders: list[Path]) -> Mapping[str, Any]:
    page = opened.settings.home / "report.html"
    asked = Measurement(POPULATION, model=folders[0].name, compare=folders[1].name, html=str(page))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "invite_measured", partial(invite_measured, measured=SMALL))
        return {"report": take(opened, asked), "page": page.read_text()}


def test_an_encoder_s_run_is_found_by_what_it_became(opened: Installation, folders: list[Path]) -> None:
    home = opened.settings.home
    assert find_run(Encoder.load(folders[1]), home) == home / RUNS / "bi_quintuple-2"
    (home / RUNS / "torn").mkdir()
    (home / RUNS / "torn" / "published.json").write_text("{")
    assert find_run(Encoder.load(folders[0]), home) == home / RUNS / "bi_quintuple-1"
    assert find_run(Encoder.load(folders[0]), home / "elsewhere") is None


@pytest.mark.long  # people are invented, and read twice
def test_two_encoders_are_compared_on_the_same_people(told: Mapping[str, Any], folders: list[Path]) -> None:
    comparison = told["report"]["comparison"]
    assert comparison["model"]["space_digest"] == Encoder.load(folders[1]).space.digest
    own, theirs = (one["retrieval"]["voice_to_face"]["map"] for one in (told["report"], comparison["figures"]))
    gained = comparison["difference"]["retrieval"]["voice_to_face"]["map"]["difference"]
    assert gained == pytest.approx(own - theirs, abs=1e-3)
    assert "People (PCA), side by side in two models" in told["page"] and "Beside another model" in told["page"]


@pytest.mark.long  # people are invented, and read twice
def test_three_people_are_drawn_before_and_after_training(told: Mapping[str, Any]) -> None:
    for words in ("voices", "faces"):
        assert f"The {words} of 3 people before and after training (PCA)" in told["page"]
    assert "Faces and voices together of 3 people before and after training (t-SNE)" in told["page"]


@pytest.mark.long  # people are invented, and read twice
def test_labels_of_unseen_pairs_are_counted(told: Mapping[str, Any]) -> None:
    assert told["report"]["label_agreement"]["8"]["pairs"] == 8
    assert told["report"]["label_agreement"]["32"]["agreement"] is None
    assert "Face and voice of a person in clusters of one rank" in told["page"]
