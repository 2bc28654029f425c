"""A program that knows nothing of a vault: llama.cpp reads a file, embeds two sentences, and prints what came of it as JSON.

llama_embed.py FILE
"""

import json
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.embedding = True
params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
params.n_ctx = params.n_batch = params.n_ubatch = 256
params.n_parallel = 1
# The same sums in the same order at each run.
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.warmup = False
params.verbosity = -1
server = xllamacpp.Server(params)
answer = server.handle_embeddings({"input": ["weights stay where they are", "a second sentence"], "model": "minilm"})
print("embeddings", json.dumps([entry["embedding"] for entry in answer["data"]]))
