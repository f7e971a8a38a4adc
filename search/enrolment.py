"""What of a file is enrolled: the face that takes most room, the voice that speaks longest, and what to say of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from ingest.track import Extraction, FaceTrack, SpeechTurn

# Below these an enrolment still counts, with a warning: seconds, and 0 to 1.
LEAST_ENROLMENT_SPEECH = 2.0
LEAST_FACE_QUALITY = 0.25


def largest_face(faces: Sequence[FaceTrack]) -> FaceTrack | None:
    """The face that takes most room, or None."""
    return max(faces, key=lambda face: face.area, default=None)


def longest_speaker(turns: Sequence[SpeechTurn]) -> list[SpeechTurn]:
    """All turns of the speaker who speaks longest in all; empty without speech."""
    ordered = sorted(turns, key=lambda turn: turn.speaker)
    groups = [list(group) for _, group in groupby(ordered, key=lambda turn: turn.speaker)]
    return max(groups, key=lambda group: sum(turn.span.duration for turn in group), default=[])


def enrolment_warnings(extraction: Extraction) -> list[str]:
    """What a person should know of a sample that was taken, sentences."""
    warnings = list(extraction.warnings)
    face, turns = largest_face(extraction.faces), longest_speaker(extraction.turns)
    speech = sum(turn.span.duration for turn in turns)
    if turns and speech < LEAST_ENROLMENT_SPEECH:
        warnings.append(f"only {speech:.1f} s of speech: {LEAST_ENROLMENT_SPEECH:.0f} s or more identify better")
    if face and face.shots[0].quality < LEAST_FACE_QUALITY:
        warnings.append("the face is small, blurred or turned away: a clearer picture identifies better")
    if len(extraction.faces) > 1 and extraction.kind == "photo":
        warnings.append(f"{len(extraction.faces)} faces: the largest was taken")
    return warnings
