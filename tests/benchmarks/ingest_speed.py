"""Ingest in × real time, beside its own networks on ready arrays: ``python -m tests.benchmarks.ingest_speed``.

``--device cuda`` measures the encoders on a GPU; the detectors run on the processor all the same.

The reference is measured in the same run: every call of the detector, the speech detector and the encoders is
remembered with its arguments, and repeated without anything between. Their time is what ingest would take if
decoding, following, pairing and writing cost nothing. One thread a network, so that what overlaps is the product's
own doing. Films are made here, or given as arguments.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deploy.settings import load_settings
from deploy.wiring import Installation
from encoders.face import load_face_detector
from encoders.voice import load_speech_detector
from ingest.pipeline import Extractor
from search.archive import Archive
from training.population.folder import MediaSize, write_demo_media

ROUNDS = 3


@dataclass
class Calls:
    """Remembers calls by the name of the network, to repeat them."""

    made: dict[str, list[Callable[[], object]]] = field(default_factory=lambda: defaultdict(list))

    def remembered(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, remembered with its arguments."""

        def wrapped(*given: Any, **named: Any) -> Any:
            self.made[name].append(lambda: call(*given, **named))
            return call(*given, **named)

        return wrapped

    def repeat(self) -> dict[str, float]:
        """Seconds that all calls of each network take, one after the other."""
        spent = {}
        for name, calls in self.made.items():
            start = time.perf_counter()
            for call in calls:
                call()
            spent[name] = time.perf_counter() - start
        return spent


@dataclass
class Watched:
    """Any detector or encoder with one of its methods replaced."""

    original: Any
    method: str
    call: Callable[..., Any]

    def __getattr__(self, name: str) -> Any:
        return self.call if name == self.method else getattr(self.original, name)


class Bench:
    """An installation whose networks can be watched."""

    def __init__(self, home: Path, device: str) -> None:
        self.opened = Installation(load_settings({"VISAVOX_HOME": str(home), "VISAVOX_DEVICE": device}))
        self._detector, self._listener = load_face_detector(), load_speech_detector()

    def ingest(self, films: list[Path], reading: str, calls: Calls | None = None) -> tuple[float, float]:
        """Seconds that reading the films takes, and seconds of media; another ``reading`` reads them again."""

        def watched(one: Any, method: str, name: str) -> Any:
            return Watched(one, method, calls.remembered(name, getattr(one, method))) if calls else one

        encoders = {name: watched(one, "encode", name) for name, one in self.opened.encoders.items()}
        extractor = Extractor(
            watched(self._detector, "detect", "face detector"),
            watched(self._listener, "probabilities", "speech detector"),
            encoders["face_identity"],
            encoders["voice_identity"],
        )
        writer = Archive(extractor.extract, reading, encoders, self.opened.store, self.opened.records)
        writer.mend()
        start = time.perf_counter()
        reports = [writer.ingest_file(film, "benchmark") for film in films]
        writer.flush()
        wall = time.perf_counter() - start
        if failed := [report for report in reports if report.state != "done"]:
            raise RuntimeError(f"not all films were read: {failed}")
        return wall, sum(report.seconds_of_media for report in reports)


def measure(films: list[Path], home: Path, device: str) -> dict[str, Any]:
    """Ingest films and repeat their networks' calls in turn; medians of the rounds, seconds."""
    bench, calls = Bench(home, device), Calls()
    bench.ingest(films, "0" * 64, calls)  # warms up, and remembers
    walls, networks = [], []
    seconds = 0.0
    for number in range(1, ROUNDS + 1):
        wall, seconds = bench.ingest(films, f"{number:064}")
        walls.append(wall)
        networks.append(calls.repeat())
    bench.opened.close()
    alone = [sum(spent.values()) for spent in networks]
    wall = statistics.median(walls)
    return {
        "device": device,
        "films": len(films),
        "seconds_of_media": round(seconds, 1),
        "seconds": round(wall, 2),
        "times_real_time": round(seconds / wall, 2),
        "networks_alone": round(statistics.median(alone), 2),
        "share_of_networks_speed": round(statistics.median(a / w for a, w in zip(alone, walls, strict=True)), 3),
        "calls": {name: len(made) for name, made in calls.made.items()},
        "seconds_by_network": {
            name: round(statistics.median(spent[name] for spent in networks), 2) for name in networks[0]
        },
    }


def make_films(folder: Path) -> list[Path]:
    """Films of invented people, 640 × 360."""
    made = write_demo_media(folder, 7, MediaSize(people=6, strangers=1, films=4, film_seconds=20.0))
    return [film.path for film in made.films]


def main() -> None:
    """Measure the given films, or a few made for it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("films", nargs="*", type=Path)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # the index may still write
        films = asked.films or make_films(Path(folder) / "media")
        sys.stdout.write(json.dumps(measure(films, Path(folder) / "home", asked.device), indent=1) + "\n")


if __name__ == "__main__":
    main()
