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
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deploy.demo import make_films
from deploy.settings import load_settings
from deploy.wiring import Installation


def timed(spent: dict[str, float], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call, with its time added up under a name; a call within a timed call is not counted twice."""

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if spent["inside"]:
            return call(*arguments, **options)
        spent["inside"] = 1.0
        start = time.perf_counter()
        try:
            return call(*arguments, **options)
        finally:
            spent[name] += time.perf_counter() - start
            spent["inside"] = 0.0

    return wrapped


def measure(films: list[Path], home: Path) -> dict[str, Any]:
    """Ingest films into a new home and say where the time went (seconds)."""
    opened = Installation(load_settings({"VISAVOX_HOME": str(home)}))
    spent: dict[str, float] = defaultdict(float)
    extractor = opened.extractor
    detector, listener = extractor.face_detector, extractor.speech_detector
    detector.detect = timed(spent, "face detector", detector.detect)  # type: ignore[method-assign]
    listener.probabilities = timed(spent, "speech detector", listener.probabilities)  # type: ignore[method-assign]
    for encoder in opened.encoders.values():
        object.__setattr__(encoder, "encode", timed(spent, encoder.space.name, encoder.encode))
    writer = opened.archive
    writer.mend()
    start = time.perf_counter()
    reports = [writer.ingest_file(film, "benchmark") for film in films]
    writer.flush()
    wall = time.perf_counter() - start
    opened.close()
    spent.pop("inside", None)
    seconds = sum(report.seconds_of_media for report in reports)
    return {
        "films": len(films),
        "seconds_of_media": round(seconds, 1),
        "seconds": round(wall, 1),
        "times_real_time": round(seconds / wall, 2),
        "share_inside_networks": round(sum(spent.values()) / wall, 3),
        "shares": {name: round(value / wall, 3) for name, value in sorted(spent.items())},
    }


def main(arguments: list[str]) -> None:
    """Measure the given films, or a few made for it."""
    with TemporaryDirectory() as folder:
        films = [Path(argument) for argument in arguments] or make_films(Path(folder) / "media")
        sys.stdout.write(json.dumps(measure(films, Path(folder) / "home"), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
