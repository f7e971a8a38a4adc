"""A world small enough to compute by hand: a "face" is its mean colour, a "voice" the shape of its spectrum in 8 bands.

The encoders are real in every way that archive and engine can see, and their vectors can be worked out on paper,
so that these tests are about writing and ranking, not about networks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from encoders.encoder import Unusable, UnusableReason
from encoders.face import FaceCrop
from encoders.probe_centres import ProbeCentres
from encoders.space import Embedding, Modality, Space
from encoders.voice import SAMPLE_RATE
from ingest.ledger import Ledger, open_database
from ingest.media import MediaError
from ingest.track import Extraction, FaceShot, FaceTrack, Span, Speaking, SpeechTurn, media_id
from search.archive import Archive, Records
from search.domains import Domains
from search.engine import Engine
from search.evidence import Evidence
from search.people import People
from search.probes import Prober
from search.store import MemoryStore, Store

CALIBRATION = {
    purpose: {kind: {"threshold": 0.9, "slope": 40.0} for kind in ("cosine", "euclidean", "correlation")}
    for purpose in ("identify", "verify")
}


@dataclass
class ColourFaces:
    """A face's point is its mean colour."""

    space: Space = field(default_factory=lambda: Space("face_identity", 3, "f" * 64))
    modalities: frozenset[Modality] = frozenset({Modality.FACE})
    calibration: Any = field(default_factory=lambda: {"face-face": CALIBRATION})
    domain: str = "small world"
    trained_on: str = "nobody"

    def encode(self, modality: Modality, samples: Sequence[FaceCrop]) -> list[Embedding | Unusable]:
        return [Embedding.of(self.space, modality, one.pixels.reshape(-1, 3).mean(axis=0)) for one in samples]


@dataclass
class BandVoices:
    """A voice's point is its energy in 8 bands; under a tenth of a second it says too little."""

    space: Space = field(default_factory=lambda: Space("voice_identity", 8, "a" * 64))
    modalities: frozenset[Modality] = frozenset({Modality.VOICE})
    calibration: Any = field(default_factory=lambda: {"voice-voice": CALIBRATION})
    domain: str = "small world"
    trained_on: str = "nobody"

    def encode(self, modality: Modality, samples: Sequence[Any]) -> list[Embedding | Unusable]:
        return [self._one(modality, sample) for sample in samples]

    def _one(self, modality: Modality, sound: Any) -> Embedding | Unusable:
        if len(sound) < SAMPLE_RATE // 10:
            return Unusable(UnusableReason.TOO_SHORT, "too short")
        bands = np.array_split(np.abs(np.fft.rfft(sound)), 8)
        return Embedding.of(self.space, modality, np.array([band.sum() for band in bands]))


@dataclass
class ColoursAndTones:
    """A shared space: a face is its mean colour, a voice its energy below 2.7 kHz, below 5.3 kHz and above.

    So a red face and a low voice are near (bands 0 to 2 of ``turn``), and a blue face and a high one (5 to 7).

    Args:
        digest: one hexadecimal digit, which tells one model from another.
        calibrated_on: the domain that its calibration was made on; None: it has no calibration.
        order: which colour goes to which component; another one is another model.
        probe_centres: what probes are asked without.
    """

    digest: str = "5"
    calibrated_on: str | None = "elsewhere"
    order: tuple[int, int, int] = (0, 1, 2)
    modalities: frozenset[Modality] = frozenset(Modality)
    domain: str = "invented colours"
    trained_on: str = "three crayons and a whistle"
    probe_centres: ProbeCentres = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.space = Space("shared", 3, self.digest * 64)
        numbers: dict[str, Any] = {"face-voice": CALIBRATION, "provenance": {"domain": self.calibrated_on}}
        for one in self.probe_centres:
            numbers[f"{one}-to-{one.other}"] = {"find": {"cosine": {"threshold": 0.5, "slope": 4.0}}}
        self.calibration: Any = numbers if self.calibrated_on else None

    def encode(self, modality: Modality, samples: Sequence[Any]) -> list[Embedding | Unusable]:
        return [self._one(modality, sample) for sample in samples]

    def _one(self, modality: Modality, sample: Any) -> Embedding | Unusable:
        if modality is Modality.FACE:
            return Embedding.of(self.space, modality, sample.pixels.reshape(-1, 3).mean(axis=0)[list(self.order)])
        if len(sample) < SAMPLE_RATE // 10:
            return Unusable(UnusableReason.TOO_SHORT, "too short")
        bands = np.array_split(np.abs(np.fft.rfft(sample)), 3)
        return Embedding.of(self.space, modality, np.array([band.sum() for band in bands]))


def face(colour: tuple[int, int, int], index: int = 0, area: float = 100.0, span: Span | None = None) -> FaceTrack:
    """A face of one colour; a track when it has a span, else a photo's."""
    pixels = np.full((16, 16, 3), colour, dtype=np.uint8)
    shot = FaceShot(span.start if span else None, pixels, np.zeros((5, 2), np.float32), (0, 0, 16, 16), 0.9)
    return FaceTrack(index, span, (shot,), area, (span,) if span else ())


def turn(band: int, start: float = 0.0, end: float = 1.0, speaker: int = 0) -> SpeechTurn:
    """A tone in the middle of one of the 8 bands."""
    time = np.arange(round((end - start) * SAMPLE_RATE)) / SAMPLE_RATE
    sound = 0.5 * np.sin(2 * np.pi * (500 + 1000 * band) * time)
    return SpeechTurn(Span(start, end), speaker, sound.astype(np.float32))


def blend(strong: int, weak: int, share: float, start: float = 0.0, end: float = 1.0) -> SpeechTurn:
    """A tone in one band with a share of another's: its cosine to the weak one alone is about the share."""
    first, second = turn(strong, start, end), turn(weak, start, end)
    return SpeechTurn(first.span, 0, (0.7 * first.waveform + 0.7 * share * second.waveform).astype(np.float32))


@dataclass
class World:
    """Files whose content is decided by the test, and an installation that reads them.

    Args:
        folder: for files, records and evidence.
        store: the index.
        shared: the shared-space encoder, if one serves.
        database_url: of the records; "" for SQLite in the folder.
    """

    folder: Path
    store: Store = field(default_factory=MemoryStore)
    shared: ColoursAndTones | None = None
    found: dict[str, tuple[list[FaceTrack], list[SpeechTurn]]] = field(default_factory=dict)
    database_url: str = ""

    def __post_init__(self) -> None:
        self.read: list[str] = []
        self.paired: dict[str, tuple[Speaking, ...]] = {}
        self.evidence = self.folder / "evidence"
        self.database = open_database(self.database_url or f"sqlite:///{self.folder / 'records.sqlite'}")
        self.records = Records(Ledger(self.database), People(self.database), Evidence(self.evidence))
        self.serve(self.shared)
        self.archive.mend()

    def serve(self, shared: ColoursAndTones | None) -> None:
        """Make another shared-space encoder, or none, the one that serves; nothing is mended yet."""
        self.encoders: dict[str, Any] = {"face_identity": ColourFaces(), "voice_identity": BandVoices()}
        if shared:
            self.encoders["shared"] = shared
        self.archive = Archive(self.extract, "s" * 64, self.encoders, self.store, self.records)
        self.domains = Domains(self.database, self.records.ledger)
        people = self.records.people
        self.prober = Prober(self.extract, self.encoders, self.store, people, self.domains.of)
        self.engine = Engine(self.prober, self.encoders, self.store)

    def file(
        self,
        name: str,
        faces: Sequence[FaceTrack] = (),
        turns: Sequence[SpeechTurn] = (),
        speaking: Sequence[Speaking] = (),
    ) -> Path:
        """A file with these faces and turns in it, and what was judged of who speaks."""
        path = self.folder / name
        path.write_bytes(name.encode())
        media = hashlib.sha256(name.encode()).hexdigest()
        self.found[media], self.paired[media] = (list(faces), list(turns)), tuple(speaking)
        return path

    def broken(self, name: str) -> Path:
        """A file that cannot be read."""
        path = self.folder / name
        path.write_bytes(name.encode())
        return path

    def extract(self, path: Path) -> Extraction:
        """Read a file of this world; raises MediaError for a broken one."""
        self.read.append(path.name)
        media = media_id(path)
        if media not in self.found:
            raise MediaError(path, "corrupt: nothing decodes")
        faces, turns = self.found[media]
        return Extraction(media, "film", 10.0, tuple(faces), tuple(turns), (), self.paired.get(media, ()))

    def evidence_files(self) -> int:
        """Pieces of evidence on disk."""
        return sum(1 for path in self.evidence.rglob("*") if path.is_file()) if self.evidence.exists() else 0

    def keys(self) -> dict[str, str]:
        """Digest of keys by space."""
        return {name: space.keys_sha256 for name, space in self.archive.status().spaces.items()}


Make = Callable[..., World]
