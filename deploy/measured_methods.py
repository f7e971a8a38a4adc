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
from deploy.training import MEASURED, PUBLISHED_FILE, RUNS, order_population, train_population
from deploy.wiring import Installation
from encoders.encoder import Encoder
from training.loop import RunSettings
from training.population.splits import PopulationSpec, TrainingSpec
from training.recipe import Recipe, recipe_name
from training.runs import LOG_FILE

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
        one_of: share of right choices each way, by the number of candidates as JSON writes it: ``"2"`` to ``"10"``.
        epochs: of the last stage, right choices of two on validation people, the mean of both ways, by epoch.
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
    one_of: Mapping[str, Mapping[str, float]]
    epochs: Mapping[int, float]
    costs: Costs

    @property
    def mean_map(self) -> float:
        """The mean of both ways, as S1 tells it."""
        return float(np.mean(list(self.map.values())))


@dataclass(frozen=True)
class Yardsticks:
    """What the figures are held against: chance, an oracle that knows only the sex, and the ceiling."""

    auc: tuple[float, float, float]
    same_sex: tuple[float, float, float]
    eer: tuple[float, float, float]
    map: Mapping[str, tuple[float, float, float]]
    one_of: Mapping[str, Mapping[str, tuple[float, float, float]]]


def train_measured(
    home: Path,
    recipe: Recipe,
    seed: int,
    learned: TrainingSpec,
    settings: Any = None,  # noqa: ANN401 - the recipe's
    people: PopulationSpec = MEASURED,
) -> tuple[Measured, Yardsticks]:
    """Train and measure, unless that is done.

    Args:
        home: of the installation.
        recipe: the method.
        seed: of the run.
        learned: the invented people it learns from.
        settings: its numbers; None: its preset for invented people.
        people: those it is validated and measured on.

    Raises:
        ValueError: numbers that the recipe does not take. What :func:`deploy.training.train_population` raises.
    """
    name = recipe_name(recipe)
    opened = Installation(replace(load_settings(), home=home))
    try:
        run = RunSettings(seed=seed, curves=True)
        order = order_population(opened, recipe, learned, measured=people, settings=settings, run=run)
        with Stages() as stages:
            outcome = train_population(opened, order, stages.told)
    finally:
        opened.close()
    folder = home / RUNS / f"{name}-{order.key}"
    published = json.loads((folder / PUBLISHED_FILE).read_text(encoding="utf-8"))
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
        one_of={
            way: {size: told["accuracy"] for size, told in outcome.report["matching_1_to_n"][way]["all"].items()}
            for way in DIRECTIONS
        },
        epochs=_right_of_two(folder),
        costs=costs_of(Encoder.load(outcome.encoder)),
    )
    return measured, _yardsticks(outcome.report)


def _right_of_two(folder: Path) -> dict[int, float]:
    """By epoch, of a run's log."""
    lines = map(json.loads, (folder / LOG_FILE).read_text(encoding="utf-8").splitlines())
    judged = {line["epoch"]: line["validation"] for line in lines if "validation" in line}
    return {epoch: float(np.mean([told[f"{way}_of_two"] for way in DIRECTIONS])) for epoch, told in judged.items()}


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
        one_of={
            way: {
                size: (told["chance"], told["gender_oracle"], told["ceiling"])
                for size, told in report["matching_1_to_n"][way]["all"].items()
            }
            for way in DIRECTIONS
        },
    )
