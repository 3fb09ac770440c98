"""The napari panel: Qt and napari live here and nowhere else."""
