"""The figures of a protocol's report as tables of words, for a page or a text: each beside chance and the oracles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.protocol_table import by_that, mean_map

WAYS = {"voice_to_face": "voice → face", "face_to_voice": "face → voice"}
SPLITS = {"unseen_unheard": "unseen, unheard people", "seen_heard": "seen, heard people"}
GROUPS = {
    "U": "U, any two people", "G": "G, of one sex", "N": "N, of one nationality", "A": "A, of one age group",
    "GN": "GN, of one sex and nationality", "GNA": "GNA, of one sex, nationality and age group",
}  # fmt: skip
ORACLES = {"gender": "knows the sex", "gender_nationality": "knows sex and nationality"}
CEILING = "ceiling"
LEGEND = (
    ("mAP", "are the right ones at the top? 1 when all of them come first; comparable within one gallery only"),
    ("recall@k", "share of searches with a right one among the first k"),
    ("MRR", "1 / place of the first right one, on average"),
    ("AUC", "how often a pair of one person scores higher than a pair of two; guessing gives 50 %"),
    ("EER", "share of wrong answers where both kinds of error are equally frequent; lower is better"),
    ("1:N", "how often the right one is picked out of N"),
    (CEILING, "the best that any model can reach, where it is known how these people were made"),
    ("interval", "where the figure may lie for other people of this kind: 95 %, from resampled people"),
)
_RETRIEVAL = (
    ("map", "mAP", "ci95", "chance"),
    ("map_other_videos", "mAP without the probe's own video", "map_other_videos_ci95", None),
    ("recall_at_1", "recall@1", None, "chance_recall_at_1"),
    ("recall_at_5", "recall@5", None, "chance_recall_at_5"),
    ("recall_at_10", "recall@10", None, "chance_recall_at_10"),
    ("mrr", "MRR", None, "chance_mrr"),
)


@dataclass(frozen=True)
class Table:
    """A table of words.

    Args:
        title: what it is about.
        head: of its columns.
        rows: as many words as the head each.
        note: a sentence below it, or empty.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        if wrong := [row for row in self.rows if len(row) != len(self.head)]:
            raise ValueError(f"{self.title}: a row needs {len(self.head)} cells, got {wrong[0]}")


def facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured on whom, as names and words."""
    protocol, model, seen = report["protocol"], report["model"], report["seen"]
    samples, drawn = protocol["samples"], protocol["drawn"]
    told = [
        ("protocol", f"{protocol['name']}, digest {protocol['digest'][:12]}"),
        ("people", f"{protocol['people']} of the test, {samples['face']} faces, {samples['voice']} voices"),
        ("drawn here", f"by seed {drawn['seed']}, digest {drawn['digest'][:12]}" if drawn else "nothing"),
        ("model", f"{model['space'] or 'space not stated'}, {model['dimension']} dimensions, {model['similarity']}"),
        ("vectors", f"digest {model['vectors_digest'][:12]}"),
        ("trained on", model["trained_on"] or "not stated"),
        ("test people it knows", seen["note"]),
    ]
    left = [f"{count} {name.replace('_', ' ')}" for name, count in protocol["left_out"].items() if count]
    told.append(("left out", ", ".join(left) or "nothing"))
    if "test_evaluations" in report:
        told.append(("evaluations on this test", f"this is number {report['test_evaluations']['number']} here"))
    threshold = report.get("threshold")
    fitted = f"{threshold['value']:.4f}" if isinstance(threshold, Mapping) and "value" in threshold else ""
    told.append(("verification threshold", fitted or str(report.get("threshold_note") or "none")))
    return told


def tables(report: Mapping[str, Any]) -> list[Table]:
    """All tables of a report of :func:`search.protocol_report.report_on`, in the order in which they are read."""
    return [
        *_retrieval(report), *_verification(report), *_matching(report), *_matching_1_to_n(report),
        *_by_kind(report), *_label_agreement(report), *_comparison(report),
    ]  # fmt: skip


def percent(value: float | None) -> str:
    """A fraction in percent, two places; a dash for none."""
    return "–" if value is None else f"{100 * value:.2f}"


def _interval(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"{100 * bounds[0]:.2f} to {100 * bounds[1]:.2f}"


def _retrieval(report: Mapping[str, Any]) -> Iterator[Table]:
    for way, figures in report["retrieval"].items():
        others = [report["oracles"][name]["retrieval"][way] for name in ORACLES]
        ceiling = {"map": percent(figures["ceiling"])} if figures.get("ceiling") is not None else {}
        rows = tuple(
            (words, percent(figures[name]), _interval(figures[bounds]) if bounds else "",
             percent(figures[chance]) if chance else "", *(percent(one[name]) for one in others),
             *([ceiling.get(name, "")] if ceiling else []))
            for name, words, bounds, chance in _RETRIEVAL
        )  # fmt: skip
        notes = []
        if gained := figures.get("gained"):
            before = percent(gained["map_before"])
            notes.append(
                f"The mean of such probes is taken from each; as they are, mAP is {before} %{by_that(gained)}."
            )
        if "index_recall" in figures:
            notes.append(
                f"Through the index, first {figures['index_depth']} answers: mAP {percent(figures['map_at_1000'])} %, "
                f"exactly {percent(figures['map_at_1000_exact'])} %; it finds {percent(figures['index_recall'])} % of "
                "what exact search finds."
            )
        title = f"Retrieval, {WAYS[way]}: {figures['probes']} searches in {figures['gallery']} samples"
        head = ("%", "model", "interval", "chance", *ORACLES.values(), *([CEILING] if ceiling else []))
        yield Table(title, head, rows, " ".join(notes))
    trees = (report["retrieval"], *(report["oracles"][name]["retrieval"] for name in ORACLES))
    means = tuple(percent(mean_map(tree)) for tree in trees)
    yield Table("Retrieval, mean of both ways", ("%", "model", *ORACLES.values()), (("mean of both mAP", *means),))


def _verification(report: Mapping[str, Any]) -> Iterator[Table]:
    for split, words in SPLITS.items():
        groups = report["verification"].get(split, {})
        ceiling = any(own.get("ceiling_auc") is not None for own in groups.values())
        rows = []
        for group in groups:
            own = groups[group]
            others = [report["oracles"][name]["verification"][split][group] for name in ORACLES]
            rows.append(
                (GROUPS.get(group, group), percent(own["auc"]), _interval(own["ci95"]), percent(own["eer"]),
                 *(percent(one["auc"]) for one in others),
                 *([percent(own.get("ceiling_auc"))] if ceiling else []), f"{own['pairs']:,}")
            )  # fmt: skip
        if rows:
            names = [*ORACLES.values(), *([CEILING] if ceiling else [])]
            head = ("%", "AUC", "interval", "EER", *(f"AUC, {name}" for name in names), "pairs")
            yield Table(f"Verification, {words}", head, tuple(rows), "Chance is 50 % for AUC and EER.")


def _matching(report: Mapping[str, Any]) -> Iterator[Table]:
    rows = []
    for way, groups in report["matching"].items():
        for group, own in groups.items():
            others = [report["oracles"][name]["matching"][way][group]["accuracy"] for name in ORACLES]
            rows.append(
                (f"{WAYS[way]}, {GROUPS.get(group, group)}", percent(own["accuracy"]), _interval(own["ci95"]),
                 *map(percent, others), f"{own['trials']:,}")
            )  # fmt: skip
    if rows:
        yield Table(
            "Matching 1:2", ("%", "model", "interval", *ORACLES.values(), "trials"), tuple(rows), "Chance: 50 %."
        )


def _matching_1_to_n(report: Mapping[str, Any]) -> Iterator[Table]:
    for way, groups in report["matching_1_to_n"].items():
        numbers = sorted({int(number) for sizes in groups.values() for number in sizes})
        rows = [
            (GROUPS.get(group, group), *(percent(sizes.get(str(number), {}).get("accuracy")) for number in numbers))
            for group, sizes in groups.items()
        ]
        if rows:
            rows.append(("chance", *(percent(1 / number) for number in numbers)))
            best = {number: groups.get("U", {}).get(str(number), {}).get("ceiling") for number in numbers}
            if any(value is not None for value in best.values()):
                rows.append((f"{CEILING}, U", *(percent(best[number]) for number in numbers)))
            yield Table(f"Matching 1:N, {WAYS[way]}", ("%", *(f"1:{number}" for number in numbers)), tuple(rows))


def _by_kind(report: Mapping[str, Any]) -> Iterator[Table]:
    """The same figures for people of one sex or nationality: a model that serves some worse shows here."""
    for kind in ("sex", "nationality"):
        told = report.get("breakdown", {}).get(kind, {})
        rows = []
        for name, figures in told.items():
            verified = figures["verification"]
            rows.append(
                (name, str(figures["people"]), *(_with_bounds(verified.get(group), "auc") for group in ("U", "G")),
                 *(_with_bounds(figures["retrieval"].get(way), "map") for way in WAYS))
            )  # fmt: skip
        if rows:
            head = (f"by {kind}, %", "people", "AUC U", "AUC G", *(f"mAP {words}" for words in WAYS.values()))
            yield Table(f"By {kind} of who is asked for", head, tuple(rows))


def _with_bounds(figures: Mapping[str, Any] | None, name: str) -> str:
    if not figures or figures.get(name) is None:
        return "–"
    bounds = _interval(figures.get("ci95"))
    return percent(figures[name]) + (f" ({bounds})" if bounds else "")


def _label_agreement(report: Mapping[str, Any]) -> Iterator[Table]:
    rows = [
        (number, percent(told["agreement"]), percent(told["chance"]), f"{told['pairs']:,}")
        for number, told in report.get("label_agreement", {}).items()
    ]
    if rows:
        note = (
            "Faces and voices are clustered apart, a batch at a time, and clusters ranked: how often a pair of one "
            "person has one rank. Chance: the same with everybody beside another one's voice."
        )
        title = "Face and voice of a person in clusters of one rank"
        yield Table(title, ("clusters", "agreement, %", "chance, %", "pairs"), tuple(rows), note)


def _comparison(report: Mapping[str, Any]) -> Iterator[Table]:
    if "comparison" not in report:
        return
    told, rows = report["comparison"]["difference"], []
    for way, figures in told["retrieval"].items():
        rows.append((f"mAP, {WAYS[way]}", figures["map"]))
    for split, groups in told["verification"].items():
        rows += [(f"AUC {group}, {SPLITS[split]}", figures["auc"]) for group, figures in groups.items()]
    for way, groups in told["matching"].items():
        rows += [(f"1:2 {group}, {WAYS[way]}", figures["accuracy"]) for group, figures in groups.items()]
    other = report["comparison"]["model"]["vectors_digest"][:12]
    words = tuple((name, percent(gained["difference"]), _interval(gained["ci95"])) for name, gained in rows)
    note = (
        "The model minus the other one on the same trials and the same draws of people; 0 inside: no difference shown."
    )
    yield Table(f"Beside another model (vectors {other})", ("difference, %", "model − other", "interval"), words, note)
