"""The dock: image, model, tabs, progress. It decides nothing that an engine could."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QFormLayout,
    QLabel,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_sam_suite.engine.frames import FrameIndex, Sizes
from napari_sam_suite.widgets.auto import AutoTab
from napari_sam_suite.widgets.autosave import Autosave
from napari_sam_suite.widgets.downloads import Downloads
from napari_sam_suite.widgets.export import ExportTab
from napari_sam_suite.widgets.fewshot import FewShotTab
from napari_sam_suite.widgets.finetune import FinetuneTab
from napari_sam_suite.widgets.footer import Footer, explain
from napari_sam_suite.widgets.images import ImageChooser
from napari_sam_suite.widgets.models import ModelChooser
from napari_sam_suite.widgets.outcome import Outcome
from napari_sam_suite.widgets.preview import Preview
from napari_sam_suite.widgets.prompt import PromptTab
from napari_sam_suite.widgets.resultbar import ResultBar
from napari_sam_suite.widgets.results import Results
from napari_sam_suite.widgets.runner import WAIT, Runner
from napari_sam_suite.widgets.session import Session, StartEngine, start_engine
from napari_sam_suite.widgets.settings import preferences
from napari_sam_suite.widgets.tab import Parts, State, Tab
from napari_sam_suite.widgets.tags import TagTab

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.utils.events import EventEmitter
    from napari.viewer import Viewer

_IDLE = 1000  # ms without a change after which imports do not disturb
_FAREWELL = 10.0  # s that the engine may take to end when napari does

AnyTab = TypeVar("AnyTab", bound=Tab)


class Panel(QWidget):
    """The SAM Suite dock.

    Parameters
    ----------
    napari_viewer : Viewer
        Given by napari.
    start : callable, optional
        Makes the engine from a model's id and the preferences.
    """

    def __init__(
        self, napari_viewer: Viewer, *, start: StartEngine = start_engine
    ) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session = Session(start)
        self.images = ImageChooser(napari_viewer)
        self.preview_box = QCheckBox("Show what SAM sees")
        self.preview = Preview(napari_viewer, self)
        self.models = ModelChooser()
        self.device = QLabel()
        self.bar = ResultBar()
        self.footer = Footer()
        self.results = Results(napari_viewer, self)
        self.runner = Runner(self.session, self.footer, self)
        self.parts = Parts(
            napari_viewer,
            self.images,
            self.models,
            self.session,
            self.results,
            self.bar,
            self.runner,
        )
        self.downloads = Downloads(self.models, self.footer, lambda: self.busy, self)
        self.outcome = Outcome(self.parts, self)
        self.autosave = Autosave(napari_viewer, self)
        self.tabs = QTabWidget()
        self.auto = self._add(AutoTab(self.parts))
        self.fewshot = self._add(FewShotTab(self.parts))
        self.prompts = self._add(PromptTab(self.parts))
        self.tags = self._add(TagTab(self.parts))
        self.finetune = self._add(FinetuneTab(self.parts))
        self.export = self._add(ExportTab(self.parts))
        self._idle = QTimer(self)
        self._idle.setSingleShot(True)
        self._idle.setInterval(_IDLE)
        self._lay_out()
        self._connect()
        self._end_with_window()
        self._refresh()

    @property
    def busy(self) -> bool:
        """Whether a run is going on."""
        return self.runner.busy

    # -- what is on it -----------------------------------------------------------

    def _add(self, tab: AnyTab) -> AnyTab:
        """Show a tab, and what it says, here."""
        self.tabs.addTab(tab, tab.title)
        tab.said.connect(self.footer.say)
        tab.failed.connect(self._fail)
        return tab

    def _all_tabs(self) -> list[Tab]:
        tabs = (self.tabs.widget(place) for place in range(self.tabs.count()))
        return [tab for tab in tabs if isinstance(tab, Tab)]

    def _lay_out(self) -> None:
        self.setMinimumWidth(336)
        top = QFormLayout()
        top.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        top.addRow("Image", self.images)
        top.addRow("", self.preview_box)
        top.addRow("Model", self.models)
        top.addRow("Device", self.device)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(8)
        layout.addWidget(self.autosave.bar)
        layout.addLayout(top)
        layout.addWidget(self.tabs, 1)
        layout.addWidget(self.bar)
        layout.addWidget(self.footer)
        self._show_device("")

    def _connect(self) -> None:
        self._idle.timeout.connect(self.session.prepare)
        for chosen in (self.images, self.models, self.runner):
            chosen.changed.connect(self._refresh)
        for event in self._dims_events():
            event.connect(self._step)
        self.preview_box.toggled.connect(self._refresh)
        self.tabs.currentChanged.connect(self._show_tab)
        self.preview.failed.connect(self.footer.say)
        self.preview.removed.connect(lambda: self.preview_box.setChecked(False))
        self.images.renamed.connect(self.results.rename)
        self.runner.placed.connect(self._show_device)
        self.results.changed.connect(self._show_results)
        self.autosave.said.connect(self.footer.say)
        self.outcome.said.connect(self.footer.say)
        for part in (self.runner, self.downloads, self.outcome, self.results):
            part.failed.connect(self._fail)

    def _dims_events(self) -> list[EventEmitter]:
        """What tells that another frame is in view, or the same in another way."""
        events = self.viewer.dims.events
        return [events.point, events.ndisplay, events.order]

    def _end_with_window(self) -> None:
        session, autosave = self.session, self.autosave
        stop = [tab.disconnect_viewer for tab in self._all_tabs()]
        stop += [self.images.disconnect_viewer, autosave.disconnect_viewer]
        stop += [self.fewshot.similar.disconnect_layer]
        events, step = self._dims_events(), self._step

        def leave() -> None:
            session.close()
            for disconnect in stop:
                disconnect()
            for event in events:
                event.disconnect(step)

        self.destroyed.connect(lambda: leave())
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(lambda: session.close(_FAREWELL))
            application.aboutToQuit.connect(lambda: autosave.close())

    def changeEvent(self, event: QEvent | None) -> None:
        """Leave where napari closes the dock: it only takes the panel out of it."""
        super().changeEvent(event)
        moved = event is not None and event.type() == QEvent.Type.ParentChange
        if moved and self.parent() is None:
            for part in (self.runner, self.results):
                part.changed.connect(self._leave_when_done)
            self.footer.cancelled.emit()
            self._leave_when_done()

    def _leave_when_done(self) -> None:
        """Go, once nothing is running and all that was found is drawn."""
        if not self.busy and self.results.settled:
            self.deleteLater()

    # -- what can be done now ----------------------------------------------------

    def _refresh(self, _: Any = None) -> None:
        """Show what the image, the sliders and the model allow."""
        self._show(self._all_tabs())

    def _step(self, _: Any = None) -> None:
        """Follow the sliders on the tab that is open; the others do when opened."""
        self._show(
            [tab for tab in self._all_tabs() if tab is self.tabs.currentWidget()]
        )

    def _show(self, tabs: Iterable[Tab]) -> None:
        """Show it on some of the tabs, and on what is around them."""
        picture, missing = self.parts.look()
        if picture is not None:
            self._idle.start()  # the first run is near
            sizes, frame = picture.image.sizes, self.images.frame()[0]
        else:
            sizes, frame = Sizes(), FrameIndex()
        why = missing or self.models.why_not() or (WAIT if self.busy else "")
        for tab in tabs:
            tab.show_state(State(picture, sizes, frame, why))
        self.preview_box.setEnabled(picture is not None)
        self.preview_box.setToolTip(
            missing or "A layer with the colours that the model is given."
        )
        if picture is not None and self.preview_box.isChecked():
            self.preview.show(picture, frame)
        else:
            self.preview.hide()
        self._show_results()

    def _show_results(self) -> None:
        self.bar.show_state(
            undo=self.results.can_undo,
            redo=self.results.can_redo,
            result=self.parts.result_layer() is not None,
            busy=self.busy,
        )

    def _show_tab(self, _: int) -> None:
        tab = self.tabs.currentWidget()
        self.bar.show_tab(draws=isinstance(tab, Tab) and tab.draws)
        self._step()

    def _show_device(self, used: str) -> None:
        wanted = preferences().device
        self.device.setText(
            used or {"auto": "chosen at the first run"}.get(wanted, wanted)
        )
        self.device.setToolTip("To choose another: Preferences, SAM Suite.")

    def _fail(self, error: BaseException) -> None:
        """Say what went wrong in one sentence, here and in napari."""
        text = explain(error)
        if self.busy:
            self.footer.say(text)
        else:
            self.footer.stop(text)
        show_error(text)
