"""`make ui`: on this machine alone unless told otherwise, and whatever proxy, port or server is set."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from loguru import logger

from experiments import ui
from lasps.tracking.location import Location, local_location


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def healthy_port() -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_server_that_runs_is_found_whatever_proxy_is_set(healthy_port, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(ui, "START_SECONDS", 10.0)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as server:
        assert ui.wait_until_up(server, "127.0.0.1", healthy_port)
        assert ui.wait_until_up(server, "0.0.0.0", healthy_port)
        server.kill()


def test_a_server_that_ends_is_not_waited_for():
    with subprocess.Popen([sys.executable, "-c", "pass"]) as server:
        server.wait()
        assert not ui.wait_until_up(server, "127.0.0.1", 9)


@pytest.mark.parametrize("port", ["0", "-1", "99999", "65536", "five", ""])
def test_what_is_no_port_is_refused_at_once(port, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ui.py", "--port", port])
    with pytest.raises(SystemExit):
        ui.parse_args()
    assert "from 1 to 65535" in capsys.readouterr().err


def test_a_port_that_is_taken_and_an_address_of_another_machine_are_called_that(healthy_port):
    with pytest.raises(ValueError, match=f"port {healthy_port} .* is taken.*PORT="):
        ui.refuse_port("127.0.0.1", healthy_port)
    with pytest.raises(ValueError, match="HOST="):
        ui.refuse_port("192.0.2.1", healthy_port)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ui.refuse_port("127.0.0.1", port)


def test_the_loopback_is_the_default_and_leaves_mlflow_s_own_checks_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ui.py"])
    monkeypatch.setenv("HOST", "0.0.0.0")
    host = ui.parse_args().host
    assert host == "127.0.0.1" and ui.names_of(host) == []
    environment = ui.server_environment(local_location(tmp_path), host, 5000)
    assert "MLFLOW_SERVER_ALLOWED_HOSTS" not in environment
    assert not any("DISABLE_SECURITY" in name for name in environment)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.7.7"])
def test_another_host_opens_the_checks_to_this_machine_s_names_only(host, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_SERVER_ALLOWED_HOSTS", raising=False)
    environment = ui.server_environment(local_location(tmp_path), host, 5001)
    hosts = environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    origins = environment["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    assert f"{socket.gethostname()}:*" in hosts and f"http://{socket.gethostname()}:5001" in origins
    assert "*" not in hosts and "*" not in origins
    assert ("192.168.7.7" in hosts) == (host == "192.168.7.7")


def test_a_store_with_a_password_shows_it_in_no_command_line(tmp_path):
    location = Location("postgresql://me:S3cretPW@host/db", tmp_path, None)
    assert not any("S3cretPW" in word for word in ui.server_command(location, "127.0.0.1", 5000))
    assert ui.server_environment(location, "127.0.0.1", 5000)["MLFLOW_BACKEND_STORE_URI"] == location.uri


def test_for_a_tracking_server_its_address_is_said_and_nothing_is_started(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:S3cretPW@mlflow.corp:5000")
    monkeypatch.setattr(sys, "argv", ["ui.py"])
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    try:
        assert ui.main() == 0
    finally:
        logger.remove(sink)
    assert "https://mlflow.corp:5000" in lines[0] and "S3cretPW" not in "".join(lines)
