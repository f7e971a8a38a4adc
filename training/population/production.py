"""Media made unit by unit in several processes: atomically, resumably, and stopped at once.

A unit is one person's samples or one film. It is written under a temporary name and then renamed, so
that what has its final name is whole, and a second attempt makes only what is missing. Which process
makes a unit, and when, does not change a byte of it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from ingest.media import write_flac
from training.population.films import Camera, make_film
from training.population.people import Person
from training.population.samples import draw_photo, draw_utterance
from training.population.scenes import plan_scene
from training.population.splits import entries_of

JPEG_QUALITY = 92
"""Of the photos, of 100."""

FILM_SECONDS = 20.0
"""About how long a film is."""

FILM_CAMERA = Camera(fps=12.5)

Progress = Callable[[int, int], None]
"""Told how many units are done and how many there are."""

_PART = ".part"


class Unit(Protocol):
    """Something to be made in one go."""

    @property
    def folder(self) -> Path:
        """The folder in which it is made."""
        ...

    @property
    def done(self) -> bool:
        """Whether it is there, whole."""
        ...

    def make(self) -> None:
        """Write it; harmless if it is there already."""
        ...


@dataclass(frozen=True)
class PersonSamples:
    """All photos and utterances of one person, in a folder named after their identity.

    Args:
        folder: that holds a folder for each person.
        person: who.
        samples: photos, and as many utterances.
        seed: of the split.
    """

    folder: Path
    person: Person
    samples: int
    seed: int

    @property
    def done(self) -> bool:
        """Whether the person's folder has its final name."""
        return (self.folder / self.person.identity).is_dir()

    def make(self) -> None:
        """Render and write all of them.

        Raises:
            OSError: the folder cannot be written.
            SynthesiserError: the speech synthesiser does not work here.
        """
        final = self.folder / self.person.identity
        staging = _staging(final)
        for entry in entries_of(self.person, Modality.FACE, self.samples):
            picture = draw_photo(self.person, entry.number, self.seed).render()
            write_jpeg(staging / Path(entry.path).name, picture)
        for entry in entries_of(self.person, Modality.VOICE, self.samples):
            sound = draw_utterance(self.person, entry.number, self.seed).render()
            write_flac(staging / Path(entry.path).name, sound)
        try:
            staging.rename(final)
        except OSError:
            # Somebody was faster, with the same bytes: a process of a killed attempt, say.
            if not final.is_dir():
                raise
            shutil.rmtree(staging)


@dataclass(frozen=True)
class Film:
    """A film and, beside it, the truth about it; the truth is renamed last.

    Args:
        path: of the film; the truth's ends in ``.json``.
        cast: one to three people.
        seed: of its plan.
        seconds: about how long.
    """

    path: Path
    cast: tuple[Person, ...]
    seed: int
    seconds: float = FILM_SECONDS

    @property
    def folder(self) -> Path:
        """The folder of the films."""
        return self.path.parent

    @property
    def done(self) -> bool:
        """Whether the truth has its final name."""
        return self.path.with_suffix(".json").is_file()

    def make(self) -> None:
        """Render and write both; raises as :meth:`PersonSamples.make` does."""
        staging = _staging(self.path)
        film, told = staging / self.path.name, staging / self.path.with_suffix(".json").name
        truth = make_film(film, plan_scene(self.cast, self.seconds, self.seed), self.seed, FILM_CAMERA)
        identities = {person.name: person.identity for person in self.cast}
        content = {**truth.to_json(), "identities": identities}
        told.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        film.replace(self.path)
        told.replace(self.path.with_suffix(".json"))
        staging.rmdir()


def make_units(units: Sequence[Unit], processes: int, progress: Progress) -> None:
    """Make all units that are not there yet.

    Interrupted (Ctrl-C) or failing, it ends its processes at once and leaves whole units only, besides
    staging folders that :func:`clear_staging` removes. If this process is killed, they end too.

    Args:
        units: in any order.
        processes: at least 1; with 1 they are made in this one.
        progress: called at the start and after every unit, in this thread.

    Raises:
        ValueError: there are fewer than 1 processes.
        BrokenProcessPool: a process died, for want of memory, say.
    """
    if processes < 1:
        raise ValueError(f"the number of processes must be at least 1, got {processes}")
    missing = [unit for unit in units if not unit.done]
    done = len(units) - len(missing)

    def count() -> None:
        nonlocal done
        done += 1
        progress(done, len(units))

    progress(done, len(units))
    if processes == 1 or len(missing) < 2:
        for unit in missing:
            unit.make()
            count()
    else:
        _make_in_pool(missing, min(processes, len(missing)), count)


def clear_staging(folder: Path) -> None:
    """Remove what attempts that were killed left unfinished in a folder."""
    for left in folder.glob(f".*{_PART}"):
        shutil.rmtree(left, ignore_errors=True)


def write_jpeg(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write an (h, w, 3) uint8 RGB picture as JPEG of quality ``JPEG_QUALITY``."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    worked, data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), options)
    if not worked:
        raise ValueError(f"{path}: a picture of shape {picture.shape} could not be encoded as JPEG")
    path.write_bytes(data.tobytes())


def _make_in_pool(units: Sequence[Unit], processes: int, count: Callable[[], None]) -> None:
    # Forked children would inherit locks that nobody opens again.
    context = multiprocessing.get_context("spawn")
    watched, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(processes, context, initializer=_start_process, initargs=(watched,))
    try:
        with _interrupts_held():
            promised = [pool.submit(_make, unit) for unit in units]
        for one in as_completed(promised):
            one.result()
            count()
    except BaseException:
        held.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        held.close()
        watched.close()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start processes that a Ctrl-C at the terminal does not reach: their maker decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_process(watched: Connection) -> None:
    """Prepare a process: one core, and an end as soon as nobody waits for it any more."""
    cv2.setNumThreads(1)

    def watch() -> None:
        # Nothing is ever sent: it returns when the other end is closed, by hand or by death.
        with suppress(EOFError, OSError):
            watched.recv_bytes()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _make(unit: Unit) -> None:
    unit.make()


def _staging(final: Path) -> Path:
    """A new empty folder beside ``final``, told from those of other processes."""
    folder = final.with_name(f".{final.name}.{os.getpid()}{_PART}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
