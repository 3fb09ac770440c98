"""The Prompt tab: point at objects in the viewer, and see at once what they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGridLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sam_suite.engine.errors import EngineError
from napari_sam_suite.engine.prompts.params import PromptParams
from napari_sam_suite.widgets.carrying import CarryBox
from napari_sam_suite.widgets.dialogue import Dialogue
from napari_sam_suite.widgets.form import Form, fold, scrolled
from napari_sam_suite.widgets.pointing import OUTSIDE, Pointing, Sketch
from napari_sam_suite.widgets.tab import Tab
from napari_sam_suite.widgets.turns import Turn, as_json, outlines

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from qtpy.QtGui import QHideEvent, QShowEvent

    from napari_sam_suite.engine.prompts.prompt import Prompt
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.tab import Parts, State

_SOON = 150  # ms without a change after which a frame is prepared
_PATIENCE = 50  # ms that a prompt waits to be drawn together with its answer
_HINT = (
    f"Click an object. {OUTSIDE} and click: this does not belong to it. "
    "Drag: a box around it."
)
_KEYS = {
    "commit": ("Add to results", "Enter", "Put what is outlined into the results."),
    "next": ("Next object", "N", "Keep this outline, and begin another object."),
    "undo": ("Undo", "Z", "Take the last click or box back."),
    "redo": ("Redo", "Y", "Do again what was taken back."),
    "cycle": ("Other answer", "X", "Show another of the three answers."),
    "clear": ("Clear", "Escape", "Forget all clicks and outlines."),
}
_FIRST = "Click an object in the image first."
_WHY = {
    "commit": _FIRST,
    "next": _FIRST,
    "undo": "There is no click or box to take back.",
    "redo": "Nothing was taken back.",
    "cycle": "Click an object first; a click has three answers.",
    "clear": "There are no clicks and outlines.",
}
"""Of each key, why it does nothing now."""
_ALWAYS = ("answers", "prompts_per_batch")
"""Set by the tab itself: one prompt at a time, and all three answers."""


class PromptTab(Tab):
    """Prompts in the viewer while the tab is open."""

    title = "Prompt"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._viewer, self._images = parts.viewer, parts.images
        self._models, self._results = parts.models, parts.results
        self.point = QCheckBox("Point in the image")
        self.point.setChecked(True)
        self.tag = QComboBox()
        self.tag.setEditable(True)
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.advanced = Form(
            PromptParams, [n for n in PromptParams.model_fields if n not in _ALWAYS]
        )
        self.dialogue = Dialogue(parts, self)
        self.turns = self.dialogue.turns
        self.buttons: dict[str, QPushButton] = {}
        actions = {name: getattr(self, name) for name in _KEYS}
        for name, (text, key, tip) in _KEYS.items():
            self.buttons[name] = QPushButton(f"{text}  ({key})")
            self.buttons[name].setToolTip(tip)
            self.buttons[name].clicked.connect(lambda _=False, do=actions[name]: do())
        keys = {key: actions[name] for name, (_, key, _tip) in _KEYS.items()}
        self.pointing = Pointing(parts.viewer, keys, self)
        self.sketch = Sketch(parts.viewer)
        self.carry = CarryBox(parts, self.sketch)
        self._picture: Picture | None = None
        self._known: tuple[Any, ...] = ()
        self._ready_for: tuple[Any, ...] = ()
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_SOON)
        self._lay_out()
        self._connect()
        self._show()

    def params(self) -> PromptParams:
        """What is set.

        Raises
        ------
        ParameterError
            If a value makes no sense.
        """
        return PromptParams(answers="all", **self.advanced.values())

    def _lay_out(self) -> None:
        hint = QLabel(_HINT)
        hint.setWordWrap(True)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Tag", self.tag)
        grid = QGridLayout()
        for place, name in enumerate(_KEYS):
            grid.addWidget(self.buttons[name], *divmod(place, 2))
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(6, 10, 6, 6)
        column.addWidget(hint)
        column.addWidget(self.point)
        column.addLayout(form)
        column.addLayout(grid)
        column.addWidget(self.state)
        self.carry_fold = fold("Propagate through time or z", self.carry)
        column.addWidget(self.carry_fold)
        column.addWidget(fold("Advanced", self.advanced))
        column.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scrolled(inside))

    def _connect(self) -> None:
        self.point.toggled.connect(self.refresh)
        self.advanced.changed.connect(self._use_params)
        self.pointing.pointed.connect(self._click)
        self.pointing.stretching.connect(self._stretch)
        self.pointing.boxed.connect(self._box)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_PATIENCE)
        self._later.timeout.connect(self._show)
        self.dialogue.changed.connect(self._show_soon)
        self.dialogue.stated.connect(self.state.setText)
        self.dialogue.ready.connect(self._prepared)
        self._soon.timeout.connect(self._prepare)
        for part in (self.dialogue, self.carry):
            part.said.connect(self.said)
            part.failed.connect(self.failed)

    def show_state(self, state: State) -> None:
        """Begin anew, if what is looked at or by which model is another one."""
        now = self._looks(state.picture)
        if now != self._known:
            self._known = now
            self.dialogue.begin_anew()
            self.sketch.clear()
        self.carry.show_state(state)
        self.refresh()

    def disconnect_viewer(self) -> None:
        """Stop listening to the viewer."""
        self.pointing.turn(False)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Listen to the viewer while the tab is open."""
        super().showEvent(event)
        self.refresh()

    def hideEvent(self, event: QHideEvent | None) -> None:
        """Leave the viewer alone."""
        super().hideEvent(event)
        self.pointing.turn(False)
        self._soon.stop()

    # -- what can be done now ----------------------------------------------------

    def refresh(self, _: Any = None) -> None:
        """Listen to the viewer if there is something to point at, and prepare it."""
        why = self._why_not()
        on = self.isVisible() and self.point.isChecked() and not why
        self.pointing.turn(on)
        if why:
            self.state.setText(why)
        elif on and (self._known, self._images.frame()[0]) != self._ready_for:
            self.state.setText("Preparing this frame.")
            self._soon.start()
        self._show_tags()
        self._show_buttons()

    def _why_not(self) -> str:
        try:
            self._picture = self._images.picture()
        except EngineError as error:
            self._picture = None
            return str(error)
        finally:
            self.dialogue.look_at(self._picture)
        if self._viewer.dims.ndisplay != 2:
            return "Prompts need the 2-D view."
        return self._models.why_not()

    def _looks(self, picture: Picture | None) -> tuple[Any, ...]:
        """What tells one image, as it is shown, and model from another."""
        if picture is None:
            return ()
        pixels = [(id(layer), id(layer.data)) for layer in self._images.layers()]
        return (*pixels, picture.letters, picture.composite, self._models.spec.name)

    def _show_tags(self) -> None:
        layer = None
        if self._picture is not None:
            layer = self._results.layer_of(self._picture)
        if layer is None:
            return
        known = [self.tag.itemText(i) for i in range(self.tag.count())]
        used = list(dict.fromkeys(map(str, layer.features.get("tag", []))))
        text = self.tag.currentText()
        self.tag.addItems([tag for tag in used if tag not in known])
        self.tag.setEditText(text)

    def _show_buttons(self) -> None:
        turn = self.turns.last
        outlined = turn is not None and turn.suggestion is not None
        ready = {
            "commit": outlined or bool(self.turns.kept),
            "next": outlined,
            "undo": turn is not None,
            "redo": bool(self.turns.undone),
            "cycle": turn is not None and len(turn.found) > 1,
            "clear": turn is not None or bool(self.turns.kept),
        }
        for name, button in self.buttons.items():
            button.setEnabled(ready[name])
            button.setToolTip(_KEYS[name][2] if ready[name] else _WHY[name])

    # -- the frame in view -------------------------------------------------------

    def _prepare(self) -> None:
        if self._picture is None or not self.pointing.on or self.parts.runner.busy:
            return
        frame, _ = self._images.frame()
        self._ready_for = (self._known, frame)
        center = np.array(self._viewer.scene.camera.center)
        self.dialogue.prepare(frame, self._clip(self._to_image(center)))

    def _use_params(self) -> None:
        """Other parameters: the frame is prepared anew, the last answer as well."""
        try:
            self.dialogue.use(self.params())
        except EngineError as error:
            self.said.emit(str(error))
            return
        self._ready_for = ()
        self.refresh()

    def _prepared(self) -> None:
        self.state.setText("Ready.")
        self._show()

    # -- what the mouse says -----------------------------------------------------

    def _to_image(self, world: NDArray[np.float64]) -> tuple[float, float]:
        """(y, x) in pixels of the image, of a place in the viewer."""
        layer = self._images.layers()[0]
        place = np.asarray(layer.world_to_data(world[-layer.ndim :]), np.float64)
        return float(place[-2]), float(place[-1])

    def _clip(self, point: tuple[float, float]) -> tuple[float, float]:
        if self._picture is None:
            return point
        sizes = self._picture.image.sizes
        y, x = np.clip(point, 0, (sizes.y - 1, sizes.x - 1))
        return float(y), float(x)

    def _click(self, world: NDArray[np.float64], inside: bool) -> None:
        point = self._to_image(world)
        if self._clip(point) != point:
            self.said.emit("That is outside the image.")
            return
        before = self._before().prompt
        if inside:
            self._ask(replace(before, inside=(*before.inside, point)))
        elif before.inside or before.box is not None:
            self._ask(replace(before, outside=(*before.outside, point)))
        else:
            self.said.emit("Click the object first, then what does not belong to it.")

    def _corners(
        self, one: NDArray[np.float64], other: NDArray[np.float64]
    ) -> tuple[float, float, float, float]:
        first, second = (self._clip(self._to_image(p)) for p in (one, other))
        (y0, y1), (x0, x1) = (sorted(pair) for pair in zip(first, second, strict=True))
        return y0, x0, y1, x1

    def _stretch(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
        """Show the box while it is drawn."""
        prompt = replace(self._before().prompt, box=self._corners(one, other))
        self._draw(prompt)

    def _box(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
        box = self._corners(one, other)
        if min(box[2] - box[0], box[3] - box[1]) < 1:
            self.said.emit("That box is too small.")
            self._show()
            return
        self._ask(replace(self._before().prompt, box=box))

    def _before(self) -> Turn:
        """What is said of the object in this frame up to now."""
        return self.dialogue.before(self._images.frame()[0])

    def _ask(self, prompt: Prompt) -> None:
        self.dialogue.ask(prompt, self._before().frame)

    # -- what is shown ------------------------------------------------------------

    def _show_soon(self) -> None:
        """Show a prompt with its answer, or without where that takes long.

        To draw costs more than a model's answer, if the frame is prepared.
        """
        turn = self.turns.last
        if turn is None or turn.answered:
            self._show()
        elif not self._later.isActive():
            self._later.start()

    def _show(self) -> None:
        self._later.stop()
        turn = self.turns.last
        self._draw(None if turn is None else turn.prompt)
        suggestion = None if turn is None else turn.suggestion
        if turn is not None and suggestion is not None:
            self.state.setText(
                f"Answer {turn.chosen + 1} of {len(turn.found)}, "
                f"score {suggestion.answer.score:.2f}."
            )
        self._show_buttons()

    def _draw(self, prompt: Prompt | None) -> None:
        picture = self._picture
        if picture is None or (prompt is None and not self.turns.kept):
            self.sketch.clear()
            return
        turn = self.turns.last
        frame = self._before().frame if turn is None else turn.frame
        now = outlines([] if turn is None else [turn])
        self.sketch.show(picture, frame, prompt, now, outlines(self.turns.kept))

    # -- buttons and keys --------------------------------------------------------

    def undo(self) -> None:
        """Take the last click or box back."""
        self.dialogue.undo()

    def redo(self) -> None:
        """Do again what was taken back."""
        self.dialogue.redo()

    def clear(self) -> None:
        """Forget all clicks and outlines."""
        self.dialogue.clear()

    def cycle(self) -> None:
        """Show another of the three answers."""
        self.turns.cycle()
        self._show()

    def next(self) -> None:
        """Keep this outline, and begin another object."""
        self.turns.keep(self._tag())
        self._show()

    def commit(self) -> None:
        """Put everything that is outlined into the results."""
        self.turns.keep(self._tag())
        picture, found = self._picture, self.dialogue.take()
        if picture is None or not found:
            return
        from napari_sam_suite.engine.losses import Losses
        from napari_sam_suite.engine.run import FrameResult

        recipe = self._recipe(picture, [turn for turn, _ in found])
        run = self._results.begin(picture, recipe, "add")
        for turn, objects in found:
            self._results.add(run, FrameResult(turn.frame, objects, Losses()))
        self._results.finish(run)
        what = "1 object" if len(found) == 1 else f"{len(found)} objects"
        self.said.emit(f"Added {what}.")
        self._show()
        self._show_tags()

    def _tag(self) -> str:
        from napari_sam_suite.engine.features import UNASSIGNED

        return self.tag.currentText().strip() or UNASSIGNED

    def _recipe(self, picture: Picture, kept: list[Turn]) -> dict[str, Any]:
        frames = list(dict.fromkeys(turn.frame for turn in kept))
        params = self.params().with_(answers="best")
        found = self.parts.recipe(picture, params, frames)
        return {**found, "capability": "prompt", "prompts": as_json(kept)}
