"""``visavox keys``, and what serving beyond loopback asks for; no network is loaded for any of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.keys import has_working_key, open_keys
from deploy.serving import Listening, allowed_hosts


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0), capsys.readouterr().out


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def create(capsys: pytest.CaptureFixture[str], role: str = "reader") -> dict[str, str]:
    code, out = run(capsys, "keys", "create", "--label", "the front desk", "--role", role, "--json")
    assert code == 0
    return dict(json.loads(out))


def test_a_key_is_shown_once_and_works(capsys: pytest.CaptureFixture[str]) -> None:
    made = create(capsys, "editor")
    assert {name: made[name] for name in ("label", "role")} == {"label": "the front desk", "role": "editor"}
    found = open_keys().check(made["key"])
    assert found is not None and found.id == made["id"]
    code, out = run(capsys, "keys", "list", "--json")
    (listed,) = json.loads(out)["keys"]
    assert code == 0 and made["key"] not in out and listed["id"] == made["id"]
    assert listed["revoked"] is None and listed["last_used"].endswith("Z") and listed["created"].endswith("Z")


def test_for_people_the_secret_is_all_that_standard_output_has(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "keys", "create", "--label", "me", "--role", "admin")
    assert code == 0 and open_keys().check(out.strip()) is not None


def test_a_revoked_key_is_listed_and_works_no_longer(capsys: pytest.CaptureFixture[str]) -> None:
    made = create(capsys)
    assert has_working_key()
    code, out = run(capsys, "keys", "revoke", made["id"], "--json")
    assert code == 0 and json.loads(out)["revoked"]
    assert open_keys().check(made["key"]) is None and not has_working_key()


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "--label", "x", "--role", "king"],
        ["create", "--label", " ", "--role", "reader"],
        ["create", "--role", "reader"],
        ["revoke"],
    ],
)
def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, out = run(capsys, "keys", *arguments, "--json")
    assert code == 2 and json.loads(out)["error"]["type"] == "usage"


def test_revoking_what_is_not_there_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "keys", "revoke", "0123456789ab", "--json")
    assert code == 3 and json.loads(out)["error"]["type"] == "unknown_key"


def test_the_records_of_keys_are_for_their_owner_only(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    create(capsys)
    assert home.stat().st_mode & 0o077 == 0 and (home / "records.sqlite").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "films.example"])
def test_beyond_loopback_nothing_is_served_without_a_key(
    capsys: pytest.CaptureFixture[str], home: Path, host: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--host", host])
    assert ended.value.code == 2 and "visavox keys create" in capsys.readouterr().err
    assert not home.exists()


def test_a_revoked_key_does_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    made = create(capsys)
    run(capsys, "keys", "revoke", made["id"])
    code, _ = run(capsys, "serve", "--host", "0.0.0.0")
    assert code == 2


@pytest.mark.parametrize("option", [["--name", "http://films.example"], ["--name", "a:80"], ["--log-format", "xml"]])
def test_serve_refuses_options_that_mean_nothing(capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    assert run(capsys, "serve", *option)[0] == 2


def test_keys_are_made_without_loading_a_network(home: Path) -> None:
    program = (
        "import sys; from deploy.cli import main\n"
        "try: main(['keys', 'create', '--label', 'x', '--role', 'reader'])\n"
        "except SystemExit: print(sorted({'torch', 'pymilvus', 'fastapi', 'av'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"


def test_names_that_were_given_and_ones_own_are_answered_under() -> None:
    given = allowed_hosts(Listening("192.0.2.7", 80, ("films.example",), loopback=False))
    assert given == {"127.0.0.1", "localhost", "::1", "192.0.2.7", "films.example"}
    everywhere = allowed_hosts(Listening("0.0.0.0", 80, (), loopback=False))
    assert {"127.0.0.1", "localhost"} <= everywhere and not {"0.0.0.0", "::"} & everywhere
