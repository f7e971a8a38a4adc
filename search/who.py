"""Who speaks when: speech turns by voice, with the faces on screen as further evidence.

Evidence is fused as log-odds. The voice decides; a face that is on screen while somebody speaks says
less, since the speaker may be off screen, so its weight is bounded both ways.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.space import Embedding
from ingest.track import FaceTrack, Span, SpeechTurn
from search.answers import Candidate, EvidenceKinds, WhoAnswer, WhoTurn
from search.people import UNKNOWN
from search.probes import PersonScore, Prober
from search.scores import probability_of

# A face must be on screen for this share of a turn to be evidence about it.
LEAST_ON_SCREEN = 0.3
# What a recognised face on screen can add to a voice: odds of about 4 to 1, no more.
MOST_FACE_LOG_ODDS = 1.4
# Candidates reported per turn.
MOST_CANDIDATES = 5


@dataclass(frozen=True)
class _Faces:
    """The enrolled people recognised on screen during a turn, and how many faces are on screen in all."""

    people: Mapping[str, tuple[PersonScore, float]]  # with the share of the turn that they are on screen
    on_screen: int


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
    faces = [
        (track, prober.shortlist(point))
        for track in extraction.faces
        if (point := prober.embed_face(track)) is not None
    ] if extraction.turns else []  # fmt: skip
    # whoever is seen is listened for too: no voice in the evidence must mean that none is enrolled
    seen = {near[0].person for _, near in faces if near}
    voices = _by_speaker(prober, extraction.turns, seen)
    names = prober.names()
    return WhoAnswer(
        [_answer(turn, voices.get(turn.speaker, []), _on_screen(turn.span, faces), names) for turn in extraction.turns]
    )


def _by_speaker(prober: Prober, turns: Sequence[SpeechTurn], seen: Collection[str]) -> dict[int, list[PersonScore]]:
    speakers = {turn.speaker for turn in turns}
    points: dict[int, Embedding | None] = {
        speaker: prober.embed_turns([turn for turn in turns if turn.speaker == speaker]) for speaker in speakers
    }
    return {speaker: prober.shortlist(point, also=seen) for speaker, point in points.items() if point is not None}


def _on_screen(span: Span, faces: Sequence[tuple[FaceTrack, list[PersonScore]]]) -> _Faces:
    people: dict[str, tuple[PersonScore, float]] = {}
    count = 0
    for track, near in faces:
        shown = sum(span.overlap(seen) for seen in track.seen) / max(span.duration, 1e-9)
        if shown < LEAST_ON_SCREEN:
            continue
        count += 1
        if near and near[0].log_odds > 0 and _better(near[0], people.get(near[0].person)):
            people[near[0].person] = (near[0], min(1.0, shown))
    return _Faces(people, count)


def _better(new: PersonScore, old: tuple[PersonScore, float] | None) -> bool:
    return old is None or new.score > old[0].score


def _answer(turn: SpeechTurn, voices: Sequence[PersonScore], faces: _Faces, names: Mapping[str, str]) -> WhoTurn:
    heard = {person.person: person for person in voices}
    judged = []
    for person in {**heard, **faces.people}:
        if person not in names:
            continue  # forgotten while this was being answered
        voice, seen = heard.get(person), faces.people.get(person)
        log_odds = _fuse(voice, seen, faces.on_screen)
        score = voice.score if voice else seen[0].score if seen else 0.0
        evidence = EvidenceKinds(
            voice=probability_of(voice.log_odds) if voice else None,
            face=probability_of(seen[0].log_odds) if seen else None,
        )
        judged.append((log_odds, Candidate(names[person], score, probability_of(log_odds), evidence)))
    judged.sort(key=lambda one: (-one[0], -one[1].score, one[1].name))
    best = judged[0] if judged else None
    answer = best[1].name if best and best[0] >= 0 else UNKNOWN
    return WhoTurn(
        round(turn.span.start, 3), round(turn.span.end, 3), [one for _, one in judged[:MOST_CANDIDATES]], answer
    )


def _fuse(voice: PersonScore | None, seen: tuple[PersonScore, float] | None, on_screen: int) -> float:
    """Log-odds that a person is speaking."""
    if voice is None and seen is not None:
        # enrolled by face only: being the one face on screen is a fair guess, one of several is not
        person, shown = seen
        return _log_odds_of(probability_of(person.log_odds) * shown * 0.9 / max(1, on_screen))
    if voice is None:
        return _log_odds_of(0.0)
    bonus = 0.0
    if seen is not None:
        bonus = min(MOST_FACE_LOG_ODDS, max(0.0, seen[0].log_odds)) * seen[1] / max(1, on_screen)
    return voice.log_odds + bonus


def _log_odds_of(probability: float) -> float:
    """Log-odds of a probability, kept finite."""
    bounded = min(max(probability, 1e-5), 1 - 1e-5)
    return math.log(bounded / (1 - bounded))
