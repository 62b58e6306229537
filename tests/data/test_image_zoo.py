"""What prepare accepts, training decodes, and sees as it is: every format, mode, orientation and kind of damage."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gcl.data.doctor.images import look_at
from gcl.data.images import MOST_ELONGATED, check_image, decode, to_rgb
from gcl.data.tables.quarantine import Bad
from gcl.model.preprocess import Preprocess
from gcl.retrieval.page.thumbnails import small_picture

MANY = 10**8
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "MPO", "AVIF")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I;16B", "I", "F")
GARBAGE = b"b'Exif\\x00\\x00MM'"


def scene(mode="RGB", size=(40, 28)):
    """A picture that is darkest at the left and the top, so that every turn of it is another picture."""
    wide, high = size
    grey = np.linspace(0, 200, wide)[None, :] + np.linspace(0, 55, high)[:, None]
    if mode.startswith("I;16"):
        return Image.fromarray((grey * 257).astype(np.uint16))
    if mode in ("I", "F"):
        return Image.fromarray((grey * 257).astype(np.int32) if mode == "I" else grey.astype(np.float32))
    image = Image.fromarray(np.stack([grey, grey * 0.8, 255 - grey], -1).astype(np.uint8))
    if mode == "LAB":
        return Image.merge("LAB", image.split())
    return image.convert("RGBA").convert(mode) if mode in ("PA", "LA") and mode != "PA" else image.convert(mode)


def encoded(image, form, **options):
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def oriented(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def zoo():
    for form in FORMATS:
        for mode in MODES:
            try:
                yield f"{form} {mode}", encoded(scene(mode), form)
            except (OSError, ValueError, KeyError):  # the format has no such mode, or was not compiled in
                continue
    for form in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        for number in range(9):
            yield f"{form} orientation {number}", encoded(scene(), form, exif=oriented(number))
    for form in ("JPEG", "PNG", "WEBP"):
        yield f"{form} with garbage for EXIF", encoded(scene(), form, exif=GARBAGE)
    frames = [scene(size=(40, 28)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    for form in ("GIF", "PNG", "WEBP", "TIFF", "MPO"):
        yield f"{form} of two frames", encoded(scene(), form, save_all=True, append_images=frames)
    palette = scene().quantize(32)
    yield "PNG palette, a colour transparent", encoded(palette, "PNG", transparency=3)
    yield "PNG palette, every colour's alpha", encoded(palette, "PNG", transparency=bytes(range(0, 256, 8)))
    yield "GIF transparent", encoded(palette, "GIF", transparency=3)
    plain = encoded(scene(), "PNG")
    yield "PNG with 3 MB of text", with_chunk(plain, b"zTXt", b"c\0\0" + zlib.compress(b"x" * 3_000_000))
    yield "PNG with a broken profile", with_chunk(plain, b"iCCP", b"p\0\0" + b"no zlib")
    yield "PNG with a broken checksum beside its pixels", with_chunk(plain, b"tEXt", b"a\0b", checksum=7)
    yield "JPEG progressive CMYK", encoded(scene("CMYK"), "JPEG", progressive=True)
    yield (
        "JPEG with XMP that lies on its side",
        encoded(scene(), "JPEG", xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'),
    )
    yield "JPEG cut", encoded(scene(), "JPEG")[:-300]
    yield "PNG cut", plain[: len(plain) // 2]
    yield "one pixel", encoded(Image.new("RGB", (1, 1)), "PNG")


def with_chunk(png, name, data, checksum=None):
    """A PNG with one more chunk behind its header."""
    checksum = zlib.crc32(name + data) if checksum is None else checksum
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)
    return png[:33] + chunk + png[33:]


ZOO = dict(zoo())
PREPROCESS = {
    resize: Preprocess(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3, tokens=None, resize=resize)
    for resize in ("squash", "shortest", "longest")
}


def test_the_zoo_has_every_kind():
    assert len(ZOO) > 110 and {name.split()[0] for name in ZOO} > set(FORMATS) - {"AVIF"}


@pytest.mark.parametrize("name", ZOO)
def test_what_is_accepted_is_seen_alike_by_all_who_decode_it(name):
    data = ZOO[name]
    checked, shrunk = check_image(data, max_pixels=MANY), check_image(data, max_pixels=MANY, side=16)
    if isinstance(checked, Bad):
        assert "cut" in name and isinstance(shrunk, Bad) and look_at(data) is small_picture(data, 32) is None
        with pytest.raises(ValueError, match="no image that can be decoded"):
            PREPROCESS["squash"].image(data)
        return
    assert checked == data and look_at(data) and small_picture(data, 32)
    seen = np.asarray(to_rgb(decode(data))).astype(float)
    assert seen.shape[2] == 3
    if "two frames" in name:  # the first one
        assert seen[:, :10].mean() != pytest.approx(seen[:, -10:].mean(), abs=5)
    for preprocess in PREPROCESS.values():
        whole = preprocess.image(data).float()
        assert whole.shape == (3, 32, 32) and preprocess.augment(data, np.random.default_rng(0)).shape == (3, 32, 32)
    model = PREPROCESS["squash"].image(data).float().numpy()
    assert np.abs(model.mean((1, 2)) - seen.mean((0, 1))).max() < 12, "nothing became white or black on the way"
    assert (model[0, :, :8].mean() < model[0, :, -8:].mean()) == (seen[:, :8, 0].mean() < seen[:, -8:, 0].mean())
    after = PREPROCESS["squash"].image(shrunk).float().numpy()
    assert np.abs(after.mean((1, 2)) - model.mean((1, 2))).max() < 12


def test_what_is_transparent_keeps_its_colour_when_it_is_shrunk():
    cutout = scene("RGBA")
    cutout.putalpha(0)
    shrunk = check_image(encoded(cutout, "PNG"), max_pixels=MANY, side=16)
    small, whole = (
        np.asarray(to_rgb(decode(data)).resize((8, 8))).astype(float) for data in (shrunk, encoded(cutout, "PNG"))
    )
    assert Image.open(io.BytesIO(shrunk)).mode == "RGBA" and np.abs(small - whole).mean() < 8


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_deep_grey_is_the_grey_it_was(mode):
    data = encoded(scene(mode), "TIFF")
    expected = np.asarray(scene("F"))
    assert np.abs(np.asarray(decode(data)).astype(float) - expected).max() < 2


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (3, 301)])
def test_what_would_blow_up_is_refused_by_name_and_never_resized_whole(size):
    data = encoded(Image.new("L", size), "PNG")
    bad = check_image(data, max_pixels=MANY)
    assert bad.reason == "image is too elongated" and f"{size[0]} x {size[1]}" in bad.detail
    assert check_image(data, max_pixels=MANY, side=16).reason == "image is too elongated"
    for preprocess in PREPROCESS.values():  # of a folder that was prepared before
        assert preprocess.image(data).shape == (3, 32, 32)
    longest = encoded(Image.new("L", (MOST_ELONGATED, 1)), "PNG")
    assert check_image(longest, max_pixels=MANY) == longest


def test_a_heic_photo_is_an_image_where_its_decoder_is_installed():
    pytest.importorskip("pillow_heif").register_heif_opener()
    photo = encoded(Image.new("RGB", (64, 48), (200, 10, 10)), "HEIF")
    assert check_image(photo, max_pixels=MANY) == photo
    assert np.abs(np.asarray(decode(photo).resize((1, 1))).reshape(3) - np.array([200, 10, 10])).max() < 8
    assert "HEIC photo: damaged" in check_image(photo[:200], max_pixels=MANY).detail


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"  \n", "white space"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(100), "HEIC photo"),
        (b"\0\0\0\x18ftypmp42" + bytes(100), "video"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"PK\3\4", "ZIP"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"%!PS-Adobe-3.0 EPSF", "PostScript"),
        (b'{"error": 404}', "JSON"),
    ],
)
def test_what_is_recognised_is_called_by_its_name(data, said):
    bad = check_image(data, max_pixels=MANY)
    assert bad.reason == "unreadable image" and said in bad.detail
