"""The states that a training leaves on its way."""

from types import SimpleNamespace

import pytest

from reconlab.lab.checkpoints import SaveProgress


def test_a_kill_while_saving_leaves_the_older_state_whole(tmp_path):
    class Trainer(SimpleNamespace):
        def save_checkpoint(self, path):
            path.write_bytes(b"half")
            if self.killed:
                raise KeyboardInterrupt
            path.write_bytes(b"whole")

    trainer = Trainer(
        global_step=1, estimated_stepping_batches=40, is_global_zero=True, killed=False, interrupted=False
    )
    callback = SaveProgress(tmp_path, every=1)
    callback.on_train_batch_end(trainer, None)
    trainer.global_step, trainer.killed = 2, True
    with pytest.raises(KeyboardInterrupt):
        callback.on_train_batch_end(trainer, None)
    assert (tmp_path / "last.ckpt").read_bytes() == b"whole"
    assert [p.name for p in tmp_path.glob("*.ckpt")] == ["last.ckpt"], "nothing half-written looks like a state"
