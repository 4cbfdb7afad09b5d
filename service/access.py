"""Who may call: API keys, admin keys, and a rate for each key.

Keys are compared by their digests in constant time, all of them whatever comes, so that the time taken says nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import deque
from collections.abc import Iterable

import limits
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from service import problems
from service.metrics import Metrics
from service.problems import Code, ProblemError
from service.settings import Settings

CLOSED = ("/v1/", "/v2/", "/v2")
OPEN = ("/v2/health/live", "/v2/health/ready")
ADMIN = ("/v1/models/reload",)

_FEW = 1000
"""Callers whose times may be kept although they are old."""


def closed(path: str) -> bool:
    """Whether a path wants a key, where keys are set."""
    return path.startswith(CLOSED) and path not in OPEN


class Access:
    """Admits or refuses a request by its path and `Authorization` header."""

    def __init__(self, settings: Settings) -> None:
        self._keys = _digests(settings.api_keys)
        self._admins = _digests(settings.admin_keys)
        self._rate = limits.parse(settings.rate_limit) if settings.rate_limit else None
        self._open = not self._keys and self._rate is None
        self._window = None if self._rate is None else Window(self._rate.amount, self._rate.get_expiry())

    def admit(self, connection: HTTPConnection) -> None:
        """Refuses what may not pass.

        Raises:
            ProblemError: 401 no key or an unknown one, 403 not an admin's, 429 too many requests of one key.
        """
        path = connection.scope["path"]
        if not closed(path) or (self._open and path not in ADMIN):
            return
        digest = _presented(connection)
        if path in ADMIN:
            self._admit_admin(digest)
        elif self._keys and not _among(digest, (*self._keys, *self._admins)):
            raise _unauthorized("This server wants a key: Authorization: Bearer KEY." if digest is None else "The key is not known.")
        self._admit_rate(connection, digest)

    def _admit_admin(self, digest: bytes | None) -> None:
        if not self._admins:
            raise ProblemError(Code.FORBIDDEN, "No admin keys are set (ATELIER_ADMIN_KEYS), so nobody may do this.")
        if digest is None:
            raise _unauthorized("An admin's key is needed: Authorization: Bearer KEY.")
        if not _among(digest, self._admins):
            if _among(digest, self._keys):
                raise ProblemError(Code.FORBIDDEN, "This key is not an admin's.")
            raise _unauthorized("The key is not known.")

    def _admit_rate(self, connection: HTTPConnection, digest: bytes | None) -> None:
        """Counts by key; without keys, by the caller's address."""
        if self._window is None:
            return
        who = digest.hex() if digest is not None and self._keys else (connection.client.host if connection.client else "")
        if wait := self._window.wait(who):
            raise ProblemError(Code.RATE_LIMITED, f"More than {self._rate} of this key.", retry_after=wait)


class Window:
    """Lets in, of each caller, at most an amount in any stretch of so many seconds: by a clock that nobody sets."""

    def __init__(self, amount: int, seconds: float) -> None:
        self.amount, self.seconds = amount, seconds
        self._let_in: dict[str, deque[float]] = {}
        self._room = _FEW

    def wait(self, who: str) -> float:
        """0 if the caller is let in now, else the seconds until it would be."""
        now = time.monotonic()
        if who not in self._let_in:
            self._make_room(now)
        times = self._let_in.setdefault(who, deque(maxlen=self.amount))
        if len(times) == self.amount and (left := times[0] + self.seconds - now) > 0:
            return left
        times.append(now)
        return 0.0

    def _make_room(self, now: float) -> None:
        """Forgets those who have not come for so long that it makes no difference, whenever they may be half of all."""
        if len(self._let_in) >= self._room:
            self._let_in = {who: times for who, times in self._let_in.items() if times[-1] + self.seconds > now}
            self._room = max(_FEW, 2 * len(self._let_in))


class AccessControl:
    """ASGI middleware that lets `Access` decide."""

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics) -> None:
        self.app, self.access, self.metrics = app, access, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self.access.admit(HTTPConnection(scope))
            except ProblemError as error:
                self.metrics.rejected.labels(error.code).inc()
                await problems.response(error, scope["state"]["id"], scope["path"])(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _digests(keys: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(hashlib.sha256(key.encode()).digest() for key in keys)


def _presented(connection: HTTPConnection) -> bytes | None:
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    return hashlib.sha256(key.strip().encode("latin-1", "replace")).digest() if scheme.lower() == "bearer" and key.strip() else None


def _among(digest: bytes | None, known: tuple[bytes, ...]) -> bool:
    found = False
    for one in known:
        found |= hmac.compare_digest(digest or b"", one)
    return found


def _unauthorized(detail: str) -> ProblemError:
    return ProblemError(Code.UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})
