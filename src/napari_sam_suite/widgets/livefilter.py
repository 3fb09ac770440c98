"""The last automatic run filtered again as sliders move, without the model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_sam_suite.widgets.filterframe import FilterFrame
from napari_sam_suite.widgets.filterstep import Filtering
from napari_sam_suite.widgets.gradual import Gradual, is_gone

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.params import AutoParams
    from napari_sam_suite.engine.run import FrameResult
    from napari_sam_suite.widgets.filterbox import FilterBox
    from napari_sam_suite.widgets.outlined import Outlined
    from napari_sam_suite.widgets.results import Results
    from napari_sam_suite.widgets.runs import Run

_WAIT = 60  # ms from a slider's first move to the filter
_MOST = 512 * 2**20  # bytes of candidates of one run


class LiveFilter(QObject):
    """Filters the objects of the last automatic run while the sliders move.

    Objects that were tagged, judged or drawn otherwise since the run stay, and those
    that were deleted do not come back, nor does either as the same object in somewhat
    other pixels.

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
        self._frames: dict[FrameIndex, FilterFrame] = {}
        self._why = ""
        self._bytes = 0
        self._gradual = Gradual(viewer, results, self)
        self._gradual.done.connect(self._tell)
        self._gradual.failed.connect(self.failed)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._start)
        results.began.connect(self._begin)
        results.taken.connect(self._take)
        results.stepping.connect(self._prepare_step)
        results.stepped.connect(self._look_again)
        box.changed.connect(self._move)

    @property
    def settled(self) -> bool:
        """Whether the viewer shows what the sliders say."""
        return self._gradual.idle and not self._timer.isActive()

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
        gone = is_gone(self._viewer, run)
        return "The layer of the run was removed." if gone else ""

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
        self._frames[result.frame] = FilterFrame.of(result, kept)

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
        run = self._run
        if self._params is None or run is None:
            return
        params = self._params.with_(**self._box.values())

        def prepare(frame: FrameIndex) -> Callable[[], Outlined]:
            return partial(self._frames[frame].filter, params, run.picture.placement)

        def take(frame: FrameIndex, found: Outlined) -> Objects:
            gone, new = self._frames[frame].take(found, run)
            return self._change(run, params, gone, new)

        self._gradual.start(run, self._frames, prepare, take)

    def _change(
        self, run: Run, params: AutoParams, gone: Objects, new: Objects
    ) -> Objects:
        """Take out what goes from a frame, and return what comes, as one step."""
        if len(gone) or len(new):
            gone, new = (some.with_features(run=run.id) for some in (gone, new))
            self._results.remove(run, gone.features["id"])
            after = params.model_dump(mode="json")
            Filtering.take(self._results, run, after, gone, new)
        return new

    # -- the rest ------------------------------------------------------------------

    def _prepare_step(self) -> None:
        """Before a step back or forth: the layer is as the last move wanted it."""
        self._stop()
        if self._run is not None:
            for frame in self._frames.values():
                frame.note_deleted(self._run)

    def _look_again(self) -> None:
        """After a step back or forth: what is in the layer, and how it was filtered."""
        run = self._run
        if run is None or self._params is None:
            return
        for frame in self._frames.values():
            frame.look_again(run)
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
        self._timer.stop()
        self._gradual.stop()

    def _tell(self) -> None:
        run = self._run
        if run is None or run.layer is None:
            return
        shown = int((run.layer.features["run"] == run.id).sum())
        count = sum(len(frame.candidates) for frame in self._frames.values())
        objects = "1 object" if shown == 1 else f"{shown} objects"
        self._box.say(f"{objects}, of {count} candidates.")
