"""A callback of ``startup.py``: notes when a training has done its first step."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

NOTE = "STARTUP_NOTE"  # the variable that names the file


class FirstStep(pl.Callback):
    """Writes the time of day and the process' CPU time after the first step."""

    def on_train_batch_end(self, *_: Any) -> None:
        """Write the note, once."""
        note = Path(os.environ[NOTE])
        if not note.exists():
            note.write_text(json.dumps({"wall": time.time(), "cpu": time.process_time()}))
