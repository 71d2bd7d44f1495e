from pathlib import Path

import numpy as np
from PIL import Image


def test_contact_sheet_shows_every_shape(tmp_path: Path) -> None:
    from reconlab.datasets.synth import sheet

    sheet.main([str(tmp_path / "new" / "sheet.png"), "--per-row", "2", "--rows", "1", "--size", "24"])
    picture = np.asarray(Image.open(tmp_path / "new" / "sheet.png").convert("L")).astype(float)
    assert picture.shape == (4 * 24, 2 * 24)
    cells = picture.reshape(4, 24, 2, 24)
    assert (cells.min((1, 3)) < 200).all()
    assert (cells.max((1, 3)) > 250).all()
