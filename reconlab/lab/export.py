"""Writing reconstructions as files that other programs open."""

from __future__ import annotations

from pathlib import Path

from reconlab.errors import ConversionError, ReconlabError
from reconlab.shapes import Shape

FORMATS = ("obj", "glb", "ply", "off", "stl")


def export_shape(shape: Shape, index: int, path: Path, formats: tuple[str, ...] = ("obj", "glb")) -> list[Path]:
    """Write sample ``index`` as ``path.<format>`` for each format; a shape without a mesh is written as points.

    Args:
        shape: A batch.
        index: Which sample.
        path: The files' path without its suffix; folders are made.
        formats: Of :data:`FORMATS`; point clouds are written as ``glb`` and ``ply`` only.

    Returns:
        The files written. Each appears whole or not at all.

    Raises:
        ReconlabError: An unknown format, an empty or non-finite shape, or a folder that cannot be written.
    """
    unknown = [f for f in formats if f not in FORMATS]
    if unknown:
        raise ReconlabError(f"Unknown mesh format {unknown[0]!r}; choose from {', '.join(FORMATS)}.")
    one = shape[index]
    if not bool(one.valid()[0]):
        raise ReconlabError(f"The reconstruction for {path.name} is empty or not finite; nothing was written.")
    import trimesh  # a quarter of a second that a training does not need

    content: trimesh.Trimesh | trimesh.PointCloud
    try:
        content = one.mesh().to_trimesh(0)
    except ConversionError:
        content = trimesh.PointCloud(one.points()[0].detach().cpu().numpy())
        formats = tuple(f for f in formats if f in ("glb", "ply")) or ("ply",)
    written = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for kind in formats:
            target = path.parent / f"{path.name}.{kind}"
            aside = path.parent / f".{path.name}.part.{kind}"
            content.export(aside, file_type=kind)
            aside.replace(target)
            written.append(target)
    except OSError as error:
        raise ReconlabError(f"Cannot write {path.parent}: {error.strerror or error}.") from error
    return written
