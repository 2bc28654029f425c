"""The loader, registered with a real vLLM, over an agent that runs. Skipped where vLLM is not installed.

WEIGHTVAULT_AGENT: its socket. WEIGHTVAULT_TEST_MODEL: MODEL@VERSION.
"""

import importlib.util
import os
import unittest


@unittest.skipUnless(importlib.util.find_spec("vllm"), "vLLM is not installed")
class Loader(unittest.TestCase):
    def test_it_is_registered_and_hands_all_tensors_to_the_model(self):
        from vllm.config.load import LoadConfig
        from vllm.model_executor.model_loader import get_model_loader

        import weightvault
        import weightvault.vllm

        weightvault.vllm.register()
        name = os.environ["WEIGHTVAULT_TEST_MODEL"]
        config = LoadConfig(load_format=weightvault.vllm.LOAD_FORMAT, model_loader_extra_config={"model": name})
        loader = get_model_loader(config)
        self.assertEqual(type(loader).__name__, "WeightVaultLoader")

        class Model:
            def load_weights(self, weights):
                self.found = {name: tensor.clone() for name, tensor in weights}

        model = Model()
        loader.download_model(None)
        loader.load_weights(model, None)
        with weightvault.open_model(name) as opened:
            expected = opened.state_dict("pt")
            self.assertEqual(set(model.found), set(expected))
            self.assertTrue(all(expected[name].equal(tensor) for name, tensor in model.found.items()))
        for wrong in ({}, {"model": name, "other": 1}):
            with self.assertRaises(ValueError):
                get_model_loader(
                    LoadConfig(load_format=weightvault.vllm.LOAD_FORMAT, model_loader_extra_config=wrong)
                )


if __name__ == "__main__":
    unittest.main()
