"""Spans and metrics sent to collectors by OTLP: genuine receivers of both protocols, dead ones, hanging ones, and a genuine agent's spans."""

import gzip
import http.server
import os
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from ralph_core.testing.messages_api import MessagesAPI, Reply, text, tool_use

DONE = "cat > /dev/null; echo LOOP_COMPLETE"
BOUND = 15
"""Seconds within which a run of an instant has to end whatever its collector does; it takes about one."""


class Received:
    """What a receiver was sent."""

    def __init__(self):
        self.spans, self.points = [], []

    def traces(self, request):
        for resource in request.resource_spans:
            attributes = values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [(attributes, span) for span in scope.spans]

    def metrics(self, request):
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    data = getattr(metric, metric.WhichOneof("data"))
                    self.points += [(metric.name, values(point.attributes), point) for point in data.data_points]

    def named(self, name):
        return [span for _, span in self.spans if span.name == name]


class HTTPReceiver(Received):
    """OTLP over HTTP: protobuf, and JSON, which other senders than Ralph may choose."""

    protocol = "http/protobuf"

    def __init__(self):
        super().__init__()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.body()
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                kinds = {
                    "/v1/traces": (trace_service_pb2.ExportTraceServiceRequest, outer.traces),
                    "/v1/metrics": (metrics_service_pb2.ExportMetricsServiceRequest, outer.metrics),
                }
                if self.path in kinds:
                    kind, take = kinds[self.path]
                    take(kind.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def body(self):
                """Whole, or in chunks, as Node sends it."""
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers["Content-Length"]))
                chunks = []
                while size := int(self.rfile.readline(), 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class GRPCReceiver(Received):
    """OTLP over gRPC."""

    protocol = "grpc"

    def __init__(self):
        super().__init__()
        import grpc

        outer = self

        class Traces(trace_service_pb2_grpc.TraceServiceServicer):
            def Export(self, request, _context):
                outer.traces(request)
                return trace_service_pb2.ExportTraceServiceResponse()

        class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
            def Export(self, request, _context):
                outer.metrics(request)
                return metrics_service_pb2.ExportMetricsServiceResponse()

        self.server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), self.server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), self.server)
        self.endpoint = f"http://127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def close(self):
        self.server.stop(0).wait()


def values(attributes):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def standard(receiver, **more):
    """The standard variables that name a receiver."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": receiver.protocol, **more}


@pytest.fixture(params=[HTTPReceiver, GRPCReceiver], ids=["http", "grpc"])
def receiver(request):
    receiver = request.param()
    yield receiver
    receiver.close()


@pytest.fixture
def http_receiver():
    receiver = HTTPReceiver()
    yield receiver
    receiver.close()


class TestSpans:
    def test_arrive_as_they_are_in_the_file(self, ralph, receiver):
        ralph.settings("gates: ['true']\n")
        env = standard(receiver, OTEL_SERVICE_NAME="night-shift")
        done = ralph.run(ralph.agent("echo one", "echo LOOP_COMPLETE"), env=env)
        assert done.returncode == 0, done.stderr
        kept = {span["span_id"]: span for span in ralph.spans()}
        arrived = {span.span_id.hex(): span for _, span in receiver.spans}
        assert arrived.keys() == kept.keys()
        for name, span in arrived.items():
            assert span.parent_span_id.hex() == kept[name]["parent_id"]
            assert span.trace_id.hex() == kept[name]["trace_id"]
            assert span.name == kept[name]["name"]
            assert values(span.attributes) == kept[name]["attributes"]
            assert (span.start_time_unix_nano, span.end_time_unix_nano) == (kept[name]["start"], kept[name]["end"])
        resources = {(resource["service.name"], resource["ralph.run"]) for resource, _ in receiver.spans}
        assert resources == {("night-shift", ralph.folder.name)}
        names = {span.span_id: span.name for span in arrived.values()}
        parents = {(span.name, names.get(span.parent_span_id)) for span in arrived.values()}
        assert {
            ("ralph.run", None),
            ("ralph.iteration", "ralph.run"),
            ("invoke_agent command", "ralph.iteration"),
            ("gate", "ralph.run"),
            ("checkpoint", "ralph.run"),
            ("ralph_choose_agent builtin", "ralph_choose_agent"),
        } <= parents
        (invoked, _) = receiver.named("invoke_agent command")
        assert invoked.kind == 3, "a client: what it starts is another process"

    def test_no_secret_is_in_them(self, ralph, receiver):
        secret = "sk-very-secret-0123456789"
        ralph.settings(f"agents: {{command: {{output: events}}}}\ngates: ['echo {secret}']\nprompt: {secret}.md\n")
        ralph.plugin("leaky", f"from ralph_core import hookimpl\n@hookimpl\ndef ralph_classify_failure(): raise ValueError('{secret}')\n")  # fmt: skip
        call = f"""echo '{{"type": "tool_call", "id": "{secret}", "name": "Edit {secret}"}}'; echo '{{"type": "tool_result", "id": "{secret}"}}'"""
        agent = ralph.agent(f"""{call}; echo '{{"type": "failed", "kind": "agent", "message": "{secret}"}}'""")
        env = standard(receiver, ACME_API_KEY=secret, OTEL_RESOURCE_ATTRIBUTES=f"key={secret}")
        assert ralph.run(agent, env=env).returncode == 1
        sent = "".join(f"{resource}{span}" for resource, span in receiver.spans)
        assert "execute_tool Edit [redacted]" in sent
        assert "ralph_classify_failure leaky" in sent
        assert secret not in sent

    @pytest.mark.parametrize("env", [{"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_SAMPLER": "always_off"}])  # fmt: skip
    def test_export_can_be_switched_off(self, ralph, http_receiver, env):
        assert ralph.run(DONE, env=standard(http_receiver, **env)).returncode == 0
        assert http_receiver.spans == []
        assert ralph.spans()

    def test_the_trace_that_ralph_is_started_in_goes_on(self, ralph):
        trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        assert ralph.run(DONE, env={"TRACEPARENT": f"00-{trace}-{parent}-01"}).returncode == 0
        spans = ralph.spans()
        assert {span["trace_id"] for span in spans} == {trace}
        assert next(span for span in spans if span["name"] == "ralph.run")["parent_id"] == parent
        assert [span["name"] for span in spans if span["parent_id"] == parent] == ["ralph.run"]

    @pytest.mark.parametrize("words", ["nonsense", "00-0-0-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
    def test_a_trace_that_is_none_is_left_alone(self, ralph, words):
        assert ralph.run(DONE, env={"TRACEPARENT": words}).returncode == 0
        assert next(span for span in ralph.spans() if span["name"] == "ralph.run")["parent_id"] == ""

    def test_the_agent_is_told_the_way_back_to_its_span(self, ralph):
        agent = ralph.agent("echo one", "echo LOOP_COMPLETE")
        ralph.run(agent, env={"OTEL_SERVICE_NAME": "night-shift", "OTEL_RESOURCE_ATTRIBUTES": "a=b"})
        invoked = [span for span in ralph.spans() if span["name"] == "invoke_agent command"]
        told = [agent.environment(number)["TRACEPARENT"] for number in (1, 2)]
        assert [words[:-3] for words in told] == [f"00-{span['trace_id']}-{span['span_id']}" for span in invoked]
        assert all(int(words[-2:], 16) & 1 for words in told)  # sampled
        assert "OTEL_SERVICE_NAME" not in agent.environment()
        assert agent.environment()["OTEL_RESOURCE_ATTRIBUTES"] == "a=b"


class TestFigures:
    USED = """echo '{"type": "usage", "message_id": "m", "tokens": {"input": 100, "output": 10}, "cost": 0.5}'; echo '{"type": "finished", "text": "LOOP_COMPLETE"}'"""

    def check(self, points):
        found = {(name, tuple(labels.items())): point for name, labels, point in points}
        assert found["ralph.iterations", ()].as_int == 1
        assert found["ralph.cost.usd", ()].as_double == 0.5
        assert found["ralph.tokens", (("type", "input"),)].as_int == 100
        duration = found["ralph.iteration.duration", (("ralph.result", "finished"),)]
        assert (duration.count, list(duration.explicit_bounds)[-1]) == (1, 3600)

    def test_arrive_by_the_standard_variables(self, ralph, receiver):
        ralph.settings("agents: {command: {output: events}}\n")
        assert ralph.run(self.USED, env=standard(receiver)).returncode == 0
        self.check(receiver.points)

    def test_arrive_where_the_settings_say(self, ralph, http_receiver):
        ralph.settings(
            f"agents: {{command: {{output: events}}}}\nmonitoring: {{metrics_endpoint: '{http_receiver.endpoint}'}}\n"
        )
        assert ralph.run(self.USED).returncode == 0
        self.check(http_receiver.points)
        assert http_receiver.spans == []

    def test_can_be_switched_off(self, ralph, http_receiver):
        assert ralph.run(DONE, env=standard(http_receiver, OTEL_METRICS_EXPORTER="none")).returncode == 0
        assert http_receiver.points == []
        assert http_receiver.spans


class TestCollectorsThatFail:
    """Neither the outcome of a run nor, by much, its time depends on them; and what they did not take is said once."""

    @pytest.fixture(params=["http/protobuf", "grpc"])
    def protocol(self, request):
        return request.param

    def check(self, ralph, address, protocol):
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{address[1]}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        }
        started = time.monotonic()
        done = ralph.run(DONE, env=env)
        assert done.returncode == 0
        assert time.monotonic() - started < BOUND
        assert "completed" in done.stdout
        assert "spans were not exported" in done.stdout
        assert "Traceback" not in done.stderr
        assert "OTLP" not in done.stderr
        assert "opentelemetry" not in done.stderr
        assert ralph.spans()

    def test_a_dead_one(self, ralph, protocol):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # nobody listens there
            self.check(ralph, taken.getsockname(), protocol)

    def test_one_that_hangs(self, ralph, protocol):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            self.check(ralph, silent.getsockname(), protocol)

    def test_an_exporter_that_is_not_there_is_a_note(self, ralph):
        done = ralph.run(DONE, env={"OTEL_TRACES_EXPORTER": "no-such-exporter"})
        assert done.returncode == 0
        assert "spans are not exported: exporter 'no-such-exporter'" in done.stdout


@pytest.fixture
def claude():
    local = Path(__file__).parents[1] / ".tools/node_modules/.bin/claude"
    found = os.environ.get("RALPH_TEST_CLAUDE") or (str(local) if local.exists() else shutil.which("claude"))
    if not found or not shutil.which(found):
        pytest.skip("no genuine Claude Code (npm install @anthropic-ai/claude-code, or RALPH_TEST_CLAUDE)")
    return found


@pytest.mark.real_cli
class TestClaudeCode:
    def test_its_own_spans_hang_below_the_agents(self, ralph, claude, http_receiver):
        ralph.settings(f"agents: {{claude: {{executable: {claude}}}}}\n")
        write = tool_use("Write", {"file_path": f"{ralph.workspace}/piece.txt", "content": "piece\n"})
        with MessagesAPI([Reply([text("I write."), write]), Reply([text("LOOP_COMPLETE")])]) as api:
            env = standard(http_receiver, **api.env("sk-ant-test"), OTEL_BSP_SCHEDULE_DELAY="200")
            done = ralph("run", "-a", "claude", "-p", "anything", env=env, limit=90)
        assert done.returncode == 0, done.stdout
        (invoked,) = http_receiver.named("invoke_agent claude")
        theirs = [span for resource, span in http_receiver.spans if resource["service.name"] != "ralph"]
        assert {span.trace_id for span in theirs} == {invoked.trace_id}
        known = {span.span_id: span.name for _, span in http_receiver.spans}
        assert {(span.name, known.get(span.parent_span_id)) for span in theirs} >= {
            ("claude_code.interaction", "invoke_agent claude"),
            ("claude_code.llm_request", "claude_code.interaction"),
            ("claude_code.tool", "claude_code.interaction"),
        }

    def test_it_sends_none_when_nothing_is_exported(self, ralph, claude, http_receiver):
        ralph.settings(f"agents: {{claude: {{executable: {claude}}}}}\n")
        with MessagesAPI([Reply([text("LOOP_COMPLETE")])]) as api:
            env = standard(
                http_receiver, **api.env("sk-ant-test"), OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none"
            )
            assert ralph("run", "-a", "claude", "-p", "anything", env=env, limit=90).returncode == 0
        assert http_receiver.spans == []
