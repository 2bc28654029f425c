"""A loader for vLLM, by its public registration: `vllm serve DIR --load-format weightvault`.

The package's entry point in `vllm.general_plugins` registers it in every process of vLLM. `DIR` has the configuration and the
tokenizer; the weights come from the agent. `--model-loader-extra-config` takes JSON with `model` (`MODEL@VERSION`; needed),
`agent` (path of the socket) and `timeout` (seconds).
"""

from __future__ import annotations

from typing import Any

LOAD_FORMAT = "weightvault"
_OPTIONS = {"model", "agent", "timeout"}


def register() -> None:
    """Makes the load format known to vLLM in this process. May be called more than once."""
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    from ._model import open_model

    class WeightVaultLoader(BaseModelLoader):  # type: ignore[misc]
        """Weights out of an agent's memory."""

        def __init__(self, load_config: Any) -> None:
            super().__init__(load_config)
            options = dict(load_config.model_loader_extra_config or {})
            unknown = set(options) - _OPTIONS
            if unknown or "model" not in options:
                raise ValueError(f"model_loader_extra_config takes model (needed), agent and timeout, not {unknown or '{}'}")
            self._name = options.pop("model")
            self._options = options

        def download_model(self, model_config: Any) -> None:
            """Nothing: the agent has it."""

        def load_weights(self, model: Any, model_config: Any) -> None:
            """Hands all tensors to the model, which copies its share of them to its device."""
            with open_model(self._name, **self._options) as opened:
                model.load_weights(opened.tensors("pt"))
                # What was read after the end of a lease is zeros.
                opened.check()

    register_model_loader(LOAD_FORMAT)(WeightVaultLoader)
