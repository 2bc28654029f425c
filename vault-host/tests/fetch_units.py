"""FetchUnits by the stock gRPC of Python: each message as it came, its length (4 bytes, big-endian) before it.

fetch_units.py HOST:PORT REQUEST_IN_HEX
"""

import sys

import grpc

address, request = sys.argv[1:]
channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 8 << 20)])
fetch = channel.unary_stream(
    "/weightvault.v1.Vault/FetchUnits", request_serializer=bytes, response_deserializer=bytes
)
try:
    for message in fetch(bytes.fromhex(request), timeout=60):
        sys.stdout.buffer.write(len(message).to_bytes(4, "big") + message)
except grpc.RpcError as error:
    sys.exit(f"{error.code().name}: {error.details()}")
