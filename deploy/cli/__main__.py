"""``python -m deploy.cli`` is ``visavox``."""

from deploy.cli import main

main()
