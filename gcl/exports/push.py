"""An exported folder to the Hugging Face Hub, without loading torch.

Everything goes into one commit, so a repository holds the whole export or nothing of it. The Hub recognises what an
interrupted upload has transferred by its checksum, and the same call continues from there.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars

from gcl.errors import ConfigError
from gcl.exports.folder import EMBEDDINGS, settled
from gcl.exports.formats.registry import FORMATS

_OPEN_CLIP = FORMATS["open_clip"].marker
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_MARKERS = (*(format.marker for format in FORMATS.values()), EMBEDDINGS)
_REFUSED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")  # pickles, which no export writes


class PushError(ValueError):
    """Why nothing, or not everything, arrived. The same command can be given again."""


@dataclass(frozen=True)
class Target:
    """Where to push: a model repository "owner/name", a branch of it (None: main), or a pull request to main.

    private: whether a new repository is private; None: as the owner's settings say. endpoint: None: HF_ENDPOINT's Hub.
    """

    repo: str
    private: bool | None = None
    revision: str | None = None
    pull_request: bool = False
    endpoint: str | None = None

    def check(self) -> Target:
        """Itself; ConfigError if repository, branch and pull request do not fit together."""
        if not _NAME.fullmatch(self.repo):
            raise ConfigError(f"push={self.repo}: a repository of the Hub is written owner/name.")
        if self.pull_request and self.revision not in (None, "main"):
            raise ConfigError(
                f"pull_request=true goes to the main branch, but revision={self.revision} is given: leave one out."
            )
        return self

    def reach(self) -> bool:
        """Whether the repository exists. Raises PushError for whatever would stop an upload; call it before the work
        that leads to one."""
        self.check()
        token, api = self._token(), self._api()
        with _told(self, token):
            api.whoami(token=token)
            try:
                repository = api.repo_info(self.repo, repo_type="model", token=token)
            except RepositoryNotFoundError:
                if self.pull_request:
                    raise PushError(
                        f"{self.repo} does not exist on {api.endpoint}, or your token may not see it: a pull request "
                        "needs a repository. Leave pull_request out to make one."
                    ) from None
                return False
            if self.private is not None and bool(repository.private) != self.private:
                have, want = ("private", "false") if repository.private else ("public", "true")
                raise PushError(
                    f"{self.repo} exists and is {have}, but private={want} is requested. Change it in the settings of "
                    "the repository, or leave private out."
                )
            return True

    def upload(self, folder: Path, *, report: Callable[[str], None] = lambda _: None) -> str:
        """Sends the folder in one commit and returns the address of the commit or the pull request.

        Raises PushError with a sentence; after it the same call continues where this one stopped.
        """
        files = exported_files(folder)
        exists = self.reach()
        token, api = self._token(), self._api()
        if not sys.stderr.isatty():  # a bar in a log file is hundreds of lines
            disable_progress_bars()
        size = sum((folder / name).stat().st_size for name in files)
        with _told(self, token):
            if exists:
                report(f"{self.repo} exists: a commit is added, files of the same names are replaced, others stay.")
            else:
                api.create_repo(self.repo, repo_type="model", private=self.private, exist_ok=True, token=token)
                report(f"Made {api.endpoint}/{self.repo}.")
            if self.revision not in (None, "main"):
                api.create_branch(self.repo, branch=self.revision, repo_type="model", exist_ok=True, token=token)
            report(f"Uploading {len(files)} files, {size / 1e6:,.1f} MB …")
            commit = api.create_commit(
                self.repo, [self._operation(folder, name) for name in files], commit_message="Export of gcl",
                repo_type="model", revision=self.revision, create_pr=self.pull_request, token=token,
            )  # fmt: skip
        return commit.pr_url or str(commit.commit_url)

    def _operation(self, folder: Path, name: str) -> CommitOperationAdd:
        if name != _OPEN_CLIP:
            return CommitOperationAdd(name, str(folder / name))
        before = (folder / name).read_bytes()
        config = json.loads(before)
        there = settled(config, self.repo)  # open_clip looks for the tokenizer in the repository, not in a local path
        changed = (json.dumps(there, indent=2, ensure_ascii=False) + "\n").encode()
        return CommitOperationAdd(name, before if there == config else changed)

    def _api(self) -> HfApi:
        return HfApi(endpoint=self.endpoint)

    def _token(self) -> str:
        if constants.HF_HUB_OFFLINE:
            raise PushError(
                "HF_HUB_OFFLINE=1 is set, which forbids every request to the Hub: unset it to push to "
                f"{self.repo}, for example HF_HUB_OFFLINE=0 gcl push …"
            )
        token = get_token()
        if token is None:
            raise PushError(
                f"No token for {self._api().endpoint}: log in with `hf auth login`, or set HF_TOKEN to one that may "
                f"write to {self.repo}."
            )
        return token


def exported_files(folder: Path) -> list[str]:
    """The files of a folder that are pushed: all but hidden ones. Raises PushError for a folder that is no export."""
    if not folder.is_dir():
        raise PushError(f"out={folder}: there is no such folder. `gcl export run=… out={folder}` writes it.")
    if not any((folder / name).exists() for name in _MARKERS):
        raise PushError(f"out={folder} is no exported folder: it has none of {', '.join(_MARKERS)}.")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    if foreign := [name for name in names if name.endswith(_REFUSED)]:
        raise PushError(f"{folder / foreign[0]} may hold a pickle, and no export does: move it elsewhere.")
    return names


@contextmanager
def _told(target: Target, token: str) -> Iterator[None]:
    """Failures of the Hub and the network become one sentence each, without the token."""
    try:
        yield
    except PushError:
        raise
    except OfflineModeIsEnabled as error:
        raise PushError(f"Requests to the Hub are forbidden (HF_HUB_OFFLINE): {error}") from None
    except HFValidationError as error:
        raise ConfigError(f"push={target.repo}: {error}") from None
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise PushError(_sentence(target, error).replace(token, "…")) from None


def _sentence(target: Target, error: Exception) -> str:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    answers = [one.response for one in chain if isinstance(one, HfHubHTTPError) and one.response is not None]
    status, says = (answers[0].status_code, _server_says(answers[0])) if answers else (None, "")
    again = "Give the same command again: what has arrived is not sent twice."
    if status == 401:
        return "The Hub does not accept the token (401): it is wrong or has expired. Log in anew with `hf auth login`."
    if status == 403:
        return (
            f"The token may not write to {target.repo} (403): take one with write access to it, or another owner.{says}"
        )
    if status == 404:
        place = f"{target.repo} or its revision {target.revision or 'main'}"
        return f"The Hub does not know {place} (404).{says}"
    if status == 409:
        return f"{target.repo} was changed by somebody else meanwhile (409). {again}"
    if status is not None:
        return f"The Hub answered {status} while pushing to {target.repo}.{says} {again}"
    why = str(chain[-1]).strip().split("\n")[0] or type(chain[-1]).__name__
    return f"The connection to the Hub failed ({why}): nothing of this export is visible in {target.repo}. {again}"


def _server_says(response: Any) -> str:
    try:
        said = response.json().get("error")
    except (json.JSONDecodeError, ValueError, AttributeError):
        return ""
    return f" It says: {said}" if said else ""
