"""Every YAML that the project ships is parsed and instantiated."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reconlab.batch import Batch
from reconlab.cli.__main__ import main
from reconlab.shapes import PointCloud

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
EXPERIMENTS = sorted(p.name for p in CONFIGS.glob("*.yaml") if "class_path" in p.read_text())
PROFILES = CONFIGS / "profiles"
OTHERS = ("tables", "sweeps")  # data of another kind, tested in tests/tables and tests/lab/test_sweep_files.py
CELLS = sorted(  # rows of tables: with their base, each is a whole experiment
    str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.yaml") if "\nbase:" in f"\n{p.read_text()}"
)
OVERLAYS = sorted(
    str(p.relative_to(CONFIGS))
    for p in CONFIGS.rglob("*.yaml")
    if p.parent.name not in (*OTHERS, "shared") and str(p.relative_to(CONFIGS)) not in CELLS
    if p.parent == PROFILES or ("class_path" not in p.read_text() and p.parent != PROFILES / "paper")
)
PAPER = {  # profiles/paper/: the configs that each is for, and the network's published parameters
    "matryoshka": ("matryoshka_original", "matryoshka_drkfs"),
    "ogn": ("ogn_original", "ogn_drkfs"),
    "r2n2": ("r2n2_original", "r2n2_drkfs"),
    "pixel2mesh": ("pixel2mesh_original", "pixel2mesh_drkfs"),
    "shape_generator": ("shape_generator_original", "shape_generator_drkfs"),
    "imnet": ("imnet_original", "imnet_drkfs"),
    "imnet_autoencoder": ("imnet_autoencoder",),
    "imnet_codes": ("imnet_codes",),
    "pointoutnet": ("pointoutnet_original", "pointoutnet_emd"),
}
OWN = {"profiles/drwr_paper.yaml", "profiles/dpc_paper.yaml", "profiles/dpc_data.yaml"}  # tested below
ORIGINALS = sorted(p.name for p in CONFIGS.glob("*_original.yaml"))
LOSSES = {  # overlays that swap the loss: its terms, and what they read beside the network's own needs
    "drkfs": ({"visual", "regularizer"}, {"mesh"}),
    "chamfer": ({"chamfer", "regularizer"}, {"surface"}),
    "drwr": ({"silhouettes", "regularizer"}, {"views"}),
    "pixelmse": ({"pixels", "regularizer"}, {"mesh"}),
    "silhouette_iou": ({"silhouettes", "regularizer"}, {"mesh"}),
    "chamfer_drkfs_balanced": ({"chamfer", "visual", "regularizer"}, {"mesh", "surface"}),
}
ABLATIONS = {  # DRWR's Table 4: what each overlay changes of the reading
    "l1": {"pairwise": False},
    "l2": {"unary": False},
    "pixel_l2": {"field": "binary"},
    "no_omega": {"omega": False},
    "no_delta": {"delta": False},
    "views2": {},
    "views3": {},
}


@pytest.fixture
def instantiate(monkeypatch, tmp_path):
    """Everything of ``reconlab fit`` but the fit; returns the command line's objects."""
    from reconlab.cli import train

    made = []
    monkeypatch.setattr(train.ReconlabCLI, "_run_subcommand", lambda cli, _: made.append(cli))

    def run(*arguments: str):
        options = [a if a.startswith("-") else f"--config={CONFIGS / a}" for a in arguments]
        assert main(["fit", *options, f"--out={tmp_path}"]) == 0
        return made[-1]

    return run


def test_there_are_experiments_and_overlays():
    assert {f"atlasnet_{x}.yaml" for x in ("chamfer", "drwr", "drkfs", "pixelmse")} <= set(EXPERIMENTS)
    assert {f"profiles/{x}.yaml" for x in ("smoke", "desk", "paper")} <= set(OVERLAYS)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiments(experiment, instantiate):
    cli = instantiate(experiment)
    assert cli.run_directory.parent.name == experiment.removesuffix(".yaml"), "a run is called as its config"
    assert cli.model.needs <= cli.datamodule.needs


def test_there_are_cells():
    assert len(CELLS) > 35
    assert {c.split("/")[0] for c in CELLS} == {f"drwr_table{i}" for i in (1, 4, 5)} | {
        f"drkfs_table{i}" for i in (3, 4)
    }


@pytest.mark.parametrize("cell", CELLS)
def test_cells_are_whole_experiments(cell, instantiate):
    cli = instantiate(cell)
    assert cli.model.needs <= cli.datamodule.needs
    assert "base" not in cli.config.fit, "the saved config holds what its bases said"
    metrics = set(cli.model.metric_items())
    table = cell.split("/")[0]
    assert metrics >= {"drwr_table1": {"cd", "iou", "nox"}, "drwr_table4": {"cd", "iou"}, "drwr_table5": {"cd"}}.get(
        table, {"shape_google", "lfd"}
    )


THIRD = ("atlasnet", "matryoshka", "pixel2mesh", "ogn", "r2n2", "shape_generator", "imnet")


@pytest.mark.parametrize("network", THIRD)
def test_drkfs_takes_the_place_of_the_original_loss(network, instantiate):
    before, after = (instantiate(f"drkfs_table3/{network}_{row}.yaml") for row in ("original", "drkfs"))
    for name in ("lr", "milestones", "decay", "optimizer_name", "weight_decay"):
        assert getattr(before.model, name) == getattr(after.model, name), name
    assert before.trainer.max_steps == after.trainer.max_steps
    assert repr(before.model.network) == repr(after.model.network)
    assert {k: m.protocols for k, m in before.model.metric_items().items()} == {
        k: m.protocols for k, m in after.model.metric_items().items()
    }
    loss = after.model.loss
    loss.advance(0, 100)
    first = {name for name in loss.terms if loss.active(name)}
    loss.advance(75, 100)
    last = {name for name in loss.terms if loss.active(name)}
    assert "original" in first
    assert "visual" not in first
    assert last - {"geometry"} == {"visual"}
    # The original's part is the original: same class, same settings, same value
    mine = loss.terms["original"]
    theirs = before.model.loss.terms["silhouettes"] if network == "shape_generator" else before.model.loss
    theirs.advance(75, 100)
    assert type(mine) is type(theirs)
    assert repr(mine) == repr(theirs)
    assert {k: v for k, v in vars(mine).items() if isinstance(v, int | float | str | tuple | list)} == {
        k: v for k, v in vars(theirs).items() if isinstance(v, int | float | str | tuple | list)
    }


@pytest.mark.parametrize("overlay", [o for o in OVERLAYS if o not in OWN and not o.startswith("drwr_table4/")])
def test_overlays_go_on_top_of_an_experiment(overlay, instantiate):
    cli = instantiate("atlasnet_drkfs.yaml", overlay)
    assert cli.model.network.decoder.patches == 25


@pytest.mark.parametrize("experiment", ["pointoutnet_original", "pointoutnet_emd", "free_points_drwr"])
def test_clouds_are_judged_by_metrics_that_take_clouds(experiment, instantiate):
    # The default metrics hold the normals' consistency, which a cloud does not have: `reconlab fit` would stop.
    points = torch.rand(1, 1024, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    batch = Batch(ids=["a"], categories=["c"], points=points.flip(1), voxels=torch.ones(1, 32, 32, 32))
    for name, metric in instantiate(f"{experiment}.yaml").model.metric_items().items():
        metric.update(PointCloud(points), batch)
        assert all(v.isfinite() for v in metric.compute().values()), name


def test_there_is_an_overlay_for_every_row_of_table_4():
    assert {f"drwr_table4/{row}.yaml" for row in ABLATIONS} == {o for o in OVERLAYS if o.startswith("drwr_table4/")}
    assert "drwr_table4/full.yaml" in CELLS


@pytest.mark.parametrize("row", ABLATIONS)
def test_table_4_changes_one_thing(row, instantiate):
    full = instantiate("dpc_drwr_32.yaml")
    cli = instantiate("dpc_drwr_32.yaml", f"drwr_table4/{row}.yaml")
    assert replace(full.model.loss.reading, **ABLATIONS[row]) == cli.model.loss.reading
    assert cli.datamodule.views == {"views2": 2, "views3": 3}.get(row, 4)


@pytest.mark.parametrize(
    ("config", "profile", "steps"),
    [
        ("dpc_drwr_32.yaml", "drwr_paper", 100_000),
        ("dpc_drwr_128.yaml", "drwr_paper", 100_000),
        ("dpc_dpc_32.yaml", "dpc_paper", 600_000),
        ("dpcv_32.yaml", "dpc_paper", 600_000),
    ],
)
def test_the_papers_schedules(config, profile, steps, instantiate):
    cli = instantiate(config, f"profiles/{profile}.yaml")
    assert cli.trainer.max_steps == steps
    assert (cli.datamodule.batch_size, cli.datamodule.views, cli.datamodule.image_size) == (4, 4, 128)
    assert cli.model.lr == (3e-4 if config.startswith("dpcv") else 1e-4)


@pytest.mark.parametrize(
    "config", ["dpc_drwr_64.yaml", "dpc_dpc_32.yaml", "dpcv_32.yaml", "cap.yaml", "drc.yaml", "ptn.yaml"]
)
def test_published_data_are_judged_by_points_alone(config, instantiate):
    cli = instantiate(config, "profiles/dpc_data.yaml")
    assert set(cli.model.metric_items()) == {"cd", "nox"}
    assert cli.datamodule.needs_of("test") <= {"images", "cameras", "surface"}
    assert cli.datamodule.needs_of("train") == {"images", "views"}


def test_paper_profile_restores_the_papers_sizes(instantiate):
    cli = instantiate("atlasnet_drkfs.yaml", "profiles/paper.yaml")
    visual = cli.model.loss.terms["visual"]
    assert (visual.base.image_size, visual.views_per_step, visual.base_radius) == (256, 25, 1)
    assert len(visual.cameras) == 25
    decoder = cli.model.network.decoder
    assert [w.shape[1] for w in decoder.weights] == [1024, 512, 512, 512, 3]
    assert (cli.datamodule.batch_size, cli.model.lr) == (32, 1e-3)


def test_there_is_a_test_for_every_loss_overlay():
    assert {p.stem for p in (CONFIGS / "loss").glob("*.yaml")} == set(LOSSES)


@pytest.mark.parametrize(
    ("experiment", "loss"),
    [*((e, x) for e in ("atlasnet_drkfs", "shape_generator_original") for x in LOSSES), ("dpc_drwr_32", "drwr")],
)
def test_an_overlay_replaces_the_loss_and_nothing_else(loss, experiment, instantiate):
    plain, cli = instantiate(f"{experiment}.yaml"), instantiate(f"{experiment}.yaml", f"loss/{loss}.yaml")
    terms, needs = LOSSES[loss]
    assert set(cli.model.loss.terms) == terms
    assert cli.model.loss.needs == needs
    assert cli.model.loss.end == {}
    assert set(cli.model.loss.start) <= {"visual"}, "the experiment's own schedule does not linger"
    assert repr(cli.model.network) == repr(plain.model.network)
    assert cli.model.needs <= cli.datamodule.needs


@pytest.mark.parametrize("experiment", ORIGINALS)
def test_every_network_takes_the_drkfs_overlay(experiment, instantiate):
    cli = instantiate(experiment, "loss/drkfs.yaml")
    assert cli.model.loss.weights == {"visual": 1.0, "regularizer": 1.0}
    assert cli.model.needs <= cli.datamodule.needs


def test_regularisers_and_schedule_of_an_overlay_are_switches(instantiate):
    options = ("--model.loss.init_args.weights.regularizer=0", "--model.loss.init_args.start.visual=0.5")
    loss = instantiate("atlasnet_drkfs.yaml", "loss/drkfs.yaml", *options).model.loss
    assert (loss.weights["regularizer"], loss.start) == (0.0, {"visual": 0.5})
    options = ("--model.loss.init_args.fixed.regularizer=0", "--model.loss.init_args.start=null")
    loss = instantiate("atlasnet_drkfs.yaml", "loss/chamfer_drkfs_balanced.yaml", *options).model.loss
    assert (loss.fixed, loss.start, loss.reference) == ({"regularizer": 0.0}, {}, "chamfer")


def test_every_network_of_drkfs_has_a_paper_profile():
    assert set(PAPER) == {p.stem for p in (PROFILES / "paper").glob("*.yaml")}
    assert {c for c in ORIGINALS if c != "atlasnet_original.yaml"} <= {f"{c}.yaml" for x in PAPER.values() for c in x}


@pytest.mark.parametrize(("profile", "config"), [(p, c) for p, many in PAPER.items() for c in many])
def test_paper_profiles_restore_the_published_networks(profile, config, instantiate):
    network = instantiate(f"{config}.yaml", f"profiles/paper/{profile}.yaml").model.network
    published = type(network)(**({"regress_codes": True} if config == "imnet_codes" else {}))
    ours, theirs = ({k: v.shape for k, v in n.state_dict().items()} for n in (network, published))
    assert ours == theirs
