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
from dataclasses import asdict, dataclass
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
    columns = ["method", "AUC", "share of the ceiling", "AUC, one sex", "EER", "1:2 voice → face", "1:2 face → voice"]
    columns += ["mAP voice → face", "mAP face → voice", "their mean"]
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, some in by_name.items():
        lines.append(_row(name, some, yardsticks))
    for place, name in enumerate(("chance", "knowing only the sex", "ceiling")):
        figures = [yardsticks.auc[place], yardsticks.same_sex[place], yardsticks.eer[place]]
        maps = [yardsticks.map[way][place] for way in DIRECTIONS]
        figures += [yardsticks.one_of[way]["2"][place] for way in DIRECTIONS]
        figures += [*maps, sum(maps) / len(maps)]
        share = _share(yardsticks.auc[place], yardsticks.auc[2])
        told = [f"{figures[0]:.3f}", f"{share:.2f}", *(f"{one:.3f}" for one in figures[1:])]
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
        *(spread([one.one_of[way]["2"] for one in some]) for way in DIRECTIONS),
        *(spread([one.map[way] for one in some]) for way in DIRECTIONS),
        spread([one.mean_map for one in some]),
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


VGGFACE2 = "inception_resnet_v1_vggface2"


@dataclass(frozen=True)
class Published:
    """What a paper reports of VoxCeleb1, in per cent, as it prints it; nothing where it says nothing.

    Args:
        method: name of the recipe.
        split: ``P`` or ``D``, whose test people differ.
        auc: of verification in the groups U, G, N, A and GNA, unseen and unheard.
        eer: of all pairs.
        voice_to_face: right choices of two, a voice among faces, in the groups U, G, N and GN.
        face_to_voice: likewise.
        map: mean average precision, voice to face and face to voice.
        network: the voice network, where the paper has several.
        besides: further figures.
        further: options beside the corpus that the method is trained with, and in words what else.
    """

    method: str
    split: str
    auc: str = ""
    eer: str = ""
    voice_to_face: str = ""
    face_to_voice: str = ""
    map: str = ""
    network: str = ""
    besides: str = ""
    further: tuple[str, str] = ("", "")

    @property
    def command(self) -> str:
        """What would train and measure it."""
        corpus = {"P": "voxceleb1", "D": "voxceleb1-d"}[self.split]
        options, words = self.further
        told = f"`visavox train {self.method} --corpus {corpus} --root DIR{options}`"
        return f"{told}, {words}" if words else told


_FROM_VGGFACE2 = (
    f" --initial {VGGFACE2}",
    "and with your own weights of DIMNet-Voice, of which there are no public ones",
)
PAPERS = (
    Published(
        "bi_quintuple", "P", "85.1 69.5 84.9 80.3 63.5", voice_to_face="86.85 76.05 85.70 73.10",
        face_to_voice="85.18 72.17 84.77 70.82", map="6.96 6.14", further=_FROM_VGGFACE2,
    ),
    Published(
        "single_stream", "P", "82.5 68.8 70.8 76.9 58.2", eer="25.6", voice_to_face="83", map="6.92 7.55",
        besides="voice → face 1:4 64, 1:6 51, 1:8 42, 1:10 37; mean of both mAP 7.24",
    ),
    Published(
        "bi_pseudo_label", "D", "85.0 71.2 84.3 79.6 64.7", voice_to_face="85.69 73.33 84.26 71.10",
        face_to_voice="85.83 73.01 85.00 71.45", map="6.36 6.04",
    ),
    Published("prior_transport", "P", "69.6 61.4 69.1 67.9 59.4", network="ECAPA-TDNN"),
    Published(
        "prior_transport", "P", "84.4 72.2 84.5 81.1 66.6", network="wav2vec 2.0",
        besides="AUC of seen and heard people 95.5 89.1 95.7 95.7 88.2",
        further=(" --initial wav2vec2_base --config FILE", "where FILE says `voice_backbone: wav2vec2_base`"),
    ),
    Published(
        "prior_transport", "P", "84.2 64.8 84.6 80.9 60.5", network="HuBERT",
        further=(" --initial hubert_base --config FILE", "where FILE says `voice_backbone: hubert_base`"),
    ),
    Published(
        "joint_embedding", "D", voice_to_face="85.18 74.29 83.97 70.70", face_to_voice="85.42 73.52 84.48 71.11",
        further=_FROM_VGGFACE2,
    ),
)  # fmt: skip


def _published() -> list[str]:
    columns = ["method", "split", "AUC: U G N A GNA", "EER", "1:2 voice → face: U G N GN", "1:2 face → voice: U G N GN"]
    columns += ["mAP voice → face, face → voice", "besides", "the command that would"]
    lines = [
        "## What the papers report of VoxCeleb1",
        "",
        "Real people, the papers' own measurements in %, **not measured here**; P and D are different tests.",
        "U: any two people; G, N, A: of one sex, nationality, age group; GN, GNA: of all that is named.",
        "Weights to begin with are fetched by `visavox models pull`. `prior_transport` teaches its face network on the",
        "training people first, unless a further `--initial` names weights for it.",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    for one in PAPERS:
        name = f"`{one.method}`" + (f", {one.network}" if one.network else "")
        figures = (one.auc, one.eer, one.voice_to_face, one.face_to_voice, one.map, one.besides)
        lines.append(f"| {name} | {one.split} | {' | '.join(told or '–' for told in figures)} | {one.command} |")
    return lines


def _share(value: float, ceiling: float) -> float:
    return (value - 0.5) / (ceiling - 0.5)


if __name__ == "__main__":
    began = time.monotonic()
    main()
    console.print(f"{time.monotonic() - began:.0f} s")
