"""The results of a run: what was asked, which images, and what became of each.

::

    recipe.json  manifest.json
    prototypes.safetensors  prototypes.json     few-shot: what was learnt
    images/NAME/image.json                      what it is, its frames and limits
    images/NAME/labels.ome.zarr                 label images
    images/NAME/objects/p1_t1_z1.parquet        objects; there, the frame is finished
    images/NAME/failed/p1_t1_z1.json            why a frame, or the image, failed
    images/NAME/collected.json                  how many frames its files have
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from napari_sam_suite.engine.errors import EngineError, OutputError
from napari_sam_suite.engine.formats.atomic import explain
from napari_sam_suite.engine.formats.extras import check_extra
from napari_sam_suite.engine.recipe import FewShot, Recipe, first_difference
from napari_sam_suite.engine.store.images import ImageStore
from napari_sam_suite.engine.store.place import Folder, Place, open_place
from napari_sam_suite.engine.versions import package_versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from napari_sam_suite.engine.fewshot.prototypes import Prototypes

_FORMAT = "napari-sam-suite store"
_LEARNT = ("prototypes.safetensors", "prototypes.json")


class Store:
    """One run's results; made by `create` or `open`.

    Attributes
    ----------
    place : Place
        Its folder.
    recipe : Recipe
        What was asked.
    images : dict of str
        Path of each image by the name it has in the store.
    made_with : dict of str
        Digests of the weights, and of the prototypes file if there is one, that the
        results come from; empty before the first run.
    """

    def __init__(
        self,
        place: Place,
        recipe: Recipe,
        images: Mapping[str, str],
        made_with: Mapping[str, str] | None = None,
    ) -> None:
        self.place = place
        self.recipe = recipe
        self.images = dict(images)
        self.made_with = dict(made_with or {})

    @classmethod
    def create(cls, recipe: Recipe) -> Store:
        """Begin a store, or go on with the one that is there.

        Raises
        ------
        OutputError
            If there are the results of another recipe, or it cannot be written to.
        MissingExtra
            If the package pyarrow is not installed.
        """
        check_extra("pyarrow", "scale")
        if not recipe.outputs.store:
            raise OutputError(
                "The recipe does not say where results go.",
                "Give `store`, or write it under 'outputs'.",
            )
        place = open_place(recipe.outputs.store)
        ours = _FORMAT.encode() in (place.read("manifest.json") or b"")
        if not ours or place.read("recipe.json") is None:
            # A run that ended between its two first files leaves the manifest alone.
            if place.names() - {".lock", *(["manifest.json"] * ours)}:
                raise OutputError(
                    f"{place.address} holds other files.",
                    "Choose an empty or a new folder as the store.",
                )
            store = cls(place, recipe, {})
            store.list_images({})
            place.write("recipe.json", recipe.text().encode())
            return store
        store = cls.open(place.address)
        other = first_difference(store.recipe, recipe)
        if other:
            raise OutputError(
                f"{place.address} holds results of another recipe: {other!r} differs.",
                "Give another `store`, or delete this one.",
            )
        store.recipe = recipe
        return store

    @classmethod
    def open(cls, address: str | Path) -> Store:
        """Open a store that is there.

        Raises
        ------
        OutputError
            If it is none.
        """
        place = open_place(address)
        manifest, recipe = place.read("manifest.json"), place.read("recipe.json")
        try:
            if manifest is None or recipe is None:
                raise ValueError("manifest.json or recipe.json is missing")
            content = json.loads(manifest)
            if content.get("format") != _FORMAT:
                raise ValueError("its manifest is of something else")
            asked, made_with = Recipe.parse(recipe.decode()), content.get("made with")
            return cls(place, asked, content["images"], made_with)
        except (ValueError, LookupError, EngineError) as error:
            raise OutputError(
                f"{place.address} is no store of results: {error}.",
                "Give the folder of a run, such as plate.store.",
            ) from error

    def begin(self, images: Mapping[str, str], weights: str, stamp: str = "") -> None:
        """List the images of a run, and keep which model its results come from.

        Parameters
        ----------
        images : dict of str
            See `Store`.
        weights : str
            Of the loaded model; see `weights_of`.
        stamp : str
            Of their file, by which the next run knows it unread.

        Raises
        ------
        OutputError
            If the results that are there come from other weights, from other prototypes
            in a file of the same name, or from few-shot with another verifier.
        """
        self.check_weights(weights)
        made_with = {"weights": weights, "file": stamp}
        capability = self.recipe.capability
        if isinstance(capability, FewShot) and capability.params.mode == "fast":
            from napari_sam_suite.engine.fewshot.verifier import verifier_id

            made_with["verifier"] = verifier_id()
            if self.made_with.get("verifier") not in (None, made_with["verifier"]):
                raise OutputError(
                    f"{self.place.address} holds what few-shot of another release "
                    "found, which judges masks otherwise.",
                    "Give another `store`, or delete this one.",
                )
        if isinstance(capability, FewShot) and capability.prototypes:
            made_with["prototypes"] = _digest_prototypes(capability.prototypes)
            if self.made_with.get("prototypes") not in (None, made_with["prototypes"]):
                raise OutputError(
                    f"{self.place.address} holds results of other prototypes: "
                    f"{capability.prototypes} has changed since.",
                    "Give another `store`, or delete this one.",
                )
        self.made_with |= made_with
        self.list_images(images)

    def check_weights(self, weights: str) -> None:
        """Make sure that a model has the weights that the results come from.

        Raises
        ------
        OutputError
            If it has others, as after fine-tuning into the same file.
        """
        if self.made_with.get("weights") not in (None, weights):
            raise OutputError(
                f"{self.place.address} holds results of other weights of the model "
                f"{self.recipe.model.id}.",
                "Give another `store`, or delete this one.",
            )

    def list_images(
        self, images: Mapping[str, str], summary: Mapping[str, Any] | None = None
    ) -> None:
        """Write the manifest: which images there are, and how the run went."""
        self.images |= images
        content = {
            "format": _FORMAT,
            "version": 1,
            "digest": self.recipe.digest,
            "packages": package_versions(),
            "made with": self.made_with,
            "images": self.images,
            "summary": dict(summary or {}),
        }
        self.place.write("manifest.json", json.dumps(content, indent=1).encode())

    def image(self, name: str) -> ImageStore:
        """What is kept of one image."""
        return ImageStore(self.place / f"images/{name}")

    def prototypes(self) -> Prototypes | None:
        """What was learnt from the examples, if that is done."""
        import tempfile

        from napari_sam_suite.engine.fewshot.prototypes import Prototypes

        files = [self.place.read(name) for name in _LEARNT]
        if None in files:
            return None
        with tempfile.TemporaryDirectory() as folder:
            for name, data in zip(_LEARNT, files, strict=True):
                (Path(folder) / name).write_bytes(data or b"")
            return Prototypes.load(Path(folder) / _LEARNT[0])

    def keep_prototypes(self, prototypes: Prototypes) -> None:
        """Keep what was learnt, for every worker and for the next run."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            prototypes.save(Path(folder) / _LEARNT[0])
            for name in _LEARNT:
                self.place.write(name, (Path(folder) / name).read_bytes())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out of this store, as far as this machine goes.

        Raises
        ------
        OutputError
            If another run is writing into it, or nobody may.
        """
        if not isinstance(self.place, Folder):
            yield
            return
        # The system frees it however this process ends.
        lock = FileLock(self.place.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(
                f"Another run is writing into {self.place.address}.",
                "Wait for it, or choose another store.",
            ) from error
        except OSError as error:
            raise explain(error, self.place.path / ".lock") from error
        try:
            yield
        finally:
            lock.release()


def _digest_prototypes(path: str) -> str:
    """SHA-256 of both files that prototypes are in."""
    from napari_sam_suite.engine.fewshot.prototype_files import prototype_files

    digest = hashlib.sha256()
    for file in prototype_files(path):
        digest.update(file.read_bytes())
    return digest.hexdigest()
