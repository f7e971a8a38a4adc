"""One probability out of a voice, a face and what the shared space says: log-odds that a person is speaking.

The voice decides. A face says less, since another one may be speaking, so its weight is bounded both ways. What a
voice tells of a face, and a face of a voice, says less again, and is never by itself a name.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from encoders.space import Embedding
from ingest.track import FaceTrack, Speaking, SpeechTurn
from search.answers import EvidenceKinds
from search.probes import PersonScore
from search.scores import probability_of

# Where nobody judged who speaks, a face must be on screen for this share of a turn to be evidence about it,
LEAST_ON_SCREEN = 0.3
# and the only one that is on screen all the time is the speaker's so often.
ALONE_SPEAKS = 0.9
# A face that speaks less probably than this is mute.
LEAST_SPEAKING = 0.2
# From here on the speaker is taken to be off screen.
OFF_SCREEN = 0.5
# What a face can add to a voice, or take from it: odds of about 4 to 1, no more.
MOST_FACE_LOG_ODDS = 1.4
# What voice_to_face and face_to_voice can add, both together. Who is neither heard nor seen keeps odds of
# 1 to 4 at best, however well a voice fits their face.
MOST_SHARED_LOG_ODDS = 1.4


@dataclass(frozen=True, eq=False)
class Face:
    """A face track: its place in the extraction, its point, and the enrolled people compared with it."""

    place: int
    point: Embedding
    near: Mapping[str, PersonScore]  # by id

    @property
    def recognised(self) -> PersonScore | None:
        """Whose face it is, if it is anybody's."""
        best = max(self.near.values(), key=lambda one: one.score, default=None)
        return best if best and best.log_odds > 0 else None


@dataclass(frozen=True)
class Seen:
    """A face that may be speaking, held against one person's enrolled faces.

    Args:
        score: how near it is to them.
        speaks: probability that it is the one that speaks.
        judged: whether that was judged by mouth and sound, or only by who is on screen.
    """

    score: PersonScore
    speaks: float
    judged: bool

    @property
    def probability(self) -> float:
        """That the face is the person's and speaks."""
        return probability_of(self.score.log_odds) * self.speaks

    @property
    def log_odds(self) -> float:
        """What it adds to a voice. Only where it was judged who speaks does somebody else's face speak against it."""
        least = -MOST_FACE_LOG_ODDS if self.judged else 0.0
        return min(MOST_FACE_LOG_ODDS, max(least, self.score.log_odds)) * self.speaks


@dataclass(frozen=True)
class Lead:
    """What the shared space says of a person during a turn; None where it says nothing.

    Args:
        voice_to_face: the voice that speaks against their enrolled faces.
        face_to_voice: the face on screen that fits their enrolled voices best.
        speaks: probability that this face is the one that speaks.
    """

    voice_to_face: PersonScore | None = None
    face_to_voice: PersonScore | None = None
    speaks: float = 0.0

    @property
    def log_odds(self) -> float:
        """What it adds to other evidence: nothing or more, bounded."""
        heard = max(0.0, self.voice_to_face.log_odds) if self.voice_to_face else 0.0
        seen = max(0.0, self.face_to_voice.log_odds) * self.speaks if self.face_to_voice else 0.0
        return min(MOST_SHARED_LOG_ODDS, heard + seen)


@dataclass(frozen=True)
class Screen:
    """The faces that may be speaking during a turn.

    Args:
        speaks: by place in the extraction, the probability that the face is the one that speaks.
        judged: whether that was judged by mouth and sound.
    """

    speaks: Mapping[int, float]
    judged: bool

    @classmethod
    def of(cls, turn: SpeechTurn, faces: Sequence[FaceTrack], speaking: Speaking | None) -> Screen:
        """The faces of a turn, as they were judged; else those on screen share the chance."""
        seconds = [sum(turn.span.overlap(seen) for seen in face.seen) for face in faces]
        shares = {place: min(1.0, shown / max(turn.span.duration, 1e-9)) for place, shown in enumerate(seconds)}
        shown = {place: share for place, share in shares.items() if share >= LEAST_ON_SCREEN}
        if speaking is None:
            return cls({place: ALONE_SPEAKS * share / len(shown) for place, share in shown.items()}, judged=False)
        if speaking.track is None or is_off_screen(speaking):
            return cls({}, judged=True)
        others = [place for place in shown if place != speaking.track]
        # what is left is shared by the faces that were not thought the likeliest
        left = max(0.0, 1.0 - speaking.probability - speaking.off_screen) / max(1, len(others))
        speaks = {speaking.track: speaking.probability, **dict.fromkeys(others, left)}
        return cls({place: chance for place, chance in speaks.items() if chance >= LEAST_SPEAKING}, judged=True)

    def people(self, faces: Sequence[Face], heard: Collection[str]) -> dict[str, Seen]:
        """By person, the face that most probably is theirs and speaks.

        Args:
            faces: all of the file.
            heard: people to whom the voice was compared: they are held against a face that was judged to speak
                even if it is somebody else's.
        """
        people: dict[str, Seen] = {}
        for face in faces:
            if face.place not in self.speaks:
                continue
            chosen = {face.recognised.person: face.recognised} if face.recognised else {}
            if self.judged:
                chosen |= {person: score for person, score in face.near.items() if person in heard}
            for person, score in chosen.items():
                seen = Seen(score, self.speaks[face.place], self.judged)
                if person not in people or _order(seen) > _order(people[person]):
                    people[person] = seen
        return people


@dataclass(frozen=True)
class Evidence:
    """All that speaks for or against one person during one turn, kind by kind; None where there is none.

    Args:
        voice: the turn's voice against their enrolled voices.
        seen: a face that may be speaking against their enrolled faces.
        lead: what the shared space says.
        weighs: whether the shared space was calibrated on people of the domain asked about.
    """

    voice: PersonScore | None
    seen: Seen | None
    lead: Lead
    weighs: bool

    @property
    def log_odds(self) -> float:
        """Natural log-odds that the person is speaking."""
        across = self.lead.log_odds if self.weighs else 0.0
        if self.voice is not None:
            return self.voice.log_odds + (self.seen.log_odds if self.seen else 0.0) + across
        if self.seen is not None:  # enrolled by face only: it must be theirs, and it must speak
            return _log_odds_of(self.seen.probability) + across
        alone = self.lead.voice_to_face if self.weighs else None
        return min(alone.log_odds, -MOST_SHARED_LOG_ODDS) if alone else _log_odds_of(0.0)

    @property
    def score(self) -> float:
        """The similarity that the strongest kind of evidence rests on."""
        strongest = self.voice or (self.seen.score if self.seen else None) or self.lead.voice_to_face
        return strongest.score if strongest else 0.0

    def kinds(self) -> EvidenceKinds:
        """The probabilities to report, kind by kind."""
        face = None
        if self.seen is not None:
            face = self.seen.probability if self.seen.judged else _probability(self.seen.score)
        return EvidenceKinds(
            voice=_probability(self.voice),
            face=face,
            voice_to_face=_probability(self.lead.voice_to_face),
            face_to_voice=_probability(self.lead.face_to_voice),
        )


def is_off_screen(speaking: Speaking) -> bool:
    """Whether the speaker of a turn is taken not to be seen."""
    return speaking.track is None or speaking.off_screen >= OFF_SCREEN


def _order(seen: Seen) -> tuple[float, float]:
    return seen.probability, seen.score.score


def _probability(person: PersonScore | None) -> float | None:
    return probability_of(person.log_odds) if person else None


def _log_odds_of(probability: float) -> float:
    """Log-odds of a probability, kept finite."""
    bounded = min(max(probability, 1e-5), 1 - 1e-5)
    return math.log(bounded / (1 - bounded))
