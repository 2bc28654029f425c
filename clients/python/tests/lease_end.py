"""Holds a model until its lease ends, and says what it saw: a line for each thing.

lease_end.py MODEL@VERSION FRAMEWORK, with WEIGHTVAULT_AGENT
"""

import sys

import weightvault

model = weightvault.open_model(sys.argv[1], timeout=60)
name, tensor = next(model.tensors(sys.argv[2]))


def held():
    array = tensor if sys.argv[2] == "np" else tensor.numpy()
    return array.tobytes()


before = held()
model.check()
print(f"holds {any(before)}", flush=True)

change = model.wait(60)
print(f"{change.state} {change.why} {change.seconds > 0}", flush=True)
print(f"unchanged {held() == before}", flush=True)
model.check()

changes = []
model.on_change(changes.append).join(60)
print(f"{changes[-1].state} {changes[-1].why}", flush=True)
print(f"zeros {not tensor.any()}", flush=True)
try:
    model.check()
except weightvault.LeaseLost as lost:
    print(f"lost {lost.why}", flush=True)
try:
    model.buffer("model.safetensors")
except weightvault.LeaseLost as lost:
    print(f"no more {lost.why}", flush=True)
