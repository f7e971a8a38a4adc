"""Every method on the same invented people, side by side: ``python -m deploy.methods`` (``make methods``).

A test of the mechanisms: whether each method learns what it is there to learn, at what cost. Nothing follows from it
about real people. What is done is kept in the home, so that an interrupted call goes on and a second one is quick.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from deploy.cli.output import console
from deploy.measured_methods import DIRECTIONS, INVENTED, SEEDS, Measured, Yardsticks, spread, train_measured
from deploy.settings import load_settings
from training.checkpoint import replace_file, write_json
from training.population.splits import TrainingSpec
from training.recipe import load_recipe, recipe_name, recipes

FOLDER = "methods"
TITLE = "# The methods on invented people: a test of the mechanisms"
NOTE = f"""{INVENTED} It shows whether a method's mechanism works here, and what it costs.
**Nothing follows from it about real people, or about which method is best on them.**"""


def measure_methods(home: Path, names: Sequence[str], seeds: Sequence[int]) -> tuple[list[Measured], Yardsticks]:
    """Train and measure what is not yet there.

    Args:
        home: of the installation.
        names: of recipes.
        seeds: of runs.

    Raises:
        UnknownRecipe: there is no such method. What :func:`deploy.measured_methods.train_measured` raises.
    """
    found: list[Measured] = []
    loaded = [load_recipe(name) for name in names]
    for seed in seeds:  # all methods once before any a second time: an early look compares like with like
        for recipe in loaded:
            console.print(f"{recipe_name(recipe)}, seed {seed}")
            measured, yardsticks = train_measured(home, recipe, seed, TrainingSpec())
            found.append(measured)
    return found, yardsticks


def table(found: Sequence[Measured], yardsticks: Yardsticks) -> str:
    """The page as Markdown: figures, shares of the ceiling, costs, and what the papers report of real people."""
    by_name: dict[str, list[Measured]] = {}
    for one in found:
        by_name.setdefault(one.recipe, []).append(one)
    counts = sorted({len(some) for some in by_name.values()})
    seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    lines = [TITLE, "", NOTE, "", f"Mean ± standard deviation, seeds: {seeds}, on people whom no training saw.", ""]
    lines += ["| method | AUC | share of the ceiling | AUC, one sex | EER | mAP voice → face | mAP face → voice |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, some in by_name.items():
        lines.append(_row(name, some, yardsticks))
    for place, name in enumerate(("chance", "knowing only the sex", "ceiling")):
        figures = [yardsticks.auc[place], yardsticks.same_sex[place], yardsticks.eer[place]]
        maps = [yardsticks.map[way][place] for way in DIRECTIONS]
        share = _share(yardsticks.auc[place], yardsticks.auc[2])
        told = [f"{figures[0]:.3f}", f"{share:.2f}", *(f"{one:.3f}" for one in (*figures[1:], *maps))]
        lines.append(f"| *{name}* | {' | '.join(told)} |")
    lines += ["", "Share of the ceiling: (AUC − 0.5) / (ceiling − 0.5).", "", *_costs(by_name), "", *_published()]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all methods, print the table and keep it in the home."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many runs of each method")
    parser.add_argument("--method", action="append", help="only this one; repeatable")
    options = parser.parse_args(arguments)
    home = load_settings().home
    found, yardsticks = measure_methods(home, options.method or recipes(), range(options.seeds))
    page = table(found, yardsticks)
    (home / FOLDER).mkdir(parents=True, exist_ok=True)
    replace_file(home / FOLDER / "METHODS.md", page.encode())
    write_json(
        home / FOLDER / "methods.json",
        {"methods": [asdict(one) for one in found], "yardsticks": asdict(yardsticks)},
    )
    sys.stdout.write(page)
    console.print(f"kept: {home / FOLDER / 'METHODS.md'}")


def _row(name: str, some: Sequence[Measured], yardsticks: Yardsticks) -> str:
    shares = [_share(one.auc, yardsticks.auc[2]) for one in some]
    cells = [
        spread([one.auc for one in some]),
        spread(shares, 2),
        spread([one.same_sex for one in some]),
        spread([one.eer for one in some]),
        *(spread([one.map[way] for one in some]) for way in DIRECTIONS),
    ]
    return f"| `{name}` | {' | '.join(cells)} |"


def _costs(by_name: Mapping[str, Sequence[Measured]]) -> list[str]:
    lines = [
        "| method | training, s | parameters served | multiply-adds, a face | a voice of 2 s | latency, a face, ms | "
        "a voice, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, some in by_name.items():
        costs = some[0].costs
        latencies = (statistics.median(getattr(one.costs, field) for one in some) for field in ("face_ms", "voice_ms"))
        lines.append(
            f"| `{name}` | {spread([one.seconds for one in some], 0)} | {costs.parameters:,} | "
            f"{costs.face_multiply_adds / 1e6:.1f} M | {costs.voice_multiply_adds / 1e6:.1f} M | "
            + " | ".join(f"{one:.1f}" for one in latencies)
            + " |"
        )
    return [*lines, "", "Training includes the stages that a method shares with others. Latency: one sample at a time,",
            "one thread, preparation included."]  # fmt: skip


PAPERS = (
    ("bi_quintuple", "voxceleb1", "P", "85.1", "69.5", "6.96 / 6.14"),
    ("single_stream", "voxceleb1", "P", "82.5", "68.8", "6.92 / 7.55"),
    ("bi_pseudo_label", "voxceleb1-d", "D", "85.0", "71.2", "6.36 / 6.04"),
    ("prior_transport", "voxceleb1", "P", "84.4", "72.2", "–"),
    ("joint_embedding", "voxceleb1-d", "D", "– (1:2 voice to face 85.2)", "– (74.3)", "–"),
)
"""Published: method, corpus, split, AUC of all and of one sex in per cent, mAP voice to face / face to voice."""


def _published() -> list[str]:
    lines = [
        "## What the papers report of VoxCeleb1",
        "",
        "Real people, the papers' own measurements, **not measured here**; P and D are different tests.",
        "",
        "| method | split | AUC, % | AUC, one sex, % | mAP voice → face / face → voice, % | the command that would |",
        "|---|---|---|---|---|---|",
    ]
    for name, corpus, split, auc, same_sex, mean in PAPERS:
        command = f"`visavox train {name} --corpus {corpus} --root DIR`"
        lines.append(f"| `{name}` | {split} | {auc} | {same_sex} | {mean} | {command} |")
    return lines


def _share(value: float, ceiling: float) -> float:
    return (value - 0.5) / (ceiling - 0.5)


if __name__ == "__main__":
    began = time.monotonic()
    main()
    console.print(f"{time.monotonic() - began:.0f} s")
