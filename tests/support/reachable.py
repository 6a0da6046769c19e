"""How much an object holds, to see that nothing grows."""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType
from typing import Any


def contained(root: Any) -> int:
    """Return the number of items in all containers and fields that can be reached from an object."""
    gc.collect()
    seen: set[int] = set()
    todo = [root]
    count = 0
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, type | ModuleType | FunctionType):
            continue
        seen.add(id(one))
        held = gc.get_referents(one)
        count += len(held)
        todo += held
    return count
