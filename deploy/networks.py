"""The table of networks and detectors, as ``visavox models`` lists, pulls and verifies it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.models import ENCODERS, LEAST_GOLDEN_COSINE
from deploy.settings import Settings
from encoders import face, voice
from encoders.downloading import FetchRules, Progress
from encoders.encoder import Encoder, EncoderError, packaged_encoders
from encoders.fetching import fetch_row, fetched_paths, forget_fetched, read_lock, verify_fetched
from encoders.folder import DESCRIPTION_FILE
from encoders.pulling import ForeignWeights, make_encoder
from encoders.space import Modality
from encoders.weights import HubFile, NetworkRow, PackagedFile, UrlFile, WeightsError, packaged_path

WEIGHTS = "weights"
"""Folder of the home for fetched weights."""


@dataclass(frozen=True)
class Network:
    """A row of the tables as it is listed.

    Args:
        name: what folders and settings call it.
        modality: face or voice.
        kind: ``network`` or ``detector``.
        dimension: components of a vector; 0 for a detector.
        trained_on: what and whom it was trained on.
        input: what it expects.
        licence: of the weights; "" where there are none.
        sources: where each file comes from, with its revision and SHA-256 as far as they are known.
        state: ``packaged``: comes with Visavox; ``pulled``; ``not_pulled``; ``trained_here``: has no public weights.
    """

    name: str
    modality: str
    kind: str
    dimension: int
    trained_on: str
    input: str
    licence: str
    sources: Sequence[Mapping[str, str | None]]
    state: str

    @property
    def pulled(self) -> bool:
        """Whether its weights are on this machine."""
        return self.state in ("packaged", "pulled")


@dataclass(frozen=True)
class Pulled:
    """What ``pull`` did for one network.

    Args:
        name: of its row.
        files: where its weight files are.
        fetched: how many of them were fetched just now.
        encoder: the encoder folder of a network that gives vectors.
    """

    name: str
    files: Sequence[str]
    fetched: int
    encoder: str | None


@dataclass(frozen=True)
class Verified:
    """What ``verify`` found of one thing.

    Args:
        name: of the row, or of the encoder folder.
        kind: ``packaged``, ``fetched`` or ``encoder``.
        problem: what is wrong; None where nothing is.
        cosine: least one of an encoder's golden vectors.
    """

    name: str
    kind: str
    problem: str | None = None
    cosine: float | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem is None


def list_networks(settings: Settings) -> list[Network]:
    """All rows of the tables, detectors last. Raises WeightsError (a damaged lock file)."""
    return [_listed(row, modality, kind, settings.home / WEIGHTS) for row, modality, kind in _rows()]


def find_network(name: str) -> tuple[NetworkRow, Modality, str]:
    """A row with its modality and kind. Raises ValueError naming those there are."""
    for row, modality, kind in _rows():
        if row.name == name:
            return row, modality, kind
    raise ValueError(f"there is no network {name!r}; choose one of: {', '.join(row.name for row, _, _ in _rows())}")


def fetch_rules(settings: Settings, on_progress: Progress) -> FetchRules:
    """How an installation may fetch files."""
    return FetchRules(offline=settings.offline, hub=settings.hub_url, on_progress=on_progress)


def pull(name: str, settings: Settings, rules: FetchRules, origin: str | None = None) -> Pulled:
    """Fetch a network's weights, check them, and make its encoder folder if it gives vectors.

    Args:
        name: of a row.
        settings: of the installation.
        rules: how files may be fetched.
        origin: as for :func:`encoders.fetching.fetch_row`.

    Raises:
        ValueError: there is no such row.
        WeightsError: a file cannot be had, or is another one.
        EncoderError: the files are no weights of this network.
    """
    row, modality, kind = find_network(name)
    if row.files and not row.sources:
        return Pulled(name, [str(packaged_path(file)) for file in row.files], 0, None)
    fetched = fetch_row(row, settings.home / WEIGHTS, rules, origin)
    try:
        encoder = make_encoder(row, modality, fetched, settings.home / ENCODERS) if kind == "network" else None
    except ForeignWeights:
        if any(one.pinned for one in fetched):  # or the right file would be refused for ever after
            forget_fetched(row, settings.home / WEIGHTS)
        raise
    return Pulled(
        name, [str(one.path) for one in fetched], sum(one.fetched for one in fetched), str(encoder) if encoder else None
    )


def known_names(settings: Settings) -> list[str]:
    """What ``verify`` can be asked for: rows and encoder folders."""
    return list(dict.fromkeys([*(row.name for row, _, _ in _rows()), *_encoder_folders(settings)]))


def verify(settings: Settings, names: Sequence[str] = ()) -> Iterator[Verified]:
    """Check packaged files, fetched files and encoder folders anew, their golden vectors included.

    Args:
        settings: of the installation.
        names: rows and encoder folders, of :func:`known_names`; none: all that are here.

    Raises:
        WeightsError: the lock file cannot be read.
    """
    home = settings.home / WEIGHTS
    pulled = {key.partition("/")[0] for key in read_lock(home)}
    folders = _encoder_folders(settings)
    for row, _, _ in _rows():
        if names and row.name not in names:
            continue
        for file in row.files:
            yield Verified(row.name, "packaged", _packaged_problem(file))
        if row.sources and row.name in pulled:
            for problem in verify_fetched(home, row.name).values():
                yield Verified(row.name, "fetched", problem)
        elif names and row.sources:
            yield Verified(row.name, "fetched", f"{row.name} has not been pulled: visavox models pull {row.name}")
        elif names and not row.files and row.name not in folders:
            yield Verified(row.name, "fetched", f"{row.name} has no public weights: {row.trained_on}")
    for name, folder in folders.items():
        if not names or name in names:
            yield _verified_encoder(name, folder)


def _rows() -> Iterator[tuple[NetworkRow, Modality, str]]:
    for modality, room in ((Modality.FACE, face), (Modality.VOICE, voice)):
        for row in room.BACKBONES:
            yield row, modality, "network"
    for modality, room in ((Modality.FACE, face), (Modality.VOICE, voice)):
        for row in room.DETECTORS:
            yield row, modality, "detector"


def _listed(row: NetworkRow, modality: Modality, kind: str, home: Path) -> Network:
    locked = read_lock(home)
    if row.files:
        state = "packaged"
    elif not row.sources:
        state = "trained_here"
    else:
        state = "not_pulled" if fetched_paths(row, home) is None else "pulled"
    sources: list[Mapping[str, str | None]] = []
    for file in (*row.files, *row.sources):
        told = _source(file)
        entry = locked.get(f"{row.name}/{Path(str(told['source'])).name}")
        pinned = {"revision": entry.revision or told["revision"], "sha256": entry.sha256} if entry else {}
        sources.append({**told, **pinned})
    licences = dict.fromkeys(file.licence for file in (*row.files, *row.sources))
    return Network(
        name=row.name, modality=modality.value, kind=kind, dimension=row.dimension, trained_on=row.trained_on,
        input=row.input_contract, licence=", ".join(licences), sources=sources, state=state,
    )  # fmt: skip


def _source(file: PackagedFile | HubFile | UrlFile) -> dict[str, str | None]:
    if isinstance(file, PackagedFile):
        return {"source": f"{file.distribution}/{file.file}", "revision": file.version, "sha256": file.sha256}
    if isinstance(file, HubFile):
        return {"source": f"{file.repository}/{file.file}", "revision": file.revision, "sha256": file.sha256}
    return {"source": file.url, "revision": None, "sha256": file.sha256}


def _encoder_folders(settings: Settings) -> dict[str, Path]:
    own = sorted(path.parent for path in (settings.home / ENCODERS).glob(f"[!.]*/{DESCRIPTION_FILE}"))
    return {**packaged_encoders(), **{folder.name: folder for folder in own}}


def _packaged_problem(file: PackagedFile) -> str | None:
    try:
        packaged_path(file)
    except WeightsError as error:
        return str(error)
    return None


def _verified_encoder(name: str, folder: Path) -> Verified:
    try:
        cosine = Encoder.load(folder).verify_golden()
    except EncoderError as error:
        return Verified(name, "encoder", str(error))
    # not (cosine >= …), so that NaN is a problem
    if not cosine >= LEAST_GOLDEN_COSINE:
        told = (
            f"{folder}: its golden samples come out at cosine {cosine:.4f}, below {LEAST_GOLDEN_COSINE}; make it anew"
        )
        return Verified(name, "encoder", told, cosine)
    return Verified(name, "encoder", None, cosine)
