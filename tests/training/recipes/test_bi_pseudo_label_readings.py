"""Each reading of a formula that S2's paper leaves open against the function that is tested for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from encoders.space import Modality
from tests.training.recipes.test_bi_pseudo_label import a_batch, only, task_of
from training.pseudo_label_losses import (
    LearnedAssociation,
    association_loss,
    bi_pseudo_label_loss,
    distribution_loss,
    label_distribution,
)
from training.pseudo_labels import geometric_median, medoid, pair_labels, scale_columns
from training.recipe import Batch
from training.recipes.bi_pseudo_label import BiPseudoLabelTask


def by_hand(task: BiPseudoLabelTask, batch: Batch, find: Any, scale: Any, reduction: Any) -> dict[str, Tensor]:
    """The three losses of 6 clusters from the functions behind them."""
    features = task.embed(Modality.FACE, batch.faces), task.embed(Modality.VOICE, batch.voices)
    scaled = [scale_columns(one.detach().double()) for one in features]
    torch.manual_seed(4)
    found = pair_labels(scaled[0], scaled[1], (find(scaled[0]), find(scaled[1])), 6, True)
    labelled = features[0], found[0].labels, features[1], found[1].labels
    association = LearnedAssociation(8, 6, scale)
    association.load_state_dict(task.associations["6"].state_dict())
    shares = [label_distribution(*one, 1.0, reduction) for one in zip(features, found, strict=True)]
    return {
        "association": association_loss(association(*labelled)),
        "bi_pseudo_label": bi_pseudo_label_loss(task.labellers["6"], *labelled, "mean"),
        "distribution": distribution_loss(*shares),
    }


@pytest.mark.parametrize(
    ("changed", "moved", "functions"),
    [
        ({"prototype": "medoid"}, {"bi_pseudo_label", "distribution"}, (medoid, "bounded", "mean")),
        ({"score_scale": "mean"}, {"association"}, (geometric_median, "mean", "mean")),
        ({"score_scale": "sum"}, {"association"}, (geometric_median, "sum", "mean")),
        ({"distribution_reduction": "sum"}, {"distribution"}, (geometric_median, "bounded", "sum")),
    ],
)
def test_each_reading_of_a_formula_changes_its_own_terms_to_what_its_function_gives(
    changed: dict[str, Any], moved: set[str], functions: tuple[Any, Any, Any]
) -> None:
    plain, batch, terms = only(association="learned", bi_pseudo_label_loss=True, distribution_loss=True), a_batch(), []
    for settings, how in ((plain, (geometric_median, "bounded", "mean")), (replace(plain, **changed), functions)):
        task = task_of(replace(settings, variant="T"), "fm" * 12).eval()
        torch.manual_seed(4)
        terms.append(task.losses(batch))
        expected = by_hand(task, batch, *how)
        torch.testing.assert_close({name: terms[-1][name] for name in expected}, expected)
    assert {name for name in expected if not torch.isclose(terms[0][name], terms[1][name])} == moved
