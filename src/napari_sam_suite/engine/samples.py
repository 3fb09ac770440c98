"""Images to try things on, made here or shipped with scikit-image: no download."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sam_suite.engine.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam_suite.engine.image import ImageSource


def demo_image() -> ImageSource:
    """Immunohistochemistry of colon tissue, (512, 512) RGB.

    Nuclei stained with haematoxylin, FHL2 protein with DAB; from the Center for
    Microscopy And Molecular Imaging, no known restrictions, as shipped with
    scikit-image.
    """
    from skimage.data import immunohistochemistry

    from napari_sam_suite.engine.image import open_image

    return open_image(immunohistochemistry(), axes="YXS", name="immunohistochemistry")


def write_demo_image(path: Path) -> None:
    """Write the demo image as a TIFF, unless it is there already.

    Raises
    ------
    OutputError
        If another file of that name is there, or it cannot be written.
    """
    import tifffile
    from skimage.data import immunohistochemistry

    from napari_sam_suite.engine.formats.atomic import replacing

    pixels = immunohistochemistry()
    if not path.exists():
        with replacing(path) as part:
            tifffile.imwrite(part, pixels, photometric="rgb")
    elif pixels.tobytes() not in path.read_bytes():
        raise OutputError(
            f"{path} is there already, and is not the demo image.",
            "Choose another folder with --out.",
        )
