"""Weights that do not come inside packages: fetched when asked for, checked, and pinned for ever after.

A folder of weights holds a folder per network, and ``weights.lock.json``, which says of each file where it came from,
which revision it was, how large it is and its SHA-256. What a source publishes is checked at the first fetch; what it
does not is pinned then. From then on a file with other content is refused, wherever it comes from.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath

from encoders.downloading import (
    FetchRules,
    ask_hub,
    check_size,
    discard,
    disk_errors_told,
    download,
    without_query,
)
from encoders.weights import HubFile, NetworkRow, UrlFile, WeightsError, sha256_of

LOCK_FILE = "weights.lock.json"
FORMAT = 1
_GATE = ".fetching"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class LockedFile:
    """What the lock file says of a file.

    Args:
        source: where it came from: an address, ``owner/name`` of a hub and the file, or ``local``.
        revision: the commit of a hub's repository; None elsewhere.
        size: in bytes.
        sha256: of its content, 64 hex digits.
    """

    source: str
    revision: str | None
    size: int
    sha256: str

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 0 or len(self.sha256) != 64:
            raise ValueError(f"a locked file has a size and a SHA-256 of 64 digits, got {self.size} and {self.sha256}")


@dataclass(frozen=True)
class FetchedFile:
    """A weight file that is here and is the right one.

    Args:
        path: where.
        locked: what the lock file says of it.
        fetched: whether it was fetched just now.
        pinned: whether it was pinned just now, so that nothing vouches for it yet.
    """

    path: Path
    locked: LockedFile
    fetched: bool
    pinned: bool


def local_name(source: HubFile | UrlFile) -> str:
    """What a file is called in its network's folder."""
    name = PurePosixPath(source.file if isinstance(source, HubFile) else without_query(source.url)).name
    if not name or name.startswith("."):
        raise WeightsError(f"{source} names no file")
    return name


def fetched_paths(row: NetworkRow, home: Path) -> tuple[Path, ...] | None:
    """Where a row's fetched files lie, the main one first; None unless all are here in the size that is locked.

    Raises:
        WeightsError: the lock file cannot be read.
    """
    locked, paths = read_lock(home), []
    for source in row.sources:
        name = local_name(source)
        path, entry = home / row.name / name, locked.get(f"{row.name}/{name}")
        if entry is None or not path.is_file() or path.stat().st_size != entry.size:
            return None
        paths.append(path)
    return tuple(paths)


def fetch_row(
    row: NetworkRow,
    home: Path,
    rules: FetchRules,
    origin: str | None = None,
) -> tuple[FetchedFile, ...]:
    """Fetch a row's files, the main one first; what is here and right is not fetched again.

    Args:
        row: of a table of networks.
        home: folder of weights; made if it is missing.
        rules: how files may be fetched.
        origin: take the files from there instead: a file or a folder on this machine, the address of a file, or an
            address that ends in ``/`` below which they lie. They must be the same files all the same.

    Raises:
        WeightsError: the row has no files to fetch, one was not found, is another than the pinned one or too large,
            there is no network or none is allowed, or the disk is full.
    """
    if not row.sources:
        raise WeightsError(f"{row.name} has no weights to fetch: {row.trained_on}")
    home.mkdir(parents=True, exist_ok=True)
    with _alone(home):
        return tuple(_fetch(row, source, home, rules, origin) for source in row.sources)


def forget_fetched(row: NetworkRow, home: Path) -> None:
    """Remove a row's files and their pins, for they turned out to be something else."""
    with _alone(home):
        left = {key: entry for key, entry in read_lock(home).items() if key.partition("/")[0] != row.name}
        _write_lock(home, left)
        shutil.rmtree(home / row.name, ignore_errors=True)


def verify_fetched(home: Path, name: str) -> dict[str, str | None]:
    """What is wrong with each fetched file of a network, None where nothing is.

    Args:
        home: folder of weights.
        name: of the network's row.

    Raises:
        WeightsError: the lock file cannot be read.
    """
    found: dict[str, str | None] = {}
    for key, entry in read_lock(home).items():
        if key.partition("/")[0] == name:
            found[key] = _problem(home / key, entry)
    return found


def read_lock(home: Path) -> dict[str, LockedFile]:
    """What the lock file says, by ``network/file``; empty where there is none.

    Raises:
        WeightsError: it cannot be read.
    """
    path = home / LOCK_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}, this version reads {FORMAT}")
        wanted = {one.name for one in fields(LockedFile)}
        return {
            _checked_key(key): LockedFile(**{name: entry[name] for name in wanted})
            for key, entry in document["files"].items()
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} is not what `visavox models pull` writes ({error}): restore it, or remove it to pin anew"
        ) from error


def _checked_key(key: str) -> str:
    network, _, file = key.partition("/")
    if PurePosixPath(network).name != network or PurePosixPath(file).name != file or not network or not file:
        raise ValueError(f"{key!r} is no network/file")
    return key


def _fetch(
    row: NetworkRow, source: HubFile | UrlFile, home: Path, rules: FetchRules, origin: str | None
) -> FetchedFile:
    name = local_name(source)
    key, path = f"{row.name}/{name}", home / row.name / name
    pinned = read_lock(home).get(key)
    if pinned is not None and path.is_file() and _problem(path, pinned) is None:
        return FetchedFile(path, pinned, fetched=False, pinned=False)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f".{name}.part")
    place, revision, published = _gather(row, source, partial, pinned, rules, origin)
    size, sha256 = partial.stat().st_size, sha256_of(partial)
    expectations = (
        (published, f"{place} publishes"),
        (source.sha256, "the table of networks names"),
        (pinned.sha256 if pinned else None, f"{LOCK_FILE} pinned at the first use"),
    )
    for expected, who in expectations:
        if expected is not None and sha256 != expected.lower():
            discard(partial)
            raise WeightsError(
                f"{name} of {row.name} from {place} has SHA-256 {sha256}, but {who} {expected}: it is another file, "
                "and was not kept"
            )
    locked = pinned or LockedFile(place, revision, size, sha256)
    # pinned before it is there: a file without its pin would be taken for nobody's
    _write_lock(home, {**read_lock(home), key: locked})
    os.replace(partial, path)
    discard(partial)
    return FetchedFile(path, locked, fetched=True, pinned=pinned is None)


def _gather(
    row: NetworkRow,
    source: HubFile | UrlFile,
    partial: Path,
    pinned: LockedFile | None,
    rules: FetchRules,
    origin: str | None,
) -> tuple[str, str | None, str | None]:
    """Bring a file's bytes to ``partial``; where from, which revision, and what is published of its SHA-256."""
    name = local_name(source)
    if origin is not None and "://" not in origin:
        _copy(_local_file(row, name, Path(origin).expanduser()), partial, rules)
        return "local", None, None
    if rules.offline:
        raise WeightsError(
            f"{name} of {row.name} is not here, and this installation is offline: fetch it on another machine and give "
            "its path with --from"
        )
    if origin is not None:
        url = origin + name if origin.endswith("/") else origin
        if not origin.endswith("/") and len(row.sources) > 1:
            raise WeightsError(f"{row.name} has {len(row.sources)} files: give a folder, or an address that ends in /")
        download(url, partial, name, rules)
        return without_query(url), None, None
    if isinstance(source, UrlFile):
        download(source.url, partial, name, rules)
        return without_query(source.url), None, None
    revision = pinned.revision if pinned and pinned.revision else source.revision
    answer = ask_hub(source, revision, rules)
    download(answer.url, partial, name, rules)
    return f"{source.repository}/{source.file}", answer.revision, answer.sha256


def _local_file(row: NetworkRow, name: str, origin: Path) -> Path:
    if origin.is_dir():
        for path in (origin / name, origin / row.name / name):
            if path.is_file():
                return path
        raise WeightsError(f"{origin} holds no {name}, which {row.name} needs")
    if not origin.is_file():
        raise WeightsError(f"{origin} does not exist: --from takes a file, a folder or an address with https")
    if len(row.sources) > 1:
        needed = ", ".join(local_name(one) for one in row.sources)
        raise WeightsError(f"{row.name} has {len(row.sources)} files: give the folder that holds {needed}")
    return origin


def _copy(path: Path, partial: Path, rules: FetchRules) -> None:
    discard(partial)
    total, done = path.stat().st_size, 0
    check_size(path.name, total, rules)
    with disk_errors_told(partial), path.open("rb") as reader, partial.open("wb") as writer:
        while chunk := reader.read(_CHUNK):
            done += len(chunk)
            check_size(path.name, done, rules)
            writer.write(chunk)
            rules.on_progress(path.name, done, total)


def _problem(path: Path, entry: LockedFile) -> str | None:
    """What is wrong with a file that should be as it was pinned."""
    if not path.is_file():
        return f"{path} is missing; pull it again"
    if path.stat().st_size != entry.size:
        return f"{path} has {path.stat().st_size} bytes, {LOCK_FILE} says {entry.size}; pull it again"
    actual = sha256_of(path)
    if actual != entry.sha256:
        return f"{path} has SHA-256 {actual}, {LOCK_FILE} says {entry.sha256}; pull it again"
    return None


def _write_lock(home: Path, locked: Mapping[str, LockedFile]) -> None:
    files = {key: asdict(entry) for key, entry in sorted(locked.items())}
    new = home / f".{LOCK_FILE}.new"
    with disk_errors_told(new):
        new.write_text(json.dumps({"format": FORMAT, "files": files}, indent=2) + "\n", encoding="utf-8")
    os.replace(new, home / LOCK_FILE)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Wait until no other process fetches into this folder."""
    with (home / _GATE).open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield
