"""A run written down: what the panel records, the command line runs, a cluster repeats.

A recipe is one JSON file. Names of files in it are relative to its folder, frames are
counted from 1. What it does not know, it refuses by name.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationError

from napari_sam_suite.engine.composite import Composite
from napari_sam_suite.engine.errors import OutputError, ParameterError
from napari_sam_suite.engine.formats.atomic import replacing
from napari_sam_suite.engine.formats.jsonfile import parse_json
from napari_sam_suite.engine.recipe_parts import (
    Auto,
    Capability,
    FewShot,
    Frames,
    Model,
    Nested,
    Outputs,
    Prompted,
    Propagate,
    Source,
)
from napari_sam_suite.engine.recorded import Recorded
from napari_sam_suite.engine.store.place import is_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

__all__ = [
    "Auto",
    "Capability",
    "FewShot",
    "Frames",
    "Model",
    "Nested",
    "Outputs",
    "Prompted",
    "Propagate",
    "Recipe",
    "Source",
    "first_difference",
]

VERSION: Literal[1] = 1
_CORRECT = "Correct it in an editor."


class Recipe(Recorded):
    """Everything that decides what a run finds, and where it puts it.

    Raises
    ------
    ParameterError
        If a key is unknown or a value makes no sense; it names it.

    Examples
    --------
    >>> recipe = Recipe(source=Source(images=("cells.tif",)))
    >>> recipe.capability.name
    'auto'
    """

    recipe: Literal[1] = VERSION
    source: Source = Field(default_factory=Source)
    composite: Composite | None = None
    frames: Frames = Field(default_factory=Frames)
    model: Model = Field(default_factory=Model)
    capability: Capability = Field(default_factory=Auto)
    outputs: Outputs = Field(default_factory=Outputs)

    def __init__(self, **values: Any) -> None:
        version = values.get("recipe", VERSION)
        if isinstance(version, int) and version > VERSION:
            raise ParameterError(
                f"This recipe is of version {version}, and only version {VERSION} is "
                "known here.",
                "Update napari-sam-suite.",
            )
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _explain(error) from error

    @classmethod
    def parse(cls, text: str, folder: Path | None = None) -> Self:
        """Read a recipe from JSON.

        Parameters
        ----------
        text : str
            A JSON object.
        folder : Path, optional
            What names of files are relative to; left as they are without it.

        Raises
        ------
        ParameterError
            If it is no recipe; the key at fault is named.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ParameterError(
                f"The recipe is not valid JSON: {error}.", _CORRECT
            ) from error
        return cls._of(values, folder)

    @classmethod
    def _of(cls, values: Any, folder: Path | None) -> Self:
        if not isinstance(values, dict) or "recipe" not in values:
            raise ParameterError(
                "This is JSON, but no recipe.",
                f'A recipe is an object with the key "recipe": {VERSION}.',
            )
        recipe = cls(**values)
        return recipe if folder is None else recipe.placed(folder)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a recipe from a file; names of files become absolute.

        Raises
        ------
        ParameterError
            If the file is missing or no recipe.
        """
        path = Path(path)
        values = parse_json(path, _CORRECT)
        try:
            return cls._of(values, path.resolve().parent)
        except ParameterError as error:
            raise ParameterError(f"{path.name}: {error.message}", error.hint) from error

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        path = Path(path)
        if path.is_dir():
            raise OutputError(f"{path} is a folder.", "Give a name such as run.json.")
        with replacing(path) as part:
            part.write_text(self.text(), encoding="utf-8")

    def text(self) -> str:
        """As JSON, with what is short in one line."""
        body = self.model_dump(mode="json", exclude_none=True)
        return _spread(body) + "\n"

    def placed(self, folder: Path) -> Self:
        """A copy in which names of files are absolute, as seen from `folder`."""

        def place(name: str) -> str:
            if not name or is_url(name):
                return name
            return str(folder / Path(name).expanduser())

        source, outputs, model = self.source, self.outputs, self.model
        capability = self.capability
        if isinstance(capability, FewShot):
            capability = _changed(capability, place, "image", "prototypes")
        local = model.id.endswith((".pt", ".pth", ".safetensors", ".onnx"))
        return self.model_copy(
            update={
                "source": source.model_copy(
                    update={"images": tuple(map(place, source.images))}
                ),
                "outputs": _changed(outputs, place, "store", "folder"),
                "model": _changed(model, place, "folder", *(["id"] * local)),
                "capability": capability,
            }
        )

    def changed(self, **parts: Mapping[str, Any]) -> Self:
        """A copy with some values of some parts changed, checked like a new one."""
        body = self.model_dump(mode="json")
        for name, values in parts.items():
            body[name] |= values
        return type(self)(**body)

    def essence(self) -> dict[str, Any]:
        """What decides the results: two recipes that agree in it find the same."""
        body = self.model_dump(mode="json", exclude={"outputs"})
        body["source"].pop("layers")
        for name in ("device", "folder"):
            body["model"].pop(name)
        return body

    @property
    def digest(self) -> str:
        """Of the essence: 16 hexadecimal digits."""
        text = json.dumps(self.essence(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def first_difference(one: Recipe, other: Recipe) -> str:
    """The first key in which two recipes find other things, or an empty text."""

    def look(a: Any, b: Any, at: str) -> str:
        if isinstance(a, dict) and isinstance(b, dict):
            for key in a | b:
                found = look(a.get(key), b.get(key), f"{at}.{key}" if at else key)
                if found:
                    return found
            return ""
        return "" if a == b else at

    return look(one.essence(), other.essence(), "")


def _changed(part: Any, place: Any, *names: str) -> Any:
    update = {n: place(value) for n in names if (value := getattr(part, n))}
    return part.model_copy(update=update)


def _spread(value: Any, indent: str = "") -> str:
    """JSON with one line per key, and lists in one line where they are short."""
    flat = json.dumps(value)
    if not isinstance(value, dict | list) or len(flat) + len(indent) <= 80:
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        rows = [f"{json.dumps(k)}: {_spread(v, inner)}" for k, v in value.items()]
        opening, closing = "{", "}"
    else:
        rows = [_spread(v, inner) for v in value]
        opening, closing = "[", "]"
    body = f",\n{inner}".join(rows)
    return f"{opening}\n{inner}{body}\n{indent}{closing}"


def _explain(error: ValidationError) -> ParameterError:
    """The first mistake, by the key that it is at."""
    first = error.errors(include_url=False)[0]
    names = [str(part) for part in first["loc"]]
    # The kind of a capability is in its place, as pydantic numbers them.
    if names[:1] == ["capability"] and len(names) > 1:
        names.pop(1)
    key = ".".join(names) or "The recipe"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return ParameterError(
            f"A recipe has no key {key!r}.", "Correct its name, or leave it out."
        )
    if first["type"] == "union_tag_not_found":
        key = f"{key}.name"
    if first["type"] in ("missing", "union_tag_not_found"):
        return ParameterError(f"The recipe lacks {key!r}.", "Add it.")
    if first["type"] == "union_tag_invalid":
        return ParameterError(
            f"The recipe's '{key}.name' cannot be {first['ctx']['tag']!r}.",
            f"It should be one of {first['ctx']['expected_tags']}.",
        )
    if first["type"] == "value_error":
        return ParameterError(f"The recipe's {key!r}: {message}.", "Correct it.")
    return ParameterError(
        f"The recipe's {key!r} cannot be {_short(first['input'])}.",
        f"It should {_wanted(first, message)}.",
    )


def _wanted(first: ErrorDetails, message: str) -> str:
    """What a value should be, in the words of JSON."""
    if first["type"] == "too_short":
        return f"have at least {first['ctx']['min_length']}"
    if first["type"] in ("tuple_type", "list_type"):
        return "be a list"
    if first["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "be an object in braces"
    return message.removeprefix("Input should ")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."
