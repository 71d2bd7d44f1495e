"""Training of the multi-view CNN: its loss, what its config reaches, and that other configs stay as they were."""

import json
import math
import subprocess
import sys

import pytest
import torch
import yaml

from reconlab.cli.__main__ import main
from reconlab.cli.train import names_a_module
from reconlab.datasets.synth import CATEGORIES, generate
from reconlab.errors import ReconlabError
from reconlab.features.train.mvcnn import export
from reconlab.features.weights import load_mvcnn
from reconlab.lab import MultiViewClassification
from reconlab.lab.mvcnn import Retrieval, kinds_of

TINY = [
    "--model.init_args.widths=[4,4,8,8]",
    "--model.init_args.dimensions=8",
    "--model.init_args.size=16",
    "--model.init_args.views=2",
    "--model.init_args.procedural=2",
    "--trainer.precision=32-true",
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.log_every_n_steps=1",
    "--data.batch_size=2",
    "--data.build=never",
]


def tiny(**changes) -> MultiViewClassification:
    return MultiViewClassification(**{"widths": (4, 4, 8, 8), "dimensions": 8, "size": 16, **changes})


@pytest.fixture(scope="module")
def run(repository, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    config = repository / "configs" / "mvcnn.yaml"
    assert main(["fit", f"--config={config}", *TINY, f"--data.root={data}", f"--out={out}"]) == 0
    return out / "mvcnn" / "000"


def test_a_run_is_complete_and_can_be_tested_again(run, capsys):
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["steps"] == 2
    assert {"val/accuracy", "val/top1", "val/map"} <= set(record["metrics"])
    saved = yaml.safe_load((run / "config.yaml").read_text())["model"]
    assert saved["class_path"].split(".")[-1] == "MultiViewClassification"
    assert saved["init_args"]["widths"] == [4, 4, 8, 8]
    assert main(["test", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}", f"--out={run.parents[1]}"]) == 0
    assert "test: accuracy" in capsys.readouterr().out
    again = json.loads((run.parent / "001" / "run.json").read_text())
    assert 0 <= again["metrics"]["test/top1"] <= 1


def test_a_checkpoint_holds_weights_of_the_metric(run, tmp_path):
    checkpoint = run / "checkpoints" / "last.ckpt"
    net = load_mvcnn(str(checkpoint))
    card = export(checkpoint, tmp_path, "ours")
    assert card["config"] == {"widths": [4, 4, 8, 8], "dimensions": 8, "size": 16}
    assert (card["steps"], card["licence"]) == (2, "ours")
    views = torch.rand(1, 12, 16, 16)
    stored = load_mvcnn(str(tmp_path / "mvcnn.safetensors"))
    assert torch.allclose(stored.describe(views), net.describe(views), atol=5e-3)
    warm = tiny(init_from=str(checkpoint))
    assert torch.equal(warm.network.descriptor.weight, net.descriptor.weight)
    with pytest.raises(ReconlabError, match="holds a network of other sizes or classes"):
        tiny(init_from=str(checkpoint), dimensions=4)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "alone.ckpt").write_bytes(checkpoint.read_bytes())
    with pytest.raises(ReconlabError, match="lies outside its run directory"):
        export(tmp_path / "x" / "alone.ckpt", tmp_path, "ours")


def test_categories_that_it_does_not_know_are_named(repository, data, tmp_path, capsys):
    config = repository / "configs" / "mvcnn.yaml"
    options = [*TINY, f"--data.root={data}", f"--out={tmp_path}", "--model.init_args.categories=[chair]"]
    assert main(["fit", f"--config={config}", *options]) == 2
    assert "has the category 'lamp', which the classifier does not know" in capsys.readouterr().err


def test_every_procedural_kind_has_an_output():
    for category in CATEGORIES:
        found = {str(generate(category, seed).params["kind"]) for seed in range(30 if category == "airplane" else 5)}
        assert found <= set(kinds_of(category)), category
    assert kinds_of("sofa") == []


def test_a_category_is_the_sum_of_its_kinds():
    module = tiny(categories=["sofa", "car", "chair"])
    assert module.classes[0] == "sofa"
    assert module.classes[1] == "car/sedan"
    logits = torch.randn(5, len(module.classes), generator=torch.Generator().manual_seed(0))
    share = logits.softmax(1)
    scores = module.category_scores(logits).exp()
    for column, name in enumerate(module.names):
        mine = [i for i, c in enumerate(module.classes) if c.split("/")[0] == name]
        assert torch.allclose(scores[:, column], share[:, mine].sum(1), atol=1e-6)


def test_retrieval_over_batches_is_that_of_all():
    whole, parts = Retrieval(), Retrieval()
    descriptors = torch.nn.functional.normalize(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.tensor([0, 1, 2] * 3)
    whole.update(descriptors, labels)
    for rows in ([0, 1], [2, 3, 4, 5], [6, 7, 8]):
        parts.update(descriptors[rows], labels[rows])
    assert torch.equal(torch.stack(whole.compute()), torch.stack(parts.compute()))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"views": 13}, "model.views is 13; expected 1 to 12"),
        ({"procedural": -1}, "model.procedural is -1"),
        ({"lr": 0.0}, "model.lr is 0.0"),
        ({"jitter": -math.inf}, "model.jitter is -inf"),
    ],
)
def test_bad_settings_are_told(change, sentence):
    with pytest.raises(ReconlabError, match=sentence):
        tiny(**change)


def test_only_a_class_path_below_model_chooses_another_module(repository):
    configs = repository / "configs"
    assert names_a_module([], [str(configs / "mvcnn.yaml")])
    assert names_a_module(["--model=MultiViewClassification"], [])
    assert not names_a_module(["--model.network.class_path=AtlasNet", "--model.lr", "1"], [])
    others = [p for p in configs.rglob("*.yaml") if p.name != "mvcnn.yaml"]
    assert others
    assert not names_a_module([], [str(p) for p in others])


def test_its_config_is_found_in_a_process_of_its_own(repository):
    """Where nothing but the command has been imported: short class names resolve among imported classes."""
    command = [sys.executable, "-m", "reconlab.cli", "fit", "--config", "configs/mvcnn.yaml", "--print_config"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "class_path: reconlab.lab.MultiViewClassification" in done.stdout
