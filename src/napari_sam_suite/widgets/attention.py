"""The main thread's turn, while other threads run Python."""

from __future__ import annotations

import gc
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOON = 0.0005  # s


class Attention:
    """Lets the main thread in quickly, from its making until it is released.

    Two settings of the interpreter make a window stand still beside a busy thread,
    and are changed while at least one of these is held:

    - A thread that runs Python gives way only every 5 ms. Drawing asks for the
      interpreter again after each of hundreds of calls to OpenGL, and waits as long
      each time.
    - The collector of cyclic garbage stops all threads while it looks at every object
      that napari and torch have made, which takes 0.3 s. It is told to leave alone
      what is there already; what is made from now on is collected as ever.

    Examples
    --------
    >>> with Attention():
    ...     pass
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _held: ClassVar[int] = 0
    _before: ClassVar[float] = _SOON

    def __init__(self) -> None:
        self._released = False
        with Attention._lock:
            if Attention._held == 0:
                Attention._before = sys.getswitchinterval()
                sys.setswitchinterval(min(_SOON, Attention._before))
                gc.freeze()
            Attention._held += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give it back; once is enough, more does no harm. From any thread."""
        with Attention._lock:
            if self._released:
                return
            self._released = True
            Attention._held -= 1
            if Attention._held == 0:
                sys.setswitchinterval(Attention._before)
                gc.unfreeze()


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect no cyclic garbage: for seconds of work that makes objects to stay.

    What was made is left alone as well for as long as anything holds `Attention`.
    """
    was_on = gc.isenabled()
    with Attention():
        gc.disable()
        try:
            yield
        finally:
            if was_on:
                gc.freeze()
                gc.enable()
