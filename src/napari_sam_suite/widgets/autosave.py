"""Keeps the objects of a session through a crash, and offers them to the next one."""

from __future__ import annotations

import atexit
import threading
import time
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from napari.layers import Shapes
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from napari_sam_suite.widgets.bridge import Background
from napari_sam_suite.widgets.layers import KEY
from napari_sam_suite.widgets.settings import autosave_wanted
from napari_sam_suite.widgets.snapshots import (
    OWN,
    PLACE,
    SAVED,
    TAKEN,
    describe,
    read_layers,
    say_count,
    take_snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.components import ViewerModel

    from napari_sam_suite.engine.journal import Journal, Lost, Snapshot

_DELAY = 3.0  # s of rest after a change
_LATEST = 20.0  # s after the first change
_AGAIN = 60.0  # s after the disk was full
_EVENTS = ("data", "features", "edge_color", "name")


class _Writer:
    """The journal, used by one thread at a time; knows nothing of Qt."""

    def __init__(self) -> None:
        self._journal: Journal | None = None
        self._guard = threading.Lock()
        self._closed = False

    def journal(self) -> Journal:
        """The journal of this session; made when there is something to write."""
        from napari_sam_suite.engine.journal import Journal

        if self._journal is None:
            self._journal = Journal()
            # not only Qt's quitting: in a notebook there is none
            atexit.register(self.close)
        return self._journal

    def write(self, snapshots: dict[str, Snapshot], gone: Iterable[str]) -> None:
        """Write snapshots by their keys; on a thread of its own."""
        for key in gone:
            self._do("remove", key)
        for key, snapshot in snapshots.items():
            self._do("write", key, snapshot)

    def close(self) -> None:
        """Remove all snapshots of this session."""
        with self._guard:
            self._closed = True
            if self._journal is not None:
                self._journal.discard()
                atexit.unregister(self.close)

    def _do(self, what: str, *arguments: Any) -> None:
        with self._guard:
            if not self._closed:
                getattr(self.journal(), what)(*arguments)


class Autosave(QObject):
    """Writes every result layer some seconds after it changed, off the main thread.

    Parameters
    ----------
    viewer : ViewerModel
        Its Shapes layers are followed: those that the panel made from the start,
        others once they are tagged or edited.

    Attributes
    ----------
    bar : QWidget
        Offers what an earlier session has lost; hidden if that is nothing.
    delay : float
        Seconds of rest before a change is written.

    Signals
    -------
    said(str)
        What happened, in one sentence.
    written()
        All changes are on the disk.
    """

    said = Signal(str)
    written = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.bar = QWidget()
        self.delay = _DELAY
        self._viewer = viewer
        self._writer = _Writer()
        self._changed: list[tuple[Any, float]] = []
        self._gone: set[str] = set()
        self._left: list[Path] = []
        self._lost: list[Lost] = []
        self._restored: list[Lost] = []
        self._work: Background | None = None
        self._troubled = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._flush)
        self._lay_out()
        layers = viewer.layers.events
        layers.inserted.connect(self._added)
        layers.removed.connect(self._removed)
        for layer in viewer.layers:
            self._follow(layer)
        if autosave_wanted():
            self._search()

    def disconnect_viewer(self) -> None:
        """Stop following; what is written stays until the process ends well."""
        self._viewer.layers.events.inserted.disconnect(self._added)
        self._viewer.layers.events.removed.disconnect(self._removed)
        for layer in self._viewer.layers:
            if isinstance(layer, Shapes):
                for name in _EVENTS:
                    getattr(layer.events, name).disconnect(self._mark)

    def close(self) -> None:
        """End well: nothing of this session is to be restored."""
        self._writer.close()

    # -- writing -----------------------------------------------------------------

    def _added(self, event: Any) -> None:
        layer = event.value
        about = layer.metadata.get(KEY)
        others = [one.metadata.get(KEY) for one in self._viewer.layers if one != layer]
        if about and any(about is other for other in others):
            # napari lets a duplicate share what is kept with its original
            layer.metadata[KEY] = {
                name: deepcopy(value)
                for name, value in about.items()
                if name not in OWN
            }
        self._follow(layer)

    def _follow(self, layer: Any) -> None:
        if not isinstance(layer, Shapes):
            return
        for name in _EVENTS:
            getattr(layer.events, name).connect(self._mark)
        if layer.metadata.get(KEY, {}).get("image"):
            self._schedule(layer)

    def _mark(self, event: Any) -> None:
        self._schedule(event.source)

    def _schedule(self, layer: Any) -> None:
        """Write a layer soon."""
        about = layer.metadata.get(KEY)
        ours = about and (about.get("image") or "tag" in layer.features)
        if not ours or not autosave_wanted():
            return
        now = time.monotonic()
        self._changed = [entry for entry in self._changed if entry[0] != layer]
        self._changed.append((layer, now))
        first = min(since for _, since in self._changed)
        self._start(min(self.delay, max(first + _LATEST - now, 0)))

    def _start(self, seconds: float) -> None:
        self._timer.start(round(seconds * 1000))

    def _removed(self, event: Any) -> None:
        layer = event.value
        if not isinstance(layer, Shapes):
            return
        for name in _EVENTS:
            getattr(layer.events, name).disconnect(self._mark)
        self._changed = [entry for entry in self._changed if entry[0] != layer]
        place = layer.metadata.get(KEY, {}).get(PLACE)
        if place:
            self._forget(Path(place))
            self._start(self.delay)

    def _forget(self, place: Path) -> None:
        """Remove a snapshot once there is a newer one, or none is needed."""
        if place.parent == self._writer.journal().folder:
            self._gone.add(place.stem)
        elif place.name:
            self._left.append(place)  # by a panel of this process that was closed

    def _flush(self) -> None:
        if self._work is not None:
            return
        changed, self._changed = self._changed, []
        gone, self._gone = self._gone, set()
        snapshots = {}
        for layer, since in changed:
            about = layer.metadata.get(KEY, {})
            if about.get(SAVED, 0.0) >= since:
                continue
            key = self._key(about)
            if len(layer.data):
                gone.discard(key)
                about[TAKEN] = time.monotonic()
                snapshots[key] = take_snapshot(layer)
            else:
                gone.add(key)
        writer = self._writer
        self._work = Background(lambda *_: writer.write(snapshots, gone), self)
        self._work.done.connect(self._done)
        self._work.failed.connect(lambda error: self._failed(error, changed))
        self._work.start()

    def _key(self, about: dict[str, Any]) -> str:
        """Name of a layer's snapshot, kept with the layer."""
        journal = self._writer.journal()
        place = Path(about.get(PLACE, ""))
        if place.parent != journal.folder:
            self._forget(place)
            place = journal.path(uuid4().hex[:12])
            about[PLACE] = str(place)
        return place.stem

    def _done(self, _: Any) -> None:
        self._end_work()
        self._troubled = False
        for place in self._left:
            with suppress(OSError):
                place.unlink(missing_ok=True)
        self._left.clear()
        if self._changed or self._gone:
            self._start(self.delay)
            return
        for lost in self._restored:
            lost.discard()
        self._restored = []
        self.written.emit()

    def _failed(self, error: Exception, changed: list[tuple[Any, float]]) -> None:
        self._end_work()
        if not self._troubled:
            self._troubled = True
            self.said.emit(f"Objects are not kept in case of a crash: {error}")
        newer = [layer for layer, _ in self._changed]
        self._changed += [entry for entry in changed if entry[0] not in newer]
        self._start(_AGAIN)

    def _end_work(self) -> None:
        if self._work is not None:
            self._work.deleteLater()
        self._work = None

    # -- restoring ---------------------------------------------------------------

    def _lay_out(self) -> None:
        self.restore = QPushButton()
        self.discard = QPushButton("Discard")
        self.discard.setToolTip("Forget these objects.")
        self.restore.clicked.connect(self._restore)
        self.discard.clicked.connect(self._discard)
        line = QHBoxLayout(self.bar)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.restore, 1)
        line.addWidget(self.discard)
        self.bar.hide()

    def _search(self) -> None:
        def find(*_: object) -> list[Lost]:
            from napari_sam_suite.engine.journal import find_lost

            return find_lost()

        work = Background(find, self)
        work.done.connect(self._offer)
        work.start()

    def _offer(self, lost: list[Lost]) -> None:
        """Show the newest of what was lost."""
        self._lost = lost
        self.bar.setVisible(bool(lost))
        if lost:
            text, tip = describe(lost[0])
            self.restore.setText(text)
            self.restore.setToolTip(tip)

    def _restore(self) -> None:
        lost = self._lost[0]
        self.bar.setEnabled(False)
        # the triangles are made elsewhere; only the drawing is left for this thread
        work = Background(lambda *_: read_layers(lost), self)
        work.done.connect(lambda made: self._show(lost, *made))
        work.failed.connect(lambda error: self._show(lost, [], str(error)))
        work.start()

    def _show(self, lost: Lost, layers: list[Shapes], trouble: str) -> None:
        self.bar.setEnabled(True)
        for layer in layers:
            self._viewer.add_layer(layer)
            self._schedule(layer)  # also one that the user has drawn
        if layers:
            # it goes once these layers are written anew
            self._restored.append(lost)
            count = sum(len(layer.data) for layer in layers)
            self.said.emit(f"Restored {say_count(count)}. {trouble}".strip())
        else:
            # perhaps a later session can; only who says so discards it
            self.said.emit(trouble)
            lost.release()
        self._offer(self._lost[1:])

    def _discard(self) -> None:
        self._lost[0].discard()
        self._offer(self._lost[1:])
