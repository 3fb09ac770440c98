from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from napari_sam_suite.cli.fewshot import read_examples
from napari_sam_suite.engine.errors import ImageError, ParameterError
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path

LABELS = np.zeros((32, 40), np.uint16)
LABELS[2:9, 3:12], LABELS[12:30, 20:33] = 3, 7


def save(path: Path, kind: str) -> Path:
    if kind == "16":
        labels = LABELS.copy()
        labels[labels == 7] = 700
        Image.fromarray(labels).save(path)
        return path
    picture = Image.fromarray(LABELS.astype(np.uint8))
    if kind == "palette":
        picture.putpalette(list(range(24)))
    picture.save(path)
    return path


@pytest.mark.parametrize("kind", ["8", "16", "palette"])
def test_labels_are_examples(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path / "examples.png", kind)
    objects = Objects.load(path)
    assert objects.features["label"].tolist() == [3, 700 if kind == "16" else 7]
    assert objects.features["area"].tolist() == [63, 234]
    examples = read_examples(path, open_image(np.zeros((32, 40))), ["cell"], [])
    assert examples.objects.features["tag"].tolist() == ["cell", "cell"]


def test_examples_of_another_size_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "examples.png", "8")
    with pytest.raises(ParameterError, match="32 x 40"):
        read_examples(path, open_image(np.zeros((40, 40))), ["cell"], [])


def test_what_is_no_label_image_is_said(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png is a colour picture"):
        Objects.load(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ImageError, match="empty"):
        Objects.load(tmp_path / "a.png")


def test_labels_are_not_written_as_png(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="not written as PNG"):
        Objects.from_labels(LABELS).save(tmp_path / "a.png")
