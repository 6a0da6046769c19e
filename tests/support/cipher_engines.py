"""The cipher engines of this machine, for tests that run with each."""

from __future__ import annotations

from functools import cache

import pytest

from chassis.ase.ipsec import ipsec_mb_library
from chassis.ase.ipsec.cipher_engine import CipherEngine
from chassis.ase.ipsec.cryptography_engine import CRYPTOGRAPHY
from chassis.ase.ipsec.ipsec_mb import MultiBufferEngine

ENGINES = ("cryptography", "ipsec-mb")


@cache
def multi_buffer() -> MultiBufferEngine | str:
    """The engine with libIPSec_MB, or why it is not here."""
    try:
        return MultiBufferEngine(ipsec_mb_library.load())
    except ipsec_mb_library.LibraryMissing as error:
        return str(error)


def engine_of(name: str) -> CipherEngine:
    """An engine by its name; the test is skipped where it is not."""
    if name == "cryptography":
        return CRYPTOGRAPHY
    engine = multi_buffer()
    if isinstance(engine, str):
        pytest.skip(engine)
    return engine
