"""Who may ask: requests under the service's own host names, and changes only from its own pages.

Without keys, whoever reaches the port may ask. A web page in a browser on the same computer can: it points
its own name at loopback and reads the answers (DNS rebinding), or sends a form across sites. The first
shows in the Host header, the second in Origin.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from search.api.problems import CrossSite, HostRefused, answer

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class HostCheck:
    """Middleware that refuses other hosts with 421 and changes asked for by other sites with 403.

    Args:
        app: what comes after.
        allowed: host names and addresses, without port and brackets.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self._app = app
        self._allowed = frozenset(name.lower() for name in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (self._app if refusal is None else answer(refusal, None))(scope, receive, send)

    def _refusal(self, scope: Scope) -> Exception | None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or host_name(f"//{hosts[0]}") not in self._allowed:
            return HostRefused(f"ask for {self._names()}, not for {', '.join(hosts) or 'no host'}")
        if scope["method"] not in _READING and any(host_name(one) not in self._allowed for one in origins):
            return CrossSite(f"only pages of {self._names()} may ask for changes, not {', '.join(origins)}")
        return None

    def _names(self) -> str:
        return ", ".join(sorted(self._allowed))


def host_name(address: str) -> str:
    """The host of a URL in small letters, without port and brackets; "" if there is none, or it is malformed."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises if it is no number
    except ValueError:
        return ""
    plain = parts.username is None and not (parts.path or parts.query or parts.fragment)
    return parts.hostname or "" if plain else ""
