"""A run that starts from another run's weights."""

import pytest
import torch

from reconlab.errors import ReconlabError
from reconlab.lab import Reconstruction
from reconlab.losses import Chamfer
from reconlab.networks import AtlasNet


def model(latent: int = 8, seed: int = 0, **settings) -> Reconstruction:
    torch.manual_seed(seed)
    network = AtlasNet(patches=2, latent=latent, hidden=8, grid=3, encoder_width=8)
    return Reconstruction(network, Chamfer(), {}, **settings)


def save(source: Reconstruction, path) -> str:
    state = {f"network.{k}": v for k, v in source.network.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {}}, path)
    return str(path)


def test_weights_are_those_of_the_checkpoint_and_nothing_else_is_taken(tmp_path):
    source = model(seed=1)
    path = save(source, tmp_path / "base.ckpt")
    warm = model(seed=2, init_from=path)
    for name, value in source.network.state_dict().items():
        assert torch.equal(warm.network.state_dict()[name], value), name
    assert "init_from" not in warm.hparams, "a checkpoint must not need the file that it came from"


def test_another_network_is_refused_by_name(tmp_path):
    path = save(model(latent=16), tmp_path / "base.ckpt")
    with pytest.raises(ReconlabError, match=r"init_from: .*base\.ckpt does not fit AtlasNet as configured"):
        model(init_from=path)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(ReconlabError, match=r"absent\.ckpt does not exist"):
        model(init_from=str(tmp_path / "absent.ckpt"))


def test_a_checkpoint_does_not_name_the_files_that_its_weights_came_from():
    recipe = {"class_path": "PTNNet", "init_args": {"encoder_from": "gone.ckpt", "threshold": 0.4}}
    checkpoint = {"state_dict": {}, "hyper_parameters": {"network": recipe}}
    model().on_save_checkpoint(checkpoint)
    kept = checkpoint["hyper_parameters"]["network"]["init_args"]
    assert kept == {"encoder_from": None, "threshold": 0.4}
    assert recipe["init_args"]["encoder_from"] == "gone.ckpt", "the run's own settings stay as they are"
