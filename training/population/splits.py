"""Who is in which part of the population, and which samples each has: all of it from a few numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from encoders.space import Modality
from training.population.people import MOST_PEOPLE, Person, Stream, invent_people
from training.population.samples import NOISE, PHOTO_SIDE

_DRAWING = (
    "faces",
    "features",
    "hair",
    "head",
    "lists",
    "looks",
    "people",
    "relief",
    "samples",
    "splits",
    "synthesiser",
    "voices",
)


def version_of_drawing(folder: Path = Path(__file__).parent) -> str:
    """12 hex digits of the code by which numbers become samples and lists: whoever changes it gets other people.

    Args:
        folder: of this package.
    """
    digest = hashlib.sha256()
    for name in _DRAWING:
        digest.update((folder / f"{name}.py").read_bytes())
    return digest.hexdigest()[:12]


GENERATOR = version_of_drawing()
"""Version of everything that draws. A cache made by other code must not be taken for what this code would draw."""

LEAST_PEOPLE = 4
"""Two of each sex: a list of one sex needs somebody to be mistaken for."""

_SUFFIXES = {Modality.FACE: "jpg", Modality.VOICE: "flac"}
_MOST_SAMPLES = 99


@dataclass(frozen=True)
class PopulationSpec:
    """How many people are measured on. The defaults are the instrument; smaller ones are for tests.

    Args:
        test_people: whom no recipe ever sees, at least 4.
        test_samples: photos of each, and as many utterances, 1 to 99.
        validation_people: on whom checkpoints are chosen and thresholds calibrated, at least 4.
        validation_samples: photos of each, and as many utterances.
        films: of one, two, three, one, … test people.
    """

    test_people: int = 200
    test_samples: int = 5
    validation_people: int = 60
    validation_samples: int = 4
    films: int = 3

    def __post_init__(self) -> None:
        _check_size("test", self.test_people, self.test_samples, LEAST_PEOPLE)
        _check_size("validation", self.validation_people, self.validation_samples, LEAST_PEOPLE)
        if self.films < 0:
            raise ValueError(f"the number of films must be at least 0, got {self.films}")

    @property
    def test(self) -> Split:
        """The test people."""
        return Split(Stream.TEST, self.test_people, self.test_samples)

    @property
    def validation(self) -> Split:
        """The validation people."""
        return Split(Stream.VALIDATION, self.validation_people, self.validation_samples)

    @property
    def digest(self) -> str:
        """SHA-256, 64 hex digits, of this and of the generator's version."""
        return _digest("protocol", asdict(self))


@dataclass(frozen=True)
class TrainingSpec:
    """How many people are trained on.

    Args:
        people: at least 2.
        samples: photos of each, and as many utterances, 1 to 99.
        seed: another seed gives other people, 0 to 2**32 - 1.
    """

    people: int = 1250
    samples: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        _check_size("training", self.people, self.samples, 2)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"the seed must be 0 to 2**32 - 1, got {self.seed}")

    @property
    def split(self) -> Split:
        """The training people."""
        return Split(Stream.TRAINING, self.people, self.samples, self.seed)

    @property
    def digest(self) -> str:
        """SHA-256, 64 hex digits, of this and of the generator's version."""
        return _digest("training", asdict(self))


@dataclass(frozen=True)
class Entry:
    """One sample as a list names it.

    Args:
        path: of its file, relative to the folder of the media.
        person: whose it is.
        modality: photo or utterance.
        number: which of the person's, from 1.
    """

    path: str
    person: Person
    modality: Modality
    number: int

    @property
    def identity(self) -> str:
        """Whose it is, as lists say it."""
        return self.person.identity


@dataclass(frozen=True)
class Split:
    """People of one stream, and how many samples each has.

    Args:
        stream: which.
        count: people.
        samples: photos of each, and as many utterances.
        seed: of people and samples.
    """

    stream: Stream
    count: int
    samples: int
    seed: int = 0

    def people(self) -> list[Person]:
        """The people, women and men in turn."""
        return invent_people(self.count, self.seed, self.stream)


def entries_of(person: Person, modality: Modality, samples: int) -> Iterator[Entry]:
    """One person's samples of one modality, in order of their numbers."""
    for number in range(1, samples + 1):
        name = f"{modality}_{number:02d}.{_SUFFIXES[modality]}"
        yield Entry(f"{person.identity}/{name}", person, modality, number)


def _check_size(what: str, people: int, samples: int, least: int) -> None:
    if not least <= people <= MOST_PEOPLE or not 1 <= samples <= _MOST_SAMPLES:
        raise ValueError(
            f"{what} needs {least} to {MOST_PEOPLE} people and 1 to {_MOST_SAMPLES} samples of each, "
            f"got {people} people and {samples} samples"
        )


def _digest(kind: str, numbers: dict[str, int]) -> str:
    # Noise and size may be changed while a program runs, as tests do.
    drawn = {"generator": GENERATOR, "noise": {str(key): NOISE[key] for key in sorted(NOISE)}, "side": PHOTO_SIDE}
    told = json.dumps({"kind": kind, **numbers, **drawn}, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()
