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
)

from napari_sam_suite.engine.errors import Cancelled, EngineError
from napari_sam_suite.widgets.ahead import Ahead
from napari_sam_suite.widgets.bridge import Bridge
from napari_sam_suite.widgets.pointing import OUTSIDE, Pointing, Sketch
from napari_sam_suite.widgets.runner import WAIT
from napari_sam_suite.widgets.tab import Tab
from napari_sam_suite.widgets.turns import Turn, Turns, as_json, outlines

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from qtpy.QtGui import QHideEvent, QShowEvent

    from napari_sam_suite.engine.jobs import Job
    from napari_sam_suite.engine.prompts.interactive import Interactive, Suggestion
    from napari_sam_suite.engine.prompts.prompt import Prompt
    from napari_sam_suite.widgets.layers import Picture
    from napari_sam_suite.widgets.tab import Parts, State

_SOON = 150  # ms without a change after which a frame is prepared
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
        self.buttons: dict[str, QPushButton] = {}
        actions = {name: getattr(self, name) for name in _KEYS}
        for name, (text, key, tip) in _KEYS.items():
            self.buttons[name] = QPushButton(f"{text}  ({key})")
            self.buttons[name].setToolTip(tip)
            self.buttons[name].clicked.connect(lambda _=False, do=actions[name]: do())
        keys = {key: actions[name] for name, (_, key, _tip) in _KEYS.items()}
        self.pointing = Pointing(parts.viewer, keys, self)
        self.sketch = Sketch(parts.viewer)
        self.turns = Turns()
        self._picture: Picture | None = None
        self._ahead = Ahead(parts.models, parts.session, self)
        self._known: tuple[Any, ...] = ()
        self._ready_for: tuple[Any, ...] = ()
        self._answers = Bridge(self)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_SOON)
        self._lay_out()
        self._connect()
        self._show()

    def _lay_out(self) -> None:
        hint = QLabel(_HINT)
        hint.setWordWrap(True)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Tag", self.tag)
        grid = QGridLayout()
        for place, name in enumerate(_KEYS):
            grid.addWidget(self.buttons[name], *divmod(place, 2))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 10, 6, 6)
        layout.addWidget(hint)
        layout.addWidget(self.point)
        layout.addLayout(form)
        layout.addLayout(grid)
        layout.addWidget(self.state)
        layout.addStretch(1)

    def _connect(self) -> None:
        self.point.toggled.connect(self.refresh)
        self.pointing.pointed.connect(self._click)
        self.pointing.stretching.connect(self._stretch)
        self.pointing.boxed.connect(self._box)
        self._answers.finished.connect(self._answered)
        self._ahead.said.connect(self.state.setText)
        self._ahead.failed.connect(self.failed)
        self._ahead.ready.connect(self._prepared)
        self._soon.timeout.connect(self._prepare)

    def show_state(self, state: State) -> None:
        """Begin anew, if what is looked at or by which model is another one."""
        now = self._looks(state.picture)
        if now != self._known:
            self._known = now
            self._ahead.forget()
            self.turns.clear()
            self.sketch.clear()
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
        if self._viewer.dims.ndisplay != 2:
            return "Prompts need the 2-D view."
        return self._models.why_not()

    def _looks(self, picture: Picture | None) -> tuple[Any, ...]:
        """What tells one image, as it is shown, and model from another."""
        if picture is None:
            return ()
        pixels = [(id(layer), id(layer.data)) for layer in self._images.layers()]
        return (*pixels, picture.letters, picture.composite, self._models.spec.id)

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

    # -- the frame in view -------------------------------------------------------

    def _prepare(self) -> None:
        picture = self._picture
        if picture is None or not self.pointing.on or self.parts.runner.busy:
            return
        frame, _ = self._images.frame()
        self._ready_for = (self._known, frame)
        center = np.array(self._viewer.scene.camera.center)
        self._ahead.prepare(picture, frame, self._clip(self._to_image(center)))

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
        from napari_sam_suite.engine.prompts.prompt import Prompt

        frame, _ = self._images.frame()
        self.turns.stay_in(frame)
        return self.turns.last or Turn(Prompt(), frame)

    # -- questions and answers ---------------------------------------------------

    def _ask(self, prompt: Prompt) -> None:
        if self.parts.runner.busy:
            self.said.emit(WAIT)
            return
        self.turns.add(Turn(prompt, self._before().frame))
        self._show()
        self._ask_newest()

    def _ask_newest(self) -> None:
        """Have the newest turn answered, if it has not been."""
        self._answers.drop()  # what comes now would be taken for its answer
        turn, picture = self.turns.last, self._picture
        if turn is None or turn.answered or picture is None or self.parts.runner.busy:
            return

        def begin(interactive: Interactive) -> None:
            if turn is self.turns.last:
                before = self.turns.before
                known = None if before is None else before.suggestion
                after = None if known is None else known.answer
                self._answers.follow(
                    interactive.ask(turn.prompt, turn.frame, after=after)
                )

        self._ahead.reach(picture, begin)

    def _answered(self, job: Job[list[Suggestion]]) -> None:
        turn = self.turns.last
        if isinstance(job.error, Cancelled) or turn is None:
            return
        if job.error is not None:
            self.turns.drop()
            self.failed.emit(job.error)
            self._ask_newest()
        else:
            turn.answered = True
            turn.found = found = [s for s in job.result() if s.polygon is not None]
            if not found:
                self.said.emit("There is nothing; click elsewhere, or drag a box.")
        self._show()

    def _show(self) -> None:
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
        now = None if turn is None else outlines([turn])
        self.sketch.show(picture, frame, prompt, now, outlines(self.turns.kept))

    # -- buttons and keys --------------------------------------------------------

    def undo(self) -> None:
        """Take the last click or box back."""
        self.turns.undo()
        self._show()
        self._ask_newest()

    def redo(self) -> None:
        """Do again what was taken back."""
        self.turns.redo()
        self._show()
        self._ask_newest()

    def clear(self) -> None:
        """Forget all clicks and outlines."""
        self._answers.drop()
        self.turns.clear()
        self._show()

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
        interactive, picture = self._ahead.interactive, self._picture
        kept = self.turns.kept
        if not kept or interactive is None or picture is None:
            return
        from napari_sam_suite.engine.losses import Losses
        from napari_sam_suite.engine.run import FrameResult

        self.turns.clear()
        run = self._results.begin(picture, self._recipe(picture, kept), "add")
        for turn in kept:
            if turn.suggestion is not None:
                answer = turn.suggestion.answer
                objects = interactive.objects(turn.prompt, answer, turn.frame)
                self._results.add(run, FrameResult(turn.frame, objects, Losses()))
        self._results.finish(run)
        what = "1 object" if len(kept) == 1 else f"{len(kept)} objects"
        self.said.emit(f"Added {what}.")
        self._show()
        self._show_tags()

    def _tag(self) -> str:
        from napari_sam_suite.engine.features import UNASSIGNED

        return self.tag.currentText().strip() or UNASSIGNED

    def _recipe(self, picture: Picture, kept: list[Turn]) -> dict[str, Any]:
        from napari_sam_suite.engine.prompts.params import PromptParams

        frames = list(dict.fromkeys(turn.frame for turn in kept))
        found = self.parts.recipe(picture, PromptParams(), frames)
        return {**found, "capability": "prompt", "prompts": as_json(kept)}
