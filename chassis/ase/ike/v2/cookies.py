"""Cookies against floods of IKE_SA_INIT with forged addresses (RFC 7296 2.6): no state until the peer answers.

cookie = version of the secret (1 octet) | HMAC-SHA-256(secret, Ni | address | port | SPIi) cut to 16 octets
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from chassis.ase.ike.host import Path
from chassis.ase.ike.payloads.header import RESPONSE, VERSION_2, Header
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV2
from chassis.ase.ike.payloads.v2 import MessageV2
from chassis.ase.ike.payloads.v2_payloads import NonceV2, NotifyV2

ROTATION = 60.0
"""Seconds after which a new secret is made; the one before stays good as long again."""

_SECRET = 32
_MAC = 16


class Jar:
    """The secret of an ASP and the one before. `random` gives octets; nothing is kept of a peer."""

    def __init__(self, random: Callable[[int], bytes], now: float) -> None:
        self._random = random
        self._version = 0
        self._secret = random(_SECRET)
        self._before = b""
        self._since = now

    def demand(self, message: MessageV2, path: Path, now: float) -> bytes | None:
        """The answer to an IKE_SA_INIT request that asks for a cookie; None where the request has no nonce.

        It is shorter than any request that can be answered, so it does not amplify.
        """
        self._turn(now)
        spi_i, nonce = message.header.spi_i, _nonce(message)
        if not nonce:
            return None
        cookie = self._cookie(self._version, self._secret, spi_i, nonce, path)
        header = Header(spi_i, bytes(8), 0, VERSION_2, ExchangeType.IKE_SA_INIT, RESPONSE, 0, 0)
        return MessageV2(header, (NotifyV2(NotifyTypeV2.COOKIE, cookie),)).emit()

    def valid(self, message: MessageV2, path: Path, now: float) -> bool:
        """Whether the request brings back a cookie that we made, not long ago, for its nonce, SPI and address."""
        self._turn(now)
        said = (
            one.data for one in message.payloads if isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.COOKIE
        )
        cookie, nonce = next(said, b""), _nonce(message)
        if len(cookie) != 1 + _MAC or not nonce:
            return False
        if cookie[0] == self._version:
            secret = self._secret
        elif cookie[0] == (self._version - 1) & 0xFF:
            secret = self._before
        else:
            return False
        if not secret:
            return False
        own = self._cookie(cookie[0], secret, message.header.spi_i, nonce, path)
        return hmac.compare_digest(own, cookie)

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


def _nonce(message: MessageV2) -> bytes:
    return next((one.value for one in message.payloads if isinstance(one, NonceV2)), b"")
