"""One task at a time has the engine: it begins, says how far it is, and ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_sam_suite.engine.errors import Cancelled, EngineError
from napari_sam_suite.widgets.bridge import Bridge
from napari_sam_suite.widgets.footer import duration
from napari_sam_suite.widgets.session import is_prepared, name_device
from napari_sam_suite.widgets.settings import preferences

if TYPE_CHECKING:
    from napari_sam_suite.engine.jobs import Engine, Job, Progress
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.widgets.footer import Footer
    from napari_sam_suite.widgets.session import Session

_PATIENCE = 350  # ms that a cancelled task may take before the panel goes on
WAIT = "Wait for the run to end, or cancel it."
"""Why nothing else can begin meanwhile."""


class Task:
    """What a tab wants of the engine. All of it is called on the main thread.

    Attributes
    ----------
    spec : ModelSpec
        The model it needs.
    """

    spec: ModelSpec

    def start(self, engine: Engine) -> Job[Any]:
        """Hand it to the engine, and return without waiting.

        Raises
        ------
        EngineError
            If it cannot begin.
        """
        raise NotImplementedError

    def take(self, part: Any) -> None:
        """Take one finished part of the result, as `Job.give` hands it out."""

    def settle(self, job: Job[Any]) -> None:
        """Do what is left to do after the last part, however it ended.

        Called when the panel goes on, and again if it went on before the end.
        """

    def summary(self) -> str:
        """What there is now, to follow "Done in 8 s:" or "Stopped; kept:"."""
        raise NotImplementedError


class Runner(QObject):
    """Gives the engine one task, and shows in the footer what becomes of it.

    Parameters
    ----------
    session : Session
        Has the engine.
    footer : Footer
        Progress, Cancel and the last sentence.

    Signals
    -------
    changed()
        It became busy, or free.
    placed(str)
        The model was loaded: on this device. Empty while it is not known.
    failed(Exception)
        The task came to nothing; what it had finished is kept.
    """

    changed = Signal()
    placed = Signal(str)
    failed = Signal(object)

    def __init__(
        self, session: Session, footer: Footer, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._session, self._footer = session, footer
        self._bridge = Bridge(self)
        self._loading = Bridge(self)
        self._starting: Task | None = None
        self._running: Task | None = None
        self._last: Task | None = None
        self._job: Job[Any] | None = None
        self._began = 0.0
        self._notices: list[str] = []
        footer.cancelled.connect(self.cancel)
        self._bridge.progressed.connect(self._advance)
        self._bridge.found.connect(self._take)
        self._bridge.noticed.connect(self._notices.append)
        self._bridge.finished.connect(self._finish)
        self._loading.finished.connect(self._loaded)

    @property
    def busy(self) -> bool:
        """Whether a task has the engine, or is about to."""
        return self._running is not None or self._starting is not None

    def start(self, task: Task) -> None:
        """Begin as soon as what the engine needs is imported."""
        self._starting = task
        self._began = time.monotonic()
        self._footer.start(f"Loading {task.spec.title}.")
        self.changed.emit()
        if is_prepared():
            self._launch(task)
            return
        work = self._session.prepare()
        work.done.connect(lambda _: self._launch(task))
        work.failed.connect(lambda error: self._not_started(task, error))

    def cancel(self) -> None:
        """Stop, and keep what is finished."""
        if self._starting is not None:
            self._starting = None
            self._end("Stopped before it began.")
        elif self._job is not None:
            job = self._job
            job.cancel()
            # a big encoder cannot be interrupted: the panel goes on without it
            QTimer.singleShot(_PATIENCE, lambda: self._give_up(job))

    def _not_started(self, task: Task, error: Exception) -> None:
        if self._starting is task:
            self._starting = None
            self._end("")
            self.failed.emit(error)

    def _launch(self, task: Task) -> None:
        """Hand the task to the engine, unless it was cancelled meanwhile."""
        if self._starting is not task:
            return
        try:
            engine, fresh = self._session.engine(task.spec.name, preferences())
            naming = engine.submit(name_device, "load the model") if fresh else None
            self._job = task.start(engine)
        except EngineError as error:
            self._not_started(task, error)
            return
        self._starting, self._running, self._last = None, task, task
        self._notices.clear()
        if naming is not None:
            self.placed.emit("")
            self._loading.follow(naming)
        self._bridge.follow(self._job)
        self.changed.emit()

    def _loaded(self, job: Job[str]) -> None:
        if job.error is None:
            self.placed.emit(job.result())
            self._footer.restart_clock()

    def _advance(self, progress: Progress) -> None:
        if self._job is not None and not self._job.stopping():
            self._footer.advance(*progress)

    def _take(self, part: Any) -> None:
        if self._last is not None:
            self._last.take(part)

    def _give_up(self, job: Job[Any]) -> None:
        """Let the panel go on; what the job still finishes is taken."""
        if job is self._job and self._running is not None:
            self._running.settle(job)
            self._end(f"Stopped; kept: {self._running.summary()}.")

    def _finish(self, job: Job[Any]) -> None:
        task, late = self._last, self._running is None
        if task is None:
            return
        task.settle(job)
        if late:
            return
        if isinstance(job.error, Cancelled):
            self._end(f"Stopped; kept: {task.summary()}.")
        elif job.error is not None:
            self._end("")
            self.failed.emit(job.error)
        else:
            took = duration(time.monotonic() - self._began)
            done = f"Done in {took}: {task.summary()}."
            self._end(" ".join([done, *self._notices]))

    def _end(self, text: str) -> None:
        self._running = None
        self._job = None
        self._footer.stop(text)
        self.changed.emit()
