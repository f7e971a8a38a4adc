"""Damaged media of every kind through the real reading, in a child that can be killed: a success or a reason."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from ingest.limits import TRUSTED
from ingest.media import MediaError, write_film
from ingest.sandbox import Sandbox, SandboxLimits
from ingest.track import Extraction
from tests.ingest import real_formats as formats
from tests.ingest.drawn_faces import draw_face
from tests.ingest.hostile_media import mutated
from tests.ingest.real_formats import FILMS, PHOTOS, RATE, SOUNDS

SEED = 5
# As a worker's: far above what such small media need, also on a busy machine.
LIMITS = SandboxLimits(seconds=60.0, memory_bytes=1_500_000_000, files=10**6)
BOUNDED_SECONDS = 20.0
PICTURES = 12
# What the sandbox and the extractor say of files that crash, hang, or raise what nobody foresaw.
UNREASONED = ("ended the reading process", "made the reading process", "took longer than", "cannot be processed")
# A damaged length may ask FFmpeg for more memory than there is; such a file is refused for it, and rare.
MOST_FOR_MEMORY = 0.01


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One small medium of each kind, and a film with a face."""
    folder = tmp_path_factory.mktemp("whole")
    made = [formats.write_photo(folder / f"photo.{extension}") for extension in PHOTOS]
    times = [k / RATE for k in range(PICTURES)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVT_LOG", "0")
        for recipe in (*FILMS, *SOUNDS):
            if {recipe.pictures, *recipe.sounds} - {None} <= av.codecs_available:
                waves = [formats.sound(recipe.rate, PICTURES / RATE)] * len(recipe.sounds)
                path = folder / f"{recipe}.{recipe.extension}"
                made.append(formats.write(path, recipe, times=times, clock=RATE, waves=waves))
    picture = np.full((160, 160, 3), 120, np.uint8)
    draw_face(picture, 45, 40, 70)
    write_film(folder / "face.mp4", [picture] * PICTURES, RATE, formats.sound(16_000, PICTURES / RATE))
    return [*made, folder / "face.mp4"]


@pytest.fixture(scope="module")
def reader() -> Iterator[Sandbox]:
    """The real detectors and encoders in one process that reads file after file."""
    environment = {"OMP_NUM_THREADS": "1"}
    with Sandbox("deploy.reading:sandboxed_extractor", LIMITS, media=TRUSTED, environment=environment) as one:
        one.start(wait=True)
        yield one


def outcomes(reader: Sandbox, media: list[Path], folder: Path, numbers: range) -> dict[str, str]:
    """Reason by damaged file, empty where it was read; what takes long fails."""
    told: dict[str, str] = {}
    for number in numbers:
        source = media[number % len(media)]
        damaged = folder / f"{number}-{source.name}"
        damaged.write_bytes(mutated(source.read_bytes(), np.random.default_rng((SEED, number))))
        told[damaged.name], begin = "", time.monotonic()
        try:
            found = reader.extract(damaged)
        except MediaError as error:
            told[damaged.name] = error.reason
            named = error.path
        else:
            named = damaged if isinstance(found, Extraction) and all(found.warnings) else None
        assert named == damaged, (damaged.name, told[damaged.name])
        assert time.monotonic() - begin < BOUNDED_SECONDS, damaged.name
        damaged.unlink()
    return told


def assert_named(told: dict[str, str]) -> None:
    """Each reason says what is wrong and what to do, and it is the file's."""
    for name, reason in told.items():
        assert not reason or (": " in reason and "fd:" not in reason), (name, reason)
        assert not any(one in reason for one in UNREASONED), (name, reason)
    assert sum("of memory" in reason for reason in told.values()) <= MOST_FOR_MEMORY * len(told)


def test_whole_media_are_read(reader: Sandbox, media: list[Path]) -> None:
    kinds = Counter(reader.extract(path).kind for path in media)
    assert kinds == {"photo": len(PHOTOS), "sound": len(SOUNDS), "film": len(media) - len(PHOTOS) - len(SOUNDS)}
    assert len(reader.extract(media[-1]).faces) == 1


def test_each_damaged_medium_is_read_or_refused_with_a_reason(
    reader: Sandbox, media: list[Path], tmp_path: Path
) -> None:
    told = outcomes(reader, media, tmp_path, range(50))
    assert_named(told)
    assert 5 < sum(map(bool, told.values())) < 45, "damage must matter, but not always, for the test to mean anything"


@pytest.mark.long
def test_hundreds_of_damaged_media_are_read_or_refused_with_a_reason(
    reader: Sandbox, media: list[Path], tmp_path: Path
) -> None:
    told = outcomes(reader, media, tmp_path, range(50, 1050))
    assert_named(told)
    assert 100 < sum(map(bool, told.values())) < 900
    assert not os.listdir(tmp_path)
