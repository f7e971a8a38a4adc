"""Folders of lists as files: lines, cells and tables, read once, checked, and remembered for their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path

from ingest.walk import OUTSIDE, lies_within


class ProtocolError(ValueError):
    """A protocol folder cannot be used; the message names the file, the line and what is wrong.

    Args:
        path: the file or folder.
        reason: what is wrong and what to do, a sentence for people.
        line: counted from 1; None where it is not about a line.
    """

    def __init__(self, path: Path, reason: str, line: int | None = None) -> None:
        super().__init__(f"{path}{'' if line is None else f', line {line}'}: {reason}")
        self.path = path
        self.reason = reason
        self.line = line


def refuse_outside(path: Path, within: Sequence[str] | None) -> None:
    """Raise ProtocolError if a path lies in none of some folders, links followed; None: it may lie anywhere."""
    if within is not None and not lies_within(path, within):
        raise ProtocolError(path, OUTSIDE)


class ListFolder:
    """A folder of lists; remembers the bytes of what was read.

    Args:
        folder: where the lists are.
        within: folders that no list may lie outside of, links followed; None: wherever it lies.
    """

    def __init__(self, folder: Path, within: Sequence[str] | None = None) -> None:
        self.folder = folder
        self._within = within
        self._hashes: list[str] = []

    @property
    def digest(self) -> str:
        """SHA-256 of the SHA-256 of every list read so far, in the order in which they were read."""
        return hashlib.sha256("\n".join(self._hashes).encode()).hexdigest()

    def one_of(self, names: Sequence[str]) -> Path:
        """The first of these files that is there. Raises ProtocolError."""
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
        raise ProtocolError(self.folder, f"holds neither {' nor '.join(names)}: it is no protocol folder")

    def text(self, path: Path) -> str:
        """A list's content. Raises ProtocolError where it cannot be read."""
        refuse_outside(path, self._within)
        try:
            content = path.read_bytes()
            text = content.decode("utf-8-sig")
        except OSError as error:
            raise ProtocolError(path, f"cannot be read ({error.strerror}): the protocol is incomplete") from error
        except UnicodeDecodeError as error:
            raise ProtocolError(path, f"is not text in UTF-8 ({error})") from error
        self._hashes.append(hashlib.sha256(content).hexdigest())
        return text

    def lines(self, path: Path) -> Iterator[tuple[int, str]]:
        """Lines with their numbers, without empty ones."""
        return _numbered(self.text(path))

    def columns(self, path: Path, separator: str, headers: Sequence[tuple[str, ...]]) -> list[Sequence[str]]:
        """The columns of a table, row i of each on line i + 2: as :meth:`table`, many times as fast."""
        text = self.text(path)
        first, *body = text.splitlines() or [""]
        header = tuple(first.split(separator))
        flat = even_cells(body, separator, len(header)) if header in headers else None
        if flat is None:
            rows = [cells for _, cells in _rows(path, _numbered(text), separator, headers)]
            return list(zip(*rows, strict=True))
        return [flat[place :: len(header)] for place in range(len(header))]

    def table(
        self, path: Path, separator: str, headers: Sequence[tuple[str, ...]]
    ) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Rows below a header that must be one of ``headers``. Raises ProtocolError."""
        return _rows(path, self.lines(path), separator, headers)


def cells(path: Path, number: int, line: str, separator: str, count: int) -> tuple[str, ...]:
    """The cells of a line, all of them filled. Raises ProtocolError."""
    found = tuple(cell.strip() for cell in line.split(separator))
    if len(found) != count or not all(found):
        name = {" ": "space", "\t": "tab", ",": "comma"}[separator]
        raise ProtocolError(path, f"needs {count} cells separated by {name}, got {line!r}", number)
    return found


def even_cells(lines: Sequence[str], separator: str, count: int) -> list[str] | None:
    """The cells of many lines, one line after the other.

    None unless each line plainly holds ``count`` filled cells, and no blank but those that separate.
    """
    if set(map(str.count, lines, repeat(separator))) != {count - 1}:
        return None
    joined = separator.join(lines)
    flat = joined.split(separator)
    plain = joined.split() == (flat if separator.isspace() else [joined])
    return flat if plain and "" not in flat else None


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip(" ")


def _rows(
    path: Path, lines: Iterator[tuple[int, str]], separator: str, headers: Sequence[tuple[str, ...]]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    number, line = next(lines, (1, ""))
    header = tuple(cell.strip() for cell in line.split(separator))
    if header not in headers:
        known = " or ".join(repr(separator.join(one)) for one in headers)
        raise ProtocolError(path, f"begins with {line!r} instead of the header {known}", number)
    for number, line in lines:
        yield number, cells(path, number, line, separator, len(header))
