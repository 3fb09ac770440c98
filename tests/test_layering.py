from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import napari_sam_suite

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(napari_sam_suite.__file__).parent
NAME = PACKAGE.name
SCREEN = {"napari", "qtpy", "magicgui", "superqt", "PyQt6", "PySide6", "PyQt5"}
HEAVY = {"torch", "torchvision", "sam2", "segment_anything"}
ENGINE = sorted((PACKAGE / "engine").rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield str(node.module)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", [NAME, f"{NAME}.engine", f"{NAME}.cli.app"])
def test_importing_the_doors_loads_neither_torch_nor_qt(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in answer.stdout.split()}
    assert not loaded & (SCREEN | HEAVY)


def test_every_public_name_of_the_engine_is_there() -> None:
    public = import_module(f"{NAME}.engine")
    assert {"Prompt", "PromptParams", "PropagateParams"} < set(public.__all__)
    assert {"start_prompts", "start_propagate", "from_points"} < set(public.__all__)
    for name in public.__all__:
        assert getattr(public, name) is not None
    assert set(public._WHERE) == set(public.__all__)


def test_the_engine_has_modules() -> None:
    assert len(ENGINE) > 10


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.stem)
def test_the_engine_knows_nothing_of_napari_qt_or_the_doors(path: Path) -> None:
    for name in imports(parsed(path)):
        assert name.split(".")[0] not in SCREEN
        if name.startswith(NAME):
            assert name == NAME or name.startswith(f"{NAME}.engine"), name


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "engine" / "models").rglob("*.py")), ids=lambda p: p.stem
)
def test_the_models_know_nothing_of_what_is_done_with_them(path: Path) -> None:
    allowed = (f"{NAME}.engine.models", f"{NAME}.engine.errors")
    for name in imports(parsed(path)):
        assert not name.startswith(NAME) or name.startswith(allowed), name


@pytest.mark.parametrize(
    "path",
    sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("cli/*.py")]),
    ids=lambda path: path.stem,
)
def test_the_doors_load_napari_only_when_called(path: Path) -> None:
    at_import = [
        node
        for node in parsed(path).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = {name.split(".")[0] for node in at_import for name in imports(node)}
    assert not names & SCREEN
