"""A model that an agent shares with this process."""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import tempfile
import threading
import time
from types import MappingProxyType
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Tuple

from ._agent import AgentError, Change, Connection, LeaseLost
from ._safetensors import SafeFile


def open_model(
    name: str,
    *,
    agent: Optional[str] = None,
    timeout: Optional[float] = None,
    copy_on_write: bool = False,
) -> "Model":
    """Opens a model that the agent of this machine holds.

    `name` is `MODEL@VERSION`, or `MODEL` for the version that became ready last. `agent` is the path of the agent's
    socket [default: WEIGHTVAULT_AGENT, else /run/weightvault/agent.sock]. A model that is on its way is waited for, for
    `timeout` seconds at most.

    Views are read-only: a program that writes to a tensor of torch, which knows no read-only tensors, is ended by the
    kernel. With `copy_on_write` a page that is written to becomes this process's own. Such a copy is beyond the agent:
    it is not wiped when the lease ends, and may be swapped or dumped.

    Raises `AgentError` where no agent answers in time, `Refused` where it does not give the model.
    """
    if any(char.isspace() for char in name):
        raise ValueError(f"{name!r} is no name of a model")
    connection = Connection(agent, f"v1 open {name}", timeout)
    files: Dict[str, _File] = {}
    try:
        while True:
            frame, descriptor = connection.answer(timeout)
            kind = frame["frame"]
            if descriptor is not None:
                file = _File(descriptor, frame["bytes"], copy_on_write)
                path = frame["path"]
                if not _lies_within(path) or path in files:
                    file.close()
                    raise AgentError(f"the agent names a file {path!r}")
                files[path] = file
            elif kind == "ready":
                return Model(connection, frame["model"], frame["version"], files)
            elif kind != "loading":
                raise AgentError(f"the agent answers with {kind!r}")
    except BaseException:
        connection.close()
        for file in files.values():
            file.close()
        raise


def _lies_within(path: Any) -> bool:
    """Whether a path leads to a place below whatever it is joined to: `directory` makes links by it."""
    return isinstance(path, str) and "\0" not in path and all(part not in ("", ".", "..") for part in path.split("/"))


class Model:
    """The files of a model, over memory that is shared with everybody who has it open.

    Safe for use by several threads. Views stay where they are when it is closed; their memory is given back when the last
    of them goes.
    """

    def __init__(self, connection: Connection, name: str, version: str, files: Dict[str, "_File"]) -> None:
        self.name = name
        self.version = version
        self._connection = connection
        self._files = files
        self._change: Optional[Change] = None
        self._wiped_at = float("inf")
        # One thread at a time listens, and keeps no other from the files.
        self._listening = threading.Lock()
        self._lock = threading.Lock()
        self._directory: Optional[str] = None
        self._closed = False

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()

    def __repr__(self) -> str:
        return f"<weightvault.Model {self.name}@{self.version}, {len(self._files)} files>"

    @property
    def files(self) -> Mapping[str, int]:
        """The length of each file, by its path in the model."""
        return MappingProxyType({path: file.length for path, file in self._files.items()})

    @property
    def change(self) -> Optional[Change]:
        """What is known of the end of its lease: `None` as long as that is far. Does not wait."""
        self._hear(0)
        return self._change

    def check(self) -> None:
        """Raises `LeaseLost` where the memory is wiped, or may be. Cheap: call it when a batch is done. Whatever was read
        before a call that raises nothing was the model: readers are told before the memory is touched."""
        change = self.change
        if change is not None and (change.state == "gone" or time.monotonic() >= self._wiped_at):
            raise LeaseLost(change.why, change.message)

    def wait(self, timeout: Optional[float] = None) -> Optional[Change]:
        """Waits for the next change; `None` where none came in time. After `gone` nothing changes any more."""
        before = self._change
        if before is not None and before.state == "gone":
            return before
        self._hear(timeout)
        return None if self._change is before else self._change

    def on_change(self, tell: Callable[[Change], None]) -> threading.Thread:
        """Calls `tell` with each change, from a thread of its own that ends with the model and holds up no exit."""

        def listen() -> None:
            while not self._closed:
                change = self.wait(1.0)
                if change is not None:
                    tell(change)
                    if change.state == "gone":
                        return

        thread = threading.Thread(target=listen, name=f"weightvault {self.name}", daemon=True)
        thread.start()
        return thread

    def buffer(self, path: str) -> memoryview:
        """The bytes of a file, without a copy."""
        return memoryview(self._mapping(path))

    def read(self, path: str) -> bytes:
        """A copy of the bytes of a file: for configurations and tokenizers."""
        return bytes(self.buffer(path))

    def path(self, path: str) -> str:
        """A name by which this process alone can open the file anew, to read."""
        self.check()
        return f"/proc/self/fd/{self._file(path).descriptor}"

    def directory(self) -> str:
        """A directory with links to all files, for libraries that want one: it holds no plaintext. Only this process can
        follow the links, not one that it starts. It is removed when the model is closed."""
        self.check()
        with self._lock:
            if self._directory is None:
                made = tempfile.mkdtemp(prefix="weightvault-")
                self._directory = made
                for path, file in self._files.items():
                    link = os.path.join(made, path)
                    os.makedirs(os.path.dirname(link), exist_ok=True)
                    os.symlink(f"/proc/self/fd/{file.descriptor}", link)
            return self._directory

    def safe_open(self, path: str, framework: str = "np", device: Any = None) -> SafeFile:
        """A safetensors file, as `safetensors.safe_open` gives it, whose tensors are views of the shared memory.
        `framework` is `np` or `pt`; `device` is where torch is to copy tensors to, if anywhere."""
        return SafeFile(self._mapping(path), framework, device, self.check)

    def tensors(self, framework: str = "np", device: Any = None) -> Iterator[Tuple[str, Any]]:
        """Name and tensor of all safetensors files, file by file in the order of their paths."""
        for path in sorted(self._files):
            if path.endswith(".safetensors"):
                with self.safe_open(path, framework, device) as file:
                    for name in file.offset_keys():
                        yield name, file.get_tensor(name)

    def state_dict(self, framework: str = "pt", device: Any = None) -> Dict[str, Any]:
        """The same as a dictionary."""
        return dict(self.tensors(framework, device))

    def fileno(self) -> int:
        """For `select` and event loops: readable when there is something for `change` to see."""
        return self._connection.socket.fileno()

    def close(self) -> None:
        """Gives the model back. Views that are still held stay, and the agent wipes their memory at the end of the lease."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for file in self._files.values():
                file.close()
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
        try:
            # Wakes whoever listens, who would otherwise listen to whatever has this number next.
            self._connection.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        with self._listening:
            self._connection.close()

    def _file(self, path: str) -> "_File":
        if self._closed:
            raise ValueError("the model is closed")
        if path not in self._files:
            raise KeyError(f"{self.name}@{self.version} has no file {path!r}")
        return self._files[path]

    def _mapping(self, path: str) -> Any:
        self.check()
        with self._lock:
            return self._file(path).mapping()

    def _hear(self, timeout: Optional[float]) -> None:
        """Takes in what the agent says: with no time to wait all that it has said, else the next change."""
        # Without time to wait, another thread that listens does it.
        if not self._listening.acquire(blocking=timeout != 0):
            return
        try:
            while not self._closed and (self._change is None or self._change.state != "gone"):
                try:
                    heard = self._connection.frame(timeout)
                except TimeoutError:
                    return
                except AgentError as error:
                    heard = ({"frame": "gone", "why": "agent-gone", "message": str(error)}, None)
                if self._closed:
                    return
                if heard is None:
                    # It was killed: what it shared is wiped soon, or was left to nobody.
                    message = "the agent ended without a word"
                    heard = ({"frame": "gone", "why": "agent-gone", "message": message}, None)
                self._take_in(*heard)
                if timeout != 0:
                    return
        finally:
            self._listening.release()

    def _take_in(self, frame: Dict[str, Any], descriptor: Optional[int]) -> None:
        if descriptor is not None:
            os.close(descriptor)
        elif frame["frame"] in ("draining", "gone"):
            seconds = frame.get("seconds", 0)
            self._wiped_at = time.monotonic() + seconds
            self._change = Change(frame["frame"], frame["why"], frame["message"], seconds)


class _File:
    """A descriptor, and its mapping from the first use on."""

    def __init__(self, descriptor: int, length: int, copy_on_write: bool) -> None:
        self.descriptor = descriptor
        self.length = length
        self._access = mmap.ACCESS_COPY if copy_on_write else mmap.ACCESS_READ
        self._mapping: Optional[mmap.mmap] = None

    def mapping(self) -> Any:
        if self.length == 0:
            return b""
        if self._mapping is None:
            self._mapping = mmap.mmap(self.descriptor, self.length, access=self._access)
        return self._mapping

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        # Unmapped when the last view of it goes.
        self._mapping = None
