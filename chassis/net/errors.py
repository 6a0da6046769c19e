"""The error that every decoder raises."""

from __future__ import annotations


class DecodeError(ValueError):
    """Octets that cannot be decoded.

    `where` names the protocol, `what` is the error, `offset` is its position (octets) from the start of the
    protocol's header. If only `where` is given, it is the whole text.
    """

    __slots__ = ("offset", "what", "where")

    def __init__(self, where: str, what: str = "", offset: int = 0) -> None:
        super().__init__(f"{where}: {what} (at byte {offset})" if what else where)
        self.where = where
        self.what = what
        self.offset = offset

    def __reduce__(self) -> tuple[type[DecodeError], tuple[str, str, int]]:
        return (DecodeError, (self.where, self.what, self.offset))
