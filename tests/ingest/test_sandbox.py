"""Reading in processes that can be killed: real processes that obey, die, hang, take and lie."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ingest.crossing import NotAsAgreed
from ingest.limits import MediaLimits
from ingest.media import MediaError, probe
from ingest.sandbox import Sandbox, SandboxError, SandboxLimits, believed
from ingest.track import Extraction, FaceShot, FaceTrack, Span, SpeechTurn, media_id
from tests.ingest.hostile_media import edited, film
from tests.ingest.test_media import tone, write_wav

READER = "tests.ingest.obedient_reader:make_reader"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(READER, SandboxLimits(seconds=20.0, memory_bytes=300_000_000)) as one:
        yield one


@pytest.fixture
def order(tmp_path):
    def written(text):
        path = tmp_path / f"{text.split()[0]}.txt"
        path.write_text(text)
        return path

    return written


def reader_of(sandbox, order):
    """The process that reads, as it says itself."""
    return int(sandbox.extract(order("sleep 0")).warnings[0])


def lives(process):
    return Path(f"/proc/{process}").exists()


def wait_until(true, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def test_files_are_read_one_after_the_other_in_one_other_process(sandbox, order):
    first, second = reader_of(sandbox, order), reader_of(sandbox, order)
    assert first == second != os.getpid() and first in sandbox.children()


def test_a_refusal_comes_back_as_the_files_own_without_what_moves_the_cursor(sandbox, order):
    before = reader_of(sandbox, order)
    with pytest.raises(MediaError, match=r"refuse\.txt: is not to our \[31m taste"):
        sandbox.extract(order("refuse"))
    assert reader_of(sandbox, order) == before


def test_the_duration_of_a_file_is_found_in_a_process_too(sandbox, tmp_path):
    write_wav(tmp_path / "a.wav", tone(1.5), 16000)
    assert sandbox.seconds(tmp_path / "a.wav") == pytest.approx(probe(tmp_path / "a.wav").duration)
    with pytest.raises(MediaError, match="no such file"):
        sandbox.seconds(tmp_path / "b.wav")


def test_a_name_that_is_no_text_is_read_all_the_same(sandbox, tmp_path):
    path = tmp_path / os.fsdecode(b"bad\xff \xe2\x98\x83.txt")
    path.write_text("sleep 0")
    assert sandbox.extract(path).kind == "sound"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("take 400", "needed more than 300 MB"),
        ("creep", "needed more than 300 MB"),
        ("crash", r"ended the reading process \(SIGSEGV\)"),
        ("kill", r"ended the reading process \(SIGKILL\)"),
        ("leave", r"ended the reading process \(exit code 7\)"),
        ("fail", r"cannot be processed \(KeyError: 'an index that is not there'\)"),
        ("lie", r"answer nonsense \(another file was read\)"),
        ("babble noise", "answer nonsense"),
        ("babble huge", "answer nonsense"),
    ],
)
def test_a_file_that_breaks_its_reader_is_refused_and_the_next_is_read_by_another(sandbox, order, text, reason):
    before = reader_of(sandbox, order)
    with pytest.raises(MediaError, match=reason):
        sandbox.extract(order(text))
    assert not lives(before)
    assert reader_of(sandbox, order) != before


def test_a_file_that_takes_too_long_ends_with_its_reader_in_time(order):
    with Sandbox(READER, SandboxLimits(1.0, 300_000_000)) as sandbox:
        sandbox.start(wait=True)
        readers, begin = sandbox.children(), time.monotonic()
        with pytest.raises(MediaError, match="took longer than 1 s to read"):
            sandbox.extract(order("spin"))
        assert 1.0 <= time.monotonic() - begin < 5.0
        assert sum(lives(one) for one in readers) == 1  # the one that finds durations


PIXELS, MARKS = np.zeros((64, 64, 3), np.uint8), np.zeros((5, 2), np.float32)
SHOT = FaceShot(None, PIXELS, MARKS, (0.0, 0.0, 1.0, 1.0), 0.5)
TURN = SpeechTurn(Span(0, 1), 0, np.zeros(16000, np.float32))


def faces(**lie):
    return {"faces": (FaceTrack(0, None, (replace(SHOT, **lie),), 1.0),)}


@pytest.mark.parametrize(
    "lie",
    [
        {"media": "0" * 64}, {"kind": "telegram"}, {"duration": 7201.5}, {"duration": -1.0},
        faces(pixels=PIXELS[:, :, 0]), faces(pixels=PIXELS[:, :, :2]), faces(pixels=PIXELS[:0]),
        faces(pixels=np.zeros((1, 3000, 3), np.uint8)), faces(landmarks=MARKS[:3]), faces(landmarks=MARKS + 1e9),
        faces(quality=7.0), {"faces": (FaceTrack(0, None, (), 1.0),)},
        {"turns": (replace(TURN, waveform=TURN.waveform + np.float32(2)),)},
        {"turns": (replace(TURN, waveform=np.zeros((2, 8000), np.float32)),)}, {"turns": (replace(TURN, speaker=-1),)},
    ],
)  # fmt: skip
def test_no_lie_of_a_process_is_believed(order, lie):
    path = order("lie")
    honest = Extraction(media_id(path), "sound", 1.0, (FaceTrack(0, None, (SHOT,), 1.0),), (TURN,))
    assert believed(path, honest, 7200.0).turns == honest.turns
    with pytest.raises(NotAsAgreed):
        believed(path, replace(honest, **lie), 7200.0)


def test_a_reader_cannot_write_run_connect_or_signal(sandbox, order):
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = [sandbox.extract(order(text)).warnings[0] for text in (
            "write", "program", f"connect {server.getsockname()[1]}", "signal_parent",
        )]  # fmt: skip
    assert all(one.startswith("refused: ") for one in told), told
    assert not order("write").with_suffix(".new").exists()


def test_a_reader_sees_no_secret_of_this_process_and_cannot_write_its_log(order, monkeypatch, capfd):
    monkeypatch.setenv("VISAVOX_DATABASE_URL", "postgresql://me:secret@there/")
    with Sandbox(READER, SandboxLimits(20.0, 300_000_000), environment={"OMP_NUM_THREADS": "1"}) as sandbox:
        names = sandbox.extract(order("environment")).warnings
        sandbox.extract(order("print"))
    assert set(names) == {"PYTHONPATH", "LC_ALL", "OMP_NUM_THREADS"}
    assert capfd.readouterr() == ("", "")


def test_two_processes_read_at_a_time_and_durations_wait_for_neither(tmp_path):
    write_wav(tmp_path / "a.wav", tone(0.5), 16000)
    orders = [tmp_path / f"{number}.txt" for number in range(4)]
    for one in orders:
        one.write_text("sleep 1")
    with Sandbox(READER, SandboxLimits(20.0, 300_000_000, processes=2)) as sandbox, ThreadPoolExecutor(4) as threads:
        sandbox.start(wait=True)
        begin = time.monotonic()
        found = threads.map(sandbox.extract, orders)
        sandbox.seconds(tmp_path / "a.wav")
        assert time.monotonic() - begin < 0.9
        readers = {one.warnings[0] for one in found}
        assert 2.0 <= time.monotonic() - begin < 3.8 and len(readers) == 2


def test_a_longer_file_may_take_longer(tmp_path, order):
    limits = SandboxLimits(1.0, 300_000_000, seconds_per_second=1.0)
    with Sandbox(READER, limits) as sandbox, pytest.raises(MediaError, match="looks like text"):
        sandbox.extract(order("sleep 0"))  # its duration is asked for, and it has none


def test_a_process_is_replaced_after_so_many_files(order):
    with Sandbox(READER, SandboxLimits(20.0, 300_000_000, files=2)) as sandbox:
        readers = [reader_of(sandbox, order) for _ in range(4)]
    assert readers[0] == readers[1] != readers[2] == readers[3]


def test_the_sandboxs_own_limits_of_media_hold(tmp_path):
    write_wav(tmp_path / "a.wav", tone(1.5), 16000)
    with (
        Sandbox(READER, SandboxLimits(20.0, 300_000_000), media=MediaLimits(seconds=1.0)) as sandbox,
        pytest.raises(MediaError, match="cut it"),
    ):
        sandbox.seconds(tmp_path / "a.wav")


@pytest.mark.parametrize(("maker", "reason"), [("make_nothing", "the weights are not there"), ("make_exit", "code 3")])
def test_a_factory_that_fails_is_the_installations_fault_not_the_files(order, maker, reason):
    with Sandbox(f"tests.ingest.obedient_reader:{maker}", SandboxLimits(20.0, 300_000_000)) as sandbox:
        with pytest.raises(SandboxError, match=reason):
            sandbox.extract(order("sleep 0"))
        with pytest.raises(SandboxError, match=reason):
            sandbox.start(wait=True)


def test_a_closed_sandbox_ends_its_processes_and_refuses_what_waits(order):
    sandbox = Sandbox(READER, SandboxLimits(60.0, 300_000_000))
    sandbox.start(wait=True)
    children = sandbox.children()
    assert len(children) == 2 and all(lives(one) for one in children)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(sandbox.extract, order("spin"))
        time.sleep(0.2)
        sandbox.close()
        with pytest.raises(SandboxError, match="closed"):
            waiting.result(timeout=5)
    assert not any(lives(one) for one in children)
    with pytest.raises(SandboxError, match="closed"):
        sandbox.extract(order("sleep 0"))


PROGRAM = f"""
import sys, threading
from pathlib import Path
from ingest.sandbox import Sandbox, SandboxLimits
sandbox = Sandbox({READER!r}, SandboxLimits(60.0, 300_000_000))
sandbox.start(wait=True)
print(*sandbox.children(), flush=True)
sandbox.extract(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_processes_never_outlive_a_parent_however_it_ends(order, how):
    command = [sys.executable, "-c", PROGRAM, str(order("spin"))]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    children = [int(one) for one in parent.stdout.readline().split()]
    assert len(children) == 2 and all(lives(one) for one in children)
    time.sleep(0.2)
    os.killpg(parent.pid, how)  # as a terminal does
    _, errors = parent.communicate(timeout=20)
    wait_until(lambda: not any(lives(one) for one in children))
    assert errors.count(b"Traceback") == (how == signal.SIGINT)  # its own, none of a child


def test_a_reader_stays_though_the_thread_that_first_asked_is_gone(sandbox, order):
    found = []
    with Sandbox(READER, SandboxLimits(20.0, 300_000_000)) as own:
        thread = threading.Thread(target=lambda: found.append(reader_of(own, order)))
        thread.start()
        thread.join()
        assert reader_of(own, order) == found[0]


@pytest.mark.parametrize("broken", [{"seconds": 0}, {"memory_bytes": 0}, {"processes": 0}, {"seconds_per_second": -1}])
def test_limits_that_allow_nothing_are_refused(broken):
    with pytest.raises(ValueError, match="must be"):
        SandboxLimits(**{"seconds": 1.0, "memory_bytes": 1} | broken)


def test_a_factory_that_is_not_a_dotted_name_is_refused():
    with pytest.raises(ValueError, match="module:function"):
        Sandbox("deploy.wiring", SandboxLimits(1.0, 1))


@pytest.mark.parametrize(
    ("pictures", "limits", "reason"),
    [
        (25, SandboxLimits(1.5, 10**9), "took longer than 2 s"),
        (2500, SandboxLimits(60.0, 200_000_000), "needed more than 200 MB"),
    ],
)
def test_a_film_that_shows_itself_again_and_again_ends_with_its_limit(tmp_path, pictures, limits, reason):
    path = tmp_path / "again.mp4"
    path.write_bytes(edited(film(tmp_path / "plain.mp4", pictures, side=16), 20_000))
    maker = "tests.ingest.obedient_reader:make_picture_reader"
    with Sandbox(maker, limits) as sandbox, pytest.raises(MediaError, match=reason):
        sandbox.extract(path)
