"""Causes are told to the end, and no password in any form."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lasps.tracking.error_messages import hidden, reason_of, without_password
from lasps.tracking.location import Location, connect, location_of


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}.items():
        monkeypatch.setenv(name, value)


def failure(uri: str) -> str:
    with pytest.raises(Exception, match=r"\S") as caught:
        connect(location_of(uri)).search_experiments(max_results=1)
    return reason_of(caught.value)


def test_a_refused_connection_an_unknown_host_and_a_wrong_protocol_are_told_apart(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "refused" in failure(f"http://127.0.0.1:{port}") and "is the server running" in failure(
        f"http://127.0.0.1:{port}"
    )
    assert "DNS" in failure("http://no-such-host.invalid:5000")
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert "TLS" in failure(f"https://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()


def test_a_certificate_that_is_not_trusted_names_the_variable_that_helps():
    innermost = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")
    error = as_requests_raise_it(innermost)
    assert "CERTIFICATE_VERIFY_FAILED" in reason_of(error) and "MLFLOW_TRACKING_SERVER_CERT_PATH" in reason_of(error)


def test_a_proxy_in_the_way_is_named():
    from urllib3.exceptions import ProxyError

    error = as_requests_raise_it(ProxyError("Cannot connect to proxy.", OSError("Tunnel connection failed: 403")))
    assert "403" in reason_of(error) and "NO_PROXY" in reason_of(error)


def as_requests_raise_it(cause: Exception) -> Exception:
    """The chain of urllib3, requests and MLflow around a cause."""
    import requests
    from mlflow.exceptions import MlflowException
    from urllib3.exceptions import MaxRetryError

    try:
        try:
            raise requests.exceptions.ConnectionError(MaxRetryError(None, "/api/" + "x" * 300, cause))  # type: ignore[arg-type]
        except requests.exceptions.ConnectionError as error:
            raise MlflowException(f"API request failed with exception {error}")  # noqa: B904 (as MLflow does)
    except MlflowException as error:
        return error


ALL_ELSE = "http://alice:@host:5000 cannot open refused ='h', url /api"
PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\*"), min_size=3).filter(
    lambda text: len(set(text)) > 2 and text.strip("/@:?#") not in ALL_ELSE
)


@given(PASSWORDS, st.booleans(), st.sampled_from(["{uri}", "cannot open {uri}: refused", "host='h', url {uri}/api"]))
def test_a_password_of_any_characters_raw_or_quoted_is_in_no_text(password, quoted, text):
    uri = f"http://alice:{quote(password, safe='') if quoted else password}@host:5000"
    told = hidden(text.format(uri=uri), uri)
    assert password not in told and quote(password, safe="") not in told
    assert password not in Location(uri, Path("x"), None).shown_uri
    assert password not in Location(uri, Path("x"), None).bare_uri


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://alice:S3cretPW@h:1/x", "http://***@h:1/x"),
        ("http://alice:a@S3cretPW@h", "http://***@h"),
        ("http://alice:a/S3cretPW@h", "http://***@h"),
        ("sqlite:///s.db?password=S3cretPW&x=1", "sqlite:///s.db?password=***&x=1"),
        ("https://h/x?access_token=S3cretPW", "https://h/x?access_token=***"),
        ("sqlite:////home/me@corp/x.db", None),
        ("http://h:5000/a", None),
        ("mail me@corp", None),
    ],
)
def test_what_is_a_secret_goes_and_all_else_stays(text, expected):
    assert without_password(text) == (text if expected is None else expected)
