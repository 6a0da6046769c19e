"""Which packets may be cut before they are protected: those whose every piece goes by the SA of the whole."""

from __future__ import annotations

from hypothesis import event, example, given
from hypothesis import strategies as st

from chassis.ase.ipsec.sa import OutboundSa
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.spd import Rule, SpdEntry
from chassis.fwd.mtu import FragmentDecision
from chassis.net.fragments import fragment
from chassis.net.ipv4 import Ipv4
from tests.support.ipsec import LEFT, RIGHT, batch, database, esp, inner, packets_of, random_octets

TCP, UDP = 6, 17
NETWORK = (0xC0A80100, 24)
POOL = (
    Rule(UDP, source_port=1000, destination_port=2000),
    Rule(UDP, destination_port=2000),
    Rule(TCP, source_port=1000),
    Rule(UDP),
    Rule(TCP),
    Rule(source=NETWORK),
    Rule(UDP, source=NETWORK, source_port=1000),
    Rule(),
)
rules = st.lists(st.sampled_from(POOL), max_size=3).map(tuple)


def whose(sadb: Sadb, packets: list[bytes]) -> list[bytes]:
    """The SPIs that packets go by; what is dropped is left out."""
    result = sadb.encapsulate_tunnel(1, *batch(packets), random_octets())
    return [packet[20:24] for packet in packets_of(result.body, result.lengths)]


@given(
    lines=st.lists(st.tuples(rules, st.lists(rules, max_size=2)), min_size=1, max_size=3),
    protocol=st.sampled_from([TCP, UDP, 1]),
    ports=st.sampled_from([(1000, 2000), (1000, 9), (9, 2000), (9, 9)]),
    source=st.sampled_from([0xC0A80105, 0xC0A80905]),
    again=st.booleans(),
)
@example([((Rule(TCP, source_port=1000),), [(POOL[0],)])], TCP, (1000, 2000), 0xC0A80105, False).via(
    "a line takes it for its ports, no SA takes it at all"
)
def test_a_packet_may_be_cut_where_its_pieces_go_by_its_sa(
    lines: list[tuple[tuple[Rule, ...], list[tuple[Rule, ...]]]],
    protocol: int,
    ports: tuple[int, int],
    source: int,
    again: bool,
) -> None:
    sadb = database(64)
    sadb.spd.set_entries(1, [SpdEntry(number, wanted) for number, (wanted, _) in enumerate(lines)])
    serial = 0
    for number, (_, agreed) in enumerate(lines):
        for selectors in agreed:
            serial += 1
            sadb.install_outbound(
                OutboundSa(
                    1, serial, LEFT, RIGHT, entry=number, context=0, esp=esp(spi=256 + serial), selectors=selectors
                )
            )
    packet = inner(300, source=source, protocol=protocol, ports=ports)
    view = memoryview(b"before" + packet)
    verdict = sadb.fragment_decision(1, view, 6, len(view))
    if again:
        # What a flow's packets and its fragments are remembered by must not be taken for one another.
        assert verdict is sadb.fragment_decision(1, view, 6, len(view))
    event(verdict.name)
    pieces = [piece.emit() for piece in fragment(Ipv4.parse(packet), 100)]
    whole, cut = whose(sadb, [packet]), whose(sadb, pieces)
    expected = FragmentDecision.DROP
    if whole:
        expected = FragmentDecision.FRAGMENT if cut == whole * len(pieces) else FragmentDecision.KEEP_WHOLE
    assert verdict is expected


def test_a_tunnel_without_lines_takes_nothing() -> None:
    packet = memoryview(inner(300))
    assert database().fragment_decision(1, packet, 0, 300) is FragmentDecision.DROP
