"""The engine behind the clicks: frames are encoded before anybody clicks in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_sam_suite.engine.errors import Cancelled, EngineError
from napari_sam_suite.widgets.bridge import Bridge
from napari_sam_suite.widgets.session import is_prepared
from napari_sam_suite.widgets.settings import preferences

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.jobs import Job
    from napari_sam_suite.engine.prompts.interactive import Interactive
    from napari_sam_suite.engine.prompts.params import PromptParams
    from napari_sam_suite.engine.prompts.prompt import Point
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.models import ModelChooser
    from napari_sam_suite.widgets.session import Session


class Ahead(QObject):
    """Prompts on one image, and what can be done for them in advance.

    Parameters
    ----------
    models, session
        Parts of the panel: by which model prompts are answered, and its engine.
    parent : QObject, optional
        Owner.

    Attributes
    ----------
    interactive : Interactive, optional
        The prompts; None until the image has been reached.

    Signals
    -------
    said(str), failed(Exception)
        A sentence for the user, and what went wrong.
    ready()
        The frame that was prepared last answers clicks without delay.
    """

    said = Signal(str)
    failed = Signal(object)
    ready = Signal()

    def __init__(
        self, models: ModelChooser, session: Session, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._models, self._session = models, session
        self._jobs = Bridge(self)
        self._jobs.finished.connect(self._prepared)
        self.interactive: Interactive | None = None
        self._params: PromptParams | None = None
        self._forgotten = 0

    def forget(self) -> None:
        """Begin anew: another image or model is looked at."""
        self._forgotten += 1
        self.interactive = None

    def use(self, params: PromptParams) -> None:
        """Answer with these parameters from here on."""
        self._params = params
        if self.interactive is not None:
            self.interactive.params = params.with_(answers="all")

    def reach(self, picture: Picture, then: Callable[[Interactive], None]) -> None:
        """Call `then` with the prompts of this image, when torch is there.

        Parameters
        ----------
        picture : Picture
            The image. Until `forget` is called, it is that of the call before.
        then : callable
            Called at once, or later from Qt's event loop; not at all if the image is
            forgotten by then, or if there is no engine, which `failed` tells.
        """
        if not is_prepared():
            self.said.emit("Loading the libraries.")
            here = self._forgotten

            def go_on(_: object) -> None:
                if here == self._forgotten:
                    self.reach(picture, then)

            work = self._session.prepare()
            work.done.connect(go_on)
            work.failed.connect(self.failed)
            return
        from napari_sam_suite.engine.prompts.interactive import Interactive

        try:
            engine, _ = self._session.engine(self._models.spec.name, preferences())
        except EngineError as error:
            self.failed.emit(error)
            return
        if self.interactive is None or self.interactive.engine is not engine:
            self.interactive = Interactive(
                engine, picture.image, self._params, composite=picture.composite
            )
        then(self.interactive)

    def prepare(
        self, picture: Picture, frame: FrameIndex, near: Point | None = None
    ) -> None:
        """Encode a frame, and its neighbours when there is nothing else to do.

        Parameters
        ----------
        picture : Picture
            The image.
        frame : FrameIndex
            The frame in view.
        near : (y, x), optional
            Where clicks are expected, in pixels of the image.
        """

        def begin(interactive: Interactive) -> None:
            self._jobs.follow(interactive.prepare(frame, near))
            interactive.prefetch(_neighbours(picture, frame), near)

        self.reach(picture, begin)

    def _prepared(self, job: Job[int]) -> None:
        if job.error is None:
            self.ready.emit()
        elif not isinstance(job.error, Cancelled):
            self.failed.emit(job.error)


def _neighbours(picture: Picture, frame: FrameIndex) -> list[FrameIndex]:
    """Planes and time points next to a frame."""
    found = []
    for axis in ("z", "time"):
        for step in (1, -1):
            place = getattr(frame, axis) + step
            if 0 <= place < getattr(picture.image.sizes, axis):
                found.append(frame._replace(**{axis: place}))
    return found
