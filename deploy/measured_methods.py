"""One training of a method on invented people, and what it measures on those it never saw.

What the tables of methods (:mod:`deploy.methods`) and of their ablations (:mod:`deploy.ablations`) are made of. What is
done is kept in the home, so that an interrupted call goes on and a second one is quick.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deploy.cli.train import Stages
from deploy.costs import Costs, costs_of
from deploy.settings import load_settings
from deploy.training import PUBLISHED_FILE, RUNS, order_population, train_population
from deploy.wiring import Installation
from encoders.encoder import Encoder
from training.loop import RunSettings
from training.population.splits import TrainingSpec
from training.recipe import Recipe, recipe_name

SEEDS = 3
DIRECTIONS = ("voice_to_face", "face_to_voice")
INVENTED = """Every row was trained and measured on people who are invented: drawn faces and synthesised voices, whose
likeness follows a rule that a program was given."""


@dataclass(frozen=True)
class Measured:
    """One training of one method.

    Args:
        recipe: the method.
        seed: of the run.
        encoder: name of the encoder folder.
        seconds: spent training, all stages.
        auc: of verification, all pairs of unseen people.
        same_sex: the same, of pairs of one sex.
        eer: equal error rate of all pairs.
        map: mean average precision each way.
        costs: of the networks that serve.
    """

    recipe: str
    seed: int
    encoder: str
    seconds: float
    auc: float
    same_sex: float
    eer: float
    map: Mapping[str, float]
    costs: Costs


@dataclass(frozen=True)
class Yardsticks:
    """What the figures are held against: chance, an oracle that knows only the sex, and the ceiling."""

    auc: tuple[float, float, float]
    same_sex: tuple[float, float, float]
    eer: tuple[float, float, float]
    map: Mapping[str, tuple[float, float, float]]


def train_measured(
    home: Path,
    recipe: Recipe,
    seed: int,
    learned: TrainingSpec,
    settings: Any = None,  # noqa: ANN401 - the recipe's
) -> tuple[Measured, Yardsticks]:
    """Train and measure, unless that is done.

    Args:
        home: of the installation.
        recipe: the method.
        seed: of the run.
        learned: the invented people it learns from.
        settings: its numbers; None: its preset for invented people.

    Raises:
        ValueError: numbers that the recipe does not take. What :func:`deploy.training.train_population` raises.
    """
    name = recipe_name(recipe)
    opened = Installation(replace(load_settings(), home=home))
    try:
        order = order_population(opened, recipe, learned, settings=settings, run=RunSettings(seed=seed))
        with Stages() as stages:
            outcome = train_population(opened, order, stages.told)
    finally:
        opened.close()
    published = json.loads((home / RUNS / f"{name}-{order.key}" / PUBLISHED_FILE).read_text(encoding="utf-8"))
    verification = outcome.report["verification"]
    measured = Measured(
        recipe=name,
        seed=seed,
        encoder=outcome.encoder.name,
        seconds=published["training_seconds"],
        auc=verification["auc"],
        same_sex=verification["same_sex"]["auc"],
        eer=verification["eer"],
        map={way: outcome.report["retrieval"][way]["map_exact"] for way in DIRECTIONS},
        costs=costs_of(Encoder.load(outcome.encoder)),
    )
    return measured, _yardsticks(outcome.report)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation; the mean alone of a single value."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def _yardsticks(report: Mapping[str, Any]) -> Yardsticks:
    verification, one_sex = report["verification"], report["verification"]["same_sex"]

    def three(told: Mapping[str, Any], figure: str) -> tuple[float, float, float]:
        return told[f"chance_{figure}"], told[f"gender_oracle_{figure}"], told[f"ceiling_{figure}"]

    return Yardsticks(
        auc=three(verification, "auc"),
        same_sex=three(one_sex, "auc"),
        eer=three(verification, "eer"),
        map={
            way: (told["chance"], told["gender_oracle"], told["ceiling"])
            for way, told in ((way, report["retrieval"][way]) for way in DIRECTIONS)
        },
    )
