"""A page's server in this process, for as long as a browser looks at it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gcl.serve.listen import listen


@contextmanager
def answering(app) -> Iterator[str]:
    """The address of the app on loopback; the port is taken before it is known to anybody."""
    import uvicorn

    sockets = listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/"
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=(sockets,), daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(900)
