"""Measuring on published lists as a job: by a server in a process of its own, and by a worker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from deploy.measuring_apart import Expected, MeasuringFailed, take_apart
from deploy.protocols import Asked, measure_protocol
from deploy.serving_jobs import work_of
from deploy.settings import Settings, load_settings
from deploy.wiring import Installation
from deploy.working import FINAL_OF_EVALUATION, OUTAGES
from ingest.jobpage import JobPage
from search.client import Client
from search.measurement import PROTOCOL, Measurement, OnLists, evaluation_job
from search.published_lists import read_trial_lists
from tests.deploy.live_server import live_server
from tests.deploy.test_topologies import worker
from tests.search.protocol_vectors import people_vectors, write_vectors
from tests.search.small_lists import write_small_lists

EXPECTED = Expected(FINAL_OF_EVALUATION, OUTAGES)
PATIENCE = 120.0


class NotWanted(Exception):
    """The report is of no use any more."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    trials = read_trial_lists(write_small_lists(folder / "lists"))
    write_vectors(folder / "v.npz", trials, people_vectors(trials))
    return folder


@pytest.fixture
def settings(tmp_path: Path, root: Path) -> Settings:
    given = {"VISAVOX_HOME": str(tmp_path / "home"), "VISAVOX_DEVICE": "cpu", "VISAVOX_MEDIA_ROOTS": str(root)}
    return load_settings(given)


def on_lists(root: Path, **more: Any) -> Measurement:
    vectors = {} if "media" in more else {"embeddings": str(root / "v.npz")}
    lists = {"folder": str(root / "lists"), "intervals": False, "within": (str(root),)} | vectors | more
    return Measurement(PROTOCOL, lists=OnLists(**lists))


def done(pages: Iterator[JobPage]) -> JobPage:
    deadline = time.monotonic() + PATIENCE
    for page in pages:
        if page.finished is not None:
            return page
        assert time.monotonic() < deadline, page
        time.sleep(0.05)
    raise AssertionError("the job has no end")


def test_a_server_without_workers_gives_the_report_of_the_command_and_no_report_of_what_lies_outside(
    root: Path, settings: Settings, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.npz"
    outside.write_bytes((root / "v.npz").read_bytes())
    opened = Installation(settings)
    with work_of(opened, lambda: False) as work:
        asked = [on_lists(root), on_lists(root, embeddings=str(outside))]
        jobs = [work.hands.submit(evaluation_job(one)) for one in asked]
        good, bad = (done(iter(lambda job=job: work.pages.page(job), None)) for job in jobs)
    opened.close()
    expected = measure_protocol(Asked.of(asked[0]), settings=settings)
    assert good.state == "done" and good.result == json.loads(json.dumps(expected))
    assert bad.state == "failed" and bad.result == {"error": {"type": "protocol_error"}}
    assert bad.error is not None and "outside.npz: lies outside of the folders that may be read" in bad.error


@pytest.mark.long
def test_a_report_that_is_not_wanted_any_more_ends_its_process(root: Path, settings: Settings) -> None:
    others, seen = set(active_children()), list[Any]()  # other tests may have left processes that are not ours

    def check() -> None:
        seen.extend(set(active_children()) - others)
        raise NotWanted  # at the first look: the whole report of these lists is there within a second

    with pytest.raises(NotWanted):
        take_apart(on_lists(root, intervals=True), settings, EXPECTED, check)
    assert [process.exitcode for process in seen] == [-9] and not set(active_children()) - others


@pytest.mark.long
def test_a_process_that_dies_is_told_of_and_is_not_the_end_of_who_asked(root: Path, settings: Settings) -> None:
    others = set(active_children())

    def check() -> None:
        for process in set(active_children()) - others:
            process.kill()

    with pytest.raises(MeasuringFailed, match="exit code -9") as failed:
        take_apart(on_lists(root), settings, EXPECTED, check)
    assert failed.value.kind == "measuring_died"


@pytest.mark.long
def test_a_protocol_is_measured_over_http_by_the_server_or_by_a_worker(
    root: Path, settings: Settings, tmp_path: Path, redis_url: str
) -> None:
    expected = json.loads(json.dumps(measure_protocol(Asked.of(on_lists(root)), settings=settings)))
    lists = {"folder": root / "lists", "embeddings": root / "v.npz", "intervals": False}
    for name, broker in (("alone", {}), ("served", {"VISAVOX_BROKER_URL": redis_url})):
        folder = tmp_path / name
        folder.mkdir()
        given = {"VISAVOX_MEDIA_ROOTS": str(root), **broker}
        here = {"VISAVOX_HOME": str(folder / "home"), "VISAVOX_DEVICE": "cpu", **given}
        with live_server(folder, **given) as server, Client(f"http://127.0.0.1:{server.port}") as client:
            job = client.evaluate("protocol", lists=lists).job
            with worker(here) if broker else nullcontext():
                *_, last = client.follow(job)
        assert (last.state, last.result) == ("done", expected)
