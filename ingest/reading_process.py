"""Where a process of the sandbox begins: ``python -m ingest.reading_process DESCRIPTOR PARENT``.

It confines itself before anything else is loaded, so that no thread of any library is left out.
"""

from __future__ import annotations

import sys

from ingest.confinement import confine

if __name__ == "__main__":
    confine(int(sys.argv[2]))
    from ingest.sandboxed import serve

    serve(int(sys.argv[1]))
