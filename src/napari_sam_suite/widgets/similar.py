"""What few-shot found, chosen again while the threshold moves or objects are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_sam_suite.widgets.filterstep import Filtering
from napari_sam_suite.widgets.gradual import Gradual
from napari_sam_suite.widgets.outlined import Outlined, outline, redrawn
from napari_sam_suite.widgets.runs import nothing
from napari_sam_suite.widgets.table import ACCEPTED, REJECTED, column, set_features

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    import pandas as pd
    from napari.components import ViewerModel
    from napari.layers import Shapes

    from napari_sam_suite.engine.fewshot.finder import FewShot
    from napari_sam_suite.engine.fewshot.prototypes import Prototypes
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.run import FrameResult
    from napari_sam_suite.widgets.fewshot import FewShotTab
    from napari_sam_suite.widgets.placement import Placement
    from napari_sam_suite.widgets.results import Results
    from napari_sam_suite.widgets.runs import Run

    _Chosen = tuple[Outlined, pd.DataFrame]

_WAIT = 150  # ms from the last move to the choice
_SCORES = ["similarity", "runner_up", "margin"]


class Similar(QObject):
    """Keeps the objects of the last few-shot run as its tab and its reviewer want them.

    Objects that were accepted are examples from then on, rejected ones are examples of
    what is not meant, which the exact mode does not know. Both stay as they are, and so
    do objects with another tag or outline; nothing else is found in their place, nor in
    that of deleted ones. All others are scored anew.

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
        self._verdicts: dict[str, tuple[str, str]] = {}
        self._pools: dict[FrameIndex, Objects] = {}  # all that was outlined so far
        self._masks: dict[str, str] = {}  # ids of masks that were cut otherwise
        self._gradual = Gradual(viewer, results, self)
        self._gradual.done.connect(self._tell)
        self._gradual.failed.connect(self.failed)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._choose)
        tab.threshold_moved.connect(self._wish)
        results.began.connect(self._begin)
        results.taken.connect(self._gather)
        results.stepping.connect(self._prepare_step)
        results.stepped.connect(self._look_again)

    @property
    def settled(self) -> bool:
        """Whether the viewer shows what the tab and the reviewer want."""
        return self._gradual.idle and not self._timer.isActive()

    def follow(self, run: Run, finder: object) -> None:
        """A run has ended; if it was few-shot, look after its objects."""
        from napari_sam_suite.engine.fewshot.finder import FewShot

        pools = self._pools
        self.forget()
        if not isinstance(finder, FewShot):
            return
        self._run, self._finder, self._pools = run, finder, pools
        self._learnt = finder.prototypes
        if self._learnt is not None:
            self.learnt.emit(self._learnt)
        self._shown = self._tags()
        self._listen()
        self._tab.show_threshold(run.recipe["params"]["threshold"])

    def _begin(self, run: Run) -> None:
        """Let go of the run before, unless this one only adds to what is there."""
        if run.recipe.get("capability", "auto") in ("auto", "few-shot"):
            self.forget()

    def _gather(self, run: Run, result: FrameResult) -> None:
        """Keep the outlines of a run that may be chosen from again."""
        if run.recipe.get("capability") == "few-shot":
            self._pools[result.frame] = result.objects

    def _listen(self) -> None:
        """Hear of verdicts, once there is a layer: a run may find nothing at first."""
        layer = None if self._run is None else self._run.layer
        if layer is not None and self._layer is None:
            self._layer = layer
            layer.events.features.connect(self._look)
            self._look()

    def disconnect_layer(self) -> None:
        """Hear of verdicts no longer."""
        if self._layer is not None:
            self._layer.events.features.disconnect(self._look)
        self._layer = None

    def forget(self) -> None:
        """The run is over: another one begins."""
        self._stop()
        self.disconnect_layer()
        self._run = self._finder = self._learnt = None
        self._shown, self._verdicts, self._pools, self._masks = {}, {}, {}, {}

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

    def _judged(self) -> dict[str, tuple[str, str]]:
        """Verdicts on objects of the run, each with the object's tag, by id."""
        tags = self._tags()
        verdicts = self._of_run("review")
        return {one: (verdict, tags[one]) for one, verdict in verdicts if verdict}

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

        tags = self._tags()
        decided = self._settled(tags)
        # What was deleted or rejected leaves its pixels to others.
        rejected = {
            one for one, (said, _) in self._judged().items() if said == REJECTED
        }
        there = (decided & tags.keys()) - rejected
        settled, kept = (
            {self._masks.get(one, one) for one in some} for some in (decided, there)
        )
        place = run.picture.placement

        def prepare(frame: FrameIndex) -> Callable[[], _Chosen]:
            pool = self._pools.get(frame, nothing())
            return lambda: _choose_in(finder, frame, value, settled, kept, pool, place)

        def take(frame: FrameIndex, found: _Chosen) -> Objects:
            return self._take(run, frame, *found)

        self._gradual.start(run, finder.seen, prepare, take)

    def _settled(self, tags: dict[str, str]) -> set[str]:
        """Ids of objects that are judged, deleted or have a tag of the user's."""
        shown = self._shown
        own = {one for one, tag in tags.items() if tag != shown.get(one, tag)}
        return own | self._judged().keys() | (shown.keys() - tags.keys())

    def _learn(self, finder: FewShot) -> None:
        """Make prototypes of the examples and of all verdicts, if those changed."""
        from napari_sam_suite.engine.fewshot.fast import Sizes

        learnt, judged = self._learnt, self._judged()
        if judged == self._verdicts:
            return
        self._verdicts = judged
        if learnt is None:
            return
        known = {*learnt.tags, *learnt.negatives}
        for frame, candidates in list(finder.ids.items()):
            seen = finder.seen[frame]
            said = {
                candidates[mask]: judged[one]
                for one in judged
                if (mask := self._masks.get(one, one)) in candidates
            }
            right = [
                row
                for row, (verdict, tag) in said.items()
                if verdict == ACCEPTED and tag in known
            ]
            wrong = [row for row, (verdict, _) in said.items() if verdict == REJECTED]
            if right:
                learnt = learnt.accept(
                    seen.vectors[right],
                    [said[row][1] for row in right],
                    Sizes.of(seen.masks.select(right)),
                )
            if wrong and finder.params.mode == "fast":
                learnt = learnt.reject(seen.vectors[wrong])
        finder.prototypes = learnt
        self.learnt.emit(learnt)

    def _take(
        self, run: Run, frame: FrameIndex, found: Outlined, scores: pd.DataFrame
    ) -> Objects:
        """Take out what goes from a frame, score what stays, and return what comes."""
        self._pools[frame] = found.pool
        self._masks |= found.wanted
        tags, ids = self._tags(), found.pool.features["id"]
        here = tags.keys() & set(ids)
        leaving = (here - found.wanted.keys()) - self._settled(tags)
        gone = leaving - redrawn(run, _rows(run, leaving), found.drawn)
        missing = found.wanted.keys() - tags.keys() - self._shown.keys()
        fresh = found.pool.select(np.asarray(ids.isin(missing), dtype=bool))
        fresh = fresh.with_features(run=run.id)
        names = fresh.features["id"].tolist()
        now = scores.loc[[found.wanted[one] for one in names]]
        fresh = fresh.with_features(**{name: now[name].tolist() for name in now})
        staying = here & found.wanted.keys()
        _score(run, {one: found.wanted[one] for one in staying}, scores)
        if gone or len(fresh):
            old = self._results.take(run, "id", gone)
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
    finder: FewShot,
    frame: FrameIndex,
    value: float,
    settled: AbstractSet[str],
    kept: AbstractSet[str],
    pool: Objects,
    placement: Placement,
) -> _Chosen:
    """Outlines of all candidates of a frame that pass, and scores of their masks."""
    import pandas as pd

    found = finder.filter(frame, value, settled, kept)
    columns = found.columns or {name: [] for name in ("id", "tag", *_SCORES)}
    ids = columns["id"]
    outlined = outline(found.masks, ids, frame, pool, finder.params, placement, columns)
    return outlined, pd.DataFrame(columns).set_index("id")


def _rows(run: Run, ids: AbstractSet[str]) -> dict[str, int]:
    """Rows of objects in the layer of a run, by their ids."""
    every = enumerate(column(run.layer, "id"))
    return {one: row for row, one in every if one in ids}


def _score(run: Run, masks: dict[str, str], scores: pd.DataFrame) -> None:
    """Write the scores of masks to the objects made of them, where they changed."""
    rows = _rows(run, masks.keys())
    if run.layer is None or not rows:
        return
    where, now = list(rows.values()), scores.loc[[masks[one] for one in rows], _SCORES]
    table = run.layer.features
    if (table.loc[where, _SCORES].to_numpy() != now.to_numpy()).any():
        table = table.copy()
        table.loc[where, _SCORES] = now.to_numpy()
        set_features(run.layer, table)
