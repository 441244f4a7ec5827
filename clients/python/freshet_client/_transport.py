"""Requests over HTTP: tries, waits, and errors that say what is wrong."""

from __future__ import annotations

import email.utils
import gzip
import http.client
import json
import random
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Mapping, Optional

GZIP_BYTES_MIN = 1024
"""Smaller bodies are not worth packing."""
WAIT_SECS_MIN = 0.25
"""Mean of the first wait is three quarters of it; every wait is twice the one before."""
WAIT_SECS_MAX = 30.0
RETRIED = frozenset({408, 429, 502, 503, 504})


class FreshetError(Exception):
    """Anything that this package raises."""


class TransportError(FreshetError):
    """The server could not be reached, or its answer could not be read."""


@dataclass(frozen=True)
class FieldError:
    """What is wrong with a field."""

    pointer: str
    """JSON pointer into the body, or the name of a parameter."""
    code: str
    detail: str


class ProblemError(FreshetError):
    """The server refused the whole request (RFC 9457)."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        self.status = status
        self.type = str(document.get("type", "about:blank"))
        self.title = str(document.get("title", ""))
        self.detail = str(document.get("detail", ""))
        self.errors = [
            FieldError(*(str(error.get(name, "")) for name in ("pointer", "code", "detail")))
            for error in document.get("errors", [])
        ]
        words = [f"{status} {self.title}: {self.detail}"]
        # The detail names the field itself where there is one alone.
        words += [f"{error.pointer}: {error.detail}" for error in self.errors if error.pointer not in self.detail]
        super().__init__("; ".join(words))


class Transport:
    """One address of a server."""

    def __init__(self, url: str, timeout_secs: float, tries_max: int) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url is {url!r}, expected http:// or https://")
        self._url = url.rstrip("/")
        self._timeout_secs = timeout_secs
        self._tries_max = max(1, tries_max)

    def request(
        self,
        method: str,
        path: str,
        key: Optional[str],
        body: Optional[bytes] = None,
        *,
        may_pack: bool = False,
        is_idempotent: bool = True,
    ) -> dict[str, Any]:
        """The answer as JSON. What is not idempotent is sent again only where the server has said that it did not look."""
        headers = {"Accept": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        if body is not None:
            headers["Content-Type"] = "application/json"
            if may_pack and len(body) >= GZIP_BYTES_MIN:
                headers["Content-Encoding"] = "gzip"
                body = gzip.compress(body, 6)
        for num_tries in range(1, self._tries_max + 1):
            request = urllib.request.Request(self._url + path, body, headers, method=method)
            try:
                with _OPENER.open(request, timeout=self._timeout_secs) as answer:
                    document: dict[str, Any] = json.load(answer)
                    return document
            except urllib.error.HTTPError as refusal:
                with refusal:
                    error: FreshetError = _problem(refusal)
                wait_secs = retry_after_secs(refusal.headers.get("Retry-After"))
                is_worth_it = refusal.code in RETRIED and (is_idempotent or refusal.code in {429, 503})
            except (OSError, http.client.HTTPException, ValueError) as cause:
                error = TransportError(f"{method} {self._url}{path}: {cause}")
                error.__cause__ = cause
                wait_secs, is_worth_it = 0.0, is_idempotent
            if not is_worth_it or num_tries == self._tries_max:
                raise error
            time.sleep(max(wait_secs, backoff_secs(num_tries)))
        raise AssertionError("the last try returns or raises")


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would send the key to wherever it leads."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_Stay)


def backoff_secs(num_tries: int) -> float:
    """Between half of and the whole of a wait that doubles, so that clients do not come back all at once."""
    longest: float = min(WAIT_SECS_MAX, WAIT_SECS_MIN * 2 ** (num_tries - 1))
    return longest * random.uniform(0.5, 1.0)


def retry_after_secs(header: Optional[str]) -> float:
    """Seconds, or a date (RFC 9110, 10.2.3); at most `WAIT_SECS_MAX`."""
    if header is None:
        return 0.0
    try:
        secs = float(header)
    except ValueError:
        try:
            secs = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return 0.0
    return 0.0 if secs != secs else min(max(secs, 0.0), WAIT_SECS_MAX)


def _problem(refusal: urllib.error.HTTPError) -> ProblemError:
    try:
        document = json.load(refusal)
    except (OSError, ValueError):
        document = {}
    if not isinstance(document, dict):
        document = {}
    return ProblemError(refusal.code, {"title": refusal.reason, **document})
