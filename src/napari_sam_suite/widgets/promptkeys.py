"""What the keys of the Prompt tab do, each on a button of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QPushButton, QWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FIRST = "Click an object in the image first."
_KEYS = {
    "commit": (
        "Add to results",
        "Enter",
        "Put what is outlined into the results.",
        _FIRST,
    ),
    "next": (
        "Next object",
        "N",
        "Keep this outline, and begin another object.",
        _FIRST,
    ),
    "undo": (
        "Undo",
        "Z",
        "Take back the last click, box, Next, Clear or Add to results (also Ctrl+Z).",
        "There is nothing to take back.",
    ),
    "redo": ("Redo", "Y", "Do again what was taken back.", "Nothing was taken back."),
    "cycle": (
        "Other answer",
        "X",
        "Show another of the three answers.",
        "Click an object first; a click has three answers.",
    ),
    "clear": (
        "Clear",
        "Escape",
        "Forget all clicks and outlines.",
        "There are no clicks and outlines.",
    ),
}
"""Of each: what it is called, its key, what it does, and why it does nothing now."""

_ALSO = {"Control-Z": "undo", "Control-Shift-Z": "redo"}
"""Keys that have a meaning of their own in layers with tags."""


class Keys(QWidget):
    """The buttons, in two columns.

    Parameters
    ----------
    actions : object
        Has a method of the name of each.

    Attributes
    ----------
    buttons : dict of str to QPushButton
        By name.
    bound : dict of str to callable
        What each key does.
    also : dict of str to callable
        What keys do that a layer may have for itself.
    """

    def __init__(self, actions: object) -> None:
        super().__init__()
        self.buttons: dict[str, QPushButton] = {}
        self.bound: dict[str, Callable[[], None]] = {}
        self.also = {key: getattr(actions, name) for key, name in _ALSO.items()}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        for place, (name, (text, key, _, _)) in enumerate(_KEYS.items()):
            action = getattr(actions, name)
            self.bound[key] = action
            button = self.buttons[name] = QPushButton(f"{text}  ({key})")
            button.clicked.connect(lambda _=False, do=action: do())
            grid.addWidget(button, *divmod(place, 2))

    def allow(self, ready: Mapping[str, bool]) -> None:
        """Let only these be pressed; the others say why not."""
        for name, button in self.buttons.items():
            button.setEnabled(ready[name])
            button.setToolTip(_KEYS[name][2 if ready[name] else 3])
