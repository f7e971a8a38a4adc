"""The model card of a trained encoder: what it is, whom it was trained on, how it did, what not to trust it with."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from training.validation import Validated

INVENTED = "invented people"
MEASURED = "## Measured"

_MEANING = {
    INVENTED: "It was trained on invented people only: drawn faces and synthesised voices, whose likeness to each "
    "other follows a rule that a program was given. **Nothing may be concluded from it about real people**: not who "
    "somebody is, not whether a real face and a real voice belong together, and not how well such a method would do "
    "on real people.",
}
_ELSEWHERE = "It was trained on {domain} only; nothing may be concluded from it about anybody else."
_VALIDATION = "No network learned from them, but the checkpoint was chosen and the calibration fitted on them:"
_LISTED = "Their identities are listed in `identities.txt`."
_WIDTH = 110


@dataclass(frozen=True)
class CardFacts:
    """What a card says before anything was measured on test people.

    Args:
        name: of the encoder.
        recipe: the method.
        settings: its numbers.
        domain: whom it is for, such as ``invented people``.
        trained_on: a sentence part: how many of whom, with how many samples.
        validated_on: likewise, for the people the checkpoint was chosen on.
        best_epoch: whose weights these are; 0: those that the training began with.
        epochs: trained in all.
        validated: that epoch's figures.
        beginnings: a sentence of each encoder whose networks it began with or learned on.
        probes: what ``probes.json`` holds; empty where it has none.
    """

    name: str
    recipe: str
    settings: Mapping[str, Any]
    domain: str
    trained_on: str
    validated_on: str
    best_epoch: int
    epochs: int
    validated: Validated
    beginnings: tuple[str, ...] = ()
    probes: Mapping[str, Any] = field(default_factory=dict)


def model_card(facts: CardFacts) -> str:
    """The card as Markdown; :func:`with_measurements` fills in what comes later."""
    meaning = _filled(_MEANING.get(facts.domain, _ELSEWHERE.format(domain=facts.domain)))
    return f"""# {facts.name}

Turns a face or a voice into a vector of one shared space, in which a face and a voice of one person point
about the same way. Its answers across the two are leads, never by themselves a name.

## Domain: {facts.domain}
{meaning}

## Trained on
{_filled(" ".join((_sentence(facts.trained_on), _LISTED, *facts.beginnings)))}

Recipe `{facts.recipe}`, {_chosen(facts)}, chosen by the mean of both mAP below.
Its settings:

```json
{json.dumps(dict(facts.settings), indent=1, sort_keys=True)}
```

## Validation
{_filled(f"{_sentence(facts.validated_on)} {_VALIDATION}")}

| question | mAP | right one of two |
|---|---|---|
| voice to face | {facts.validated.voice_to_face:.3f} | {facts.validated.voice_to_face_of_two:.3f} |
| face to voice | {facts.validated.face_to_voice:.3f} | {facts.validated.face_to_voice_of_two:.3f} |
{"".join(_asking(modality, told) for modality, told in sorted(facts.probes.items()))}
{MEASURED}
Not measured on test people yet.

## What it may and may not be trusted with
May be trusted with: ranking faces by a voice, or voices by a face, of {facts.domain} like those it was
trained on.

May not be trusted with: deciding about anybody; people of another domain than {facts.domain}; telling people
of one sex, age and build apart, who look and sound alike to it.
"""


def _asking(modality: str, told: Mapping[str, Any]) -> str:
    """How a modality asks, where its probes are moved."""
    before, after = (told["validation"][name] for name in ("map_before", "map"))
    text = (
        f"A {modality} asks for the other modality without the mean of {told['people']} {modality}s of training "
        f"people (`probes.json`): so these people find more, mAP {after:.3f} and not {before:.3f}."
    )
    return f"\n{_filled(text)}\n"


def _chosen(facts: CardFacts) -> str:
    if facts.best_epoch == 0:
        return f"what the training began with, before {facts.epochs} epochs that were no better"
    return f"epoch {facts.best_epoch} of {facts.epochs}"


def with_measurements(card: str, report: Mapping[str, Any]) -> str:
    """The card with a report's figures where its section of measurements is.

    Raises:
        ValueError: the card has no such section.
    """
    section = re.compile(rf"^{re.escape(MEASURED)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    if not section.search(card):
        raise ValueError(f"the card has no section {MEASURED!r}")
    return section.sub(lambda _: f"{MEASURED}\n{_measurements(report)}\n\n", card, count=1)


def _measurements(report: Mapping[str, Any]) -> str:
    sections = ("retrieval", "verification", "matching_1_to_n")
    lines = ["On people whom neither training nor validation saw, exactly as in `report.json`:", ""]
    lines += ["| figure | measured | 95 % interval | chance | ceiling |", "|---|---|---|---|---|"]
    for direction, figures in report.get("retrieval", {}).items():
        lines.append(_line(f"{_said(direction)}, mAP", figures, "map"))
    verification = report.get("verification", {})
    for name, figures in (("all pairs", verification), ("pairs of one sex", verification.get("same_sex", {}))):
        if "auc" in figures:
            told = dict(figures) | {"chance": 0.5, "ceiling": figures.get("ceiling_auc")}
            lines.append(_line(f"verification, {name}, AUC", told, "auc"))
    for direction, cells in report.get("matching_1_to_n", {}).items():
        for cell, sizes in cells.items():
            for size in dict.fromkeys((min(sizes, key=int), max(sizes, key=int))):
                lines.append(_line(f"{_said(direction)}, right one of {size}, {_said(cell)}", sizes[size], "accuracy"))
    if not any(report.get(name) for name in sections):
        raise ValueError(f"a report has at least one of {', '.join(sections)}, this one none")
    return "\n".join(lines)


def _line(name: str, figures: Mapping[str, Any], measured: str) -> str:
    interval = figures.get("ci95")
    between = "–" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
    cells = [_number(figures.get(key)) for key in (measured, "chance", "ceiling")]
    return f"| {name} | {cells[0]} | {between} | {cells[1]} | {cells[2]} |"


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"


def _said(name: str) -> str:
    return name.replace("_", " ")


def _filled(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_on_hyphens=False)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
