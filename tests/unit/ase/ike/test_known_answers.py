"""Published test vectors of the algorithms; keys of whole exchanges are in test_recorded."""

from __future__ import annotations

import hashlib

import pytest

from chassis.ase.ike.crypto.algorithms import CIPHERS, INTEGRITY, PRFS, aes_xcbc_mac
from chassis.ase.ike.crypto.diffie_hellman import GROUPS, DhKeyPair, Ecp, Modp

JEFE = b"what do ya want for nothing?"
LARGER = b"Test Using Larger Than Block-Size Key - Hash Key First"
LARGER_DATA = b"Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data"
LARGER_DATA_SHA2 = (
    b"This is a test using a larger than block-size key and a larger than block-size data. "
    b"The key needs to be hashed before being used by the HMAC algorithm."
)
COUNTING = bytes(range(40))
TWENTY_FIVE = bytes(range(1, 26))


@pytest.mark.parametrize(("name", "key", "data", "mac"), [
    ("hmac-md5", b"\x0b" * 16, b"Hi There", "9294727a3638bb1c13f48ef8158bfc9d"),
    ("hmac-md5", b"Jefe", JEFE, "750c783e6ab0b503eaa86e310a5db738"),
    ("hmac-md5", b"\xaa" * 16, b"\xdd" * 50, "56be34521d144c88dbb8c733f0e8b3f6"),
    ("hmac-md5", TWENTY_FIVE, b"\xcd" * 50, "697eaf0aca3a3aea3a75164746ffaa79"),
    ("hmac-md5", b"\xaa" * 80, LARGER, "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd"),
    ("hmac-md5", b"\xaa" * 80, LARGER_DATA, "6f630fad67cda0ee1fb1f562db3aa53e"),
    ("hmac-sha1", b"\x0b" * 20, b"Hi There", "b617318655057264e28bc0b6fb378c8ef146be00"),
    ("hmac-sha1", b"Jefe", JEFE, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
    ("hmac-sha1", b"\xaa" * 20, b"\xdd" * 50, "125d7342b9ac11cd91a39af48aa17b4f63f175d3"),
    ("hmac-sha1", TWENTY_FIVE, b"\xcd" * 50, "4c9007f4026250c6bc8414f9bf50c86c2d7235da"),
    ("hmac-sha1", b"\xaa" * 80, LARGER, "aa4ae5e15272d00e95705637ce8a3b55ed402112"),
    ("hmac-sha1", b"\xaa" * 80, LARGER_DATA, "e8e99d0f45237d786d6bbaa7965c7808bbff1a91"),
])  # fmt: skip
def test_hmacs_rfc_2202(name: str, key: bytes, data: bytes, mac: str) -> None:
    """The test vectors of RFC 4231, section 4."""
    assert PRFS[name].compute(key, data).hex() == mac
    integrity = INTEGRITY[f"{name}-96"]
    if len(key) == integrity.key_octets:
        assert integrity.icv(key, data).hex() == mac[:24]


@pytest.mark.parametrize(("name", "key", "data", "mac"), [
    ("hmac-sha-256", b"\x0b" * 20, b"Hi There",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    ("hmac-sha-256", b"\xaa" * 20, b"\xdd" * 50,
        "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    ("hmac-sha-256", TWENTY_FIVE, b"\xcd" * 50,
        "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    ("hmac-sha-256", b"\xaa" * 131, LARGER, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
    ("hmac-sha-256", b"\xaa" * 131, LARGER_DATA_SHA2,
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
    ("hmac-sha-384", b"\x0b" * 20, b"Hi There",
        "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6"),
    ("hmac-sha-384", b"\xaa" * 20, b"\xdd" * 50,
        "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b2a5ab39dc13814b94e3ab6e101a34f27"),
    ("hmac-sha-384", b"\xaa" * 131, LARGER,
        "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952"),
    ("hmac-sha-512", b"\x0b" * 20, b"Hi There", ("87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"
        "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854")),
    ("hmac-sha-512", b"\xaa" * 20, b"\xdd" * 50,
        ("fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39"
        "bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb")),
    ("hmac-sha-512", b"\xaa" * 131, LARGER, ("80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352"
        "6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598")),
])  # fmt: skip
def test_hmacs_rfc_4231(name: str, key: bytes, data: bytes, mac: str) -> None:
    """The test vectors of RFC 4231, section 4."""
    assert PRFS[name].compute(key, data).hex() == mac


@pytest.mark.parametrize(("name", "mac"), [
    ("hmac-sha-256-128", "198a607eb44bfbc69903a0f1cf2bbdc5"),
    ("hmac-sha-384-192", "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973"),
    ("hmac-sha-512-256", "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8"),
])  # fmt: skip
def test_cut_hmacs_rfc_4868(name: str, mac: str) -> None:
    integrity = INTEGRITY[name]
    assert integrity.icv(b"\x0b" * integrity.key_octets, b"Hi There").hex() == mac


@pytest.mark.parametrize(("data", "mac"), [
    (b"", "75f0251d528ac01c4573dfd584d79f29"),
    (COUNTING[:3], "5b376580ae2f19afe7219ceef172756f"),
    (COUNTING[:16], "d2a246fa349b68a79998a4394ff7a263"),
    (COUNTING[:20], "47f51b4564966215b8985c63055ed308"),
    (COUNTING[:32], "f54f0ec8d2b9f3d36807734bd5283fd4"),
    (COUNTING[:34], "becbb3bccdb518a30677d5481fb6b4d8"),
    (bytes(1000), "f0dafee895db30253761103b5d84528f"),
])  # fmt: skip
def test_aes_xcbc_mac_rfc_3566(data: bytes, mac: str) -> None:
    assert aes_xcbc_mac(COUNTING[:16], data).hex() == mac
    assert INTEGRITY["hmac-aes-xcbc"].icv(COUNTING[:16], data).hex() == mac[:24]


@pytest.mark.parametrize(("key", "mac"), [
    ("000102030405060708090a0b0c0d0e0f", "47f51b4564966215b8985c63055ed308"),
    ("00010203040506070809", "0fa087af7d866e7653434e602fdde835"),
    ("000102030405060708090a0b0c0d0e0fedcb", "8cd3c93ae598a9803006ffb67c40e9e4"),
])  # fmt: skip
def test_aes_xcbc_prf_rfc_4434(key: str, mac: str) -> None:
    assert PRFS["aes-128-xcbc"].compute(bytes.fromhex(key), COUNTING[:20]).hex() == mac


NIST_PLAIN = (
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)


@pytest.mark.parametrize(("name", "key", "iv", "plain", "sealed"), [
    pytest.param("des-cbc", "0123456789abcdef", "1234567890abcdef", b"Now is the time for all ".hex(),
        "e5c7cdde872bf27c43e934008c389c0f683788499a7c05f6", id="FIPS 81 C"),
    pytest.param("3des-cbc", "627f460e08104a1043cd265d5840eaf1313edf97df2a8a8c", "8e29f75ea77e5475",
        "326a494cd33fe756", "b22b8d66de970692", id="NIST 3DES MMT 1"),
    pytest.param("3des-cbc", "37ae5ebf46dff2dc0754b94f31cbb3855e7fd36dc870bfae", "3d1de3cc132e3b65",
        "84401f78fe6c10876d8ea23094ea5309", "7b1f7c7e3b1c948ebd04a75ffba7d2f5", id="NIST 3DES MMT 2"),
    pytest.param("aes-128-cbc", "06a9214036b8a15b512e03d534120006", "3dafba429d9eb430b422da802c9fac41",
        b"Single block msg".hex(), "e353779c1079aeb82708942dbe77181a", id="RFC 3602 1"),
    pytest.param("aes-128-cbc", "c286696d887c9aa0611bbb3e2025a45a", "562e17996d093d28ddb3ba695a2e6f58",
        bytes(range(32)).hex(), "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
        id="RFC 3602 2"),
    pytest.param("aes-128-cbc", "56e47a38c5598974bc46903dba290349", "8ce82eefbea0da3c44699ed7db51b7d9",
        bytes(range(0xA0, 0xE0)).hex(), "c30e32ffedc0774e6aff6af0869f71aa0f3af07a9a31a9c684db207eb0ef8e4e"
        "35907aa632c3ffdf868bb7b29d3d46ad83ce9f9a102ee99d49a53e87f4c3da55", id="RFC 3602 4"),
    pytest.param(
        "aes-192-cbc",
        "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
        "000102030405060708090a0b0c0d0e0f",
        NIST_PLAIN,
        "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a"
            "571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd",
        id="SP 800-38A F.2.3",
    ),
    pytest.param(
        "aes-256-cbc",
        "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
        "000102030405060708090a0b0c0d0e0f",
        NIST_PLAIN,
        "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
            "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
        id="SP 800-38A F.2.5",
    ),
])  # fmt: skip
def test_ciphers(name: str, key: str, iv: str, plain: str, sealed: str) -> None:
    cipher = CIPHERS[name]
    assert cipher.encrypt_cbc(bytes.fromhex(key), bytes.fromhex(iv), bytes.fromhex(plain)).hex() == sealed
    assert cipher.decrypt_cbc(bytes.fromhex(key), bytes.fromhex(iv), bytes.fromhex(sealed)).hex() == plain


OAKLEY = (
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A63"
)
"""What the four primes of the guide begin with."""
LONGER = "7ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE"
LONGEST = (
    "45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED52907709"
    "6966D670C354E4ABC9804F1746C08CA"
)
END = "F" * 16


@pytest.mark.parametrize(("number", "p"), [
    (1, f"{OAKLEY}A3620{END}"),
    (2, f"{OAKLEY}{LONGER}65381{END}"),
    (5, f"{OAKLEY}{LONGER}{LONGEST}237327{END}"),
    (14, (f"{OAKLEY}{LONGER}{LONGEST}18217C32905E462E36CE3BE39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52"
        f"C9DE2BCBF6955817183995497CEA956AE515D2261898FA051015728E5A8AACAA68{END}")),
])  # fmt: skip
def test_primes_of_the_guide_rfc_2409_and_3526(number: int, p: str) -> None:
    group = GROUPS[number]
    assert isinstance(group, Modp)
    assert int(group.p) == int(p, 16)


@pytest.mark.parametrize(("number", "digest"), [
    (15, "48cf8b092fbce4359d9871abf74f98e25b6163379eaa15cd9087e800c6d1c55c"),
    (16, "4ee95187682bcb230ad26a95205f6920e84708f6251b3894329b09ec23919e33"),
    (17, "d1bfe6d0925ce7e4da262b62861514a7755e35831e429f343e7b864848657efd"),
    (18, "39ab4feab950a3128fb71accb9fc3965d857012e081998a85996e3ea8b3c3bcf"),
])  # fmt: skip
def test_long_primes_by_their_sha_256(number: int, digest: str) -> None:
    """Digests of the constants of RFC 3526 that OpenSSL's BN_get_rfc3526_prime_* hold."""
    group = GROUPS[number]
    assert isinstance(group, Modp)
    assert hashlib.sha256(int(group.p).to_bytes(group.public_octets, "big")).hexdigest() == digest


@pytest.mark.parametrize(("number", "i", "r", "public", "shared"), [
    (
        19,
        "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
        "c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53",
        ("dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180"
            "5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3"),
        "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
    ),
    (
        20,
        "099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b538041e649ee3faef896783ab194",
        "41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942e0308312916b8ed2960e4bd55a7448fc",
        ("667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6de3ac808acb4bdb4c88732aee95f41aa"
            "9482ed1fc0eeb9cafc4984625ccfc23f65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b4c634573a81c"),
        "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d603135569b9e9d09cf5d4a270f59746",
    ),
    (
        21,
        ("0037ade9319a89f4dabdb3ef411aaccca5123c61acab57b5393dce47608172a095aa85a30fe1c2952c6771d937ba9777"
            "f5957b2639bab072462f68c27a57382d4a52"),
        ("0145ba99a847af43793fdd0e872e7cdfa16be30fdc780f97bccc3f078380201e9c677d600b343757a3bdbf2a3163e4c2"
            "f869cca7458aa4a4effc311f5cb151685eb9"),
        "",
        ("01144c7d79ae6956bc8edb8e7c787c4521cb086fa64407f97894e5e6b2d79b04d1427e73ca4baa240a34786859810c06"
            "b3c715a3a8cc3151f2bee417996d19f3ddea"),
    ),
])  # fmt: skip
def test_curves_rfc_5903(number: int, i: str, r: str, public: str, shared: str) -> None:
    group = GROUPS[number]
    assert isinstance(group, Ecp)
    one, other = (group.private((int(secret, 16) - 1).to_bytes(group.random_octets, "big")) for secret in (i, r))
    assert one.secret == int(i, 16)
    assert one.public.hex().startswith(public)
    assert group.shared(one, other.public).hex() == shared
    assert group.shared(other, one.public).hex() == shared


@pytest.mark.parametrize(("i", "r", "public_i", "public_r", "shared"), [
    pytest.param(
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
        id="RFC 7748 6.1",
    ),
    pytest.param(
        "751fb4308655b476b6789b7325f9ea8cddd16a58533ff6d9e60009464a5f9d94",
        "0a54645253290d60ddadd0e030bacd9e5501efdc220755a1e978f1b839a05688",
        "48d5ddd4061257ba166fa3f9bbdb74f1a4e81c089384fa77f790709f0dfbc766",
        "0be7c1f5aad87d7e448662673298a443478b859745179eaf564c79c0ef6eee25",
        "c74950607a12327f3204d94b6825bfb068b7f8319a9e3708ed3d43ce8130c950",
        id="RFC 8031 A",
    ),
])  # fmt: skip
def test_curve25519(i: str, r: str, public_i: str, public_r: str, shared: str) -> None:
    group = GROUPS[31]
    pairs: list[DhKeyPair] = [group.private(bytes.fromhex(secret)) for secret in (i, r)]
    assert [pair.public.hex() for pair in pairs] == [public_i, public_r]
    assert group.shared(pairs[0], pairs[1].public).hex() == shared
    assert group.shared(pairs[1], pairs[0].public).hex() == shared
