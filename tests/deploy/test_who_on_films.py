"""Who speaks in whole films: films of invented people with their truth, and real talking clips cut in two.

The figures are printed and kept as properties of the tests; what is asserted are bounds that were reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.calibrate import people_of
from deploy.settings import load_settings
from deploy.wiring import Installation
from encoders.voice import SAMPLE_RATE
from ingest.media import probe, read_audio, read_frames, write_film
from ingest.track import Span
from search.answers import WhoTurn
from search.diarisation import DiarisationError, diarisation_error
from search.engine import Engine
from search.evaluation import collect, evaluate_people
from search.intervals import bootstrap_interval
from search.people import UNKNOWN
from search.probes import Prober
from search.store import MemoryStore
from training.population.folder import InventedMedia, MediaSize, PersonMedia, write_demo_media
from training.population.scenes import Truth

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

STEP = 0.1  # seconds from one moment at which an answer is compared with the truth to the next
SIZE = MediaSize(people=12, strangers=0, films=8, film_seconds=22.0, fps=25.0)
ALL_PICTURES = 120.0  # a second: more than any film here has
SHORTEST_HALF = 2.0  # seconds: less speech than this says little about a voice
Note = Callable[[str, object], None]


@dataclass(frozen=True)
class Spoken:
    """One moment of speech: who speaks, whether they are enrolled and seen, and who was named (None: no turn)."""

    person: str
    enrolled: bool
    on_screen: bool
    answer: str | None
    off_screen: bool | None = None


def moments(truth: Truth, turns: Sequence[WhoTurn], enrolled: set[str]) -> Iterator[Spoken]:
    """Every moment of speech in a film, with what was answered there."""
    for one in truth.speech:
        for time in np.arange(one.start + STEP / 2, one.end, STEP):
            turn = next((turn for turn in turns if turn.start <= time < turn.end), None)
            known = (turn.answer, turn.off_screen) if turn else (None, None)
            yield Spoken(one.person, one.person in enrolled, one.on_screen, *known)


def share(moments: Sequence[Spoken], right: Callable[[Spoken], bool]) -> dict[str, Any]:
    """The share of time that is right, with its interval over people."""
    values, people = [float(right(one)) for one in moments], [one.person for one in moments]
    interval = bootstrap_interval(values, people)
    return {
        "share": round(float(np.mean(values)), 4),
        "ci95": [round(interval.low, 4), round(interval.high, 4)],
        "seconds": round(len(values) * STEP, 1),
        "people": len(set(people)),
    }


def named(one: Spoken) -> bool:
    return one.answer == one.person


def unknown(one: Spoken) -> bool:
    return one.answer == UNKNOWN


def known_time(spoken: Sequence[Spoken]) -> list[Spoken]:
    """All of the enrolled people's speech: what no turn covers is not named."""
    return [one for one in spoken if one.enrolled]


def strange_time(spoken: Sequence[Spoken]) -> list[Spoken]:
    """The strangers' speech that somebody could have been named for."""
    return [one for one in spoken if not one.enrolled and one.answer is not None]


# ---- films of invented people -----------------------------------------------------------------------------------


@dataclass
class Films:
    """Films of invented people, read once, and an installation to enrol some of them in."""

    media: InventedMedia
    opened: Installation

    def __post_init__(self) -> None:
        self.read = {film.path: self.opened.extractor.extract(film.path) for film in self.media.films}
        prober = Prober(self.read.__getitem__, self.opened.encoders, self.opened.store, self.opened.records.people)
        self.engine = Engine(prober, self.opened.encoders, self.opened.store)

    def asked(self, samples: Callable[[PersonMedia], Sequence[Path]]) -> list[tuple[Truth, list[WhoTurn], set[str]]]:
        """Enrol every second person with some samples, ask about every film, forget them."""
        known = {one.person.name: samples(one) for one in self.media.people[::2]}
        for name, files in known.items():
            assert not self.opened.archive.enrol(name, files).refused
        answers = [(film.truth, self.engine.who(film.path).turns, set(known)) for film in self.media.films]
        for name in known:
            self.opened.archive.forget(name)
        return answers

    def spoken(self, samples: Callable[[PersonMedia], Sequence[Path]]) -> list[Spoken]:
        """Every moment of speech in all films."""
        return [moment for answered in self.asked(samples) for moment in moments(*answered)]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Films]:
    folder = tmp_path_factory.mktemp("films")
    media = write_demo_media(folder / "media", 29, SIZE)
    opened = Installation(load_settings({"VISAVOX_HOME": str(folder / "home"), "VISAVOX_DEVICE": "cpu"}))
    opened.archive.mend()
    yield Films(media, opened)
    opened.close()


@pytest.fixture
def note(record_property: Note) -> Note:
    """Keep a figure with the test's result, and print it."""

    def told(name: str, figure: object) -> None:
        record_property(name, figure)
        print(name, figure)

    return told


def test_the_identity_networks_tell_the_invented_people_apart(films: Films, note: Note) -> None:
    files = {one.person.name: [*one.photos, *one.clips] for one in films.media.people}
    samples = collect(films.opened.prober, files)
    told = evaluate_people(samples, MemoryStore(), films.opened.encoders)["verification"]
    note("identity networks on invented people", told)
    assert told["voice"]["auc"] >= 0.99 and told["face"]["auc"] >= 0.99


def test_speech_is_given_to_the_right_speakers(films: Films, note: Note) -> None:
    errors: list[DiarisationError] = []
    for film in films.media.films:
        reference = [(one.start, one.end, one.person) for one in film.truth.speech]
        turns = [(turn.span.start, turn.span.end, turn.speaker) for turn in films.read[film.path].turns]
        errors.append(diarisation_error(reference, turns, collar=0.25))
    seconds = sum(error.total for error in errors)
    rate = sum(error.missed + error.false_alarm + error.confusion for error in errors) / seconds
    note("diarisation error", {"rate": round(rate, 4), "films": [round(error.rate, 4) for error in errors]})
    assert rate <= 0.1


def test_enrolled_people_are_named_and_strangers_are_unknown(films: Films, note: Note) -> None:
    spoken = films.spoken(lambda one: [*one.photos, *one.clips])
    known, strange = share(known_time(spoken), named), share(strange_time(spoken), unknown)
    note("enrolled with faces and voices, named", known)
    note("strangers unknown", strange)
    assert known["share"] >= 0.95 and strange["share"] >= 0.9


def test_people_enrolled_by_voice_alone_are_named_on_screen_and_off(films: Films, note: Note) -> None:
    spoken = films.spoken(lambda one: [path for path in one.clips if path.suffix == ".wav"])
    known, strange = share(known_time(spoken), named), share(strange_time(spoken), unknown)
    note("enrolled by voice alone, named", known)
    note("strangers unknown", strange)
    assert known["share"] >= 0.95 and strange["share"] >= 0.9


def test_people_enrolled_by_face_alone_are_named_where_they_are_seen_to_speak(films: Films, note: Note) -> None:
    spoken = films.spoken(lambda one: one.photos)
    seen = share([one for one in known_time(spoken) if one.on_screen], named)
    strange = share(strange_time(spoken), unknown)
    note("enrolled by face alone, named while on screen", seen)
    note("strangers unknown", strange)
    assert seen["share"] >= 0.9 and strange["share"] >= 0.9


def test_a_voice_whose_face_is_not_seen_is_said_to_be_off_screen(films: Films, note: Note) -> None:
    spoken = [one for one in films.spoken(lambda one: one.photos) if one.answer is not None]
    away = share([one for one in spoken if not one.on_screen], lambda one: one.off_screen is True)
    here = share([one for one in spoken if one.on_screen], lambda one: one.off_screen is False)
    note("off screen and said so", away)
    note("on screen and not said to be off it", here)
    assert away["share"] >= 0.9 and here["share"] >= 0.9


# ---- real talking clips -----------------------------------------------------------------------------------------


def cut_in_two(film: Path, folder: Path) -> tuple[Path, Path] | None:
    """The halves of a film, written as films; None if they are too short to ask with."""
    info = probe(film)
    waveform, _ = read_audio(film)
    end = min(info.duration, len(waveform) / SAMPLE_RATE)
    middle = end / 2
    if middle < SHORTEST_HALF:
        return None
    times = [time for time, _ in read_frames(film, ALL_PICTURES, Span(0.0, end))]
    fps = (len(times) - 1) / (times[-1] - times[0])
    halves = folder / f"{film.stem}_1.mp4", folder / f"{film.stem}_2.mp4"
    for path, span in zip(halves, (Span(0.0, middle), Span(middle, end)), strict=True):
        pictures = (picture for _, picture in read_frames(film, ALL_PICTURES, span))
        sound = waveform[round(span.start * SAMPLE_RATE) : round(span.end * SAMPLE_RATE)]
        write_film(path, pictures, fps, sound)
    return halves


@pytest.fixture(scope="module")
def halves(shared_media: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Path, Path]]:
    """By person, the half to enrol and the half to ask with, of their longest clip."""
    folder = tmp_path_factory.mktemp("halves")
    people = {label: files for label, files in people_of(shared_media).items() if "hamilton" not in label}
    found = {}
    for label, files in people.items():
        films = [file for file in files if "av" in file.parts and file.suffix in {".mp4", ".mpg"}]
        longest = max(films, key=lambda film: probe(film).duration, default=None)
        if longest is not None and (cut := cut_in_two(longest, folder)):
            found[label.replace("/", " ")] = cut
    return found


def answered(opened: Installation, halves: Mapping[str, tuple[Path, Path]]) -> list[Spoken]:
    """Every moment that was heard as speech in the second halves; each shows one person, who is seen to speak."""
    known = opened.records.people.names().values()
    return [
        Spoken(person, person in known, True, turn.answer, turn.off_screen)
        for person, (_, asked) in halves.items()
        for turn in opened.engine.who(asked).turns
        for _ in range(round((turn.end - turn.start) / STEP))
    ]


def test_real_people_are_named_in_the_other_half_of_their_clip(
    opened: Installation, halves: Mapping[str, tuple[Path, Path]], note: Note
) -> None:
    people = list(halves)
    for person in people[::2]:
        assert not opened.archive.enrol(person, [halves[person][0]]).refused
    half = answered(opened, halves)
    for person in people[1::2]:
        assert not opened.archive.enrol(person, [halves[person][0]]).refused
    everybody = answered(opened, halves)
    note("half of them enrolled: named", share(known_time(half), named))
    strange = share(strange_time(half), unknown)
    note("half of them enrolled: strangers unknown", strange)
    known = share(known_time(everybody), named)
    note("all enrolled: named", known)
    assert known["people"] >= 9 and known["share"] >= 0.8 and strange["share"] >= 0.9
