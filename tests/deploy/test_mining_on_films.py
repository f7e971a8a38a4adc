"""Mining of people out of whole films: films of invented people with their truth, and real talking clips.

The figures are printed and kept as properties of the tests; what is asserted are bounds that were reached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sql

from deploy.archive_training import mine_archive
from deploy.calibrate import people_of
from deploy.settings import load_settings
from deploy.wiring import Installation
from encoders.face import FaceCrop
from encoders.space import Modality
from ingest.ledger import Pairing
from ingest.track import Extraction, FaceTrack
from search import metrics
from search.evidence import face_id, voice_id
from search.intervals import bootstrap_interval
from training.mining import Mined, vectors_of_people
from training.population.films import Camera, make_film
from training.population.people import invent_people
from training.population.scenes import Truth, plan_scene

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

PEOPLE, SEED, SECONDS = 16, 41, 16.0
CASTS = (2, 3, 1, 2)
Note = Callable[[str, object], None]


def quiet(*_: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Films:
    """Films of invented people, ingested, and who each piece of evidence shows.

    Args:
        opened: the installation.
        shown: person by id of a face's or a turn's evidence; "" for what is nobody's.
    """

    opened: Installation
    shown: Mapping[str, str]


def speaker_of(truth: Truth, start: float, end: float) -> str:
    """Who speaks most of a stretch."""
    seconds = {one.person: 0.0 for one in truth.speech}
    for one in truth.speech:
        seconds[one.person] += max(0.0, min(end, one.end) - max(start, one.start))
    best = max(seconds, key=lambda person: seconds[person])
    return best if seconds[best] > 0 else ""


def face_of(truth: Truth, track: FaceTrack) -> str:
    """Whose face the looks of a track show, by time and place."""
    found = Counter[str]()
    for shot in track.shots:
        middle = (shot.box[0] + shot.box[2]) / 2, (shot.box[1] + shot.box[3]) / 2
        for one in truth.visible:
            within = one.box[0] <= middle[0] <= one.box[2] and one.box[1] <= middle[1] <= one.box[3]
            found[one.person] += within and shot.time is not None and one.start <= shot.time < one.end
    return found.most_common(1)[0][0] if found else ""


def whose(truth: Truth, read: Extraction) -> dict[str, str]:
    """Person by evidence of all that a film gave."""
    faces = {
        face_id(FaceCrop(shot.pixels, shot.landmarks)): face_of(truth, track)
        for track in read.faces
        for shot in track.shots
    }
    return faces | {voice_id(one.waveform): speaker_of(truth, one.span.start, one.span.end) for one in read.turns}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Films]:
    """Everybody in two films, with other company."""
    folder = tmp_path_factory.mktemp("films")
    opened = Installation(load_settings({"VISAVOX_HOME": str(folder / "home"), "VISAVOX_DEVICE": "cpu"}))
    people, shown = invent_people(PEOPLE, SEED), dict[str, str]()
    for number, cast in enumerate(casts(people)):
        path, seed = folder / f"{number}.mp4", 100 * SEED + number
        truth = make_film(path, plan_scene(cast, SECONDS, seed), seed, Camera(fps=25.0))
        read = opened.extractor.extract(path)
        shown |= whose(truth, read)
        assert opened.archive.enter(path, "films", read).state == "done"
    opened.archive.flush()
    yield Films(opened, shown)
    opened.close()


def casts(people: Sequence[object]) -> Iterator[list]:  # type: ignore[type-arg]
    """Who is in which film."""
    random, number = np.random.default_rng(SEED), 0
    for _ in range(2):
        order = [people[place] for place in random.permutation(len(people))]
        while order:
            size = CASTS[number % len(CASTS)]
            yield order[:size]
            order, number = order[size:], number + 1


@pytest.fixture
def note(record_property: Note) -> Note:
    """Keep a figure with the test's result, and print it."""

    def told(name: str, figure: object) -> None:
        record_property(name, figure)
        print(name, figure)

    return told


@pytest.fixture(scope="module")
def mined(films: Films) -> Mined:
    return mine_archive(films.opened, "films", False, quiet)


def majority(films: Films, evidence: Sequence[str]) -> str:
    return Counter(films.shown[one] for one in evidence).most_common(1)[0][0]


def test_mined_voices_are_those_of_the_faces_they_were_paired_with(films: Films, mined: Mined, note: Note) -> None:
    right, people = [], []
    for one in mined.people:
        person = majority(films, one.faces.evidence)
        right += [films.shown[voice] == person for voice in one.voices.evidence]
        people += [person] * len(one.voices)
    interval = bootstrap_interval(np.array(right, float), people)
    note("mined turns with the voice of their face", {
        "share": round(float(np.mean(right)), 4), "ci95": [round(interval.low, 4), round(interval.high, 4)],
        "turns": len(right), "people": len(mined.people), "of": PEOPLE,
    })  # fmt: skip
    assert np.mean(right) >= 0.9 and len(mined.people) >= 0.75 * PEOPLE


def test_weights_are_higher_where_face_and_voice_are_one_person_s(films: Films, mined: Mined, note: Note) -> None:
    weight = {
        voice: float(sure)
        for one in mined.people
        for voice, sure in zip(one.voices.evidence, one.voices.weights, strict=True)
    }
    claims = list(claimed(films))
    right = np.array([films.shown[turn.evidence] == films.shown[face] for turn, face in claims])
    weights = np.array([weight.get(turn.evidence, 0.0) for turn, _ in claims])
    told = {"right": float(weights[right].mean()), "wrong": float(weights[~right].mean())}
    told |= {"auc": metrics.auc(weights[right], weights[~right]), "claims": len(claims)}
    note("weight of a turn that a face may speak", told)
    assert told["auc"] >= 0.9 and told["right"] > 2 * told["wrong"]


def claimed(films: Films) -> Iterator[tuple[Pairing, str]]:
    """Every turn with a look at the face that most likely speaks it, likely or not."""
    ledger = films.opened.records.ledger
    for media in ledger.archived("films"):
        looks = {one.track: one.evidence for one in ledger.findings(media) if one.modality == Modality.FACE}
        yield from ((one, looks[one.track]) for one in ledger.pairings(media) if one.track in looks)


def test_one_person_in_two_films_is_one_and_nobody_is_two_people(films: Films, mined: Mined, note: Note) -> None:
    pure = [len({films.shown[look] for look in one.faces.evidence}) == 1 for one in mined.people]
    names = Counter(majority(films, one.faces.evidence) for one in mined.people)
    told = {"pure": round(float(np.mean(pure)), 4), "people": len(names), "split": sum(names.values()) - len(names)}
    note("mined people whose faces are one person's", told)
    assert np.mean(pure) >= 0.95 and told["split"] <= 0.1 * len(names)
    assert sum(len(one.films) > 1 for one in mined.people) >= 0.3 * len(names)


def test_mining_again_gives_the_same(films: Films, mined: Mined) -> None:
    spaces = {modality: films.opened.encoders[f"{modality}_identity"].space for modality in Modality}
    again = mine_archive(films.opened, "films", False, quiet)
    assert vectors_of_people(again.people, spaces).digest == vectors_of_people(mined.people, spaces).digest


def test_films_of_an_earlier_version_are_read_again_and_give_the_same(films: Films, mined: Mined) -> None:
    with films.opened.database.begin() as connection:
        media = connection.scalar(sql.text("SELECT media FROM pairings ORDER BY media LIMIT 1"))
        connection.execute(sql.text("DELETE FROM pairings WHERE media = :media"), {"media": media})
    told: list[str] = []
    again = mine_archive(films.opened, "films", False, lambda stage, *_: told.append(stage))
    assert [one.name for one in again.people] == [one.name for one in mined.people]
    assert "reading films again, to see who speaks" in told


# ---- real talking clips -----------------------------------------------------------------------------------------


def test_real_people_are_mined_out_of_their_clips(opened: Installation, shared_media: Path, note: Note) -> None:
    label = {
        file: name
        for name, files in people_of(shared_media).items()
        for file in files
        if "av" in file.parts and file.suffix in {".mp4", ".mpg"} and "multi" not in file.parts
    }
    media = {str(opened.archive.ingest_file(file, "clips").media): name for file, name in label.items()}
    mined = mine_archive(opened, "clips", False, quiet)
    names = [{media[film] for film in one.films} for one in mined.people]
    told = {
        "clips": len(media), "pairs": mined.pairs, "people": len(mined.people), "of": len(set(media.values())),
        "of two people": sum(len(one) > 1 for one in names),
        "in several clips": sum(len(one.films) > 1 for one in mined.people),
    }  # fmt: skip
    note("real people mined", told)
    several = {name for name, count in Counter(media.values()).items() if count > 1}
    found = {next(iter(one)) for one, person in zip(names, mined.people, strict=True) if len(person.films) > 1}
    assert told["of two people"] == 0 and told["pairs"] >= 0.85 * len(media)
    assert len(mined.people) == len(set.union(*names)) >= 0.85 * told["of"]  # nobody is two people either
    assert found <= several and len(found) >= len(several) - 1
