"""The page in a real browser, against the engine."""

from __future__ import annotations

import base64
import json
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen
from uuid import UUID

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from engine.guides import PLACES, discs, perfect_guide
from engine.onnx.conftest import TISSUE
from napari_sam_suite.engine import (
    Engine,
    Objects,
    PromptParams,
    from_boxes,
    from_points,
)
from napari_sam_suite.engine.composite import compose
from napari_sam_suite.engine.errors import MissingExtra, OutputError
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.guidance import Guidance
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.models.protocol import Decoded, Embedding, Prompts
from napari_sam_suite.engine.onnx.page import (
    PAGE,
    RUNTIME_FILES,
    find_runtime,
    write_page,
)
from napari_sam_suite.engine.onnx.serve import serving
from napari_sam_suite.engine.prompts.finder import start_prompts
from napari_sam_suite.engine.synthetic.scene import synthesize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shapely import Polygon

    from napari_sam_suite.engine.image import ImageSource
    from napari_sam_suite.engine.onnx.export import Exported

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PLAIN = "plain.test"  # this machine under a name that browsers do not trust
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    f"--host-resolver-rules=MAP {PLAIN} 127.0.0.1",
]
CLICKS = [(y, x) for y in range(45, 300, 70) for x in range(45, 400, 75)]
PATIENCE = 120_000  # ms, for a machine that is busy

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ,
    reason="Chromium is not installed: scripts/setup.sh test does it",
)


@pytest.fixture(scope="module")
def site(exported: Exported, runtime: Path) -> Iterator[str]:
    """Address of the page beside the exported model."""
    write_page(exported.folder, runtime)
    with serving(exported.folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "tissue.png"
    Image.fromarray(TISSUE).save(path)
    return path


@contextmanager
def opened(browser: Any, address: str, script: str = "") -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.set_default_timeout(PATIENCE)
    if script:
        page.add_init_script(script)
    page.goto(address)
    yield page
    page.close()


def wait(page: Any, words: str) -> None:
    """Until the page says some words, or what went wrong."""
    page.wait_for_function(
        """words => {
            const status = document.getElementById("status");
            const failed = status.dataset.state === "error";
            return failed || status.textContent.includes(words);
        }""",
        arg=words,
        timeout=PATIENCE,
    )
    told = page.text_content("#status")
    assert words in told, told


def click(page: Any, y: float, x: float) -> None:
    box = page.locator("#canvas").bounding_box()
    page.mouse.click(box["x"] + x + 0.5, box["y"] + y + 0.5)
    wait(page, "Score")


def saved(page: Any, path: Path) -> list[Polygon]:
    """Keep the outline and save it, as a person would; what the engine reads of it."""
    page.click("#accept")
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(path)
    return Objects.load(path).polygons


def iou(a: Polygon, b: Polygon) -> float:
    return a.intersection(b).area / a.union(b).area


@pytest.fixture(scope="module")
def clearest() -> tuple[tuple[int, int], Polygon]:
    """The click that the engine answers best with a fair-sized object of one piece.

    The page has only polygons: of other answers it draws the piece that was clicked.
    """
    return best_of(open_image(TISSUE, axes="YXS", name="tissue"), CLICKS)


def best_of(
    image: ImageSource, clicks: list[tuple[int, int]]
) -> tuple[tuple[int, int], Polygon]:
    with Engine(model="sam2-nano", device="cpu") as engine:
        params = PromptParams(tile="off")
        found = start_prompts(engine, image, from_points(clicks), params).result()
    table = found.features
    whole = np.array([p.geom_type == "Polygon" for p in found.polygons])
    fair = table[whole & table["area"].between(150, 20_000)]
    row = fair["score"].idxmax()
    return clicks[int(table["prompt"][row]) - 1], found.polygons[row]


@needs_chromium
def test_a_click_in_the_browser_gives_the_engines_polygon(
    browser: Any,
    site: str,
    picture: Path,
    clearest: tuple[tuple[int, int], Polygon],
    tmp_path: Path,
) -> None:
    place, expected = clearest
    with opened(browser, site) as page:
        requested = []
        page.on("request", lambda request: requested.append(request.url))
        wait(page, "Open an image")
        page.set_input_files("#file", picture)
        wait(page, "Click on an object")
        click(page, *place)
        (polygon,) = saved(page, tmp_path / "objects.geojson")
    assert iou(polygon, expected) >= 0.95
    assert all(url.startswith((site, "blob:")) for url in requested)


SAID = [
    ([(80.0, 130.0)], [1], None),
    ([(79.0, 130.0)], [1], None),  # in a row that its half pixel decides
    ([(80.0, 130.0), (165.0, 130.0)], [1, 1], None),
    ([(80.0, 130.0), (120.0, 140.0), (20.0, 20.0)], [1, 0, 0], None),
    ([], [], (96.0, 124.0, 163.0, 195.0)),
    ([(150.0, 130.0), (0.0, 0.0)], [0, -1], (90.0, 120.0, 170.0, 203.0)),
]


@needs_chromium
@pytest.mark.parametrize("shape", [(96, 1000), (512, 128)])
@pytest.mark.parametrize(("points", "labels", "box"), SAID)
def test_the_pages_guidance_is_the_engines(
    browser: Any,
    site: str,
    points: list,
    labels: list,
    box: tuple | None,
    shape: tuple[int, int],
) -> None:
    touching = discs((32, 22, 9), (32, 40, 9))
    dice = np.random.default_rng(3)
    guide = perfect_guide(touching) + dice.normal(0, 0.2, (5, PLACES, PLACES))
    logits = dice.normal(0, 2, (1, PLACES, PLACES)).astype(np.float32)
    side = 4 * PLACES
    features = {"guide": guide.astype(np.float32)[None]}
    guidance = Guidance.of(Embedding(features, shape, (side, side)))
    assert guidance is not None
    stretch = np.array(shape) / side

    def placed(frame: np.ndarray) -> np.ndarray:
        """Pixels of the model's input as those of the image, as `toModel` has them."""
        found: np.ndarray = frame * stretch
        return found

    prompts = Prompts(
        placed(np.array(points, float).reshape(1, -1, 2)),
        np.array(labels, int)[None],
        None if box is None else placed(np.reshape(box, (2, 2))).reshape(1, 4),
    )
    answer = Decoded(logits, np.full(1, 0.7, np.float32), *np.zeros((2, 1), int))
    expected = guidance.lean(answer, prompts)
    said = [
        {"y": y, "x": x, "label": label}
        for (y, x), label in zip(points, labels, strict=True)
    ]
    if box is not None:
        corners = [(box[0], box[1], 2), (box[2], box[3], 3)]
        said += [{"y": y, "x": x, "label": label} for y, x, label in corners]
    with opened(browser, site) as page:
        leaned, score = page.evaluate(
            """async ([logits, guide, low, points, [y, x]]) => {
                const { lean, rate } = await import("./guidance.js");
                const perPixel = { y, x };
                const leaned = lean(logits, guide, low, points, perPixel);
                return [Array.from(leaned), rate(leaned, 0.7, guide, low)];
            }""",
            [
                logits.ravel().tolist(),
                guide.ravel().tolist(),
                PLACES,
                said,
                guidance.scale.tolist(),
            ],
        )
    assert np.abs(np.reshape(leaned, logits[0].shape) - expected.logits[0]).max() < 1e-3
    assert score == pytest.approx(float(expected.iou[0]), abs=1e-3)


@needs_chromium
def test_a_smaller_model_draws_the_engines_polygon_too(
    browser: Any,
    smaller: Exported,
    runtime: Path,
    picture: Path,
    clearest: tuple[tuple[int, int], Polygon],
    tmp_path: Path,
) -> None:
    place, expected = clearest
    write_page(smaller.folder, runtime)
    with serving(smaller.folder) as address, opened(browser, address) as page:
        wait(page, "Open an image")
        page.set_input_files("#file", picture)
        wait(page, "Click on an object")
        click(page, *place)
        (polygon,) = saved(page, tmp_path / "objects.geojson")
    assert iou(polygon, expected) >= 0.95


@needs_chromium
@pytest.mark.parametrize(("low", "high"), [(0, 25), (122, 1357)])
def test_a_dim_grey_image_gives_the_engines_polygon(
    browser: Any, site: str, tmp_path: Path, low: int, high: int
) -> None:
    scene = synthesize("nuclei", (256, 256), 3, diameter=36)
    share = (scene.image - scene.image.min()) / np.ptp(scene.image)
    grey = np.rint(low + share * (high - low))
    path = tmp_path / "nuclei.png"
    Image.fromarray(grey.astype(np.uint8 if high < 256 else np.uint16)).save(path)
    ids = range(1, scene.labels.max() + 1)
    middles = ndimage.center_of_mass(scene.labels > 0, scene.labels, ids)
    place, expected = best_of(open_image(path), [(int(y), int(x)) for y, x in middles])
    with opened(browser, site) as page:
        wait(page, "Open an image")
        page.set_input_files("#file", path)
        wait(page, "Click on an object")
        click(page, *place)
        (polygon,) = saved(page, tmp_path / "objects.geojson")
    assert iou(polygon, expected) >= 0.95


def drag(page: Any, *ends: tuple[float, float]) -> None:
    """Draw a box from one (y, x) to another, which may be beyond the canvas."""
    box = page.locator("#canvas").bounding_box()
    places = [(box["x"] + x + 0.5, box["y"] + y + 0.5) for y, x in ends]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1])
    page.mouse.up()


@needs_chromium
def test_a_box_beyond_the_edge_is_cut_there(
    browser: Any, site: str, tmp_path: Path
) -> None:
    scene = synthesize("nuclei", (320, 320), 5, diameter=36)
    inner = np.s_[16:272, 16:272]
    path = tmp_path / "nuclei.png"
    Image.fromarray(scene.image[inner]).save(path)
    boxes = []
    for y, x in filter(None, ndimage.find_objects(scene.labels[inner])):
        first, end = np.array([[y.start, x.start], [y.stop, x.stop]])
        if (end - first).min() > 15 and (first.min() == 0 or end.max() == 256):
            low, high = np.where(first, first, -60), np.where(end < 256, end - 1, 315)
            boxes.append((*low.tolist(), *high.tolist()))
    with Engine(model="sam2-nano", device="cpu") as engine:
        params = PromptParams(tile="off")
        image = open_image(path)
        expected = start_prompts(engine, image, from_boxes(boxes), params).result()
    assert len(expected) == len(boxes) == 4
    with opened(browser, site) as page:
        wait(page, "Open an image")
        page.set_input_files("#file", path)
        wait(page, "Click on an object")
        found = []
        for y0, x0, y1, x1 in boxes:
            start = y0 if y0 >= 0 else y1, x0 if x0 >= 0 else x1
            drag(page, start, (y0 + y1 - start[0], x0 + x1 - start[1]))
            wait(page, "Score")
            found.append(saved(page, tmp_path / "objects.geojson")[-1])
    ious = [iou(*pair) for pair in zip(found, expected.polygons, strict=True)]
    assert min(ious) >= 0.95


@needs_chromium
def test_a_box_that_is_too_small_is_told(
    browser: Any, site: str, picture: Path
) -> None:
    with opened(browser, site) as page:
        wait(page, "Open an image")
        page.set_input_files("#file", picture)
        wait(page, "Click on an object")
        for ends in [(50, 60), (50, 90)], [(50, 399.2), (90, 460)]:
            drag(page, *ends)
            with pytest.raises(AssertionError, match="box is too small"):
                wait(page, "Score")
            assert page.is_disabled("#undo")
            click(page, *CLICKS[6])
            page.click("#clear")


@needs_chromium
def test_a_picture_that_could_not_be_encoded_is_not_asked_of_the_one_before(
    browser: Any, site: str, picture: Path
) -> None:
    with opened(browser, site) as page:
        wait(page, "Open an image")
        page.set_input_files("#file", picture)
        wait(page, "Click on an object")
        click(page, *CLICKS[6])
        page.evaluate(
            """() => Object.defineProperty(
                document.getElementById("convention"), "value", {
                    get() { throw new Error("no room"); },
                    configurable: true,
                })"""
        )
        page.set_input_files("#file", picture)
        with pytest.raises(AssertionError, match="Something failed: Error: no room"):
            wait(page, "Click on an object")
        page.evaluate("() => delete document.getElementById('convention').value")
        page.locator("#canvas").click()
        assert page.is_disabled("#undo")
        page.select_option("#convention", "aspect")
        wait(page, "Encoded in")
        assert page.is_disabled("#accept")
        click(page, *CLICKS[6])


@needs_chromium
def test_an_answer_to_what_was_cleared_meanwhile_is_not_drawn(
    browser: Any, site: str, picture: Path
) -> None:
    with opened(browser, site) as page:
        wait(page, "Open an image")
        page.set_input_files("#file", picture)
        wait(page, "Click on an object")
        page.evaluate(
            """() => {
                const status = document.getElementById("status");
                new MutationObserver((_, observer) => {
                    if (status.textContent !== "Drawing.") return;
                    observer.disconnect();
                    document.getElementById("clear").click();
                }).observe(status, { childList: true });
            }"""
        )
        y, x = CLICKS[6]
        page.locator("#canvas").click(position={"x": x, "y": y})
        page.select_option("#convention", "aspect")
        wait(page, "Encoded in")
        assert page.is_disabled("#undo")
        assert page.is_disabled("#accept")


READ = """async ([name, text]) => {
    const { readPicture } = await import("./image.js");
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    try {
        const found = await readPicture(new File([bytes], name));
        return { shape: [found.height, found.width, 4], values: [...found.pixels] };
    } catch (error) {
        return { told: error.message };
    }
}"""


def read_by_the_page(page: Any, path: Path) -> Any:
    text = base64.b64encode(path.read_bytes()).decode()
    return page.evaluate(READ, [path.name, text])


@needs_chromium
def test_the_page_sees_what_the_engine_sees(
    browser: Any, site: str, tmp_path: Path
) -> None:
    grey = synthesize("nuclei", (61, 47), 1, diameter=12).image // 3
    deep = grey.astype(np.uint16) * 7 + 300
    wide = np.full((1100, 1200), 40, np.uint16)
    wide[::5, ::3] = np.arange(400)
    sparse = np.zeros_like(grey)
    sparse[3, 4:6] = 9, 5
    pictures = {
        "grey.png": grey,
        "deep.png": deep,
        "wide.png": wide,
        "sparse.png": sparse,
        "even.png": np.full_like(deep, 700),
        "alpha.png": np.stack([grey, np.where(grey > 20, 0, 128)], -1).astype("u1"),
        "colours.png": np.stack([grey] * 3, -1),
        "bits.png": grey > 30,
        "grey.jpg": grey,
    }
    with opened(browser, site) as page:
        for name, pixels in pictures.items():
            path = tmp_path / name
            Image.fromarray(pixels).save(path)
            found = read_by_the_page(page, path)
            seen = np.array(found["values"], np.uint8).reshape(found["shape"])
            expected = compose(open_image(path).frame(FrameIndex()))
            gap = np.abs(seen[..., :3].astype(int) - expected)
            assert gap.max() <= (8 if path.suffix == ".jpg" else 1), name


@needs_chromium
def test_a_picture_that_would_lose_bits_is_refused(
    browser: Any, site: str, tmp_path: Path
) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(path)
    whole = path.read_bytes()
    with opened(browser, site) as page:
        for place, value, words in (
            (25, 2, "colours of 16 bits"),
            (28, 1, "without interlacing"),
        ):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            assert words in read_by_the_page(page, path)["told"]
        wait(page, "Open an image")
        page.set_input_files("#file", path)
        with pytest.raises(AssertionError, match=r"deep\.png is interlaced"):
            wait(page, "Click on an object")


@needs_chromium
def test_work_is_saved_on_a_server_without_encryption_too(
    browser: Any, site: str, picture: Path, tmp_path: Path
) -> None:
    path = tmp_path / "objects.geojson"
    with opened(browser, site.replace("127.0.0.1", PLAIN)) as page:
        assert not page.evaluate("isSecureContext")
        wait(page, "Open an image")
        page.set_input_files("#file", picture)
        wait(page, "Click on an object")
        for place in CLICKS[6], CLICKS[8]:
            click(page, *place)
            found = saved(page, path)
    ids = {UUID(f["id"]) for f in json.loads(path.read_text())["features"]}
    assert len(found) == len(ids) == 2
    assert {one.version for one in ids} == {4}


@needs_chromium
def test_what_fails_when_a_button_is_pressed_is_told(
    browser: Any, site: str, picture: Path
) -> None:
    full = "URL.createObjectURL = () => { throw new Error('no room'); }"
    with opened(browser, site, full) as page:
        wait(page, "Open an image")
        page.set_input_files("#file", picture)
        wait(page, "Click on an object")
        click(page, *CLICKS[6])
        page.click("#accept")
        page.click("#save")
        with pytest.raises(AssertionError, match="Something failed: Error: no room"):
            wait(page, "nothing at all")


@needs_chromium
def test_a_page_without_its_files_says_which(
    browser: Any, exported: Exported, tmp_path: Path
) -> None:
    shutil.copytree(PAGE, tmp_path, dirs_exist_ok=True)
    for name, words in (("", "no model beside"), ("model.json", "onnxruntime-web")):
        if name:
            shutil.copy(exported.folder / name, tmp_path)
        with (
            serving(tmp_path) as address,
            opened(browser, address) as page,
            pytest.raises(AssertionError) as told,
        ):
            wait(page, "Open an image")
        assert words in str(told.value)


@needs_chromium
def test_a_half_that_is_missing_is_named(
    browser: Any, exported: Exported, runtime: Path, tmp_path: Path
) -> None:
    write_page(tmp_path, runtime)
    for name in ("model.json", "encoder.ort"):
        shutil.copy(exported.folder / name, tmp_path)
    with (
        serving(tmp_path) as address,
        opened(browser, address) as page,
        pytest.raises(AssertionError) as told,
    ):
        wait(page, "Open an image")
    assert "decoder.ort cannot be loaded" in str(told.value)


@needs_chromium
def test_the_image_may_be_scaled_as_in_nimbusimage(
    browser: Any, site: str, picture: Path, tmp_path: Path
) -> None:
    with opened(browser, site) as page:
        wait(page, "Open an image")
        page.select_option("#convention", "aspect")
        page.set_input_files("#file", picture)
        wait(page, "Click on an object")
        drag(page, (60, 200), (130, 290))
        wait(page, "Score")
        (polygon,) = saved(page, tmp_path / "objects.geojson")
    x0, y0, x1, y1 = polygon.bounds
    assert -1 <= x0 < x1 <= 400 and -1 <= y0 < y1 <= 300
    assert polygon.is_valid


@needs_chromium
def test_what_is_wrong_is_said_in_a_sentence(
    browser: Any, site: str, exported: Exported, runtime: Path, tmp_path: Path
) -> None:
    old = "WebAssembly.validate = () => false"
    with opened(browser, site, old) as page, pytest.raises(AssertionError) as told:
        wait(page, "Open an image")
    assert "This browser cannot compute fast enough" in str(told.value)
    write_page(tmp_path, runtime)
    shutil.copy(exported.folder / "model.json", tmp_path)
    for name in ("encoder.ort", "decoder.ort", "decoder_single.ort"):
        (tmp_path / name).write_bytes(b"no model at all")
    with (
        serving(tmp_path) as address,
        opened(browser, address) as page,
        pytest.raises(AssertionError) as told,
    ):
        wait(page, "Open an image")
    assert "cannot be loaded" in str(told.value)
    assert "export the model again" in str(told.value)


# -- without a browser -----------------------------------------------------------


def test_the_page_is_whole_and_needs_no_network(tmp_path: Path, runtime: Path) -> None:
    write_page(tmp_path, runtime)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"index.html", "main.js", "model.js", "style.css", "ort"} <= names
    assert {path.name for path in (tmp_path / "ort").iterdir()} == set(RUNTIME_FILES)
    for path in tmp_path.glob("*.*"):
        assert "http://" not in path.read_text()
        assert "https://" not in path.read_text()


def test_the_server_tells_browsers_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "a.wasm").write_bytes(b"1")
    with serving(tmp_path) as address:
        with urlopen(f"{address}a.wasm") as answer:
            assert answer.headers["Content-Type"] == "application/wasm"
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        port = int(address.rstrip("/").rpartition(":")[2])
        with pytest.raises(OutputError, match="cannot be used"), serving("x", port):
            pass


def test_a_runtime_that_is_not_there_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingExtra, match="no onnxruntime-web in"):
        find_runtime(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="npm is not installed"):
        find_runtime()
