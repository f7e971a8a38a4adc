"""From a file to points, and from a point to the enrolled people near it.

A face and a voice each have a point in the identity space of their modality and, where a shared-space
encoder serves, a second one in the shared space, in which faces and voices can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from encoders.encoder import Encoder, Unusable
from encoders.face import FaceCrop
from encoders.space import Embedding, Modality, Space
from ingest.samples import stored_face, stored_voice
from ingest.track import Extraction, FaceTrack, SpeechTurn
from search.archive import largest_face, longest_speaker
from search.gallery import likeness
from search.people import People
from search.scores import Calibration, Purpose, Similarity, calibration_for, pooled, similarity
from search.store import SHARED, Filter, Row, Store

# Rows are grouped to tracks and people after the search, so more rows are asked for than hits wanted.
OVERFETCH = 8
# People whose likeness to each other is looked at; more would only tell it more exactly.
MOST_LIKENED = 100
# People looked at more closely, with all of their samples, when a probe asks for names.
SHORTLIST = 20


class ProbeUnusable(ValueError):
    """A probe file could be read, but shows or holds nothing that can be asked with."""


@dataclass(frozen=True, eq=False)
class Probe:
    """What a file can be asked with: one point per modality, None where it shows none.

    Args:
        path: the file.
        face: its largest face in ``face_identity``.
        voice: its longest speaker in ``voice_identity``.
        shared: the same face and voice in the shared space; empty where no shared-space encoder serves.
    """

    path: Path
    face: Embedding | None
    voice: Embedding | None
    shared: Mapping[Modality, Embedding] = field(default_factory=dict)

    def of(self, modality: Modality) -> Embedding | None:
        """The point of one modality in its identity space."""
        return self.face if modality is Modality.FACE else self.voice


@dataclass(frozen=True)
class PersonScore:
    """How near a probe is to an enrolled person: cosine to the mean of their samples."""

    person: str
    score: float
    log_odds: float


class Prober:
    """Reads probes and names the enrolled people near them.

    Args:
        extract: reads a file into tracks; raises MediaError.
        encoders: serving encoders by the name of their space.
        store: the index.
        people: names of the enrolled.
        own_domains: the domains of this installation's own people that a question about a medium is of.
    """

    def __init__(
        self,
        extract: Callable[[Path], Extraction],
        encoders: Mapping[str, Encoder],
        store: Store,
        people: People,
        own_domains: Callable[[str], Collection[str]] = lambda _media: (),
    ) -> None:
        self._extract = extract
        self._encoders = encoders
        self._store = store
        self._people = people
        self._own_domains = own_domains

    def probe(self, path: Path) -> Probe:
        """Read a file and encode its largest face and its longest-speaking voice.

        Raises:
            MediaError: unreadable. ProbeUnusable: neither face nor speech that an encoder can use.
        """
        extraction = self._extract(path)
        face, turns = largest_face(extraction.faces), longest_speaker(extraction.turns)
        shared: dict[Modality, Embedding] = {}
        if self.shared and face and (point := self.embed_face(face, SHARED)):
            shared[Modality.FACE] = point
        if self.shared and turns and (point := self.embed_turns(turns, SHARED)):
            shared[Modality.VOICE] = point
        probe = Probe(path, self.embed_face(face) if face else None, self.embed_turns(turns) if turns else None, shared)
        if probe.face is None and probe.voice is None and not shared:
            raise ProbeUnusable(f"{path}: shows no usable face and holds no usable speech: choose another file")
        return probe

    @property
    def shared(self) -> Encoder | None:
        """The shared-space encoder that serves, or None."""
        return self._encoders.get(SHARED)

    def embed_face(self, face: FaceTrack, space: str = "") -> Embedding | None:
        """One point for a face track: the mean of its looks, weighted by quality.

        Args:
            face: the track.
            space: name of the space of the point, the identity space of faces by default.
        """
        crops = [stored_face(FaceCrop(shot.pixels, shot.landmarks)) for shot in face.shots]
        outcomes = self._encoder(space, Modality.FACE).encode(Modality.FACE, crops)
        return _pool(outcomes, [max(shot.quality, 1e-3) for shot in face.shots])

    def embed_turns(self, turns: Sequence[SpeechTurn], space: str = "") -> Embedding | None:
        """One point for a speaker's turns: their mean, weighted by duration; ``space`` as in ``embed_face``."""
        sounds = [stored_voice(turn.waveform) for turn in turns]
        outcomes = self._encoder(space, Modality.VOICE).encode(Modality.VOICE, sounds)
        return _pool(outcomes, [max(turn.span.duration, 1e-3) for turn in turns])

    def shortlist(
        self,
        probe: Embedding,
        also: Collection[str] = (),
        want: Modality | None = None,
        among: Enrolled | None = None,
    ) -> list[PersonScore]:
        """Enrolled people nearest to a probe, best first: cosine to the mean of all of their samples.

        Args:
            probe: what to compare with.
            also: ids of people to judge however far they are.
            want: modality of the samples; the probe's own by default, the other one in the shared space only.
            among: all who are enrolled, where the probe is asked of everybody: the more they are, the nearer it must
                be to one of them. None where two files are compared with each other, if only through the enrolled.

        Raises:
            NotCalibrated: somebody is near, and the encoder has no calibration for this comparison.
        """
        want = want or probe.modality
        (hits,) = self._store.search([probe], SHORTLIST * OVERFETCH, want=want, where=Filter(enrolled=True))
        names = self._people.names({hit.row.person for hit in hits}.union(also))
        near = list(dict.fromkeys(hit.row.person for hit in hits if hit.row.person in names))[:SHORTLIST]
        near = list(dict.fromkeys([*near, *(person for person in also if person in names)]))
        if not near:
            return []
        pair = (probe.modality, want)
        space = probe.space
        calibration = among.calibration(space, pair) if among else self.calibration(space.name, pair, Purpose.IDENTIFY)
        return ranked(probe, self.centres(probe.space, near, want), calibration)

    def centres(self, space: Space, people: Collection[str], modality: Modality) -> dict[str, Embedding]:
        """The mean of each person's samples of one modality in a space; who has none is left out.

        Args:
            space: where to look.
            people: ids.
            modality: of the samples.
        """
        samples: dict[str, list[Row]] = {person: [] for person in people}
        for row in self._store.rows(space, Filter(persons=tuple(samples))) if samples else ():
            if row.embedding.modality is modality:
                samples[row.person].append(row)
        return {person: centre(rows) for person, rows in samples.items() if rows}

    def compare(
        self, points: Mapping[int, Embedding], people: Collection[str], want: Modality, among: Enrolled
    ) -> dict[int, dict[str, PersonScore]]:
        """Points of one space and modality against the samples of some people, however far they are.

        Args:
            points: what to compare, by any number.
            people: ids; who has no such samples is left out.
            want: modality of the samples.
            among: all who are enrolled.

        Returns:
            By the number of the point, the people best first, by id.
        """
        if not points or not people:
            return {}
        first = next(iter(points.values()))
        centres = self.centres(first.space, people, want)
        calibration = among.calibration(first.space, (first.modality, want))
        near = {number: ranked(point, centres, calibration) for number, point in points.items()}
        return {number: {one.person: one for one in scores} for number, scores in near.items()}

    def calibration(
        self,
        space: str,
        pair: tuple[Modality, Modality],
        purpose: Purpose,
        kind: Similarity = Similarity.COSINE,
    ) -> Calibration:
        """The calibration of comparisons between two modalities of a space. Raises NotCalibrated."""
        return calibration_for(self._encoders[space].calibration, pair, purpose, kind, space=space)

    def enrolled(self) -> Enrolled:
        """Everybody who is enrolled, as one question sees them."""
        return Enrolled(self, self._people)

    def domains(self) -> set[str]:
        """Whom the identity encoders are for: one domain unless encoders of different domains serve together."""
        return {encoder.domain for name, encoder in self._encoders.items() if name != SHARED}

    def asked_about(self, domain: str, media: str) -> bool:
        """Whether a question about a medium is one about people of a domain."""
        return self.domains() == {domain} or domain in self._own_domains(media)

    def names(self, among: Collection[str] | None = None) -> dict[str, str]:
        """Names of the enrolled by id; of those only whose ids are given, if they are."""
        return self._people.names(among)

    def extract(self, path: Path) -> Extraction:
        """Read a file into tracks. Raises MediaError."""
        return self._extract(path)

    def encoder_for(self, modality: Modality) -> Encoder:
        """The identity encoder of a modality. Raises ProbeUnusable if none is installed."""
        return self._encoder("", modality)

    def _encoder(self, space: str, modality: Modality) -> Encoder:
        name = space or f"{modality}_identity"
        if name not in self._encoders:
            raise ProbeUnusable(f"no {name} encoder is installed")
        return self._encoders[name]


class Enrolled:
    """Everybody who is enrolled, as one question sees them: to be named among them, a probe must come nearer than
    to one person alone, and nearer still if they are much alike. Each is looked up once, when first asked for.

    Args:
        prober: knows the samples and the calibrations.
        people: the enrolled.
    """

    def __init__(self, prober: Prober, people: People) -> None:
        self._prober = prober
        self._people = people
        self._known: dict[tuple[str, tuple[Modality, Modality]], Calibration] = {}

    def calibration(self, space: Space, pair: tuple[Modality, Modality]) -> Calibration:
        """The calibration to name somebody with among all of them.

        Args:
            space: where they are compared.
            pair: modality of the probe, and of the enrolled samples.

        Raises:
            NotCalibrated: the space has none for this.
        """
        key = (space.digest, pair)
        if key not in self._known:
            alone = self._prober.calibration(space.name, pair, Purpose.IDENTIFY)
            self._known[key] = alone if alone.gallery is None else self._among(alone, space, pair[1])
        return self._known[key]

    def _among(self, alone: Calibration, space: Space, want: Modality) -> Calibration:
        people = sorted({person for sample, person in self._people.samples() if sample.modality == want})
        if alone.gallery is None or alone.gallery.likeness is None:
            return alone.among(len(people))
        # ids are drawn at random, so the first of them are a fair sample
        centres = self._prober.centres(space, people[:MOST_LIKENED], want).values()
        alike = likeness(np.stack([point.vector for point in centres])) if centres else None
        return alone.among(len(people), alike)


def _pool(outcomes: Sequence[Embedding | Unusable], weights: Sequence[float]) -> Embedding | None:
    usable = [(one, weight) for one, weight in zip(outcomes, weights, strict=True) if isinstance(one, Embedding)]
    return pooled([one for one, _ in usable], [weight for _, weight in usable]) if usable else None


def centre(rows: Sequence[Row]) -> Embedding:
    """One point for many rows of one person: their mean, weighted by quality."""
    return pooled([row.embedding for row in rows], [max(row.quality, 1e-3) for row in rows])


def ranked(probe: Embedding, centres: Mapping[str, Embedding], calibration: Calibration) -> list[PersonScore]:
    """People by the cosine of a probe to their centres, best first, equal ones by id."""
    scores = {person: similarity(probe, point) for person, point in centres.items()}
    scored = [PersonScore(person, score, calibration.log_odds(score)) for person, score in scores.items()]
    return sorted(scored, key=lambda one: (-one.score, one.person))
