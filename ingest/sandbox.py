"""Reads files that nobody trusts in processes that can be killed: what comes back is checked, then believed.

A process loads its models once and reads one file after the other. One that takes too long, needs too much memory,
dies or gives an answer that is none is killed and replaced, and the file is refused. Answers are JSON and raw arrays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ingest.content import MediaError
from ingest.crossing import NotAsAgreed
from ingest.limits import UPLOADS, MediaLimits
from ingest.reading_pool import Pool, SandboxError, Spawn, Task
from ingest.sandboxed import Reply, Setup
from ingest.track import Extraction, FaceShot, SpeechTurn, media_id

__all__ = ["Sandbox", "SandboxError", "SandboxLimits"]

PROBE_SECONDS = 30.0
"""How long finding the duration of a file may take: it is read, not decoded."""
PROBE_BYTES = 512 * 2**20
"""Memory that finding the duration of a file may take."""
LARGEST_SIDE = 2048
"""Pixels a side of a face's picture that is believed."""


@dataclass(frozen=True)
class SandboxLimits:
    """What reading one file may cost.

    Args:
        seconds: by the clock on the wall, once a process has taken it up.
        memory_bytes: beyond what the models take.
        processes: number of files that are read at a time, each with models of its own.
        seconds_per_second: allowed in addition for each second that the file lasts.
        files: number of files after which a process is replaced, against leaks.
        answer_bytes: of what is found in one file.
    """

    seconds: float
    memory_bytes: int
    processes: int = 1
    seconds_per_second: float = 0.0
    files: int = 500
    answer_bytes: int = 2**30

    def __post_init__(self) -> None:
        if not min(self.seconds, self.memory_bytes, self.processes, self.files, self.answer_bytes) > 0:
            raise ValueError(f"limits of a sandbox must be above 0, got {self}")
        if not self.seconds_per_second >= 0:
            raise ValueError(f"seconds_per_second must be 0 or more, got {self.seconds_per_second}")


class Sandbox:
    """A pool of processes that read untrusted files; safe to use from several threads.

    Processes start when they are first needed, or with :meth:`start`. They see nothing of this process's environment
    but what is handed to them, and end with it however it ends.

    Args:
        make_extractor: ``module:function`` of what makes the extractor, called without arguments in the process.
        limits: what reading one file may cost.
        media: what a file may weigh and of which formats it may be.
        environment: variables of the processes, such as the number of threads of numerical libraries.
    """

    def __init__(
        self,
        make_extractor: str,
        limits: SandboxLimits,
        *,
        media: MediaLimits = UPLOADS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if not re.fullmatch(r"[\w.]+:\w+", make_extractor):
            raise ValueError(f"make_extractor must be module:function, got {make_extractor!r}")
        self._limits, self._media = limits, media
        self._extracting = self._pool(Setup(make_extractor, media, limits.memory_bytes), environment, limits.processes)
        # durations are found beside long work, by a process that loads no models
        self._probing = self._pool(Setup("", media, min(limits.memory_bytes, PROBE_BYTES)), environment, 1)

    def start(self, *, wait: bool = False) -> None:
        """Start all processes now, so that the first file need not wait for the models.

        Args:
            wait: until they have loaded.

        Raises:
            SandboxError: it is closed, or one does not start and that was waited for.
        """
        started = [*self._extracting.start(), *self._probing.start()]
        for one in started if wait else ():
            one.result()

    def extract(self, path: Path) -> Extraction:
        """Find everything in a file.

        Raises:
            MediaError: the file cannot be read, exceeds a limit, or ended the process that read it.
            SandboxError: the sandbox does not work.
        """
        seconds = self._limits.seconds
        if self._limits.seconds_per_second:
            seconds += self._limits.seconds_per_second * self.seconds(path)
        return self._extracting.ask(Task("extract", path, seconds, self._found))

    def seconds(self, path: Path) -> float:
        """Duration of a file in seconds, 0 for a photo.

        Raises:
            MediaError: as of :meth:`extract`.
            SandboxError: the sandbox does not work.
        """
        return self._probing.ask(Task("seconds", path, min(self._limits.seconds, PROBE_SECONDS), self._lasts))

    def children(self) -> tuple[int, ...]:
        """Process ids of the processes that live, those that find durations included."""
        return (*self._extracting.children(), *self._probing.children())

    def close(self) -> None:
        """End all processes; files that are being read are refused. Doing it twice is no error."""
        self._extracting.close()
        self._probing.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pool(self, setup: Setup, environment: Mapping[str, str] | None, processes: int) -> Pool:
        spawn = Spawn(setup, dict(environment or {}), self._limits.files, self._limits.answer_bytes)
        return Pool(spawn, processes)

    def _found(self, path: Path, reply: Reply) -> Extraction:
        if reply.extraction is None:
            raise NotAsAgreed("nothing was found, not even nothing")
        return believed(path, reply.extraction, self._media.seconds)

    def _lasts(self, _path: Path, reply: Reply) -> float:
        if reply.seconds is None or not 0 <= reply.seconds <= self._media.seconds:
            raise NotAsAgreed(f"a file was said to last {reply.seconds} s")
        return reply.seconds


def believed(path: Path, found: Extraction, longest: float) -> Extraction:
    """What a process says of a file, if it can be true.

    Args:
        path: the file.
        found: as it came; its fields are of the annotated types and its numbers finite.
        longest: seconds that a file may last.

    Returns:
        The same, its warnings without what would move a cursor.

    Raises:
        NotAsAgreed: it cannot be true.
        MediaError: the file cannot be read any more.

    The content's hash is taken here: a process that was taken over could speak of another file, and so replace what
    is known of it.
    """
    try:
        media = media_id(path)
    except OSError as error:
        raise MediaError(path, f"cannot be read to its end ({error}): check the disk") from error
    if found.media != media:
        raise NotAsAgreed("another file was read")
    if found.kind not in ("film", "sound", "photo") or not 0 <= found.duration <= longest + 1:
        raise NotAsAgreed(f"a {found.kind} of {found.duration} s was found")
    for shot in (shot for track in found.faces for shot in track.shots):
        _check_shot(shot)
    for turn in found.turns:
        _check_turn(turn)
    if any(not track.shots for track in found.faces):
        raise NotAsAgreed("a face came without a look at it")
    return replace(found, warnings=tuple(_one_line(one) for one in found.warnings))


def _check_shot(shot: FaceShot) -> None:
    shape, marks = shot.pixels.shape, shot.landmarks.shape
    if len(shape) != 3 or shape[2] != 3 or not 0 < min(shape) <= max(shape) <= LARGEST_SIDE or marks != (5, 2):
        raise NotAsAgreed(f"a face of shape {shape} with landmarks {marks} came")
    if not 0 <= shot.quality <= 1 or np.abs(shot.landmarks).max() > 10 * LARGEST_SIDE:
        raise NotAsAgreed(f"a face of quality {shot.quality} came, or landmarks far outside of it")


def _check_turn(turn: SpeechTurn) -> None:
    if turn.waveform.ndim != 1 or turn.speaker < 0:
        raise NotAsAgreed(f"sound of shape {turn.waveform.shape} by speaker {turn.speaker} came")
    if turn.waveform.size and max(turn.waveform.max(), -turn.waveform.min()) > 1:
        raise NotAsAgreed("sound beyond full scale came")


def _one_line(text: str) -> str:
    """A sentence without anything that would move the cursor of whoever reads it."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
