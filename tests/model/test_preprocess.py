import io
import pickle

import numpy as np
import open_clip
import PIL
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageOps

from gcl.model.preprocess import Preprocess
from gcl.model.tokens import Tokens

MODES = ["squash", "shortest", "longest"]


def photo(height, width, seed=0):
    """Smooth areas, edges and fine grain, as in a product photo: uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 60 * np.sin(x / rng.uniform(3, 40) + c) * np.cos(y / rng.uniform(3, 40)) for c in range(3)]
    image = np.stack(waves, axis=-1) + rng.normal(0, 8, (height, width, 3))
    image[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(60, 196, 3)
    return image.clip(0, 255).astype(np.uint8)


def encoded(image, kind, **options):
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def jpeg(height=70, width=90, seed=0, **options):
    return encoded(Image.fromarray(photo(height, width, seed)), "JPEG", quality=92, **options)


def reader(size=32, **options):
    size = (size, size) if isinstance(size, int) else size
    return Preprocess(size=size, mean=(0.0,) * 3, std=(1.0,) * 3, tokens=None, **options)


def by_open_clip(data, pp, *, upright=True):
    cfg = PreprocessCfg(
        pp.size, mean=pp.mean, std=pp.std, interpolation=pp.interpolation, resize_mode=pp.resize, fill_color=pp.fill
    )
    image = Image.open(io.BytesIO(data))
    return image_transform_v2(cfg, is_train=False)(ImageOps.exif_transpose(image) if upright else image) * 255


def assert_within_one(data, pp):
    assert (pp.image(data) - by_open_clip(data, pp)).abs().round().max() <= 1


def assert_same(data, pp, **options):
    ours = pp.image(data)
    assert ours.dtype == torch.uint8 and ours.shape == (3, *pp.size) and ours.is_contiguous()
    difference = (ours - by_open_clip(data, pp, **options)).abs().round()
    assert difference.max() <= 1
    assert difference.mean() <= 0.3


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "shape", [(70, 90), (90, 70), (33, 32), (31, 200), (200, 31), (20, 20), (12, 50), (1, 1), (2, 3), (64, 64)]
)
def test_pixels_equal_open_clip(shape, mode, interpolation):
    assert_same(jpeg(*shape), reader(resize=mode, interpolation=interpolation))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(40))
def test_pixels_equal_open_clip_at_any_size(seed, mode):
    height, width, target = np.random.default_rng(seed).integers([8, 8, 8], [400, 400, 130])
    pp = reader(int(target), resize=mode)
    assert_same(jpeg(height, width, seed, subsampling=seed % 3, progressive=seed % 2 == 1), pp)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_next_to_black_and_white_too(interpolation, mode):
    """Noise of black and white: every pixel is cut off between the two passes, whose order varies with the shape."""
    shapes = [(300, 200), (200, 300), (230, 90), (120, 90), (420, 30), (30, 420), (1000, 300), (197, 130), (196, 130)]
    for seed, shape in enumerate(shapes):
        noise = np.random.default_rng(seed).integers(0, 2, (*shape, 3), dtype=np.uint8) * 255
        data = encoded(Image.fromarray(noise), "PNG")
        for size in (64, 224):
            assert_within_one(data, reader(size, resize=mode, interpolation=interpolation))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(24, 40), (40, 24)])
def test_targets_need_not_be_square(size, mode):
    for shape in [(70, 90), (90, 70), (20, 60)]:
        assert_same(jpeg(*shape), reader(size, resize=mode))


def test_padding_has_the_models_colour():
    pp = reader(resize="longest", fill=127)
    assert_same(jpeg(40, 80), pp)
    assert pp.image(jpeg(40, 80))[:, 0].eq(127).all()


def odd_images():
    rgb = Image.fromarray(photo(70, 90))
    alpha = Image.fromarray(photo(70, 90, 1)[:, :, 0])
    rgba = Image.merge("RGBA", (*rgb.split(), alpha))
    palette = rgb.quantize(64)
    see_through = palette.copy()
    see_through.info["transparency"] = 3
    frames = [Image.fromarray(photo(70, 90, seed)).quantize(32) for seed in range(3)]
    yield "cmyk jpeg", encoded(rgb.convert("CMYK"), "JPEG", quality=92)
    yield "grey jpeg", encoded(rgb.convert("L"), "JPEG", quality=92)
    yield "progressive jpeg", encoded(rgb, "JPEG", progressive=True, subsampling=2)
    yield "rgb jpeg", encoded(rgb, "JPEG", keep_rgb=True)
    yield "jpeg with a tail", encoded(rgb, "JPEG") + b"\0" * 100 + b"tail"
    yield "png", encoded(rgb, "PNG")
    yield "palette png", encoded(palette, "PNG")
    yield "transparent palette png", encoded(see_through, "PNG", transparency=3)
    yield "alpha png", encoded(rgba, "PNG")
    yield "grey alpha png", encoded(rgba.convert("LA"), "PNG")
    yield "grey png", encoded(rgb.convert("L"), "PNG")
    yield "bilevel png", encoded(rgb.convert("1"), "PNG")
    yield "webp", encoded(rgb, "WEBP", quality=90)
    yield "alpha webp", encoded(rgba, "WEBP", lossless=True)
    yield "gif", encoded(palette, "GIF")
    yield "animated gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    yield "bmp", encoded(rgb, "BMP")
    yield "tiff", encoded(rgb, "TIFF")
    if int(PIL.__version__.split(".")[0]) >= 13:  # earlier ones do not read their own file
        yield "lab tiff", encoded(rgb.convert("YCbCr"), "TIFF")


ODD = dict(odd_images())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", list(ODD))
def test_odd_images_equal_open_clip(name, mode):
    assert_same(ODD[name], reader(resize=mode))


@pytest.mark.parametrize("name", list(ODD))
def test_odd_images_equal_open_clip_without_resizing(name):
    assert_same(ODD[name], reader((70, 90)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", MODES)
def test_sixteen_bits_of_grey_are_the_same_grey(kind, mode):
    """open_clip and Pillow make everything above 255 of 65,535 white."""
    grey = photo(70, 90)[:, :, 0]
    deep, pp = Image.fromarray(grey.astype(np.uint16) * 256 + 200), reader(resize=mode)
    assert torch.equal(pp.image(encoded(deep, kind)), pp.image(encoded(Image.fromarray(grey), "PNG")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(photo(50, 80)), kind, exif=exif)
    pp = reader(40, resize="shortest")
    assert_same(data, pp)
    if orientation != 1:
        assert (pp.image(data) - by_open_clip(data, pp, upright=False)).abs().max() > 20


@pytest.mark.parametrize("mode", MODES)
def test_at_its_size_nothing_is_resized(mode):
    data = encoded(Image.fromarray(photo(32, 32)), "PNG")
    assert torch.equal(reader(resize=mode).image(data), torch.from_numpy(photo(32, 32)).permute(2, 0, 1))


BROKEN = {
    "empty": b"",
    "two bytes": b"\xff\xd8",
    "broken head": b"\xff\xd8\xff\xe0 no jpeg",
    "html": b"<html>404</html>",
    "cut jpeg": jpeg()[:-900],
    "cut png": encoded(Image.fromarray(photo(70, 90)), "PNG")[:5000],
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_broken_images_are_a_value_error(data):
    with pytest.raises(ValueError, match="no image that can be decoded"):
        reader().image(data)


def test_postscript_is_never_drawn():
    with pytest.raises(ValueError, match="no image"):
        reader().image(encoded(Image.fromarray(photo(9, 9)), "EPS"))


def test_a_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="decompression bomb"):
        reader().image(jpeg(70, 90))


def test_scaled_decoding_is_near():
    data = jpeg(700, 900)
    exact, scaled = reader(64).image(data), reader(64, decode="scaled").image(data)
    difference = (exact.float() - scaled.float()).abs()
    assert 0 < difference.mean() < 1.5
    small = jpeg(100, 120)  # less than twice the target: nothing to gain, nothing changes
    assert torch.equal(reader(64).image(small), reader(64, decode="scaled").image(small))


def test_augmented_images_follow_their_seed():
    pp, data = reader(32, crop=0.5), jpeg(70, 90)
    draw = lambda seed: pp.augment(data, np.random.default_rng(seed))  # noqa: E731
    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    assert draw(1).shape == (3, 32, 32) and draw(1).dtype == torch.uint8
    assert torch.equal(reader(32, crop=1.0).augment(data, np.random.default_rng(0)), pp.image(data))
    assert pp.augment(ODD["palette png"], np.random.default_rng(0)).shape == (3, 32, 32)


@pytest.mark.parametrize("setting", [{"resize": "crop"}, {"decode": "fast"}, {"crop": 0.0}])
def test_impossible_settings_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        reader(**setting)


def test_it_pickles():
    pp = Preprocess((32, 32), (0.5,) * 3, (0.5,) * 3, Tokens(open_clip.get_tokenizer("ViT-B-32"), 20))
    copy = pickle.loads(pickle.dumps(pp))
    data = jpeg()
    assert torch.equal(copy.image(data), pp.image(data))
    assert torch.equal(copy.text(["a mug"]), pp.text(["a mug"]))


def test_texts_are_the_tokenizers_own_at_the_context_length():
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    texts = ["A Blue &amp; white  mug", "", "café", "mug " * 100]
    out = Tokens(tokenizer, 20)(texts)
    assert out.dtype == torch.int64 and torch.equal(out, tokenizer(texts, context_length=20))
