"""Where a run can begin: an earlier run, an exported folder, Marqo's published layouts."""

import json
import shutil

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from gcl.cli import main
from gcl.config.compose import load_config
from gcl.errors import ConfigError
from gcl.exports.formats.registry import FORMATS
from gcl.lit.checkpoint import read_checkpoint
from gcl.model.load import load_model
from gcl.model.settings import ModelConfig
from gcl.model.transformers.folder import MARQO
from gcl.run.build import assemble_encoder
from gcl.run.contestants import base_and_tuned, tuned_encoder
from helpers import transformers_models
from helpers.trained_shop import weights_of
from helpers.transformers_inputs import SCHEMA, TEXTS, embed, pictures


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name].cpu(), theirs[name].cpu()) for name in ours)


@pytest.fixture(scope="module")
def second(train, finished):
    """A run that began where `finished` ended."""
    return train(f"model.pretrained=run:{finished.path}", "train.max_steps=2", *weights_of(finished, "used"))


def test_a_run_begins_where_another_ended(second, finished):
    earlier = tuned_encoder(finished)
    base, tuned = base_and_tuned(second)
    assert same(base.encoder.state_dict(), earlier.state_dict())
    assert base.encoder.scale_bias == earlier.scale_bias
    assert not same(tuned.encoder.state_dict(), earlier.state_dict())
    first = json.loads(finished.metrics.read_text())["tuned"]
    again = json.loads(second.metrics.read_text())["base"]
    for task, values in first.items():
        assert again[task]["ndcg@10"] == pytest.approx(values["ndcg@10"], abs=1e-9)


def test_the_trained_model_does_not_need_the_earlier_run_any_more(train, finished, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(finished.path, moved)
    run = train(f"model.pretrained=run:{moved}", "train.max_steps=1")
    before = tuned_encoder(run).state_dict()
    shutil.rmtree(moved)
    assert same(tuned_encoder(run).state_dict(), before)
    with pytest.raises(ConfigError, match="there is no config.yaml"):
        base_and_tuned(run)


def test_adapters_of_an_earlier_run_are_merged(train, tmp_path):
    run = train("model.lora.rank=2", "train.max_steps=2", "optim.learning_rate=1e-2")
    model = ModelConfig(label="x", name="gcl-tiny", pretrained=f"run:{run.path}")
    begun = assemble_encoder(model, load_config(run.config).data.schema).eval()
    assert same(begun.model.state_dict(), tuned_encoder(run).model.state_dict())


def test_what_no_run_can_begin_from(finished, small, tmp_path):
    def begin(name, folder):
        model = ModelConfig(label="x", name=name, pretrained=f"run:{folder}")
        return assemble_encoder(model, SCHEMA)

    with pytest.raises(ValueError, match="does not fit: .*another architecture: set the run's model.name"):
        begin(f"local-dir:{small('clip').folder}", finished.path)
    with pytest.raises(ConfigError, match="there is no config.yaml, so this is not a run folder"):
        begin("gcl-tiny", tmp_path)
    (tmp_path / "config.yaml").write_bytes(finished.config.read_bytes())
    with pytest.raises(ConfigError, match="no checkpoints/best.ckpt"):
        begin("gcl-tiny", tmp_path)
    shutil.copytree(finished.checkpoints, tmp_path / "checkpoints")
    (tmp_path / "checkpoints/best.ckpt").write_bytes(b"x")
    with pytest.raises(ValueError, match="not a complete checkpoint"):
        begin("gcl-tiny", tmp_path)


def test_the_learned_temperature_comes_along(finished):
    model = ModelConfig(label="x", name="gcl-tiny", pretrained=f"run:{finished.path}")
    state = read_checkpoint(finished.best)["state_dict"]
    encoder = assemble_encoder(model, load_config(finished.config).data.schema)
    assert encoder.scale_bias[0] == pytest.approx(float(state["loss.log_scale"]))
    assert encoder.scale_bias[0] != pytest.approx(load_model("gcl-tiny", schema=SCHEMA).scale_bias[0], abs=1e-9)


def test_a_bias_that_was_learned_comes_along_to_a_base_that_has_none(train):
    assert load_model("gcl-tiny", schema=SCHEMA).scale_bias[1] is None
    run = train("loss=gcl_sigmoid", "train.max_steps=1", "loss.bias=-7")
    learned = float(read_checkpoint(run.best)["state_dict"]["loss.bias"])
    assert learned == pytest.approx(-7, abs=0.1) and learned != -7
    follower = train("loss=gcl_sigmoid", f"model.pretrained=run:{run.path}", "train.max_steps=1")
    base, tuned = base_and_tuned(follower)
    assert base.encoder.scale_bias[1] == learned
    assert tuned.encoder.scale_bias[1] != learned and tuned.encoder.scale_bias[1] == pytest.approx(learned, abs=0.1)


@pytest.mark.parametrize("layout", [pytest.param("open_clip", marks=pytest.mark.slow), "transformers"])
def test_a_run_begins_from_an_exported_folder(train, small, tmp_path, layout):
    """From a SigLIP folder: train, export, begin again from the export in either layout."""
    run = train(f"model.name=local-dir:{small('siglip-B').folder}", "model.label=small", "train.max_steps=1")
    tuned = tuned_encoder(run)
    for name in ("open_clip", "transformers"):
        FORMATS[name].write(tuned, tmp_path)
    if layout == "transformers":
        for name in ("open_clip_config.json", "open_clip_model.safetensors"):
            (tmp_path / name).unlink()
    again = load_model(f"local-dir:{tmp_path}", schema=SCHEMA)
    assert same(again.model.state_dict(), tuned.model.state_dict()) and again.scale_bias == tuned.scale_bias
    assert (embed(again.eval())[0] == embed(tuned)[0]).all()
    follower = train(f"model.name=local-dir:{tmp_path}", "model.label=small", "train.max_steps=1")
    assert same(base_and_tuned(follower)[0].encoder.state_dict(), tuned.state_dict())


@pytest.mark.slow
def test_the_command_s_folder_of_all_formats_begins_the_next_run(train, small, tmp_path):
    run = train(f"model.name=local-dir:{small('clip').folder}", "model.label=small", "train.max_steps=1")
    main(["export", f"run={run.path}", f"out={tmp_path / 'out'}"])
    notes = (tmp_path / "out" / "README.md").read_text()
    assert all(name in notes for name in ("open_clip", "transformers", "sentence_transformers", "onnxruntime"))
    follower = train(f"model.name=local-dir:{tmp_path / 'out'}", "model.label=small", "train.max_steps=1")
    tuned = tuned_encoder(run)
    assert same(base_and_tuned(follower)[0].encoder.state_dict(), tuned.state_dict())


def test_google_s_activation_where_timm_has_another(exported, small, tmp_path, caplog):
    """The vectors hardly move, and a warning says so; quick_gelu would be another model."""
    folder = tmp_path / "google"
    shutil.copytree(exported("siglip-B")[0], folder, ignore=shutil.ignore_patterns("open_clip*"))
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "gelu_pytorch_tanh"
    (folder / "config.json").write_text(json.dumps(config))
    encoder = load_model(f"local-dir:{folder}", schema=SCHEMA).eval()
    assert "trained with gelu_pytorch_tanh and is built with gelu" in caplog.text
    loaded = FORMATS["transformers"].load(folder).images(list(pictures().values()))
    assert (loaded * embed(encoder, images=pictures().values())[1]).sum(-1).min() > 0.99999
    config["vision_config"]["hidden_act"] = "quick_gelu"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="quick_gelu in its image tower"):
        load_model(f"local-dir:{folder}", schema=SCHEMA)


@pytest.fixture()
def marqo(small, tmp_path):
    """Marqo's class around an open_clip model: its weights under `model.`, code beside it that must not be needed."""
    folder, family = tmp_path / "marqo", small("siglip-B")
    shutil.copytree(family.folder, folder)
    state = load_file(folder / "open_clip_model.safetensors")
    save_file({f"model.{name}": value for name, value in state.items()}, folder / "model.safetensors")
    for name in ("open_clip_model.safetensors", "open_clip_config.json"):
        (folder / name).unlink()
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "small-marqo.json").write_text(json.dumps(transformers_models.FAMILIES["siglip-B"][0]))
    open_clip.add_model_config(tmp_path / "names")
    kind = "marqo_fashionSigLIP.MarqoFashionSigLIP"
    config = {
        "architectures": ["SigLIP"], "open_clip_model_name": "small-marqo",
        "auto_map": {"AutoConfig": f"{kind}Config", "AutoModel": kind, "AutoProcessor": f"{kind}Processor"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "marqo_fashionSigLIP.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).mkdir()\n"
        "class MarqoFashionSigLIP: pass\nMarqoFashionSigLIPConfig = MarqoFashionSigLIPProcessor = MarqoFashionSigLIP\n"
    )
    processor = {
        "image_processor_type": "SiglipImageProcessor", "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7],
        "size": {"height": 32, "width": 32}, "resample": 3, "auto_map": config["auto_map"],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_marqo_s_transformers_layout_needs_none_of_its_code(marqo, small, tmp_path):
    encoder = load_model(f"local-dir:{marqo}", schema=SCHEMA).eval()
    texts, images = embed(encoder, TEXTS, pictures().values())
    assert (texts == small("siglip-B").texts).all() and (images == small("siglip-B").images).all()
    assert not (tmp_path / "ran").exists()
    config = json.loads((marqo / "config.json").read_text())
    (marqo / "config.json").write_text(json.dumps(config | {"open_clip_model_name": "hf-hub:Somebody/else"}))
    with pytest.raises(ValueError, match="whose architecture is not known here; known are hf-hub:Marqo/"):
        load_model(f"local-dir:{marqo}", schema=SCHEMA)


def test_marqo_s_open_clip_layout_beside_that_code(marqo, small, tmp_path):
    """The published repositories hold both; the files of open_clip are read, the code is not."""
    for name in ("open_clip_model.safetensors", "open_clip_config.json"):
        shutil.copy(small("siglip-B").folder / name, marqo)
    encoder = load_model(f"local-dir:{marqo}", schema=SCHEMA).eval()
    assert (embed(encoder)[0] == small("siglip-B").texts).all()
    assert not (tmp_path / "ran").exists()


def test_marqo_s_names_are_open_clip_s():
    assert set(MARQO.values()) <= set(open_clip.list_models())
    large = open_clip.get_model_config(MARQO["hf-hub:Marqo/marqo-ecommerce-embeddings-L"])
    assert large["embed_dim"] == 1024 and large["vision_cfg"]["image_size"] == 256
