"""What holds for the command line before any model is loaded: usage, exit codes, one JSON document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.cli.files import Tally
from ingest.jobs import FileReport


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0), capsys.readouterr().out


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    "arguments",
    [
        ["unheard-of"],
        ["find", "a.wav", "--want", "smell"],
        ["find", "a.wav"],
        ["find", "a.wav", "--want", "face", "--top", "0"],
        ["verify", "a.wav", "b.wav", "--similarity", "guess"],
        ["who"],
        ["enrol", " ", "a.wav"],
    ],
)
def test_wrong_usage_is_one_json_document_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    code, out = run(capsys, *arguments, "--json")
    assert code == 2 and json.loads(out)["error"]["type"] == "usage"


@pytest.mark.parametrize(
    "arguments",
    [
        ["who", "missing.wav"],
        ["find", "missing.wav", "--want", "voice"],
        ["verify", "missing.wav", "missing.wav"],
        ["match", "missing.wav", "missing.wav"],
        ["ingest", "missing"],
        ["enrol", "Ann", "missing.wav"],
        ["evaluate", "--people", "missing"],
        ["forget", "Nobody"],
    ],
)
def test_what_does_not_exist_is_one_json_document_and_exit_code_3(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    code, out = run(capsys, *arguments, "--json")
    assert code == 3 and set(json.loads(out)["error"]) == {"type", "message"}


def test_listening_beyond_loopback_is_wrong_usage_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = run(capsys, "serve", "--host", "0.0.0.0")
    assert code == 2


def test_a_worker_without_broker_says_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["worker"])
    assert ended.value.code == 2 and "VISAVOX_BROKER_URL" in capsys.readouterr().err


def test_nobody_enrolled_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "people", "--json")
    assert code == 0 and json.loads(out) == {"people": []}


def test_a_bad_setting_is_wrong_usage(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVOX_DEVICE", "abacus")
    code, out = run(capsys, "people", "--json")
    assert code == 2 and "VISAVOX_DEVICE" in json.loads(out)["error"]["message"]


def test_records_that_cannot_be_used_are_one_json_document_and_exit_code_3(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVOX_DATABASE_URL", "sqlite:////nowhere/records.sqlite")
    code, out = run(capsys, "people", "--json")
    assert code == 3 and json.loads(out)["error"]["type"] == "records"


def test_an_interruption_is_one_json_document(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deploy.wiring.installation", interrupted)
    code, out = run(capsys, "people", "--json")
    assert code == 130 and json.loads(out)["error"]["type"] == "interrupted"


def test_a_defect_of_ours_is_one_json_document_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("deploy.wiring.installation", broken)
    code, out = run(capsys, "people", "--json")
    assert code == 3 and json.loads(out)["error"]["type"] == "internal"


def test_warnings_about_a_file_are_passed_on() -> None:
    tally = Tally()
    tally.add(FileReport("a.wav", "done", "m" * 64, 0, 1, 1.0, None, ("truncated: what decodes is kept",)))
    assert tally.document()["warnings"] == ["a.wav: truncated: what decodes is kept"]
