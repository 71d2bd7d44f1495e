"""Wavefront ``.obj`` as ShapeNet has it: many objects and groups, polygons, relative indices, missing materials.

(trimesh, which reads ``--source meshes``, counts relative indices from the end of the file rather than from the
face's own line, and so moves faces to other vertices.)
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from reconlab.datasets.meshes import RawMesh
from reconlab.errors import ReconlabError


def read_obj(path: Path) -> RawMesh:
    """All faces of all objects, polygons cut into fans; textures, normals, lines and points are passed over.

    Raises:
        ReconlabError: The file cannot be read, has no faces, a face names a vertex that is not there, or a used
            vertex is not finite; the sentence names the file and the line.
    """
    try:
        text = path.read_text(encoding="latin-1")
    except OSError as error:
        raise ReconlabError(f"{path} cannot be read ({error.strerror}).") from error
    vertices: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    for number, line in enumerate(text.replace("\\\n", " ").splitlines(), 1):
        words = line.split()
        if not words or words[0] not in ("v", "f"):
            continue
        try:
            if words[0] == "v":
                vertices.append([float(w) for w in words[1:4]])
                if len(vertices[-1]) != 3:
                    raise ValueError
            else:
                corners = [int(w.split("/", 1)[0]) for w in words[1:]]
                corners = [c - 1 if c > 0 else c + len(vertices) if c < 0 else -1 for c in corners]
                if any(c < 0 for c in corners):
                    raise IndexError
                faces += [(corners[0], b, c) for b, c in pairwise(corners[1:])]
        except ValueError:
            raise ReconlabError(f"{path}, line {number}: {line.strip()[:60]!r} is no vertex or face.") from None
        except IndexError:
            raise ReconlabError(f"{path}, line {number}: the face names a vertex that is not there.") from None
    if not faces:
        raise ReconlabError(f"{path} has no faces.")
    points, triangles = np.array(vertices, np.float64).reshape(-1, 3), np.array(faces, np.int64)
    if triangles.max() >= len(points):
        raise ReconlabError(f"{path} has faces that name vertices which it does not have.")
    if not np.isfinite(points[np.unique(triangles)]).all():
        raise ReconlabError(f"{path} has vertices that are not finite numbers (NaN or infinity).")
    return RawMesh(np.where(np.isfinite(points), points, 0.0), triangles)
