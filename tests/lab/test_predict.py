import numpy as np
import pytest
import torch
from PIL import Image

from reconlab.errors import ReconlabError
from reconlab.lab.predict import FILL, load_network, predict_file, read_image
from reconlab.networks import ShapeGenerator


def draw(path, mode="RGBA", background=(0, 0, 0, 0), size=(200, 120)):
    picture = np.zeros((size[1], size[0], 4), np.uint8)
    picture[:] = background
    picture[30:80, 20:60] = (200, 30, 30, 255)
    Image.fromarray(picture).convert(mode).save(path)
    return path


def extent(image: torch.Tensor) -> tuple[int, int, int, int]:
    rows, columns = (image.min(0).values < 0.7).nonzero().T
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


def test_alpha_is_the_mask_and_the_object_is_centred(tmp_path):
    image, _, note = read_image(draw(tmp_path / "a.png"), 128)
    assert "alpha" in note
    top, bottom, left, right = extent(image)
    assert abs((bottom - top + 1) / 128 - FILL) < 0.03, "the longer side fills the frame as in training"
    assert abs((top + bottom) / 2 - 63.5) <= 1.5
    assert abs((left + right) / 2 - 63.5) <= 1.5
    torch.testing.assert_close(image[:, 64, 64], torch.tensor([200, 30, 30]) / 255, atol=0.02, rtol=0)
    torch.testing.assert_close(image[:, 2, 2], torch.ones(3))


def test_a_network_that_reads_masks_gets_the_files_own(tmp_path):
    # White on transparent: from the colours alone nothing is there
    picture = np.full((60, 60, 4), 255, np.uint8)
    picture[..., 3] = 0
    picture[20:40, 10:50, 3] = 255
    Image.fromarray(picture).save(tmp_path / "white.png")
    torch.manual_seed(0)
    network = ShapeGenerator(width=8, hidden=16, norm="group").eval()
    with torch.no_grad():
        blank = network(torch.ones(1, 3, 64, 64)).vertices
    found = predict_file(network, tmp_path / "white.png", tmp_path / "out", 64, ("obj",)).shape
    assert (found.mesh().vertices - blank).abs().max() > 1e-4
    mask = read_image(tmp_path / "white.png", 64)[1]
    rows, columns = (mask[0] > 0.5).nonzero().T
    assert (int(columns.max() - columns.min()) + 1) / (int(rows.max() - rows.min()) + 1) == pytest.approx(2, rel=0.1)
    assert (columns.min() + columns.max()).item() / 2 == pytest.approx(31.5, abs=1)


@pytest.mark.parametrize(("mode", "name"), [("RGB", "b.jpg"), ("RGB", "b.png"), ("RGBA", "c.png")])
def test_plain_background_is_removed(tmp_path, mode, name):
    path = draw(tmp_path / name, mode, (90, 140, 90, 255))
    image, _, note = read_image(path, 64)
    assert "plain background was assumed" in note
    torch.testing.assert_close(image[:, 1, 1], torch.ones(3), atol=0.02, rtol=0)
    assert float(image[0, 32, 32]) > 0.7


def test_photographs_are_turned_upright(tmp_path):
    picture = np.full((40, 100, 3), 255, np.uint8)
    picture[10:30, 20:80] = 0
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(picture).save(tmp_path / "phone.jpg", exif=exif)
    top, bottom, left, right = extent(read_image(tmp_path / "phone.jpg", 128)[0])
    assert (bottom - top) > 2 * (right - left)


def test_sixteen_bit_greys(tmp_path):
    picture = np.full((40, 40), 60000, np.uint16)
    picture[10:30, 15:25] = 9000
    Image.fromarray(picture).save(tmp_path / "deep.png")
    top, bottom, left, right = extent(read_image(tmp_path / "deep.png", 64)[0])
    assert (bottom - top + 1) / (right - left + 1) == pytest.approx(2, rel=0.2)


def test_framing_can_be_kept(tmp_path):
    image, _, _ = read_image(draw(tmp_path / "a.png"), 200, crop=False)
    # 200 × 120 padded to a square: rows 30-80 move down by 40.
    assert extent(image) == pytest.approx((70, 119, 20, 59), abs=1)


def test_bad_images(tmp_path):
    with pytest.raises(ReconlabError, match=r"absent\.png does not exist"):
        read_image(tmp_path / "absent.png", 64)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ReconlabError, match=r"text\.png cannot be read"):
        read_image(tmp_path / "text.png", 64)
    whole = draw(tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReconlabError, match=r"cut\.png cannot be read"):
        read_image(tmp_path / "cut.png", 64)
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(tmp_path / "empty.png")
    with pytest.raises(ReconlabError, match="shows no object"):
        read_image(tmp_path / "empty.png", 64)
    Image.new("RGB", (40, 40), "blue").save(tmp_path / "flat.png")
    with pytest.raises(ReconlabError, match="shows no object"):
        read_image(tmp_path / "flat.png", 64)


def test_checkpoint_errors(tmp_path):
    with pytest.raises(ReconlabError, match="does not exist"):
        load_network(tmp_path / "absent.ckpt")

    def save(**parameters):
        torch.save({"state_dict": {}, "hyper_parameters": parameters}, tmp_path / "x.ckpt")
        return tmp_path / "x.ckpt"

    with pytest.raises(ReconlabError, match="does not say which network"):
        load_network(save())
    with pytest.raises(ReconlabError, match="cannot be imported"):
        load_network(save(network={"class_path": "reconlab.networks.Nothing"}))
    with pytest.raises(ReconlabError, match="is not a network"):
        load_network(save(network={"class_path": "os.path.join"}))
    with pytest.raises(ReconlabError, match="does not fit its own AtlasNet"):
        load_network(save(network={"class_path": "reconlab.networks.AtlasNet", "init_args": {"latent": 8}}))
