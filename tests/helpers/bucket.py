"""A real S3 server on the loopback, with a bucket called "shop"."""

import os
from contextlib import contextmanager
from urllib.request import Request, urlopen

from gcl.data.store import remote_shards


@contextmanager
def s3_bucket():
    import s3fs
    from moto.server import ThreadedMotoServer

    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    before = dict(os.environ)
    os.environ.update(keys, AWS_ENDPOINT_URL=f"http://{host}:{port}")
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()  # what an earlier server held
    files = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    files.mkdir("shop")
    try:
        yield files
    finally:
        s3fs.S3FileSystem.clear_instance_cache()  # the next server listens on another port
        remote_shards._file_system.cache_clear()
        os.environ.clear()
        os.environ.update(before)
        running.stop()
