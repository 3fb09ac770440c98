"""Getting a model while the panel shows how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_sam_suite.engine.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QWidget

    from napari_sam_suite.widgets.bridge import Background
    from napari_sam_suite.widgets.footer import Footer
    from napari_sam_suite.widgets.models import ModelChooser


class Downloads(QObject):
    """Gets the chosen model when its button is pressed, one at a time.

    Parameters
    ----------
    models : ModelChooser
        What to get; it cannot be changed meanwhile.
    footer : Footer
        Shows how far it is.
    busy : callable
        Whether a run needs the footer.

    Signals
    -------
    failed(Exception)
        It did not arrive.
    """

    failed = Signal(object)

    def __init__(
        self,
        models: ModelChooser,
        footer: Footer,
        busy: Callable[[], bool],
        parent: QWidget,
    ) -> None:
        super().__init__(parent)
        self._models, self._footer, self._busy = models, footer, busy
        self._work: Background | None = None
        models.download_wanted.connect(self.start)
        footer.cancelled.connect(self.cancel)

    def start(self) -> None:
        """Begin, unless there is something else to wait for."""
        if self._busy() or self._work is not None:
            return
        title = self._models.spec.title
        self._work = work = self._models.start_download()
        work.progressed.connect(self._advance)
        work.done.connect(lambda title: self._end(f"{title} is here."))
        work.failed.connect(self._fail)
        self._models.setEnabled(False)
        self._footer.start(f"Downloading {title}.")
        work.start()

    def cancel(self) -> None:
        """Stop; what has arrived is kept."""
        if self._work is not None:
            self._work.cancel()

    def _advance(self, progress: tuple[int, int, str]) -> None:
        done, total, text = progress
        size = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"
        self._footer.advance(done, total, f"{text or 'Downloading'}: {size}")

    def _end(self, text: str) -> None:
        self._work = None
        self._models.setEnabled(True)
        self._models.refresh()
        self._footer.stop(text)

    def _fail(self, error: Exception) -> None:
        self._end("Stopped; what has arrived is kept.")
        if not isinstance(error, Cancelled):
            self.failed.emit(error)
