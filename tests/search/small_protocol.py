"""A protocol folder of a few people, written in a moment: lists and ceiling, no media.

Every sample is a noisy look at its person: x = z + noise, z of the person, all normal. So the likelihood-ratio
score of a face and a voice is known in closed form, and it is what ``ceiling.npz`` holds.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.space import Modality, Space
from search.points import Points
from search.protocols import Protocol
from tests.conftest import SHARED

LATENTS = 6
NOISE = 0.7
FOLDER_NAMES = {Modality.VOICE: "voice_{:02d}.flac", Modality.FACE: "face_{:02d}.jpg"}


def write_small_protocol(folder: Path, people: int = 6, samples: int = 3, seed: int = 0) -> Path:
    """Write the lists of ``people`` test people (every other one a woman) with ``samples`` of each modality.

    Beside them stand one training and one validation person. Gives the folder.
    """
    random = np.random.default_rng(seed)
    names = [f"Person_{number:03d}_{number:08x}" for number in range(people)]
    sex = {name: "fm"[number % 2] for number, name in enumerate(names)}
    shown = {
        modality: {f"{name}/{FOLDER_NAMES[modality].format(i)}": name for name in names for i in range(samples)}
        for modality in Modality
    }
    others = {"Trained_aaaaaaaa": "1", "Validated_bbbbbbbb": "2"}
    splits = {**others, **dict.fromkeys(names, "4")}
    _write(folder / "Splits/identity_splits.txt", [f"{name} {code}" for name, code in splits.items()])
    meta = ["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"]
    meta += [f"{name}\t{name}\t{sex.get(name, 'f')}\tinvented\t{'test' if name in sex else 'dev'}" for name in splits]
    _write(folder / "meta.csv", meta)
    for modality, kind in ((Modality.VOICE, "wav"), (Modality.FACE, "jpg")):
        rows = [f"{person}\t{path}" for path, person in shown[modality].items()]
        _write(folder / f"retrieval/{kind}_all.csv", [f"person\t{kind}", *rows])
    for written, same_sex in (("random", False), ("G", True)):
        _write(folder / f"veriflist/veriflist_test_{written}_unseenunheard.txt", _trials(random, shown, sex, same_sex))
        for direction, probe in (("v2f", Modality.VOICE), ("f2v", Modality.FACE)):
            criterion = "G" if same_sex else "U"
            lines = _matching(random, shown[probe], shown[probe.other], sex, same_sex)
            _write(folder / f"matching/matching_{direction}_{criterion}.csv", lines)
    paths, vectors = _ceiling(random, shown, names)
    np.savez(folder / "ceiling.npz", path=np.array(paths), vector=vectors)
    about = {"format": 1, "name": "small", "domain": "invented people", "media": "media", "digest": "d" * 64}
    (folder / "protocol.json").write_text(json.dumps(about))
    return folder


def points_of(protocol: Protocol, vectors: dict[str, NDArray[np.floating]], space: Space | None = None) -> Points:
    """Points of the samples that have a vector, brought to unit length."""
    length = len(next(iter(vectors.values())))
    paths = {one: tuple(path for path in protocol.samples(one).paths if path in vectors) for one in Modality}
    rows = {one: np.array([vectors[path] for path in paths[one]]).reshape(-1, length) for one in Modality}
    unit = {one: some / np.linalg.norm(some, axis=1, keepdims=True) for one, some in rows.items()}
    people = {one: tuple(protocol.person_of(path) for path in paths[one]) for one in Modality}
    return Points(space or Space("shared", length, "5" * 64), paths, unit, people=people)


def ceiling_points(protocol: Protocol) -> Points:
    """The ceiling's vectors on the unit sphere: every cosine is the score divided by one common number.

    A component of its own per modality fills each vector up to one length and meets nothing of the other.
    """
    assert protocol.ceiling is not None
    longest = max(float(np.linalg.norm(vector)) for vector in protocol.ceiling.values())
    filled = {}
    for one, own in ((Modality.FACE, 0), (Modality.VOICE, 1)):
        for path in protocol.samples(one).paths:
            vector = protocol.ceiling[path] / longest
            rest = np.zeros(2)
            rest[own] = np.sqrt(max(0.0, 1.0 - float(vector @ vector)))
            filled[path] = np.concatenate([vector, rest])
    return points_of(protocol, filled)


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _another(random: np.random.Generator, person: str, sex: dict[str, str], same_sex: bool) -> list[str]:
    """Other people, of the same sex if asked, in random order."""
    fitting = [name for name in sex if name != person and (not same_sex or sex[name] == sex[person])]
    return [fitting[i] for i in random.permutation(len(fitting))]


def _trials(random, shown, sex, same_sex: bool) -> list[str]:
    """Two genuine pairs and one impostor pair of every voice: labels do not alternate."""
    number = {name: place for place, name in enumerate(sex, start=1)}
    faces = {name: [path for path, person in shown[Modality.FACE].items() if person == name] for name in sex}
    lines = ["id,voice-speaker-id,face-speaker-id,label,voice-path,face-path"]
    for voice, person in shown[Modality.VOICE].items():
        right = [(person, path) for path in random.permutation(faces[person])[:2]]
        other = _another(random, person, sex, same_sex)[0]
        for name, path in [*right, (other, random.choice(faces[other]))]:
            label = int(name == person)
            lines.append(f"{len(lines)},{number[person]},{number[name]},{label},{voice},{path}")
    return lines


def _matching(random, probes, galleries, sex, same_sex: bool) -> list[str]:
    """One trial per probe with as many wrong candidates as there are fitting people, at most 9."""
    of = {name: [path for path, person in galleries.items() if person == name] for name in sex}
    most = min(9, min(len(_another(random, name, sex, same_sex)) for name in sex))
    return [
        " ".join([
            probe,
            str(random.choice(of[person])),
            *(str(random.choice(of[name])) for name in _another(random, person, sex, same_sex)[:most]),
        ])
        for probe, person in probes.items()
    ]  # fmt: skip


def _ceiling(random, shown, names) -> tuple[list[str], NDArray[np.float64]]:
    """Paths and vectors whose dot products are the log-likelihood ratios, but for a constant."""
    latent = {name: random.normal(size=LATENTS) for name in names}
    spread = 1 + NOISE**2  # variance of a look
    alike = 1 / spread  # correlation of two looks at one person
    cross, own = alike / ((1 - alike**2) * spread), alike**2 / (2 * (1 - alike**2) * spread)
    paths, vectors = [], []
    for modality in Modality:
        for path, person in shown[modality].items():
            look = latent[person] + NOISE * random.normal(size=LATENTS)
            penalty = -own * float(look @ look)
            tail = [penalty, 1.0] if modality is Modality.FACE else [1.0, penalty]
            scale = np.sqrt(cross)
            paths.append(path)
            vectors.append(np.concatenate([scale * look, tail]))
    return paths, np.array(vectors)


def published_lists() -> Path:
    """The lists published for VoxCeleb1, beside this checkout; the test is skipped where they are absent."""
    folder = SHARED / "data" / "protocol"
    if not folder.is_dir():
        pytest.skip("the published lists are not beside this checkout")
    return folder
