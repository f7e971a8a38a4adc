"""Ingest in × real time, and the share of it spent inside networks: ``python -m tests.benchmarks.ingest_speed``.

The reference is the same run's own networks: what share of the wall time they take is how near the pipeline
is to being limited by them alone. Films are made here, or given as arguments.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deploy.demo import make_films
from deploy.settings import load_settings
from deploy.wiring import Installation
from encoders.face import load_face_detector
from encoders.voice import load_speech_detector
from ingest.pipeline import Extractor
from search.archive import Archive


class Stopwatch:
    """Adds up the time of calls by name; a call within a timed call is not counted twice."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._inside = False

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        def wrapped(*arguments: Any, **options: Any) -> Any:
            if self._inside:
                return call(*arguments, **options)
            self._inside, start = True, time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.spent[name] += time.perf_counter() - start
                self._inside = False

        return wrapped


@dataclass
class Timed:
    """Any detector or encoder with one of its methods timed."""

    original: Any
    method: str
    call: Callable[..., Any]

    def __getattr__(self, name: str) -> Any:
        return self.call if name == self.method else getattr(self.original, name)


def measure(films: list[Path], home: Path) -> dict[str, Any]:
    """Ingest films into a new home and say where the time went (seconds)."""
    opened = Installation(load_settings({"VISAVOX_HOME": str(home)}))
    watch = Stopwatch()
    detector, listener = load_face_detector(), load_speech_detector()
    encoders: dict[str, Any] = {
        name: Timed(one, "encode", watch.timed(name, one.encode)) for name, one in opened.encoders.items()
    }
    extractor = Extractor(
        Timed(detector, "detect", watch.timed("face detector", detector.detect)),
        Timed(listener, "probabilities", watch.timed("speech detector", listener.probabilities)),
        encoders["face_identity"],
        encoders["voice_identity"],
    )
    writer = Archive(extractor.extract, "b" * 64, encoders, opened.store, opened.records)
    writer.mend()
    start = time.perf_counter()
    reports = [writer.ingest_file(film, "benchmark") for film in films]
    writer.flush()
    wall = time.perf_counter() - start
    opened.close()
    seconds = sum(report.seconds_of_media for report in reports)
    return {
        "films": len(films),
        "seconds_of_media": round(seconds, 1),
        "seconds": round(wall, 1),
        "times_real_time": round(seconds / wall, 2),
        "share_inside_networks": round(sum(watch.spent.values()) / wall, 3),
        "shares": {name: round(value / wall, 3) for name, value in sorted(watch.spent.items())},
    }


def main(arguments: list[str]) -> None:
    """Measure the given films, or a few made for it."""
    with TemporaryDirectory() as folder:
        films = [Path(argument) for argument in arguments] or make_films(Path(folder) / "media")
        sys.stdout.write(json.dumps(measure(films, Path(folder) / "home"), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
