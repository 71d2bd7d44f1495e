"""Faces of many meshes on many screens: meshes of one size go at once, others one by one, with one result."""

import pytest
import torch

from reconlab.cameras import Cameras, hemisphere_views, orbit_views
from reconlab.renderers.screen import screen_faces
from reconlab.shapes import Mesh


def crumpled(count: int, vertices: int, faces: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return [
        (torch.rand(vertices, 3, generator=g) - 0.5, torch.randint(vertices, (faces, 3), generator=g))
        for _ in range(count)
    ]


@pytest.mark.parametrize("normals", ["smooth", "flat"])
@pytest.mark.parametrize("shared", [True, False], ids=["one rig", "a rig each"])
def test_at_once_or_one_by_one(normals: str, shared: bool) -> None:
    same = crumpled(3, 7, 11, 0)
    rig = hemisphere_views()[:4] if shared else Cameras.stack([orbit_views(4, elevation=e) for e in (0, 20, 40)])
    # A mesh of another size sends the same three through the loop.
    longer = rig if shared else Cameras.cat([rig, rig[:1]])
    results = []
    for meshes, cameras in ((same, rig), (same + crumpled(1, 5, 4, 1), longer)):
        leaves = [v.clone().requires_grad_() for v, _ in meshes]
        packed = Mesh.from_list([(x, f) for x, (_, f) in zip(leaves, meshes, strict=True)])
        xyz, splits, grey = screen_faces(packed, cameras, normals, None, True, "the test")
        cut = int(splits[12])
        (xyz[:cut].sin().sum() + grey[:cut].square().sum()).backward()
        results.append((xyz[:cut], splits[:13], grey[:cut], *(x.grad for x in leaves[:3])))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_no_meshes_and_no_faces() -> None:
    rig = orbit_views(2)
    xyz, splits, grey = screen_faces(
        Mesh(torch.zeros(2, 3, 3), torch.zeros(0, 3).long()), rig, "smooth", None, True, ""
    )
    assert xyz.shape == (0, 3, 3)
    assert grey.shape == (0, 3)
    assert splits.tolist() == [0] * 5
