"""Inner addresses of peers: those that AAA gives, and those of the pools of a context (guide 7; RFC 2869 5.18).

An address is one peer's as long as its instance lives. A peer that comes again gets the address that it had, if it
is still free. An instance carries its address, so a new controller knows it again from the ASP.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final

from chassis.net.types import Prefix

MAX_REMEMBERED: Final = 1 << 16
"""Peers whose last address is remembered (count)."""


class AddressError(Exception):
    """A peer cannot have an inner address; the text says why."""


@dataclass(slots=True)
class _Pool:
    """Where the search for a free address goes on, and how many of its addresses are in use."""

    prefix: Prefix
    following: int = 1
    used: int = 0

    @property
    def size(self) -> int:
        """Addresses that peers may have: without those of the network and of its broadcast."""
        length = self.prefix[1]
        return 1 << (32 - length) if length > 30 else (1 << (32 - length)) - 2

    def contains(self, address: int) -> bool:
        network, length = self.prefix
        return (address ^ network) >> (32 - length) == 0 and (
            length > 30 or 0 < address - network < (1 << (32 - length)) - 1
        )


@dataclass(slots=True)
class PeerAddresses:
    """Who has which address. A holder is the number of an instance."""

    _holders: dict[tuple[int, int], int] = field(default_factory=dict)
    """By context and address."""
    _of_pool: dict[int, _Pool] = field(default_factory=dict)
    """The pool that the address of an instance is from."""
    _pools: dict[tuple[int, str], _Pool] = field(default_factory=dict)
    _last: OrderedDict[tuple[int, str, str], int] = field(default_factory=OrderedDict)
    """Last address of an identity from a pool."""

    def holder(self, context: int, address: int) -> int | None:
        """Return the number of the instance that has an address."""
        return self._holders.get((context, address))

    def hold(self, context: int, address: int, number: int, pool: str = "", prefix: Prefix | None = None) -> None:
        """An instance has this address, of a pool or of AAA's own choice.

        Raises:
            AddressError: another instance has it.
        """
        if self._holders.setdefault((context, address), number) != number:
            raise AddressError("its address is another peer's")
        if pool and prefix is not None and number not in self._of_pool:
            found = self._pool(context, pool, prefix)
            if found.contains(address):
                found.used += 1
                self._of_pool[number] = found

    def take(
        self, context: int, pool: str, prefix: Prefix, identity: str, number: int, barred: Container[int]
    ) -> int:
        """Give an instance an address of a pool. Those in `barred` are nobody's.

        Raises:
            AddressError: no address is free.
        """
        found = self._pool(context, pool, prefix)
        key = (context, pool, identity.lower())
        last = self._last.get(key)
        if last is None or not self._is_free(context, last, found, barred):
            last = self._next(context, found, barred)
        if last is None:
            raise AddressError(f"pool {pool} has no free address")
        self.hold(context, last, number, pool, prefix)
        self._last[key] = last
        self._last.move_to_end(key)
        if len(self._last) > MAX_REMEMBERED:
            self._last.popitem(last=False)
        return last

    def release(self, context: int, address: int, number: int) -> None:
        """An instance has ended, and its address is free."""
        if self._holders.get((context, address)) == number:
            del self._holders[context, address]
        pool = self._of_pool.pop(number, None)
        if pool is not None:
            pool.used -= 1

    def _pool(self, context: int, name: str, prefix: Prefix) -> _Pool:
        """Return a pool; a new one if the configuration gives it another prefix."""
        found = self._pools.get((context, name))
        if found is None or found.prefix != prefix:
            found = self._pools[context, name] = _Pool(prefix)
        return found

    def _is_free(self, context: int, address: int, pool: _Pool, barred: Container[int]) -> bool:
        return pool.contains(address) and address not in barred and (context, address) not in self._holders

    def _next(self, context: int, pool: _Pool, barred: Container[int]) -> int | None:
        """Return the next free address, in turn, so that one that was given back is not given at once."""
        network, length = pool.prefix
        span = 1 << (32 - length)
        if pool.used >= pool.size:
            return None
        for step in range(span):
            address = network + (pool.following + step) % span
            if self._is_free(context, address, pool, barred):
                pool.following = (address - network + 1) % span
                return address
        return None
