"""Public keys as OpenSSH writes them: `ALGORITHM BASE64 [REMARK]` (RFC 4253, section 6.6)."""

from __future__ import annotations

import binascii


def public_key(text: str) -> bytes:
    """Return the octets of a public key; empty if the text is none."""
    words = text.split()
    if len(words) < 2:
        return b""
    try:
        octets = binascii.a2b_base64(words[1], strict_mode=True)
        algorithm = words[0].encode("ascii")
    except ValueError:
        return b""
    # A key begins with its algorithm.
    return octets if octets.startswith(len(algorithm).to_bytes(4, "big") + algorithm) else b""
