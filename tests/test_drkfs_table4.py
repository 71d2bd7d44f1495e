"""DR-KFS' Table 4: three losses for one network, each in its own loss' place for the last quarter of its training."""

from pathlib import Path

import pytest

from reconlab.cli.__main__ import main
from reconlab.losses import DRKFS, GeometricRegularizer, PixelMSE

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ROWS = {
    "silhouette_drkfs": (DRKFS, "silhouette"),
    "shaded_mse": (PixelMSE, "shaded"),
    "shaded_drkfs": (DRKFS, "shaded"),
}


@pytest.fixture
def instantiate(monkeypatch, tmp_path):
    from reconlab.cli import train

    made = []
    monkeypatch.setattr(train.ReconlabCLI, "_run_subcommand", lambda cli, _: made.append(cli))

    def run(*files: str):
        options = [f"--config={CONFIGS / file}" for file in files]
        assert main(["fit", *options, f"--out={tmp_path}"]) == 0
        return made[-1]

    return run


def test_there_is_a_config_for_every_row():
    assert {p.stem for p in (CONFIGS / "drkfs_table4").glob("*.yaml")} == set(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_rows_replace_the_loss_alone(row, instantiate):
    kind, images = ROWS[row]
    full, cli = instantiate("shape_generator_original.yaml"), instantiate(f"drkfs_table4/{row}.yaml")
    loss = cli.model.loss
    visual = loss.terms["visual"]
    assert isinstance(visual, kind)
    assert (visual.render.images, visual.render.image_size, visual.views_per_step) == (images, 64, 2)
    assert isinstance(loss.terms["geometry"], GeometricRegularizer)
    assert loss.terms["geometry"].weights == full.model.loss.terms["geometry"].weights
    for step, term in ((0, "silhouettes"), (74, "silhouettes"), (75, "visual")):
        loss.advance(step, 100)
        assert {name for name in loss.terms if loss.active(name)} == {term, "geometry"}
    assert repr(cli.model.network) == repr(full.model.network)
    assert (cli.model.lr, cli.trainer.max_steps) == (full.model.lr, full.trainer.max_steps)
    assert cli.model.needs >= {"images", "masks", "mesh"}
    assert cli.run_directory.parent.name == f"shape_generator_{row}"


@pytest.mark.parametrize("renderer", ["nmr", "dibr"])
def test_other_renderers_change_nothing_else(renderer, instantiate):
    full, cli = instantiate("shape_generator_original.yaml"), instantiate(f"shape_generator_{renderer}.yaml")
    mine, theirs = cli.model.loss.terms["silhouettes"], full.model.loss.terms["silhouettes"]
    assert (mine.render.renderer, theirs.render.renderer) == (renderer, "softras")
    assert mine.render.sigma == theirs.render.sigma
    assert cli.model.loss.weights == full.model.loss.weights
    assert (cli.model.lr, cli.trainer.max_steps) == (full.model.lr, full.trainer.max_steps)
