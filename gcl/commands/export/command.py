"""`gcl export run=… out=…`: a run's best model, in every form that others load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcl.commands.export.card import CardOptions, Ending
from gcl.commands.export.data import DataOptions, ExportData
from gcl.config.compose import load_config
from gcl.errors import ConfigError
from gcl.export.folder import EMBEDDINGS, check_free, whole
from gcl.run.console import quiet_libraries, say, speak_plainly
from gcl.run.folder import RunFolder


@dataclass
class ExportOptions(DataOptions, CardOptions):
    """run: a run folder. out: the folder to write. checkpoint: another checkpoint than the best.

    formats: what to write; null: every format that the architecture has and whose packages are installed, without
    embeddings. What the catalog is needed for: DataOptions. The card and the Hub: CardOptions.
    """

    run: str = "???"
    out: str | None = None
    checkpoint: str | None = None
    formats: list[str] | None = None


def run(options: ExportOptions) -> Path:
    speak_plainly()
    run = RunFolder(Path(options.run)).check()
    out = Path(options.out) if options.out else run.path / "export"
    check_free(out)
    if options.formats is not None and not options.formats:
        raise ConfigError("formats=[] writes nothing: name one, for example formats=[open_clip], or leave it out.")

    target = _target(options)

    from gcl.export.formats.open_clip import settle
    from gcl.export.formats.registry import choose, left_out
    from gcl.run.contestants import tuned_encoder

    quiet_libraries()
    config = load_config(run.config)
    checkpoint = Path(options.checkpoint) if options.checkpoint else None
    data = ExportData(options, options.formats, run, config)
    found = data.between(checkpoint)
    encoder = found.encoder if found else tuned_encoder(run, checkpoint=checkpoint)
    wanted = options.formats
    formats = choose(encoder, None if wanted is None else [name for name in wanted if name != EMBEDDINGS])
    if options.formats is None:
        for sentence in left_out(encoder):
            say(sentence)
    with whole(out) as folder:
        notes = {format.name: format.write(encoder, folder) for format in formats}
        notes |= data.write(encoder, folder, list(notes), found)
        more = {f"alpha {found.alpha:g}": found.means} if found else {}
        rows = found.record["results"] if found else ()
        best = checkpoint is None or checkpoint.resolve() == run.best.resolve()
        ending = Ending(run, config, options, out.name, lambda: data.prepared, more, data.sections, best, results=rows)
        ending.finish(encoder, folder, formats, notes)
        settle(folder, str(out.resolve()))
    say(f"Exported to {out}: {', '.join(notes)}. How each is loaded stands in {out / 'README.md'}.")
    if target is not None:
        _push(target, out)
    return out


def _target(options: ExportOptions) -> Any:
    """Where to push to, asked before the work begins: a token that is missing is told now."""
    if options.push is None:
        if options.private is not None or options.revision is not None or options.pull_request:
            raise ConfigError("private, revision and pull_request belong to push: give push=owner/name, too.")
        return None
    from gcl.export.push import Target

    target = Target(options.push, options.private, options.revision, options.pull_request)
    target.reach()
    return target


def _push(target: Any, out: Path) -> None:
    from gcl.export.push import PushError

    try:
        say(f"Pushed to {target.upload(out, report=say)}")
    except PushError as error:
        again = f"gcl push out={out} push={target.repo}"
        raise PushError(f"{error} The export stands in {out}; the push alone: {again}") from None
