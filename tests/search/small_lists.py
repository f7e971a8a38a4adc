"""A small folder in the form of the published lists of VoxCeleb1, written in a moment: all twenty of them.

Half of the people test, the other half are split into training and validation. Names, ids and paths are as
published, the two ways of naming a sample included.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

COUNTRIES = ("USA", "UK", "India")
WRITTEN = {"U": "random", "G": "G", "N": "N", "A": "A", "GNA": "GNA"}
TESTED = 24
VIDEOS, CLIPS = 2, 2


class Cast:
    """The people: every third test person is of one of three countries, sexes by turns."""

    def __init__(self) -> None:
        self.names = [f"Person_{number:02d}" for number in range(2 * TESTED)]
        self.ids = {name: f"id{10001 + number}" for number, name in enumerate(self.names)}
        self.sex = {name: "fm"[number // 3 % 2] for number, name in enumerate(self.names)}
        self.country = {name: COUNTRIES[number % 3] for number, name in enumerate(self.names)}
        self.test, self.train, self.validation = self.names[:TESTED], self.names[TESTED:-12], self.names[-12:]

    def alike(self, one: str, other: str, group: str) -> bool:
        same = {"G": self.sex[one] == self.sex[other], "N": self.country[one] == self.country[other], "A": True}
        return all(same[letter] for letter in group if letter in same)

    def voices(self, name: str) -> list[tuple[str, int]]:
        return [(f"{name[-2:]}video_x{video:03d}", clip) for video in range(VIDEOS) for clip in range(1, CLIPS + 1)]


def voice(cast: Cast, name: str, video: str, clip: int) -> str:
    return f"{cast.ids[name]}/{video}/{clip:05d}.wav"


def face(name: str, video: str, clip: int) -> str:
    return f"{name}/1.6/{video}/{clip * 25:07d}.jpg"


def write_small_lists(folder: Path, seed: int = 0) -> Path:
    """Write the folder, and give it."""
    cast, random = Cast(), np.random.default_rng(seed)
    splits = {**dict.fromkeys(cast.test, 4), **dict.fromkeys(cast.train, 1), **dict.fromkeys(cast.validation, 2)}
    _write(folder / "Splits/identity_splits.txt", [f"{name} {code} " for name, code in splits.items()])
    meta = [f"{cast.ids[n]}\t{n}\t{cast.sex[n]}\t{cast.country[n]}\tdev" for n in cast.names]
    _write(folder / "vox1_meta.csv", ["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet", *meta])
    for kind, path in (("wav", lambda n, v, c: voice(cast, n, v, c)), ("jpg", face)):
        rows = [f"{cast.ids[n]}\t{path(n, *clip)}" for n in cast.test for clip in cast.voices(n)]
        _write(folder / f"retrieval/{kind}_20k.csv", [f"VoxCeleb1 ID\t{kind}", *rows])
    for group, written in WRITTEN.items():
        for suffix, people in (("unseenunheard", cast.test), ("seenheard", cast.train)):
            _write(folder / f"veriflist/veriflist_test_{written}_{suffix}.txt", _pairs(cast, people, group, random))
    for group in ("U", "G", "N", "GN"):
        for way in ("v2f", "f2v"):
            _write(folder / f"matching/matching_{way}_{group}.csv", _matching(cast, way, group, random))
    return folder


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _pairs(cast: Cast, people: list[str], group: str, random: np.random.Generator) -> list[str]:
    """Two genuine pairs and a wrong one of every voice: labels do not alternate."""
    lines = ["id,voice-speaker-id,face-speaker-id,label,voice-path,face-path"]
    for name in people:
        for video, clip in cast.voices(name):
            other = str(random.choice([one for one in people if one != name and cast.alike(one, name, group)]))
            shown = [(name, video, clip), (name, *cast.voices(name)[0]), (other, *cast.voices(other)[1])]
            for who, film, frame in shown:
                heard = f"{name}/{video}_{clip:07d}.wav"
                seen = f"{who}/{film}/{frame * 25:07d}.jpg"
                lines.append(f"{len(lines)},1,1,{int(who == name)},{heard},{seen}")
    return lines


def _matching(cast: Cast, way: str, group: str, random: np.random.Generator) -> list[str]:
    lines = []
    for name in cast.test:
        for clip in cast.voices(name):
            other = str(random.choice([one for one in cast.test if one != name and cast.alike(one, name, group)]))
            own, right, wrong = (name, *clip), (name, *cast.voices(name)[2]), (other, *cast.voices(other)[3])
            if way == "v2f":
                lines.append(f"{voice(cast, *own)} {face(*right)} {face(*wrong)}")
            else:
                lines.append(f"{face(*own)} {voice(cast, *right)} {voice(cast, *wrong)}")
    return lines
