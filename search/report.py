"""Reports for people: the figures of an evaluation as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def as_table(report: Mapping[str, Any]) -> str:
    """A readable table of an evaluation's report (fractions shown as such, three decimals)."""
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
