"""An application on real records, with an engine that answers by what a file's own text says."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import httpx

from encoders.space import Embedding, Modality, Space
from ingest.background import BackgroundQueue
from ingest.book import Book
from ingest.content import MediaError
from ingest.jobs import JobBoard
from ingest.ledger import Finding, open_database
from ingest.runner import Runner
from search.answers import Candidate as Speaker
from search.answers import (
    EnrolAnswer,
    EvidenceKinds,
    FindAnswer,
    ForgetAnswer,
    FoundHit,
    MatchAnswer,
    MatchCandidate,
    PeopleAnswer,
    Refusal,
    VerifyAnswer,
    WhoAnswer,
    WhoTurn,
)
from search.api.problems import MEDIA_TYPE, TYPES
from search.api.services import Limits, Services, Work
from search.evidence import EvidenceMissing
from search.people import People, Person
from search.probes import ProbeUnusable
from search.scores import NotCalibrated
from search.store import Filter, StoreHeld
from tests.ingest.small_jobs import Reader, work_of

with warnings.catch_warnings():
    # Starlette would rather have another client than httpx
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

SPACE = Space("face_identity", 3, "a" * 64)
HIT = FoundHit("face_identity", "face", "m", None, None, "Ada", 0.9, 0.99, "e")
FILM = b"film of 5 s"
LOCAL = "http://127.0.0.1"


class Faces:
    """What an encoder says of itself."""

    space = SPACE
    modalities = frozenset({Modality.FACE})


class PlainEngine:
    """Answers by what a file's own text says; keeps what it was asked, and counts askers at a time."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.filters: list[Filter] = []
        self.seen: list[Path] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.at_work = self.most_at_work = 0

    def _read(self, path: Path) -> bytes:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        self.seen.append(path)
        self.go_on.wait(10)
        content = path.read_bytes()
        self.at_work -= 1
        if content in (b"garbage", b"no medium"):
            raise MediaError(path, "is no film, sound or photo")
        if content == b"nobody":
            raise ProbeUnusable(f"{path}: shows no usable face and holds no usable speech")
        if content == b"held":
            raise StoreHeld("the index is open in process 7")
        if content == b"bug":
            raise ZeroDivisionError("secret internals")
        return content

    def find(self, path: Path, want: Modality, top: int, where: Filter, /) -> FindAnswer:
        self.asked.append((self._read(path), want, top))
        self.filters.append(where)
        return FindAnswer([HIT], "a note")

    def find_vector(self, probe: Embedding, want: Modality, top: int, where: Filter, /) -> FindAnswer:
        self.asked.append((probe, want, top))
        self.filters.append(where)
        return FindAnswer([HIT])

    def who(self, path: Path, /) -> WhoAnswer:
        self._read(path)
        ada = Speaker("Ada", 0.8, 0.97, EvidenceKinds(voice=0.97))
        return WhoAnswer([WhoTurn(0.5, 2.0, [ada], "Ada")])

    def verify(self, a: Path, b: Path, kind: str, /) -> VerifyAnswer:
        if kind == "euclidean":
            raise NotCalibrated("face_identity has no calibration for euclidean")
        self.asked.append((self._read(a), self._read(b), kind))
        return VerifyAnswer(0.7, 0.8, True, 0.5, "face_identity")

    def match(self, probe: Path, candidates: Sequence[Path], kind: str, /) -> MatchAnswer:
        self.asked.append((self._read(probe), *map(self._read, candidates), kind))
        scored = [MatchCandidate(str(path), 0.1 * i, 0.2 * i) for i, path in enumerate(candidates)]
        return MatchAnswer(scored, str(candidates[-1]))


class PlainArchive:
    """Enrols a file as one face whose evidence is the hash of its bytes; there is no index to keep."""

    def __init__(self, engine: PlainEngine, people: People) -> None:
        self._engine = engine
        self._people = people

    def enrol_known(self, person_id: str, paths: Sequence[Path], /) -> EnrolAnswer:
        person, added, refused = self._people.find(person_id), [], []
        for path in paths:
            try:
                identity = hashlib.sha256(self._engine._read(path)).hexdigest()
            except MediaError as error:
                refused.append(Refusal(str(path), error.reason))
            else:
                self._people.add(person, [Finding(identity, "face", identity, -1, -1, 0, 1.0)])
                added.append(str(path))
        return EnrolAnswer(person.name, added, refused, [f"{path}: is short" for path in added])

    def forget(self, name: str, version: int | None = None, /) -> ForgetAnswer:
        person = self._people.find(name)
        held = len(self._people.samples(person.id))
        self._people.begin_forgetting(person, version)
        self._people.finish_forgetting(person.id)
        return ForgetAnswer(person.name, held, held, held)

    def people(self) -> PeopleAnswer:
        return self._people.summary()

    def merge(self, name: str, into: str, version: int | None = None, /) -> Person:
        gone, target = self._people.merge(name, into, version)
        self._people.finish_merging(gone)
        return target


def work_in(folder: Path, reader: Reader | None = None) -> Work:
    """Jobs that read files below ``folder/media`` into nowhere; begun when their ``hands`` are started."""
    book = Book(open_database(f"sqlite:///{folder / 'records.sqlite'}"), first_pause=0.01)
    tasks = work_of(reader or Reader())
    hands = BackgroundQueue(book, lambda stopping: Runner(book, tasks, (), stopping=stopping))
    (folder / "media").mkdir(exist_ok=True)
    return Work(book, hands, (folder / "media",))


class House:
    """An application with everything it was made of."""

    def __init__(self, folder: Path) -> None:
        self.engine = PlainEngine()
        database = open_database(f"sqlite:///{folder / 'records.sqlite'}")
        self.people = People(database)
        self.archive = PlainArchive(self.engine, self.people)
        self.missing: list[str] = []
        self.evidence = folder / "crop.png"
        self.evidence.write_bytes(b"a crop")
        self.uploads = folder / "two words" / "uploads"
        self.reader = Reader()
        self.work = work_in(folder, self.reader)
        self.services = Services(
            self.engine, self.archive, self.people, [Faces()], JobBoard(most_waiting=2), self.work,
            evidence=self.stored, ready=lambda: self.missing, seconds=self.seconds,
        )  # fmt: skip
        self.limits = Limits(upload_bytes=20_000, json_bytes=2_000, longest=1000, folder=self.uploads)

    def stored(self, identity: str) -> Path:
        if identity != "e":
            raise EvidenceMissing(f"no evidence {identity!r} is stored")
        return self.evidence

    @staticmethod
    def seconds(path: Path) -> float:
        if path.read_bytes() == b"no medium":
            raise MediaError(path, "is no film, sound or photo")
        return {b"film of 90 s": 90.0, b"film of 2 h": 7200.0}.get(path.read_bytes(), 5.0)

    def leftovers(self) -> list[str]:
        """Names in the uploads folder; one level, since a folder may go while one walks into it."""
        return os.listdir(self.uploads) if self.uploads.exists() else []

    def is_emptied(self) -> bool:
        """Whether nothing is left, or soon: a job is done a moment before its files are gone."""
        deadline = time.monotonic() + 10
        while self.leftovers() and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self.leftovers()


def upload(content: bytes = FILM, name: str = "film.mp4") -> dict[str, tuple[str, bytes, str]]:
    return {"file": (name, content, "text/html")}


def kind(response: httpx.Response) -> str:
    """The end of a problem's type, once everything a problem document needs is there."""
    assert response.headers["content-type"] == MEDIA_TYPE
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["title"] and problem["detail"]
    return str(problem["type"].removeprefix(TYPES))


def job_done(client: TestClient, address: str) -> dict[str, object]:
    deadline = time.monotonic() + 10
    while (job := client.get(address).json())["state"] in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return dict(job)


def open_files() -> list[str]:
    """What this process holds open."""
    held = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            held.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:
            continue
    return held
