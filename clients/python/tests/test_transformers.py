"""A real model by the transformers library, over an agent that runs. Skipped where torch or transformers are not installed.

WEIGHTVAULT_AGENT: its socket. WEIGHTVAULT_TEST_MODEL: MODEL@VERSION. WEIGHTVAULT_TEST_PLAIN: the plain files.
"""

import importlib.util
import os
import unittest

MODEL = os.environ["WEIGHTVAULT_TEST_MODEL"]
PLAIN = os.environ["WEIGHTVAULT_TEST_PLAIN"]


@unittest.skipUnless(all(map(importlib.util.find_spec, ("torch", "transformers"))), "no torch, or no transformers")
class Embeddings(unittest.TestCase):
    def test_embeddings_equal_those_of_the_plain_files(self):
        import torch
        import transformers
        from weightvault.transformers import from_pretrained

        tokenizer = from_pretrained(MODEL, transformers.AutoTokenizer)
        words = tokenizer(["weights stay where they are", "a second sentence"], padding=True, return_tensors="pt")

        def embed(model):
            with torch.inference_mode():
                return model.eval()(**words).last_hidden_state.mean(1)

        shared = from_pretrained(MODEL)
        plain = transformers.AutoModel.from_pretrained(PLAIN, local_files_only=True)
        self.assertTrue(torch.equal(embed(shared), embed(plain)))
        self.assertGreater(float(embed(shared).abs().sum()), 0)
        for loaded in (tokenizer, shared):
            loaded.weightvault.check()
            loaded.weightvault.close()

    def test_tensors_can_be_the_weights_of_a_module_without_a_copy(self):
        import torch
        import transformers
        import weightvault

        with weightvault.open_model(MODEL) as model:
            config = transformers.AutoConfig.from_pretrained(model.directory(), local_files_only=True)
            module = transformers.AutoModel.from_config(config)
            module.load_state_dict(model.state_dict("pt"), strict=False, assign=True)
            found = {parameter.data_ptr() for parameter in module.parameters()}
            shared = {tensor.data_ptr() for tensor in model.state_dict("pt").values()}
            self.assertGreater(len(found & shared), 100)
            ids = torch.tensor([[101, 2023, 102]])
            plain = transformers.AutoModel.from_pretrained(PLAIN, local_files_only=True)
            with torch.inference_mode():
                self.assertTrue(torch.equal(module.eval()(ids).last_hidden_state, plain.eval()(ids).last_hidden_state))


if __name__ == "__main__":
    unittest.main()
