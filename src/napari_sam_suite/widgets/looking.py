"""What is looked at, image and frame, and whether it can be pointed at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_sam_suite.widgets.shelf import Place, Shelf

if TYPE_CHECKING:
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.widgets.dialogue import Dialogue
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.tab import Parts
    from napari_sam_suite.widgets.turns import History

    _Looks = tuple[Any, ...]

_SOON = 150  # ms without a change after which a frame is prepared


class Looking(QObject):
    """Keeps a dialogue on the image and the frame that are in view.

    Parameters
    ----------
    parts : Parts
        Of the panel.
    dialogue : Dialogue
        What is said of the image.
    parent : QObject, optional
        Owner.

    Attributes
    ----------
    picture : Picture or None
        The chosen image.
    why : str
        Why nothing in it can be pointed at; empty if something can.

    Signals
    -------
    left()
        Another image is looked at: what was said of the one before is put aside.
    prepared()
        Clicks in the frame in view are answered without delay.
    said(str)
        For the status line.
    """

    left = Signal()
    prepared = Signal()
    said = Signal(str)

    def __init__(
        self, parts: Parts, dialogue: Dialogue, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._parts, self._dialogue = parts, dialogue
        self.picture: Picture | None = None
        self.why = ""
        self._place = Place([], "")
        self._looks: _Looks = ()
        self._where = ""
        self._shelf: Shelf[tuple[History, _Looks]] = Shelf()
        self._ready_for: tuple[_Looks, FrameIndex] | None = None
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_SOON)
        self._soon.timeout.connect(self._prepare)
        dialogue.ready.connect(self._prepared)

    # -- the image ---------------------------------------------------------------

    def follow(self, picture: Picture | None) -> bool:
        """Go on with the chosen image, and with the model.

        Returns
        -------
        bool
            Whether it is another image, or the same seen otherwise.
        """
        images = self._parts.images
        place, looks = Place(images.layers(), images.letters()), self._seen(picture)
        where = "" if picture is None else str(picture.placement)
        if not place.same(self._place) and (place or self._place):
            self._turn_to(place, looks)
        elif looks != self._looks:
            self._dialogue.look_again()
        changed = (looks, where) != (self._looks, self._where)
        self._place, self._looks, self._where = place, looks, where
        return changed

    def _seen(self, picture: Picture | None) -> _Looks:
        """How an image is shown, and which model looks at it."""
        if picture is None:
            return ()
        parts = self._parts
        pixels = [(id(layer), id(layer.data)) for layer in parts.images.layers()]
        return (*pixels, picture.letters, picture.composite, parts.models.spec.name)

    def _turn_to(self, place: Place, looks: _Looks) -> None:
        """Look at another image; what was said of it before goes on."""
        self.left.emit()
        said = self._dialogue.leave()
        if said is not None:
            self._shelf.put(self._place, (said, self._looks))
            count = len(said.now.kept)
            if count:
                what = "1 outline waits" if count == 1 else f"{count} outlines wait"
                self.said.emit(f"{what} to be added until the image is there again.")
        found = self._shelf.take(place)
        if found is not None:
            said, known = found
            self._dialogue.turns.come_back(said)
            if known != looks:
                self._dialogue.look_again()

    def look(self) -> str:
        """Look at the chosen image as it is now; why nothing can be pointed at."""
        self.picture, missing = self._parts.look()
        self._dialogue.look_at(self.picture)
        self.why = missing or self._why_not()
        return self.why

    def _why_not(self) -> str:
        dims, picture = self._parts.viewer.dims, self.picture
        if dims.ndisplay != 2:
            return "Prompts need the 2-D view."
        if tuple(dims.displayed) != (dims.ndim - 2, dims.ndim - 1):
            return "Prompts need rows and columns in view: undo Roll and Transpose."
        channels = () if picture is None else picture.composite.channels
        if channels and not any(channel.visible for channel in channels):
            return "No channel of the image is visible: show one."
        return self._parts.models.why_not()

    # -- the frame ---------------------------------------------------------------

    def prepare(self) -> bool:
        """Have the frame in view prepared soon; False if that was begun already."""
        if self._in_view() == self._ready_for:
            return False
        self._soon.start()
        return True

    def rest(self) -> None:
        """Prepare nothing for now."""
        self._soon.stop()

    def forget(self) -> None:
        """What was prepared is of no use any more."""
        self._ready_for = None

    def _in_view(self) -> tuple[_Looks, FrameIndex]:
        return self._looks, self._parts.images.frame()[0]

    def _prepare(self) -> None:
        parts = self._parts
        if self.picture is None or parts.runner.busy:
            return
        self._ready_for = _, frame = self._in_view()
        center = parts.viewer.scene.camera.center
        self._dialogue.prepare(frame, parts.images.aim().nearest(center))

    def _prepared(self) -> None:
        if not self._soon.isActive():  # else that was the frame before
            self.prepared.emit()
