"""IKEv2 and the world around it: NAT, cookies, fragments, silence, lifetimes, nonsense."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.ase.ike.host import IkeSettings, Path
from chassis.ase.ike.identity import Identity
from chassis.ase.ike.payloads.chain import Unknown
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import NotifyTypeV2
from chassis.ase.ike.payloads.v2 import MessageV2
from chassis.ase.ike.payloads.v2_payloads import Encrypted, NonceV2, NotifyV2, TrafficSelector
from chassis.ase.ike.traffic_selectors import EVERYTHING, MAX_RULES, narrow
from chassis.ase.ike.v2.cookies import ROTATION, Jar
from chassis.ase.ike.v2.ike_sa import MESSAGE_ID_REKEY_THRESHOLD, Task
from tests.support.ike.v2_pair import A, B, End, Net, both, established, line, suite
from tests.support.ike.v2_stores import ends

# fragments


def largest(net: Net) -> list[int]:
    sizes: list[int] = []

    def hook(sender: End, data: bytes, header: Header) -> float:
        sizes.append(len(data))
        return 0.0

    net.hook = hook
    return sizes


def test_long_messages_go_in_fragments() -> None:
    net = Net(*ends("rsa", "rsa"), settings=IkeSettings(fragment=576))  # type: ignore[arg-type]
    sizes = largest(net)
    net.a.begin()
    net.run(1)
    net.agree()
    assert max(sizes) <= 576


def test_lost_and_swapped_fragments_are_made_good() -> None:
    net = Net(*ends("rsa", "rsa"), settings=IkeSettings(fragment=400), seed=5)  # type: ignore[arg-type]

    def hook(sender: End, data: bytes, header: Header) -> float | None:
        return None if net.random.random() < 0.15 else net.random.random() / 10

    net.hook = hook
    net.a.begin()
    net.run(25)
    net.agree()


def again_and_otherwise(net: Net, parts: int) -> list[bytes]:
    """A rekey of a's whose request reaches b, while the answer gets lost: the request again, cut into `parts`."""
    sent: list[bytes] = []

    def hook(sender: End, data: bytes, header: Header) -> float | None:
        if sender is net.b:
            return None
        if not sent:
            sent.append(data)
            return 0.0
        return None

    net.hook = hook
    net.a.session.negotiate(net.a.connections[0].lines[0], 1, net.now)
    net.run(0.1)
    (request,) = sent
    message = MessageV2.parse(request)
    payloads = net.b.session.ike_keymat.receiving.decrypt(request, message)
    guard = net.a.session.ike_keymat.sending
    if parts == 1:
        return [guard.encrypt(message.header, payloads, net.random.randbytes(16))]
    for room in range(len(request), 100, -1):
        cut = guard.encrypt_fragments(message.header, payloads, room, net.random.randbytes(64 * 16))
        if len(cut) == parts:
            return list(cut)
    raise AssertionError(f"no {parts} fragments")


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_request_that_comes_again_in_other_fragments_is_answered_again(parts: int) -> None:
    """A peer whose whole request, or our answer, got lost may try smaller datagrams (RFC 7383 2.5.2, 2.6.1)."""
    net = established()
    cut = again_and_otherwise(net, parts)
    answers = []

    def hook(sender: End, data: bytes, header: Header) -> float | None:
        answers.append(data)
        return 0.0 if sender is net.b else None

    net.hook = hook
    where = Path(1, B, 500, A, 500)
    for data in (*cut[1:], cut[0]):
        assert not answers
        net.b.receive(where, data)
    assert len(answers) == 1
    net.hook = None
    net.run(2)
    net.agree()
    assert [pair.install.replaces for pair in net.a.pairs.values()] == [1]


def test_only_what_the_peer_made_is_taken_for_its_request_come_again() -> None:
    net = established()
    cut = again_and_otherwise(net, 2)
    answers = largest(net)
    where = Path(1, B, 500, A, 500)
    for data in cut:
        net.b.receive(where, data[:-1] + bytes((data[-1] ^ 1,)))
    assert not answers
    assert net.b.counts["integrity failures"] == 1, "the second fragment alone brings nothing, so it is not opened"


def test_a_forged_request_between_two_fragments_does_not_keep_the_real_one_from_being_answered_again() -> None:
    net = established(net={"settings": IkeSettings(fragment=200)})
    where = Path(1, B, 500, A, 500)
    forged: list[bytes] = []
    lost: list[bytes] = []

    def hook(sender: End, data: bytes, header: Header) -> float | None:
        if sender is net.b and len(lost) < 2:
            lost.append(data)
            return None
        if sender is net.a and not forged:
            head = replace(header, next_payload=0)
            forged.append(MessageV2(head, (Encrypted(40, net.random.randbytes(80)),)).emit())
            net.at(net.now + 0.015, lambda: net.b.receive(where, forged[0]))
            return 0.0
        return 0.01 if sender is net.a else 0.0

    net.hook = hook
    net.a.session.negotiate(net.a.connections[0].lines[0], 1, net.now)
    net.run(3)
    assert net.b.counts["integrity failures"] == 1
    assert len(lost) == 2
    net.agree()
    assert [pair.install.replaces for pair in net.a.pairs.values()] == [1]


# NAT


def test_behind_a_nat_the_ends_float_and_the_peers_new_port_is_followed() -> None:
    net = Net(*both(identity=Identity.of("a"), expected=Identity.of("a")), nat=(0x0B000001, 30000))
    net.a.begin()
    net.run(1)
    net.agree()
    assert net.a.session.describe()["nat_here"]
    assert net.b.session.describe()["nat_there"]
    (ours,), (theirs,) = net.a.pairs.values(), net.b.pairs.values()
    assert ours.install.encapsulation[0].remote_port == 4500
    assert (theirs.install.remote, theirs.install.encapsulation[0].remote_port) == (0x0B000001, 34500)
    net.run(100)
    assert net.b.counts["keepalives in"] >= 4
    net.nat = (0x0B000001, 40000)
    net.a.session.negotiate(net.a.connections[0].lines[0], 1, net.now)
    net.run(2)
    net.agree()
    assert net.b.session.path.remote_port == 44500
    assert all(pair.install.encapsulation[0].remote_port == 44500 for pair in net.b.pairs.values())


def test_an_answer_from_another_port_of_a_nat_moves_the_peer_too() -> None:
    """The NAT forgets a's port while a request of b's is on its way: its pair goes to the new one."""
    net = Net(*both(identity=Identity.of("a"), expected=Identity.of("a")), nat=(0x0B000001, 30000))
    net.a.begin()
    net.run(1)

    def hook(sender: End, data: bytes, header: Header) -> float:
        if sender is net.a:
            net.nat = (0x0B000001, 40000)
        return 0.0

    net.hook = hook
    net.b.session.negotiate(net.b.connections[0].lines[0], 1, net.now)
    net.run(2)
    net.agree()
    assert net.b.session.path.remote_port == 44500
    assert [pair.install.encapsulation[0].remote_port for pair in net.b.pairs.values()] == [44500]


def test_ah_cannot_pass_a_nat() -> None:
    made = both(line(10, suite("hmac-sha1-96")), identity=Identity.of("a"), expected=Identity.of("a"))
    net = Net(*made, nat=(0x0B000001, 30000))
    net.a.begin()
    net.run(40)
    net.nothing()
    assert "AH cannot pass the NAT" in net.a.failures[0][0].text


# cookies


def test_a_cookie_is_demanded_and_brought_back() -> None:
    net = Net(*both())
    jar = Jar(net.random.randbytes, net.now)
    demanded: list[bytes] = []

    def hook(sender: End, data: bytes, header: Header) -> float | None:
        if sender is net.a and header.exchange == 34:
            path, message = Path(1, B, 500, A, 500), MessageV2.parse(data)
            if not jar.valid(message, path, net.now):
                answer = jar.demand(message, path, net.now)
                assert answer is not None
                assert len(answer) < len(data)
                demanded.append(answer)
                net.at(net.now, lambda: net.a.receive(Path(1, A, 500, B, 500), answer))
                return None
        return 0.0

    net.hook = hook
    net.a.begin()
    net.run(2)
    net.agree()
    assert len(demanded) == 1


def test_a_cookie_is_good_for_its_place_and_time_only() -> None:
    jar = Jar(bytes, 0.0)
    path = Path(1, B, 500, A, 500)
    head = Header(b"initiate", bytes(8), 0, 0x20, 34, 0x08, 0, 0)
    request = MessageV2(head, (NonceV2(b"n" * 32),))
    answer = jar.demand(request, path, 0.0)
    assert answer is not None
    cookie = MessageV2.parse(answer).payloads[0]
    again = MessageV2(head, (cookie, NonceV2(b"n" * 32)))
    assert not jar.valid(request, path, 1.0)
    assert jar.valid(again, path, 1.0)
    assert not jar.valid(again, replace(path, remote=A + 1), 1.0)
    assert not jar.valid(replace(again, header=replace(head, spi_i=b"somebody")), path, 1.0)
    assert jar.valid(again, path, 1.5 * ROTATION)
    assert not jar.valid(again, path, 4 * ROTATION)
    assert jar.demand(MessageV2(head, ()), path, 4 * ROTATION) is None


# time


@pytest.mark.behaviour("B-074", "B-077")
def test_a_silent_peer_is_found_dead_only_with_keepalive() -> None:
    for keepalive in (False, True):
        net = established(keepalive=keepalive)
        net.hook = lambda *_: None
        net.run(60)
        if keepalive:
            net.nothing()
            assert net.a.downs == ["the peer does not answer"]
        else:
            net.agree()


def test_a_peer_whose_packets_come_in_is_not_asked() -> None:
    net = established(keepalive=True)
    sizes = largest(net)
    for _ in range(100):
        net.run(1)
        net.a.session.alive(net.now)
        net.b.session.alive(net.now)
    assert not sizes
    net.run(15)
    assert sizes
    net.agree()


@pytest.mark.behaviour("B-046")
def test_pairs_and_the_ike_sa_are_renewed_in_time_for_ever() -> None:
    net = established(line(10, suite(seconds=300)), policy={"lifetime": 700})
    seen = set()
    for _ in range(300):
        net.flow(0.05, 0.01)
        net.run(10)
        seen |= {pair.install.inbound.esp_spi for pair in net.a.pairs.values()}
    assert not net.lost
    net.agree()
    assert len(seen) >= 9
    assert net.a.downs.count("rekeyed") >= 3
    assert set(net.a.downs) == {"rekeyed"}


def test_what_cannot_be_renewed_ends_when_its_time_is_over() -> None:
    net = established(line(10, suite(seconds=300)), policy={"lifetime": 700})

    def hook(sender: End, data: bytes, header: Header) -> float | None:
        return None if header.exchange == 36 else 0.0

    net.hook = hook
    net.run(800)
    net.nothing()


@pytest.mark.behaviour("B-111")
def test_kilobytes_ask_for_a_successor_and_end_a_pair() -> None:
    net = established(line(10, suite(kbytes=1000)))
    net.a.session.expiring(1, False, "kilobytes", net.now)
    net.flow(1)
    assert not net.lost
    net.agree()
    assert 1 not in net.a.pairs
    (serial,) = net.a.pairs
    net.a.session.expiring(serial, True, "kilobytes", net.now)
    assert not net.a.pairs
    net.run(2)
    net.agree(0)


def test_message_ids_do_not_run_out() -> None:
    net = established()
    net.a.session.task_manager.next_message_id = net.b.session.task_manager.expected_message_id = (
        MESSAGE_ID_REKEY_THRESHOLD
    )
    net.run(1)
    net.a.session.on_timer(net.now)
    net.run(2)
    net.agree()
    assert net.a.session.task_manager.next_message_id < 10


# nonsense


class Strange(Task):
    """A request with a payload that nobody knows."""

    def __init__(self, critical: bool) -> None:
        self.critical = critical
        self.answers: tuple[object, ...] = ()

    def build_request(self, session: object, now: float) -> tuple[object, ...]:  # type: ignore[override]
        return (Unknown(200, b"?", self.critical),)

    def on_response(self, session: object, payloads: tuple[object, ...], now: float) -> None:
        self.answers = payloads


@pytest.mark.behaviour("B-217")
@pytest.mark.parametrize("critical", [False, True])
def test_an_unknown_payload_is_refused_only_if_it_is_critical(critical: bool) -> None:
    net = established()
    task = Strange(critical)
    net.a.session.enqueue_task(task)
    net.a.session.send_next_request(net.now)
    net.run(1)
    if critical:
        assert task.answers == (NotifyV2(NotifyTypeV2.UNSUPPORTED_CRITICAL_PAYLOAD, bytes((200,))),)
        assert net.b.logs == ["UNSUPPORTED PAYLOAD TYPE: 200, Critical Bit set"]
    else:
        assert task.answers == ()
    net.agree()


def test_altered_messages_are_dropped_and_counted() -> None:
    net = established()

    def hook(sender: End, data: bytes, header: Header) -> float | bytes:
        if sender is net.a and not net.b.counts["integrity failures"]:
            return data[:-1] + bytes((data[-1] ^ 1,))
        return 0.0

    net.hook = hook
    net.a.session.negotiate(net.a.connections[0].lines[0], 1, net.now)
    net.run(3)
    assert net.b.counts["integrity failures"] == 1
    net.agree()


def test_errors_in_clear_touch_nothing_that_stands() -> None:
    net = established(keepalive=True)
    sizes = largest(net)
    session = net.a.session
    for notify, exchange in (
        (NotifyTypeV2.INVALID_IKE_SPI, 37),
        (NotifyTypeV2.AUTHENTICATION_FAILED, 35),
        (NotifyTypeV2.INVALID_SYNTAX, 34),
    ):
        for message_id in range(4):
            head = Header(session.spi_i, session.spi_r, 0, 0x20, exchange, 0x20, message_id, 0)
            data = MessageV2(head, (NotifyV2(notify),)).emit()
            net.a.receive(session.path, data)
    net.flow(0.1)
    assert not net.lost
    assert net.a.counts["cleartext errors"] == 8
    assert len(sizes) == 2, "one probe and its answer"
    net.agree()


def test_a_repeated_request_is_answered_the_same_way_and_done_once() -> None:
    net = established()
    sent: list[tuple[str, bytes]] = []

    def hook(sender: End, data: bytes, header: Header) -> float:
        sent.append((sender.name, data))
        return 0.0

    net.hook = hook
    net.a.session.negotiate(net.a.connections[0].lines[0], 1, net.now)
    net.run(0.025)
    (request,) = [data for name, data in sent if name == "a"][:1]
    sent.clear()
    net.b.receive(net.b.session.path, request)
    assert sent
    assert sent[0][0] == "b"
    net.run(2)
    net.agree()


def test_secrets_are_rows_of_wiresharks_table() -> None:
    net = established()
    ours, theirs = net.a.session.secrets(), net.b.session.secrets()
    assert ours == theirs
    (row,) = ours
    assert (row["kind"], row["encryption"], row["integrity"]) == (
        "ikev2",
        "AES-CBC-128 [RFC3602]",
        "HMAC_SHA1_96 [RFC2404]",
    )
    assert len(row["sk_ei"]) == 32
    assert row["sk_ei"] not in repr(net.a.session.keymat)
    assert row["sk_ei"] not in str(net.a.session.describe())


def test_many_selectors_make_few_rules_in_little_time() -> None:
    ours = tuple(TrafficSelector(at << 8, (at << 8) + 5, 6) for at in range(255))
    theirs = tuple(TrafficSelector(at << 8, (at << 8) + 5, 17) for at in range(255))
    rules = tuple(replace(EVERYTHING, seq=at, source=at << 24, source_length=8) for at in range(100))
    assert narrow(rules, ours, theirs) is None
    found = narrow((), ours, tuple(replace(one, protocol=0) for one in theirs))
    assert found is not None
    assert len(found) == MAX_RULES
    assert narrow((), (TrafficSelector(0, 0xFFFFFFFF),), (TrafficSelector(0, 0xFFFFFFFF),)) == ()
    part = narrow((), (TrafficSelector(1, 6),), (TrafficSelector(0, 0xFFFFFFFF),))
    assert part is not None
    assert [(one.source, one.source_length) for one in part] == [(1, 32), (2, 31), (4, 31), (6, 32)]
