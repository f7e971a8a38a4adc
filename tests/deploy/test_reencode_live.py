"""A model is exchanged and gone back from on a real server while clients search and somebody enrols people."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from deploy import wiring
from deploy.choice import read_choices
from deploy.models import write_choice
from deploy.settings import load_settings
from deploy.wiring import Installation
from encoders.space import Modality, Space
from tests.deploy.drawings import Drawings, make_models, space_of
from tests.deploy.live_server import LiveServer, environment_of, live_server
from training.population.faces import draw_view, render_face
from training.population.folder import write_photo
from training.population.people import invent_people

CLIENTS, CLIENTS_WITH_FILES = 8, 2
PEOPLE, PROBES, EVERYTHING = 10, 12, 1000
# Scores are the same to this: an index computes in single precision, in any order.
ROUNDING = 1e-4
# Answers that must have come from a model before the next thing happens to it.
ENOUGH = 100

Hits = dict[str, float]


@dataclass(frozen=True)
class Answer:
    """One answer: to which probe (None: a photo), in which space (the one asked for), when it came, and what it was."""

    probe: int | None
    digest: str
    came: float
    status: int
    hits: Hits
    spaces: frozenset[str]


@dataclass
class Truth:
    """Of the rows that are there all the time: the cosine of every probe to every piece of evidence, by space."""

    probes: dict[str, list[list[float]]] = field(default_factory=dict)
    hits: dict[str, list[Hits]] = field(default_factory=dict)

    def learn(self, opened: Installation, space: Space) -> None:
        rows = [row for row in opened.store.rows(space) if row.embedding.modality is Modality.FACE]
        drawn = np.random.default_rng(20).normal(size=(PROBES, space.dimension))
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        cosines = drawn @ np.stack([row.embedding.vector for row in rows]).T
        self.probes[space.digest] = drawn.tolist()
        evidence = [row.evidence for row in rows]
        self.hits[space.digest] = [dict(zip(evidence, line, strict=True)) for line in cosines.tolist()]


def agree(found: Hits, expected: Hits) -> bool:
    """Whether hits have these, with these scores; rows that came meanwhile may be among them."""
    return all(abs(found.get(evidence, 9.0) - score) <= ROUNDING for evidence, score in expected.items())


@dataclass
class Clients:
    """Threads that search all the time: most with a vector of the space that the server names, some with a photo."""

    port: int
    truth: Truth
    photo: bytes
    answers: list[Answer] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def asking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)

    def _ask(self, number: int) -> None:
        with self.client() as client:
            turn = number
            while not self._ended.is_set():
                turn += 1
                if number < CLIENTS_WITH_FILES:
                    self.answers.append(self.by_photo(client))
                else:
                    self.answers.append(self.by_vector(client, turn % PROBES, self.serving(client)))

    def serving(self, client: httpx.Client) -> str:
        """Digest of the shared space that the server names."""
        spaces = {space["name"]: space["digest"] for space in client.get("/v1/spaces").json()["spaces"]}
        return str(spaces["shared"])

    def by_vector(self, client: httpx.Client, probe: int, digest: str) -> Answer:
        asked = {"space_digest": digest, "modality": "voice", "want": "face", "top": EVERYTHING}
        told = client.post("/v1/search", json=asked | {"vector": self.truth.probes[digest][probe]})
        return self._answer(told, probe, digest)

    def by_photo(self, client: httpx.Client) -> Answer:
        told = client.post(
            "/v1/search", data={"want": "voice", "top": EVERYTHING}, files={"file": ("photo.jpg", self.photo)}
        )
        return self._answer(told, None, "")

    def _answer(self, told: httpx.Response, probe: int | None, digest: str) -> Answer:
        hits = told.json().get("hits", [])
        found = {hit["evidence"]: hit["score"] for hit in hits}
        return Answer(probe, digest, time.monotonic(), told.status_code, found, frozenset(hit["space"] for hit in hits))

    def wait_for(self, digest: str) -> None:
        """Until many more answers in a space have come."""
        deadline, before = time.monotonic() + 120, len(self.answers)
        while sum(answer.digest == digest for answer in self.answers[before:]) < ENOUGH:
            assert time.monotonic() < deadline
            time.sleep(0.02)


class Writer(threading.Thread):
    """Enrols one person after the other, and forgets every third, with an installation of its own."""

    def __init__(self, opened: Installation, folder: Path) -> None:
        super().__init__()
        self._opened, self._folder = opened, folder
        self.ended, self.failure, self.there = threading.Event(), None, set[str]()

    def run(self) -> None:
        try:
            for number in range(10_000):
                if self.ended.is_set():
                    return
                path = self._folder / f"late {number}"
                path.write_text(f"face {100 + number} voice {100 + number}")
                assert self._opened.archive.enrol(f"late {number}", [path]).added
                self.there.add(f"late {number}")
                if number % 3 == 2:
                    self._opened.archive.forget(f"late {number - 1}")
                    self.there.discard(f"late {number - 1}")
        except BaseException as error:  # noqa: BLE001 - told to the test
            self.failure = error  # type: ignore[assignment]


@dataclass
class Place:
    """A home on a Milvus server, in which the first of two models serves and ten people are enrolled."""

    folder: Path
    settings: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def open(self) -> Installation:
        return Installation(load_settings({"VISAVOX_HOME": str(self.home), "VISAVOX_DEVICE": "cpu"} | self.settings))

    def reencode(self, *arguments: str) -> dict[str, Any]:
        told = subprocess.run(
            [sys.executable, "-m", "deploy.cli", "reencode", *arguments, "--json"],
            env=environment_of(self.home) | self.settings, stdout=subprocess.PIPE, check=True, timeout=300,
        )  # fmt: skip
        return dict(json.loads(told.stdout))

    def space(self, name: str) -> Space:
        return space_of(self.home / "encoders" / name)


@pytest.fixture
def place(tmp_path: Path, milvus_server: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path, {"VISAVOX_MILVUS_URI": milvus_server})
    make_models(place.home / "encoders", "first", "second")
    monkeypatch.setattr(wiring, "make_extractor", lambda *_: Drawings())
    write_choice(place.home, place.home / "encoders/first")
    opened = place.open()
    opened.archive.mend()  # drops what other tests have left on this server
    for number in range(PEOPLE):
        (tmp_path / f"{number}").write_text(f"face {number} voice {number}")
        opened.archive.enrol(f"person {number}", [tmp_path / f"{number}"])
    opened.close()
    return place


def photo(folder: Path) -> bytes:
    """Of somebody nobody knows."""
    (person,) = invent_people(1, 7)
    write_photo(folder / "photo.jpg", render_face(person, draw_view(np.random.default_rng(7)), 256, seed=7))
    return (folder / "photo.jpg").read_bytes()


def check_answers(clients: Clients, old: Answer, new: Answer) -> None:
    """No answer failed, and each is that of exact search in one of the two spaces, as a whole."""
    assert {answer.status for answer in clients.answers} == {200}
    with_photos = [answer for answer in clients.answers if answer.probe is None]
    assert len(with_photos) > CLIENTS_WITH_FILES and {answer.spaces for answer in clients.answers} == {
        frozenset({"shared"})
    }
    always = {evidence: new.hits[evidence] for evidence in old.hits}  # those that came meanwhile may go again
    for answer in clients.answers:
        if answer.probe is None:
            assert agree(answer.hits, old.hits) != agree(answer.hits, always)
        else:
            assert agree(answer.hits, clients.truth.hits[answer.digest][answer.probe])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_clients_search_on_while_the_model_is_exchanged_and_gone_back_from(place: Place) -> None:
    opened, writer_opened = place.open(), place.open()
    first, second = place.space("first"), place.space("second")
    truth = Truth()
    with live_server(place.folder, **place.settings) as server:
        prepared = place.reencode("--model", "second", "--no-switch")
        assert (prepared["rows"], prepared["switched"], prepared["map"]["probes"]) == (2 * PEOPLE, False, 2 * PEOPLE)
        for space in (first, second):
            truth.learn(opened, space)
        told = exchanged(place, server, truth, Writer(writer_opened, place.folder))
    assert told["switched"] and told["digest"] == second.digest and told["written"] > 0
    for each in (opened, writer_opened):
        each.close()


def exchanged(place: Place, server: LiveServer, truth: Truth, writer: Writer) -> dict[str, Any]:
    """Exchange, and go back, while everybody works; what the exchange told."""
    first, second = place.space("first"), place.space("second")
    clients = Clients(server.port, truth, photo(place.folder))
    with clients.client() as client:
        old = clients.by_photo(client)
        with clients.asking():
            writer.start()
            clients.wait_for(first.digest)
            told = place.reencode("--model", "second")
            print({name: told[name] for name in ("switch_seconds", "seconds", "written", "rows")})
            clients.wait_for(second.digest)
            new = clients.by_photo(client)
            retired = clients.by_vector(client, 0, first.digest)
            assert retired.status == 200 and agree(retired.hits, truth.hits[first.digest][0])
            back = place.reencode("--rollback")
            print({name: back[name] for name in ("switch_seconds", "seconds", "written", "rows")})
            clients.wait_for(first.digest)
            writer.ended.set()
            writer.join()
        assert writer.failure is None and len(writer.there) > 2
        assert back["digest"] == first.digest and back["switched"]
        check_answers(clients, old, new)
        check_order(clients, first, second)
        check_rows(place)
        assert place.reencode("--discard-previous") == {"dropped": 1}
        refused = clients.by_vector(client, 0, second.digest)
        assert refused.status == 400 or refused.status == 409 or refused.status == 422, refused
    return told


def check_order(clients: Clients, first: Space, second: Space) -> None:
    """Going over is one moment: behind the first answer of a space, one of the other comes at most from each client."""
    answers = sorted((one for one in clients.answers if one.probe is not None), key=lambda one: one.came)
    there = [number for number, one in enumerate(answers) if one.digest == second.digest]
    over, back = there[0], there[-1]
    assert all(one.digest == first.digest for one in (*answers[:over], *answers[back + 1 :]))
    late = [one for one in answers[over : over + ENOUGH] if one.digest == first.digest]
    assert len(late) <= CLIENTS
    gaps = [later.came - one.came for one, later in pairwise(answers)]
    print(f"{len(answers)} answers, the longest pause {max(gaps):.3f} s, at the switch {gaps[over - 1]:.3f} s")


def check_rows(place: Place) -> None:
    """Both collections say what the records say but for what was written after going back."""
    assert read_choices(place.home).previous == place.home / "encoders/second"
    opened = place.open()
    assert opened.archive.mend() == 0
    people = {person.id for person in opened.records.people.everyone()}
    for name in ("first", "second"):
        assert {row.person for row in opened.store.rows(place.space(name))} <= people  # who is forgotten is nowhere
    opened.close()
