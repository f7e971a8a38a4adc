"""A protocol's report for the terminal: each figure beside chance and the oracles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_HEADING = ("", "model", "95 % interval", "chance", "gender", "gender+nat.")
_WIDTHS = (34, 9, 17, 9, 9, 13)
_TITLES = {"voice_to_face": "voice to face", "face_to_voice": "face to voice"}
_SPLITS = {"unseen_unheard": "unseen, unheard", "seen_heard": "seen, heard"}
_LEGEND = """\
All in %; intervals from resampled people. U: any two people; G, N, A: of one sex, nationality, age group.
gender, gender+nat.: a scorer that knows nothing else. mAP is comparable within this gallery only."""


def as_protocol_table(report: Mapping[str, Any]) -> str:
    """A readable table of what :func:`search.protocol_report.report_on` gives."""
    return "\n".join([*_who(report), "", _line(_HEADING), *_figures(report), "", _LEGEND, *comparison_lines(report)])


def _who(report: Mapping[str, Any]) -> Iterator[str]:
    protocol, model = report["protocol"], report["model"]
    samples = protocol["samples"]
    yield (
        f"Protocol {protocol['name']} ({protocol['digest'][:12]}): {protocol['people']} test people, "
        f"{samples['face']} faces and {samples['voice']} voices"
    )
    if protocol["drawn"]:
        yield f"Drawn by seed {protocol['drawn']['seed']}: {protocol['drawn']['digest'][:12]}"
    trained = model["trained_on"] or "not stated"
    yield f"Vectors {model['vectors_digest'][:12]} by {model['similarity']}, trained on: {trained}"
    yield report["seen"]["note"]
    left = {name: count for name, count in protocol["left_out"].items() if count}
    if left:
        yield "Left out: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in left.items())


def _figures(report: Mapping[str, Any]) -> Iterator[str]:
    for split, groups in report["verification"].items():
        yield f"Verification, {_SPLITS[split]}"
        for group in groups:
            place = ("verification", split, group)
            yield _row(f"  AUC {group}", report, place, "auc", "ci95", "chance")
            yield _row(f"  EER {group}", report, place, "eer", "eer_ci95", "chance_eer")
    for way, groups in report["matching"].items():
        yield f"1:2, {_TITLES[way]}"
        for group in groups:
            yield _row(f"  {group}", report, ("matching", way, group), "accuracy", "ci95", "chance")
    for way, drawn in report["matching_1_to_n"].items():
        for group, sizes in drawn.items():
            size = max(sizes, key=int)
            yield _row(f"1:{size}, {_TITLES[way]}, {group}", report, ("matching_1_to_n", way, group, size), "accuracy",
                       "ci95", "chance")  # fmt: skip
    recalls = [(f"recall_at_{k}", None, f"chance_recall_at_{k}") for k in (1, 5, 10)]
    rows: list[tuple[str, str | None, str | None]] = [
        ("map", "ci95", "chance"), ("map_other_videos", "map_other_videos_ci95", None), *recalls,
        ("mrr", None, "chance_mrr"),
    ]  # fmt: skip
    for way, figures in report["retrieval"].items():
        yield f"Retrieval, {_TITLES[way]}: {figures['probes']} probes in {figures['gallery']}"
        for figure, bounds, guessed in rows:
            yield _row(f"  {figure.replace('_', ' ')}", report, ("retrieval", way), figure, bounds, guessed)
        if gained := figures.get("gained"):
            before = _percent(gained["map_before"])
            yield f"  the mean of such probes is taken from each; as they are mAP {before}{by_that(gained)}"
        if "index_recall" in figures:
            yield (
                f"  first {figures['index_depth']} by the index: mAP {_percent(figures['map_at_1000'])}, exactly "
                f"{_percent(figures['map_at_1000_exact'])}; it finds {_percent(figures['index_recall'])} of them"
            )
    oracles = (report["oracles"][name]["retrieval"] for name in ("gender", "gender_nationality"))
    told = [_percent(mean_map(one)) for one in (report["retrieval"], *oracles)]
    yield _line(("Mean of both mAP", told[0], "", "", *told[1:]))
    if "label_agreement" in report:
        yield "A person's face and voice in clusters of one rank"
        for number, told in report["label_agreement"].items():
            yield _line((f"  of {number} clusters", _percent(told["agreement"]), "", _percent(told["chance"]), "", ""))


def mean_map(retrieval: Mapping[str, Mapping[str, Any]]) -> float | None:
    """The mean average precision of all ways of a report's ``retrieval``, or None where one of them has none."""
    maps = [figures["map"] for figures in retrieval.values()]
    return None if None in maps else float(sum(maps) / len(maps))


def by_that(gained: Mapping[str, Any]) -> str:
    """What ``gained`` of a report says that probes without their mean gain, after a comma; nothing if it cannot say."""
    if gained["difference"] is None:
        return ""
    between = "({:+.2f} to {:+.2f})".format(*(100 * bound for bound in gained["ci95"])) if gained["ci95"] else ""
    return f", {100 * gained['difference']:+.2f} by that {between}".rstrip()


def comparison_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """How much more a model reached than the one it was compared with; nothing where there was none."""
    if "comparison" not in report:
        return
    told = report["comparison"]["difference"]
    yield f"\nMore than vectors {report['comparison']['model']['vectors_digest'][:12]}, on the same trials:"
    for way, figures in told["retrieval"].items():
        yield _difference(f"mAP, {_TITLES[way]}", figures["map"])
    for split, groups in told["verification"].items():
        for group, figures in groups.items():
            yield _difference(f"AUC {group}, {_SPLITS[split]}", figures["auc"])


def _difference(words: str, gained: Mapping[str, Any]) -> str:
    return f"  {words:<32}{_percent(gained['difference']):>9}   {_interval(gained['ci95'])}"


def _row(
    words: str, report: Mapping[str, Any], place: Sequence[str], name: str, interval: str | None, chance: str | None
) -> str:
    own = _at(report, place)
    oracles = [_at(report["oracles"][one], place)[name] for one in ("gender", "gender_nationality")]
    between = _interval(own[interval]) if interval else ""
    guessed = _percent(own[chance]) if chance else ""
    return _line((words, _percent(own[name]), between, guessed, *map(_percent, oracles)))


def _at(tree: Mapping[str, Any], place: Sequence[str]) -> Mapping[str, Any]:
    for name in place:
        tree = tree[name]
    return tree


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _interval(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"{100 * bounds[0]:.2f}–{100 * bounds[1]:.2f}"


def _line(cells: Sequence[str]) -> str:
    first, *rest = cells
    return first.ljust(_WIDTHS[0]) + "".join(cell.rjust(width) for cell, width in zip(rest, _WIDTHS[1:], strict=True))
