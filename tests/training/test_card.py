from __future__ import annotations

from dataclasses import replace

import pytest

from training.card import CardFacts, model_card, with_measurements
from training.validation import Validated

FACTS = CardFacts(
    "name-0123",
    "name",
    {"margin": 0.6},
    "invented people",
    "two people",
    "three people",
    3,
    4,
    Validated(0.5, 0.25, 0.75, 0.875),
)
REPORT = {"verification": {"auc": 0.75}}


def test_another_domain_gets_a_warning_of_its_own() -> None:
    card = model_card(replace(FACTS, domain="this archive"))
    assert "trained on this archive only" in card and "invented" not in card


def test_figures_fill_their_section_and_no_other() -> None:
    before, after = model_card(FACTS), with_measurements(model_card(FACTS), REPORT)
    assert after.split("## Measured")[0] == before.split("## Measured")[0]
    assert after.split("## What it may")[1] == before.split("## What it may")[1]
    assert "| verification, all pairs, AUC | 0.750 | – | 0.500 | – |" in after
    assert "| voice to face | 0.500 | 0.750 |" in after and "| face to voice | 0.250 | 0.875 |" in after


def test_a_card_of_somebody_else_is_not_written_into() -> None:
    with pytest.raises(ValueError, match="has no section '## Measured'"):
        with_measurements("# something\n", REPORT)


def test_lines_stay_readable() -> None:
    assert max(len(line) for line in model_card(FACTS).splitlines()) <= 120


def test_a_beginning_that_no_epoch_bettered_is_called_that() -> None:
    card = model_card(replace(FACTS, best_epoch=0))
    assert "what the training began with, before 4 epochs that were no better" in card and "epoch 0" not in card
    assert "epoch 3 of 4, chosen" in model_card(FACTS)
