"""The Export tab: results as files of every format, and the model as ONNX files."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGroupBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_sam_suite.engine.errors import EngineError, ParameterError, reworded
from napari_sam_suite.engine.formats import FORMATS
from napari_sam_suite.engine.onnx.params import ExportParams
from napari_sam_suite.engine.outputs import FORMATS as WRITTEN
from napari_sam_suite.widgets.bridge import Background
from napari_sam_suite.widgets.form import Form, scrolled
from napari_sam_suite.widgets.runner import WAIT, Task
from napari_sam_suite.widgets.settings import preferences
from napari_sam_suite.widgets.tab import Tab

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.models.registry import ModelSpec
    from napari_sam_suite.engine.onnx.export import Exported
    from napari_sam_suite.widgets.tab import Parts, State

    Export = Callable[..., Exported]

_TITLES = {
    "geojson": "GeoJSON, for QuPath",
    "geojson-annotations": "GeoJSON, to edit in QuPath",
    "labels": "Label image (TIFF)",
    "coco": "COCO, polygons",
    "coco-rle": "COCO, masks",
    "rois": "ImageJ ROIs",
    "parquet": "GeoParquet",
    "nimbus": "NimbusImage",
    "csv": "Measurements (CSV)",
}
_COLUMNS = ("Image", "Prompt", "Logits differ by", "Masks' IoU")


def _export(*arguments: Any, **options: Any) -> Exported:
    from napari_sam_suite.engine.onnx.export import export_onnx

    return export_onnx(*arguments, **options)


class Exporting(Task):
    """The export of a model as a task of the runner."""

    def __init__(
        self,
        spec: ModelSpec,
        folder: Path,
        params: ExportParams,
        export: Export,
        done: Callable[[Exported], object],
    ) -> None:
        self.spec, self.folder, self.params = spec, folder, params
        self._export, self._done = export, done
        self._result: Exported | None = None

    def start(self, engine: Engine) -> Job[Exported]:
        """Queue it; the engine's own model may be on another device."""
        weights = preferences().folder

        def work(_: SamModel, job: Job[Exported]) -> Exported:
            done = self._export(
                self.spec.name,
                self.folder,
                self.params,
                folder=weights,
                report=job.report,
                stop=job.stopping,
            )
            for notice in done.notices:
                job.notice(reworded(notice, str))
            return done

        return engine.submit(work, f"export {self.spec.id}")

    def settle(self, job: Job[Any]) -> None:
        """Show what was written."""
        if self._result is None and job.wait(0) and job.error is None:
            self._result = job.result()
            self._done(self._result)

    def summary(self) -> str:
        """What is in the folder."""
        if self._result is None:
            return "nothing"
        return f"{self._result.summary()}, in {self.folder}"


class ExportTab(Tab):
    """Results of the active layer to a file; the chosen model to ONNX files.

    Parameters
    ----------
    parts : Parts
        What it shares with the others.
    export : callable, optional
        Does the export of a model, as `engine.onnx.export.export_onnx` does.
    """

    title = "Export"

    def __init__(self, parts: Parts, export: Export = _export) -> None:
        super().__init__(parts)
        self._export = export
        self._server = ExitStack()
        self._exported: Path | None = None
        self.format = QComboBox()
        for name in WRITTEN:
            # Not what is drawn on the image, or written into it.
            if any(known.name == name for known in FORMATS):
                self.format.addItem(_TITLES.get(name, name), name)
        self.save = QPushButton("Save results...")
        names = [name for _, group in ExportParams.groups for name in group]
        self.form = Form(ExportParams, names)
        self.folder = QLineEdit(str(Path.home() / "sam-onnx"))
        self.folder.setToolTip("Where the files are written; made if it is missing.")
        self.choose = QPushButton("...")
        self.choose.setToolTip("Choose the folder.")
        self.choose.setMaximumWidth(32)
        self.start = QPushButton("Export model")
        self.table = QTableWidget(0, len(_COLUMNS))
        self.page = QPushButton("Open the page")
        self._lay_out()
        self.save.clicked.connect(self._ask_and_save)
        self.choose.clicked.connect(self._choose_folder)
        self.start.clicked.connect(self._start)
        self.page.clicked.connect(self.open_page)
        parts.viewer.layers.selection.events.active.connect(self._refresh)
        parts.results.changed.connect(self._refresh)
        self._refresh()

    def disconnect_viewer(self) -> None:
        """Stop listening to the viewer, and showing the page."""
        self.parts.viewer.layers.selection.events.active.disconnect(self._refresh)
        self._server.close()

    def show_state(self, state: State) -> None:
        """Enable what can be done now, and say why the rest cannot."""
        self._refresh()

    # -- what is on it -----------------------------------------------------------

    def _lay_out(self) -> None:
        line = QHBoxLayout()
        line.addWidget(self.format, 1)
        line.addWidget(self.save)
        place = QHBoxLayout()
        place.addWidget(QLabel("Folder"))
        place.addWidget(self.folder, 1)
        place.addWidget(self.choose)
        self.table.setHorizontalHeaderLabels(list(_COLUMNS))
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setToolTip("The exported files against the model, on real images.")
        across, down = self.table.horizontalHeader(), self.table.verticalHeader()
        if across is not None and down is not None:
            across.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
            down.hide()
        model = (self.form, place, self.start, self.table, self.page)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(6, 10, 6, 6)
        column.addWidget(_group("Results", line))
        column.addWidget(_group("Model as ONNX", *model))
        column.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scrolled(inside))

    def _refresh(self, _: Any = None) -> None:
        layer = self.parts.shapes_layer()
        some = layer is not None and layer.nshapes > 0
        self.save.setEnabled(some)
        self.save.setToolTip(
            f"All objects of {layer.name}."
            if layer is not None and some
            else "There are no results; choose a Shapes layer that has some."
        )
        why = self.parts.models.why_not() or (WAIT if self.parts.runner.busy else "")
        self.start.setEnabled(not why)
        self.start.setToolTip(
            why
            or "Written and compared with the model: half a minute for the smallest, "
            "many minutes for the largest."
        )
        here = self._exported is not None and (self._exported / "ort").is_dir()
        self.page.setEnabled(here)
        self.page.setToolTip(
            "In the browser, on this machine."
            if here
            else "Export the model with its demo page first."
        )

    # -- results -----------------------------------------------------------------

    def _ask_and_save(self) -> None:
        layer = self.parts.shapes_layer()
        if layer is None:
            return
        name = str(self.format.currentData())
        ending = next(f.suffixes[0] for f in FORMATS if f.name == name)
        path, _ = QFileDialog.getSaveFileName(
            self, "Save results", f"{layer.name}{ending}", f"{name} (*{ending})"
        )
        if path:
            self.save_results(Path(path), name)

    def save_results(self, path: Path, name: str) -> Background | None:
        """Write the objects of the active layer, on a thread of its own."""
        from napari_sam_suite.engine.formats import check_format
        from napari_sam_suite.widgets.saving import image_of, save_layer

        layer = self.parts.shapes_layer()
        if layer is None:
            return None
        try:
            check_format(name)
        except EngineError as error:
            self.failed.emit(error)
            return None
        data, meta, _ = layer.as_layer_data_tuple()
        image = image_of(meta, self.parts.look()[0])
        more = ""
        if name == "csv" and image is None:
            more = " Without intensities: their image is not the one that is ticked."

        def work(*_: object) -> str:
            count = save_layer(str(path), data, meta, name, image)
            return f"Saved {path.name}: {count} objects.{more}"

        saving = Background(work, self)
        saving.done.connect(lambda text: self.said.emit(text))
        saving.failed.connect(self.failed)
        saving.start()
        return saving

    # -- the model ---------------------------------------------------------------

    def _choose_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder", self.folder.text())
        if chosen:
            self.folder.setText(chosen)

    def _start(self) -> None:
        text = self.folder.text().strip()
        try:
            if not text:
                raise ParameterError("There is no folder for the files.", "Name one.")
            params = ExportParams(**self.form.values())
        except EngineError as error:
            self.failed.emit(error)
            return
        folder = Path(text).expanduser()
        spec = self.parts.models.spec
        task = Exporting(spec, folder, params, self._export, self._show)
        self.parts.runner.start(task)

    def _show(self, done: Exported) -> None:
        """Show how close the files are to the model."""
        self._exported = done.folder
        self.table.setRowCount(len(done.parity.rows))
        for place, row in enumerate(done.parity.rows):
            cells = (row.image, row.prompt, f"{row.logits:.1e}", f"{row.overlap:.5f}")
            for column, text in enumerate(cells):
                self.table.setItem(place, column, QTableWidgetItem(text))
        self._refresh()

    def open_page(self) -> str:
        """Show the demo page in the browser; returns its address."""
        from napari_sam_suite.engine.onnx.serve import serving

        if self._exported is None:
            return ""
        self._server.close()
        address = self._server.enter_context(serving(self._exported))
        QDesktopServices.openUrl(QUrl(address))
        self.said.emit(f"The page is at {address} while this window is open.")
        return address


def _group(title: str, *parts: Any) -> QGroupBox:
    box = QGroupBox(title)
    layout = QVBoxLayout(box)
    for part in parts:
        (layout.addWidget if isinstance(part, QWidget) else layout.addLayout)(part)
    return box
