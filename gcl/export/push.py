"""An exported folder to the Hugging Face Hub. Imports nothing but huggingface_hub: a folder is pushed without torch.

Everything goes into one commit, so a repository holds the whole export or nothing of it. What an interrupted upload has
brought over is found again by its checksum, and the same call goes on from there.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
from gcl.export.folder import settled

_OPEN_CLIP = "open_clip_config.json"
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_MARKS = (_OPEN_CLIP, "config.json", "modules.json", "onnx/config.json", "embeddings")
_REFUSED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")  # pickles, which no export writes


class PushError(ValueError):
    """Why nothing, or not everything, arrived. The same command can be given again."""


@dataclass(frozen=True)
class Target:
    """Where to: a model repository "owner/name", a branch of it (None: main), or a pull request to its main branch.

    private: of a repository that is made; None: as the owner's settings say. endpoint: another Hub than HF_ENDPOINT's.
    """

    repo: str
    private: bool | None = None
    revision: str | None = None
    pull_request: bool = False
    endpoint: str | None = None

    def check(self) -> Target:
        """Itself, if the words make sense; ConfigError otherwise."""
        if not _NAME.fullmatch(self.repo):
            raise ConfigError(f"push={self.repo}: a repository of the Hub is written owner/name.")
        if self.pull_request and self.revision not in (None, "main"):
            raise ConfigError(
                f"pull_request=true goes to the main branch, but revision={self.revision} is given: leave one out."
            )
        return self

    def reach(self) -> bool:
        """Whether the repository exists. Raises PushError for whatever would stop an upload: to be asked before the
        work that leads to one."""
        self.check()
        token, api = self._token(), self._api()
        with _told(self, token):
            api.whoami(token=token)
            try:
                found = api.repo_info(self.repo, repo_type="model", token=token)
            except RepositoryNotFoundError:
                if self.pull_request:
                    raise PushError(
                        f"{self.repo} does not exist on {api.endpoint}, or your token may not see it: a pull request "
                        "needs a repository. Leave pull_request out to make one."
                    ) from None
                return False
            if self.private is not None and bool(found.private) != self.private:
                have, want = ("private", "false") if found.private else ("public", "true")
                raise PushError(
                    f"{self.repo} exists and is {have}, but private={want} is asked. Change it in the settings of the "
                    "repository, or leave private out."
                )
            return True

    def upload(self, folder: Path, *, report: Callable[[str], None] = lambda _: None) -> str:
        """Sends the folder in one commit and returns the address of the commit or the pull request.

        Raises PushError with a sentence; after it the same call goes on where the last one stopped.
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
    """What of a folder is pushed: every file, hidden ones left out. Raises PushError for one that is no export."""
    if not folder.is_dir():
        raise PushError(f"out={folder}: there is no such folder. `gcl export run=… out={folder}` writes it.")
    if not any((folder / name).exists() for name in _MARKS):
        raise PushError(f"out={folder} is no exported folder: there is none of {', '.join(_MARKS)} in it.")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    if foreign := [name for name in names if name.endswith(_REFUSED)]:
        raise PushError(f"{folder / foreign[0]} may hold a pickle, and no export does: move it elsewhere.")
    return names


@contextmanager
def _told(target: Target, token: str) -> Iterator[None]:
    """Failures of the Hub and the network as a sentence each, without the token."""
    try:
        yield
    except PushError:
        raise
    except OfflineModeIsEnabled as error:
        raise PushError(f"The Hub may not be asked (HF_HUB_OFFLINE): {error}") from None
    except HFValidationError as error:
        raise ConfigError(f"push={target.repo}: {error}") from None
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise PushError(_sentence(target, error).replace(token, "…")) from None


def _sentence(target: Target, error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HfHubHTTPError):
        cause = cause.__cause__
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) and cause.response is not None else None
    again = "Give the same command again: what has arrived is not sent twice."
    if status == 401:
        return "The Hub does not accept the token (401): it is wrong or has expired. Log in anew with `hf auth login`."
    if status == 403:
        return (
            f"The token may not write to {target.repo} (403): take one with write access to it, or another owner."
            f"{_server_says(cause)}"
        )
    if status == 404:
        place = f"{target.repo} or its revision {target.revision or 'main'}"
        return f"The Hub does not know {place} (404).{_server_says(cause)}"
    if status == 409:
        return f"{target.repo} was changed by somebody else meanwhile (409). {again}"
    if status is not None:
        return f"The Hub answered {status} while pushing to {target.repo}.{_server_says(cause)} {again}"
    last = error
    while last.__cause__ is not None:
        last = last.__cause__
    why = str(last).strip().split("\n")[0] or type(last).__name__
    return f"The connection to the Hub failed ({why}): nothing of this export is visible in {target.repo}. {again}"


def _server_says(error: HfHubHTTPError) -> str:
    try:
        said = error.response.json().get("error")
    except (json.JSONDecodeError, ValueError, AttributeError):
        return ""
    return f" It says: {said}" if said else ""
