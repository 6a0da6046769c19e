"""Published packets and values, with where each is from. What is here is typed in; that each is right is tested.

`GCM` are the packets of draft-mcgrew-gcm-test-01 section 4 that AES-GCM enciphers, `CBC` those of RFC 3602
section 4. `ODP` are packets of OpenDataPlane's validation suite (test/validation/api/ipsec/test_vectors.h), which
has what no RFC has: AH, ESP with each integrity algorithm, ESP in UDP. Its ICMP packet is the payload of most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


def octets(text: str) -> bytes:
    return bytes.fromhex(text)


@dataclass(frozen=True)
class Gcm:
    """A packet: `sequence` has 64 bits in hexadecimal where it is an extended one, else 32. `plain` ends with
    the ESP trailer; `sealed` is what follows the IV."""

    key: str
    salt: str
    spi: int
    sequence: str
    iv: str
    plain: str
    sealed: str

    def __str__(self) -> str:
        return f"{len(self.key) * 4}-{self.spi:08x}-{self.sequence}-{len(self.plain) // 2}"


_3DE0: Final = ("3de09874b388e6491988d0c3607eae1f", "57690e43", 0x42F67E3F, "1010101010101010", "4e280000a2fca1a3")
_ABBC: Final = "abbccddef00112233445566778899aab"
_1740: Final = (_ABBC * 2, "73616c74", 0x17405E67, "156f3126dd0db99b", "616e640169766563")

GCM: Final = (
    Gcm(
        "4c80cdefbb5d10da906ac73c3613a634", "2e443b68", 0x4321, "8765432100000000", "4956ed7e3b244cfe",
        "45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f736970045f756470037369"
        "700963796265726369747902646b000021000101020201",
        "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf65925bf1f4a13c5d15"
        "b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732459018148f6cbe722fd04796562dfdb4",
    ),
    Gcm(
        "feffe9928665731c6d6a8f9467308308", "cafebabe", 0xA5F8, "0000000a", "facedbaddecaf888",
        "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d0010000010000000000000373697009637962"
        "65726369747902646b00000100010001",
        "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f51330d0eec416642"
        "cfbb85a5b47e48a4ec3b9ba95d918bd183b70d3aa8bc6ee4c309e9d85a41ad4a",
    ),
    Gcm(
        _ABBC * 2, "11223344", 0x4A2CBFE3, "00000002", "0102030405060708",
        "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b401010402"
        "01020201",
        "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99d"
        "ef842d8eb335f4eecfdbf831824b4c4915956c96",
    ),
    Gcm(
        "00" * 16, "00000000", 0, "00000001", "0000000000000000",
        "4500003c99c500008001cb7a40679318010101010800075c020044006162636465666768696a6b6c6d6e6f7071727374"
        "75767761626364656667686901020201",
        "4688daf2f973a392732909c331d56d60f694abaa414b5e7ff5fdcdfff5e9a284456476492719ffb64de7d9dca1e1d894"
        "bc3bd57873ed4d181d19d4d5c8c18af3f821d496eeb096e98ad2b69e4799c71d",
    ),
    Gcm(
        *_3DE0,
        "4500003c99c300008001cb7c40679318010101010800085c020043006162636465666768696a6b6c6d6e6f7071727374"
        "75767761626364656667686901020201",
        "fba2caa4853cf9f0f22cb10d86dd83b0fec75691cf1a04b00d1138ec9c35791765acbd8701ad79845bf9fe3fba487bc9"
        "1755e6662b4c8d0d1f5e22739530320ae0d731cc978ecafaeae88f00e80d6e48",
    ),
    Gcm(
        *_3DE0,
        "4500001c42a200008001441f406793b6e00000020a00f5ff01020201",
        "fba2ca845e5df9f0f22c3e6e86dd831e1fc65792cd1af9130e1379ed369f071f35e034be95f112e4e7d05d35",
    ),
    Gcm(
        "feffe9928665731c6d6a8f9467308308feffe9928665731c", "cafebabe", 0xA5F8, "0000000a", "facedbaddecaf888",
        "45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d075680001",
        "a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0315b27452144cc7795457b9652037f53"
        "18027b5b4cd7a636",
    ),
    Gcm(
        _ABBC, "decaf888", 0x100, "0000000000000001", "cafedebaceface74",
        "4500004933ba00007f119106c3fb1d10c2b1d326c02831ce0035dd7b800302d500004e20001e8c18d75b81dc91baa047"
        "6b91b924b280389d92c963bac046ec959b6266c04722b14923010101",
        "18a6fd42f72cbf4ab2a2ea901f73d814e3e7f243d95412e1c349c1d2fbec168f9190feebaf2cb01984e65863965d7472"
        "b79da345e0e780191f0d2f0e0f496c226f2127b27db35724e7845d68651f57e65f354f75ff17015769623436",
    ),
    Gcm(
        *_1740,
        "45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f646d540001",
        "f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef67549d524a3018d9a57ff4d3a31ce673119e451626c2415771e3"
        "b7eebca614c89b35",
    ),
    Gcm(
        *_3DE0,
        "45000049333e00007f119182c3fb1d10c2b1d326c02831ce0035cb458003025b000001e0001e8c18d65759d52284a035"
        "2c71475c8880391c764d6e5ee0496b325ae270c03899493915010101",
        "fba2cad12fc1f9f00d3cebf305410db83d7784b607323d220f24b0a97d54182800cadb0f68d99ef0e0c0c89ae9bea888"
        "4e52d65bc1afd0740f742444747b5b39ab533163aad4550ee5160975cdb608c5769189609763b8e18caa81e2",
    ),
    Gcm(
        *_1740,
        "636973636f0172756c657301746865016e6574776501646566696e6501746865746563686e6f6c6f6769657301746861"
        "7477696c6c01646566696e65746f6d6f72726f7701020201",
        "d4b7ed86a1777f2ea13d6973d324c69e7b43f826fb56831226508bebd2dceb18d0a6df10e5487df074113e14c641024e"
        "3e6773d91a62ee429b043a10e3efe6b012a49363412364f8c0cac587f249e56b11e24f30e44ccc76",
    ),
    Gcm(
        "7d773d00c144c525ac619d18c84a3f47", "d9664267", 0x335467AE, "ffffffff", "43457e9182443bc6",
        "01020201",
        "437f866bcb3f699fe9b0822bac961c4504bef270",
    ),
    Gcm(
        _ABBC, "decaf888", 0x100, "0000000000000001", "cafedebaceface74",
        "746f016265016f72016e6f7401746f0162650001",
        "29c9fc69a197d038ccdd14e2ddfcaa0543332164412503524303ed3c6c5f283843af8c3e",
    ),
    Gcm(
        "6c6567616c697a656d6172696a75616e61616e64646f69746265666f72656961", "7475726e", 0x796B6963,
        "ffffffffffffffff", "333021696765746d",
        "45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c6d6e6f7071727374"
        "01020201",
        "f97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b64a274b39b49c3a864cd3d78ca4ae68a32b42458fb57dbe82"
        "1dcc63b9d0937ba2945f669368661a329fb4c053",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Cbc:
    """A packet of AES-128-CBC without integrity. `clear` and `wire` begin with their IP headers; in transport mode
    what is enciphered begins behind it."""

    case: int
    key: str
    iv: str
    tunnel: bool
    clear: str
    wire: str

    def __str__(self) -> str:
        return f"RFC 3602 case {self.case}"


_5_AND_6: Final = "90d382b410eeba7ad938c46cec1a82bf"
_7_AND_8: Final = "0123456789abcdef0123456789abcdef"
_PING: Final = "".join(f"{octet:02x}" for octet in range(0x08, 0x38))

CBC: Final = (
    Cbc(
        5, _5_AND_6, "e96e8c08ab465763fd098d45dd3ff893", False,
        "4500005408f200004001f9fec0a87b03c0a87b6408000ebda70a00008e9c083db95b0700" + _PING,
        "4500007c08f200004032f9a5c0a87b03c0a87b640000432100000001e96e8c08ab465763fd098d45dd3ff893"
        "f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856a4699e523a55db080b59ec3a8e4b7e52"
        "775b07d1db34ed9c538ab50c551b874aa269add047ad2d5913ac19b7cfbad4a6",
    ),
    Cbc(
        6, _5_AND_6, "69d08df7d203329db093fc4924e5bd80", False,
        "4500003008fe00004001fa16c0a87b03c0a87b640800b5e8a80a0500a69c083d0b660e00" + "77" * 12,
        "4500004c08fe00004032f9c9c0a87b03c0a87b64000043210000000869d08df7d203329db093fc4924e5bd80"
        "f51995881ec4e0c4488987ce742e8109689bb379d2d750c0d915dca346a89f75",
    ),
    Cbc(
        7, _7_AND_8, "f4e765244f6407adf13dc1380f673f37", True,
        "45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d02a20400" + _PING,
        "4500008c090500004032f91ec0a87b03c0a87bc80000876500000002f4e765244f6407adf13dc1380f673f37"
        "773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8e4ecaec78ac53aad7a0f022b859243c6"
        "47752e94a859352b8a4d4d2decd136e5c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d",
    ),
    Cbc(
        8, _7_AND_8, "85d47224b5f3dd5d2101d4ea8dffab22", True,
        "45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083da3de0300" + "ff" * 32,
        "4500007c090d00004032f926c0a87b03c0a87bc8000087650000000585d47224b5f3dd5d2101d4ea8dffab22"
        "15b92683819596a8047232cc00f7048fe45318e11f8a0f62ede3c3fc61203bb50f980a08c9843fd3a1b06d5c07ff9639"
        "b7eb7dfb3512e5de435e7207ed971ef3d2726d9b5ef6affc6d17a0decbb13892",
    ),
)  # fmt: skip

ODP_CLEAR: Final = octets("45000080000000004001ac27c0a86f02c0a8de020800fb3712340000babe01234567cafe") + bytes(
    range(0x5C)
)
ODP_SPI: Final = 123
ODP_CIPHER_KEY: Final = b"\xa5" * 16
ODP_OUTER: Final = (0x0A006F02, 0x0A00DE02)
ODP_INNER: Final = (0xC0A86F02, 0xC0A8DE02)


@dataclass(frozen=True)
class Odp:
    """ESP in transport mode of `ODP_CLEAR`, number `sequence`: keys are 0xa5 and 0x5a throughout. Where there is
    no `iv` there is no cipher. The ICV pins the ciphertext."""

    integrity: str
    key_octets: int
    sequence: int
    iv: str
    icv: str

    def __str__(self) -> str:
        return f"{self.integrity}-{'cbc' if self.iv else 'null'}-{self.sequence}"


_IV_256: Final = "96fa745678e4bb0c9e6e4aeb44d9f2e6"
ODP_ESP: Final = (
    Odp("hmac-sha-256-128", 32, 1, "", "e981cd659b250b33e2f383f16d14b41f"),
    Odp("hmac-sha-256-128", 32, 0x1235, "", "2ffbdd9dc0cab80aaaf159314eef6250"),
    Odp("hmac-sha1-96", 20, 1, "17c3faaf1deb94064ef862b41fa01762", "784efebd427f429665e7602f"),
    Odp("hmac-sha-256-128", 32, 1, _IV_256, "8a3910070297bb1c59b77033a426a2b8"),
    Odp(
        "hmac-sha-384-192", 48, 1, "cdc78d99f76521f640e34c5e90844cf3",
        "79bcb62dcc14c8eafa5b578d0aec56b7cab2389b0579f8dd",
    ),
    Odp(
        "hmac-sha-512-256", 64, 1, "f96b50a97b4ec9df7029e276dc121e8f",
        "e8666bb74fb2a508f17682a93eed39ac178fa8fe584d40edfed9356013b520f8",
    ),
)  # fmt: skip

ODP_TUNNEL_ICV: Final = "738df69a26064da1883765ab0de9953b"
"""ESP in tunnel mode without a cipher, HMAC-SHA-256."""
ODP_AH_TUNNEL: Final = (
    "450000b000000000403319170a006f020a00de02"
    "040500000000007b00000001"
    "d5359b21e6149b421f00fa36734c53cf"
)  # fmt: skip
"""Outer header and AH of `ODP_CLEAR` in a tunnel."""
ODP_AH_TRANSPORT: Final = ((1, "6c2ef71f7c7039a34a7701479e457351"), (0x1235, "04ef7173a1d4713fd678fea259e99370"))
"""AH before the ICMP message of `ODP_CLEAR`: number, ICV; HMAC-SHA-256."""

ODP_XCBC_KEY: Final = b"a1b2c3d4e5f6g7h8"
ODP_XCBC_CLEAR: Final = octets(
    "4500002f49370000401122840d0000020200000208000800001b6d99" + "58" * 19
)  # fmt: skip
ODP_XCBC_WIRE: Final = (
    octets("4500005c060000004032136c0a006f020a00de020000010000000001")
    + ODP_XCBC_CLEAR
    + octets("0102030304f15264d19b6224ddcc14f5c1")
)  # fmt: skip
