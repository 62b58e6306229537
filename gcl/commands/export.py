"""`gcl export run=… out=…`: a run's best model, where open_clip and Hugging Face load it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gcl.commands.say import say, speak_plainly
from gcl.config import load_config, options_from
from gcl.mistakes import ConfigError
from gcl.runs import RunFolder


@dataclass
class ExportOptions:
    """run: a run folder. out: the folder to write. checkpoint: another checkpoint than the best."""

    run: str = "???"
    out: str | None = None
    checkpoint: str | None = None


def export_words(words: Sequence[str]) -> Path:
    speak_plainly()
    options = options_from(ExportOptions, words, command="gcl export run=outputs/… out=my_model")
    run = RunFolder(Path(options.run)).check()
    out = Path(options.out) if options.out else run.path / "export"
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"out={out} is not empty: name a new folder, or empty this one.")

    from gcl.commands.contestants import tuned_encoder
    from gcl.export.card import write_card
    from gcl.export.open_clip import export_open_clip

    config = load_config(run.config)
    encoder = tuned_encoder(run, checkpoint=Path(options.checkpoint) if options.checkpoint else None)
    export_open_clip(encoder, out)
    metrics = json.loads(run.metrics.read_text()) if run.metrics.is_file() else {}
    text_cfg = json.loads((out / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    notes = ["open_clip brings this model's tokenizer itself."]
    if text_cfg.get("hf_model_name"):
        notes = [
            "open_clip looks for the text tower and tokenizer where `hf_model_name` and `hf_tokenizer_name` of "
            "open_clip_config.json say: after moving the folder, set both to its new path."
        ]
    elif text_cfg.get("hf_tokenizer_name"):
        notes = ["The tokenizer's files are in this folder."]
    card = write_card(
        notes=notes,
        name=out.name,
        base_model=config.model.name.removeprefix("hf-hub:"),
        schema=config.data.schema,
        metrics=metrics,
        headline=config.evaluate.headline,
        training={
            "catalog": config.data.name,
            "pairs a batch": config.train.batch_size,
            "epochs": config.train.epochs,
            "learning rate": config.optim.learning_rate,
            "loss": config.loss.form.value,
            "score to weight": config.loss.score_to_weight["_target_"].rpartition(".")[2],
            "seed": config.seed,
        },
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    say(f'Exported to {out}. Load it with open_clip.create_model_and_transforms("local-dir:{out}").')
    return out
