"""Bytes and documents that something has happened to, for hypothesis: what a bad disk, copy or program does to files.

`EMSR_FUZZ=500 pytest tests/test_fuzz.py` (`make fuzz`) tries so many of each kind, others every time; without it a few
are tried, always the same.
"""

from __future__ import annotations

import copy
import json
import os
from typing import Any

import hypothesis
from hypothesis import strategies as st

from test_bad_sources_cut import STRANGE, places, replaced

ASKED = int(os.environ.get("EMSR_FUZZ", "0"))
EDGES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]
KINDS = ("flip", "edge", "cut", "remove", "repeat", "zeros", "random")


def examples(few: int) -> Any:
    """Decorates a property: so many examples, or as many as are asked for."""
    slow = [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow]
    how = {"derandomize": not ASKED, "deadline": None, "database": None, "suppress_health_check": slow}
    phases = [hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if ASKED else [])]
    return hypothesis.settings(max_examples=ASKED or few, phases=phases, **how)


@st.composite
def spoilt(draw: st.DrawFn, content: bytes, most: int = 2) -> bytes:
    """Some bytes in which something has happened at one or a few places, more often near the beginning."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        last = max(0, len(data) - 1)
        at = draw(st.integers(0, min(last, 200)) | st.integers(0, last))
        length = draw(st.integers(1, 64))
        kind = draw(st.sampled_from(KINDS))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "edge":
            width = draw(st.sampled_from((1, 2, 4, 8)))
            number = draw(st.sampled_from(EDGES)) % 2 ** (8 * width)
            data[at : at + width] = number.to_bytes(width, draw(st.sampled_from(("little", "big"))))
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length]
        elif kind == "zeros":
            data[at : at + length] = bytes(length)
        else:
            data[at : at + length] = draw(st.binary(min_size=1, max_size=8))
    return bytes(data)


@st.composite
def strange(draw: st.DrawFn, document: Any) -> Any:
    """A document in which one value is another, or gone."""
    at = draw(st.sampled_from(list(places(document))[1:]))
    if draw(st.booleans()):
        return replaced(document, at, draw(st.sampled_from(STRANGE)))
    changed = inner = copy.deepcopy(document)
    for key in at[:-1]:
        inner = inner[key]
    del inner[at[-1]]
    return changed


@st.composite
def other(draw: st.DrawFn, content: bytes) -> bytes:
    """What may have become of a file: of JSON also another document."""
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if isinstance(document, dict) and document and draw(st.booleans()):
        return json.dumps(draw(strange(document))).encode()
    return draw(spoilt(content))
