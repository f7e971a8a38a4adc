"""A method in full and with a part changed, on the same invented people: ``python -m deploy.ablations METHOD``.

Every row of the recipe's ``ABLATIONS`` is trained and measured as :mod:`deploy.methods` trains and measures the method
itself, and stands beside what its paper reports of that row. ``make ablations METHOD=bi_quintuple`` is the same.

Rows that put another network in a modality's place are left out unless they are named: they are for weights that the
networks begin with, and invented people are learned with small ones. A row that changes nothing of a preset is that
preset in full, and left out too.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.cli.output import WRONG_USAGE, console, report_error
from deploy.measured_methods import DIRECTIONS, INVENTED, SEEDS, Measured, Yardsticks, spread, train_measured
from deploy.methods import PAPERS
from deploy.settings import load_settings
from training.checkpoint import replace_file, write_json
from training.configuration import PRESETS, changed, preset_settings, without_part
from training.loop import Diverged
from training.population.splits import TrainingSpec
from training.publish import PublishError
from training.recipe import Recipe, UnknownRecipe, load_recipe, recipe_name

FOLDER = "ablations"
FULL = "in full"
POPULATION = "population"
EPOCHS_SHOWN = 15
NOTE = f"""{INVENTED} It shows what each part of the method is worth here.
**Nothing follows from it about real people.** The last column is of real people: the papers' own figures of VoxCeleb1,
AUC of all pairs in per cent where nothing else is said, **not measured here**."""

REPORTED: Mapping[str, Mapping[str, str]] = {
    "bi_quintuple": {
        FULL: "85.11; V-F 1:2 86.85, 1:3 76.97, mAP 6.96",
        "one layer (SFC)": "79.89; V-F 1:2 84.95, 1:3 74.24, mAP 5.80",
        "two layers (DFC)": "77.17; V-F 1:2 82.99, 1:3 68.89, mAP 4.06",
        "fixed residual (DFC-R)": "85.22; V-F 1:2 86.32, 1:3 76.06, mAP 6.43",
        "Bi-Q loss only": "does not converge",
    },
    "single_stream": {
        FULL: "82.5; EER 25.6",
        "no fusion, FOP loss": "79.8; EER 28.5",
        "fusion, CE only": "81.6; EER 27.5",
        "fusion, cosine only": "77.5; EER 30.5",
    },
    "bi_pseudo_label": {
        FULL: "85.0; 1:2 F-V 85.83, V-F 85.69",
        "id": "81.2",
        "id+self-learn": "82.7",
        "CMWR+id": "82.9",
        "without L_Bi-P": "1:2 F-V −1.4 points",
        "without L_KL": "1:2 F-V −0.4 points",
        "L_cma alone": "1:2 F-V a little better than without",
        "variant F": "1:2 F-V 84.81, V-F 84.77",
        "variant S": "1:2 F-V 84.65, V-F 84.80",
        "variant T": "1:2 F-V 85.13, V-F 84.82",
        "variant FS": "1:2 F-V 85.27, V-F 85.11",
        "variant FT": "1:2 F-V 85.34, V-F 85.23",
    },
    "prior_transport": {
        FULL: "84.4 (wav2vec 2.0)",
        "contrast only": "81.5 (wav2vec 2.0)",
        "transport only": "51.8 (wav2vec 2.0)",
        "contrast and transport (no RKD)": "84.4 (wav2vec 2.0; perhaps with RKD)",
        "ECAPA-TDNN": "69.6",
        "ECAPA-TDNN, contrast": "60.7",
        "wav2vec 2.0": "84.4",
        "wav2vec 2.0, contrast": "81.5",
        "HuBERT": "84.2",
        "HuBERT, contrast": "82.3",
    },
    "joint_embedding": {FULL: "1:2 F-V 85.42, V-F 85.18"},
    "visavox": {
        "no shared trunk": "−5.2 points (frozen vectors, one layer)",
        "320 people": "−2.2 points (frozen vectors, of 1024)",
    },
}
"""What the papers report of real people, by method and row."""
SPLITS = {one.method: one.split for one in PAPERS}
"""Of VoxCeleb1, whose test people those are; P and D are different tests."""


@dataclass(frozen=True)
class Asked:
    """What a page is to show.

    Args:
        method: name of the recipe.
        rows: settings of each row, the method in full (:data:`FULL`) first.
        left_out: rows of other networks, which nobody named.
        preset: of :data:`training.configuration.PRESETS`.
        epochs: to which every stage was cut; None: the preset's.
        learned: the invented people that are learned from.
        named: whether somebody has named the rows.
    """

    method: str
    rows: Mapping[str, Any]
    left_out: tuple[str, ...] = ()
    preset: str = POPULATION
    epochs: int | None = None
    learned: TrainingSpec = field(default_factory=TrainingSpec)
    named: bool = False


@dataclass
class Found:
    """What came of it so far.

    Args:
        measured: of each row, by seed.
        failed: of each row, why a seed came to nothing.
        yardsticks: of the people who are measured on.
    """

    measured: dict[str, dict[int, Measured]] = field(default_factory=dict)
    failed: dict[str, dict[int, str]] = field(default_factory=dict)
    yardsticks: Yardsticks | None = None


def ablated(
    recipe: Recipe,
    names: Sequence[str] | None = None,
    preset: str = POPULATION,
    epochs: int | None = None,
    learned: TrainingSpec | None = None,
) -> Asked:
    """The settings of a method in full and of its ablations.

    Args:
        recipe: the method.
        names: of rows; None for all that the module's docstring does not leave out.
        preset: of :data:`training.configuration.PRESETS`.
        epochs: most that any stage has; None: as many as it has.
        learned: the invented people that are learned from; None: as many as anybody learns from.

    Raises:
        ConfigurationError: a name that the method has no row of, or whose row is the preset in full.
        ValueError: numbers that the method does not take.
    """
    full, wanted, left_out = preset_settings(recipe, preset), list(names or ()), list[str]()
    if names is None:
        for name, told in recipe.ABLATIONS.items():
            if changed(full, told) != full:
                (left_out if _of_other_networks(told) else wanted).append(name)
    asked = {FULL: full} | {name: without_part(recipe, full, name) for name in wanted}
    if epochs is not None:
        asked = {name: shortened(settings, epochs) for name, settings in asked.items()}
    learned = learned or TrainingSpec()
    return Asked(recipe_name(recipe), asked, tuple(left_out), preset, epochs, learned, names is not None)


def shortened(settings: Any, epochs: int) -> Any:  # noqa: ANN401 - any recipe's Settings
    """The same with at most so many epochs in every stage."""
    told: dict[str, Any] = {"epochs": min(epochs, settings.epochs)}
    for one in fields(settings):
        group = getattr(settings, one.name)
        if is_dataclass(group) and hasattr(group, "epochs"):
            told[one.name] = {"epochs": min(epochs, group.epochs)}
    return changed(settings, told)


def measure_ablations(home: Path, asked: Asked, seeds: Sequence[int]) -> Iterator[Found]:
    """Train and measure what is not yet there, and tell what there is after each.

    Args:
        home: of the installation.
        asked: what to train.
        seeds: of runs; each row has one before any has a second, so that an early look compares like with like.

    Raises:
        What :func:`deploy.measured_methods.train_measured` raises, but for a run that left the finite numbers or whose
        encoder cannot be published: that is an ablation's outcome.
    """
    recipe, found = load_recipe(asked.method), Found()
    for seed in seeds:
        for number, (name, settings) in enumerate(asked.rows.items(), 1):
            console.print(f"{asked.method}, {name}, seed {seed} ({number} of {len(asked.rows)})")
            try:
                measured, found.yardsticks = train_measured(home, recipe, seed, asked.learned, settings)
            except (Diverged, PublishError) as error:
                found.failed.setdefault(name, {})[seed] = str(error)
                console.print(f"  failed: {error}")
            else:
                found.measured.setdefault(name, {})[seed] = measured
                console.print(f"  AUC {measured.auc:.3f}, of one sex {measured.same_sex:.3f}")
            yield found


def table(asked: Asked, found: Found) -> str:
    """The page as Markdown: what each row measures, how far from the method in full, and what the paper reports."""
    counts = sorted({len(some) for some in found.measured.values()}) or [0]
    seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    lines = [f"# The parts of {asked.method} on invented people: a test of the mechanisms", "", NOTE, ""]
    if asked.epochs is not None:
        lines += [f"**Epochs of every stage: at most {asked.epochs}. A quick look, not what the preset comes to.**", ""]
    lines += [
        f"Mean ± standard deviation, seeds: {seeds}, on people whom no training saw; the {asked.preset} preset,",
        f"{asked.learned.people} people to learn from. Differences are to the method in full, seed by seed.",
    ]
    if found.yardsticks is not None:
        chance, sex, ceiling = (f"{one:.3f}" for one in found.yardsticks.auc)
        lines += [f"AUC of chance {chance}, of knowing only the sex {sex}, of the ceiling {ceiling}."]
    paper = f"VoxCeleb1{f', split {SPLITS[asked.method]}' if asked.method in SPLITS else ''}, not measured here"
    columns = ["row", "AUC", "difference", "AUC, one sex", "EER", "1:2 voice → face", "1:2 face → voice"]
    columns += ["1:3 voice → face", "mAP voice → face", "mAP face → voice", paper]
    lines += ["", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [_row(asked.method, name, found) for name in asked.rows]
    lines += _by_epoch(asked, found)
    for name, reasons in found.failed.items():
        seed, reason = next(iter(reasons.items()))
        lines += ["", f"*{name}*: {len(reasons)} failed, such as seed {seed}: {reason}"]
    if asked.left_out:
        named = ", ".join(f"`{name}`" for name in asked.left_out)
        lines += [
            "",
            f"Left out unless named by `--row`, for want of weights that its network begins with: {named}.",
            f"With whom to learn from, `visavox train {asked.method} --ablation NAME --initial FOLDER` does.",
        ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the ablations of a method, print the table and keep it in the home."""
    options = _parser().parse_args(arguments)
    try:
        recipe = load_recipe(options.method)
        asked = ablated(recipe, options.row, options.preset, options.epochs, TrainingSpec(options.people))
    except (UnknownRecipe, ValueError) as error:
        sys.exit(report_error("usage", str(error), WRONG_USAGE, False))
    folder, page = load_settings().home / FOLDER, ""
    folder.mkdir(parents=True, exist_ok=True)
    for found in measure_ablations(folder.parent, asked, range(options.seeds)):
        page = table(asked, found)
        replace_file(folder / f"{page_name(asked)}.md", page.encode())
        write_json(folder / f"{page_name(asked)}.json", asdict(found))
    sys.stdout.write(page)
    console.print(f"kept: {folder / page_name(asked)}.md")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.ablations", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("method", help="name of a recipe")
    parser.add_argument("--row", action="append", help="only this ablation, beside the method in full; repeatable")
    parser.add_argument("--seeds", type=_number, default=SEEDS, help="how many runs of each row")
    parser.add_argument("--epochs", type=_number, help="most that any stage has: a quick look")
    parser.add_argument("--preset", choices=PRESETS, default=POPULATION, help="what is changed")
    parser.add_argument("--people", type=_number, default=TrainingSpec.people, help="invented people to learn from")
    return parser


def _number(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def page_name(asked: Asked) -> str:
    """The method's, and what makes the page another one than that of its whole preset for invented people."""
    unusual = {
        asked.preset: asked.preset != POPULATION,
        f"{asked.learned.people}-people": asked.learned != TrainingSpec(),
        f"{asked.epochs}-epochs": asked.epochs is not None,
        hashlib.sha256("\n".join(asked.rows).encode()).hexdigest()[:8]: asked.named,
    }
    return "-".join((asked.method, *(name for name, so in unusual.items() if so)))


def _of_other_networks(told: Mapping[str, Any]) -> bool:
    return any(name.endswith("_backbone") for name in told)


def _by_epoch(asked: Asked, found: Found) -> list[str]:
    """How fast each row learns: S0 draws the first fifteen epochs of its losses like this."""
    drawn = {name: [one.epochs for one in some.values()] for name, some in found.measured.items()}
    epochs = sorted({epoch for some in drawn.values() for one in some for epoch in one})[:EPOCHS_SHOWN]
    if not epochs:
        return []
    lines = ["", "Right choices of two on validation people by epoch, mean of both ways (of the last stage):", ""]
    lines += [f"| row | {' | '.join(map(str, epochs))} |", "|---" * (len(epochs) + 1) + "|"]
    for name in asked.rows:
        means = [[one[epoch] for one in drawn.get(name, []) if epoch in one] for epoch in epochs]
        if any(means):
            lines.append(f"| {name} | {' | '.join(f'{np.mean(one):.3f}' if one else '–' for one in means)} |")
    return lines


def _row(method: str, name: str, found: Found) -> str:
    some, full = found.measured.get(name, {}), found.measured.get(FULL, {})
    cells = ["–"] * 9
    if some:
        less = [one.auc - full[seed].auc for seed, one in some.items() if seed in full and name != FULL]
        cells = [
            spread([one.auc for one in some.values()]),
            _signed(less) if less else "–",
            spread([one.same_sex for one in some.values()]),
            spread([one.eer for one in some.values()]),
            *(spread([one.one_of[way]["2"] for one in some.values()]) for way in DIRECTIONS),
            spread([one.one_of["voice_to_face"]["3"] for one in some.values()]),
            *(spread([one.map[way] for one in some.values()]) for way in DIRECTIONS),
        ]
    elif name in found.failed:
        cells[0] = "failed"
    return f"| {name} | {' | '.join(cells)} | {REPORTED.get(method, {}).get(name, '–')} |"


def _signed(values: Sequence[float]) -> str:
    """Mean ± standard deviation of differences, with its sign."""
    told = spread(values).replace("-", "−")
    return told if told.startswith("−") else f"+{told}"


if __name__ == "__main__":
    began = time.monotonic()
    main()
    console.print(f"{time.monotonic() - began:.0f} s")
