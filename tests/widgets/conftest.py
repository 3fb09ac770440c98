from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("napari")

from napari_sam_suite.engine.jobs import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam_suite.widgets.panel import Panel
    from napari_sam_suite.widgets.tab import Parts
    from widgets.hands import Hand


class FakeEngine(Engine):
    """The real engine and its thread, with a model that needs no weights."""

    def __init__(self, model: str, fake: dict[str, Any]) -> None:
        super().__init__(model, device="cpu")
        # not at the top: the panel loads torch itself
        from engine.fakes import FakeSam

        self._fake = FakeSam(**fake)

    def _load(self) -> Any:
        return self._fake


@pytest.fixture
def fake() -> dict[str, Any]:
    """Options of the model that draws the blob of one colour around each click."""
    return {"batch": 64}


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sessions keep their objects: no test meets what another one lost."""
    folder = tmp_path / "state"
    monkeypatch.setenv("NAPARI_SAM_SUITE_STATE", str(folder))
    return folder


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[..., Any]) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def panel(viewer: Any, fake: dict[str, Any], qtbot: Any) -> Iterator[Panel]:
    from napari_sam_suite.widgets.panel import Panel

    panel = Panel(viewer, start=lambda model, _: FakeEngine(model, fake))
    viewer.window.add_dock_widget(panel, name="SAM Suite")
    yield panel
    panel.session.close(timeout=10)


@pytest.fixture
def libraries() -> None:
    """Imported beforehand: the tests wait for answers, not for torch."""
    from napari_sam_suite.widgets.session import prepare

    prepare()


@pytest.fixture
def hand(viewer: Any, panel: Panel, qtbot: Any) -> Hand:
    """A hand over an image in a window whose Prompt tab is open."""
    from widgets.hands import open_prompts

    viewer.add_image(blobs(), name="cells")
    return open_prompts(panel, qtbot)


@pytest.fixture
def stack_hand(viewer: Any, panel: Panel, qtbot: Any) -> Hand:
    """The same over three planes in z, of which the first is shown."""
    from widgets.hands import open_prompts

    viewer.add_image(blobs(3), axis_labels=("z", "y", "x"), name="stack")
    viewer.dims.set_current_step(0, 0)
    return open_prompts(panel, qtbot)


@pytest.fixture
def make_parts(qtbot: Any) -> Callable[[Any], Parts]:
    """What tabs share, around a viewer without a window."""
    from napari_sam_suite.widgets.footer import Footer
    from napari_sam_suite.widgets.images import ImageChooser
    from napari_sam_suite.widgets.models import ModelChooser
    from napari_sam_suite.widgets.resultbar import ResultBar
    from napari_sam_suite.widgets.results import Results
    from napari_sam_suite.widgets.runner import Runner
    from napari_sam_suite.widgets.session import Session
    from napari_sam_suite.widgets.tab import Parts

    def make(viewer: Any) -> Parts:
        session, footer = Session(), Footer()
        shown = ImageChooser(viewer), ModelChooser(), ResultBar()
        images, models, bar = shown
        for widget in (*shown, footer):
            qtbot.addWidget(widget)
        runner = Runner(session, footer, footer)
        results = Results(viewer, footer)
        return Parts(viewer, images, models, session, results, bar, runner)

    return make


def blobs(*sizes: int) -> NDArray[np.uint8]:
    """Black with four squares of their own grey, in any number of leading axes."""
    image = np.zeros((*sizes, 64, 64), np.uint8)
    for number, (y, x) in enumerate([(8, 8), (8, 40), (40, 8), (40, 40)]):
        image[..., y : y + 16, x : x + 16] = 255 - 40 * number
    return image


@pytest.fixture(name="blobs")
def blobs_fixture() -> Callable[..., NDArray[np.uint8]]:
    return blobs


@pytest.fixture
def make_engine(fake: dict[str, Any]) -> Callable[..., FakeEngine]:
    def make(model: str, **_: Any) -> FakeEngine:
        return FakeEngine(model, fake)

    return make
