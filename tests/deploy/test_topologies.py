"""Laptop and server topology give the same rows: in-process on Milvus Lite, or by a worker into a Milvus server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.measuring import take
from deploy.serving_jobs import keeper_of
from deploy.settings import load_settings
from deploy.wiring import Installation
from encoders.folder import read_description, write_description
from ingest.jobpage import JobPages
from search.measurement import ENROLLED, Measurement
from search.people import UnknownPerson
from tests.encoders.shared_encoder import make_shared_encoder

IDENTITY = ("face_identity", "voice_identity")
DEVICE = "cpu"
SOME = ("av/grid/grid_s1/bbaf2n.mpg", "voices/librispeech/1688", "faces/lfw/Ariel_Sharon", "edge/no_audio_stream/x")


def visavox(environment: dict[str, str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a command in a process of its own; its exit code and JSON."""
    told = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments, "--json"],
        env=clean(environment), capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert told.stdout.count("\n") == 1, told.stderr
    return told.returncode, json.loads(told.stdout)


def clean(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("VISAVOX_")} | environment


@contextmanager
def worker(environment: dict[str, str]) -> Iterator[None]:
    """A real worker process, stopped afterwards."""
    process = subprocess.Popen([sys.executable, "-m", "deploy.cli", "worker"], env=clean(environment))
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def vectors(environment: dict[str, str]) -> dict[str, np.ndarray]:
    """Every vector in the index by its key."""
    opened = Installation(load_settings(environment))
    rows = [row for encoder in opened.encoders.values() for row in opened.store.rows(encoder.space)]
    opened.close()
    return {row.key: row.embedding.vector for row in rows}


def assert_same_rows(tmp_path: Path, redis_url: str, milvus_server: str | None, media: list[Path]) -> None:
    laptop = {"VISAVOX_HOME": str(tmp_path / "laptop"), "VISAVOX_DEVICE": DEVICE}
    server = {"VISAVOX_HOME": str(tmp_path / "server"), "VISAVOX_DEVICE": DEVICE, "VISAVOX_BROKER_URL": redis_url}
    if milvus_server:
        server["VISAVOX_MILVUS_URI"] = milvus_server
    paths = [str(path) for path in media]
    code, here = visavox(laptop, "ingest", *paths)
    with worker(server):
        there_code, there = visavox(server, "ingest", *paths, "--wait")
        _, status = visavox(server, "status")
    assert code == there_code == (1 if here["failed"] else 0)
    own = {"seconds", "job"}  # of each run
    assert {name: here[name] for name in here if name not in own} == {
        name: there[name] for name in there if name not in own
    }
    assert status["spaces"] == visavox(laptop, "status")[1]["spaces"]
    left, right = vectors(laptop), vectors(server)
    assert left.keys() == right.keys() and len(left) > 0
    assert min(float(left[key] @ right[key]) for key in left) >= 0.9999


@pytest.fixture
def small_media(tmp_path: Path) -> list[Path]:
    """A photo, a clip and a broken file that we make ourselves."""
    from training.population.folder import MediaSize, write_demo_media

    made = write_demo_media(tmp_path / "media", 3, MediaSize(people=3, strangers=0, films=1, film_seconds=6.0))
    broken = tmp_path / "media" / "broken.mp4"
    broken.write_bytes(b"\0" * 4096)
    person = made.people[0]
    return [made.films[0].path, person.photos[0], person.clips[0], broken]


@pytest.fixture
def samples(tmp_path: Path) -> dict[str, list[str]]:
    """Photos and a clip of two invented people."""
    from training.population.folder import MediaSize, write_demo_media

    made = write_demo_media(tmp_path / "media", 4, MediaSize(people=3, strangers=0, films=0, film_seconds=4.0))
    return {
        name: [str(path) for path in (*one.photos[:2], *one.clips[:1])]
        for name, one in zip(("Ann", "Ben", "Cem"), made.people, strict=True)
    }


@pytest.mark.long
def test_a_worker_over_redis_gives_the_rows_of_an_in_process_run(
    tmp_path: Path, redis_url: str, small_media: list[Path]
) -> None:
    assert_same_rows(tmp_path, redis_url, None, small_media)


@pytest.mark.long
def test_workers_enrol_into_every_space_and_measure_who_is_enrolled(
    tmp_path: Path, redis_url: str, samples: Mapping[str, list[str]]
) -> None:
    make_shared_encoder(tmp_path / "model")
    write_description(tmp_path / "model", replace(read_description(tmp_path / "model"), space="shared"))
    laptop = {"VISAVOX_HOME": str(tmp_path / "laptop"), "VISAVOX_DEVICE": "cpu"}
    laptop |= {"VISAVOX_MODEL": str(tmp_path / "model")}
    here = Installation(load_settings(laptop))
    enrolled = {
        name: asdict(here.archive.enrol(name, [Path(path) for path in files])) for name, files in samples.items()
    }
    measured, status = take(here, Measurement(ENROLLED)), here.archive.status()
    here.close()
    server = laptop | {"VISAVOX_HOME": str(tmp_path / "server"), "VISAVOX_BROKER_URL": redis_url}
    with worker(server):
        assert {name: visavox(server, "enrol", name, *files)[1] for name, files in samples.items()} == enrolled
        assert visavox(server, "evaluate", "--enrolled") == (0, measured)
    there = Installation(load_settings(server))
    assert there.archive.status() == status
    there.close()
    assert status.spaces["shared"].rows == sum(status.spaces[name].rows for name in IDENTITY) > 0
    assert measured["retrieval"]["face_to_face"]["people"] == 3


@pytest.mark.long
def test_a_server_with_workers_has_them_enrol(
    tmp_path: Path, redis_url: str, milvus_server: str, samples: Mapping[str, list[str]]
) -> None:
    environment = {
        "VISAVOX_HOME": str(tmp_path / "home"), "VISAVOX_DEVICE": "cpu", "VISAVOX_BROKER_URL": redis_url,
        "VISAVOX_MILVUS_URI": milvus_server,
    }  # fmt: skip
    photo = Path(samples["Ann"][0])
    opened = Installation(load_settings(environment))
    with closing(opened), worker(environment):
        ann = opened.records.people.create("Ann")
        assert keeper_of(opened).enrol_known(ann.id, [photo]).added == [str(photo)]
        with pytest.raises(UnknownPerson):
            keeper_of(opened).enrol_known("0" * 32, [photo])
        assert opened.records.people.describe("Ann").faces == 1
        assert {one.kind for one in JobPages(opened.database).recent()} == {"enrol"}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_server_topology_gives_the_keys_and_vectors_of_the_laptop(
    tmp_path: Path, redis_url: str, milvus_server: str, shared_media: Path
) -> None:
    assert_same_rows(tmp_path, redis_url, milvus_server, [shared_media / name for name in SOME])


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_all_real_media_have_the_same_keys_in_both_topologies(
    tmp_path: Path, redis_url: str, milvus_server: str, shared_media: Path
) -> None:
    assert_same_rows(tmp_path, redis_url, milvus_server, [shared_media])
