"""Models that the agent of a Weight Vault holds, without a copy.

    import weightvault

    with weightvault.open_model("minilm@1.0") as model:
        with model.safe_open("model.safetensors", framework="pt") as weights:
            tensor = weights.get_tensor("embeddings.word_embeddings.weight")

A tensor is a read-only view of memory that the agent shares with every reader. It lasts as long as the agent's lease:
when that is lost the agent says so, gives the time that the vault's policy allows, and writes zeros over the memory.
`Model.check` raises `LeaseLost` then, as does everything that would make a new view.
"""

from pkgutil import extend_path

# The modules that are generated from `proto/weightvault/v1` have this name in front, too: one program can have both.
__path__ = extend_path(__path__, __name__)

from ._agent import (  # noqa: E402
    DEFAULT_AGENT,
    AgentError,
    Change,
    LeaseLost,
    ModelInfo,
    Refused,
    WeightVaultError,
    list_models,
)
from ._model import Model, open_model  # noqa: E402
from ._safetensors import SafeFile, SafeSlice  # noqa: E402

__all__ = [
    "DEFAULT_AGENT",
    "AgentError",
    "Change",
    "LeaseLost",
    "Model",
    "ModelInfo",
    "Refused",
    "SafeFile",
    "SafeSlice",
    "WeightVaultError",
    "list_models",
    "open_model",
]
