"""From other threads to Qt's main thread, and nothing stale with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import QObject, Qt, Signal  # type: ignore[attr-defined]

from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.widgets.attention import Attention

if TYPE_CHECKING:
    from napari_sam_suite.engine.jobs import Job

Report = Callable[[int, int, str], None]
Stop = Callable[[], bool]


class _Post(QObject):
    """Calls on the main thread what other threads hand in, in their order.

    There is one, and it is never destroyed: a thread that emits a signal of an object
    which goes with its window crashes the process when both happen at once.
    """

    _handed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._handed.connect(self._call, Qt.ConnectionType.QueuedConnection)

    def hand(self, work: Callable[[], None]) -> None:
        """Let it be called soon. From any thread."""
        self._handed.emit(work)

    def _call(self, work: Callable[[], None]) -> None:
        work()


def _there(one: QObject) -> bool:
    """Whether Qt has not destroyed it, as it does with the window."""
    return bool(isalive(one))  # type: ignore[no-untyped-call]


@cache
def _post() -> _Post:
    """The only one; made on the main thread."""
    return _Post()


class Bridge(QObject):
    """Brings what happens to one job of the engine to the main thread.

    Following another job makes everything of the one before stale: it is dropped,
    also what was already on its way.

    Signals
    -------
    progressed(Progress), found(FrameResult), noticed(str), finished(Job)
        Emitted on the main thread.
    """

    progressed = Signal(object)
    found = Signal(object)
    noticed = Signal(str)
    finished = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._generation = 0
        self._seen: set[int] = set()
        self._job: Job[Any] | None = None
        self._post = _post()

    def follow(self, job: Job[Any]) -> None:
        """Listen to `job`, and no longer to the one before."""
        self.drop()
        self._job = job
        here = self._generation
        attention = Attention()  # until it ends, followed or not
        job.finished.connect(lambda: attention.release())
        job.progressed.connect(lambda progress: self._send(here, "progress", progress))
        job.found.connect(lambda part: self._send(here, "found", part))
        job.noticed.connect(lambda text: self._send(here, "noticed", text))
        job.finished.connect(lambda: self._send(here, "finished", job))
        # the job may have run already: what was missed is sent again, once
        for part in list(job.parts):
            self._send(here, "found", part)
        if job.wait(0):
            attention.release()
            self._send(here, "finished", job)

    def drop(self) -> None:
        """Listen to no job any more."""
        self._generation += 1
        self._seen.clear()
        self._job = None

    def _send(self, generation: int, kind: str, what: object) -> None:
        # on the engine's thread
        self._post.hand(lambda: self._deliver(generation, kind, what))

    def _deliver(self, generation: int, kind: str, what: Any) -> None:
        if generation != self._generation or not _there(self):
            return
        if kind in ("found", "finished"):
            if id(what) in self._seen:
                return
            self._seen.add(id(what))
        if kind == "progress":
            self.progressed.emit(what)
        elif kind == "noticed":
            self.noticed.emit(what)
        elif kind == "found":
            self.found.emit(what)
        else:
            self.finished.emit(what)


class Background(QObject):
    """Work on a thread of its own, for what needs no model: files, polygons.

    Parameters
    ----------
    work : callable
        Called with ``report(done, total, text)`` and ``stop() -> bool``.
    parent : QObject, optional
        Owner.
    daemon : bool
        Whether Python may end before the work does. Not while it imports compiled
        libraries: it would end with a crash.

    Signals
    -------
    progressed(object), done(object), failed(object)
        ``(done, total, text)``, the result, or the exception; on the main thread.
        After `cancel` nothing but ``failed(Cancelled)`` comes.
    """

    progressed = Signal(object)
    done = Signal(object)
    failed = Signal(object)

    def __init__(
        self,
        work: Callable[[Report, Stop], Any],
        parent: QObject | None = None,
        *,
        daemon: bool = True,
    ) -> None:
        super().__init__(parent)
        self._work = work
        self._stop = threading.Event()
        self._post = _post()
        self._thread = threading.Thread(target=self._run, daemon=daemon)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def cancel(self) -> None:
        """Stop at the next chance."""
        self._stop.set()

    def _run(self) -> None:
        def report(done: int, total: int, text: str) -> None:
            self._send("progress", (done, total, text))

        try:
            with Attention():
                result = self._work(report, self._stop.is_set)
        except Exception as error:  # noqa: BLE001 - it belongs to the main thread
            self._send("failed", error)
        else:
            if self._stop.is_set():
                self._send("failed", Cancelled())
            else:
                self._send("done", result)

    def _send(self, kind: str, what: object) -> None:
        self._post.hand(lambda: self._deliver(kind, what))

    def _deliver(self, kind: str, what: Any) -> None:
        if not _there(self):
            return
        if kind == "progress":
            self.progressed.emit(what)
        elif kind == "done":
            self.done.emit(what)
        else:
            self.failed.emit(what)
