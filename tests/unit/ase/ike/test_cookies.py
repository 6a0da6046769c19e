"""Cookies of IKE_SA_INIT (RFC 7296 section 2.6)."""

from __future__ import annotations

from dataclasses import replace

from chassis.ase.ike.host import Path
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.v2 import MessageV2
from chassis.ase.ike.payloads.v2_payloads import NonceV2
from chassis.ase.ike.v2.cookies import ROTATION, Jar


def test_a_cookie_is_good_for_its_place_and_time_only() -> None:
    jar = Jar(bytes, 0.0)
    path = Path(1, 0x0A000002, 500, 0x0A000001, 500)
    head = Header(b"initiate", bytes(8), 0, 0x20, 34, 0x08, 0, 0)
    request = MessageV2(head, (NonceV2(b"n" * 32),))
    answer = jar.demand(request, path, 0.0)
    assert answer is not None
    cookie = MessageV2.parse(answer).payloads[0]
    again = MessageV2(head, (cookie, NonceV2(b"n" * 32)))
    assert not jar.valid(request, path, 1.0)
    assert jar.valid(again, path, 1.0)
    assert not jar.valid(again, replace(path, remote=path.remote + 1), 1.0)
    assert not jar.valid(replace(again, header=replace(head, spi_i=b"somebody")), path, 1.0)
    assert jar.valid(again, path, 1.5 * ROTATION)
    assert not jar.valid(again, path, 4 * ROTATION)
    assert jar.demand(MessageV2(head, ()), path, 4 * ROTATION) is None
