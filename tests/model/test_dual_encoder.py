import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from gcl.data.batches.batch import Features, SideBatch
from gcl.model.load import load_model
from gcl.model.settings import LoadOptions
from gcl.schema import Field, Modality, Schema

TEXTS = ["blue striped mug", "red dress", "red dress", "running shoes for men 1 2 3 4 5 6 7 8 9", "the", "a mug"]


def batch_of(encoder, present=None, count=6, seed=0):
    height, width = encoder.preprocess.size
    pixels = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.manual_seed(seed))
    fields = {
        "image": pixels,
        "title": encoder.preprocess.text((TEXTS * count)[:count]),
        "brand": encoder.preprocess.text(["red dress", *TEXTS * count][:count]),
    }
    return SideBatch(fields, torch.ones(count, 3, dtype=torch.bool) if present is None else present)


def by_open_clip(encoder, batch):
    """The plain calls: every row of every field, normalised outside."""
    model, pp = encoder.model, encoder.preprocess
    mean, std = torch.tensor(pp.mean).view(3, 1, 1), torch.tensor(pp.std).view(3, 1, 1)
    image = (batch.fields["image"].float() / 255 - mean) / std
    columns = [
        model.encode_image(image),
        model.encode_text(batch.fields["title"]),
        model.encode_text(batch.fields["brand"]),
    ]
    return torch.stack([F.normalize(column, dim=-1) for column in columns], dim=1)


def count_calls(module):
    seen = []
    module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args or tuple(kwargs.values()))[0].shape), with_kwargs=True
    )
    return seen


@torch.no_grad()
def test_fields_equal_plain_open_clip(encoder):
    batch = batch_of(encoder)
    torch.testing.assert_close(encoder.embed_fields(batch, "document"), by_open_clip(encoder, batch), atol=1e-5, rtol=0)


@torch.no_grad()
def test_absent_fields_are_zero_and_change_no_other(encoder):
    present = torch.tensor([[1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    batch = batch_of(encoder, present)
    out = encoder.embed_fields(batch, "document")
    torch.testing.assert_close(out, by_open_clip(encoder, batch) * present[:, :, None], atol=1e-5, rtol=0)


@torch.no_grad()
def test_forward_fuses_with_the_schemas_weights(encoder):
    batch = batch_of(encoder)
    mean = (by_open_clip(encoder, batch) * torch.tensor([0.9, 0.1, 0.1])[:, None] / 1.1).sum(dim=1)
    torch.testing.assert_close(encoder(batch, "document"), F.normalize(mean, dim=-1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_one_call_a_tower_and_equal_texts_once(folders, schema):
    encoder = load_model(f"local-dir:{folders['custom']}", schema=schema).eval()
    text, image = count_calls(encoder.model.text.transformer), count_calls(encoder.model.visual.trunk)
    present = torch.ones(6, 3, dtype=torch.bool)
    present[4, 0] = present[5, 1] = False
    encoder.embed_fields(batch_of(encoder, present), "document")
    assert [shape[0] for shape in image] == [5]
    assert [shape[:2] for shape in text] == [(4, 16)]  # of eleven


@torch.no_grad()
@pytest.mark.parametrize("name", ["clip", "custom"])
def test_causal_text_is_the_same_at_its_own_length(folders, schema, name):
    encoder = load_model(f"local-dir:{folders[name]}", schema=schema).eval()
    tower = encoder.tower(Modality.text)
    for texts, length in [(["a"], 8), (TEXTS, 16), (["mug " * 60], 64), (["mug " * 200, "a"], 77), ([""], 8)]:
        tokens = encoder.preprocess.text(texts)
        assert tower.trim(tokens).shape[1] == length
        short = tower.head(encoder.trunk_features(Modality.text, tokens))
        torch.testing.assert_close(short, encoder.model.encode_text(tokens), atol=1e-5, rtol=0)


@torch.no_grad()
def test_siglip_text_keeps_its_padding(folders, schema):
    encoder = load_model(f"local-dir:{folders['siglip']}", schema=schema).eval()
    assert not encoder.tower(Modality.text).ignores_padding
    seen = count_calls(encoder.model.text.transformer)
    encoder.embed_fields(batch_of(encoder), "document")
    assert [shape[1] for shape in seen] == [64]


def test_gradient_equals_plain_open_clip(encoder):
    batch = batch_of(encoder)
    grads = []
    for embed in (lambda: encoder.embed_fields(batch, "document"), lambda: by_open_clip(encoder, batch)):
        encoder.zero_grad()
        torch.manual_seed(0)
        out = embed()
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        grads.append({n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[1].items():
        torch.testing.assert_close(grads[0][name], grad, atol=2e-5, rtol=2e-4, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("rows", ["none", "no image", "no text"])
def test_a_share_without_values_still_takes_part_in_the_gradient(encoder, rows):
    encoder.train()
    present = torch.ones(6, 3, dtype=torch.bool)
    present[:, 0] = rows != "no image"
    present[:, 1:] = rows != "no text"
    batch = batch_of(encoder, present)
    if rows == "none":
        batch = SideBatch({name: value[:0] for name, value in batch.fields.items()}, present[:0])
    out = encoder.embed_fields(batch, "document")
    assert out.shape[::2] == (len(batch.present), encoder.width) and out.requires_grad
    (out.sum() + 0).backward()
    missing = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    idle = encoder.model.visual if rows == "no image" else None
    if idle is not None:
        assert all(p.grad.abs().max() == 0 for p in idle.parameters())


def test_temperature_and_bias_come_from_the_checkpoint_and_belong_to_the_loss(encoder, kind):
    assert encoder.scale_bias == (3.5, -7.25 if kind == "siglip" else None)
    assert not encoder.model.logit_scale.requires_grad
    assert encoder.width == 16


def test_a_learned_temperature_and_bias_go_back_into_the_model(encoder):
    encoder.write_scale_bias(4.25)
    assert encoder.scale_bias[0] == 4.25
    encoder.write_scale_bias(4.0, -3.5)
    assert encoder.scale_bias == (4.0, -3.5)
    assert encoder.state_dict()["model.logit_bias"].item() == -3.5 and not encoder.model.logit_bias.requires_grad


def freeze_trunk(encoder, modality):
    part = encoder.tower(modality)
    for parameter in part.parameters():
        parameter.requires_grad_(False)
    for piece in part.head_parts:
        piece.requires_grad_(True)


@pytest.mark.parametrize("modality", list(Modality))
def test_a_frozen_trunk_rests_and_its_features_enter_at_the_head(encoder, modality):
    names = ["image"] if modality is Modality.image else ["title", "brand"]
    assert not encoder.frozen_trunk(modality)
    batch = batch_of(encoder)
    expected = encoder.embed_fields(batch, "document").detach()
    freeze_trunk(encoder, modality)
    assert encoder.frozen_trunk(modality)
    before = copy.deepcopy(encoder.state_dict())
    encoder.train()  # BatchNorm would take batch statistics, dropout would drop
    fields = dict(batch.fields)
    for name in names:
        fields[name] = Features(encoder.trunk_features(modality, fields[name]))
        assert not fields[name].value.requires_grad
    cached = encoder.embed_fields(SideBatch(fields, batch.present), "document")
    raw = encoder.embed_fields(batch, "document")
    columns = [i for i, name in enumerate(["image", "title", "brand"]) if name in names]
    torch.testing.assert_close(cached[:, columns], expected[:, columns], atol=1e-5, rtol=0)
    torch.testing.assert_close(raw[:, columns], expected[:, columns], atol=1e-5, rtol=0)
    raw[:, columns].sum().backward()
    part = encoder.tower(modality)
    heads = [p for piece in part.head_parts for p in (piece.parameters() if hasattr(piece, "parameters") else [piece])]
    assert heads and all(p.grad is not None for p in heads)
    trunk = {k: v for k, v in encoder.state_dict().items() if "running" in k or "num_batches" in k}
    assert all(torch.equal(before[k], v) for k, v in trunk.items() if modality is Modality.image)


def test_features_for_a_trained_trunk_are_refused(tiny):
    batch = batch_of(tiny)
    fields = {**batch.fields, "image": Features(torch.zeros(6, 4))}
    with pytest.raises(ValueError, match="trunk is being trained"):
        tiny.embed_fields(SideBatch(fields, batch.present), "document")


def test_raw_and_cached_fields_mix(folders):
    schema = Schema(
        query={"query": Field(Modality.text)},
        document={"front": Field(Modality.image), "title": Field(Modality.text), "back": Field(Modality.image)},
    )
    encoder = load_model(f"local-dir:{folders['custom']}", schema=schema).eval()
    freeze_trunk(encoder, Modality.image)
    plain = batch_of(encoder)
    present = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 1], [1, 1, 1]], dtype=torch.bool)
    raw = SideBatch(
        {"front": plain.fields["image"], "title": plain.fields["title"], "back": plain.fields["image"].flip(0)}, present
    )
    features = Features(encoder.trunk_features(Modality.image, raw.fields["back"]))
    mixed = SideBatch({**raw.fields, "back": features}, present)
    torch.testing.assert_close(encoder(mixed, "document"), encoder(raw, "document"), atol=1e-5, rtol=0)


@torch.no_grad()
def test_channels_last_changes_nothing_but_speed(folders, schema):
    plain, fast = (
        load_model(f"local-dir:{folders['custom']}", schema=schema, options=LoadOptions(channels_last=c)).eval()
        for c in (False, True)
    )
    batch = batch_of(plain)
    torch.testing.assert_close(fast(batch, "document"), plain(batch, "document"), atol=1e-5, rtol=0)


@torch.no_grad()
def test_another_schema_shares_the_towers(tiny):
    batch = batch_of(tiny)
    other = tiny.with_schema(Schema(query={"q": Field()}, document={"title": Field(weight=3.0)}))
    assert other.model is tiny.model and other.preprocess is tiny.preprocess and list(tiny.schema.document) != ["title"]
    alone = SideBatch({"title": batch.fields["title"]}, torch.ones(6, 1, dtype=torch.bool))
    torch.testing.assert_close(other(alone, "document"), tiny.embed_fields(batch, "document")[:, 1], atol=1e-6, rtol=0)
    assert tiny(batch, "document").shape == (6, 128)
    image = {id(p) for p in other.model.visual.parameters()}
    assert {id(p) for p in other.unused_parameters()} == image and not list(tiny.unused_parameters())


def test_state_is_the_models_alone_and_copies_are_whole(encoder, schema):
    assert all(name.startswith("model.") for name in encoder.state_dict())
    batch = batch_of(encoder)
    clone = copy.deepcopy(encoder)
    expected = encoder(batch, "document")
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    torch.testing.assert_close(clone(batch, "document"), expected)


def test_preprocess_pickles_without_the_model(encoder):
    data = pickle.dumps(encoder.preprocess)
    assert len(data) < 8e6
    assert torch.equal(pickle.loads(data).text(TEXTS), encoder.preprocess.text(TEXTS))


def test_autocast_gives_float32_unit_vectors(tiny):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = tiny(batch_of(tiny), "document")
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(6), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_model_in_bfloat16_still_gives_float32_unit_vectors(tiny):
    tiny.to(torch.bfloat16)
    out = tiny(batch_of(tiny), "document")
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(6), atol=1e-5, rtol=0)
