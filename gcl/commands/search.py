"""`gcl search run=…`: a run's base and tuned model over its catalog, as a local page or, with a query, as a table."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gcl.errors import ConfigError, install, missing_of
from gcl.files.progress import doing
from gcl.options import MISSING, mapping, number, path, typed
from gcl.run.console import say, speak_plainly
from gcl.run.early import check_contestant
from gcl.run.folder import RunFolder
from gcl.table import visible

EXAMPLE = 'gcl search run=outputs/… "red running shoes" k=5'


@dataclass
class SearchOptions:
    """Options of `gcl search`. Arguments that are not key=value are the text to search for."""

    run: str = path(MISSING)
    """A run folder."""
    models: list[str] = field(default_factory=list)
    """Models to show next to the run's base and tuned one, named as in evaluate.py: [siglip-B, run:outputs/…]."""
    text: str | None = typed()
    """What to search for; null: the page is served, unless an image is given."""
    picture: str | None = path()
    """An image file to search with, alone or together with a text."""
    k: int = number(10, least=1, most=100)
    """Number of results per model."""
    weights: dict[str, float] = mapping(least=0, most=1e6)
    """Weights of the document's fields, for example weights.image=0.5; the others keep the catalog's weights."""
    cache_dir: str | None = path()
    """The folder with prepared catalogs and embeddings; null: the run's own."""
    host: str = "127.0.0.1"
    """The address at which the page is served; 0.0.0.0 makes it reachable from the network."""
    port: int = number(8765, least=1, most=65_535)
    """The port at which the page is served."""
    hosts: list[str] = field(default_factory=list)
    """Further names under which the page is opened, for example [search.shop.example] behind a proxy; ["*"]: any."""
    urls: bool = False
    """Whether pictures in JSON may be http or https addresses, which the server then fetches; never private ones."""
    trust: list[str] = field(default_factory=list)
    """Packages whose objects the run's config may name, for example [my_package]."""


def run(options: SearchOptions) -> None:
    speak_plainly()
    if options.text is not None:
        options.text = " ".join(options.text.split())
        if not options.text:
            raise ConfigError(
                f"The search text is empty: give a text, or leave it out to open the page. For example: {EXAMPLE}"
            )
    picture = _read(options.picture) if options.picture else None
    asked = options.text is not None or picture is not None
    folder = RunFolder(Path(options.run), tuple(options.trust)).check()
    for name in options.models:
        check_contestant(name, trust=options.trust)
    if not asked:
        serve(folder, options)
        return
    _, engine, _ = open_engine(folder, options)
    weights = {**engine.weights, **options.weights} if options.weights else None
    if weights is not None and engine.by_query:
        say(f"{' and '.join(engine.by_query)}: the weights given here count, not those that its queries give.")
    results = engine.search(options.text, picture, k=options.k, weights=weights)
    say(table(engine, results, shutil.get_terminal_size((100, 24)).columns))


def open_engine(run: RunFolder, options: SearchOptions, *, columns: bool = False):
    """The catalog's name, base, tuned and further models over all its products, embedded or out of the cache, and the
    addresses of the products' own pages. columns: whether the products table is read, for filters and addresses."""
    with doing("Loading torch"):
        from gcl.data.prepare.mixed import open_catalog
        from gcl.data.prepare.sources import product_rows
        from gcl.model.dual_encoder import DualEncoder
        from gcl.retrieval.embedding.embed import EmbedOptions
        from gcl.run.contestants import both_encoders, contestants
        from gcl.run.measurement import embedding_cache, frozen_features
        from gcl.serve.engine import Engine
        from gcl.serve.facets import Columns, columns_of

    config = run.read_config()
    cache = options.cache_dir or config.cache_dir
    prepared = open_catalog(config.data, cache)
    config.cache_dir = cache
    encoders = dict(zip(("base", "tuned"), both_encoders(run, config.data.schema), strict=True))
    further = replace(config, run=None, models=options.models, trust=options.trust)
    for entry in contestants(further, config.data) if options.models else ():
        if not isinstance(entry.encoder, DualEncoder):
            raise ConfigError(
                f"models: {entry.label} brings embeddings or results that were made before; a search needs a model "
                "that embeds what is typed."
            )
        if entry.label in encoders:
            raise ConfigError(f"models: {entry.label} is what the run's own model is called: choose another name.")
        encoders[entry.label] = entry.encoder
    features = {label: frozen_features(one, prepared, config) for label, one in encoders.items()}
    embedding = EmbedOptions(config.evaluate.batch_size, cache=embedding_cache(config))
    known = columns_of(prepared.documents, product_rows(config.data, cache)) if columns else Columns()
    engine = Engine(encoders, prepared.documents, embedding, features=features, facets=known.facets)
    return config.data.name, engine, known.links


def serve(folder: RunFolder, options: SearchOptions) -> None:
    """Serves the page until interrupted. The port is taken first: what is wrong with it is said before models load."""
    need_serve()
    from gcl.serve.listen import LOOPBACK, close, listen, names_of

    host, port = options.host, options.port
    sockets = listen(host, port)
    try:
        from gcl.serve import server
        from gcl.serve.app import build_app
        from gcl.serve.pictures import Pictures

        name, engine, links = open_engine(folder, options, columns=True)
        pictures = Pictures(options.urls)
        app = build_app(engine, name=name, hosts=names_of(host, options.hosts), links=links, pictures=pictures)
        address = f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}"
        say(f"\nSearch {name} at {address}   (HTTP API: {address}/docs; stop with Ctrl-C)")
        if host not in LOOPBACK:
            say(f"host={host}: everyone who can reach this machine can search; there is no password.")
        server.serve(app, sockets)
    finally:
        close(sockets)


def table(engine, results: Mapping[str, list], width: int) -> str:
    """The results of each model in a column of its own, place by place."""
    from gcl.retrieval.page.details import Side

    side = Side(engine.documents)
    room = max(16, (width - 4) // len(results) - 2)
    lines = ["    " + "  ".join(label.ljust(room) for label in results).rstrip()]
    for place in range(max((len(hits) for hits in results.values()), default=0)):
        cells = []
        for hits in results.values():
            text = ""
            if place < len(hits):
                text = f"{hits[place].score:6.3f}  {visible(side.title(hits[place].row))}"
            cells.append((text if len(text) <= room else text[: room - 1] + "…").ljust(room))
        lines.append(f"{place + 1:>3} " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def _read(file: str) -> bytes:
    """The bytes of the image to search with. Raises ConfigError before the models are loaded."""
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"picture={file} cannot be read: {error.strerror}.") from error
    from gcl.data.images import check_image
    from gcl.data.tables.quarantine import Bad
    from gcl.serve.limits import PICTURE_PIXELS

    if isinstance(checked := check_image(data, max_pixels=PICTURE_PIXELS, limit="the limit"), Bad):
        raise ConfigError(f"picture={file} cannot be used: {checked}.")
    return data


def need_serve() -> None:
    """Raises ConfigError, before the models are loaded, if the page's packages are not installed."""
    if missing := missing_of(["fastapi", "uvicorn", "h11", "prometheus_client", "python_multipart"]):
        raise ConfigError(
            f"The page needs {', '.join(missing)}: {install('serve')}. A query on the command line does not: {EXAMPLE}"
        )
