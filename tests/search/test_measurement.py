"""What a measurement may be of, and that a job's JSON says the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from search.measurement import ENROLLED, POPULATION, PROTOCOL, Measurement, OnLists, evaluation_job

LISTS = OnLists("/media/lists", embeddings="/media/v.npz", compare="/media/w.npz", intervals=False, within=("/media",))


@pytest.mark.parametrize(
    "asked",
    [Measurement(ENROLLED), Measurement(PROTOCOL, model="one", lists=LISTS), Measurement(POPULATION, compare="two")],
)
def test_a_job_s_task_says_all_of_it(asked: Measurement) -> None:
    (task,) = evaluation_job(asked).tasks
    assert Measurement.from_json(json.loads(json.dumps(task.arguments))) == asked


def test_a_task_of_an_earlier_version_is_still_understood() -> None:
    told = {"on": "enrolled", "folder": None, "model": None, "export": None}
    assert Measurement.from_json(told) == Measurement(ENROLLED)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"media": "m", "embeddings": "v.npz"}, "either media"),
        ({}, "either media"),
        ({"media": "m", "similarity": "dot"}, "a similarity is cosine, euclidean, correlation"),
        ({"media": "m", "similarity": "euclidean", "through_index": True}, "asks for cosines"),
        ({"embeddings": "v.npz", "compare": "encoder"}, "another npz file"),
    ],
)
def test_lists_that_do_not_fit_together_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        OnLists("lists", **given)


@pytest.mark.parametrize(
    "given",
    [
        {"on": PROTOCOL},
        {"on": ENROLLED, "lists": LISTS},
        {"on": PROTOCOL, "lists": LISTS, "folder": "x"},
        {"on": PROTOCOL, "lists": LISTS, "compare": "x"},
    ],
)
def test_lists_go_with_a_protocol_and_with_nothing_else(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"go(es)? with"):
        Measurement(**given)
