"""The population on disk: a protocol folder to measure on, and training sets apart from it.

Both lie in ``<home>/population/<first 16 digits of the digest>`` and are made once. A folder is
complete when it has its ``protocol.json``, which is written last::

    protocol.json                name, domain, digest, and where the media are
    Splits/identity_splits.txt   identity and code: 1 train, 2 validation, 4 test
    meta.csv                     identity and sex, among others
    truth.csv                    the shared latents that each sample shows
    media/<identity>/…           face_01.jpg …, voice_01.flac …

and, where people are measured on, ``veriflist/``, ``matching/``, ``retrieval/``, ``ceiling.json`` and
``ceiling.npz``. The test people's folder also holds ``films/``, the media of the validation people beside
those of the test people, and ``validation/``: a protocol folder for the validation people, with lists of
its own over the same media, in which they are those who are asked about and have code 4.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np

from encoders.space import Modality
from training.population.ceiling import ceiling_figures, list_vectors
from training.population.lists import draw_lists, write_lists
from training.population.production import Film, PersonSamples, Progress, Unit, clear_staging, make_units
from training.population.samples import draw_latents
from training.population.splits import GENERATOR, PopulationSpec, Split, TrainingSpec, entries_of

DOMAIN = "invented people"
"""What encoders are stamped with that are trained on a population."""

TRAIN_CODE, VALIDATION_CODE, TEST_CODE = 1, 2, 4
"""Codes of the published split file."""

FORMAT = 1
_MARKER = "protocol.json"
_MEDIA = "media"
_VALIDATION = "validation"
_FOLDER_DIGITS = 16
_FILM_SEED = 1
_FILM_CASTS = (1, 2, 3)


def write_protocol(home: Path, spec: PopulationSpec, progress: Progress | None = None, processes: int = 2) -> Path:
    """Write the test and validation people's protocol folder, or what is missing of it.

    The same specification gives the same bytes, whatever the number of processes.

    Args:
        home: of the installation.
        spec: how many people and samples.
        progress: told (done, total) units, a person or a film each; not called if all was complete.
        processes: that render at the same time, at least 1.

    Returns:
        The folder, at once if it is complete.

    Raises:
        OSError: it cannot be written.
        SynthesiserError: the speech synthesiser does not work here.
    """
    folder = population_folder(home, spec.digest)
    with _sole_writer(folder) as missing:
        if missing:
            validation = folder / _VALIDATION
            units = [
                *_films(folder / "films", spec),
                *_people_units(folder, spec.test),
                *_people_units(folder, spec.validation),
            ]
            _make_media(units, progress, processes)
            _write_people(validation, {TEST_CODE: spec.validation})
            _write_questions(validation, spec.validation)
            told = hashlib.sha256(f"{spec.digest} {_VALIDATION}".encode()).hexdigest()
            _write_marker(validation, f"{DOMAIN}, validation", told, asdict(spec), media=f"../{_MEDIA}")
            _write_people(folder, {TEST_CODE: spec.test, VALIDATION_CODE: spec.validation})
            _write_questions(folder, spec.test)
            _write_marker(folder, f"{DOMAIN}, test", spec.digest, asdict(spec))
    return folder


def write_training(home: Path, spec: TrainingSpec, progress: Progress | None = None, processes: int = 2) -> Path:
    """Write a training set's folder, or what is missing of it; all as in :func:`write_protocol`."""
    folder = population_folder(home, spec.digest)
    with _sole_writer(folder) as missing:
        if missing:
            _make_media(_people_units(folder, spec.split), progress, processes)
            _write_people(folder, {TRAIN_CODE: spec.split})
            _write_marker(folder, f"{DOMAIN}, training {spec.seed}", spec.digest, asdict(spec))
    return folder


def population_folder(home: Path, digest: str) -> Path:
    """Where the population of this digest is or will be: ``<home>/population/<16 digits>``."""
    return home / "population" / digest[:_FOLDER_DIGITS]


def is_complete(folder: Path) -> bool:
    """Whether a population's folder has been written to its end."""
    return (folder / _MARKER).is_file()


@contextmanager
def _sole_writer(folder: Path) -> Iterator[bool]:
    """Wait until nobody else writes this folder, and say whether there is something left to write."""
    if is_complete(folder):
        yield False
        return
    folder.mkdir(parents=True, exist_ok=True)
    # The lock is the kernel's and on the folder itself: it ends with the process that holds it.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield not is_complete(folder)
    finally:
        os.close(descriptor)


def _people_units(folder: Path, split: Split) -> list[Unit]:
    return [PersonSamples(folder / _MEDIA, person, split.samples, split.seed) for person in split.people()]


def _films(folder: Path, spec: PopulationSpec) -> list[Unit]:
    """Films of one, two, three, one, … test people, in turn."""
    people = spec.test.people()
    units: list[Unit] = []
    first = 0
    for number in range(1, spec.films + 1):
        size = _FILM_CASTS[(number - 1) % len(_FILM_CASTS)]
        cast = tuple(people[(first + place) % len(people)] for place in range(size))
        first += size
        seed = int(np.random.SeedSequence([_FILM_SEED, number]).generate_state(1)[0])
        units.append(Film(folder / f"film_{number}.mp4", cast, seed))
    return units


def _make_media(units: Sequence[Unit], progress: Progress | None, processes: int) -> None:
    """Make all units. Films stand first: they take longest, and nobody should wait for the last one."""
    make_units(units, processes, progress or (lambda _done, _total: None))
    for folder in {unit.folder for unit in units}:
        clear_staging(folder)


def _write_questions(folder: Path, split: Split) -> None:
    """The lists about a split, and what the likelihood ratio reaches on them."""
    lists = draw_lists(split)
    write_lists(folder, lists)
    vectors = list_vectors(lists, split.seed)
    np.savez(folder / "ceiling.npz", path=np.array(list(vectors)), vector=np.array(list(vectors.values())))
    _write_json(folder / "ceiling.json", ceiling_figures(lists, vectors))


def _write_people(folder: Path, splits: Mapping[int, Split]) -> None:
    """Who is for what, who they are, and what each of their samples shows; splits by their codes."""
    people = {code: split.people() for code, split in splits.items()}
    coded = sorted((person.identity, code, person.sex[0]) for code, some in people.items() for person in some)
    _write_lines(folder / "Splits" / "identity_splits.txt", [f"{identity} {code}" for identity, code, _ in coded])
    rows = ["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"]
    for identity, code, sex in coded:
        rows.append(f"{identity}\t{identity}\t{sex}\tinvented\t{'test' if code == TEST_CODE else 'dev'}")
    _write_lines(folder / "meta.csv", rows)
    rows = ["path\tidentity\tmodality\tsex\tage\tsize\tweight\twarmth\tenergy"]
    for code, split in splits.items():
        for person, modality in product(people[code], Modality):
            for entry in entries_of(person, modality, split.samples):
                shown = draw_latents(person, modality, entry.number, split.seed).as_array()
                numbers = "\t".join(repr(float(number)) for number in shown)
                rows.append(f"{entry.path}\t{entry.identity}\t{modality}\t{numbers}")
    _write_lines(folder / "truth.csv", rows)


def _write_marker(folder: Path, name: str, digest: str, specification: Mapping[str, int], media: str = _MEDIA) -> None:
    content = {
        "format": FORMAT,
        "name": name,
        "domain": DOMAIN,
        "media": media,
        "digest": digest,
        "generator": GENERATOR,
        "specification": specification,
    }
    unready = folder / f".{_MARKER}"
    _write_json(unready, content)
    unready.replace(folder / _MARKER)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
