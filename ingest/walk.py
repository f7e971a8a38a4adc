"""Finds media under files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingest.content import MEDIA_EXTENSIONS

# What an installation keeps, by which its folder is known: records here, or elsewhere.
HOME_MARKS = (("records.sqlite",), ("evidence", "writers"))
OUTSIDE = "lies outside of the folders that may be read from (a link leads there): copy it, or add its folder"
"""Why a file is not taken whose links lead out of where files are taken from."""


@dataclass
class Walk:
    """Media found under the given paths, in order; what is missing, cannot be read or lies outside; other files."""

    media: list[Path] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)
    unnameable: list[Path] = field(default_factory=list)
    outside: list[Path] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    ignored: int = 0

    def note(self, path: Path | str, error: OSError) -> None:
        """Remember what keeps a path from being looked at."""
        self.unreadable[as_text(path)] = f"cannot be read: {error.strerror or error}: check who may read it"

    def problems(self) -> dict[str, str]:
        """What of the given paths cannot be read, with the reason."""
        missing = {str(path): "there is no such file or folder" for path in self.missing}
        unnameable = {as_text(path): "its name is not UTF-8: rename it" for path in self.unnameable}
        outside = {str(path): OUTSIDE for path in self.outside}
        return missing | unnameable | outside | self.unreadable


def walk_media(paths: Sequence[Path], home: Path | None = None, within: Sequence[Path | str] | None = None) -> Walk:
    """Find media by extension under files and folders, each file once, folders in order of name.

    What lies in ``home``, or in any other installation's folder, is Visavox's own and not looked at.

    Args:
        paths: files and folders.
        home: folder of the installation.
        within: only files that lie in one of these folders once all links are followed; None: wherever they lie. It
            holds for the moment of the walk: who reads a file later has to look again, with :func:`lies_within`.
    """
    walk, seen = Walk(), set()
    for path in paths:
        if within is not None and not lies_within(path, within):
            walk.outside.append(path)
            continue
        try:
            path.lstat()
        except PermissionError as error:
            walk.note(path, error)
            continue
        except OSError:
            walk.missing.append(path)
            continue
        for file in _files(path, home, walk) if os.path.isdir(path) else [path]:
            if file.absolute() in seen:
                continue
            seen.add(file.absolute())
            if not _is_text(file):
                walk.unnameable.append(file)
                continue
            if file.suffix.lower().lstrip(".") not in {ending.lstrip(".") for ending in MEDIA_EXTENSIONS}:
                walk.ignored += 1
            elif within is not None and not lies_within(file, within):
                walk.outside.append(file)
            else:
                walk.media.append(file.absolute())
    return walk


def lies_within(path: Path | str, folders: Sequence[Path | str]) -> bool:
    """Whether a path lies in one of some folders, or is one, once all links of both are followed.

    What does not exist lies where it would be made. A path that no file system takes lies nowhere.
    """
    try:
        real = Path(os.path.realpath(path))
    except (ValueError, OSError):  # a zero byte, or a name too long
        return False
    return any(real.is_relative_to(os.path.realpath(folder)) for folder in folders)


def _files(folder: Path, home: Path | None, walk: Walk) -> Iterator[Path]:
    """Files below a folder in order of name, but for those of an installation; what cannot be read is noted."""
    for place, folders, files in os.walk(folder, onerror=lambda error: walk.note(error.filename, error)):
        here = Path(place)
        kept = [name for name in sorted(folders) if not _is_home(here / name, home)]
        folders[:] = kept
        yield from (here / name for name in sorted(files))


def _is_home(folder: Path, home: Path | None) -> bool:
    if home is not None and folder.resolve() == home.resolve():
        return True
    return any(all(os.path.exists(folder / name) for name in marks) for marks in HOME_MARKS)


def _is_text(path: Path) -> bool:
    """Whether a path can be written down: names from old disks may be in no known encoding."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(path: Path | str) -> str:
    """A path that can be printed, whatever bytes it consists of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
