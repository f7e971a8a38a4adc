"""The only reader of the environment: ``VISAVOX_*`` variables become one small value."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_KNOWN = {
    "VISAVOX_HOME",
    "VISAVOX_MILVUS_URI",
    "VISAVOX_DATABASE_URL",
    "VISAVOX_BROKER_URL",
    "VISAVOX_MODEL",
    "VISAVOX_DEVICE",
    "VISAVOX_FACE_DETECTOR",
    "VISAVOX_MEDIA_ROOTS",
    "VISAVOX_OFFLINE",
    "VISAVOX_HUB_URL",
}
FACE_DETECTORS = ("dlib_hog", "dlib_cnn", "mtcnn")
"""The detectors that can be chosen, by the names of their rows."""
_TRUTHS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


CALM = {
    # By default threads of numerical libraries spin while they wait, and beside another busy process spend their time
    # waiting for each other: a training step on two busy processors took 16 times as long with two threads as with one.
    "OMP_WAIT_POLICY": "PASSIVE",
    "ORT_DISABLE_TELEMETRY": "1",  # nothing leaves this machine
}
"""What libraries must find in the environment when they are loaded."""


def calm_libraries() -> None:
    """Tell numerical libraries to wait asleep and to report to nobody, unless the environment says otherwise.

    Call before torch or onnxruntime is imported.
    """
    for name, value in CALM.items():
        os.environ.setdefault(name, value)


def environment_of_readers(settings: Settings) -> dict[str, str]:
    """The variables of confined processes that read files, which see no others: one thread each, and what reads."""
    return CALM | {"OMP_NUM_THREADS": "1", "VISAVOX_FACE_DETECTOR": settings.face_detector}


class SettingsError(ValueError):
    """A setting has a value that cannot be used."""


@dataclass(frozen=True)
class Settings:
    """Where an installation lives and what it is made of.

    Args:
        home: folder of everything the installation keeps.
        milvus_uri: a Milvus server (http…), or the file of the embedded Milvus Lite.
        database_url: SQLAlchemy URL of ledger and people.
        broker_url: Redis of the workers, or None: work is done in this process.
        model: folder of the shared-space encoder that serves, or None: then the one chosen by ``models use`` does.
        device: ``cpu``, ``cuda`` or ``auto``.
        face_detector: one of ``FACE_DETECTORS``; what was read with another one is read again.
        media_roots: folders that paths arriving by HTTP must lie in.
        offline: whether weights must not be fetched from the network.
        hub_url: the model hub that weights are fetched from, or a mirror of it.
        processes: how many a launcher (`accelerate launch`, `torchrun`) has started to train one model together.
        place: which of them this one is, from 0.
    """

    home: Path
    milvus_uri: str
    database_url: str
    broker_url: str | None = None
    model: Path | None = None
    device: str = "auto"
    face_detector: str = "dlib_hog"
    media_roots: tuple[Path, ...] = ()
    offline: bool = False
    hub_url: str = "https://huggingface.co"
    processes: int = 1
    place: int = 0

    def __repr__(self) -> str:
        """Like any dataclass's, with passwords masked."""
        shown = {name: _masked(str(value)) for name, value in vars(self).items()}
        return f"Settings({', '.join(f'{name}={value}' for name, value in shown.items())})"

    @property
    def embedded(self) -> bool:
        """Whether the index is the embedded one, which has one owner process at a time."""
        return "://" not in self.milvus_uri


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings. Raises SettingsError that names the variable and what it may be."""
    given = os.environ if environment is None else environment
    unknown = {name for name in given if name.startswith("VISAVOX_")} - _KNOWN
    if unknown:
        # a warning, not an error: a variable of a newer version must not stop an older one
        logging.getLogger("visavox").warning(
            "unknown setting %s is ignored; known are %s",
            ", ".join(sorted(unknown)),
            ", ".join(sorted(_KNOWN)),
        )
    home = Path(given.get("VISAVOX_HOME") or "visavox-data").expanduser().absolute()
    device = given.get("VISAVOX_DEVICE") or "auto"
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise SettingsError(f"VISAVOX_DEVICE must be auto, cpu, cuda or cuda:N, got {device!r}")
    detector = given.get("VISAVOX_FACE_DETECTOR") or Settings.face_detector
    if detector not in FACE_DETECTORS:
        raise SettingsError(f"VISAVOX_FACE_DETECTOR must be one of {', '.join(FACE_DETECTORS)}, got {detector!r}")
    broker = given.get("VISAVOX_BROKER_URL") or None
    if broker and not broker.startswith(("redis://", "rediss://", "redis+socket://")):
        raise SettingsError("VISAVOX_BROKER_URL must be the URL of a Redis, such as redis://127.0.0.1:6379/0")
    milvus = given.get("VISAVOX_MILVUS_URI") or str(home / "index" / "milvus.db")
    if not _is_milvus_uri(milvus):
        raise SettingsError("VISAVOX_MILVUS_URI must be http(s)://host:port of a server, or a file that ends in .db")
    roots = given.get("VISAVOX_MEDIA_ROOTS") or ""
    offline = _TRUTHS.get((given.get("VISAVOX_OFFLINE") or "").lower())
    if offline is None:
        raise SettingsError(f"VISAVOX_OFFLINE must be 1 or 0, got {given['VISAVOX_OFFLINE']!r}")
    hub = given.get("VISAVOX_HUB_URL") or Settings.hub_url
    if not hub.startswith(("https://", "http://")):
        raise SettingsError("VISAVOX_HUB_URL must be the address of a model hub, such as https://huggingface.co")
    processes = given.get("WORLD_SIZE") or "1"
    place = "0" if processes == "1" else given.get("RANK") or ""  # without a launcher it is somebody else's variable
    if not (_is_number(processes) and _is_number(place) and int(place) < int(processes)):
        raise SettingsError(
            "WORLD_SIZE and RANK are set by a launcher of several processes, RANK from 0 to below WORLD_SIZE; got "
            f"{processes!r} and {place!r}: unset them to train in one process"
        )
    return Settings(
        home=home,
        milvus_uri=milvus,
        database_url=given.get("VISAVOX_DATABASE_URL") or f"sqlite:///{home / 'records.sqlite'}",
        broker_url=broker,
        model=Path(given["VISAVOX_MODEL"]).expanduser().absolute() if given.get("VISAVOX_MODEL") else None,
        device=device,
        face_detector=detector,
        media_roots=tuple(Path(root).expanduser().resolve() for root in roots.split(":") if root),
        offline=offline,
        hub_url=hub,
        processes=int(processes),
        place=int(place),
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_milvus_uri(text: str) -> bool:
    if "://" not in text:
        return text.endswith(".db")
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and text[-3:] != ".db"
    except ValueError:  # a port that is no number
        return False


def _masked(text: str) -> str:
    return re.sub(r"([?&](?:ssl)?password=)[^&]*", r"\1***", re.sub(r"(://[^:/@]*):.*@", r"\1:***@", text))
