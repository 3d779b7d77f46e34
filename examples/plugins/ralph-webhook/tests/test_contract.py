"""The sink on the conformance kit, with a server on loopback that keeps what is posted to it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ralph_core import AuditRecord, Severity
from ralph_core.testing.packages import PluginContract
from ralph_core.testing.sinks import AuditSinkContract


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers["content-length"])
        self.server.got.append((dict(self.headers), json.loads(self.rfile.read(length))["records"]))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.answer = [], 204
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class TestPlugin(PluginContract):
    plugin = "webhook"


class TestSink(AuditSinkContract):
    provider = "webhook"

    @pytest.fixture
    def settings(self, server):
        return {"url": f"http://127.0.0.1:{server.server_port}/ralph", "headers": {"Authorization": "Bearer s"}}

    @pytest.fixture
    def kept(self, server):
        def kept(sink):
            records = [record for _, batch in server.got for record in batch]
            return [AuditRecord(**record | {"severity": Severity[record["severity"].upper()]}) for record in records]

        return kept

    def test_headers_are_sent(self, opened, server):
        opened().write([])
        assert [headers["Authorization"] for headers, _ in server.got] == ["Bearer s"]

    def test_any_other_answer_is_a_failure(self, opened, server):
        server.answer = 500
        with pytest.raises(OSError, match="500"):
            opened().write([])
