"""What a tab of the panel is, and what it gets from the panel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from napari.layers import Shapes
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QWidget

from napari_sam_suite.engine.errors import EngineError
from napari_sam_suite.widgets.layers import SHOWN
from napari_sam_suite.widgets.settings import preferences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel

    from napari_sam_suite.engine.frames import FrameIndex, Sizes
    from napari_sam_suite.engine.params import PolygonParams
    from napari_sam_suite.widgets.images import ImageChooser
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.models import ModelChooser
    from napari_sam_suite.widgets.resultbar import ResultBar
    from napari_sam_suite.widgets.results import Results
    from napari_sam_suite.widgets.runner import Runner
    from napari_sam_suite.widgets.session import Session


@dataclass(frozen=True)
class Parts:
    """What all tabs share.

    Attributes
    ----------
    viewer : ViewerModel
        Layers, sliders, camera.
    images : ImageChooser
        Which layers are the image, and what their axes mean.
    models : ModelChooser
        Which model: ``models.spec``.
    session : Session
        The engine, for what the user does not wait for; else see `runner`.
    results : Results
        Result layers, and steps that can be undone.
    bar : ResultBar
        What becomes of earlier results: ``bar.mode``.
    runner : Runner
        Takes a `Task`, and looks after progress, Cancel, errors and the end.
    """

    viewer: ViewerModel
    images: ImageChooser
    models: ModelChooser
    session: Session
    results: Results
    bar: ResultBar
    runner: Runner

    def look(self) -> tuple[Picture | None, str]:
        """The chosen image; or None, and why there is none."""
        try:
            return self.images.picture(), ""
        except EngineError as error:
            return None, str(error)

    def result_layer(self) -> Shapes | None:
        """Results of the chosen image, if there are any."""
        picture, _ = self.look()
        return None if picture is None else self.results.layer_of(picture)

    def shapes_layer(self) -> Shapes | None:
        """The layer with shapes that is worked on: the active one, else the results.

        What the panel only shows, as outlines of prompts, is nobody's to work on.
        """
        active = self.viewer.layers.selection.active
        if isinstance(active, Shapes) and SHOWN not in active.metadata:
            return active
        return self.result_layer()

    def recipe(
        self, picture: Picture, params: PolygonParams, frames: Sequence[FrameIndex]
    ) -> dict[str, Any]:
        """What is kept with the layer of a run, so that it can be repeated."""
        from napari_sam_suite.widgets.recipe import record

        layer = self.images.layers()[0]
        return record(
            picture,
            params,
            frames,
            model=self.models.spec.name,
            device=preferences().device,
            path=str(layer.source.path or ""),
            multiscale=bool(layer.multiscale),
        )


class State(NamedTuple):
    """What can be worked on now.

    Attributes
    ----------
    picture : Picture or None
        The chosen image.
    sizes : Sizes
        Of it; one of everything where there is none.
    frame : FrameIndex
        What the viewer shows of it.
    why : str
        Why no run can begin; empty if one can.
    """

    picture: Picture | None
    sizes: Sizes
    frame: FrameIndex
    why: str


class Tab(QWidget):
    """One tab. The panel adds it with one line, and it does the rest itself.

    Parameters
    ----------
    parts : Parts
        What it shares with the others.

    Attributes
    ----------
    title : str
        Its name on the panel.
    draws : bool
        Whether it puts objects into result layers.

    Signals
    -------
    said(str), failed(Exception)
        For the status line: a sentence, or what went wrong.
    """

    title: ClassVar[str] = ""
    draws: ClassVar[bool] = True
    said = Signal(str)
    failed = Signal(object)

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts

    def show_state(self, state: State) -> None:
        """Another image, frame or model was chosen, or a run has begun or ended."""

    def disconnect_viewer(self) -> None:
        """The panel is closed: stop listening to the viewer and its layers."""
