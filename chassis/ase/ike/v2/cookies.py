"""Cookies against floods of IKE_SA_INIT with forged addresses (RFC 7296 2.6): no state until the peer answers.

cookie = version of the secret (1 octet) | HMAC-SHA-256(secret, Ni | address | port | SPIi) cut to 16 octets
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from math import inf

from chassis.ase.ike.host import Path
from chassis.ase.ike.payloads.errors import PayloadError
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import N2
from chassis.ase.ike.payloads.v2 import MessageV2
from chassis.ase.ike.payloads.v2_keys import Nonce
from chassis.ase.ike.payloads.v2_notify import Notify

ROTATION = 60.0
"""Seconds after which a new secret is made; the one before stays good as long again."""

_SECRET = 32
_MAC = 16


class Jar:
    """The secret of an ASP and the one before. `random` gives octets; nothing is kept of a peer."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._version = 0
        self._secret = b""
        self._before = b""
        self._since = -inf

    def demand(self, data: bytes, header: Header, path: Path, now: float) -> bytes | None:
        """The cookie that an IKE_SA_INIT request has to bring back before it is worked on; None when it brought a
        good one. The answer that asks for it is shorter than any such request, so it does not amplify.

        A request that cannot be read, or has no nonce, gets a cookie that it can never bring back rightly.
        """
        self._turn(now)
        try:
            payloads = MessageV2.parse(data).payloads
        except PayloadError:
            payloads = ()
        nonce = next((one.value for one in payloads if isinstance(one, Nonce)), b"")
        cookie = next((one.data for one in payloads if isinstance(one, Notify) and one.notify == N2.COOKIE), b"")
        if nonce and self.valid(cookie, nonce, header.spi_i, path):
            return None
        return self._cookie(self._version, self._secret, header.spi_i, nonce, path)

    def valid(self, cookie: bytes, nonce: bytes, spi_i: bytes, path: Path) -> bool:
        """Whether we made this cookie, not long ago, for this nonce, SPI and address."""
        if len(cookie) != 1 + _MAC:
            return False
        if cookie[0] == self._version:
            secret = self._secret
        elif cookie[0] == (self._version - 1) & 0xFF:
            secret = self._before
        else:
            return False
        if not secret:
            return False
        return hmac.compare_digest(self._cookie(cookie[0], secret, spi_i, nonce, path), cookie)

    def _turn(self, now: float) -> None:
        age = now - self._since
        if age < ROTATION:
            return
        self._before = self._secret if age < 2 * ROTATION else b""
        self._secret = self._random(_SECRET)
        self._version = (self._version + 1) & 0xFF
        self._since = now

    @staticmethod
    def _cookie(version: int, secret: bytes, spi_i: bytes, nonce: bytes, path: Path) -> bytes:
        place = path.remote.to_bytes(4, "big") + path.remote_port.to_bytes(2, "big")
        return bytes((version,)) + hmac.digest(secret, nonce + place + spi_i, "sha256")[:_MAC]
