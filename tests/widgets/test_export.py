"""The Export tab: results to files, and a model to ONNX files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import numpy as np
import pytest
from napari.layers import Shapes

from napari_sam_suite.engine import Objects
from napari_sam_suite.engine.outputs import FORMATS
from napari_sam_suite.widgets import export as module
from napari_sam_suite.widgets.export import ExportTab
from napari_sam_suite.widgets.layers import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_sam_suite.engine.onnx.export import Exported
    from napari_sam_suite.engine.onnx.params import ExportParams
    from napari_sam_suite.widgets.panel import Panel

LIMIT = 120_000
SQUARE = np.array([[0.0, 0], [0, 9], [9, 9], [9, 0]])


class Writer:
    """Writes a page and compares a fake model with itself: an export in no time."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ExportParams]] = []
        self.error: Exception | None = None

    def __call__(
        self,
        model: str,
        out: Path,
        params: ExportParams,
        *,
        report: Callable[[int, int, str], object],
        **_: object,
    ) -> Exported:
        from engine.fakes import scene
        from napari_sam_suite.engine.onnx.export import Exported
        from napari_sam_suite.engine.onnx.parity import TOLERANCES, compare

        if self.error is not None:
            raise self.error
        self.asked.append((model, params))
        report(0, 2, "Comparing with the model")
        images = {"boxes": scene((64, 64), (8, 8, 40, 40))}
        (out / "ort").mkdir(parents=True)
        (out / "index.html").write_text("the page")
        parity = compare(fake_model(), fake_model(), images, TOLERANCES["float32"])
        return Exported(out, {"encoder.onnx": 12_300_000}, parity, ["Take note."])


def fake_model() -> Any:
    """The fake, asked in the corner where a prompt has no place."""
    from engine.fakes import FakeSam

    class Placed(FakeSam):
        def decode(self, embedding: Any, prompts: Any, **options: Any) -> Any:
            from napari_sam_suite.engine.models.protocol import Prompts

            if not prompts.points.shape[1] and prompts.boxes is None:
                prompts = Prompts.clicks(np.zeros((len(prompts), 2)))
            return super().decode(embedding, prompts, **options)

    return Placed()


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def tab(panel: Panel, writer: Writer, tmp_path: Path) -> Iterator[ExportTab]:
    tab = panel._add(ExportTab(panel.parts, writer))
    tab.folder.setText(str(tmp_path / "model"))
    yield tab
    tab.disconnect_viewer()


def test_every_format_can_be_written(tab: ExportTab) -> None:
    offered = {tab.format.itemData(i) for i in range(tab.format.count())}
    assert offered == set(FORMATS) - {"overlay"}


@pytest.mark.parametrize("name", ["geojson", "parquet", "rois", "coco"])
def test_results_of_the_active_layer_are_saved(
    viewer: Any, tab: ExportTab, qtbot: Any, tmp_path: Path, name: str
) -> None:
    assert not tab.save.isEnabled()
    assert "no results" in tab.save.toolTip()
    layer = Shapes(
        [SQUARE, SQUARE + 20],
        shape_type="polygon",
        features={"tag": ["a", "b"]},
        metadata={KEY: {}},
        name="cells",
    )
    viewer.add_layer(layer)
    assert tab.save.isEnabled()
    ending = {"rois": ".zip", "coco": ".coco.json"}.get(name, f".{name}")
    path = tmp_path / f"out{ending}"
    with qtbot.waitSignal(tab.said, timeout=LIMIT) as said:
        tab.save_results(path, name)
    assert said.args == [f"Saved {path.name}: 2 objects."]
    assert sorted(Objects.load(path).features["tag"]) == ["a", "b"]


def test_a_file_that_cannot_be_written_is_one_sentence(
    viewer: Any, tab: ExportTab, qtbot: Any, tmp_path: Path
) -> None:
    viewer.add_layer(Shapes([SQUARE], shape_type="polygon"))
    (tmp_path / "file").write_text("")
    with qtbot.waitSignal(tab.failed, timeout=LIMIT) as failed:
        tab.save_results(tmp_path / "file" / "a.geojson", "geojson")
    assert "cannot be" in str(failed.args[0]) or "not a folder" in str(failed.args[0])


def test_the_model_is_exported_with_its_comparison_shown(
    panel: Panel,
    tab: ExportTab,
    writer: Writer,
    qtbot: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tab.form.set_values({"precision": "float16", "page": False})
    assert not tab.page.isEnabled()
    tab.start.click()
    assert not tab.start.isEnabled()
    qtbot.waitUntil(lambda: tab.table.rowCount() > 0, timeout=LIMIT)
    qtbot.waitUntil(lambda: not panel.busy, timeout=LIMIT)
    ((model, params),) = writer.asked
    assert (model, params.precision, params.page) == ("sam2-nano", "float16", False)
    cells = [tab.table.item(0, column).text() for column in range(4)]
    assert cells == ["boxes", "point", "0.0e+00", "1.00000"]
    told = panel.footer.status.text()
    assert "encoder.onnx 12.3 MB" in told and "Take note." in told
    shown: list[str] = []
    monkeypatch.setattr(
        module.QDesktopServices, "openUrl", lambda url: shown.append(url.toString())
    )
    tab.page.click()
    with urlopen(shown[0]) as answer:
        assert answer.read() == b"the page"


def test_an_export_that_fails_is_told(
    panel: Panel, tab: ExportTab, writer: Writer, qtbot: Any
) -> None:
    from napari_sam_suite.engine.errors import ModelError

    writer.error = ModelError("The export is not what the model says.", "Try again.")
    tab.start.click()
    qtbot.waitUntil(lambda: not panel.busy, timeout=LIMIT)
    assert "not what the model says" in panel.footer.status.text()
    assert tab.start.isEnabled()
    assert tab.table.rowCount() == 0


def test_a_folder_is_needed(tab: ExportTab, writer: Writer, qtbot: Any) -> None:
    tab.folder.setText(" ")
    with qtbot.waitSignal(tab.failed, timeout=LIMIT) as failed:
        tab.start.click()
    assert "no folder" in str(failed.args[0])
    assert not writer.asked
