from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.jobs import FileReport
from ingest.worker import NO_WORKER, BrokerUnavailable, CeleryQueue, Limits, make_app
from tests.ingest import counting_worker
from tests.ingest.conftest import StoppableRedis, free_port

ROOT = Path(__file__).parents[2]
LEASE = 3.0
Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def start_worker(redis_url: str, tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []
    log = tmp_path / "worker.log"

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.ingest.counting_worker", redis_url, str(LEASE)]
        environment = os.environ | {"COUNTING_WORKER_LOADS": str(tmp_path / "loads")}
        with log.open("ab") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        started.append(process)
        return process

    yield start
    for process in started:
        process.send_signal(signal.SIGQUIT)
    for process in started:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    print(log.read_text() if log.exists() else "no worker was started")


@pytest.fixture
def queue(redis_url: str) -> CeleryQueue:
    return CeleryQueue(make_app(redis_url, None, counting_worker.limits(LEASE)))


def files(folder: Path, **orders: str) -> list[Path]:
    for name, order in orders.items():
        (folder / f"{name}.txt").write_text(order)
    return [folder / f"{name}.txt" for name in orders]


def runs(path: Path) -> int:
    counted = path.with_suffix(".runs")
    return len(counted.read_text().splitlines()) if counted.exists() else 0


def wait_for(what: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_a_worker_reports_good_bad_and_deadly_files_and_loads_its_handler_once_per_process(
    queue: CeleryQueue, start_worker: Start, tmp_path: Path
) -> None:
    start_worker()
    paths = files(tmp_path, good="count", other="count", bad="raise", deadly="die", last="count")
    reports = {Path(report.path).stem: report for report in queue.run(paths, "films")}
    assert {name for name, report in reports.items() if report.state == "done"} == {"good", "other", "last"}
    assert reports["good"] == FileReport(str(paths[0]), "done", "0" * 64, 1, 2, 3.0, None, ("a warning",))
    assert reports["bad"].state == reports["deadly"].state == "failed"
    assert "the index is not there" in (reports["bad"].reason or "")
    assert "WorkerLostError" in (reports["deadly"].reason or "")
    assert [runs(path) for path in paths] == [1, 1, 2, 2, 1]
    children = (tmp_path / "loads").read_text().split()
    assert len(children) == len(set(children))
    assert paths[0].with_suffix(".runs").read_text().split()[1] == "films"


def test_a_task_whose_worker_is_killed_is_done_after_a_restart(
    queue: CeleryQueue, start_worker: Start, tmp_path: Path
) -> None:
    (path,) = files(tmp_path, film="sleep 60")
    first = start_worker()
    reports: list[FileReport] = []
    waiter = threading.Thread(target=lambda: reports.extend(queue.run([path], "films")))
    waiter.start()
    wait_for(lambda: runs(path) == 1)
    first.kill()
    first.wait()
    path.write_text("count")
    start_worker()
    waiter.join(timeout=40)
    assert [report.state for report in reports] == ["done"]
    assert runs(path) == 2


def test_a_task_that_outlasts_its_lease_runs_once_while_its_worker_lives(
    queue: CeleryQueue, start_worker: Start, tmp_path: Path
) -> None:
    (path,) = files(tmp_path, film=f"sleep {2.5 * LEASE}")
    start_worker()
    start_worker()
    assert [report.state for report in queue.run([path], "films")] == ["done"]
    assert runs(path) == 1


def test_a_submitted_job_needs_nobody_to_wait_for_it(queue: CeleryQueue, start_worker: Start, tmp_path: Path) -> None:
    paths = files(tmp_path, one="count", two="count")
    assert queue.submit(paths, "films")
    start_worker()
    wait_for(lambda: [runs(path) for path in paths] == [1, 1])


def test_a_run_without_workers_says_so_and_keeps_waiting(redis_url: str, tmp_path: Path) -> None:
    class Told(Exception):
        pass

    said: list[str] = []

    def tell(message: str) -> None:
        said.append(message)
        raise Told

    queue = CeleryQueue(redis_url, tell)
    with pytest.raises(Told):
        list(queue.run(files(tmp_path, one="count"), "films"))
    assert said == [NO_WORKER]


def test_a_broker_that_is_down_is_told_within_seconds_and_without_its_password(tmp_path: Path) -> None:
    queue = CeleryQueue(make_app(f"redis://:hush@127.0.0.1:{free_port()}/0"))
    begun = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1.* does not answer") as caught:
        list(queue.run([tmp_path / "film.mp4"], "films"))
    assert "hush" not in str(caught.value)
    with pytest.raises(BrokerUnavailable):
        queue.submit([tmp_path / "film.mp4"], "films")
    assert time.monotonic() - begun < 15


def test_a_broker_that_goes_away_during_a_run_ends_it_within_seconds(
    stoppable_redis: StoppableRedis, tmp_path: Path
) -> None:
    queue = CeleryQueue(make_app(stoppable_redis.url), lambda _message: stoppable_redis.stop())
    begun = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        list(queue.run(files(tmp_path, one="count"), "films"))
    assert time.monotonic() - begun < 20


def test_a_broker_that_loses_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="must be Redis"):
        make_app("memory://")


@pytest.mark.parametrize("limits", [(10, 5, 100), (10, 20, 15), (0, 5, 100)])
def test_limits_by_which_a_task_would_run_twice_are_refused(limits: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="soft < hard < visibility"):
        Limits(*limits)


def test_a_retry_comes_before_the_lease_of_a_waiting_task_ends() -> None:
    assert max(Limits().retry_delay(retries) for retries in range(20)) < Limits().lease


def test_an_application_comes_out_of_a_pickle_with_its_task_and_handler() -> None:
    app = make_app("redis://127.0.0.1:1/0", counting_worker.make_handler, Limits(lease=9.0))
    again = pickle.loads(pickle.dumps(app))
    assert again.made_of == app.made_of
    assert "visavox.ingest_file" in again.tasks


def test_only_json_travels() -> None:
    conf = make_app("redis://127.0.0.1:1/0").conf
    assert conf.accept_content == conf.result_accept_content == ["json"]
    assert conf.task_serializer == conf.result_serializer == "json"


def test_visibility_outlasts_every_task_in_all_places_that_have_it() -> None:
    conf = make_app("redis://127.0.0.1:1/0").conf
    places = [
        conf.broker_transport_options["visibility_timeout"],
        conf.result_backend_transport_options["visibility_timeout"],
        conf.visibility_timeout,
    ]
    assert min(places) == max(places) > conf.task_time_limit > conf.task_soft_time_limit
