"""A callback that kills its own process with signal 9 at a chosen moment; given to a run by its config."""

import os
import signal

import lightning.pytorch as pl
import torch

from gcl.lit import checkpoint


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


class Killer(pl.Callback):
    """moment: "writing" (half of a checkpoint's bytes are on the disk), "renaming" (between a checkpoint and its DONE
    file) or "validating" (in the middle of the corpus); the first such moment after `step` steps."""

    def __init__(self, moment: str, step: int) -> None:
        self.moment, self.step = moment, step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step != self.step:
            return
        if self.moment == "writing":
            checkpoint.torch.save = self._save_half
        elif self.moment == "renaming":
            checkpoint.os.replace = self._rename_once
        else:
            self.calls = 0
            module.encoder.embed_fields = self._counting(module.encoder.embed_fields)

    def _save_half(self, state, sink):
        class Half:
            def write(self, data):
                written = sink.write(bytes(data)[: len(data) // 2])
                sink.file.flush()
                die()
                return written

            def flush(self):
                sink.flush()

        torch.serialization.save(state, Half())

    def _rename_once(self, source, target, rename=os.replace):
        rename(source, target)
        die()

    def _counting(self, embed):
        def counting(*arguments, **options):
            self.calls += 1
            if self.calls == 3:
                die()
            return embed(*arguments, **options)

        return counting
