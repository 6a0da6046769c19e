"""Pools of addresses for peers: what `ip pool` lines name, and who holds which address.

A pure table. The caller restores leases after a start with `hold`, before it leases anew.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from chassis.model.router import Config
from chassis.net.address import format_address, parse_address, parse_prefix

PoolKey = tuple[str, str]
"""Context and name of a pool."""


class PoolError(LookupError):
    """No address can be leased; the text says why."""


@dataclass(slots=True)
class AddressPool:
    """The addresses that peers can have, as numbers from `first` to `last`; `following` is tried next."""

    first: int
    last: int
    following: int
    leased: int = 0

    @classmethod
    def of(cls, prefix: str) -> AddressPool:
        """Return the pool of a prefix such as "10.50.0.0/16": without the network's own and its broadcast address,
        which prefixes of 31 and 32 bits do not have (RFC 3021)."""
        network, length = parse_prefix(prefix)
        last = network + (1 << (32 - length)) - 1
        first, last = (network, last) if length >= 31 else (network + 1, last - 1)
        return cls(first, last, first)

    def __contains__(self, address: int) -> bool:
        return self.first <= address <= self.last


class AddressPools:
    """All pools of a router, and the addresses that are held in each of its contexts."""

    def __init__(self) -> None:
        self._pools: dict[PoolKey, AddressPool] = {}
        self._owners: dict[tuple[str, int], Hashable] = {}
        self._leases: dict[tuple[PoolKey, Hashable], int] = {}

    def configure(self, config: Config) -> None:
        """Use the pools of this configuration from now on. Addresses that are held stay so, in whatever pool."""
        pools: dict[PoolKey, AddressPool] = {}
        for context in config.contexts.values():
            for line in context.ip_pools:
                pool = AddressPool.of(line.prefix)
                before = self._pools.get((context.name, line.name))
                if before is not None and before.following in pool:
                    pool.following = before.following
                pools[context.name, line.name] = pool
        self._pools = pools
        for context_name, address in self._owners:
            self._count(context_name, address, 1)
        self._leases = {key: address for key, address in self._leases.items() if address in self._pool(key[0])}

    def _pool(self, key: PoolKey) -> AddressPool:
        return self._pools.get(key, _NO_POOL)

    def _count(self, context: str, address: int, change: int) -> None:
        for (name, _), pool in self._pools.items():
            if name == context and address in pool:
                pool.leased += change

    def lease(self, context: str, name: str, owner: Hashable) -> str:
        """Give an owner an address of a pool: the one that it has there, else one that has been free for long.

        Raises:
            PoolError: there is no such pool, or none of its addresses is free.
        """
        key = (context, name)
        pool = self._pools.get(key)
        if pool is None:
            raise PoolError(f"context {context} has no ip pool {name}")
        known = self._leases.get((key, owner))
        if known is not None:
            return format_address(known)
        if pool.leased > pool.last - pool.first:
            raise PoolError(f"ip pool {name} of context {context} has no free address")
        while (context, pool.following) in self._owners:
            pool.following = _after(pool, pool.following)
        address = pool.following
        pool.following = _after(pool, address)
        self._leases[key, owner] = address
        self._take(context, address, owner)
        return format_address(address)

    def hold(self, context: str, address: str, owner: Hashable, name: str = "") -> bool:
        """Note that an owner has an address: one that AAA named, or one of the pool `name` from before a start.

        Return False, and change nothing, if another owner has it.
        """
        number = parse_address(address)
        holder = self._owners.get((context, number), owner)
        if holder != owner:
            return False
        if (context, number) not in self._owners:
            self._take(context, number, owner)
        if number in self._pool((context, name)):
            self._leases[(context, name), owner] = number
        return True

    def _take(self, context: str, address: int, owner: Hashable) -> None:
        self._owners[context, address] = owner
        self._count(context, address, 1)

    def release(self, context: str, address: str, owner: Hashable) -> None:
        """Take an address back from its owner; nothing happens where it is another's."""
        number = parse_address(address)
        if self._owners.get((context, number)) != owner:
            return
        del self._owners[context, number]
        self._count(context, number, -1)
        for key in [key for key in self._pools if key[0] == context]:
            if self._leases.get((key, owner)) == number:
                del self._leases[key, owner]

    def usage(self) -> dict[PoolKey, tuple[int, int]]:
        """Return how many addresses of each pool are held, and how many it has."""
        return {key: (pool.leased, pool.last - pool.first + 1) for key, pool in self._pools.items()}


_NO_POOL = AddressPool(1, 0, 1)


def _after(pool: AddressPool, address: int) -> int:
    return address + 1 if address < pool.last else pool.first
