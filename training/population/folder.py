"""A folder of media about a few invented people, small enough to be made while somebody watches.

::

    people/<Name>/photo_1.jpg, photo_2.png, clip_1.wav, clip_2.mp4   to enrol
    films/film_1.mp4, film_1.json, …                                 to ingest, and the truth about them
    clips/clip_1.mp4, …, truth.json                                  to ask about: one speaker each
"""

from __future__ import annotations

import json
import wave
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.population.faces import draw_view, render_face
from training.population.films import Camera, make_film
from training.population.people import Person, invent_people
from training.population.scenes import Truth, plan_portrait, plan_scene
from training.population.voices import SAMPLE_RATE, draw_delivery, speak

_FILM_CASTS = (1, 2, 3, 2)


@dataclass(frozen=True)
class MediaSize:
    """How much is made.

    Args:
        people: how many have photos and clips to enrol, at least 3.
        strangers: how many occur only in question clips.
        films: how many films, of one, two, three, two, … people in turn.
        film_seconds: about how long each film is.
        clip_seconds: about how long each clip is.
        fps: pictures per second.
        photo_side: height and width of the photos in pixels.
    """

    people: int = 8
    strangers: int = 3
    films: int = 4
    film_seconds: float = 22.0
    clip_seconds: float = 5.5
    fps: float = 12.5
    photo_side: int = 320

    def __post_init__(self) -> None:
        if self.people < 3 or self.strangers < 0 or self.films < 0:
            raise ValueError(
                f"at least 3 people and no negative numbers, got {self.people} people, "
                f"{self.strangers} strangers, {self.films} films"
            )


@dataclass(frozen=True)
class PersonMedia:
    """What is there to enrol one person with."""

    person: Person
    photos: tuple[Path, ...]
    clips: tuple[Path, ...]


@dataclass(frozen=True)
class FilmMedia:
    """A film or clip and the truth about it."""

    path: Path
    truth: Truth


@dataclass(frozen=True)
class InventedMedia:
    """All that was made.

    Args:
        folder: where.
        people: who can be enrolled.
        strangers: names of those who occur only in question clips.
        films: films of one to three of ``people``.
        clips: question clips, one speaker each: first those of ``people``, then the strangers'.
    """

    folder: Path
    people: tuple[PersonMedia, ...]
    strangers: tuple[str, ...]
    films: tuple[FilmMedia, ...]
    clips: tuple[FilmMedia, ...]


def write_demo_media(folder: Path, seed: int, size: MediaSize = MediaSize()) -> InventedMedia:
    """Invent people and make photos, clips and films of them; the same seed makes the same media.

    Args:
        folder: created if need be; files of the same names are replaced.
        seed: at least 0.
        size: how much.

    Raises:
        OSError: if the folder cannot be written.
        SynthesiserError: if the speech synthesiser does not work here.
    """
    everybody = invent_people(size.people + size.strangers, seed)
    known, strangers = everybody[: size.people], everybody[size.people :]
    camera = Camera(fps=size.fps)
    people = tuple(_write_person(folder / "people", person, [seed, index], size) for index, person in enumerate(known))
    films = tuple(_write_film(folder / "films", known, number, seed, size) for number in range(size.films))
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    clips = []
    for number, person in enumerate(everybody):
        path = folder / "clips" / f"clip_{number + 1}.mp4"
        scene_seed = _seed(seed, 3, number)
        truth = make_film(path, plan_portrait(person, size.clip_seconds, scene_seed), scene_seed, camera)
        clips.append(FilmMedia(path, truth))
    listed = [{"file": clip.path.name, **clip.truth.to_json()} for clip in clips]
    _write_json(folder / "clips" / "truth.json", {"clips": listed, "strangers": [p.name for p in strangers]})
    return InventedMedia(folder, people, tuple(p.name for p in strangers), films, tuple(clips))


def write_wav(path: Path, waveform: NDArray[np.float32]) -> None:
    """Write (n,) float32 mono at 16 kHz in [-1, 1] as a 16-bit WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes())


def write_photo(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write an (h, w, 3) uint8 RGB picture in the format that the extension names."""
    worked, data = cv2.imencode(path.suffix, np.ascontiguousarray(picture[..., ::-1]))
    if not worked:
        raise ValueError(f"{path}: the picture could not be encoded as {path.suffix}")
    path.write_bytes(data.tobytes())


def _seed(*parts: int) -> int:
    """One seed from several numbers, so that no two media share their randomness."""
    return int(np.random.default_rng(parts).integers(2**31))


def _write_person(parent: Path, person: Person, seed: list[int], size: MediaSize) -> PersonMedia:
    folder = parent / person.name
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([*seed, 1])
    photos = (folder / "photo_1.jpg", folder / "photo_2.png")
    for path in photos:
        picture = render_face(person, draw_view(random), size.photo_side, seed=int(random.integers(2**31)))
        write_photo(path, picture)
    sound, film = folder / "clip_1.wav", folder / "clip_2.mp4"
    write_wav(sound, speak(person, draw_delivery(random, sentences=2)))
    scene_seed = int(random.integers(2**31))
    make_film(film, plan_portrait(person, size.clip_seconds, scene_seed), scene_seed, Camera(fps=size.fps))
    return PersonMedia(person, photos, (sound, film))


def _write_film(folder: Path, people: list[Person], number: int, seed: int, size: MediaSize) -> FilmMedia:
    folder.mkdir(parents=True, exist_ok=True)
    count = _FILM_CASTS[number % len(_FILM_CASTS)]
    first = sum(_FILM_CASTS[place % len(_FILM_CASTS)] for place in range(number))
    cast = [people[(first + place) % len(people)] for place in range(count)]
    path, scene_seed = folder / f"film_{number + 1}.mp4", _seed(seed, 2, number)
    truth = make_film(path, plan_scene(cast, size.film_seconds, scene_seed), scene_seed, Camera(fps=size.fps))
    _write_json(path.with_suffix(".json"), truth.to_json())
    return FilmMedia(path, truth)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
