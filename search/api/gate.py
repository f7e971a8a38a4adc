"""The gate: which key a request brings, and whether its role may ask for this; before any body is read."""

from __future__ import annotations

import anyio
from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ingest.ledger import RecordsError
from search.access import Forbidden, Key, Keys, Role, Unauthenticated
from search.api.operations import KEY_ID, REFUSED
from search.api.problems import answer

OPEN = frozenset({"/healthz"})
QUESTIONS = frozenset({"/v1/who", "/v1/search", "/v1/verify", "/v1/match"})
EDITED = ("/v1/people", "/v1/ingests", "/v1/jobs")
METRICS = "/metrics"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})

# A wrong key is answered late, and so many at a time: nobody guesses one, but trying must not be cheap either.
PENALTY_SECONDS = 0.5
PENALTIES_AT_ONCE = 10
MOST_PENALTIES = 200
# Whether the first key has been made is looked up at most once in this many seconds.
FIRST_KEY_SECONDS = 2.0


def needed(method: str, path: str) -> Role:
    """The role that a request needs: reading and asking, changing people and jobs, and everything else."""
    if path.rstrip("/") == METRICS:
        return Role.ADMIN
    if method in _READING or (method == "POST" and path.rstrip("/") in QUESTIONS):
        return Role.READER
    return Role.EDITOR if any(path == one or path.startswith(f"{one}/") for one in EDITED) else Role.ADMIN


class KeyCheck:
    """Middleware that answers 401 without a key that works, and 403 where its role does not reach.

    A key comes in the Authorization header, never in a cookie: a page of another site cannot make a browser send it.

    Args:
        app: what comes after.
        keys: the keys there are.
        open_without_keys: let everybody in as long as no key was ever made.
    """

    def __init__(self, app: ASGIApp, keys: Keys, *, open_without_keys: bool = False) -> None:
        self._app = app
        self._keys = keys
        self._open = open_without_keys
        self._open_until = float("-inf")
        # the records are asked beside the event loop, and wrong keys must not take the threads of good requests
        self._asking = CapacityLimiter(2)
        self._penalties = CapacityLimiter(PENALTIES_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN):
            await self._app(scope, receive, send)
            return
        try:
            await self._admit(scope)
        except (Unauthenticated, Forbidden, RecordsError) as error:
            refusal = answer(error, None)
            if isinstance(error, Unauthenticated):
                refusal.headers["WWW-Authenticate"] = 'Bearer realm="visavox"'
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        """Raise Unauthenticated, Forbidden, or RecordsError if nobody can tell."""
        if self._open and await self._still_open():
            return
        given = Headers(scope=scope).getlist("authorization")
        scheme, _, secret = given[0].strip().partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            raise Unauthenticated(
                "a key is needed: send the header `Authorization: Bearer KEY`; `visavox keys create` makes one"
            )
        key = self._keys.remembered(secret.strip()) or await self._look_up(secret.strip())
        if key is None:
            scope[REFUSED] = "the key is not known, or revoked"
            await self._make_wait()
            raise Unauthenticated("this key is not known, or revoked; `visavox keys list` shows those there are")
        scope[KEY_ID] = key.id
        role = needed(scope.get("method", ""), scope["path"])
        if not key.role.allows(role):
            raise Forbidden(f"this needs a key of the role {role}, and this one is a {key.role}'s")

    async def _look_up(self, secret: str) -> Key | None:
        try:
            return await to_thread.run_sync(self._keys.check, secret, limiter=self._asking)
        except RecordsError as error:
            # who is not known is told nothing of where the records are
            raise RecordsError("the records do not answer, so nobody can tell whether this key is good") from error

    async def _still_open(self) -> bool:
        if anyio.current_time() < self._open_until:
            return True
        try:
            exist = await to_thread.run_sync(self._keys.exist, limiter=self._asking)
        except RecordsError as error:
            raise RecordsError("the records do not answer, so nobody can tell whether a key is needed") from error
        self._open = not exist
        self._open_until = anyio.current_time() + FIRST_KEY_SECONDS
        return self._open

    async def _make_wait(self) -> None:
        if self._penalties.statistics().tasks_waiting < MOST_PENALTIES:
            async with self._penalties:
                await anyio.sleep(PENALTY_SECONDS)
