"""The answers that the command line prints and the API returns: one shape for both, field for field.

Plain dataclasses; ``dataclasses.asdict`` of one is its JSON. Times are seconds, ``None`` for photos.
Scores are similarities (higher is nearer), probabilities lie in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class FoundHit:
    """One hit of ``find``: a face track or voice near the probe, or reached through an enrolled person.

    ``space`` says how it was found: in an identity space, in the ``shared`` space (a lead, never by itself a
    name), or over the ``bridge`` of somebody enrolled with both. ``score`` is a cosine; in the shared space that of the
    probe without the mean of its modality, where the encoder asks so. ``probability`` is None where the shared-space
    encoder is not calibrated for the comparison.
    """

    space: str
    modality: str
    media: str
    start: float | None
    end: float | None
    person: str | None
    score: float
    probability: float | None
    evidence: str


@dataclass(frozen=True)
class FindAnswer:
    """Hits, best first; a note where they are leads, or the question could only be answered in part."""

    hits: list[FoundHit]
    note: str | None = None


@dataclass(frozen=True)
class EvidenceKinds:
    """Probabilities by kind of evidence; None where there is none of that kind.

    ``voice`` is the turn's voice against the person's enrolled voices, ``face`` a face on screen against their
    enrolled faces. Where it was judged which face speaks, only a face that may be speaking is evidence, and ``face``
    is the probability that it is this person's *and* speaks.

    ``voice_to_face`` is the turn's voice against the person's enrolled faces in the shared space,
    ``face_to_voice`` the face on screen against their enrolled voices.
    """

    voice: float | None = None
    face: float | None = None
    voice_to_face: float | None = None
    face_to_voice: float | None = None


@dataclass(frozen=True)
class Candidate:
    """One enrolled person who may be the speaker of a turn."""

    name: str
    score: float
    probability: float
    evidence: EvidenceKinds


@dataclass(frozen=True)
class SpeakingFace:
    """The face that most likely speaks: number of its track in the file, and the probability that it does."""

    track: int
    probability: float


@dataclass(frozen=True)
class WhoTurn:
    """One speech turn: who it may be, best first, and the answer: a name or ``unknown``.

    ``speaker`` is None where the speaker is not seen; it and ``off_screen`` are None where that was not judged, as
    in sound without pictures. ``overlap`` lists the parts (start, end) during which somebody else speaks too.
    """

    start: float
    end: float
    people: list[Candidate]
    answer: str
    speaker: SpeakingFace | None = None
    off_screen: bool | None = None
    overlap: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class WhoAnswer:
    """Every speech turn of a file, in order of time."""

    turns: list[WhoTurn]


@dataclass(frozen=True)
class VerifyAnswer:
    """Whether two files show one person, by the operating threshold of their space; a note if it is a lead."""

    score: float
    probability: float
    same: bool
    threshold: float
    space: str
    note: str | None = None


@dataclass(frozen=True)
class MatchCandidate:
    """One candidate of a 1:N match."""

    path: str
    score: float
    probability: float


@dataclass(frozen=True)
class MatchAnswer:
    """Candidates in the order given, and the path of the nearest; a note if it is a lead."""

    candidates: list[MatchCandidate]
    answer: str
    note: str | None = None


@dataclass(frozen=True)
class Refusal:
    """A file that could not be used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class EnrolAnswer:
    """What enrolment took (paths) and refused; warnings are for people to read."""

    name: str
    added: list[str]
    refused: list[Refusal]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ForgetAnswer:
    """What was removed with a person.

    ``learned_by`` are the models whose weights were learned from them, among others, and still are: weights hold
    nobody's samples, but whoever wants nothing left trains those models anew and removes their folders.
    """

    name: str
    samples: int
    rows: int
    evidence: int
    learned_by: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PersonSummary:
    """One enrolled person."""

    id: str
    name: str
    faces: int
    voices: int
    created: str


@dataclass(frozen=True)
class PeopleAnswer:
    """Everyone enrolled, by name."""

    people: list[PersonSummary]


@dataclass(frozen=True)
class SpaceStatus:
    """Rows of one space as the index has them now, and the SHA-256 of their sorted keys."""

    rows: int
    keys_sha256: str


@dataclass(frozen=True)
class StatusAnswer:
    """What this installation holds."""

    spaces: dict[str, SpaceStatus]
    media: int
    failed: int
    people: int
    encoders: int


@dataclass(frozen=True)
class SweepAnswer:
    """What a sweep removed: files that are gone, media that no other file holds, their rows and evidence."""

    files: int
    media: int
    rows: int
    evidence: int
