"""A vault by the stock gRPC of Python: its models, a challenge, and the ciphertext of one unit.

    pip install grpcio grpcio-tools
    python grpc_client.py HOST:PORT MODEL VERSION --rule RULE --ek-certificate EK.der --ak-public AK.bin

HOST:PORT is where `vault-host` listens; unix:/path works too. EK.der is the endorsement certificate of this machine's TPM,
AK.bin the TPMT_PUBLIC of its attestation key. No key comes of it: for that the challenge has to be answered with evidence,
which `vault-enclave load` does. Ciphertext is nobody's secret, and anybody may have it.
"""

import argparse
import hashlib
import json
import pathlib
import sys

import grpc

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
# grpcio-tools compiles the files when they are asked for; elsewhere, generate code with grpc_tools.protoc.
sys.path.insert(0, str(REPOSITORY / "proto"))
protos, services = grpc.protos_and_services("weightvault/v1/vault.proto")
types = grpc.protos("weightvault/v1/types.proto")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host")
    parser.add_argument("model")
    parser.add_argument("version")
    parser.add_argument("--rule", required=True)
    parser.add_argument("--ek-certificate", type=pathlib.Path, action="append", required=True)
    parser.add_argument("--ak-public", type=pathlib.Path, required=True)
    parser.add_argument("--unit", type=int, default=0)
    arguments = parser.parse_args()
    # Messages are bounded: a manifest is at most 8 MiB, and comes with a signature.
    options = [("grpc.max_receive_message_length", 20 << 20)]
    if arguments.host.startswith("unix:"):
        # Else it is the path, with a % in it that HTTP/2 does not allow there.
        options.append(("grpc.default_authority", "localhost"))
    with grpc.insecure_channel(arguments.host, options=options) as channel:
        vault = services.VaultStub(channel)
        list_models(vault)
        challenge(vault, arguments)
        fetch(vault, arguments)


def list_models(vault) -> None:
    for model in vault.ListModels(protos.ListModelsRequest(), timeout=30).models:
        print(f"model {model.model}@{model.version}: {model.units} units, {model.bytes} bytes")


def challenge(vault, arguments) -> None:
    """First step of a load: a nonce, and a credential that only the TPM with that endorsement key can open."""
    tpm = types.TpmIdentity(
        ek_certificates=[path.read_bytes() for path in arguments.ek_certificate],
        ak_public=arguments.ak_public.read_bytes(),
    )
    request = protos.GetChallengeRequest(
        action=types.ACTION_LOAD,
        rule=arguments.rule,
        model=arguments.model,
        version=arguments.version,
        units=types.UnitSelection(all=True),
        tpm=tpm,
        forms=[types.EVIDENCE_FORM_TPM],
    )
    answer = vault.GetChallenge(request, timeout=60)
    print(f"challenge with a nonce of {len(answer.nonce)} bytes, for {len(answer.units)} units, PCRs {list(answer.pcrs)}")


def fetch(vault, arguments) -> None:
    """The sealed bytes of a unit, compared with the digest that the publisher signed."""
    name = {"model": arguments.model, "version": arguments.version}
    manifest = json.loads(vault.GetManifest(protos.GetManifestRequest(**name), timeout=30).manifest)
    digest = hashlib.sha256()
    length = 0
    ranges = [protos.UnitRange(unit=arguments.unit)]
    for message in vault.FetchUnits(protos.FetchUnitsRequest(**name, ranges=ranges), timeout=60):
        assert (message.unit, message.offset) == (arguments.unit, length), "ranges come in order"
        digest.update(message.data)
        length += len(message.data)
    signed = manifest["units"][arguments.unit]["sealed_sha256"]
    same = f"sha256:{digest.hexdigest()}" == signed
    print(f"unit {arguments.unit}: {length} bytes of ciphertext, {'as signed' if same else 'NOT as signed'}")


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
