"""Choose a model, see what it needs, and get it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sam_suite.engine.models.checkpoints import (
    checkpoint_state,
    download,
    tuned_models,
)
from napari_sam_suite.engine.models.registry import DEFAULT_MODEL, MODELS
from napari_sam_suite.widgets.bridge import Background
from napari_sam_suite.widgets.settings import preferences

if TYPE_CHECKING:
    from napari_sam_suite.engine.models.registry import ModelSpec

_READY = ("embedded", "installed")
_STATES = {
    "embedded": "included",
    "installed": "installed",
    "damaged": "damaged",
    "partial": "partly here",
    "missing": "to get",
}


class ModelChooser(QWidget):
    """All models with their memory and licence; those that are not here can be got.

    The user's own models come last.

    Signals
    -------
    changed()
        Another model, or this one has arrived.
    download_wanted()
        The button was pressed.
    """

    changed = Signal()
    download_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.combo = QComboBox()
        self.combo.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.combo.setMinimumContentsLength(16)
        self.info = QLabel()
        self.button = QPushButton()
        self.button.clicked.connect(self.download_wanted)
        line = QHBoxLayout()
        line.addWidget(self.info, 1)
        line.addWidget(self.button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.combo)
        layout.addLayout(line)
        self._specs: dict[str, ModelSpec] = {}
        for spec in (*MODELS.values(), *tuned_models(preferences().folder)):
            self._specs[spec.name] = spec
            self.combo.addItem(spec.title, spec.name)
        self.combo.setCurrentIndex(self.combo.findData(DEFAULT_MODEL))
        self.combo.currentIndexChanged.connect(self.refresh)
        self.refresh()

    @property
    def spec(self) -> ModelSpec:
        """The chosen model."""
        return self._specs[self.combo.currentData()]

    def choose(self, model: str) -> None:
        """Choose a model by its id, or a file by its path."""
        self.combo.setCurrentIndex(self.combo.findData(model))

    def add(self, spec: ModelSpec, *, choose: bool = True) -> None:
        """List one more model, or what its file holds now, and choose it if wanted."""
        new = spec.name not in self._specs
        self._specs[spec.name] = spec
        if new:
            self.combo.addItem(spec.title, spec.name)
        if choose:
            self.choose(spec.name)
        self.refresh()

    def why_not(self) -> str:
        """Why the chosen model cannot run; empty if it can."""
        if self._state(self.spec) in _READY:
            return ""
        return f"Download {self.spec.title} first, or choose another model."

    def refresh(self) -> None:
        """Look at the disk again."""
        for row, spec in enumerate(self._specs.values()):
            here = self._state(spec) in _READY
            size = "" if here else f" ({spec.size_mb:.0f} MB to get)"
            self.combo.setItemText(row, spec.title + size)
        spec = self.spec
        state = self._state(spec)
        known = [f"{spec.memory:g} GB", spec.licence, _STATES[state]]
        self.info.setText(", ".join(text for text in known if text))
        self.info.setToolTip("Memory that one image needs, licence, and where it is.")
        self.combo.setToolTip(
            f"{spec.id}: sees {spec.input_size} × {spec.input_size} px at a time"  # noqa: RUF001
        )
        self.button.setVisible(state not in _READY)
        self.button.setText("Resume" if state == "partial" else "Download")
        self.button.setToolTip(f"{spec.size_mb:.0f} MB into {preferences().folder}")
        self.changed.emit()

    def start_download(self) -> Background:
        """Get the chosen model on a thread of its own; what arrives is kept."""
        spec, folder = self.spec, preferences().folder

        def work(report: Any, stop: Any) -> str:
            download(spec, folder, progress=report, stop=stop)
            return spec.title

        return Background(work, self)

    @staticmethod
    def _state(spec: ModelSpec) -> str:
        return checkpoint_state(spec, preferences().folder)
