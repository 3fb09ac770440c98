"""What few-shot found, chosen again while the threshold moves or objects are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_sam_suite.widgets.filterstep import Filtering
from napari_sam_suite.widgets.gradual import Gradual
from napari_sam_suite.widgets.table import ACCEPTED, REJECTED, column

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from napari.components import ViewerModel
    from napari.layers import Shapes

    from napari_sam_suite.engine.fewshot.finder import FewShot
    from napari_sam_suite.engine.fewshot.prototypes import Prototypes
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.widgets.fewshot import FewShotTab
    from napari_sam_suite.widgets.results import Results
    from napari_sam_suite.widgets.runs import Run

    _Chosen = tuple[set[str], Objects]

_WAIT = 150  # ms from the last move to the choice


class Similar(QObject):
    """Keeps the objects of the last few-shot run as its tab and its reviewer want them.

    Objects that were accepted are examples from then on, rejected ones are examples of
    what is not meant; both stay as they are, and so do objects with another tag.

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
    learnt(Prototypes)
        The examples, or verdicts on what was found, have taught something.
    """

    learnt = Signal(object)
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
        self._tab = tab
        self._results = results
        self._run: Run | None = None
        self._finder: FewShot | None = None
        self._learnt: Prototypes | None = None
        self._layer: Shapes | None = None
        self._shown: dict[str, str] = {}  # tags that objects were shown with, by id
        self._deleted: dict[str, str] = {}  # those of them that the user took out
        self._verdicts: dict[str, str] = {}
        self._gradual = Gradual(viewer, results, self)
        self._gradual.done.connect(self._tell)
        self._gradual.failed.connect(self.failed)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._choose)
        tab.threshold_moved.connect(self._wish)
        results.began.connect(lambda _: self.forget())
        results.stepping.connect(self._prepare_step)
        results.stepped.connect(self._look_again)

    @property
    def settled(self) -> bool:
        """Whether the viewer shows what the tab and the reviewer want."""
        return self._gradual.idle and not self._timer.isActive()

    def follow(self, run: Run, finder: object) -> None:
        """A run has ended; if it was few-shot, look after its objects."""
        from napari_sam_suite.engine.fewshot.finder import FewShot

        self.forget()
        if not isinstance(finder, FewShot):
            return
        self._run, self._finder = run, finder
        self._learnt = finder.prototypes
        if self._learnt is not None:
            self.learnt.emit(self._learnt)
        self._shown = self._tags()
        self._listen()
        self._tab.show_threshold(run.recipe["params"]["threshold"])

    def _listen(self) -> None:
        """Hear of verdicts, once there is a layer: a run may find nothing at first."""
        layer = None if self._run is None else self._run.layer
        if layer is not None and self._layer is None:
            self._layer = layer
            layer.events.features.connect(self._look)
            self._look()

    def forget(self) -> None:
        """The run is over: another one begins."""
        self._stop()
        if self._layer is not None:
            self._layer.events.features.disconnect(self._look)
        self._run = self._finder = self._learnt = self._layer = None
        self._shown, self._verdicts = {}, {}

    # -- what is wished --------------------------------------------------------------

    def _wish(self) -> None:
        if self._finder is None or self._run is None:
            return
        if self._finder.too_much:
            self.said.emit(self._finder.too_much)
        elif self._results.undone(self._run):
            self.said.emit("The run was taken away; Bring back shows it again.")
        else:
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
        run = self._run
        layer = None if run is None else run.layer
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
            self._gradual.stop()
            self.failed.emit(error)
            return
        automatic = self._tab.automatic.isChecked()
        value = SUGGESTED if automatic else self._tab.threshold.value()

        def prepare(frame: FrameIndex) -> Callable[[], _Chosen]:
            known = self._shown.keys() | self._tags().keys()
            return lambda: _choose_in(finder, frame, value, known)

        def take(frame: FrameIndex, found: _Chosen) -> Objects:
            return self._take(run, set(finder.ids[frame]), *found)

        self._gradual.start(run, finder.seen, prepare, take)

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
        self.learnt.emit(learnt)

    def _take(
        self, run: Run, ids: set[str], wanted: set[str], fresh: Objects
    ) -> Objects:
        """Take out what goes of the candidates `ids` of a frame; return what comes."""
        tags = self._tags()
        here = tags.keys() & ids
        own = {one for one in here if tags[one] != self._shown.get(one, tags[one])}
        gone = here - wanted - own - self._judged().keys()
        fresh = fresh.with_features(run=run.id)
        if gone or len(fresh):
            names, old = fresh.features["id"], self._results.take(run, "id", gone)
            self._shown = {o: t for o, t in self._shown.items() if o not in gone}
            self._shown |= dict(zip(names, fresh.features["tag"], strict=True))
            Filtering.take(self._results, run, self._params(run), old, fresh)
        return fresh

    def _params(self, run: Run) -> dict[str, Any]:
        """Those of the run, with the threshold of now."""
        automatic = self._tab.automatic.isChecked()
        value = "auto" if automatic else self._tab.threshold.value()
        return {**run.recipe["params"], "threshold": value}

    # -- the rest --------------------------------------------------------------------

    def _stop(self) -> None:
        """Drop what was not chosen yet, and show what was."""
        self._timer.stop()
        self._gradual.stop()

    def _prepare_step(self) -> None:
        """Before a step back or forth: the layer is as the last move wanted it."""
        self._stop()
        here = self._tags()
        self._deleted = {o: t for o, t in self._shown.items() if o not in here}

    def _look_again(self) -> None:
        """After a step back or forth: what is in the layer, and how it was chosen."""
        if self._run is not None:
            self._shown = self._deleted | self._tags()
            self._tab.show_threshold(self._run.recipe["params"]["threshold"])

    def _tell(self) -> None:
        self._listen()
        count = len(self._tags())
        self.said.emit("1 object." if count == 1 else f"{count} objects.")


def _choose_in(
    finder: FewShot, frame: FrameIndex, value: float, known: AbstractSet[str]
) -> _Chosen:
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
