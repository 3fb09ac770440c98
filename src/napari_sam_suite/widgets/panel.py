"""The dock: image, model, tabs, progress. It decides nothing that an engine could."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from napari.utils.notifications import show_error
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QFormLayout,
    QLabel,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_sam_suite.engine.errors import Cancelled, EngineError
from napari_sam_suite.engine.frames import FrameIndex, Sizes
from napari_sam_suite.widgets.auto import AutoTab
from napari_sam_suite.widgets.autosave import Autosave
from napari_sam_suite.widgets.bridge import Bridge
from napari_sam_suite.widgets.downloads import Downloads
from napari_sam_suite.widgets.fewshot import FewShotTab, describe
from napari_sam_suite.widgets.footer import Footer, duration, explain
from napari_sam_suite.widgets.images import ImageChooser
from napari_sam_suite.widgets.livefilter import LiveFilter
from napari_sam_suite.widgets.models import ModelChooser
from napari_sam_suite.widgets.outcome import Outcome
from napari_sam_suite.widgets.overview import MANY
from napari_sam_suite.widgets.preview import Preview
from napari_sam_suite.widgets.prompt import PromptTab
from napari_sam_suite.widgets.resultbar import ResultBar
from napari_sam_suite.widgets.results import Results
from napari_sam_suite.widgets.session import (
    Session,
    StartEngine,
    is_prepared,
    name_device,
    start_engine,
)
from napari_sam_suite.widgets.settings import preferences
from napari_sam_suite.widgets.similar import Similar
from napari_sam_suite.widgets.tags import TagTab

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.viewer import Viewer

    from napari_sam_suite.engine.finder import Finder
    from napari_sam_suite.engine.jobs import Job, Progress
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.run import FrameResult
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.results import Mode, Run

_PATIENCE = 350  # ms that a cancelled run may take before the panel goes on
_IDLE = 1000  # ms without a change after which imports do not disturb
_FAREWELL = 10.0  # s that the engine may take to end when napari does


class Plan(NamedTuple):
    """A run as it was when the button was pressed."""

    picture: Picture
    make: Callable[[], Finder]
    frames: list[FrameIndex]
    spec: ModelSpec
    mode: Mode
    recipe: dict[str, Any]


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
        self.auto = AutoTab()
        self.tabs = QTabWidget()
        self.bar = ResultBar()
        self.footer = Footer()
        self.downloads = Downloads(self.models, self.footer, lambda: self.busy, self)
        self.results = Results(napari_viewer, self)
        self.outcome = Outcome(napari_viewer, self.bar, self.results, self._look, self)
        self.filter = LiveFilter(napari_viewer, self.results, self.auto.filters, self)
        self.autosave = Autosave(napari_viewer, self)
        self.tags = TagTab(napari_viewer, self.outcome.layer)
        self.fewshot = FewShotTab(napari_viewer, self.outcome.layer)
        self.similar = Similar(napari_viewer, self.fewshot, self.results, self)
        self.prompts = PromptTab(
            napari_viewer,
            self.images,
            self.models,
            self.session,
            self.results,
            lambda: self.busy,
        )
        self._bridge = Bridge(self)
        self._loading = Bridge(self)
        self._starting: Plan | None = None
        self._run: Run | None = None
        self._last: Run | None = None
        self._finder: Finder | None = None
        self._job: Job[Any] | None = None
        self._idle = QTimer(self)
        self._idle.setSingleShot(True)
        self._idle.setInterval(_IDLE)
        self._began = 0.0
        self._notices: list[str] = []
        self._lay_out()
        self._connect()
        self._end_with_window()
        self._refresh()

    @property
    def busy(self) -> bool:
        """Whether a run is going on."""
        return self._run is not None or self._starting is not None

    # -- what is on it -----------------------------------------------------------

    def _lay_out(self) -> None:
        self.setMinimumWidth(336)
        top = QFormLayout()
        top.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        top.addRow("Image", self.images)
        top.addRow("", self.preview_box)
        top.addRow("Model", self.models)
        top.addRow("Device", self.device)
        self.tabs.addTab(self.auto, "Auto")
        self.tabs.addTab(self.fewshot, "Few-shot")
        self.tabs.addTab(self.prompts, "Prompt")
        self.tabs.addTab(self.tags, "Tags")
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
        self.images.changed.connect(self._refresh)
        self.models.changed.connect(self._refresh)
        self.downloads.failed.connect(self._fail)
        self.viewer.dims.events.point.connect(self._refresh)
        self.preview_box.toggled.connect(self._refresh)
        self.preview.failed.connect(self.footer.say)
        self.preview.removed.connect(lambda: self.preview_box.setChecked(False))
        self.auto.started.connect(self._segment)
        self.fewshot.started.connect(self._find_similar)
        self.similar.said.connect(self.footer.say)
        self.similar.failed.connect(self._fail)
        self.results.changed.connect(self.fewshot.refresh)
        self.footer.cancelled.connect(self._cancel)
        self._bridge.progressed.connect(self._advance)
        self._bridge.found.connect(self._take)
        self._bridge.noticed.connect(self._notice)
        self._bridge.finished.connect(self._finish)
        self._loading.finished.connect(self._loaded)
        self.results.changed.connect(self._show_results)
        self.results.changed.connect(self.tags.refresh)
        self.tags.said.connect(self.footer.say)
        self.prompts.said.connect(self.footer.say)
        self.prompts.failed.connect(self._fail)
        self.autosave.said.connect(self.footer.say)
        self.outcome.said.connect(self.footer.say)
        self.outcome.failed.connect(self._fail)
        self.results.failed.connect(self._fail)
        self.filter.failed.connect(self._fail)

    def _end_with_window(self) -> None:
        session, images, tags = self.session, self.images, self.tags
        prompts = self.prompts
        autosave, fewshot = self.autosave, self.fewshot
        point, refresh = self.viewer.dims.events.point, self._refresh

        def leave() -> None:
            session.close()
            images.disconnect_viewer()
            tags.disconnect_viewer()
            fewshot.disconnect_viewer()
            prompts.disconnect_viewer()
            autosave.disconnect_viewer()
            point.disconnect(refresh)

        self.destroyed.connect(lambda: leave())
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(lambda: session.close(_FAREWELL))
            application.aboutToQuit.connect(lambda: autosave.close())

    # -- what can be done now ----------------------------------------------------

    def _refresh(self, _: Any = None) -> None:
        """Show what the image, the sliders and the model allow."""
        picture, why = self._look()
        if picture is not None:
            self._idle.start()  # the first run is near
            sizes, shown = picture.image.sizes, self.images.frame()[0]
        else:
            sizes, shown = Sizes(), FrameIndex()
        for tab in (self.auto, self.fewshot):
            tab.set_image(sizes, shown)
            tab.block(why or self.models.why_not() or self._running())
        self.preview_box.setEnabled(picture is not None)
        self.preview_box.setToolTip(
            why or "A layer with the colours that the model is given."
        )
        if picture is not None and self.preview_box.isChecked():
            self.preview.show(picture, self.images.frame()[0])
        else:
            self.preview.hide()
        self._show_results()

    def _look(self) -> tuple[Picture | None, str]:
        try:
            return self.images.picture(), ""
        except EngineError as error:
            return None, str(error)

    def _running(self) -> str:
        return "Wait for the run to end, or cancel it." if self.busy else ""

    def _show_results(self) -> None:
        self.bar.show_state(
            undo=self.results.can_undo,
            redo=self.results.can_redo,
            result=self.outcome.layer() is not None,
            busy=self.busy,
        )
        self.filter.refresh(busy=self.busy)

    def _show_device(self, used: str) -> None:
        wanted = preferences().device
        self.device.setText(
            used or {"auto": "chosen at the first run"}.get(wanted, wanted)
        )
        self.device.setToolTip("To choose another: Preferences, SAM Suite.")

    # -- a run -------------------------------------------------------------------

    def _segment(self) -> None:
        try:
            picture = self.images.picture()
            frames, params = self.auto.frames(), self.auto.params()
        except EngineError as error:
            self._fail(error)
            return

        def make() -> Finder:
            from napari_sam_suite.engine.auto import Automatic

            return Automatic(params, keep_candidates=True)

        recipe = self._record(picture, frames, params)
        self._start(
            Plan(picture, make, frames, self.models.spec, self.bar.mode, recipe)
        )

    def _find_similar(self) -> None:
        try:
            picture = self.images.picture()
            frames, params = self.fewshot.frames(), self.fewshot.params()
            examples = self.fewshot.examples(picture)
            params.resolved(self.models.spec)
        except EngineError as error:
            self._fail(error)
            return

        def make() -> Finder:
            from napari_sam_suite.engine.fewshot.finder import FewShot

            return FewShot(params, examples, known=examples.objects, keep=True)

        recipe = self._record(picture, frames, params) | describe(params, examples)
        # the examples may be in the layer that a run would replace
        mode: Mode = "new" if self.bar.mode == "new" else "add"
        self._start(Plan(picture, make, frames, self.models.spec, mode, recipe))

    def _start(self, plan: Plan) -> None:
        self._starting = plan
        self._began = time.monotonic()
        self.footer.start(f"Loading {plan.spec.title}.")
        self._refresh()
        if is_prepared():
            self._launch(plan)
            return
        work = self.session.prepare()
        work.done.connect(lambda _: self._launch(plan))
        work.failed.connect(self._not_started)

    def _not_started(self, error: Exception) -> None:
        self._starting = None
        self._fail(error)
        self._refresh()

    def _launch(self, plan: Plan) -> None:
        """Hand the run to the engine, unless it was cancelled meanwhile."""
        if self._starting is not plan:
            return
        self._starting = None
        try:
            engine, fresh = self.session.engine(plan.spec.id, preferences())
            naming = engine.submit(name_device, "load the model") if fresh else None
            # making it imports what `prepare` has imported before
            self._finder = plan.make()
            self._job = engine.start(
                self._finder,
                plan.picture.image,
                frames=plan.frames,
                composite=plan.picture.composite,
            )
        except EngineError as error:
            self._not_started(error)
            return
        self._run = self.results.begin(plan.picture, plan.recipe, plan.mode)
        self._last = self._run
        self._notices = []
        if naming is not None:
            self._show_device("")
            self._loading.follow(naming)
        self._bridge.follow(self._job)
        self._refresh()

    def _record(self, picture: Picture, frames: Any, params: Any) -> dict[str, Any]:
        from napari_sam_suite.widgets.recipe import record

        layer = self.images.layers()[0]
        return record(
            picture,
            params,
            frames,
            model=self.models.spec.id,
            device=preferences().device,
            path=str(layer.source.path or ""),
            multiscale=bool(layer.multiscale),
        )

    def _loaded(self, job: Job[str]) -> None:
        if job.error is None:
            self._show_device(job.result())
            self.footer.restart_clock()

    def _advance(self, progress: Progress) -> None:
        if self._job is not None and not self._job.stopping():
            self.footer.advance(*progress)

    def _take(self, result: FrameResult) -> None:
        run = self._last
        if run is not None:
            self.results.add(run, result)

    def _notice(self, text: str) -> None:
        self._notices.append(text)

    def _cancel(self) -> None:
        self.downloads.cancel()
        if self._starting is not None:
            self._starting = None
            self._end("Stopped before it began.")
        elif self._job is not None:
            job = self._job
            job.cancel()
            # a big encoder cannot be interrupted: the panel goes on without it
            QTimer.singleShot(_PATIENCE, lambda: self._give_up(job))

    def _give_up(self, job: Job[Any]) -> None:
        """Let the panel go on; what the job still finishes is taken."""
        if job is self._job and self._run is not None:
            self._end(f"Stopped; kept: {self._count()}.")

    def _finish(self, job: Job[Any]) -> None:
        late = self._run is None
        if self._last is not None:
            self.results.finish(self._last)
            self.similar.follow(self._last, self._finder)
        if late:
            return
        if isinstance(job.error, Cancelled):
            self._end(f"Stopped; kept: {self._count()}.")
        elif job.error is not None:
            self._end("")
            self._fail(job.error)
        else:
            took = duration(time.monotonic() - self._began)
            said = [f"Done in {took}: {self._count()}.", *self._notices]
            if self._last is not None and self._last.found > MANY:
                said.append("More, Show as labels, is quicker to look at.")
            self._end(" ".join(said))

    def _end(self, text: str) -> None:
        if self._run is not None:
            self.results.finish(self._run)
        self._run = None
        self._job = None
        self.footer.stop(text)
        self._refresh()

    def _count(self) -> str:
        run = self._last
        found, frames = (run.found, run.frames) if run is not None else (0, 0)
        if frames and not found:
            return "no objects; lower the thresholds under Advanced to find more"
        objects = "1 object" if found == 1 else f"{found} objects"
        where = "1 frame" if frames == 1 else f"{frames} frames"
        return f"{objects} in {where}"

    def _fail(self, error: BaseException) -> None:
        """Say what went wrong in one sentence, here and in napari."""
        text = explain(error)
        if self.busy:
            self.footer.say(text)
        else:
            self.footer.stop(text)
        show_error(text)
