"""Writes all-MiniLM-L6-v2 as a GGUF file, with the library of llama.cpp.

make_gguf.py DIRECTORY FILE
"""

import json
import pathlib
import sys

import gguf
import safetensors.numpy

source = pathlib.Path(sys.argv[1])
config = json.loads((source / "config.json").read_text())
layers = config["num_hidden_layers"]
writer = gguf.GGUFWriter(sys.argv[2], "bert")
writer.add_name("all-MiniLM-L6-v2")
writer.add_block_count(layers)
writer.add_context_length(config["max_position_embeddings"])
writer.add_embedding_length(config["hidden_size"])
writer.add_feed_forward_length(config["intermediate_size"])
writer.add_head_count(config["num_attention_heads"])
writer.add_layer_norm_eps(config["layer_norm_eps"])
writer.add_causal_attention(False)
writer.add_pooling_type(gguf.PoolingType.MEAN)
writer.add_file_type(gguf.LlamaFileType.ALL_F32)

# Word pieces as llama.cpp has them: the start of a word is marked, not its continuation.
pieces = (source / "vocab.txt").read_text().splitlines()
special = [piece.startswith("[") and piece.endswith("]") for piece in pieces]
marked = [piece if is_special else piece[2:] if piece.startswith("##") else "\u2581" + piece
          for piece, is_special in zip(pieces, special)]
writer.add_tokenizer_model("bert")
writer.add_tokenizer_pre("jina-v2-en")
writer.add_token_list(marked)
writer.add_token_types([gguf.TokenType.CONTROL if is_special else gguf.TokenType.NORMAL for is_special in special])
writer.add_token_type_count(config["type_vocab_size"])
for add, piece in (
    (writer.add_unk_token_id, "[UNK]"),
    (writer.add_sep_token_id, "[SEP]"),
    (writer.add_pad_token_id, "[PAD]"),
    (writer.add_mask_token_id, "[MASK]"),
    (writer.add_bos_token_id, "[CLS]"),
    (writer.add_eos_token_id, "[SEP]"),
):
    add(pieces.index(piece))

names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
for name, tensor in safetensors.numpy.load_file(source / "model.safetensors").items():
    theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
    # The pooler, and the numbers of the positions: llama.cpp has no use for them.
    if theirs is not None:
        writer.add_tensor(theirs, tensor)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
