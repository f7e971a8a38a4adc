"""Lists that come with corpora: who is for what, who is a woman or a man, which clips are kept for testing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.corpora.manifest import CorpusError, Split

SPLITS_FILE = Path("Splits", "identity_splits.txt")
META_FILES = ("meta.csv", "vox1_meta.csv")
# How the lists of clips of training people that are kept for testing are called.
SEEN_HEARD = "*_seenheard*"
LISTS = ("veriflist", "matching", "retrieval")
# What the population writes where others have a country.
_NO_COUNTRY = "invented"


@dataclass(frozen=True)
class Person:
    """A row of the meta file.

    Args:
        identity: the name, as VGGFace writes it.
        number: the VoxCeleb1 id, such as ``id10001``.
        sex: ``f`` or ``m``.
        nationality: empty where there is none.
    """

    identity: str
    number: str
    sex: str
    nationality: str = ""


def read_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """The lines of a list that are not empty, numbered from 1. Raises CorpusError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read ({error}): it should say {what}") from error
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def read_splits(path: Path) -> dict[str, Split]:
    """The code of every identity. Raises CorpusError with the line."""
    codes: dict[str, Split] = {}
    for number, line in read_lines(path, "who is for training, validation and test"):
        parts = line.split()
        if len(parts) != 2 or parts[1] not in {str(one.value) for one in Split}:
            raise CorpusError(f"{path}, line {number}: expected `<identity> 1`, 2 or 4, got {line.strip()!r}")
        name, code = parts[0], Split(int(parts[1]))
        if codes.setdefault(name, code) is not code:
            raise CorpusError(f"{path}, line {number}: {name} is in {codes[name].name} and in {code.name}: keep one")
    return codes


def read_meta(folder: Path) -> dict[str, Person]:
    """Everybody of the meta file by identity. Raises CorpusError with the line."""
    path = next((folder / name for name in META_FILES if (folder / name).is_file()), folder / META_FILES[0])
    people: dict[str, Person] = {}
    numbers: dict[str, str] = {}
    for number, line in read_lines(path, "everybody's sex")[1:]:
        parts = [part.strip() for part in line.split("\t")]
        if len(parts) < 3 or parts[2] not in ("f", "m"):
            raise CorpusError(f"{path}, line {number}: expected tab-separated ids and f or m, got {line!r}")
        country = parts[3] if len(parts) > 3 and parts[3] != _NO_COUNTRY else ""
        if numbers.setdefault(parts[0], parts[1]) != parts[1]:
            raise CorpusError(f"{path}, line {number}: {parts[0]} is {numbers[parts[0]]} and {parts[1]}: keep one")
        people[parts[1]] = Person(parts[1], parts[0], parts[2], country)
    return people


def read_known(folder: Path) -> dict[str, Person]:
    """Everybody of the meta file, by either name; nobody where there is none."""
    if not any((folder / name).is_file() for name in META_FILES):
        return {}
    people = read_meta(folder)
    return {one.number: one for one in people.values()} | people


def listed_names(folder: Path, pattern: str) -> set[str]:
    """Every path that the lists of a pattern name; numbers, labels and headers among them are no paths."""
    names: set[str] = set()
    for path in sorted(path for name in LISTS for path in (folder / name).glob(pattern)):
        for _, line in read_lines(path, "which clips are compared"):
            names.update(name for name in line.replace(",", " ").split() if "/" in name)
    return names
