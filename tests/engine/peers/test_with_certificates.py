"""Peers with certificates: they prove who they are by RSA, and check their gateway."""

from __future__ import annotations

import datetime

import pytest

from chassis.bus.records import CertificateRecord
from chassis.config.parser import parse
from chassis.peers.gateway import GatewayConfig
from chassis.peers.spec import OUTER, read_spec
from tests.support.authority import Authority, Issued
from tests.support.peers_gateway import PEERS, PeersAndGateway

TODAY = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
"""The clock of the peers and their gateway begins there."""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(bits=1024, today=TODAY)


@pytest.fixture(scope="module")
def own(authority: Authority) -> Issued:
    # So many names that the certificate does not fit a packet.
    return authority.issue("branches", *[f"p{number}.branch.example" for number in range(1, 61)])


def gateways(issued: Issued, trusted: Authority) -> tuple[CertificateRecord, ...]:
    pems = (("self", issued.certificate), ("key", issued.key), ("trusted", trusted.certificate))
    return tuple(CertificateRecord(OUTER, "hub", kind, pem.encode()) for kind, pem in pems)


def test_peers_of_both_versions_come_up_with_a_certificate_in_fragments(authority: Authority, own: Issued) -> None:
    files = {"certificate": own.certificate, "private-key": own.key, "authority": authority.certificate}
    hub = gateways(authority.issue("hub.example", "hub.example"), authority)
    two = PeersAndGateway(peers=4, pre_shared_key=None, credentials=hub, **files)
    two.serve(range(1, 5))
    two.command("start")
    assert two.until(lambda: two.status()["up"] == 4, 10.0), two.status()
    assert two.status()["failures"] == {}
    assert two.fragments > 0
    assert "PRIVATE KEY" not in str(two.status()) + repr(two.peers.spec)


def test_a_gateway_that_another_authority_signed_is_refused(authority: Authority, own: Issued) -> None:
    files = {"certificate": own.certificate, "private-key": own.key, "authority": authority.certificate}
    stranger = Authority("Another CA", bits=1024, today=TODAY)
    hub = gateways(stranger.issue("hub.example", "hub.example"), authority)
    two = PeersAndGateway(peers=2, pre_shared_key=None, credentials=hub, **files)
    two.serve(range(1, 3))
    two.command("start")
    two.run(5.0)
    report = two.status()
    assert report["up"] == 0
    assert report["failures"], report


def test_the_lines_for_a_router_ask_for_signatures(authority: Authority, own: Issued) -> None:
    files = {"certificate": own.certificate, "private-key": own.key, "authority": authority.certificate}
    values = {**PEERS, **files, "peers": 6}
    spec = read_spec({name: value for name, value in values.items() if name != "pre-shared-key"})[0]
    assert spec is not None
    lines = "\n".join(GatewayConfig("branches", "public", "private").lines(spec))
    parsed = parse(f"context public\ncontext private\n{lines}\n")
    assert {one.severity for one in parsed.diagnostics} == {"warning"}
    assert lines.count("authentication rsa-signature") == 1 + spec.count // 2
    assert "pre-shared-key" not in lines


def test_what_is_wrong_with_the_files_is_said_and_no_key_is(authority: Authority, own: Issued) -> None:
    files = {"certificate": own.certificate, "private-key": own.key, "authority": authority.certificate}
    other = authority.issue("other").key

    def said(**changes: str | None) -> str:
        values = {**PEERS, **files, **{name.replace("_", "-"): value for name, value in changes.items()}}
        spec, problems = read_spec({name: value for name, value in values.items() if value is not None})
        assert spec is None
        told = "; ".join(text for _, text in problems)
        assert "BEGIN" not in told
        return told

    assert "needs authority, too" in said(authority=None)
    assert "key" in said(private_key=other)
    assert "certificate" in said(certificate="not a certificate")
    assert read_spec({**PEERS, **files})[1] == []
