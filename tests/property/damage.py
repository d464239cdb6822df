"""Bytes that were changed on their way."""

from __future__ import annotations

from hypothesis import strategies as st

_NOISE = [b"\n", b"\r", b'"', b"\\", b"}", b"{", b"]", b",", b"\0", b"\xff"]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` with a few bytes changed, left out, put in or repeated, or cut off."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 12)))
        new = draw(
            st.one_of(st.binary(max_size=4), st.sampled_from(_NOISE), st.just(data[at:end] * 2))
        )
        is_cut = draw(st.integers(0, 3)) == 0
        data = data[:at] if is_cut else data[:at] + new + data[end:]
    return data
