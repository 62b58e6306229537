"""A stand-in for the Hugging Face Hub on loopback: the routes that a push uses, with repositories in memory."""

import base64
import hashlib
import json
import re
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_secretOfTheStandIn"
LFS_FROM = 1_000  # bytes: what is larger goes by LFS


class Hub:
    """What the server holds. repos: {name: {"private", "branches": {branch: {path: bytes}}, "requests": […]}}.

    cut_after: bytes of an LFS object after which its connections are cut; broken: status that commits answer.
    """

    def __init__(self):
        self.repos, self.objects, self.calls, self.tokens = {}, {}, [], set()
        self.cut_after = self.broken = None
        self.writable = "shop"

    def add(self, name, *, private=False, files=()):
        self.repos[name] = {"private": private, "branches": {"main": dict(files)}, "requests": []}

    def files(self, name, branch="main"):
        return self.repos[name]["branches"][branch]


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self):
        return self.server.hub

    def log_message(self, *words):
        pass

    def _say(self, status, content=None, headers=()):
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def _begin(self):
        self.url = urlsplit(self.path)
        self.words = unquote(self.url.path).strip("/").split("/")
        self.hub.calls.append(f"{self.command} {self.url.path}")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.words[0] != "lfs":
            self.hub.tokens.add(token)
        return self.words[0] == "lfs" or token == TOKEN

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        if not self._begin():
            self._say(401, {"error": "Invalid username or password."})
        elif self.words[:2] == ["api", "whoami-v2"]:
            self._say(200, {"type": "user", "name": "ann", "orgs": []})
        elif self.words[:2] == ["api", "models"] and "/".join(self.words[2:4]) in self.hub.repos:
            name = "/".join(self.words[2:4])
            sha = hashlib.sha1(repr(self.hub.repos[name]["branches"]).encode()).hexdigest()
            self._say(200, {"id": name, "private": self.hub.repos[name]["private"], "sha": sha, "siblings": []})
        else:
            self._say(404, {"error": "Repository not found"}, [("X-Error-Code", "RepoNotFound")])

    def do_POST(self):
        body, known = None, self._begin()
        body = self._body()
        if not known:
            return self._say(401, {"error": "Invalid username or password."})
        if self.words == ["api", "validate-yaml"]:
            return self._say(200, {"errors": [], "warnings": []})
        if self.words == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        if "lfs" in self.words:
            return self._batch(json.loads(body))
        name, action = "/".join(self.words[2:4]), self.words[4]
        if name.split("/")[0] != self.hub.writable:
            return self._say(403, {"error": f"You have no write access to {name}"})
        repo = self.hub.repos[name]
        if action == "branch":
            repo["branches"].setdefault(self.words[5], dict(repo["branches"]["main"]))
            return self._say(200, {})
        files = repo["branches"].get(self.words[5])
        if files is None:
            return self._say(404, {"error": "Revision not found"}, [("X-Error-Code", "RevisionNotFound")])
        if action == "preupload":
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if file["size"] > LFS_FROM else "regular",
                 "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            return self._say(200, {"files": modes})
        return self._commit(name, files, [json.loads(line) for line in body.splitlines() if line.strip()])

    def _create(self, asked):
        name = f"{asked.get('organization') or 'ann'}/{asked['name']}"
        if name.split("/")[0] != self.hub.writable:
            return self._say(403, {"error": f"You don't have the rights to create a model under {name.split('/')[0]}"})
        private = asked.get("private", asked.get("visibility") == "private")
        self.hub.add(name, private=bool(private))
        return self._say(200, {"url": f"{self._base()}/{name}", "name": name})

    def _batch(self, asked):
        objects = []
        for one in asked["objects"]:
            entry = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.objects:
                entry["actions"] = {"upload": {"href": f"{self._base()}/lfs/{one['oid']}", "header": {}}}
            objects.append(entry)
        return self._say(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name, files, lines):
        if self.hub.broken:
            return self._say(self.hub.broken, {"error": "try later"})
        target, request = files, "create_pr" in parse_qs(self.url.query)
        if request:
            target = {}
            self.hub.repos[name]["requests"].append(target)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                target[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                target[value["path"]] = self.hub.objects[value["oid"]]
        answer = {"commitOid": "0" * 40, "commitUrl": f"{self._base()}/{name}/commit/{'0' * 40}"}
        if request:
            answer["pullRequestUrl"] = f"{self._base()}/{name}/discussions/1"
        return self._say(200, answer)

    def do_PUT(self):
        self._begin()
        oid = self.words[1]
        assert re.fullmatch("[0-9a-f]{64}", oid)
        if self.hub.cut_after is not None:
            self.rfile.read(min(self.hub.cut_after, int(self.headers.get("Content-Length", 2000)) // 2))
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = self._body()
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self._say(200)

    def _base(self):
        return f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def served():
    """(the Hub's contents, its address)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    server.hub = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
