"""Cookies of IKE_SA_INIT (RFC 7296 section 2.6)."""

from __future__ import annotations

from dataclasses import replace

from chassis.ase.ike.host import NetworkPath
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.v2 import MessageV2
from chassis.ase.ike.payloads.v2_payloads import NonceV2
from chassis.ase.ike.receiver import COOKIE_SECRET_INTERVAL, CookieSecrets


def test_a_cookie_is_good_for_its_place_and_time_only() -> None:
    secrets = CookieSecrets(bytes, 0.0)
    path = NetworkPath(1, 0x0A000002, 500, 0x0A000001, 500)
    head = Header(b"initiate", bytes(8), 0, 0x20, 34, 0x08, 0, 0)
    request = MessageV2(head, (NonceV2(b"n" * 32),))
    answer = secrets.make_cookie_notify(request, path, 0.0)
    assert answer is not None
    cookie = MessageV2.parse(answer).payloads[0]
    again = MessageV2(head, (cookie, NonceV2(b"n" * 32)))
    assert not secrets.valid(request, path, 1.0)
    assert secrets.valid(again, path, 1.0)
    assert not secrets.valid(again, replace(path, remote=path.remote + 1), 1.0)
    assert not secrets.valid(replace(again, header=replace(head, spi_i=b"somebody")), path, 1.0)
    assert secrets.valid(again, path, 1.5 * COOKIE_SECRET_INTERVAL)
    assert not secrets.valid(again, path, 4 * COOKIE_SECRET_INTERVAL)
    assert secrets.make_cookie_notify(MessageV2(head, ()), path, 4 * COOKIE_SECRET_INTERVAL) is None
