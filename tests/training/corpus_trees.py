"""Small trees in the layouts in which corpora are distributed, of tiny but real photos and sounds."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.training.feature_corpus import tone
from training.population.faces import draw_view, render_face
from training.population.folder import write_photo, write_wav
from training.population.people import invent_people

# VoxCeleb1 id, VGGFace name, sex, country, code of P
PEOPLE = (
    ("id10001", "A.J._Buckley", "m", "Ireland", 1),
    ("id10002", "A.R._Rahman", "m", "India", 4),
    ("id10003", "Aamir_Khan", "m", "India", 4),
    ("id10004", "Aaron_Tveit", "m", "USA", 1),
    ("id10005", "Aaron_Yoo", "m", "USA", 2),
    ("id10006", "Abbie_Cornish", "f", "Australia", 2),
)
SEEN_HEARD_ROW = "1,1,1,1,A.J._Buckley/seenvideo_0000001.wav,A.J._Buckley/seenvideo/0000025.jpg"


def make(root: Path, paths: Iterable[str]) -> Path:
    """Write a photo or a sound at each path, each of another content, but alike from call to call."""
    for path in paths:
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(zlib.crc32(path.encode()))
        if place.suffix == ".jpg":
            write_photo(place, random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        else:
            write_wav(place, random.normal(0, 0.1, 800).astype(np.float32))
    return root


def write_lists_p(folder: Path) -> Path:
    """P's split, meta file and one seen-heard list."""
    (folder / "Splits").mkdir(parents=True)
    (folder / "Splits/identity_splits.txt").write_text("".join(f"{name} {code} \n" for _, name, _, _, code in PEOPLE))
    rows = "".join("\t".join((*row[:4], "dev")) + "\n" for row in PEOPLE)
    (folder / "vox1_meta.csv").write_text("VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n" + rows)
    (folder / "veriflist").mkdir()
    header = "id,voice-speaker-id,face-speaker-id,label,voice-path,face-path\n"
    (folder / "veriflist/veriflist_test_G_seenheard.txt").write_text(f"{header}{SEEN_HEARD_ROW}\n")
    return folder


def write_lists_d(folder: Path) -> Path:
    """D's three lists: the first two people of PEOPLE for training, and so on; the last has no stills."""
    folder.mkdir(parents=True, exist_ok=True)
    for at, name in enumerate(("train", "val", "test")):
        rows = ["VoxCeleb1_ID,VGGFace1_ID,Gender,Nationality,Set"]
        rows += [",".join((*row[:4], "none" if row is PEOPLE[5] else "dev")) for row in PEOPLE[2 * at : 2 * at + 2]]
        (folder / f"vox1_{name}.csv").write_text("\r\n".join(rows) + "\r\n")
    return folder


def make_voxceleb1(root: Path) -> Path:
    """Voices in trees of their own for dev and test, face crops beside them: one video each, two for training."""
    voices, faces = [], []
    for number, name, _, _, code in PEOPLE:
        tree = "vox1_test_wav/wav" if code == 4 else "vox1_dev_wav/wav"
        for video in ("seenvideo", "othervideo") if code == 1 else ("onevideo",):
            voices += [f"{tree}/{number}/{video}/0000{clip}.wav" for clip in (1, 2)]
            faces += [f"faces/{name}/1.6/{video}/00000{frame}.jpg" for frame in (25, 50)]
    return make(root, [*voices, *faces])


def write_voxceleb1_people(root: Path) -> Path:
    """The same files, in which a face is found and a sound is long enough to be learned from."""
    make_voxceleb1(root)
    for number, (person, invented) in enumerate(zip(PEOPLE, invent_people(len(PEOPLE), 0), strict=True)):
        random = np.random.default_rng(invented.seed)
        for clip, place in enumerate(sorted(root.glob(f"vox1_*_wav/wav/{person[0]}/*/*.wav"))):
            write_wav(place, tone(150 + 20 * number + clip))
        for seed, place in enumerate(sorted(root.glob(f"faces/{person[1]}/1.6/*/*.jpg"))):
            write_photo(place, render_face(invented, draw_view(random), 160, seed=seed))
    return root


def make_stills(root: Path) -> Path:
    """VGGFace stills of everybody but the last."""
    return make(root, [f"{name}/0000000{still}.jpg" for _, name, _, _, _ in PEOPLE[:5] for still in (1, 2)])


def make_mav_celeb(root: Path, people: int = 3) -> Path:
    """People who speak two languages, one video of each, and the anonymous test files beside them."""
    clips = [
        f"{kind}/id{person:04d}/{language}/{language[:2]}video{person}/{clip}"
        for person in range(1, people + 1)
        for language in ("English", "Urdu")
        for kind, clip in (("voices", "00000.wav"), ("voices", "00001.wav"), ("faces", "0010125.jpg"))
    ]
    return make(root, [*clips, "voices/English/00000.wav", "faces/English/00000.jpg"])
