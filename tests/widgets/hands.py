"""A hand at the mouse and the keys of a shown viewer, and what it sees there."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from napari.layers.shapes._shapes_models import Polygon
from napari.layers.shapes._shapes_mouse_bindings import initiate_polygon_draw
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication, QWidget

from napari_sam_suite.widgets.layers import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_sam_suite.widgets.panel import Panel
    from napari_sam_suite.widgets.prompt import PromptTab

    Blobs = Callable[..., NDArray[np.uint8]]

LEFT = Qt.MouseButton.LeftButton
SHIFT = Qt.KeyboardModifier.ShiftModifier
CONTROL = Qt.KeyboardModifier.ControlModifier
NOTHING = Qt.KeyboardModifier.NoModifier
ENTER, ESCAPE = Qt.Key.Key_Return, Qt.Key.Key_Escape
N, X, Y, Z = Qt.Key.Key_N, Qt.Key.Key_X, Qt.Key.Key_Y, Qt.Key.Key_Z
LIMIT = 60_000


class Hand:
    """Real mouse and key events on the canvas of a shown viewer."""

    def __init__(self, panel: Panel, qtbot: Any) -> None:
        self.panel, self.viewer, self.qtbot = panel, panel.viewer, qtbot
        window = panel.window()
        [self.canvas] = [
            widget
            for widget in window.findChildren(QWidget)
            if type(widget).__name__.startswith("CanvasBackend")
        ]
        window.resize(1000, 700)
        window.show()
        qtbot.waitExposed(window)
        self.viewer.reset_view()
        qtbot.wait(50)

    def at(self, y: float, x: float) -> QPoint:
        """Where a place of the image is on the canvas."""
        camera, size = self.viewer.scene.camera, self.canvas.size()
        layer = self.viewer.layers[0]
        world = layer.data_to_world((0,) * (layer.ndim - 2) + (y, x))[-2:]
        dy, dx = (np.array(world) - np.array(camera.center[-2:])) * camera.zoom
        return QPoint(round(size.width() / 2 + dx), round(size.height() / 2 + dy))

    def click(self, y: float, x: float, modifier: Any = NOTHING) -> None:
        self.qtbot.mouseMove(self.canvas, self.at(y, x))
        self.qtbot.mouseClick(self.canvas, LEFT, modifier, self.at(y, x))

    def outline(self, y: float, x: float) -> None:
        """Click a new object, and wait for its outline."""
        self.click(y, x)
        answered(self.panel.prompts, self.qtbot)

    def keep(self, *places: tuple[float, float]) -> None:
        """Outline objects, each with Next after it."""
        for y, x in places:
            self.outline(y, x)
            self.press(N)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.hold(start, end)
        self.let_go(end)

    def hold(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Draw a box, and keep the button down."""
        self.qtbot.mousePress(self.canvas, LEFT, NOTHING, self.at(*start))
        for part in (0.3, 0.7, 1.0):
            y, x = (a + part * (b - a) for a, b in zip(start, end, strict=True))
            self.move(y, x)

    def move(self, y: float, x: float) -> None:
        """Move the mouse with the button down, which QTest does not."""
        place = QPointF(self.at(y, x))
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            place,
            QPointF(self.canvas.mapToGlobal(place.toPoint())),
            LEFT,
            LEFT,
            NOTHING,
        )
        QApplication.sendEvent(self.canvas, event)

    def let_go(self, end: tuple[float, float]) -> None:
        self.qtbot.mouseRelease(self.canvas, LEFT, NOTHING, self.at(*end))

    def press(self, key: Any, modifier: Any = NOTHING) -> None:
        self.qtbot.keyClick(self.canvas, key, modifier)


def draw_by_hand(layer: Shapes, points: NDArray[Any]) -> None:
    """Click the corners of a polygon; the drawing is not finished."""
    layer.mode = "add_polygon"
    initiate_polygon_draw(layer, tuple(points[0]))
    clicked = np.concatenate([points, points[-1:]])  # the last follows the mouse
    layer._data_view.edit(layer.nshapes - 1, clicked, new_type=Polygon)


def open_prompts(panel: Panel, qtbot: Any) -> Hand:
    """A hand in a shown window whose Prompt tab is open."""
    hand = Hand(panel, qtbot)
    open_tab(panel, qtbot)
    return hand


def open_tab(panel: Panel, qtbot: Any) -> None:
    panel.tabs.setCurrentWidget(panel.prompts)
    ready(panel, qtbot)


def ready(panel: Panel, qtbot: Any) -> None:
    tab = panel.prompts
    qtbot.waitUntil(lambda: tab.state.text() == "Ready.", timeout=LIMIT)


def answered(tab: PromptTab, qtbot: Any, prompts: int = 1) -> None:
    def done() -> bool:
        turn = tab.turns.last
        if turn is None or not turn.found:
            return False
        said = len(turn.prompt.inside) + len(turn.prompt.outside)
        return said + (turn.prompt.box is not None) == prompts

    qtbot.waitUntil(done, timeout=LIMIT)


@contextmanager
def no_answers(panel: Panel) -> Iterator[None]:
    """The engine is at work on something else meanwhile."""
    done = threading.Event()
    engine = panel.session._engine
    assert engine is not None
    engine.submit(lambda *_: done.wait(LIMIT / 1000), "something else")
    yield
    done.set()


def let_engine_end(panel: Panel) -> None:
    """Wait for all that the engine was asked before, and for what it leads to."""
    engine = panel.session._engine
    assert engine is not None
    engine.submit(lambda *_: None, "what was asked before has ended").result()
    QApplication.processEvents()


def show_brighter(panel: Panel) -> None:
    """Show the image of the fixture `hand` in another way."""
    panel.viewer.layers["cells"].contrast_limits = (0, 90)
    QApplication.processEvents()


def said(panel: Panel) -> str:
    """The status line."""
    return str(panel.footer.status.text())


def layer_of(panel: Panel, kind: type, name: str) -> Any:
    [layer] = [x for x in panel.viewer.layers if isinstance(x, kind) and x.name == name]
    return layer


def drawn(panel: Panel, kind: str) -> list[NDArray[Any]]:
    layer = layer_of(panel, Shapes, "Prompt")
    both = zip(layer.data, layer.shape_type, strict=True)
    return [shape for shape, its_kind in both if its_kind == kind]


def outlines(panel: Panel) -> list[NDArray[Any]]:
    return drawn(panel, "polygon")


def dots(panel: Panel) -> list[NDArray[Any]]:
    return [ellipse.mean(0) for ellipse in drawn(panel, "ellipse")]


def results(panel: Panel) -> list[Shapes]:
    return [
        x for x in panel.viewer.layers if isinstance(x, Shapes) and KEY in x.metadata
    ]


def corners(shape: NDArray[Any]) -> list[float]:
    return [*np.round(shape.min(0)[-2:]), *np.round(shape.max(0)[-2:])]
