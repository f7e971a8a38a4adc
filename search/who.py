"""Who speaks when: speech turns by voice, with the faces on screen and the shared space as further evidence.

Evidence is fused as log-odds. The voice decides; a face that is on screen while somebody speaks says
less, since the speaker may be off screen, so its weight is bounded both ways. What a voice tells of a
face, and a face of a voice, says less again: it is reported always, has weight only where the
shared-space encoder was calibrated on people of the domain that is asked about, and is never by itself
a name.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from encoders.space import Embedding, Modality
from ingest.track import Extraction, FaceTrack, Span, SpeechTurn
from search.answers import Candidate, EvidenceKinds, WhoAnswer, WhoTurn
from search.people import UNKNOWN
from search.probes import PersonScore, Prober, ranked
from search.scores import Calibration, NotCalibrated, Purpose, probability_of
from search.store import SHARED

# A face must be on screen for this share of a turn to be evidence about it.
LEAST_ON_SCREEN = 0.3
# What a recognised face on screen can add to a voice: odds of about 4 to 1, no more.
MOST_FACE_LOG_ODDS = 1.4
# What voice_to_face and face_to_voice can add, both together. Who is neither heard nor seen keeps odds of
# 1 to 4 at best, however well a voice fits their face.
MOST_SHARED_LOG_ODDS = 1.4
# Candidates reported per turn.
MOST_CANDIDATES = 5


@dataclass(frozen=True)
class _Shown:
    """A face track that is on screen for some of a turn: its place in the extraction, and its share of the turn."""

    track: int
    share: float


@dataclass(frozen=True)
class _Faces:
    """The faces on screen during a turn, and the enrolled people recognised among them."""

    people: Mapping[str, tuple[PersonScore, float]]  # with the share of the turn that they are on screen
    shown: Sequence[_Shown]

    @property
    def on_screen(self) -> int:
        return len(self.shown)


@dataclass(frozen=True)
class _Lead:
    """What the shared space says of a person during a turn; None where it says nothing.

    Args:
        voice_to_face: the voice that speaks against their enrolled faces.
        face_to_voice: the face on screen that fits their enrolled voices best.
        share: of the turn that this face is on screen, divided among all faces on screen.
    """

    voice_to_face: PersonScore | None = None
    face_to_voice: PersonScore | None = None
    share: float = 0.0

    @property
    def log_odds(self) -> float:
        """What it adds to other evidence: nothing or more, bounded."""
        heard = max(0.0, self.voice_to_face.log_odds) if self.voice_to_face else 0.0
        seen = max(0.0, self.face_to_voice.log_odds) * self.share if self.face_to_voice else 0.0
        return min(MOST_SHARED_LOG_ODDS, heard + seen)


@dataclass(frozen=True)
class _Across:
    """What the shared space says about a file.

    Args:
        weighs: whether it was calibrated on people of the domain asked about.
        voices: point of each speaker in the shared space.
        faces: point of each face track there, by its place in the extraction.
        calibration: from cosines to log-odds; None without an encoder or without calibration.
        led: people whose enrolled faces are near to a voice of the file; nobody unless it weighs.
        heard: by speaker, the people whose enrolled faces were compared.
        seen: by face track, the people whose enrolled voices were compared.
    """

    weighs: bool = False
    voices: Mapping[int, Embedding] = field(default_factory=dict)
    faces: Mapping[int, Embedding] = field(default_factory=dict)
    calibration: Calibration | None = None
    led: frozenset[str] = frozenset()
    heard: Mapping[int, Mapping[str, PersonScore]] = field(default_factory=dict)
    seen: Mapping[int, Mapping[str, PersonScore]] = field(default_factory=dict)

    def leads(self, speaker: int, faces: _Faces) -> dict[str, _Lead]:
        """By person, what it says of a turn."""
        leads = {person: _Lead(score) for person, score in self.heard.get(speaker, {}).items()}
        for shown in faces.shown:
            for person, score in self.seen.get(shown.track, {}).items():
                old = leads.get(person, _Lead())
                if old.face_to_voice is None or old.face_to_voice.score < score.score:
                    leads[person] = _Lead(old.voice_to_face, score, shown.share / faces.on_screen)
        return leads


def who(prober: Prober, path: Path) -> WhoAnswer:
    """Every speech turn of a file with the enrolled people who may be speaking.

    A speaker's turns are judged together: the answer to a short turn rests on all that this voice says in
    the file.

    Args:
        prober: reads files and knows the enrolled.
        path: film or sound.

    Raises:
        MediaError: the file cannot be read. StoreError: the index does not answer.
    """
    extraction = prober.extract(path)
    if not extraction.turns:
        return WhoAnswer([])
    faces = [
        (place, track, prober.shortlist(point))
        for place, track in enumerate(extraction.faces)
        if (point := prober.embed_face(track)) is not None
    ]
    across = _encode_across(prober, extraction)
    # whoever is seen or led to is listened for too: no voice in the evidence must mean that none is enrolled
    known = across.led | {near[0].person for _, _, near in faces if near}
    voices = _by_speaker(prober, extraction.turns, known)
    across = _compare_across(prober, across, known | {one.person for near in voices.values() for one in near})
    names = prober.names()
    return WhoAnswer(
        [
            _answer(turn, voices.get(turn.speaker, []), _on_screen(turn.span, faces), across, names)
            for turn in extraction.turns
        ]
    )


def _by_speaker(prober: Prober, turns: Sequence[SpeechTurn], seen: Collection[str]) -> dict[int, list[PersonScore]]:
    points = {speaker: prober.embed_turns(mine) for speaker, mine in _speakers(turns).items()}
    return {speaker: prober.shortlist(point, also=seen) for speaker, point in points.items() if point is not None}


def _speakers(turns: Sequence[SpeechTurn]) -> dict[int, list[SpeechTurn]]:
    speakers = dict.fromkeys(turn.speaker for turn in turns)
    return {speaker: [turn for turn in turns if turn.speaker == speaker] for speaker in speakers}


def _encode_across(prober: Prober, extraction: Extraction) -> _Across:
    """Points of a file's voices and faces in the shared space, if an encoder with a calibration serves it."""
    if prober.shared is None:
        return _Across()
    try:
        calibration = prober.calibration(SHARED, (Modality.VOICE, Modality.FACE), Purpose.IDENTIFY)
    except NotCalibrated:
        return _Across()
    heard = {speaker: prober.embed_turns(mine, SHARED) for speaker, mine in _speakers(extraction.turns).items()}
    seen = {place: prober.embed_face(track, SHARED) for place, track in enumerate(extraction.faces)}
    voices = {speaker: point for speaker, point in heard.items() if point is not None}
    faces = {place: point for place, point in seen.items() if point is not None}
    weighs = prober.domains() == {calibration.provenance.get("domain")}
    near = [prober.shortlist(point, want=Modality.FACE) for point in voices.values()] if weighs else []
    return _Across(weighs, voices, faces, calibration, frozenset(one.person for people in near for one in people))


def _compare_across(prober: Prober, across: _Across, people: Collection[str]) -> _Across:
    """The same with the people compared: voices with their enrolled faces, faces with their enrolled voices."""
    if across.calibration is None or prober.shared is None:
        return across
    calibration, space = across.calibration, prober.shared.space
    faces = prober.centres(space, people, Modality.FACE) if across.voices else {}
    voices = prober.centres(space, people, Modality.VOICE) if across.faces else {}

    def compared(
        points: Mapping[int, Embedding], centres: Mapping[str, Embedding]
    ) -> dict[int, dict[str, PersonScore]]:
        scores = {one: ranked(point, centres, calibration) for one, point in points.items()}
        return {one: {near.person: near for near in people} for one, people in scores.items()}

    return replace(across, heard=compared(across.voices, faces), seen=compared(across.faces, voices))


def _on_screen(span: Span, faces: Sequence[tuple[int, FaceTrack, list[PersonScore]]]) -> _Faces:
    people: dict[str, tuple[PersonScore, float]] = {}
    on_screen = []
    for place, track, near in faces:
        shown = sum(span.overlap(seen) for seen in track.seen) / max(span.duration, 1e-9)
        if shown < LEAST_ON_SCREEN:
            continue
        share = min(1.0, shown)
        on_screen.append(_Shown(place, share))
        if near and near[0].log_odds > 0 and _better(near[0], people.get(near[0].person)):
            people[near[0].person] = (near[0], share)
    return _Faces(people, on_screen)


def _better(new: PersonScore, old: tuple[PersonScore, float] | None) -> bool:
    return old is None or new.score > old[0].score


def _answer(
    turn: SpeechTurn, voices: Sequence[PersonScore], faces: _Faces, across: _Across, names: Mapping[str, str]
) -> WhoTurn:
    heard = {person.person: person for person in voices}
    leads = across.leads(turn.speaker, faces)
    judged = []
    for person in {**heard, **faces.people, **{one: lead for one, lead in leads.items() if one in across.led}}:
        if person not in names:
            continue  # forgotten while this was being answered
        voice, seen, lead = heard.get(person), faces.people.get(person), leads.get(person, _Lead())
        log_odds = _fuse(voice, seen, faces.on_screen, lead if across.weighs else None)
        strongest = voice or (seen[0] if seen else None) or lead.voice_to_face
        evidence = EvidenceKinds(
            voice=_probability(voice),
            face=_probability(seen[0] if seen else None),
            voice_to_face=_probability(lead.voice_to_face),
            face_to_voice=_probability(lead.face_to_voice),
        )
        score = strongest.score if strongest else 0.0
        judged.append((log_odds, Candidate(names[person], score, probability_of(log_odds), evidence)))
    judged.sort(key=lambda one: (-one[0], -one[1].score, one[1].name))
    best = judged[0] if judged else None
    answer = best[1].name if best and best[0] >= 0 else UNKNOWN
    return WhoTurn(
        round(turn.span.start, 3), round(turn.span.end, 3), [one for _, one in judged[:MOST_CANDIDATES]], answer
    )


def _probability(person: PersonScore | None) -> float | None:
    return probability_of(person.log_odds) if person else None


def _fuse(
    voice: PersonScore | None, seen: tuple[PersonScore, float] | None, on_screen: int, lead: _Lead | None
) -> float:
    """Log-odds that a person is speaking; ``lead`` is None where the shared space has no weight."""
    across = lead.log_odds if lead else 0.0
    if voice is None and seen is not None:
        # enrolled by face only: being the one face on screen is a fair guess, one of several is not
        person, shown = seen
        return _log_odds_of(probability_of(person.log_odds) * shown * 0.9 / max(1, on_screen)) + across
    if voice is None:
        alone = lead.voice_to_face if lead else None
        return min(alone.log_odds, -MOST_SHARED_LOG_ODDS) if alone else _log_odds_of(0.0)
    bonus = 0.0
    if seen is not None:
        bonus = min(MOST_FACE_LOG_ODDS, max(0.0, seen[0].log_odds)) * seen[1] / max(1, on_screen)
    return voice.log_odds + bonus + across


def _log_odds_of(probability: float) -> float:
    """Log-odds of a probability, kept finite."""
    bounded = min(max(probability, 1e-5), 1 - 1e-5)
    return math.log(bounded / (1 - bounded))
