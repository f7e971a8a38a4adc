"""What a measurement is of, so that a command, a request and a worker's task name it alike; and what it may refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from encoders.space import Space
from ingest.tasks import NewJob, NewTask, Queue
from search.scores import Similarity

EVALUATE = "evaluate"
"""The kind of jobs that measure, and of their only task."""
POPULATION, PEOPLE, ENROLLED, PROTOCOL = "population", "people", "enrolled", "protocol"
ON = (POPULATION, PEOPLE, ENROLLED, PROTOCOL)
SIMILARITIES = tuple(map(str, Similarity))


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
class OnLists:
    """How published lists are measured on. Paths are as whoever measures sees them.

    Args:
        folder: of the lists.
        media: folder of the files that they name; None: the vectors come from a file.
        embeddings: that file, ``.npz``.
        compare: another such file, or with media another encoder folder.
        similarity: ``cosine``, ``euclidean`` or ``correlation``.
        through_index: whether the index is asked too.
        intervals: whether people are resampled.
        allow_seen: measure also what was trained on people of the test.
        allow_missing: leave out trials of samples that are not there.
        within: folders that nothing may lie outside of that is read, links followed; None: wherever it lies.
    """

    folder: str
    media: str | None = None
    embeddings: str | None = None
    compare: str | None = None
    similarity: str = "cosine"
    through_index: bool = False
    intervals: bool = True
    allow_seen: bool = False
    allow_missing: bool = False
    within: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if (self.media is None) == (self.embeddings is None):
            raise ValueError("a protocol needs either media (files to encode) or embeddings (vectors in an npz file)")
        if self.similarity not in SIMILARITIES:
            raise ValueError(f"a similarity is {', '.join(SIMILARITIES)}, not {self.similarity!r}")
        if self.through_index and self.similarity != "cosine":
            raise ValueError(f"an index asks for cosines: it does not go with the similarity {self.similarity}")
        if self.compare is not None and self.embeddings is not None and not self.compare.endswith(".npz"):
            raise ValueError(f"embeddings are compared with another npz file, not with {self.compare!r}")


@dataclass(frozen=True)
class Measurement:
    """What is to be measured.

    Args:
        on: ``population`` (the shared space on invented people), ``people`` (the identity encoders on a folder that
            holds one folder per person), ``enrolled`` (the live collection's own people) or ``protocol`` (the shared
            space on published lists).
        folder: of the people.
        model: an encoder folder, or its name in the home; None: the one that serves.
        export: a file for what was scored, ``.npz``.
        lists: of the protocol.
        html: with the population or a protocol, a file for the report as a page.
        markdown: likewise, as text.
        compare: with the population, another encoder folder, or its name in the home; a protocol's is in ``lists``.
    """

    on: str
    folder: str | None = None
    model: str | None = None
    export: str | None = None
    lists: OnLists | None = None
    html: str | None = None
    markdown: str | None = None
    compare: str | None = None

    def __post_init__(self) -> None:
        if self.on not in ON:
            raise ValueError(f"a measurement is on one of {', '.join(ON)}, not {self.on!r}")
        if (self.on == PEOPLE) != (self.folder is not None):
            raise ValueError("a folder goes with people, and people need one")
        if (self.on == PROTOCOL) != (self.lists is not None):
            raise ValueError("lists go with a protocol, and a protocol needs its lists")
        if self.model is not None and self.on not in (POPULATION, PROTOCOL):
            raise ValueError("a model goes with the population or a protocol; the others measure what serves")
        if self.compare is not None and self.on != POPULATION:
            raise ValueError("another encoder to compare with goes with the population; a protocol's is in its lists")
        if (self.html or self.markdown) and self.on not in (POPULATION, PROTOCOL):
            raise ValueError("a page and a text are written of the population or a protocol")

    def to_json(self) -> dict[str, Any]:
        """This measurement as plain JSON values."""
        told = asdict(self)
        if self.lists is not None and self.lists.within is not None:
            told["lists"]["within"] = list(self.lists.within)
        return told

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Measurement:
        """Read back what ``to_json`` gave."""
        lists = document.get("lists")
        if lists is not None:
            within = lists.get("within")
            lists = OnLists(**{**lists, "within": None if within is None else tuple(within)})
        names = ("folder", "model", "export", "html", "markdown", "compare")
        return cls(document["on"], **{name: document.get(name) for name in names}, lists=lists)


def evaluation_job(asked: Measurement, priority: int = 0) -> NewJob:
    """The job of measuring something."""
    task = NewTask(EVALUATE, Queue.EVALUATE, asked.to_json())
    return NewJob(EVALUATE, priority=priority, asked=asked.to_json(), tasks=[task])
