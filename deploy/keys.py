"""The API keys of an installation, without loading anything else of it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import make_url

from deploy.settings import Settings, load_settings
from ingest.database import open_database
from search.access import Keys


def open_keys(settings: Settings | None = None) -> Keys:
    """The keys in the records of an installation. Raises SettingsError, RecordsError, OSError."""
    settings = settings or load_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    return Keys(open_database(settings.database_url))


def has_working_key() -> bool:
    """Whether there is a key that is not revoked; nothing is made to find out. Raises as :func:`open_keys`."""
    settings = load_settings()
    if settings.database_url.startswith("sqlite:"):
        file = make_url(settings.database_url).database
        if file and not Path(file).exists():
            return False
    with closing(open_keys(settings)) as keys:
        return any(key.revoked is None for key in keys.all())
