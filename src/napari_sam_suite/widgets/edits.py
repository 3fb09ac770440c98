"""Changes to the table of a Shapes layer that can be taken back: tags and reviews."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_sam_suite.widgets.table import about, column, paint, set_features

if TYPE_CHECKING:
    from napari.layers import Shapes
    from numpy.typing import NDArray

    Values = NDArray[np.object_]

_KEPT = ("tags", "colours", "rejected")
_STEPS = 100


@dataclass(frozen=True, eq=False)
class _State:
    """Tags and reviews of a layer at one time, by the objects' ids."""

    ids: Values
    columns: dict[str, Values]
    about: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Step:
    layer: Shapes
    before: _State
    after: _State
    what: str


class Edits(QObject):
    """Changes tags and reviews of layers, and goes back and forth among the changes.

    An object is known by its id, so steps stay right when shapes were added or
    deleted in between.

    Signals
    -------
    changed()
        A layer looks different now, or other steps can be taken.
    """

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._done: list[_Step] = []
        self._undone: list[_Step] = []

    def undoable(self, layer: Shapes | None) -> str:
        """What of a layer would be taken back; empty if there is nothing."""
        step = _last(self._done, layer)
        return step.what if step else ""

    def redoable(self, layer: Shapes | None) -> str:
        """What of a layer would be done again; empty if there is nothing."""
        step = _last(self._undone, layer)
        return step.what if step else ""

    def change(
        self,
        layer: Shapes,
        what: str,
        settings: dict[str, Any] | None = None,
        **columns: Values,
    ) -> None:
        """Give a layer other values in some columns, as one step.

        Parameters
        ----------
        layer : Shapes
        what : str
            Names the step, such as ``"tag 3 objects"``.
        settings : dict, optional
            Other tags, colours or treatment of what is rejected.
        **columns : array of str
            `tag` or `review`, one value per shape.
        """
        _name_rows(layer)
        before = _state(layer)
        about(layer).update(settings or {})
        self._write(layer, columns)
        self._done.append(_Step(layer, before, _state(layer), what))
        del self._done[:-_STEPS]
        self._undone = [step for step in self._undone if step.layer != layer]
        self.changed.emit()

    def undo(self, layer: Shapes | None) -> str:
        """Take the last change of a layer back, and say what it was."""
        step = _last(self._done, layer)
        if step is None:
            return ""
        self._done.remove(step)
        self._undone.append(step)
        self._restore(step.layer, step.before)
        return step.what

    def redo(self, layer: Shapes | None) -> str:
        """Make the change again that was taken back last, and say what it is."""
        step = _last(self._undone, layer)
        if step is None:
            return ""
        self._undone.remove(step)
        self._done.append(step)
        self._restore(step.layer, step.after)
        return step.what

    def _restore(self, layer: Shapes, state: _State) -> None:
        here = column(layer, "id")
        settings = about(layer)
        for name in _KEPT:
            settings.pop(name, None)
        settings.update(_copy(state.about))
        columns = {}
        for name, values in state.columns.items():
            if name not in layer.features:
                continue
            known = dict(zip(state.ids, values, strict=True))
            now = column(layer, name)
            columns[name] = np.array(
                [known.get(one, old) for one, old in zip(here, now, strict=True)],
                dtype=object,
            )
        self._write(layer, columns)
        self.changed.emit()

    def _write(self, layer: Shapes, columns: dict[str, Values]) -> None:
        selected = set(layer.selected_data)
        texts = {name: [str(v) for v in values] for name, values in columns.items()}
        if texts:
            set_features(layer, layer.features.assign(**texts))
        layer.selected_data = selected
        if layer.data:
            paint(layer)


def _last(steps: list[_Step], layer: Shapes | None) -> _Step | None:
    # by equality: plugins see layers through proxies, a new one each time
    return next((step for step in reversed(steps) if step.layer == layer), None)


def _name_rows(layer: Shapes) -> None:
    """Give an id to every shape that has none of its own."""
    ids = column(layer, "id").tolist()
    if len(set(ids)) == len(ids) and "" not in ids:
        return
    seen = {""}
    for row, one in enumerate(ids):
        ids[row] = str(uuid4()) if one in seen else one
        seen.add(ids[row])
    set_features(layer, layer.features.assign(id=ids))


def _state(layer: Shapes) -> _State:
    columns = {name: column(layer, name) for name in ("tag", "review")}
    return _State(column(layer, "id"), columns, _copy(about(layer)))


def _copy(settings: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name in _KEPT:
        if name in settings:
            value = settings[name]
            kept[name] = value.copy() if isinstance(value, (list, dict)) else value
    return kept
