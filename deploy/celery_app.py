"""The Celery application as worker processes import it: ``visavox worker`` starts them."""

from __future__ import annotations

from deploy.settings import load_settings
from deploy.wiring import ingest_handler
from ingest.worker import make_app

app = make_app(load_settings().broker_url or "redis://127.0.0.1:6379/0", ingest_handler)
