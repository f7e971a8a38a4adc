"""The folder of a training run: what decides it, who owns it, what it logged.

``run.json`` holds everything that a run's weights follow from, so that a run goes on only under the same.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from encoders.folder import read_description
from encoders.space import Modality
from training.checkpoint import replace_file, write_json
from training.networks import NetworkGiven, given_network
from training.prepared import Prepared
from training.recipe import ROOT, Given, Recipe, Stage, recipe_name, source_digest
from training.vectors import Vectors

RUN_FILE = "run.json"
LOG_FILE = "log.jsonl"
LOCK_FILE = "lock"
FORMAT = 1


class TrainingError(Exception):
    """A training run cannot begin or go on; the message says why and what to do."""


class RunMismatch(TrainingError):
    """The folder holds a run of other settings or other people."""


class RunHeld(TrainingError):
    """Another process trains in this folder."""


@dataclass(frozen=True)
class TrainingData:
    """Whom a run learns from and whom it is judged on; no person is in both."""

    training: Prepared | Vectors
    validation: Prepared | Vectors

    def __post_init__(self) -> None:
        both = sorted(set(self.training.identities) & set(self.validation.identities))
        if both:
            raise ValueError(f"{len(both)} people are in training and in validation, such as {both[0]}")


@dataclass(frozen=True)
class RunSettings:
    """How a run is run, beside the recipe's own settings.

    Args:
        seed: of initialisation, data order, augmentation and dropout.
        device: ``cpu``, ``cuda``, ``cuda:1`` ..., or ``auto`` for CUDA where there is one.
        bfloat16: compute in bfloat16 where autocast allows.
        validate_every: epochs between validations; the last one is always validated, and a beginning in closed form.
        checkpoint_seconds: longest stretch that a kill can undo.
        threads: CPU threads of a step; with another number the last digits may differ.
        accumulate: batches whose gradients are averaged before a step of the optimiser.
        initial_face: an encoder folder whose weights the face network begins with; None: drawn from the seed.
        initial_voice: likewise.
        curves: whether losses and figures are written for TensorBoard too.
        processes: how many train together, started by a launcher: see :mod:`training.data_parallel`.
    """

    seed: int = 0
    device: str = "cpu"
    bfloat16: bool = False
    validate_every: int = 1
    checkpoint_seconds: float = 30.0
    threads: int = 1
    accumulate: int = 1
    initial_face: Path | None = None
    initial_voice: Path | None = None
    curves: bool = False
    processes: int = 1

    def __post_init__(self) -> None:
        if min(self.validate_every, self.threads, self.accumulate, self.processes) < 1:
            raise ValueError(
                f"validate_every (epochs), threads, accumulate (batches) and processes are at least 1, got "
                f"{self.validate_every}, {self.threads}, {self.accumulate} and {self.processes}"
            )

    def torch_device(self) -> torch.device:
        """The device that is meant. Raises TrainingError if it is not there."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        device = torch.device(self.device)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise TrainingError(f"{self.device!r} was asked for, but there is no such device here; use cpu or auto")
        return device


def given_of(data: TrainingData, run: RunSettings) -> Given:
    """What the tasks of a run are made for."""
    training = data.training
    if isinstance(training, Vectors):
        face, voice = (NetworkGiven(None, None, training.of(one).shape[1]) for one in Modality)
    else:
        initial = {Modality.FACE: run.initial_face, Modality.VOICE: run.initial_voice}
        face, voice = (given_network(one, *training.preparation.backbone(one), initial[one]) for one in Modality)
    return Given(len(training.identities), training.sexes, face, voice)


def describe(recipe: Recipe, settings: Any, run: RunSettings, frozen: bool = False) -> dict[str, Any]:  # noqa: ANN401
    """All but the data that decides a run's weights, as JSON would give it back."""
    described = {"recipe": recipe_name(recipe), "settings": asdict(settings)} | _run_described(run)
    described["code"] = [source_digest(stage) for stage in recipe.stages(settings, frozen)]
    same: dict[str, Any] = json.loads(json.dumps(described))
    return same


def describe_stage(stage: Stage, run: RunSettings, before: str) -> dict[str, Any]:
    """The same of one stage; ``before`` is the key of the stage that it goes on from, or empty."""
    described = {"stage": stage.name, "settings": asdict(stage.settings), "code": source_digest(stage)}
    kept = {"before": before, "keep": stage.keep} | ({"average": stage.average} if stage.average else {})
    same: dict[str, Any] = json.loads(json.dumps(described | kept))
    return same | _run_described(run)


def describe_data(data: TrainingData) -> dict[str, Any]:
    """What of the data decides a run's weights."""
    people = len(data.training.identities)
    return {"training": data.training.digest, "validation": data.validation.digest, "people": people}


def key_of(described: Mapping[str, Any]) -> str:
    """16 hex digits of a description."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _run_described(run: RunSettings) -> dict[str, Any]:
    described: dict[str, Any] = {
        "format": FORMAT,
        "seed": run.seed,
        "device": run.torch_device().type,
        "bfloat16": run.bfloat16,
        "validate_every": run.validate_every,
    }
    described |= {name: getattr(run, name) for name in ("accumulate", "processes") if getattr(run, name) > 1}
    for name, folder in (("initial_face", run.initial_face), ("initial_voice", run.initial_voice)):
        if folder is not None:
            described[name] = read_description(folder).digest()
    return described


def claim(folder: Path, described: Mapping[str, Any]) -> None:
    """Write what the folder's run is, or check that it is this one."""
    path = folder / RUN_FILE
    if not path.exists():
        made_with = {"torch": str(torch.__version__), "threads": torch.get_num_threads(), "git": git_state()}
        write_json(path, dict(described) | {"made_with": made_with})
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"{path} is damaged ({error}); remove the folder to train anew") from error
    changed = _differences(before, described)
    if changed:
        raise RunMismatch(
            f"{folder} holds another run ({'; '.join(changed)}): train with what it was begun with, or in another "
            "folder, or remove this one to begin anew"
        )


def git_state() -> str | None:
    """The commit of this code, with ``-dirty`` where files differ from it; None where it is no git checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            found += [
                f"{one} was {old.get(one)!r}, is {value.get(one)!r}"
                for one in sorted(set(old) | set(value))
                if old.get(one) != value.get(one)
            ]
        elif old != value:
            found.append(f"{name} was {old!r}, is {value!r}")
    return found


def recorded_threads(folder: Path) -> int | None:
    """With how many threads a run was begun: with others its last digits would differ. None before its first step."""
    threads = _made_with(folder).get("threads")
    return threads if isinstance(threads, int) else None


def recorded_git(folder: Path) -> str | None:
    """The state of the code that a run was begun with, as :func:`git_state` gives it; None where it had none."""
    git = _made_with(folder).get("git")
    return git if isinstance(git, str) else None


def _made_with(folder: Path) -> Mapping[str, Any]:
    try:
        told = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["made_with"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return told if isinstance(told, Mapping) else {}


def append_log(folder: Path, line: Mapping[str, Any]) -> None:
    """Add an epoch's line to the log."""
    with (folder / LOG_FILE).open("a", encoding="utf-8") as log:
        log.write(json.dumps(dict(line)) + "\n")


def seconds_spent(folder: Path) -> float:
    """How long the epochs of a run took, all validation included; what a kill undid is not counted."""
    lines = (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()
    return sum(float(json.loads(line)["seconds"]) for line in lines)


def trim_log(folder: Path, epochs: int) -> None:
    """Forget what the log says of later epochs, and half a line that a kill left."""
    path, lines = folder / LOG_FILE, []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            break
        if line["epoch"] <= epochs:
            lines.append(text + "\n")
    replace_file(path, "".join(lines).encode())


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Own the folder until the end, or until the process dies."""
    with (folder / LOCK_FILE).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunHeld(f"another process trains in {folder}; wait for it or stop it") from error
        yield
