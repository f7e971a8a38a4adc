"""The README tells the truth: its commands, routes, settings and files exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.main import get_command

from deploy.cli import app
from deploy.settings import _KNOWN
from search.api.app import create_app
from search.api.services import Services

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]


def test_the_first_screen_has_the_two_commands_and_their_real_output() -> None:
    first_screen = "\n".join(README.splitlines()[:45])
    assert "make demo" in first_screen and "make test" in first_screen
    assert "face tracks and" in first_screen and "asked" in first_screen


@pytest.mark.parametrize("name", sorted(set(re.findall(r"visavox ([a-z]+)\b", README))))
def test_every_command_named_exists(name: str) -> None:
    assert name in COMMANDS


def test_every_option_named_exists() -> None:
    every = [one for command in COMMANDS.values() for one in (command, *getattr(command, "commands", {}).values())]
    options = {option for command in every for one in command.params for option in (*one.opts, *one.secondary_opts)}
    others = {"--strict", "--num"}  # mypy's and accelerate's
    named = set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", README)) - others
    assert named <= options


def test_every_route_named_exists() -> None:
    work = SimpleNamespace(pages=None)
    services = SimpleNamespace(at_once=1, work=work)  # describing needs no more of them
    described = create_app(cast(Services, services)).openapi()["paths"]
    paths = {re.sub(r"\{\w+\}", "{id}", path) for path in described}
    named = set(re.findall(r"(?<=[`0])(/(?:v1/[a-z/{}]+|healthz|readyz|metrics))", README))
    assert len(named) >= 8 and named <= paths


def test_every_setting_named_is_read() -> None:
    assert set(re.findall(r"VISAVOX_[A-Z_]+", README)) <= _KNOWN


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\n)make ([a-z]+(?:-[a-z]+)?)\b", README)) <= targets


def test_every_room_in_the_tree_exists() -> None:
    # not everywhere: what other tests write comes and goes meanwhile
    there = {path.name for place in ("*", "*/*") for path in ROOT.glob(place) if path.is_dir()}
    assert set(re.findall(r"^ *([a-z]+)/ ", README, re.MULTILINE)) <= there


def test_each_dependency_is_justified_in_one_line() -> None:
    source = (ROOT / "pyproject.toml").read_text()
    wanted = tomllib.loads(source)["project"]["dependencies"]
    for requirement in wanted:
        (line,) = [line for line in source.splitlines() if f'"{requirement}"' in line]
        assert re.search(r"#\s*\w+", line), requirement


def test_the_lock_names_one_version_of_every_direct_dependency() -> None:
    locked = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(
        r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)}  # fmt: skip
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    names = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", one)[0]).lower() for one in direct}  # type: ignore[index]
    assert names <= locked
