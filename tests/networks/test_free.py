"""Shapes without a network: rows by name, through the trainer, a checkpoint and back."""

import warnings

import pytest
import pytorch_lightning as pl
import torch

from reconlab.batch import Batch, Views
from reconlab.cameras import dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.lab import Reconstruction
from reconlab.losses import DRWR, Chamfer, PixelMSE
from reconlab.networks import FreePoints, FreeSphere
from reconlab.networks.checkpoint import load_checkpoint, network_state
from reconlab.renderers.hard import render_rgba
from reconlab.shapes import Mesh


def names(*ids: str) -> Batch:
    return Batch(list(ids), ["chair"] * len(ids))


def box(width: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """A box of sides (width, 0.6, 0.3)."""
    import trimesh

    made = trimesh.creation.box((width, 0.6, 0.3))
    return torch.tensor(made.vertices, dtype=torch.float32), torch.tensor(made.faces)


def boxes(**widths: float) -> Batch:
    """Views, true points and meshes of one box per name."""
    cameras = dpc_cameras([0.0, 90.0, 45.0, 135.0], [0.0, 0.0, 30.0, -15.0])
    batch = names(*widths)
    shapes = [box(w) for w in widths.values()]
    masks = torch.stack([render_rgba(v, f, cameras, 64)[..., 3].float() / 255 for v, f in shapes])
    batch.views = Views(cameras.reshape(1, 4).expand(len(widths), 4), masks)
    batch.mesh = Mesh.from_list(shapes)
    batch.points = batch.mesh.points(2000, torch.Generator().manual_seed(0))
    return batch


def model(network, loss=None, lr=1e-2) -> Reconstruction:
    return Reconstruction(network, loss or DRWR(500, resolution=32), {}, lr=lr)


def fit(module: Reconstruction, batches: list[Batch], steps: int, folder, checkpoint=None) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None), ckpt_path=checkpoint)
    module.eval()
    return trainer


def test_rows_go_to_names_in_order():
    network = FreePoints(5, samples=3)
    start = [row.detach().clone() for row in network.values]
    shape = network.reconstruct(names("b", "a"))
    assert network.rows == {"chair/a": 0, "chair/b": 1}
    assert torch.equal(shape.points(), torch.stack([start[1], start[0]]))
    network.reconstruct(names("c", "a"))
    assert network.rows["chair/c"] == 2
    other = Batch(["a"], ["lamp"])
    with pytest.raises(ReconlabError, match=r"3 rows and training brings more shapes \(lamp/a"):
        network.reconstruct(other)


def test_initial_positions():
    wide, blob = FreePoints(4000, 2), FreePoints(4000, 2, init="blob")
    assert wide.values[0].abs().max() <= 0.6
    assert wide.values[0].std().item() == pytest.approx(0.6 / 3**0.5, rel=0.03)
    assert blob.values[0].std().item() == pytest.approx(0.05, rel=0.03)
    assert not torch.equal(wide.values[0], wide.values[1])
    assert torch.equal(wide.values[0], FreePoints(4000, 7).values[0]), "more rows leave the first as they are"
    assert not torch.equal(wide.values[0], FreePoints(4000, 2, seed=1).values[0])


def test_sphere_starts_as_a_sphere():
    mesh = FreeSphere(level=2, samples=2, radius=0.4).reconstruct(names("a", "b")).mesh()
    vertices, faces = mesh.item(1)
    assert (len(vertices), len(faces)) == (162, 320)
    assert torch.allclose(vertices.norm(dim=1), torch.tensor(0.4))
    outward = torch.linalg.cross(*(vertices[faces[:, i]] - vertices[faces[:, 0]] for i in (1, 2)))
    assert ((outward * vertices[faces].mean(1)).sum(1) > 0).all()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: FreePoints(0), "points is 0"),
        (lambda: FreePoints(samples=0), "samples is 0"),
        (lambda: FreePoints(init="narrow"), "'narrow'"),
        (lambda: FreeSphere(level=7), "level is 7"),
        (lambda: FreeSphere(level=-1), "level is -1"),
        (lambda: FreeSphere(radius=0.0), "radius is 0"),
        (lambda: FreeSphere(samples=-2), "samples is -2"),
        (lambda: FreePoints(3)(torch.rand(1, 3, 8, 8)), "reads no image"),
        (lambda: FreePoints(3).reconstruct(names("x" * 600)), "606 bytes"),
    ],
)
def test_bad_input(make, named):
    with pytest.raises(ReconlabError, match=named):
        make()


def test_shapes_that_training_has_not_met():
    network = FreePoints(5, samples=3).eval()
    with pytest.warns(UserWarning, match="chair/a in training"):
        assert not network.reconstruct(names("a")).valid().any(), "before training nothing is reconstructed"
    assert not network.rows, "judging takes no row"
    network.train().reconstruct(names("a"))
    network.eval()
    with pytest.warns(UserWarning, match="chair/b in training: it counts as a failed"):
        assert network.reconstruct(names("b", "a")).valid().tolist() == [False, True]
    judged = FreePoints(5, samples=3)
    judged.load_state_dict(network.state_dict())
    judged.eval()
    assert judged.reconstruct(names("a")).valid().all()
    with pytest.raises(ReconlabError, match="not fitted to chair/b, only to 1 shapes"):
        judged.reconstruct(names("b"))


def test_no_shape_feels_its_company(tmp_path):
    # In turn, each in a batch of its own: Adam must not move the row whose turn it is not.
    one, two = boxes(a=0.5), boxes(b=0.2)
    both, alone = model(FreePoints(200, 2)), model(FreePoints(200, 2))
    fit(both, [one, two], 12, tmp_path)
    fit(alone, [one], 6, tmp_path)
    assert torch.equal(both.network.values[0], alone.network.values[0])
    assert not torch.equal(both.network.values[1], FreePoints(200, 2).values[1])


def test_checkpoint_keeps_names_and_resumes(tmp_path):
    batches = [boxes(b=0.5, a=0.2)]  # one batch an epoch: a plain loader cannot resume within one
    whole = model(FreePoints(100, 2))
    fit(whole, batches, 8, tmp_path)
    part = model(FreePoints(100, 2))
    fit(part, batches, 4, tmp_path).save_checkpoint(tmp_path / "part.ckpt")
    assert load_checkpoint(tmp_path / "part.ckpt"), "read with weights_only=True"
    resumed = model(FreePoints(100, 2, seed=9))
    fit(resumed, batches, 8, tmp_path, tmp_path / "part.ckpt")
    assert resumed.network.rows == whole.network.rows == {"chair/a": 0, "chair/b": 1}
    for row, expected in zip(resumed.network.values, whole.network.values, strict=True):
        assert torch.allclose(row, expected, atol=1e-6)
    fresh = FreePoints(100, 2)
    fresh.load_state_dict(network_state(tmp_path / "part.ckpt"))
    assert torch.equal(
        fresh.eval().reconstruct(names("a", "b")).points(), part.network.reconstruct(names("a", "b")).points()
    )
    with pytest.raises(ReconlabError, match="does not fit FreePoints"):
        fit(model(FreePoints(100, 3)), batches, 8, tmp_path, tmp_path / "part.ckpt")


def test_names_outside_ascii_survive():
    network = FreePoints(3, samples=2)
    network.reconstruct(Batch(["ручка", "0"], ["stühle", "stühle"]))
    copy = FreePoints(3, samples=2)
    copy.load_state_dict(network.state_dict())
    assert copy.rows == network.rows == {"stühle/0": 0, "stühle/ручка": 1}


def test_points_fill_a_box(tmp_path):
    batch = boxes(a=0.5, b=0.2)
    module = model(FreePoints(500, 2, init="blob"))
    fit(module, [batch], 150, tmp_path)
    with torch.no_grad():
        points = module.network.reconstruct(batch).points()
    size = points.quantile(0.98, 1) - points.quantile(0.02, 1)
    # The silhouettes' hull is a little larger than the boxes.
    assert torch.allclose(size, torch.tensor([[0.5, 0.6, 0.3], [0.2, 0.6, 0.3]]), atol=0.08), size
    assert DRWR(500, resolution=32)(module.network.reconstruct(batch), batch)["inside"] > 0.9


def test_sphere_becomes_a_box_by_its_silhouettes(tmp_path):
    batch = boxes(a=0.5)
    loss = PixelMSE("silhouette", "views", None, image_size=32)
    module = model(FreeSphere(2, 1, radius=0.3), loss)
    before = loss(module.network.reconstruct(batch), batch)["loss"].item()
    fit(module, [batch], 60, tmp_path)
    after = loss(module.network.reconstruct(batch), batch)["loss"].item()
    assert after < 0.15 * before, (before, after)


def test_sphere_becomes_a_box_by_points(tmp_path):
    batch = boxes(a=0.5)
    loss = Chamfer(points=2000)
    module = model(FreeSphere(3, 1, radius=0.3), loss, lr=3e-3)
    fit(module, [batch], 150, tmp_path)
    low, high = (getattr(module.network.reconstruct(batch).mesh().vertices, f)(0) for f in ("amin", "amax"))
    assert torch.allclose(high - low, torch.tensor([0.5, 0.6, 0.3]), atol=0.06)
