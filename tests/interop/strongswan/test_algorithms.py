"""Every algorithm that strongSwan has of the guide's lists and of today's, in both roles, with packets both ways.

Each value of each list is met at least once in each version; tests of two engines of ours have all combinations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.charon_rig import Rig
    from tests.support.charon_rig import Suite as SuiteType

from tests.support.charon_rig import SIZES, Suite

pytestmark = pytest.mark.multiprocess

MD5, SHA1, XCBC = "hmac-md5-96", "hmac-sha1-96", "hmac-aes-xcbc"
DES, TRIPLE = "des-cbc", "3des-cbc"
AES128, AES192, AES256 = "aes-128-cbc", "aes-192-cbc", "aes-256-cbc"
P_MD5, P_SHA1, P_XCBC = "hmac-md5", "hmac-sha1", "aes-128-xcbc"

VERSION_1 = (
    Suite(DES, MD5, 1, P_MD5, DES, MD5),
    Suite(DES, SHA1, 1, P_SHA1, TRIPLE, MD5, 1),
    Suite(TRIPLE, MD5, 2, P_MD5, TRIPLE, SHA1, 2),
    Suite(TRIPLE, SHA1, 5, P_SHA1, AES128, XCBC),
    Suite(AES128, SHA1, 5, P_SHA1, AES128, SHA1, 5),
    Suite(AES192, MD5, 2, P_MD5, AES192, MD5),
    Suite(AES256, SHA1, 14, P_SHA1, AES256, SHA1, 14),
    Suite(AES128, MD5, 2, P_MD5, "null", MD5),
    Suite(AES128, SHA1, 2, P_SHA1, "null", SHA1),
    Suite(AES256, "hmac-sha-256-128", 14, "hmac-sha-256", AES256, "hmac-sha-256-128", 19),
    Suite(AES128, "hmac-sha-512-256", 20, "hmac-sha-512", "aes-128-gcm", ""),
)
VERSION_2 = (
    Suite(DES, MD5, 1, P_MD5, DES, MD5),
    Suite(DES, SHA1, 1, P_XCBC, TRIPLE, MD5),
    Suite(TRIPLE, SHA1, 5, P_XCBC, TRIPLE, SHA1),
    Suite(AES256, XCBC, 2, P_SHA1, AES128, XCBC),
    Suite(AES128, SHA1, 5, P_MD5, AES128, SHA1),
    Suite(AES192, XCBC, 14, P_XCBC, AES192, XCBC),
    Suite(AES128, MD5, 2, P_SHA1, "null", MD5),
    Suite(AES256, SHA1, 14, P_SHA1, "null", SHA1),
    Suite(AES256, SHA1, 14, P_MD5, AES256, SHA1),
    Suite(AES128, "hmac-sha-256-128", 31, "hmac-sha-256", AES128, "hmac-sha-256-128"),
    Suite("aes-256-gcm", SHA1, 19, "hmac-sha-384", "aes-256-gcm", ""),
    Suite("aes-192-gcm", SHA1, 19, "hmac-sha-256", "aes-192-gcm", ""),
    Suite(AES256, "hmac-sha-384-192", 20, "hmac-sha-384", AES256, "hmac-sha-384-192"),
    Suite(AES256, "hmac-sha-512-256", 21, "hmac-sha-512", "aes-128-gcm", ""),
    Suite(AES128, SHA1, 15, P_SHA1, AES128, "hmac-sha-512-256"),
)


@pytest.mark.parametrize("role", ["initiator", "responder"])
@pytest.mark.parametrize(
    ("version", "suite"), [(1, suite) for suite in VERSION_1] + [(2, suite) for suite in VERSION_2], ids=str
)
def test_an_algorithm_of_each_kind(rig: Rig, version: int, suite: SuiteType, role: str) -> None:
    with rig.tunnel(version, role, suite):
        rig.traffic(*SIZES)


def test_nothing_of_the_guides_lists_is_left_out() -> None:
    for suites in (VERSION_1, VERSION_2):
        assert {suite.cipher for suite in suites} >= {DES, TRIPLE, AES128, AES192, AES256}
        assert {suite.group for suite in suites} >= {1, 2, 5, 14}
        assert {suite.esp_cipher for suite in suites} >= {DES, TRIPLE, AES128, AES192, AES256, "null"}
        assert {suite.esp_integrity for suite in suites} >= {MD5, SHA1, XCBC}
    assert {suite.integrity for suite in VERSION_1} >= {MD5, SHA1}
    assert {suite.integrity for suite in VERSION_2} >= {MD5, SHA1, XCBC}
    assert {suite.prf for suite in VERSION_2} >= {P_MD5, P_SHA1, P_XCBC}
