"""What few-shot found, chosen again while the threshold moves or objects are judged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_sam_suite.widgets.bridge import Background
from napari_sam_suite.widgets.livefilter import in_chunks, shown_frame
from napari_sam_suite.widgets.table import ACCEPTED, REJECTED, column

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from napari.components import ViewerModel
    from napari.layers import Shapes

    from napari_sam_suite.engine.fewshot.finder import FewShot
    from napari_sam_suite.engine.fewshot.prototypes import Prototypes
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.widgets.fewshot import FewShotTab
    from napari_sam_suite.widgets.results import Results, Run

_WAIT = 150  # ms from the last move to the choice
_SHARE = 3  # pauses over the time that drawing takes


class Similar(QObject):
    """Keeps the objects of the last few-shot run as its tab and its reviewer want them.

    Objects that were accepted are examples from then on, rejected ones are examples of
    what is not meant; both stay as they are, and so do objects with another tag.

    The work is done frame by frame on another thread, the shown frame first; shapes are
    taken out and added a few at a time.

    Parameters
    ----------
    viewer : ViewerModel
        Tells which frame is shown.
    tab : FewShotTab
        The threshold.
    results : Results
        The runs.

    Signals
    -------
    said(str), failed(Exception)
        What happened.
    """

    said = Signal(str)
    failed = Signal(object)

    def __init__(
        self,
        viewer: ViewerModel,
        tab: FewShotTab,
        results: Results,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._tab = tab
        self._results = results
        self._run: Run | None = None
        self._finder: FewShot | None = None
        self._learnt: Prototypes | None = None
        self._layer: Shapes | None = None
        self._shown: dict[str, str] = {}  # tags that objects were shown with, by id
        self._verdicts: dict[str, str] = {}
        self._value = 0.0
        self._queue: list[FrameIndex] = []
        self._chunks: list[Objects] = []
        self._work: Background | None = None
        self._generation = 0
        self._timer = self._make_timer(self._choose)
        self._pause = self._make_timer(self._go_on)
        tab.threshold_moved.connect(self._wish)
        results.began.connect(lambda _: self.forget())
        results.stepping.connect(self.forget)

    @property
    def settled(self) -> bool:
        """Whether the viewer shows what the tab and the reviewer want."""
        idle = self._work is None and not self._queue and not self._chunks
        return idle and not self._timer.isActive()

    def follow(self, run: Run, finder: object) -> None:
        """A run has ended; if it was few-shot, look after its objects."""
        from napari_sam_suite.engine.fewshot.calibrate import SUGGESTED
        from napari_sam_suite.engine.fewshot.finder import FewShot

        self.forget()
        if not isinstance(finder, FewShot) or run.layer is None:
            return
        self._run, self._finder, self._layer = run, finder, run.layer
        self._learnt = finder.prototypes
        self._shown = self._tags()
        run.layer.events.features.connect(self._look)
        if self._tab.automatic.isChecked():
            self._tab.show_threshold(SUGGESTED)

    def forget(self) -> None:
        """The run is over: another one begins, or a step is taken back."""
        self._drop()
        if self._layer is not None:
            self._layer.events.features.disconnect(self._look)
        self._run = self._finder = self._learnt = self._layer = None
        self._shown, self._verdicts = {}, {}

    # -- what is wished --------------------------------------------------------------

    def _wish(self) -> None:
        if self._finder is None:
            return
        if self._finder.too_much:
            self.said.emit(self._finder.too_much)
            return
        self._timer.start(_WAIT)

    def _look(self, _: object = None) -> None:
        """Whether somebody has judged an object."""
        kept = self._finder is not None and not self._finder.too_much
        if kept and self._judged() != self._verdicts:
            self._wish()

    def _judged(self) -> dict[str, str]:
        """Verdicts on objects of the run, by id."""
        return {one: verdict for one, verdict in self._of_run("review") if verdict}

    def _tags(self) -> dict[str, str]:
        """Tags of objects of the run, by id."""
        return dict(self._of_run("tag"))

    def _of_run(self, name: str) -> list[tuple[str, str]]:
        """Ids of the objects of the run, with what a column says of them."""
        layer, run = self._layer, self._run
        if layer is None or run is None or not {"run", "id"} <= set(layer.features):
            return []
        mine = (layer.features["run"] == run.id).to_numpy()
        ids = map(str, column(layer, "id")[mine])
        return list(zip(ids, column(layer, name)[mine], strict=True))

    # -- choosing --------------------------------------------------------------------

    def _choose(self) -> None:
        """Choose in all frames as it is wished now."""
        from napari_sam_suite.engine.fewshot.calibrate import SUGGESTED

        run, finder = self._run, self._finder
        if run is None or finder is None:
            return
        try:
            self._learn(finder)
        except Exception as error:  # noqa: BLE001 - a timer has nobody to raise to
            self._fail(error)
            return
        automatic = self._tab.automatic.isChecked()
        self._value = SUGGESTED if automatic else self._tab.threshold.value()
        shown = shown_frame(self._viewer, run)
        self._queue = sorted(finder.seen, key=lambda frame: frame != shown)
        self._go_on()

    def _learn(self, finder: FewShot) -> None:
        """Make prototypes of the examples and of all verdicts, if those changed."""
        from napari_sam_suite.engine.fewshot.fast import Sizes

        learnt, judged, tags = self._learnt, self._judged(), self._tags()
        if judged == self._verdicts:
            return
        self._verdicts = judged
        if learnt is None or finder.params.mode != "fast":
            return
        known = {*learnt.tags, *learnt.negatives}
        for frame, ids in finder.ids.items():
            seen = finder.seen[frame]
            right = [i for i, one in enumerate(ids) if judged.get(one) == ACCEPTED]
            right = [i for i in right if tags[ids[i]] in known]
            wrong = [i for i, one in enumerate(ids) if judged.get(one) == REJECTED]
            if right:
                learnt = learnt.accept(
                    seen.vectors[right],
                    [tags[ids[i]] for i in right],
                    Sizes.of(seen.masks.select(right)),
                )
            if wrong:
                learnt = learnt.reject(seen.vectors[wrong])
        finder.prototypes = learnt

    def _go_on(self) -> None:
        """Draw what is there; with nothing to draw, begin with the next frame."""
        finder = self._finder
        if self._work is not None or self._pause.isActive() or finder is None:
            return
        if self._chunks:
            self._draw(self._chunks.pop(0))
            return
        if not self._queue:
            count = len(self._tags())
            self.said.emit("1 object." if count == 1 else f"{count} objects.")
            return
        frame, value, here = self._queue.pop(0), self._value, self._generation
        known = self._shown.keys() | self._tags().keys()
        work = Background(lambda *_: _choose_in(finder, frame, value, known), self)
        work.done.connect(lambda found: self._found(here, finder.ids[frame], *found))
        work.done.connect(lambda _: work.deleteLater())
        work.failed.connect(lambda error: self._failed(here, error))
        self._work = work
        work.start()

    def _found(
        self, generation: int, ids: list[str], wanted: set[str], fresh: Objects
    ) -> None:
        """Take out and add what is now wanted of the candidates `ids` of a frame."""
        run = self._run
        if generation != self._generation or run is None:
            return
        self._work = None
        if self._layer not in self._viewer.layers:
            self.forget()
            return
        tags = self._tags()
        here = tags.keys() & set(ids)
        own = {one for one in here if tags[one] != self._shown.get(one, tags[one])}
        gone = here - wanted - own - self._judged().keys()
        if gone:
            self._shown = {o: t for o, t in self._shown.items() if o not in gone}
            self._results.remove(run, gone)
        names = fresh.features["id"]
        self._shown |= dict(zip(names, fresh.features["tag"], strict=True))
        self._chunks = in_chunks(fresh.with_features(run=run.id))
        self._go_on()

    def _draw(self, objects: Objects) -> None:
        start = time.perf_counter()
        if self._run is not None and self._layer in self._viewer.layers:
            self._results.show(self._run, objects)
        rest = (time.perf_counter() - start) * _SHARE
        self._pause.start(round(rest * 1000))

    # -- the rest --------------------------------------------------------------------

    def _drop(self) -> None:
        """Drop what was not chosen yet, and show what was."""
        self._generation += 1
        self._timer.stop()
        self._pause.stop()
        chunks, self._chunks = self._chunks, []
        self._queue, self._work = [], None
        for objects in chunks:
            self._draw(objects)
        self._pause.stop()

    def _failed(self, generation: int, error: Exception) -> None:
        if generation == self._generation:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._drop()
        self.failed.emit(error)

    def _make_timer(self, call: Any) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.timeout.connect(call)
        return timer


def _choose_in(
    finder: FewShot, frame: FrameIndex, value: float, known: AbstractSet[str]
) -> tuple[set[str], Objects]:
    """Ids of all candidates of a frame that pass, and those not known as objects."""
    from napari_sam_suite.engine.objects import Objects

    found, params = finder.filter(frame, value), finder.params
    ids = list(found.columns.get("id", ()))
    fresh = [i for i, one in enumerate(ids) if one not in known]
    objects, _ = Objects.from_masks(
        found.masks.select(fresh),
        frame,
        model=finder.prototypes.model if finder.prototypes else "",
        smoothing=params.smoothing,
        padding=params.padding,
        parts=params.parts,
        columns={
            name: [values[i] for i in fresh] for name, values in found.columns.items()
        },
    )
    return set(ids), objects
