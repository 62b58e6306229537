"""Whatever a shop calls an image is read to the end; whatever is none has a reason."""

import io

import numpy as np
import pytest
from PIL import Image

from gcl.data.batches.batch import SideReader
from gcl.data.images import check_image, to_rgb
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.data.tables.images import is_url, read_image
from gcl.data.tables.quarantine import Bad
from gcl.model.preprocess import Preprocess
from gcl.schema import Field, Modality
from helpers.small_catalog import drawn

MANY = 10_000_000
GREY16 = Image.fromarray(np.linspace(0, 65535, 24 * 20).astype(np.uint16).reshape(20, 24))


def saved(picture, form, **options):
    target = io.BytesIO()
    picture.save(target, form, **options)
    return target.getvalue()


def rotated(seed):
    exif = Image.Exif()
    exif[0x112] = 6  # orientation: turn a quarter to the right
    return drawn(seed, exif=exif)


READABLE = {
    "jpeg": drawn(1),
    "progressive": drawn(1, progressive=True),
    "cmyk": drawn(1, mode="CMYK"),
    "grey": drawn(1, mode="L"),
    "palette": drawn(1, mode="P", form="PNG"),
    "one bit": drawn(1, mode="1", form="PNG"),
    "alpha": drawn(1, mode="RGBA", form="PNG"),
    "16 bit": saved(GREY16, "PNG"),
    "16 bit tiff": saved(GREY16, "TIFF"),
    "animated": saved(
        Image.open(io.BytesIO(drawn(1))), "GIF", save_all=True, append_images=[Image.new("RGB", (24, 20))]
    ),
    "webp": drawn(1, form="WEBP"),
    "bmp": drawn(1, form="BMP"),
    "rotated": rotated(1),
}


@pytest.mark.parametrize("name", READABLE)
def test_every_kind_is_kept_byte_for_byte(name):
    data = READABLE[name]
    assert check_image(data, max_pixels=MANY) == data
    assert check_image(data, max_pixels=MANY, side=20) == data  # not larger than asked for


@pytest.mark.parametrize("name", READABLE)
def test_shrinking_keeps_what_is_seen(name):
    before = READABLE[name]
    after = Image.open(io.BytesIO(check_image(before, max_pixels=MANY, side=10)))
    assert after.size == ((10, 12) if name == "rotated" else (12, 10))
    assert after.format == ("PNG" if name == "alpha" else "JPEG")
    seen = np.asarray(to_rgb(Image.open(io.BytesIO(before)))).astype(float)
    assert abs(seen.mean() - np.asarray(to_rgb(after)).mean()) < 4


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.asarray(to_rgb(GREY16))
    assert values.min() == 0 and values.max() == 255 and abs(values.mean() - 127.5) < 1


@pytest.mark.parametrize("name", ["jpeg", "progressive", "palette", "16 bit", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_images_are_refused(name, share):
    data = READABLE[name]
    found = check_image(data[: int(len(data) * share)], max_pixels=MANY)
    assert isinstance(found, Bad) and found.reason == "unreadable image"


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"%PDF-1.4", b"\xff\xd8\xff", drawn(1, form="EPS")])
def test_what_is_no_image_is_refused(data):
    assert check_image(data, max_pixels=MANY).reason == "unreadable image"


def test_the_catalog_decides_how_many_pixels_are_too_many():
    bomb = saved(Image.new("1", (20_000, 20_000)), "PNG")  # 400 million pixels in 50 kB
    assert check_image(bomb, max_pixels=100_000_000) == Bad(
        "image has too many pixels", "20000 x 20000, data.max_image_pixels is 100000000"
    )
    assert check_image(drawn(1), max_pixels=24 * 20) == drawn(1)
    assert check_image(drawn(1), max_pixels=24 * 20 - 1).reason == "image has too many pixels"


def test_cells_are_paths_or_bytes(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert read_image("a.jpg", tmp_path) == b"x"
    assert read_image(" a.jpg ", tmp_path) == b"x"
    assert read_image(str(tmp_path / "a.jpg"), tmp_path / "elsewhere") == b"x"
    assert read_image(b"y", tmp_path) == b"y"
    assert read_image("b.jpg", tmp_path) == Bad("no such image", str(tmp_path / "b.jpg"))
    assert read_image(".", tmp_path).reason == "image file cannot be opened"
    assert read_image("a\0b", tmp_path).reason == "image file cannot be opened"
    assert read_image("https://shop.example/a.jpg", tmp_path).reason == "URL was not downloaded"
    assert not is_url("C:/images/a.jpg")


class NeverScaled(Preprocess):
    """Fails where a picture is resampled."""

    def _scale(self, image, size):
        raise AssertionError(f"scaled to {size}")


def test_pictures_of_the_model_s_size_are_never_resampled(tmp_path):
    """Stored shrunk to the model's size, they go through shard, store and reader to the tensor as they were decoded."""
    stored = [check_image(drawn(n, size=(96, 96)), max_pixels=10**6, side=32) for n in range(4)]
    assert check_image(stored[0], max_pixels=10**6, side=32) is stored[0], "nor are they encoded again"
    side = {"image": Field(Modality.image)}
    with ShardWriter(tmp_path, "documents", side=side) as writer:
        for number, data in enumerate(stored):
            writer.write(str(number), {"image": data})
    for resize in ("squash", "shortest", "longest"):
        preprocess = NeverScaled((32, 32), (0.0,) * 3, (1.0,) * 3, tokens=None, resize=resize)
        batch = SideReader(RecordStore(tmp_path, "documents", side), side, preprocess)(np.arange(4))
        expected = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in stored])
        assert (batch.fields["image"].permute(0, 2, 3, 1).numpy() == expected).all()
        with pytest.raises(AssertionError, match="scaled to"):
            preprocess.image(drawn(0, size=(50, 44)))
