"""One rank that computes the rotation of a run: `python -m helpers.rotation_rank RUN OUT`, started by torchrun on
several ranks, or alone. Rank 0 writes the digest that each rank has."""

import json
import os
import sys
from pathlib import Path

import torch

from gcl.data.prepare.mixed import open_catalog
from gcl.distributed.ranks import gather_objects
from gcl.retrieval.embedding.embed import EmbedOptions
from gcl.run.contestants import tuned_encoder
from gcl.run.folder import RunFolder
from gcl.run.rotation import rotation_of


def main(run: RunFolder, out: Path) -> None:
    torch.set_num_threads(1)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.distributed.init_process_group("gloo")
    config = run.read_config()
    rotation = rotation_of(
        tuned_encoder(run), open_catalog(config.data, config.cache_dir), EmbedOptions(batch_size=8, progress=False)
    )
    assert rotation is not None
    digests = gather_objects(rotation.digest)
    if int(os.environ.get("RANK", "0")) == 0:
        out.write_text(json.dumps(digests))


if __name__ == "__main__":
    main(RunFolder(Path(sys.argv[1])), Path(sys.argv[2]))
