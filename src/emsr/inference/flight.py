"""How many windows are in flight: as many as there are workers until memory runs out, then half as many."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

HINTS = "can't allocate memory", "out of memory"  # in messages of errors that have no type of their own


class OutOfMemory(Exception):
    """A call of a network found too little memory; the message is the allocator's, in one line."""


@contextmanager
def told_apart() -> Iterator[None]:
    """Lack of memory inside becomes OutOfMemory, whatever device and allocator; everything else stays what it is."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(_first_line(error)) from None
    except RuntimeError as error:
        if not any(hint in str(error) for hint in HINTS):
            raise
        raise OutOfMemory(_first_line(error)) from None


class Flight:
    """Lets at most `limit` columns of windows be computed at once; `halve` lowers it for good."""

    def __init__(self, limit: int) -> None:
        self.limit = max(1, limit)
        self._active = 0
        self._changed = threading.Condition()

    @contextmanager
    def seat(self) -> Iterator[int]:
        """Waits for one of the places; yields how many there were."""
        with self._changed:
            self._changed.wait_for(lambda: self._active < self.limit)
            self._active += 1
            limit = self.limit
        try:
            yield limit
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def halve(self, limit: int) -> bool:
        """After memory ran out under `limit`: half as many from now on; False where there was no more than one.

        Of several that ran out together only the first halves.
        """
        with self._changed:
            if limit == 1:
                return False
            self.limit = min(self.limit, limit // 2)
            return True


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
