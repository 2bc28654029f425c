"""What passes between a reader and an agent: one line out, frames in (FORMAT.md, "Readers of an agent")."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

DEFAULT_AGENT = "/run/weightvault/agent.sock"
"""Where an agent listens unless it is told otherwise. The environment's WEIGHTVAULT_AGENT names another place."""

_FRAME_BYTES_MAX = 256 << 10
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0x40000000)


class WeightVaultError(Exception):
    """Whatever goes wrong between this process and its agent."""


class AgentError(WeightVaultError):
    """No agent, or one that does not say what it must."""


class Refused(WeightVaultError):
    """The agent does not give the model. `code` is stable, the text is for a person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


class LeaseLost(WeightVaultError):
    """The model is gone: its memory reads as zeros. `why` is stable: `lease-lost`, `lease-revoked`, `unloaded`,
    `agent-stopped`, or `agent-gone` where the agent ended without a word."""

    def __init__(self, why: str, message: str = "") -> None:
        super().__init__(message or why)
        self.why = why


class Change(NamedTuple):
    """What became of a model."""

    state: str
    """`draining`: it stays for `seconds` more. `gone`: its memory is wiped."""
    why: str
    """A stable name, as in `LeaseLost.why`."""
    message: str
    """For a person."""
    seconds: int
    """Until the memory is wiped; 0 when it is."""


class ModelInfo(NamedTuple):
    """One model of an agent's list."""

    model: str
    version: str
    state: str
    """`loading`, `ready`, `draining` or `gone`."""
    files: int
    bytes: int
    seconds: int
    """Of a ready model: until its lease ends unless it is renewed."""
    problem: str


def list_models(agent: Optional[str] = None, timeout: float = 10.0) -> List[ModelInfo]:
    """What the agent has.

    Raises `AgentError`, and `Refused` where this user may not have models.
    """
    with Connection(agent, "v1 list", timeout) as connection:
        frame = connection.expect("models", timeout)
    fields = ModelInfo._fields
    return [ModelInfo(**{name: model[name] for name in fields}) for model in frame["models"]]


class Connection:
    """A request that was sent, and the frames that answer it."""

    def __init__(self, agent: Optional[str], line: str, timeout: Optional[float]) -> None:
        self.path = agent or os.environ.get("WEIGHTVAULT_AGENT") or DEFAULT_AGENT
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._received = b""
        self._descriptors: List[int] = []
        try:
            self.socket.settimeout(timeout)
            self.socket.connect(self.path)
        except OSError as error:
            self.socket.close()
            raise AgentError(f"no agent at {self.path}: {error}") from error
        try:
            self.socket.sendall(line.encode() + b"\n")
        except OSError:
            # Whoever may not ask is told so before he does, and that can still be read.
            pass

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; the agent counts one reader less."""
        self.socket.close()
        while self._descriptors:
            os.close(self._descriptors.pop())

    def frame(self, timeout: Optional[float]) -> Optional[Tuple[Dict[str, Any], Optional[int]]]:
        """The next frame and the descriptor that came with it; `None` where the agent has closed the connection.

        Raises `TimeoutError` where none came in time: what came of one is kept.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            frame = self._take()
            if frame is not None:
                return frame
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._receive(left):
                return None

    def expect(self, kind: str, timeout: Optional[float]) -> Dict[str, Any]:
        """The next frame, which must be of this kind."""
        found = self.answer(timeout)
        if found[0]["frame"] != kind or found[1] is not None:
            raise AgentError(f"{self.path} answers with {found[0]['frame']!r} instead of {kind!r}")
        return found[0]

    def answer(self, timeout: Optional[float]) -> Tuple[Dict[str, Any], Optional[int]]:
        """The next frame, where there must be one. Raises `Refused`."""
        try:
            found = self.frame(timeout)
        except TimeoutError as error:
            raise AgentError(f"{self.path} took too long to answer") from error
        if found is None:
            raise AgentError(f"{self.path} closed the connection without an answer")
        if found[0]["frame"] == "refused":
            raise Refused(found[0]["code"], found[0]["message"])
        return found

    def _take(self) -> Optional[Tuple[Dict[str, Any], Optional[int]]]:
        if len(self._received) < 4:
            return None
        (length,) = struct.unpack(">I", self._received[:4])
        if length > _FRAME_BYTES_MAX:
            raise AgentError(f"{self.path} sends a frame of {length} bytes")
        if len(self._received) < 4 + length:
            return None
        text, self._received = self._received[4 : 4 + length], self._received[4 + length :]
        try:
            frame = json.loads(text)
            kind = frame["frame"]
        except (ValueError, TypeError, KeyError) as error:
            raise AgentError(f"{self.path} sends what is no frame") from error
        if kind != "file":
            return frame, None
        if not self._descriptors:
            raise AgentError(f"{self.path} sends a file without a descriptor")
        return frame, self._descriptors.pop(0)

    def _receive(self, timeout: Optional[float]) -> bool:
        # Without blocking, a time of zero takes what is there.
        self.socket.settimeout(timeout)
        try:
            data, descriptors, _, _ = socket.recv_fds(self.socket, 64 << 10, 1, _CLOEXEC)
        except BlockingIOError as error:
            raise TimeoutError("nothing there") from error
        except socket.timeout as error:
            raise TimeoutError("nothing in time") from error
        except OSError:
            # As if it were closed: there is no more to hear.
            return False
        self._received += data
        self._descriptors.extend(descriptors)
        return bool(data)
