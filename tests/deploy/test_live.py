"""A live engine goes over to another model: each answer is of one space, and none is refused meanwhile."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deploy import live as live_module
from deploy import wiring
from deploy.choice import Choice, write_choices
from deploy.live import LiveEngine
from deploy.models import write_choice
from deploy.reencoding import Exchange
from deploy.settings import load_settings
from deploy.wiring import Installation
from encoders.encoder import Encoder
from encoders.space import Embedding, Modality, SpaceMismatch
from search.answers import FindAnswer
from search.store import MemoryStore
from tests.deploy.drawings import Drawings, make_models, space_of

FACE, VOICE = Modality.FACE, Modality.VOICE


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"), "first", "second")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, made: Path) -> tuple[Path, dict[str, Encoder]]:
    """A home in which the first model serves and three people are enrolled; and the identity encoders, loaded once."""
    folder = tmp_path_factory.mktemp("filled")
    home = folder / "home"
    shutil.copytree(made, home / "encoders")
    write_choice(home, home / "encoders/first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "make_extractor", lambda *_: Drawings())
        opened = Installation(load_settings({"VISAVOX_HOME": str(home), "VISAVOX_DEVICE": "cpu"}))
        for number, name in enumerate(("Ann", "Bob", "Cid")):
            (folder / name).write_text(f"face {number} voice {number + 5}")
            opened.archive.enrol(name, [folder / name])
        opened.close()
    return home, opened._identity_encoders


@pytest.fixture
def opened(
    tmp_path: Path, filled: tuple[Path, dict[str, Encoder]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """An installation on a copy of it."""
    home = tmp_path / "home"
    shutil.copytree(filled[0], home)
    monkeypatch.setattr(wiring, "make_extractor", lambda *_: Drawings())
    opened = Installation(load_settings({"VISAVOX_HOME": str(home), "VISAVOX_DEVICE": "cpu"}))
    vars(opened)["_identity_encoders"] = filled[1]
    yield opened
    opened.close()


def folder(opened: Installation, name: str) -> Path:
    return opened.settings.home / "encoders" / name


def probe(opened: Installation, name: str) -> Embedding:
    """A voice in the space of a model."""
    space = space_of(folder(opened, name))
    return Embedding.of(space, VOICE, np.arange(1.0, space.dimension + 1))


def exact(opened: Installation, asked: Embedding) -> list[tuple[str, float]]:
    """Evidence and cosine of the faces of a space, best first, every row compared."""
    memory = MemoryStore()
    memory.upsert(asked.space, list(opened.store.rows(asked.space)))
    (hits,) = memory.search([asked], 10, want=FACE)
    return [(hit.row.evidence, round(hit.score, 4)) for hit in hits]


def shown(answer: FindAnswer) -> list[tuple[str, float]]:
    return [(hit.evidence, round(hit.score, 4)) for hit in answer.hits]


def names(live: LiveEngine) -> set[str]:
    return {encoder.space.digest for encoder in live.encoders}


def test_answers_go_over_and_vectors_of_the_space_before_are_answered_while_it_is_kept(opened: Installation) -> None:
    live = LiveEngine(opened)
    old, new = probe(opened, "first"), probe(opened, "second")
    with pytest.raises(SpaceMismatch):
        live.find_vector(new, FACE)
    Exchange(opened).bring_in(folder(opened, "second"), measure=False, switch=True)
    assert old.space.digest in names(live) and live.outdated() is None  # not noticed yet, and right all the same
    live.follow()
    assert new.space.digest in names(live) and old.space.digest not in names(live) and len(live.encoders) == 3
    for asked in (old, new):
        assert shown(live.find_vector(asked, FACE)) == exact(opened, asked) != []
    assert [encoder.space for encoder in live.retired()] == [old.space]
    Exchange(opened).discard()
    assert live.retired() == []
    with pytest.raises(SpaceMismatch):
        live.find_vector(old, FACE)
    live.follow()
    assert list(live._snapshots) == [folder(opened, "second")]


def test_going_back_is_followed_with_what_is_loaded_already(
    opened: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveEngine(opened)
    Exchange(opened).bring_in(folder(opened, "second"), measure=False, switch=True)
    live.follow()
    monkeypatch.setattr(wiring, "load_serving", lambda *_: 1 / 0)
    Exchange(opened).go_back()
    live.follow()
    assert probe(opened, "first").space.digest in names(live)


def test_the_model_that_is_being_filled_is_loaded_and_answers_nothing(opened: Installation) -> None:
    live = LiveEngine(opened)
    Exchange(opened).bring_in(folder(opened, "second"), measure=False, switch=False)
    live.follow()
    assert folder(opened, "second") in live._snapshots and live.retired() == []
    with pytest.raises(SpaceMismatch):
        live.find_vector(probe(opened, "second"), FACE)


def test_a_question_that_is_being_answered_ends_with_the_model_it_began_with(
    opened: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveEngine(opened)
    asked = tmp_path / "asked"
    asked.write_text("voice 9")
    before = live.find(asked, FACE)
    reading, answers, read = threading.Event(), [], Drawings.extract

    def slow(self: Drawings, path: Path) -> object:
        reading.set()
        while live.now.folder == folder(opened, "first"):
            live.follow()
        return read(self, path)

    thread = threading.Thread(target=lambda: answers.append(live.find(asked, FACE)))
    monkeypatch.setattr(Drawings, "extract", slow)
    thread.start()
    assert reading.wait(60)
    Exchange(opened).bring_in(folder(opened, "second"), measure=False, switch=True)
    thread.join(60)
    assert answers == [before] and live.find(asked, FACE) != before


def test_a_writer_writes_for_the_new_model_from_the_switch_on(opened: Installation, tmp_path: Path) -> None:
    archive = opened.archive
    Exchange(opened).bring_in(folder(opened, "second"), measure=False, switch=True)
    (tmp_path / "Dor").write_text("face 30 voice 31")
    archive.enrol("Dor", [tmp_path / "Dor"])
    assert [opened.store.count(probe(opened, name).space) for name in ("first", "second")] == [6, 8]


def test_a_model_that_cannot_be_loaded_leaves_the_one_before_in_place(
    opened: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveEngine(opened)
    Exchange(opened).bring_in(folder(opened, "second"), measure=False, switch=True)
    weights = folder(opened, "second") / "head.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"\0")
    live.follow()
    assert probe(opened, "first").space.digest in names(live) and live.outdated() is None
    write_choices(opened.settings.home, Choice(folder(opened, "second")))
    assert "SHA-256" in str(live.outdated())
    weights.write_bytes(whole)
    monkeypatch.setattr(live_module, "AGAIN_SECONDS", 0.0)
    live.follow()
    assert live.outdated() is None and probe(opened, "second").space.digest in names(live)


def test_what_was_chosen_without_keeping_the_one_before_is_waited_for(opened: Installation) -> None:
    live = LiveEngine(opened)
    write_choice(opened.settings.home, folder(opened, "second"))
    assert "ask again" in str(live.outdated())
    live.follow()
    assert live.outdated() is None


def test_it_follows_by_itself(opened: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    live, gone_over, renew = LiveEngine(opened), threading.Event(), Installation.renew

    def told(self: Installation) -> None:
        renew(self)
        gone_over.set()

    monkeypatch.setattr(Installation, "renew", told)
    with live.following():
        write_choice(opened.settings.home, None)
        assert gone_over.wait(60)
    assert {encoder.space.name for encoder in live.encoders} == {"face_identity", "voice_identity"}
    assert isinstance(live.encoders[0], Encoder) and len(live.encoders[:1]) == 1


def test_many_ask_all_the_time_and_no_answer_fails_or_is_of_two_spaces(opened: Installation, tmp_path: Path) -> None:
    live, ended = LiveEngine(opened), threading.Event()
    Exchange(opened).bring_in(folder(opened, "second"), measure=False, switch=False)
    spaces = {name: probe(opened, name) for name in ("first", "second")}
    truth = {asked.space.digest: exact(opened, asked) for asked in spaces.values()}
    seen: list[tuple[str, list[tuple[str, float]]]] = []

    def ask() -> None:
        while not ended.is_set():
            served = next(encoder.space.digest for encoder in live.encoders if encoder.space.name == "shared")
            asked = next(asked for asked in spaces.values() if asked.space.digest == served)
            seen.append((served, shown(live.find_vector(asked, FACE))))

    def write() -> None:
        archive = opened.archive
        for number in range(1000):
            if ended.is_set():
                return
            (tmp_path / "late").write_text(f"voice {100 + number}")  # is among no hits: faces are asked for
            seen.append(("writer", []) if archive.enrol("late", [tmp_path / "late"]).added else ("failed", []))

    def answered(name: str) -> None:
        before, digest = len(seen), spaces[name].space.digest
        while digest not in dict(seen[before:]):
            assert all(thread.is_alive() for thread in threads)
            ended.wait(0.01)

    threads = [threading.Thread(target=work) for work in [ask] * 8 + [write]]
    with live.following():
        for thread in threads:
            thread.start()
        try:
            answered("first")
            Exchange(opened).bring_in(folder(opened, "second"), measure=True, switch=True)
            answered("second")
            Exchange(opened).go_back()
            answered("first")
        finally:
            ended.set()
            for thread in threads:
                thread.join(60)
    assert {served for served, _ in seen} == {*truth, "writer"}
    assert all(hits == truth[served] for served, hits in seen if served in truth)
    assert opened.archive.mend() == 0
