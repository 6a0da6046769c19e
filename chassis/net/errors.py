"""The one error of every decoder."""

from __future__ import annotations


class DecodeError(ValueError):
    """Bytes that are not what their place in a packet says they are.

    `where` names the protocol, `what` says what was wrong, `offset` is the position in bytes
    from the start of that protocol's header. With one argument that text says it all.
    """

    __slots__ = ("offset", "what", "where")

    def __init__(self, where: str, what: str = "", offset: int = 0) -> None:
        super().__init__(f"{where}: {what} (at byte {offset})" if what else where)
        self.where = where
        self.what = what
        self.offset = offset

    def __reduce__(self) -> tuple[type[DecodeError], tuple[str, str, int]]:
        return (DecodeError, (self.where, self.what, self.offset))
