# Encrypted tensorizer (CoreWeave): `tensorizer.py MODEL PLACE` serializes the tensors of MODEL encrypted to PLACE, loads them to
# tensors in memory of this process, and prints what|seconds|user|system, and bytes|what|bytes. Every tensor is compared.
import glob
import os
import resource
import sys
import time

import torch
from safetensors.torch import load_file
from tensorizer import DecryptionParams, EncryptionParams, TensorDeserializer, TensorSerializer

WHAT = "tensorizer, encrypted"
model, place = sys.argv[1:3]
plain = {}
for file in sorted(glob.glob(os.path.join(model, "*.safetensors"))):
    plain.update(load_file(file))
size = sum(tensor.numel() * tensor.element_size() for tensor in plain.values())
key = EncryptionParams.random()
sealed = os.path.join(place, "model.tensors")
serializer = TensorSerializer(sealed, encryption=key)
serializer.write_state_dict(plain)
serializer.close()


def spent():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


before, begun = spent(), time.monotonic()
decryption = DecryptionParams.from_key(key.key)
loaded = TensorDeserializer(sealed, device="cpu", encryption=decryption, num_readers=os.cpu_count())
tensors = {name: loaded[name] for name in loaded.keys()}
seconds = time.monotonic() - begun
user, system = (now - then for now, then in zip(spent(), before))
if set(tensors) != set(plain) or not all(torch.equal(tensors[name], plain[name]) for name in plain):
    sys.exit("tensorizer loaded other tensors than it was given")
print(f"bytes|{WHAT}|{size}")
print(f"{WHAT}|{seconds}|{user}|{system}")
