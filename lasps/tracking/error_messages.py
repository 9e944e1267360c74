"""Why something failed, in one line without passwords: the innermost cause and what to do about it."""

from __future__ import annotations

import re
import socket
import sqlite3
import ssl
import traceback
from collections.abc import Iterator
from urllib.parse import unquote

SECRET_NAMES = "password|passwd|pwd|token|secret|credential|api_?key|access_?key"
SHORTEST_SECRET = 3
"""Characters; what is shorter than that is not looked for inside other words."""
LONGEST_REASON = 600
HINTS: dict[type[BaseException], str] = {
    ssl.SSLCertVerificationError: (
        " (this machine does not trust the server's certificate: MLFLOW_TRACKING_SERVER_CERT_PATH names one)"
    ),
    ssl.SSLError: " (TLS: does the server speak http, not https?)",
    socket.gaierror: " (DNS knows no such host: is the address right?)",
    ConnectionRefusedError: " (nothing listens there: is the server running?)",
    TimeoutError: " (no answer in time)",
}
"""The first that an error is an instance of counts."""


def without_password(text: str) -> str:
    """`text` with the user and password of every address in it, and secret values of a query, replaced by stars.

    An address' user part ends at the *last* @: a raw @ or / in a password is one that HTTP clients accept.
    """
    text = re.sub(r"(?<!sqlite:)(?<!file:)(?<!/)//\S*@", "//***@", text)
    return re.sub(rf"(?i)([?&;][\w.-]*(?:{SECRET_NAMES})[\w.-]*=)[^&;\s'\"]+", r"\1***", text)


def secrets_of(uri: str) -> list[str]:
    """The password in an address and the parts of it that a library may show when it cannot read the address."""
    user_part = re.search(r"//(\S*)@", uri)
    password = user_part[1].partition(":")[2] if user_part else ""
    parts = [password, unquote(password), *re.split(r"[/@:?#]", password)]
    parts += re.findall(rf"(?i)[?&;][\w.-]*(?:{SECRET_NAMES})[\w.-]*=([^&;\s]+)", uri)
    return sorted({part for part in parts if len(part) >= SHORTEST_SECRET}, key=len, reverse=True)


def hidden(text: str, uri: str) -> str:
    """`text` without passwords, those of `uri` wherever they stand in it."""
    for secret in secrets_of(uri):
        text = text.replace(secret, "***")
    return without_password(text)


def reason_of(error: BaseException) -> str:
    """What went wrong: the innermost cause where it is the network's, a disk's or SQLite's, and what to do about it."""
    causes = list(chain_of(error))
    of_system = [cause for cause in causes if isinstance(cause, (OSError, sqlite3.Error))]
    told = of_system[-1] if of_system else error
    text = f"{type(told).__name__}: {first_line(told) or first_line(error)}"
    return without_password(f"{text[:LONGEST_REASON]}{hint_for(told, causes)}")


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised for, outermost first, also where a library hides a cause in an attribute."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        inner = [
            found.__cause__,
            getattr(found, "reason", None),
            getattr(found, "original_error", None),
            *found.args,
            found.__context__,
        ]
        found = next((cause for cause in inner if isinstance(cause, BaseException) and id(cause) not in seen), None)


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


def hint_for(told: BaseException, causes: list[BaseException]) -> str:
    """What to do about the commonest problems with a server; empty for others."""
    if any(type(cause).__name__ == "ProxyError" for cause in causes):
        return " (through the proxy of HTTP_PROXY or HTTPS_PROXY; the host's name in NO_PROXY goes past it)"
    if "timed out" in str(told).lower():
        return HINTS[TimeoutError]
    return next((hint for kind, hint in HINTS.items() if isinstance(told, kind)), "")


def whole_story(error: BaseException, uri: str) -> str:
    """The error with its traceback, without passwords, for LASPS_LOG=DEBUG."""
    return hidden("".join(traceback.format_exception(error)), uri)
