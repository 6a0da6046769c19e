"""The operators' commands: arguments checked, cards asked, every command answered."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.bus.engine import ToCard, ToOperator
from chassis.bus.messages import LogRecord, Reply, Request, Stamp, TraceStamps
from tests.support import odd
from tests.support.xcrp import HIGH_AVAILABILITY, Node, booted


@pytest.fixture
def node() -> Node:
    return booted()


def refused(node: Node, command: Any, arguments: Any) -> str:
    assert node.controller is not None
    outputs = node.controller.on_operator_command(3, command, arguments, node.now)
    answers = [output for output in outputs if isinstance(output, ToOperator)]
    assert len(outputs) == len(answers) == 1
    assert answers[0].number == 3
    assert answers[0].last
    return answers[0].error


@pytest.mark.parametrize(("command", "arguments", "text"), [
    ("polity", {}, "does not know 'polity': it knows administrators, alarms, apply"),
    (None, {}, "does not know None"),
    ("status", [], "arguments are a map"),
    ("status", {"x": 1}, "no argument 'x'"),
    ("apply", {}, "'text' is missing"),
    ("apply", {"text": 5}, "'text' is 5, not a text"),
    ("apply", {"text": "", "dry": "no"}, "'dry' is 'no', not true or false"),
    ("routes", {"context": "nowhere"}, "no context 'nowhere'; there are: local, C1"),
    ("trace", {"count": 0}, "'count' is 0"),
    ("trace", {"count": True}, "'count' is True"),
    ("trace", {"source": "1.2.3"}, "not an IPv4 address"),
    ("trace", {"port": "9/1"}, "no line card holds port '9/1'"),
    ("ping", {"context": "C1"}, "'address' is missing"),
    ("ping", {"context": "C1", "address": "x"}, "not an IPv4 address"),
    ("ping", {"context": "C1", "address": "1.1.1.1", "count": 0}, "not a whole number from 1 to"),
    ("ping", {"context": "C1", "address": "1.1.1.1", "size": -1}, "size"),
    ("link", {"loss": 0.1}, "'port' is missing"),
    ("link", {"port": "3/1", "loss": [1]}, "'loss' is a list"),
    ("inject", {"port": "3/1"}, "'file' is missing"),
    ("capture", {"what": "asp 9/9", "file": "/x"}, "no card 'asp 9/9'"),
    ("capture", {"what": "asp 9/9 inner", "file": "/x"}, "no card 'asp 9/9'"),
    ("capture", {"what": "lc 3 inner", "file": "/x"}, "'lc 3' has no inner side"),
    ("capture", {"what": "asp 1/1", "file": "/x", "snaplen": "all"}, "snaplen"),
    ("capture-stop", {"file": "/nowhere"}, "no capture into"),
    ("neighbours", {"card": "lc 9"}, "no card 'lc 9'"),
])  # fmt: skip
def test_what_is_refused(node: Node, command: Any, arguments: Any, text: str) -> None:
    assert text in refused(node, command, arguments)


@pytest.mark.parametrize(("command", "arguments"), [
    ("link", {"port": "3/11", "seed": 2**64}),
    ("link", {"port": "3/11", "seed": -(2**63) - 1}),
    ("link", {"port": "3/11", "loss": "\ud800"}),
    ("link", {"port": "3/11", "delay": float("nan")}),
    ("link", {"port": "3/11", "\ud800": 1}),
    ("inject", {"port": "3/11", "file": "/\udcff"}),
    ("inject", {"port": "3/11", "file": "/x", "seconds": 10**400}),
    ("capture", {"what": "port 3/11", "file": "/\ud800"}),
    ("capture", {"what": "port 3/11", "file": "/x", "snaplen": 2**64}),
    ("capture-stop", {"what": "fabric \ud800"}),
    ("trace", {"protocol": 2**64}),
    ("log", {"since": 10**400}),
    ("events", {"since": 10**400}),
    ("ping", {"context": "C1", "address": "1.1.1.1", "timeout": 10**400}),
    ("apply", {"text": "!\ud800\n"}),
    ("apply", {"text": "", "file": "\udcff.cfg"}),
    ("clear", {"tunnel": []}),
])  # fmt: skip
def test_odd_arguments_are_refused_and_the_controller_goes_on(
    node: Node, command: str, arguments: dict[str, Any]
) -> None:
    controller, before = node.controller, node.state["journal"]
    assert controller is not None
    outputs = odd.survived(controller.on_operator_command, 3, command, arguments, node.now)
    odd.survived(node.perform, outputs)
    assert node.answers[-1].number == 3
    assert node.answers[-1].error
    assert node.state["journal"] == before
    assert node.ask("status")["tunnels"]


def test_a_fault_of_the_controller_is_an_answer_and_a_line_of_its_log(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.xcrp.show.routes", lambda *arguments: {}["a secret"])
    assert node.controller is not None
    outputs = odd.survived(node.controller.on_operator_command, 3, "routes", {}, node.now)
    assert [output.error.partition(" at ")[0] for output in outputs] == ["routes: internal error: KeyError"]
    said = node.ask("log")["records"][-1]
    assert (said["severity"], said["text"]) == ("error", outputs[0].error)
    assert "secret" not in said["text"]


def test_requests_go_to_the_right_cards(node: Node) -> None:
    asked: list[tuple[str, Request]] = []
    node.watch = lambda output: (
        asked.append((output.card, output.message)) if isinstance(output.message, Request) else None
    )

    def cards(command: str, **arguments: Any) -> list[str]:
        asked.clear()
        node.ask(command, **arguments)
        return [card for card, _ in asked]

    assert cards("link", port="3/11", loss=0.01) == ["lc 3"]
    assert asked[0][1].arguments == {"port": "3/11", "loss": 0.01}
    assert cards("inject", port="4/1", file="/tmp/x.pcapng", seconds=5) == ["lc 4"]
    assert cards("capture", what="port 3/11", file="/tmp/a.pcapng") == ["lc 3"]
    assert asked[0][1].arguments == {"what": "port 3/11", "file": "/tmp/a.pcapng", "snaplen": 0, "clear": False}
    assert cards("capture-stop", file="/tmp/a.pcapng") == ["lc 3"]
    assert cards("capture", what="asp 2/1", file="/tmp/b.pcapng") == ["asp 2/1"]
    assert asked[0][1].arguments["what"] == "fabric"
    assert cards("capture", what="asp 2/1 inner", file="/tmp/d.pcapng", snaplen=96) == ["asp 2/1"]
    assert asked[0][1].arguments == {"what": "inner", "file": "/tmp/d.pcapng", "snaplen": 96, "clear": False}
    assert cards("capture-stop", what="asp 2/1 outer") == ["asp 2/1"]
    assert asked[0][1].arguments["what"] == "outer"
    assert cards("capture", what="fabric lc 4", file="/tmp/c.pcapng") == ["lc 4"]
    assert cards("capture-stop", what="fabric lc 4") == ["lc 4"]
    assert cards("ping", context="L2", address="5.5.5.5") == ["lc 4"]
    assert cards("ping", context="C1", address="172.168.3.1") == ["lc 3"]
    assert cards("ping", context="L1", address="99.9.9.9") == ["lc 3"]
    assert cards("trace", count=2, context="C1", destination="172.168.3.9") == ["lc 3"]
    assert asked[0][1].arguments["port"] == "3/1"
    assert cards("trace", count=2, protocol=50) == ["lc 3", "lc 4"]
    first, second = (request.arguments for _, request in asked)
    assert second["number"] == first["number"] + 2  # type: ignore[operator]
    assert (first["protocol"], first["port"]) == (50, "")
    assert sorted(node.ask("neighbours")["cards"]) == ["lc 3", "lc 4"]


def captures(node: Node) -> list[tuple[str, dict[str, Any]]]:
    """What cards are asked to capture from now on; each says that it does."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def watch(output: ToCard) -> None:
        if isinstance(output.message, Request) and output.message.name == "capture":
            asked.append((output.card, dict(output.message.arguments)))

    node.watch = watch
    return asked


def test_captures_go_on_with_the_next_start_of_their_card(node: Node) -> None:
    asked = captures(node)
    node.ask("capture", what="port 3/11", file="/tmp/a.pcapng", snaplen=96)
    node.ask("capture", what="port 3/11", file="/tmp/b.pcapng", snaplen=96)
    node.ask("capture", what="port 3/1", file="/tmp/c.pcapng")
    node.ask("capture", what="port 4/1", file="/tmp/d.pcapng")
    node.ask("capture-stop", file="/tmp/c.pcapng")
    asked.clear()
    # One that only hung still captures.
    node.stop_card("lc 3")
    node.run(0.6)
    node.continue_card("lc 3", 0.6)
    node.run(0.6)
    assert node.card("lc 3")["usable"]
    assert asked == []
    for _ in range(2):
        node.kill_card("lc 3")
        node.start_card("lc 3")
        node.run(0.1)
    again = {"what": "port 3/11", "file": "/tmp/b.pcapng", "snaplen": 96, "clear": False, "append": True}
    assert asked == [("lc 3", again), ("lc 3", again)]
    assert "lc 3: boot 3 goes on with the capture into /tmp/b.pcapng" in node.events()
    assert node.ask("capture-stop", file="/tmp/b.pcapng")["interrupted"] == 2
    node.kill_card("lc 4")
    stopped = node.ask("capture-stop", what="port 4/1", file="/tmp/d.pcapng")
    assert (stopped["stopped"], stopped["interrupted"], stopped["error"]) == (False, 0, "lc 4 is absent")
    node.start_card("lc 4")
    node.run(0.1)
    assert len(asked) == 2


def test_a_capture_that_cannot_go_on_has_ended_and_one_that_never_began_is_none(node: Node) -> None:
    asked = captures(node)
    node.ask("capture", what="port 3/11", file="/tmp/b.pcapng")
    node.refusal = "it is not there"
    with pytest.raises(LookupError, match="it is not there"):
        node.ask("capture", what="port 4/99", file="/tmp/a.pcapng")
    asked.clear()
    for card in ("lc 3", "lc 4"):
        node.kill_card(card)
        node.start_card(card)
        node.run(0.1)
    assert [card for card, _ in asked] == ["lc 3"]
    assert "lc 3: the capture into /tmp/b.pcapng has ended: it is not there" in node.events()
    node.refusal = ""
    node.kill_card("lc 3")
    node.start_card("lc 3")
    node.run(0.1)
    assert len(asked) == 1
    stopped = node.ask("capture-stop", file="/tmp/b.pcapng")
    assert (stopped["interrupted"], stopped["error"]) == (1, "it is not there")


def test_a_card_that_dies_or_is_silent_is_an_error_not_a_wait(node: Node) -> None:
    assert node.controller is not None
    node.stop_card("lc 3")
    outputs = node.controller.on_operator_command(9, "ping", {"context": "L1", "address": "4.4.4.4"}, node.now)
    assert not any(isinstance(output, ToOperator) for output in outputs)
    node.run(0.6)
    assert [(a.number, a.error, a.last) for a in node.answers if a.number == 9] == [
        (9, "lc 3: lc 3 is down", True)
    ]
    node.stop_card("lc 4")
    node.controller.on_operator_command(10, "link", {"port": "4/1", "down": True}, node.now)
    node.stopped.discard("lc 4")
    node.run(11)
    assert [a.error for a in node.answers if a.number == 10] == ["lc 4: no answer in time"]


def test_a_ping_is_answered_reply_by_reply(node: Node) -> None:
    assert node.controller is not None
    outputs = node.controller.on_operator_command(9, "ping", {"context": "L1", "address": "4.4.4.4"}, node.now)
    request = next(output.message for output in outputs if isinstance(getattr(output, "message", None), Request))
    for card, last, expected in (("lc 3", False, 1), ("lc 4", False, 0), ("lc 3", True, 1), ("lc 3", True, 0)):
        reply = Reply(request.number, {"sequence": 1}, "", last)
        got = node.controller.receive(card, reply, node.now)
        assert len(got) == expected
        assert all(isinstance(output, ToOperator) and output.last == last for output in got)


def test_log_events_and_traces(node: Node) -> None:
    assert node.controller is not None
    record = LogRecord(5.0, "warning", "arp", "", "no answer from 4.4.4.4", {"port": "3/11"})
    node.perform(node.controller.receive("lc 3", record, node.now))
    assert [row["text"] for row in node.ask("log")["records"]] == [record.text]
    assert node.ask("log", since=6)["records"] == []
    stamps = TraceStamps((Stamp(7, "3/11 out", 2.0), Stamp(7, "3/1 in", 1.0)))
    node.perform(node.controller.receive("lc 3", stamps, node.now))
    assert node.ask("traces")["traces"] == [
        {"number": 7, "stamps": [{"step": "3/1 in", "time": 1.0}, {"step": "3/11 out", "time": 2.0}]}
    ]
    events = node.ask("events")["events"]
    assert "tunnel Tun-1 up" in [event["text"] for event in events]
    assert node.ask("events", since=node.now + 1)["events"] == []


def test_traces_are_bounded(node: Node) -> None:
    assert node.controller is not None
    for number in range(1500):
        node.controller.receive("lc 3", TraceStamps((Stamp(number, "3/1 in", 1.0),)), node.now)
    traces = node.ask("traces")["traces"]
    assert len(traces) == 1000
    assert traces[-1]["number"] == 1499


def test_config_is_given_back_as_commands(node: Node) -> None:
    text = node.ask("config")["text"]
    assert "tunnel ipsec Tun-1 manual" in text
    assert node.ask("apply", text=text)["changes"] == []


def test_bad_messages_end_nothing(node: Node) -> None:
    assert node.controller is not None
    before = node.ask("status")
    node.perform(node.controller.on_undecodable("lc 3", "no such type", node.now))
    node.perform(node.controller.on_undecodable("", "no such type", node.now))
    node.perform(node.controller.receive("lc 99", Stamp(1, "", 0.0), node.now))  # type: ignore[arg-type]
    node.perform(node.controller.receive("lc 3", Request(1, "x", {}), node.now))
    node.perform(node.controller.receive("lc 3", Reply(12345, {}), node.now))
    node.perform(node.controller.on_card_died("nobody", 1, node.now))
    node.perform(node.controller.on_card_started("nobody", 1, 1, node.now))
    node.perform(node.controller.on_connection_lost("nobody", node.now))
    after = node.ask("status")
    assert after["tunnels"] == before["tunnels"]
    assert after["ignored_messages"] == {
        "undecodable message": 2,
        "message of an unknown card": 1,
        "message of an unknown type": 1,
    }


def test_a_record_says_what_it_is_about_and_outlives_its_controller(node: Node) -> None:
    assert node.controller is not None
    tunnel = node.controller.node.plan.config.tunnels["Tun-1"]
    for values in ({"tunnel": "Tun-1"}, {"context": node.controller.node.plan.contexts["L1"]}, {"tunnel": "none"}):
        record = LogRecord(node.now, "error", "ike", "x", "said", values)
        node.perform(node.controller.receive("lc 3", record, node.now))
    rows = node.ask("log", facility="ike")["records"]
    assert [row["values"].get("context") for row in rows] == [tunnel.interface_context, "L1", None]
    assert rows[0]["context_id"] & 0xFFFF
    assert not rows[2]["context_id"]
    assert rows[0]["circuit"].endswith(f"/{node.tunnel('Tun-1')['circuit']}")
    node.run(1.0)
    node.kill_controller()
    node.start()
    node.run(10.0)
    again = node.ask("log", facility="ike")["records"]
    assert [{**row, "time": 0} for row in again] == [{**row, "time": 0} for row in rows]
    assert [row["time"] for row in again] == pytest.approx([row["time"] for row in rows])
    assert node.ask("log", after=rows[1]["number"], facility="ike", last=1)["records"] == again[2:]
    node.ask("clear-log")
    node.kill_controller()
    node.start()
    node.run(10.0)
    assert node.ask("log", facility="ike")["records"] == []


def test_what_goes_to_a_monitor_and_to_the_console_follows_the_configuration() -> None:
    node = booted(f"{HIGH_AVAILABILITY}\ncontext L1\n logging console\n!\nlogging filter console 4\n")
    assert node.controller is not None
    last = node.ask("log")["number"]
    for severity, context in (("error", "L1"), ("informational", "L1"), ("error", "C1"), ("warning", "")):
        values = {"context": context} if context else {}
        node.perform(
            node.controller.receive("lc 3", LogRecord(node.now, severity, "t", "", context, values), node.now)
        )

    def shown(where: str) -> list[str]:
        return [row["text"] for row in node.ask("log", after=last, facility="t", shown=where)["records"]]

    assert shown("log") == ["L1", "L1", "C1", ""]
    assert shown("monitor") == ["L1", "C1", ""]
    assert shown("console") == ["L1"]


def test_the_size_of_the_log_and_its_file_follow_the_configuration() -> None:
    node = booted(HIGH_AVAILABILITY)
    assert node.controller is not None

    def log(count: int) -> int:
        assert node.controller is not None
        for number in range(count):
            record = LogRecord(node.now, "error", "t", f"k{number}", "said", {})
            node.perform(node.controller.receive("lc 3", record, node.now))
        node.run(1.0)
        return len(node.ask("log", facility="t")["records"])

    assert log(150) == 150
    written = node.state["log.jsonl"]
    assert written.count(b'"t"') == 150
    node.ask("apply", text=f"{HIGH_AVAILABILITY}\nlogging ring-size 100\nno logging file\n")
    node.run(1.0)
    assert log(1) <= 100
    assert node.state["log.jsonl"] == b""
