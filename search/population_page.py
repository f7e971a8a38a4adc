"""The report on invented people in the form in which a protocol's is drawn: beside all else, what can be reached."""

from __future__ import annotations

from typing import Any

from search.crossmodal import SHARED
from search.measurement import Model
from search.points import Points
from search.protocol_report import Measured, report_on
from search.sample_vectors import SampleVectors
from search.trial_lists import UNSEEN, TrialLists


def as_lists_report(
    report: dict[str, Any],
    lists: TrialLists,
    points: Points,
    model: Model,
    *,
    other: Measured | None = None,
    intervals: bool = True,
) -> tuple[dict[str, Any], SampleVectors]:
    """What :func:`search.protocol_report.report_on` says of the same points, for a page: by exact search.

    Where it is known how people were made, the best that any model can reach stands beside it as ``ceiling``.

    Args:
        report: of :func:`search.crossmodal.evaluate_protocol`.
        lists: the same lists, as :func:`search.published_lists.read_trial_lists` reads them.
        points: by the names of the lists.
        model: what made them.
        other: another model to compare with, on the same people.
        intervals: whether people are resampled.

    Returns:
        The report and the vectors that it is of.
    """
    vectors = SampleVectors.of_points(points, lists)
    told = report_on(lists, Measured(vectors, model, points.unusable), other=other, intervals=intervals)
    told["protocol"]["digest"] = report["protocol"]["digest"]
    told |= {"label_agreement": report["label_agreement"]} if "label_agreement" in report else {}
    pairs = told["verification"][UNSEEN]
    for group, known in (("U", report["verification"]), ("G", report["verification"][SHARED["G"]])):
        pairs[group]["ceiling_auc"] = known["ceiling_auc"]
    for way, known in report["retrieval"].items():
        told["retrieval"][way]["ceiling"] = known["ceiling"]
        for size, matched in report["matching_1_to_n"][way]["all"].items():
            told["matching_1_to_n"][way]["U"][size]["ceiling"] = matched["ceiling"]
    return told, vectors
