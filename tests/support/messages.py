"""Any message of the bus and any record, for property tests."""

from __future__ import annotations

import typing

from hypothesis import strategies as st

from chassis.bus import codec, messages
from chassis.model.source import as_carried

st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(int, st.integers(0, 2**40))
values = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8) | st.binary(max_size=8)


keys = st.lists(st.text(max_size=5) | st.integers(0, 99), min_size=1, max_size=3).map(tuple)


any_message = st.one_of(
    [
        st.builds(
            kind,
            **{
                name: st.dictionaries(st.text(max_size=6), values, max_size=3)
                for name, hint in typing.get_type_hints(kind).items()
                if typing.get_origin(hint) is dict
            }
            | ({"delete": st.lists(keys, max_size=3).map(tuple)} if kind is messages.Delta else {}),
        )
        for kind in codec.MESSAGE_TYPES
    ]
).map(as_carried)


any_record = st.one_of([st.builds(kind) for kind in codec.RECORD_TYPES]).map(as_carried)
