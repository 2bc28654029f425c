"""Models of the transformers library out of an agent's memory."""

from __future__ import annotations

from typing import Any, Optional

from ._model import open_model


def from_pretrained(
    name: str, auto: Any = None, *, agent: Optional[str] = None, timeout: Optional[float] = None, **kwargs: Any
) -> Any:
    """As `auto.from_pretrained` (`AutoModel` unless named: `AutoTokenizer`, `AutoModelForCausalLM`, …) of a directory, with
    the model that the agent holds. Nothing is fetched from anywhere else, and no code of the model is run unless
    `trust_remote_code` says so.

    What it gives has the `weightvault.Model` as its attribute `weightvault`: ask that for the state of the lease, and
    close it when the model is done with.
    """
    if auto is None:
        from transformers import AutoModel as auto
    model = open_model(name, agent=agent, timeout=timeout)
    try:
        loaded = auto.from_pretrained(model.directory(), local_files_only=True, **kwargs)
    except BaseException:
        model.close()
        raise
    loaded.weightvault = model
    return loaded
