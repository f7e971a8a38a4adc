"""Reports for people: the figures of an evaluation as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from search.protocol_table import comparison_lines, mean_map

_LABEL_WIDTH = 46
_COLUMNS = (("model", 7), ("95 % interval", 15), ("chance", 8), ("sex only", 10), ("ceiling", 9), ("of the way", 12))
_TITLES = {
    "voice_to_face": "A voice looks for the faces of its person",
    "face_to_voice": "A face looks for the voices of its person",
}
_SHARED = {
    "same_sex": "of one sex",
    "same_nationality": "of one nationality",
    "same_age_group": "of one age group",
    "same_sex_and_nationality": "of one sex and nationality",
    "same_sex_nationality_and_age_group": "of one sex, nationality and age group",
}
_LEGEND = """\
How to read it
  model        what the model reached; the interval beside it says where it may lie for other people of this kind
  chance       what guessing reaches on the same questions
  sex only     what a model reaches that recognises a person's sex and nothing else; where many samples score
               alike they share what they earn, so in a small gallery it can find less than guessing does
  ceiling      the best any model can reach: it knows exactly how these people were made ("-": not known)
  of the way   how far the model came from chance to the ceiling
  mean average precision   are the right ones at the top? 1: all of them first; of every search, on average
  found in first 5         share of searches with a right one among the first five
  mean reciprocal rank     1 / place of the first right one, on average
  AUC          how often a pair of one person scores higher than a pair of two people; guessing: 0.5
  EER          share of wrong answers where both kinds of error are equally frequent; lower is better
  1 of N       how often the right one is picked out of N"""


def as_table(report: Mapping[str, Any]) -> str:
    """A readable table of an evaluation's report, of people's own media or of a protocol.

    Args:
        report: as :func:`search.evaluation.evaluate_people` or
            :func:`search.crossmodal.evaluate_protocol` gives it; fractions are shown as such.
    """
    return _of_protocol(report) if "matching_1_to_n" in report else _of_people(report)


def _of_people(report: Mapping[str, Any]) -> str:
    lines = []
    for direction, figures in report["retrieval"].items():
        low, high = figures["ci95"]
        lines += [
            f"{direction.replace('_', ' ')}: mAP {figures['map']:.3f} (95 % interval {low:.3f}–{high:.3f}), "
            f"exact {figures['map_exact']:.3f}, chance {figures['chance']:.3f}",
            f"  {figures['probes']} probes of {figures['people_asked']} people in a gallery of "
            f"{figures['gallery']} samples of {figures['people']} people; recall at 1/5/10: "
            + " / ".join(f"{figures[f'recall_at_{k}']:.3f}" for k in (1, 5, 10)),
        ]
    for modality, figures in report["verification"].items():
        lines.append(
            f"{modality} verification: AUC {figures['auc']:.4f}, EER {figures['eer']:.4f} "
            f"({figures['genuine_pairs']} genuine of {figures['pairs']} pairs)"
        )
    lines += [f"{name}: trained on {model['trained_on']}" for name, model in report["models"].items()]
    lines += [f"unusable: {one['path']}: {one['reason']}" for one in report["unusable"]]
    lines += [f"counted once: {one}" for one in report["duplicates"]]
    return "\n".join(lines)


def _of_protocol(report: Mapping[str, Any]) -> str:
    heading = "".ljust(_LABEL_WIDTH) + "".join(name.rjust(width) for name, width in _COLUMNS)
    lines = [*_who(report), "", heading]
    for way, figures in report["retrieval"].items():
        lines += ["", f"{_TITLES[way]} ({figures['probes']} searches in {figures['gallery']} samples{_depth(figures)})"]
        lines += _retrieval_rows(figures)
        matching = report["matching_1_to_n"][way]
        for kind in ("all", *_SHARED):
            lines += _matching_rows(matching[kind], _SHARED.get(kind, "")) if kind in matching else []
    lines += ["", f"  mean of both mean average precisions: {mean_map(report['retrieval']):.3f}"]
    verification = report["verification"]
    lines += ["", "Is this the voice of this face?", *_verification_rows(verification, "any two people")]
    for kind, words in _SHARED.items():
        lines += _verification_rows(verification[kind], f"people {words}") if kind in verification else []
    lines += _label_agreement_rows(report.get("label_agreement", {}))
    lines += [*comparison_lines(report), "", _LEGEND]
    lines += [f"left out, unusable: {one['modality']} {one['path']}: {one['reason']}" for one in report["unusable"]]
    return "\n".join(lines)


def _who(report: Mapping[str, Any]) -> Iterator[str]:
    """Who was measured on whom."""
    protocol, model = report["protocol"], report["model"]
    count = protocol["samples"]
    yield (
        f"Protocol {protocol['name']} ({protocol['digest'][:12]}): {protocol['people']} people of the domain "
        f"“{protocol['domain']}”, {count['face']} faces and {count['voice']} voices"
    )
    yield (
        f"Model: space {model['space']} ({model['space_digest'][:12]}), for “{model['domain'] or 'not stated'}”, "
        f"trained on: {model['trained_on'] or 'not stated'}"
    )
    yield (
        f"It was trained on none of these people (checked against the {model['identities']} it names)"
        if model["identities"]
        else "Whom it was trained on is not stated: if it knows these people, every figure is too good"
    )
    if report["unusable"]:
        yield f"{len(report['unusable'])} samples could not be used and are left out for everybody; see below"


def _retrieval_rows(figures: Mapping[str, Any]) -> Iterator[str]:
    baselines = figures["baselines"]
    names = {"map": "mean average precision"}
    names |= {f"recall_at_{k}": "found first" if k == 1 else f"found in first {k}" for k in (1, 5, 10)}
    names["mrr"] = "mean reciprocal rank"
    for name, words in names.items():
        bounds = [baselines.get(one, {}).get(name) for one in ("chance", "gender_oracle", "ceiling")]
        yield _row(words, figures[name], figures["ci95"] if name == "map" else None, bounds)
        if name == "map" and abs(figures["map"] - figures["map_exact"]) >= 0.0005:
            yield f"    through the index; searched exactly it is {figures['map_exact']:.3f}"
        if name == "map" and (gained := figures.get("gained")):
            low, high = gained["ci95"]
            yield (
                f"    the mean of such probes is taken from each; as they are {gained['map_before']:.3f}, "
                f"{gained['difference']:+.3f} by that ({low:+.3f} to {high:+.3f})"
            )


def _matching_rows(sizes: Mapping[str, Any], shared: str) -> Iterator[str]:
    """The smallest and the largest N, and one between."""
    numbers = sorted(map(int, sizes))
    for number in sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]}):
        one = sizes[str(number)]
        words = f"1 of {number}" + (f", all {shared}" if shared else "")
        yield _row(words, one["accuracy"], one["ci95"], [one["chance"], one["gender_oracle"], one["ceiling"]])


def _verification_rows(figures: Mapping[str, Any], whom: str) -> Iterator[str]:
    for name, interval in (("auc", "ci95"), ("eer", "eer_ci95")):
        bounds = [figures[f"{one}_{name}"] for one in ("chance", "gender_oracle", "ceiling")]
        yield _row(f"{name.upper()}, {whom}", figures[name], figures[interval], bounds)


def _label_agreement_rows(by_clusters: Mapping[str, Any]) -> list[str]:
    """How often the clusters of a person's face and voice have one rank; nothing where nobody could be clustered."""
    known = {number: told for number, told in by_clusters.items() if told["agreement"] is not None}
    rows = [_row(f"of {number} clusters", one["agreement"], None, [one["chance"], None, None])
            for number, one in known.items()]  # fmt: skip
    return ["", "Do a person's face and voice lie in clusters of one rank?", *rows] if rows else []


def _row(words: str, value: float, interval: list[float] | None, bounds: list[float | None]) -> str:
    """One line; ``bounds`` are chance, gender oracle and ceiling."""
    chance, _, ceiling = bounds
    share = "-"
    if chance is not None and ceiling is not None and abs(ceiling - chance) > 1e-9:
        share = f"{round(100 * (value - chance) / (ceiling - chance))} %"
    between = "" if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"
    cells = [f"{value:.3f}", between, *("-" if bound is None else f"{bound:.3f}" for bound in bounds), share]
    widths = [width for _, width in _COLUMNS]
    return f"  {words}".ljust(_LABEL_WIDTH) + "".join(
        cell.rjust(width) for cell, width in zip(cells, widths, strict=True)
    )


def _depth(figures: Mapping[str, Any]) -> str:
    """How deep the index was asked, where it was not asked for everything."""
    depth = figures.get("depth")
    return f"; the first {depth} by the index" if depth and depth < figures["gallery"] else ""
