"""Images to try things on, made here or shipped with scikit-image: no download."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
