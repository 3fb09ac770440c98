"""The Export tab: results to files, and a model to ONNX files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest
import tifffile
from napari.layers import Shapes
from shapely import Polygon

from napari_sam_suite.engine import AutoParams, FrameIndex, Objects
from napari_sam_suite.engine.errors import OutputError
from napari_sam_suite.engine.losses import Losses
from napari_sam_suite.engine.origin import spare_others
from napari_sam_suite.engine.outputs import FORMATS
from napari_sam_suite.engine.run import FrameResult
from napari_sam_suite.widgets import export as module
from napari_sam_suite.widgets.export import ExportTab
from napari_sam_suite.widgets.layers import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_sam_suite.engine.onnx.export import Exported
    from napari_sam_suite.engine.onnx.params import ExportParams
    from napari_sam_suite.widgets.layers import Picture
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


def square(z: int) -> Polygon:
    return Polygon(SQUARE + z)


def chosen(viewer: Any, panel: Panel) -> Picture:
    """A stack of three planes that is 7 in the first, with a size in micrometres."""
    stack = np.zeros((3, 30, 40), np.uint8)
    stack[0] = 7
    options = {"scale": (2, 0.5, 0.5), "units": ("um", "um", "um")}
    viewer.add_image(stack, name="cells", axis_labels=("z", "y", "x"), **options)
    return panel.images.picture()


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
    # the viewer shows objects over the image, and a layer has no Zarr to write into
    assert offered == set(FORMATS) - {"overlay", "zarr-inside"}


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


def test_a_layer_is_saved_as_the_command_line_saves_its_run(
    panel: Panel, viewer: Any, tab: ExportTab, qtbot: Any, tmp_path: Path
) -> None:
    # two runs; nothing is found in the third plane
    picture = chosen(viewer, panel)
    params = AutoParams()
    for planes in ((0, 2), (0,)):
        frames = [FrameIndex(z=z) for z in planes]
        recipe = panel.parts.recipe(picture, params, frames)
        run = panel.results.begin(picture, recipe, "add")
        for frame in frames:
            found = Objects([square(frame.z)] if frame.z == 0 else [])
            panel.results.add(run, FrameResult(frame, found, Losses()))
        panel.results.finish(run)
    qtbot.waitUntil(lambda: panel.results.settled, timeout=LIMIT)
    viewer.layers.selection.active = panel.parts.result_layer()
    for name in ("geojson", "coco", "labels", "csv"):
        with qtbot.waitSignal(tab.said, timeout=LIMIT) as told:
            tab.save_results(tmp_path / name, name)
        assert told.args == [f"Saved {name}: 2 objects."]
    for name, ending in (("geojson", ".geojson"), ("labels", ".tif")):
        saved = (tmp_path / name).rename(tmp_path / f"corrected{ending}")
        with pytest.raises(OutputError, match="was saved from napari, perhaps"):
            spare_others(saved, "auto")
        saved.rename(tmp_path / name)
    searched = [FrameIndex(), FrameIndex(z=2)]
    objects = Objects.load(tmp_path / "geojson", "geojson")
    assert objects.searched() == searched
    assert objects.source["scale"] == [2.0, 0.5, 0.5]
    said = [objects.source[name] for name in ("units", "model", "capability")]
    assert said == ["micrometer", "sam2-nano", "auto"]
    assert Objects.load(tmp_path / "coco", "coco").searched() == searched
    with tifffile.TiffFile(tmp_path / "labels") as file:
        assert file.series[0].shape == (3, 30, 40)
        about = file.imagej_metadata or {}
        assert file.pages.first.tags["XResolution"].value == (2, 1)
    assert (about["spacing"], about["unit"]) == (2.0, "micron")
    rows = pd.read_csv(tmp_path / "csv")
    assert rows["unit"].tolist() == ["micrometer"] * 2
    assert rows["area"].tolist() == [0.25 * n for n in rows["area_px"]]
    assert rows["intensity_mean_channel 1"].tolist() == [7.0, 7.0]


def test_shapes_drawn_by_hand_are_of_the_chosen_image(
    panel: Panel, viewer: Any, tab: ExportTab, qtbot: Any, tmp_path: Path
) -> None:
    chosen(viewer, panel)
    drawn = np.insert(SQUARE, 0, 0, axis=1)
    viewer.add_layer(Shapes([drawn], shape_type="polygon", axis_labels=("z", "y", "x")))
    for name in ("labels", "csv"):
        with qtbot.waitSignal(tab.said, timeout=LIMIT):
            tab.save_results(tmp_path / name, name)
    assert tifffile.imread(tmp_path / "labels").shape == (3, 30, 40)
    rows = pd.read_csv(tmp_path / "csv")
    assert rows["intensity_mean_channel 1"].tolist() == [7.0]


def test_shapes_with_the_channel_axis_of_the_image_in_front_are_of_it_as_well(
    panel: Panel, viewer: Any, tab: ExportTab, qtbot: Any, tmp_path: Path
) -> None:
    labels = ("c", "y", "x")
    viewer.add_image(np.full((2, 30, 40), 7), name="cells", axis_labels=labels)
    drawn = np.insert(SQUARE, 0, 1, axis=1)
    viewer.add_layer(Shapes([drawn], shape_type="polygon", axis_labels=labels))
    with qtbot.waitSignal(tab.said, timeout=LIMIT):
        tab.save_results(tmp_path / "a.csv", "csv")
    rows = pd.read_csv(tmp_path / "a.csv")
    assert rows["intensity_mean_channel 2"].tolist() == [7.0]


def test_intensities_of_another_image_are_not_measured(
    panel: Panel, viewer: Any, tab: ExportTab, qtbot: Any, tmp_path: Path
) -> None:
    chosen(viewer, panel)
    metadata = {KEY: {"axes": "ZYX", "image": ["another"]}}
    drawn = np.insert(SQUARE, 0, 0, axis=1)
    viewer.add_layer(Shapes([drawn], shape_type="polygon", metadata=metadata))
    with qtbot.waitSignal(tab.said, timeout=LIMIT) as said:
        tab.save_results(tmp_path / "a.csv", "csv")
    assert "Without intensities" in said.args[0]
    assert not any("intensity" in name for name in pd.read_csv(tmp_path / "a.csv"))


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
