"""What few-shot found, chosen again while the threshold moves or objects are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_sam_suite.widgets.table import ACCEPTED, REJECTED, column

if TYPE_CHECKING:
    from napari.layers import Shapes

    from napari_sam_suite.engine.fewshot.finder import FewShot
    from napari_sam_suite.engine.fewshot.prototypes import Prototypes
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.widgets.fewshot import FewShotTab
    from napari_sam_suite.widgets.results import Results, Run

_WAIT = 150  # ms from a move to the choice


class Similar(QObject):
    """Keeps the objects of the last few-shot run as its tab and its reviewer want them.

    Objects that were accepted are examples from then on, rejected ones are examples of
    what is not meant; both stay as they are, and so do objects with another tag.

    Parameters
    ----------
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
        self, tab: FewShotTab, results: Results, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._tab = tab
        self._results = results
        self._run: Run | None = None
        self._finder: FewShot | None = None
        self._learnt: Prototypes | None = None
        self._layer: Shapes | None = None
        self._shown: set[str] = set()
        self._verdicts: dict[str, str] = {}
        self._busy = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT)
        self._timer.timeout.connect(self._choose)
        tab.threshold_moved.connect(self._wish)
        results.began.connect(lambda _: self.forget())
        results.stepped.connect(self.forget)

    def follow(self, run: Run, finder: object) -> None:
        """A run has ended; if it was few-shot, look after its objects."""
        from napari_sam_suite.engine.fewshot.calibrate import SUGGESTED
        from napari_sam_suite.engine.fewshot.finder import FewShot

        self.forget()
        if not isinstance(finder, FewShot) or run.layer is None:
            return
        self._run, self._finder, self._layer = run, finder, run.layer
        self._learnt = finder.prototypes
        self._shown = set(self._ids())
        run.layer.events.features.connect(self._look)
        if self._tab.automatic.isChecked():
            self._tab.show_threshold(SUGGESTED)

    def forget(self) -> None:
        """The run is over: another one began, or it was taken back."""
        self._timer.stop()
        if self._layer is not None:
            self._layer.events.features.disconnect(self._look)
        self._run = self._finder = self._learnt = self._layer = None
        self._verdicts = {}

    def _wish(self) -> None:
        if self._finder is not None:
            self._timer.start()

    def _look(self, _: object = None) -> None:
        """Whether somebody has judged an object."""
        if not self._busy and self._judged() != self._verdicts:
            self._timer.start()

    def _judged(self) -> dict[str, str]:
        """Verdicts on objects of the run, by id."""
        if self._layer is None or "id" not in self._layer.features:
            return {}
        pairs = zip(self._ids(), self._of_run("review"), strict=True)
        return {one: verdict for one, verdict in pairs if verdict}

    def _ids(self) -> list[str]:
        return [str(one) for one in self._of_run("id")]

    def _of_run(self, name: str) -> list[str]:
        layer, run = self._layer, self._run
        if layer is None or run is None or "run" not in layer.features:
            return []
        mine = (layer.features["run"] == run.id).to_numpy()
        return list(column(layer, name)[mine])

    def _choose(self) -> None:
        try:
            self._busy = True
            self._learn()
            self._show()
        except Exception as error:  # noqa: BLE001 - a timer has nobody to raise to
            self.failed.emit(error)
        finally:
            self._busy = False

    def _learn(self) -> None:
        """Make prototypes of the examples and of all verdicts."""
        from napari_sam_suite.engine.fewshot.fast import Sizes

        finder, learnt, judged = self._finder, self._learnt, self._judged()
        self._verdicts = judged
        if finder is None or learnt is None or finder.params.mode != "fast":
            return
        for frame, ids in finder.ids.items():
            seen = finder.seen[frame]
            tags = dict(zip(self._ids(), self._of_run("tag"), strict=True))
            right = [i for i, one in enumerate(ids) if judged.get(one) == ACCEPTED]
            right = [i for i in right if tags[ids[i]] in learnt.scorers]
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

    def _show(self) -> None:
        """Take out and add what the threshold now says."""
        run, finder = self._run, self._finder
        if run is None or finder is None or self._layer is None:
            return
        wanted = self._wanted(finder)
        here = set(self._ids())
        deleted = self._shown - here
        touched = set(self._verdicts) | self._retagged(wanted)
        ids = wanted.features["id"]
        gone = here - set(ids) - touched
        new = wanted.select(np.asarray(~ids.isin(here | deleted), bool))
        self._results.remove(run, gone)
        self._results.show(run, new.with_features(run=run.id))
        self._shown = (self._shown - gone) | set(new.features["id"])
        count = len(self._ids())
        self.said.emit("1 object." if count == 1 else f"{count} objects.")

    def _wanted(self, finder: FewShot) -> Objects:
        from napari_sam_suite.engine.objects import Objects

        value = None if self._tab.automatic.isChecked() else self._tab.threshold.value()
        params = finder.params
        parts = []
        for frame in finder.seen:
            found = finder.filter(frame, value)
            objects, _ = Objects.from_masks(
                found.masks,
                frame,
                model=finder.prototypes.model if finder.prototypes else "",
                smoothing=params.smoothing,
                padding=params.padding,
                parts=params.parts,
                columns=found.columns,
            )
            parts.append(objects)
        return Objects.concat(parts)

    def _retagged(self, wanted: Objects) -> set[str]:
        """Objects whose tag a person changed."""
        known = dict(zip(wanted.features["id"], wanted.features["tag"], strict=True))
        now = zip(self._ids(), self._of_run("tag"), strict=True)
        return {one for one, tag in now if known.get(one, tag) != tag}
