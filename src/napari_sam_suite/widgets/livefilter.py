"""The last automatic run filtered again as sliders move, without the model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_sam_suite.engine.features import UNASSIGNED
from napari_sam_suite.widgets.bridge import Background
from napari_sam_suite.widgets.filterstep import Filtering

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from numpy.typing import NDArray

    from napari_sam_suite.engine.filters import Candidates
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.params import AutoParams
    from napari_sam_suite.engine.run import FrameResult
    from napari_sam_suite.widgets.filterbox import FilterBox
    from napari_sam_suite.widgets.layers import Placement
    from napari_sam_suite.widgets.results import Results, Run

_WAIT = 60  # ms from a slider's first move to the filter
_CHUNK = 150  # shapes added to a layer at once
_SHARE = 3  # pauses over the time that drawing takes
_MOST = 512 * 2**20  # bytes of candidates of one run


@dataclass(eq=False)
class _Frame:
    """One frame of a run: what it drew, and all polygons made of it so far."""

    result: FrameResult
    candidates: Candidates
    pool: Objects
    shown: set[str] = field(default_factory=set)
    """Ids that the run or the filter has put into the layer."""
    deleted: set[str] = field(default_factory=set)
    """Those of them that the user took out."""
    forms: dict[str, str] = field(default_factory=dict)
    """Of objects that are another, of the user, in other pixels: the id of that."""

    @property
    def frame(self) -> FrameIndex:
        """Which one."""
        return self.result.frame


class LiveFilter(QObject):
    """Filters the objects of the last automatic run while the sliders move.

    The work is done frame by frame on another thread, the shown frame first; shapes are
    taken out and added a few at a time. Objects that were tagged, judged or drawn
    otherwise since the run stay, and those that were deleted do not come back, nor does
    either as the same object in somewhat other pixels.

    Parameters
    ----------
    viewer : ViewerModel
        Tells which frame is shown.
    results : Results
        The runs.
    box : FilterBox
        The sliders.

    Signals
    -------
    failed(Exception)
        Filtering did not work.
    """

    failed = Signal(object)

    def __init__(
        self,
        viewer: ViewerModel,
        results: Results,
        box: FilterBox,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._results = results
        self._box = box
        self._run: Run | None = None
        self._params: AutoParams | None = None
        self._frames: dict[FrameIndex, _Frame] = {}
        self._why = ""
        self._bytes = 0
        self._wanted: AutoParams | None = None
        self._queue: list[_Frame] = []
        self._chunks: list[Objects] = []
        self._work: Background | None = None
        self._generation = 0
        self._timer = self._make_timer(self._start)
        self._pause = self._make_timer(self._go_on)
        results.began.connect(self._begin)
        results.taken.connect(self._take)
        results.stepping.connect(self._prepare_step)
        results.stepped.connect(self._look_again)
        box.changed.connect(self._move)

    @property
    def settled(self) -> bool:
        """Whether the viewer shows what the sliders say."""
        idle = self._work is None and not self._queue and not self._chunks
        return idle and not self._timer.isActive()

    def refresh(self, *, busy: bool) -> None:
        """Enable the sliders, or say why they cannot be used."""
        why = self._why_not(busy=busy)
        if why:
            self._stop()
        elif self._params is None:
            self._show_run()
        self._box.block(why)

    def _why_not(self, *, busy: bool) -> str:
        run = self._run
        if run is None:
            return "Segment first; then its objects can be filtered here."
        if busy or not self._results.settled:
            return "Wait for the run to end."
        if self._why or not self._frames:
            return self._why or "The run kept nothing that could be filtered."
        if self._results.undone(run):
            return "The run was taken away; Bring back shows it again."
        return "The layer of the run was removed." if self._is_gone() else ""

    def _is_gone(self) -> bool:
        """Whether somebody has removed the layer of the run."""
        layer = None if self._run is None else self._run.layer
        return layer is not None and layer not in self._viewer.layers

    # -- what a run brings ---------------------------------------------------------

    def _begin(self, run: Run) -> None:
        if run.recipe.get("capability", "auto") != "auto":
            return  # it adds to what is there, which can be filtered as before
        self._stop()
        self._run, self._params = run, None
        self._frames.clear()
        self._why, self._bytes = "", 0

    def _take(self, run: Run, result: FrameResult) -> None:
        from napari_sam_suite.engine.filters import Candidates

        kept = result.candidates
        if run is not self._run or not isinstance(kept, Candidates):
            return
        self._bytes += kept.nbytes
        if self._bytes > _MOST:
            self._why = "This run is too large to be filtered; run fewer frames."
        if self._why:
            # the job holds on to its results, so they have to let go too
            for one in (result, *(frame.result for frame in self._frames.values())):
                one.candidates = None
            self._frames.clear()
            return
        shown = set(result.objects.features["id"])
        self._frames[result.frame] = _Frame(result, kept, result.objects, shown)

    def _show_run(self) -> None:
        all_of_them = [frame.candidates for frame in self._frames.values()]
        found = [masks for kept in all_of_them for masks in kept.found]
        lowest = max(
            (kept.lowest for kept in all_of_them),
            key=lambda p: (p.pred_iou_thresh or 0.0, p.stability_score_thresh or 0.0),
        )
        self._params = all_of_them[0].params
        largest = max((int(masks.area.max(initial=0)) for masks in found), default=0)
        self._box.set_run(self._params, lowest, largest)
        self._box.say("")

    # -- a move of a slider --------------------------------------------------------

    def _move(self) -> None:
        if self._params is not None and not self._timer.isActive():
            self._timer.start(_WAIT)

    def _start(self) -> None:
        """Filter all frames as the sliders stand now."""
        if self._params is None or self._run is None:
            return
        self._wanted = self._params.with_(**self._box.values())
        shown = shown_frame(self._viewer, self._run)
        self._queue = sorted(self._frames.values(), key=lambda f: f.frame != shown)
        self._go_on()

    def _go_on(self) -> None:
        if self._work is not None or self._pause.isActive() or self._run is None:
            return
        if self._chunks:
            self._draw(self._chunks.pop(0))
            return
        if not self._queue or self._wanted is None:
            self._tell()
            return
        frame, params, run = self._queue.pop(0), self._wanted, self._run
        here = self._generation
        self._work = Background(
            lambda *_: _filter(frame, params, run.picture.placement), self
        )
        work = self._work
        work.done.connect(lambda found: self._found(here, run, frame, params, *found))
        work.done.connect(lambda _: work.deleteLater())
        work.failed.connect(self._fail)
        work.start()

    def _found(
        self,
        generation: int,
        run: Run,
        frame: _Frame,
        params: AutoParams,
        pool: Objects,
        wanted: set[str],
        drawn: dict[str, NDArray[np.float32]],
    ) -> None:
        if generation != self._generation:
            return
        self._work = None
        if self._is_gone():
            self._stop()
            return
        known = set(frame.pool.features["id"])
        frame.pool = pool
        rows = self._rows(run, frame)
        frame.deleted |= frame.shown - set(rows)
        leaving = {one: rows[one] for one in frame.shown & set(rows) - wanted}
        gone = leaving.keys() - _touched(run, leaving, drawn)
        missing = wanted - set(rows) - frame.deleted
        owned = frame.deleted | (leaving.keys() - gone)
        frame.forms |= _forms(pool, missing - known, owned)
        missing = {one for one in missing if frame.forms.get(one) not in owned}
        if gone or missing:
            ids = frame.pool.features["id"]
            old, new = (
                frame.pool.select(np.asarray(ids.isin(some), dtype=bool))
                for some in (gone, missing)
            )
            old, new = (some.with_features(run=run.id) for some in (old, new))
            frame.shown = (frame.shown - gone) | missing
            self._results.remove(run, gone)
            self._note(run, params, old, new)
            self._chunks = in_chunks(new)
        self._go_on()

    def _draw(self, objects: Objects) -> None:
        start = time.perf_counter()
        if self._run is not None and not self._is_gone():
            self._results.show(self._run, objects)
        rest = (time.perf_counter() - start) * _SHARE
        self._pause.start(round(rest * 1000))

    def _note(self, run: Run, params: AutoParams, gone: Objects, new: Objects) -> None:
        """Make this move, or the ones before it, a step that can be undone."""
        after = params.model_dump(mode="json")
        step = self._results.last
        if not isinstance(step, Filtering) or step.run is not run:
            step = Filtering(run, run.recipe["params"], after)
            self._results.push(step)
        step.note(gone, new)
        step.after = run.recipe["params"] = after
        if not len(step.removed) and not len(step.added):
            run.recipe["params"] = step.before
            self._results.drop(step)

    def _rows(self, run: Run, frame: _Frame) -> dict[str, int]:
        """Rows of the objects of a frame that are in the layer, by their ids."""
        if run.layer is None:
            return {}
        known = frame.shown | set(frame.pool.features["id"])
        ids = run.layer.features["id"].tolist()
        return {one: row for row, one in enumerate(ids) if one in known}

    # -- the rest ------------------------------------------------------------------

    def _prepare_step(self) -> None:
        """Before a step back or forth: the layer is as the last move wanted it."""
        self._stop()
        if self._run is not None:
            for frame in self._frames.values():
                frame.deleted |= frame.shown - self._rows(self._run, frame).keys()

    def _look_again(self) -> None:
        """After a step back or forth: what is in the layer, and how it was filtered."""
        run = self._run
        if run is None or self._params is None:
            return
        for frame in self._frames.values():
            frame.shown = set(self._rows(run, frame))
        fixed = self._params.model_dump()
        wanted = run.recipe["params"]
        self._box.show_values(
            self._params.with_(
                **{n: wanted[n] for n in fixed if wanted.get(n) is not None}
            )
        )
        self._tell()

    def _stop(self) -> None:
        """Drop what was not filtered yet, and show what was."""
        self._generation += 1
        self._timer.stop()
        self._pause.stop()
        for objects in self._chunks:
            if self._run is not None and not self._is_gone():
                self._results.show(self._run, objects)
        self._queue, self._chunks, self._wanted, self._work = [], [], None, None

    def _fail(self, error: Exception) -> None:
        self._stop()
        self.failed.emit(error)

    def _tell(self) -> None:
        run = self._run
        if run is None or run.layer is None:
            return
        shown = int((run.layer.features["run"] == run.id).sum())
        count = sum(len(frame.candidates) for frame in self._frames.values())
        objects = "1 object" if shown == 1 else f"{shown} objects"
        self._box.say(f"{objects}, of {count} candidates.")

    def _make_timer(self, call: Any) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.timeout.connect(call)
        return timer


def _filter(
    frame: _Frame, params: AutoParams, placement: Placement
) -> tuple[Objects, set[str], dict[str, NDArray[np.float32]]]:
    """Objects of all masks seen so far, which pass now, and how the others look."""
    from napari_sam_suite.engine.filters import refilter
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.widgets.shapes import to_vertices

    candidates, pool = frame.candidates, frame.pool
    masks = refilter(candidates, params)
    ids = candidates.ids(masks)
    known = set(pool.features["id"])
    fresh = [i for i, one in enumerate(ids) if one not in known]
    objects, _ = Objects.from_masks(
        masks.select(fresh),
        frame.frame,
        model=pool.source.get("model", ""),
        smoothing=params.smoothing,
        padding=params.padding,
        parts=params.parts,
        columns={"id": [ids[i] for i in fresh]},
        source=pool.source,
    )
    pool = Objects.concat([pool, objects])
    every = pool.features["id"]
    others = pool.select(np.asarray(~every.isin(ids), dtype=bool))
    drawn = dict(
        zip(others.features["id"], to_vertices(others, placement), strict=True)
    )
    return pool, set(ids) & set(every), drawn


def _touched(
    run: Run, rows: dict[str, int], drawn: dict[str, NDArray[np.float32]]
) -> set[str]:
    """Ids of shapes that are not as the run has left them."""
    layer = run.layer
    if layer is None or not rows:
        return set()
    data, table = layer.data, layer.features
    own = (table["tag"] != UNASSIGNED).to_numpy()
    if "review" in table:
        own |= table["review"].isin(["accepted", "rejected"]).to_numpy()
    return {
        one for one, row in rows.items() if own[row] or not _same(drawn[one], data[row])
    }


def _forms(pool: Objects, fresh: set[str], owned: set[str]) -> dict[str, str]:
    """Which fresh objects are owned ones that lost or won pixels to neighbours."""
    ids = pool.features["id"]
    some, others = (
        pool.select(np.asarray(ids.isin(which), dtype=bool)) for which in (fresh, owned)
    )
    found = {}
    tree = shapely.STRtree(others.polygons)
    for one, polygon in zip(some.features["id"], some.polygons, strict=True):
        for place in tree.query(polygon).tolist():
            other = others.polygons[place]
            if polygon.intersection(other).area >= polygon.union(other).area / 2:
                found[one] = others.features["id"].iloc[place]
    return found


def _same(drawn: NDArray[Any], now: NDArray[Any]) -> bool:
    return drawn.shape == now.shape and bool(np.allclose(drawn, now, atol=1e-3))


def in_chunks(objects: Objects) -> list[Objects]:
    """The same objects in parts that a layer takes without a halt."""
    rows = np.arange(len(objects))
    return [objects.select(rows[i : i + _CHUNK]) for i in range(0, len(rows), _CHUNK)]


def shown_frame(viewer: ViewerModel, run: Run) -> FrameIndex | None:
    """Frame of a run that the viewer shows; None where its layer is gone."""
    if run.layer is None or run.layer not in viewer.layers:
        return None
    leading = len(run.picture.placement.axes) - 2
    point = np.asarray(viewer.dims.point)[-run.layer.ndim :]
    return run.picture.placement.frame(run.layer.world_to_data(point)[:leading])
