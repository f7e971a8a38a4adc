"""Real people, through the whole pipeline and the embedded index. Bounded samples; all of them with ``long``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.wiring import Installation
from search.evaluation import collect, evaluate_people

TALKING = ("grid/grid_s1/bbaf2n.mpg", "vox2_pcavs/id05176/517600055.mp4", "talking/vr2/2.mp4")
NO_SPEECH = (
    "silent_audio/x/s32.mp4", "white_noise/x/empty.wav", "noise/x/noise2.wav", "noise/x/1-100032-A-0.wav",
)  # fmt: skip


def people_in(*folders: Path) -> dict[str, list[Path]]:
    """Files by person of folders that hold one folder per person."""
    return {
        person.name: sorted(file for file in person.iterdir() if file.suffix != ".txt")
        for folder in folders
        for person in sorted(folder.iterdir())
        if person.is_dir() and person.name != "_doc"
    }


def measured(opened: Installation, files: dict[str, list[Path]]) -> dict[str, Any]:
    samples = collect(opened.prober, files)
    with opened.scratch_store() as store:
        return evaluate_people(samples, store, opened.encoders)["retrieval"]


def assert_far_above_chance(figures: dict[str, Any]) -> None:
    assert figures["map"] >= 0.98 > 0.3 > figures["chance"]
    assert figures["map"] == pytest.approx(figures["map_exact"], abs=1e-6)


def test_faces_of_one_person_are_found_among_others(opened: Installation, shared_media: Path) -> None:
    assert_far_above_chance(measured(opened, people_in(shared_media / "faces/lfw"))["face_to_face"])


def test_voices_of_one_person_are_found_among_others(opened: Installation, shared_media: Path) -> None:
    assert_far_above_chance(measured(opened, people_in(shared_media / "voices/librispeech"))["voice_to_voice"])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_identity_map_of_all_real_faces(opened: Installation, shared_media: Path) -> None:
    folders = [folder for folder in (shared_media / "faces").iterdir() if folder.is_dir()]
    figures = measured(opened, people_in(*folders))["face_to_face"]
    print("face→face", figures)
    assert_far_above_chance(figures)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_identity_map_of_all_real_voices(opened: Installation, shared_media: Path) -> None:
    names = ("librispeech", "tortoise", "speechbrain", "librispeech_distractors")
    figures = measured(opened, people_in(*(shared_media / "voices" / name for name in names)))["voice_to_voice"]
    print("voice→voice", figures)
    assert_far_above_chance(figures)


def enrolled_and_asked(shared_media: Path) -> Iterator[tuple[str, list[Path], list[Path]]]:
    """Whom to enrol with what, and what to ask: readers by three clips, prompt voices by one."""
    for source, count in (("librispeech", 3), ("speechbrain", 3), ("tortoise", 1)):
        for person, files in people_in(shared_media / "voices" / source).items():
            yield person, files[:count], files[count:]


def ask(opened: Installation, file: Path) -> str:
    """The name given to the longest share of speech in a file."""
    shares: dict[str, float] = {}
    for turn in opened.engine.who(file).turns:
        shares[turn.answer] = shares.get(turn.answer, 0.0) + turn.end - turn.start
    return max(shares, key=lambda name: shares[name]) if shares else "nobody speaks"


def who_figures(
    opened: Installation, shared_media: Path, people: int | None, strangers: int | None
) -> dict[str, float]:
    chosen = list(enrolled_and_asked(shared_media))[:people]
    for person, enrolment, _ in chosen:
        assert not opened.archive.enrol(person, enrolment).refused
    answers = [(person, ask(opened, file)) for person, _, files in chosen for file in files]
    unknown = [
        ask(opened, file)
        for files in list(people_in(shared_media / "voices/librispeech_distractors").values())[:strangers]
        for file in files
    ]
    return {
        "asked": len(answers),
        "top1": sum(person == answer for person, answer in answers) / len(answers),
        "strangers": len(unknown),
        "unknown": unknown.count("unknown") / len(unknown),
    }


def test_known_voices_are_named_and_strangers_are_unknown(opened: Installation, shared_media: Path) -> None:
    figures = who_figures(opened, shared_media, people=6, strangers=10)
    assert figures["top1"] >= 0.95 and figures["unknown"] >= 0.9, figures


@pytest.mark.long
@pytest.mark.timeout(900)
def test_who_on_all_real_voices(opened: Installation, shared_media: Path) -> None:
    figures = who_figures(opened, shared_media, people=None, strangers=None)
    print("who", figures)
    assert figures["top1"] >= 0.95 and figures["unknown"] >= 0.9, figures


@pytest.mark.parametrize("name", TALKING)
def test_a_talking_clip_yields_a_face_and_speech(opened: Installation, shared_media: Path, name: str) -> None:
    report = opened.archive.ingest_file(shared_media / "av" / name, "default")
    assert report.state == "done" and report.faces >= 1 and report.voices >= 1


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_talking_clip_yields_a_face_and_speech(opened: Installation, shared_media: Path) -> None:
    films = [path for path in sorted((shared_media / "av").rglob("*")) if path.suffix in {".mp4", ".mpg"}]
    reports = [opened.archive.ingest_file(film, "default") for film in films if "multi" not in film.parts]
    assert len(reports) >= 28
    assert not [report.path for report in reports if report.faces < 1 or report.voices < 1]


def test_a_film_without_sound_yields_faces_only(opened: Installation, shared_media: Path) -> None:
    report = opened.archive.ingest_file(shared_media / "edge/no_audio_stream/x/mouth_source.mp4", "default")
    assert report.faces >= 1 and report.voices == 0


@pytest.mark.parametrize("name", NO_SPEECH)
def test_what_is_not_speech_yields_no_turn(opened: Installation, shared_media: Path, name: str) -> None:
    report = opened.archive.ingest_file(shared_media / "edge" / name, "default")
    assert report.state == "done" and report.voices == 0
