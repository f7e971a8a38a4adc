"""The folder of an encoder: what encoder.json says, and the proof that the folder still holds it.

An encoder folder contains ``encoder.json`` (this file's subject), ``MODEL_CARD.md`` (for people),
``golden.safetensors`` (samples and the vectors they must give), perhaps weights as safetensors, perhaps
``identities.txt`` (whom it was trained on, one identity a line), perhaps ``probes.json`` (what is taken from probes,
see :mod:`encoders.probe_centres`), and perhaps ``calibration.json``; these two turn vectors into scores and scores into
probabilities, and so are no part of the space.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders import face, voice
from encoders.probe_centres import check_centre
from encoders.space import Modality, Space
from encoders.weights import NetworkRow, PackagedFile, WeightsError, find_row, packaged_path, sha256_of

FORMAT = 1
DESCRIPTION_FILE = "encoder.json"
CARD_FILE = "MODEL_CARD.md"
GOLDEN_FILE = "golden.safetensors"
CALIBRATION_FILE = "calibration.json"
IDENTITIES_FILE = "identities.txt"
PROBES_FILE = "probes.json"

BACKBONES = {Modality.FACE: face.BACKBONES, Modality.VOICE: voice.BACKBONES}


class EncoderError(Exception):
    """An encoder folder cannot be used; the message names the folder, what is wrong and what to do."""


@dataclass(frozen=True)
class FolderFile:
    """A weight file inside the encoder's own folder: its name and SHA-256."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Branch:
    """How one modality becomes vectors.

    Args:
        backbone: name of a row of the modality's BACKBONES.
        preparation: every parameter of the backbone's preparation.
        weights: where the network's parameters are.
    """

    backbone: str
    preparation: Mapping[str, Any]
    weights: PackagedFile | FolderFile


@dataclass(frozen=True)
class HeadDescription:
    """The head that both modalities share, behind their networks.

    Args:
        kind: of the table ``encoders.heads.HEADS``.
        parameters: what a head of this kind is made with, complete.
        weights: its own file.
    """

    kind: str
    parameters: Mapping[str, Any]
    weights: FolderFile


@dataclass(frozen=True)
class Description:
    """What encoder.json says.

    Args:
        name: of the encoder.
        space: name of the space its vectors live in.
        dimension: components of a vector.
        domain: whom it is for, such as ``real people`` or ``invented people``.
        trained_on: what and whom its networks were trained on.
        branches: one per modality.
        files: SHA-256 of further files of the folder.
        head: what comes behind the networks; None where their output is the vector.
    """

    name: str
    space: str
    dimension: int
    domain: str
    trained_on: str
    branches: Mapping[Modality, Branch]
    files: Mapping[str, str] = field(default_factory=dict)
    head: HeadDescription | None = None

    def digest(self) -> str:
        """SHA-256 of what determines the vectors: networks, their weights and preparation, and the head.

        Weights are told apart by their file's hash, so the same numbers in another file format make
        another space.
        """
        branches = {
            modality.value: {
                "backbone": branch.backbone,
                "network": backbone_row(modality, branch.backbone).network,
                "preparation": dict(branch.preparation),
                "weights": branch.weights.sha256,
            }
            for modality, branch in self.branches.items()
        }
        determining: dict[str, Any] = {"dimension": self.dimension, "branches": branches}
        if self.head is not None:
            parameters, weights = dict(self.head.parameters), self.head.weights.sha256
            determining["head"] = {"kind": self.head.kind, "parameters": parameters, "weights": weights}
        text = json.dumps(determining, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def make_space(self) -> Space:
        """The space of the vectors."""
        return Space(self.space, self.dimension, self.digest())


def backbone_row(modality: Modality, name: str) -> NetworkRow:
    """The table row of a backbone. Raises ValueError naming the rows there are."""
    return find_row(BACKBONES[modality], name)


def write_description(folder: Path, description: Description) -> None:
    """Write encoder.json, with the digest that :func:`read_description` checks."""
    space = description.make_space()
    document: dict[str, Any] = {
        "format": FORMAT,
        "name": description.name,
        "space": {"name": space.name, "dimension": space.dimension, "digest": space.digest},
        "domain": description.domain,
        "trained_on": description.trained_on,
        "modalities": sorted(description.branches),
        "branches": {
            modality.value: {
                "backbone": branch.backbone,
                "preparation": dict(branch.preparation),
                "weights": asdict(branch.weights),
            }
            for modality, branch in description.branches.items()
        },
        "files": dict(description.files),
    }
    if description.head is not None:
        document["head"] = asdict(description.head)
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")


def read_description(folder: Path) -> Description:
    """Read encoder.json, check the hashes of the folder's files, and the space's digest.

    Raises:
        EncoderError: the folder is no encoder folder, of another format, changed or incomplete.
    """
    document = read_json(folder, DESCRIPTION_FILE)
    if document.get("format") != FORMAT:
        raise EncoderError(
            f"{folder}: {DESCRIPTION_FILE} has format {document.get('format')!r}, this version reads {FORMAT}; "
            "publish the encoder again or install the version that wrote it"
        )
    try:
        description = _parse(document)
        digest, expected = description.digest(), document["space"]["digest"]
    except KeyError as error:
        raise EncoderError(f"{folder}: {DESCRIPTION_FILE} lacks {error}; publish the encoder again") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise EncoderError(f"{folder}: {DESCRIPTION_FILE} is not valid: {error}") from error
    if digest != expected:
        raise EncoderError(
            f"{folder}: {DESCRIPTION_FILE} describes the space {digest}, but names {expected}; somebody changed what "
            "determines the vectors: restore the file or publish the encoder anew"
        )
    for name, sha256 in description.files.items():
        check_file(folder, name, sha256)
    for name in (IDENTITIES_FILE, PROBES_FILE):
        if (folder / name).exists() and name not in description.files:
            raise EncoderError(
                f"{folder}: {name} is not among the files of {DESCRIPTION_FILE}, so nobody knows whether it is "
                "the encoder's; remove it or publish the encoder again"
            )
    return description


def read_identities(folder: Path, description: Description) -> frozenset[str]:
    """Whom the encoder was trained on, by ``identities.txt``; empty where it has none.

    Raises:
        EncoderError: the file is not sorted identities, one a line.
    """
    if IDENTITIES_FILE not in description.files:
        return frozenset()
    try:
        lines = (folder / IDENTITIES_FILE).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise EncoderError(f"{folder}: {IDENTITIES_FILE} is not UTF-8 text: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line or line != line.strip() or (number > 1 and line <= lines[number - 2]):
            raise EncoderError(
                f"{folder}: line {number} of {IDENTITIES_FILE} is {line!r}; it must hold sorted identities, "
                "one a line, none twice"
            )
    return frozenset(lines)


def read_probe_centres(folder: Path, description: Description) -> dict[Modality, NDArray[np.float64]]:
    """What is taken from probes, by ``probes.json``: ``{"face": {"centre": [numbers]}}``; empty where it has none.

    Raises:
        EncoderError: the file holds something else.
    """
    if PROBES_FILE not in description.files:
        return {}
    centres = {}
    for name, told in read_json(folder, PROBES_FILE).items():
        try:
            given = np.asarray(told["centre"])
            check_centre(given, description.dimension)
            centre = centres[Modality(name)] = given.astype(np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise EncoderError(
                f"{folder}: {PROBES_FILE} has no centre of {name!r} ({error}); publish the encoder again"
            ) from error
        centre.setflags(write=False)
    return centres


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object from a file of the folder. Raises EncoderError if there is none."""
    try:
        document = json.loads((folder / name).read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise EncoderError(f"{folder} is not an encoder folder: cannot read {name}: {reason}") from error
    except ValueError as error:
        raise EncoderError(f"{folder}: {name} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise EncoderError(f"{folder}: {name} must hold a JSON object, not {type(document).__name__}")
    return document


def check_file(folder: Path, name: str, sha256: str) -> Path:
    """The path of a file of the folder, after its hash was checked.

    Raises:
        EncoderError: the name leaves the folder, the file is absent or has other content.
    """
    path = folder / name
    if Path(name).name != name:
        raise EncoderError(f"{folder}: {name!r} is not the name of a file in this folder")
    if not path.is_file():
        raise EncoderError(f"{folder}: {name} is missing; copy the folder again as a whole")
    actual = sha256_of(path)
    if actual != sha256:
        raise EncoderError(
            f"{folder}: {name} has SHA-256 {actual}, expected {sha256}; copy the folder again as a whole"
        )
    return path


def weights_path(folder: Path, weights: PackagedFile | FolderFile) -> Path:
    """Where a branch's weights are, after their hash was checked. Raises EncoderError."""
    if isinstance(weights, FolderFile):
        return check_file(folder, weights.file, weights.sha256)
    try:
        return packaged_path(weights)
    except WeightsError as error:
        raise EncoderError(f"{folder}: {error}") from error


def _parse(document: Mapping[str, Any]) -> Description:
    known = {"format", "name", "space", "domain", "trained_on", "modalities", "branches", "files", "head"}
    if set(document) - known:
        raise ValueError(f"unknown entries {', '.join(sorted(set(document) - known))}")
    branches = {
        Modality(modality): Branch(entry["backbone"], entry["preparation"], _parse_weights(entry["weights"]))
        for modality, entry in document["branches"].items()
    }
    if sorted(branches) != sorted(document["modalities"]):
        raise ValueError("modalities and branches disagree")
    return Description(
        name=document["name"],
        space=document["space"]["name"],
        dimension=document["space"]["dimension"],
        domain=document["domain"],
        trained_on=document["trained_on"],
        branches=branches,
        files=document["files"],
        head=_parse_head(document["head"]) if "head" in document else None,
    )


def _parse_head(entry: Mapping[str, Any]) -> HeadDescription:
    wanted = {one.name for one in fields(HeadDescription)}
    if set(entry) != wanted:
        raise ValueError(f"a head needs exactly {', '.join(sorted(wanted))}, got {', '.join(sorted(entry))}")
    weights = _parse_weights(entry["weights"])
    if not isinstance(weights, FolderFile):
        raise ValueError("a head's weights lie in the folder, not in a package")
    return HeadDescription(entry["kind"], entry["parameters"], weights)


def _parse_weights(entry: Mapping[str, str]) -> PackagedFile | FolderFile:
    kind: type[PackagedFile] | type[FolderFile] = PackagedFile if "package" in entry else FolderFile
    wanted = {one.name for one in fields(kind)}
    if set(entry) != wanted:
        raise ValueError(f"weights need exactly {', '.join(sorted(wanted))}, got {', '.join(sorted(entry))}")
    return kind(**entry)
