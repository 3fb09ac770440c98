from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sam_suite import contributions
from napari_sam_suite.engine.errors import ParameterError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam_suite.contributions import LayerData


@pytest.mark.parametrize("sample", ["sample_nuclei", "sample_phase", "sample_tissue"])
def test_a_sample_is_an_image_with_its_hidden_truth(sample: str) -> None:
    layers: list[LayerData] = getattr(contributions, sample)()
    (image, image_options, image_type), (labels, label_options, label_type) = layers
    assert (image_type, label_type) == ("image", "labels")
    assert image.shape[:2] == labels.shape == (512, 512)
    assert image_options["rgb"] == (image.ndim == 3)
    assert not label_options["visible"]
    assert labels.max() > 20


def test_napari_opens_a_sample(request: pytest.FixtureRequest) -> None:
    components = pytest.importorskip("napari.components")
    manager = request.getfixturevalue("npe2pm")
    with manager.tmp_plugin(package="napari-sam-suite"):
        viewer = components.ViewerModel()
        layers = viewer.open_sample("napari-sam-suite", "nuclei")
    assert [layer.name for layer in layers] == ["Nuclei", "Nuclei (truth)"]
    assert np.asarray(viewer.layers[1].data).max() > 20


def test_the_stack_has_two_colours_and_named_axes() -> None:
    layers = contributions.sample_stack()
    assert [options["name"] for _, options, _ in layers] == ["Nuclei", "Membranes"]
    for data, options, kind in layers:
        assert kind == "image" and data.shape == (4, 5, 256, 256)
        assert options["axis_labels"] == ("t", "z", "y", "x")
        assert data.std() > 0


def test_a_real_image_comes_with_scikit_image() -> None:
    [(data, options, kind)] = contributions.sample_ihc()
    assert kind == "image" and options["rgb"] and data.shape == (512, 512, 3)


SQUARE = np.array([[1, 2], [1, 9], [8, 9], [8, 2]])


@pytest.mark.parametrize("ending", ["geojson", "json", "nimbus.json", "parquet", "zip"])
def test_napari_saves_and_opens_polygons(
    request: pytest.FixtureRequest, tmp_path: Path, ending: str
) -> None:
    components = pytest.importorskip("napari.components")
    manager = request.getfixturevalue("npe2pm")
    with manager.tmp_plugin(package="napari-sam-suite"):
        viewer = components.ViewerModel()
        layer = viewer.add_shapes(
            [SQUARE, SQUARE + 20],
            shape_type="polygon",
            features={
                "tag": ["cell", "unassigned"],
                "score": [0.5, 0.25],
                "width": [1.5, 2.5],
            },
        )
        path = str(tmp_path / f"cells.{ending}")
        assert layer.save(path, plugin="napari-sam-suite") == [path]
        [read] = viewer.open(path, plugin="napari-sam-suite")
    assert read.features["tag"].tolist() == ["cell", "unassigned"]
    assert read.features["score"].tolist() == [0.5, 0.25]
    assert read.features["width"].tolist() == [1.5, 2.5]
    assert {tuple(v) for v in read.data[0]} == {tuple(v) for v in SQUARE}


@pytest.mark.parametrize("save_rejected", [False, True])
@pytest.mark.parametrize("name", ["geojson", "coco", "nimbus", "parquet", "rois"])
def test_rejected_objects_are_saved_only_by_choice(
    tmp_path: Path, name: str, save_rejected: bool
) -> None:
    pytest.importorskip("napari")
    meta = {
        "shape_type": ["polygon"] * 3,
        "features": {"review": ["", "rejected", "accepted"]},
        "metadata": {"napari-sam-suite": {"save_rejected": save_rejected}},
    }
    path = str(tmp_path / "a.zip")
    write = getattr(contributions, f"write_{name}")
    write(path, [SQUARE, SQUARE + 20, SQUARE + 40], meta)
    [(data, options, _)] = contributions._reader(path, name, (".zip",))(path)
    assert len(data) == 2 + save_rejected
    kept = ["", "rejected", "accepted"] if save_rejected else ["", "accepted"]
    assert options["features"]["review"].tolist() == kept


def test_a_saved_layer_knows_its_image(tmp_path: Path) -> None:
    pytest.importorskip("napari")
    sizes = {"position": 1, "time": 1, "z": 1, "channel": 1, "y": 30, "x": 40}
    run = {"image": {"name": "cells", "path": "/data/cells.tif", "sizes": sizes}}
    meta = {"metadata": {"napari-sam-suite": {"runs": {"r1": run}}}}
    contributions.write_coco(str(tmp_path / "a.json"), [SQUARE], meta)
    [image] = json.loads((tmp_path / "a.json").read_text())["images"]
    assert (image["file_name"], image["height"]) == ("cells.tif", 30)


def test_a_saved_layer_knows_whether_its_image_is_coloured(tmp_path: Path) -> None:
    pytest.importorskip("napari")
    roifile = pytest.importorskip("roifile")
    sizes = {"position": 1, "time": 1, "z": 5, "channel": 3, "y": 30, "x": 40}
    outline = np.insert(SQUARE, 0, 2, axis=1)
    for number, rgb in enumerate((False, True)):
        run = {"image": {"name": "cells", "sizes": sizes, "rgb": rgb}}
        about = {"axes": "ZYX", "runs": {"r1": run}}
        path = str(tmp_path / f"{number}.zip")
        meta = {"metadata": {"napari-sam-suite": about}}
        contributions.write_rois(path, [outline], meta)
        [roi] = roifile.roiread(path)
        assert (roi.position, roi.z_position) == ((3, 0) if rgb else (0, 3))


def test_what_was_opened_is_saved_with_the_source_that_it_had(tmp_path: Path) -> None:
    pytest.importorskip("napari")
    from shapely import Polygon

    from napari_sam_suite.engine import FrameIndex, Objects

    sizes = {"position": 1, "time": 1, "z": 3, "channel": 1, "y": 30, "x": 40}
    source = {"image": "cells", "sizes": sizes, "scale": [2.0, 0.5, 0.5], "units": "um"}
    objects = Objects([Polygon(SQUARE)], source=source)
    objects.with_searched([FrameIndex(0, 0, 2)]).save(tmp_path / "a.geojson")
    path = str(tmp_path / "a.geojson")
    reader = contributions.read_geojson(path)
    assert reader is not None
    [(data, meta, _)] = reader(path)
    contributions.write_parquet(str(tmp_path / "b.parquet"), data, meta)
    before, after = Objects.load(path), Objects.load(tmp_path / "b.parquet")
    assert after.source == before.source | {"saved_from": "napari"}
    assert after.searched() == [FrameIndex(), FrameIndex(0, 0, 2)]


def test_files_of_another_kind_are_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"type": "Topology"}')
    (tmp_path / "d.json").write_text("no json")
    (tmp_path / "b.zip").write_bytes(b"no zip")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as file:
        file.writestr("a.txt", "hello")
    assert contributions.read_json(str(tmp_path / "a.json")) is None
    assert contributions.read_json(str(tmp_path / "d.json")) is None
    assert contributions.read_json(str(tmp_path / "none.json")) is None
    assert contributions.read_rois(str(tmp_path / "b.zip")) is None
    assert contributions.read_rois(str(tmp_path / "c.zip")) is None
    assert contributions.read_geojson(str(tmp_path / "a.tif")) is None


def test_json_is_read_by_what_is_in_it(tmp_path: Path) -> None:
    pytest.importorskip("napari")
    for name in ("geojson", "coco", "nimbus"):
        path = str(tmp_path / "a.json")
        getattr(contributions, f"write_{name}")(path, [SQUARE], {})
        reader = contributions.read_json(path)
        assert reader is not None
        # Parsed once: what becomes of the file meanwhile does not matter.
        (tmp_path / "a.json").unlink()
        [(data, _, kind)] = reader(path)
        assert (len(data), kind) == (1, "shapes")


def test_a_damaged_zip_is_one_sentence_when_it_is_read(tmp_path: Path) -> None:
    good = tmp_path / "a.zip"
    with zipfile.ZipFile(good, "w") as file:
        file.writestr("a.roi", "hello")
    whole = good.read_bytes()
    good.write_bytes(whole[:-22].replace(b"PK\x01\x02", b"PK\x00\x00") + whole[-22:])
    reader = contributions.read_rois(str(good))
    assert reader is not None
    with pytest.raises(ParameterError, match=r"a\.zip cannot be read as ImageJ ROIs"):
        reader(str(good))


def test_the_preferences_decide_the_device_and_the_folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("napari")
    request.getfixturevalue("plugin_settings")
    manager = request.getfixturevalue("npe2pm")
    monkeypatch.delenv("NAPARI_SAM_SUITE_CHECKPOINTS", raising=False)
    from napari.settings import get_plugin_settings

    from napari_sam_suite.widgets.settings import preferences

    with manager.tmp_plugin(package="napari-sam-suite"):
        assert preferences().device == "auto"
        page = get_plugin_settings("napari-sam-suite").engine
        page.device = "cpu"
        page.checkpoint_dir = str(tmp_path)
        assert preferences() == ("cpu", tmp_path, 2**29)
        with pytest.raises(ValueError, match="device"):
            page.device = "abacus"


def test_the_preferences_decide_the_autosave_and_the_cache(
    request: pytest.FixtureRequest,
) -> None:
    pytest.importorskip("napari")
    request.getfixturevalue("plugin_settings")
    manager = request.getfixturevalue("npe2pm")
    from napari.settings import get_plugin_settings

    from napari_sam_suite.widgets.settings import autosave_wanted, preferences

    with manager.tmp_plugin(package="napari-sam-suite"):
        assert autosave_wanted() and preferences().cache_bytes == 2**29
        page = get_plugin_settings("napari-sam-suite").engine
        page.autosave = False
        page.cache_mb = 3
        assert not autosave_wanted()
        assert preferences().cache_bytes == 3 * 2**20
        with pytest.raises(ValueError, match="cache_mb"):
            page.cache_mb = -1
