"""Examples for the OpenAPI document: one of each answer, made of the very classes that answer."""

from __future__ import annotations

from ingest.jobpage import FileStanding, JobPage
from ingest.jobs import JobState
from search.answers import (
    Candidate,
    EnrolAnswer,
    EvidenceKinds,
    FindAnswer,
    ForgetAnswer,
    FoundHit,
    MatchAnswer,
    MatchCandidate,
    Refusal,
    VerifyAnswer,
    WhoAnswer,
    WhoTurn,
)
from search.people import PersonEntry

PERSON = "8f14e45fceea467f8b1d1e4b7a5f6c0d"
OTHER_PERSON = "c4ca4238a0b9423820dcc509a6f75849"
VERSION = 3
PERSON_TAG = f'"{PERSON}-{VERSION}"'
EVIDENCE = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"
EVIDENCE_TAG = f'"{EVIDENCE}"'
MEDIA = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
SPACE = "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35"
JOB = "1679091c5a880faf6fb5e6087eb1b2dc"
CURSOR = "WyJBZGEgTG92ZWxhY2UiLCI4ZjE0ZTQ1ZmNlZWE0NjdmOGIxZDFlNGI3YTVmNmMwZCJd"
FILE = "(the bytes of a film, a sound or a photo)"

SUMMARY = PersonEntry(PERSON, "Ada Lovelace", 4, 12, "2026-01-31T12:00:00Z", VERSION)
FIND = FindAnswer([FoundHit("voice_identity", "voice", MEDIA, 12.4, 15.1, "Ada Lovelace", 0.87, 0.98, EVIDENCE)])
WHO = WhoAnswer(
    [
        WhoTurn(
            start=12.4, end=15.1, answer="Ada Lovelace",
            people=[Candidate("Ada Lovelace", 0.87, 0.98, EvidenceKinds(voice=0.97, face=0.9))],
        ),
        WhoTurn(start=15.1, end=18.0, people=[], answer="unknown"),
    ]
)  # fmt: skip
VERIFY = VerifyAnswer(0.81, 0.97, True, 0.62, "face_identity")
MATCH = MatchAnswer([MatchCandidate("a.jpg", 0.12, 0.03), MatchCandidate("b.jpg", 0.79, 0.96)], "b.jpg")
ENROL = EnrolAnswer(
    "Ada Lovelace", ["talk.mp4"], [Refusal("sea.jpg", "no usable face and no usable speech found")],
    ["talk.mp4: only 1.4 s of speech: 2 s or more identify better"],
)  # fmt: skip
FOLDER = "/media/archive"
FAILED_FILE = FileStanding(
    7, f"{FOLDER}/sea.mp4", "failed", "looks like text, not like a film, sound or photo: convert it", 1
)
DONE_FILE = FileStanding(
    8, f"{FOLDER}/talk.mp4", "done", None, 0,
    {"path": f"{FOLDER}/talk.mp4", "state": "done", "media": MEDIA, "faces": 12, "voices": 31,
     "seconds_of_media": 1800.0, "reason": None, "warnings": []},
)  # fmt: skip
INGEST = JobPage(
    job=JOB, kind="ingest", state="running", archive="default", priority=0, created=1769860800.0,
    started=1769860801.5, finished=None, files=40,
    counts={"waiting": 28, "running": 2, "done": 6, "unchanged": 3, "failed": 1, "cancelled": 0},
    seconds_of_media=12600.0, rate=0.05, real_time=63.0, remaining=600.0, first_errors=[FAILED_FILE],
    asked={"paths": [FOLDER], "within": ["/media"]}, result={"ignored": 4, "failed": []},
)  # fmt: skip
EVALUATION = JobPage(
    job=JOB, kind="evaluate", state="queued", archive="default", priority=0, created=1769860800.0,
    started=None, finished=None, files=0,
    counts={"waiting": 0, "running": 0, "done": 0, "unchanged": 0, "failed": 0, "cancelled": 0},
    seconds_of_media=0.0, rate=0.0, real_time=0.0,
    asked={"on": "enrolled", "folder": None, "model": None, "export": None, "lists": None, "html": None,
           "markdown": None},
)  # fmt: skip
FORGET = ForgetAnswer("Ada Lovelace", 16, 16, 16)
QUEUED: JobState = "queued"
