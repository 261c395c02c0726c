"""A web server that takes webhooks, as somebody's would."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

SECRET = "the webhook's secret"


class Receiver(ThreadingHTTPServer):
    """Takes events, and answers what it was told to."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received, self.answers, self.hold = [], [], threading.Event()
        self.hold.set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hooks/mailing?key=in-the-url"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, dict(self.headers), body))
        self.server.hold.wait(20)
        self.send_response(self.server.answers.pop(0) if self.server.answers else 204)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def receiver(monkeypatch):
    with Receiver() as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        point_to(monkeypatch, receiver.url)
        yield receiver
        receiver.hold.set()
        receiver.shutdown()


def point_to(monkeypatch, url, secret=SECRET):
    connection = {"conn_type": "http", "host": url, "password": secret}
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_WEBHOOK", json.dumps(connection))
