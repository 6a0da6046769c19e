"""What the RADIUS client needs of a configuration: each context's servers and how they are asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from chassis.model.aaa import (
    ACCOUNTING_PORT,
    AUTHENTICATION_PORT,
    OLD_ACCOUNTING_PORT,
    OLD_AUTHENTICATION_PORT,
    RadiusServer,
)
from chassis.model.router import Config, Context

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server as the engine asks it. `source` is the address of the router that it sees, None if not known."""

    address: str
    port: int
    secret: bytes = field(repr=False)
    signed: bool = True
    source: str | None = None


@dataclass(frozen=True, slots=True)
class AaaSettings:
    """One context's AAA. Times in seconds; `dead_time` 0: no server is ever passed over.

    `retries` follow the first transmission. `outstanding` limits the requests of one server that wait for a reply.
    `source_port` None: the port of the server is ours too. `global_fallback`: where no server of the context can
    be reached, those of context local are asked (guide 9.3). `accounting`: sessions are reported.
    """

    servers: tuple[ServerAddress, ...] = ()
    accounting_servers: tuple[ServerAddress, ...] = ()
    timeout: float = 10.0
    retries: int = 3
    dead_time: float = 300.0
    algorithm: Literal["first", "round-robin"] = "first"
    outstanding: int = 256
    source_port: int | None = None
    password: bytes = field(default=b"Redback", repr=False)
    global_fallback: bool = False
    accounting: bool = False


@dataclass(frozen=True, slots=True)
class AaaConfig:
    """AAA of a router: its name for NAS-Identifier, and the settings of each context by name."""

    hostname: str = "Redback"
    contexts: Mapping[str, AaaSettings] = field(default_factory=dict)

    def of(self, context: str) -> AaaSettings:
        """Return the settings of a context; those of one without servers where there is no such context."""
        return self.contexts.get(context, AaaSettings())


SourceOf = Callable[[str, str], str | None]
"""(context, address of a server) -> the router's own address by which it reaches that server, None if by none."""


def aaa_config(config: Config, source_of: SourceOf = lambda context, server: None) -> AaaConfig:
    """Return what the engine needs of a configuration.

    `source_of` is asked for servers of contexts without `radius attribute nas-ip-address`.
    """
    return AaaConfig(
        config.hostname, {name: _settings(context, source_of) for name, context in config.contexts.items()}
    )


def _settings(context: Context, source_of: SourceOf) -> AaaSettings:
    lender = context.interfaces.get(context.radius_nas_interface or "")
    fixed = lender.address if lender is not None else None

    def servers(listed: tuple[RadiusServer, ...], standard: int, old: int) -> tuple[ServerAddress, ...]:
        return tuple(
            ServerAddress(
                one.address,
                one.port or (old if one.oldports else standard),
                one.key.value,
                one.signature is None,
                fixed or source_of(context.name, one.address),
            )
            for one in listed
            if not one.key.opaque
        )

    standard = AaaSettings()
    dead_time = None if context.radius_deadtime is None else 60.0 * context.radius_deadtime
    return AaaSettings(
        servers=servers(context.radius_servers, AUTHENTICATION_PORT, OLD_AUTHENTICATION_PORT),
        accounting_servers=servers(context.accounting_servers, ACCOUNTING_PORT, OLD_ACCOUNTING_PORT),
        timeout=_given(context.radius_timeout, standard.timeout),
        retries=_given(context.radius_max_retries, standard.retries),
        dead_time=_given(dead_time, standard.dead_time),
        algorithm=_given(context.radius_algorithm, standard.algorithm),
        outstanding=_given(context.radius_max_outstanding, standard.outstanding),
        source_port=context.radius_source_port,
        password=standard.password if context.aaa_password is None else context.aaa_password.value,
        global_fallback=context.aaa_fallback is not None,
        accounting=context.aaa_accounting is not None,
    )


def _given(value: _T | None, standard: _T) -> _T:
    return standard if value is None else value
