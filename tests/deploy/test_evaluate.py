"""``evaluate``: what it may be asked for; what it measures is tested where the measuring is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.cli import main


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, str]]:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *arguments, "--json"])
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)["error"]


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VISAVOX_MODEL", raising=False)
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "say whom to measure on: --population (invented people), --people DIR"),
        (["--population", "--people", "."], "say whom to measure on"),
        (["--people", ".", "--model", "some"], "--model goes with --population"),
        (["--population", "--export", "points"], "ends in .npz"),
    ],
)
def test_wrong_usage_says_what_goes_together(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    code, error = evaluate(capsys, *arguments)
    assert code == 2 and error["type"] == "usage" and told in error["message"]


def test_without_a_model_it_says_how_to_get_one(capsys: pytest.CaptureFixture[str], empty_home: Path) -> None:
    code, error = evaluate(capsys, "--population")
    assert code == 3 and error["type"] == "no_model" and "visavox train bi_quintuple --population" in error["message"]
    assert not (empty_home / "population").exists()


def test_a_folder_that_is_no_model_is_refused_before_anybody_is_invented(
    capsys: pytest.CaptureFixture[str], empty_home: Path, tmp_path: Path
) -> None:
    code, error = evaluate(capsys, "--population", "--model", str(tmp_path))
    assert code == 3 and "is not an encoder folder" in error["message"]
    assert not (empty_home / "population").exists()


def test_an_export_that_cannot_be_written_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, error = evaluate(capsys, "--population", "--export", str(tmp_path / "none" / "points.npz"))
    assert code == 3 and "points.npz" in error["message"]
