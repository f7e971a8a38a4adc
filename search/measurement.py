"""What a measurement is of, so that a command, a request and a worker's task name it alike; and what it may refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from encoders.space import Space
from ingest.tasks import NewJob, NewTask, Queue

EVALUATE = "evaluate"
"""The kind of jobs that measure, and of their only task."""
POPULATION, PEOPLE, ENROLLED = "population", "people", "enrolled"
ON = (POPULATION, PEOPLE, ENROLLED)


BOOTSTRAP_DRAWS = 1000
BOOTSTRAP_SEED = 20
"""Of the identity bootstrap, unless somebody says otherwise."""


class NothingToMeasure(ValueError):
    """Fewer than two people have samples, or nobody has two: no ranking can be judged."""


@dataclass(frozen=True)
class Unusable:
    """A file that gave no sample: unreadable, or with neither face nor speech."""

    path: str
    reason: str
    readable: bool


class NoModel(LookupError):
    """There is no shared-space encoder to measure."""


class SeenInTraining(ValueError):
    """An encoder was trained on people that it would be tested on: every figure would be too good."""


class PointsError(ValueError):
    """A file of embeddings cannot be used; the message says why."""


class Model(Protocol):
    """What made the points, as far as a report speaks about it; an encoder is one."""

    @property
    def space(self) -> Space:
        """What its vectors live in."""

    @property
    def domain(self) -> str:
        """Whom it is for."""

    @property
    def trained_on(self) -> str:
        """What and whom it was trained on, in words."""

    @property
    def identities(self) -> frozenset[str]:
        """The people it was trained on, by name."""


@dataclass(frozen=True)
class Measurement:
    """What is to be measured.

    Args:
        on: ``population`` (the shared space on invented people), ``people`` (the identity encoders on a folder that
            holds one folder per person) or ``enrolled`` (the live collection's own people).
        folder: of the people.
        model: an encoder folder, or its name in the home; None: the one that serves.
        export: a file for what was scored, ``.npz``.
    """

    on: str
    folder: str | None = None
    model: str | None = None
    export: str | None = None

    def __post_init__(self) -> None:
        if self.on not in ON:
            raise ValueError(f"a measurement is on one of {', '.join(ON)}, not {self.on!r}")
        if (self.on == PEOPLE) != (self.folder is not None):
            raise ValueError("a folder goes with people, and people need one")
        if self.model is not None and self.on != POPULATION:
            raise ValueError("a model goes with the population; the others measure what serves")

    def to_json(self) -> dict[str, Any]:
        """This measurement as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Measurement:
        """Read back what ``to_json`` gave."""
        return cls(**{name: document.get(name) for name in ("on", "folder", "model", "export")})  # type: ignore[arg-type]


def evaluation_job(asked: Measurement, priority: int = 0) -> NewJob:
    """The job of measuring something."""
    task = NewTask(EVALUATE, Queue.EVALUATE, asked.to_json())
    return NewJob(EVALUATE, priority=priority, asked=asked.to_json(), tasks=[task])
