"""Answers jobs with code that this project did not write: Python's standard library and PyPI `cryptography`.

Reads a JSON array of jobs from stdin, writes a JSON array of answers. All bytes are hex.
"""
import hashlib
import hmac
import json
import struct
import sys

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mlkem
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SUITE = hpke.Suite(hpke.KEM.MLKEM1024_P384, hpke.KDF.HKDF_SHA384, hpke.AEAD.AES_256_GCM)


def lv(*fields):
    return b"".join(struct.pack(">I", len(f)) + f for f in fields)


def expand(key, info, length):
    return HKDFExpand(hashes.SHA512(), length, info).derive(key)


def hpke_key(seed):
    """PRG of draft-irtf-cfrg-concrete-hybrid-kems: SHAKE-256 to an ML-KEM-1024 seed and a P-384 scalar."""
    full = hashlib.shake_256(seed).digest(64 + 48)
    scalar = int.from_bytes(full[64:], "big")
    return hpke.MLKEM1024P384PrivateKey(
        mlkem.MLKEM1024PrivateKey.from_seed_bytes(full[:64]), ec.derive_private_key(scalar, ec.SECP384R1())
    )


def cobblestone_seal(key, context, data):
    sealer = Cobblestone256Encryptor(key, context)
    return sealer.update(data) + sealer.finalize()


def cobblestone_open(key, context, data):
    opener = Cobblestone256Decryptor(key, context)
    return opener.update(data) + opener.finalize()


def hpke_seal(key, context, data):
    return SUITE.encrypt(data, hpke_key(key).public_key(), info=context)


def hpke_open(key, context, data):
    return SUITE.decrypt(data, hpke_key(key), info=context)


def vectors(path):
    """Recomputes our own format vectors from their inputs (FORMAT.md)."""
    with open(path, encoding="utf-8") as file:
        given = json.load(file)
    raw = lambda section, name: bytes.fromhex(given[section][name])
    made = {}

    prk = hmac.digest(b"weightvault/v1 root\0", raw("keeper", "tpm_secret"), "sha512")
    root = expand(prk, lv(given["keeper"]["seal_to"].encode()), 64)
    made["root"] = root
    made["head_key"] = expand(root, b"weightvault/v1 head\0", 32)
    instance, core = raw("keeper", "instance"), raw("keeper", "core_digest")
    key = lambda label, n: expand(root, b"weightvault/v1 key\0" + lv(label, instance, core), n)
    made["kek"] = key(b"kek 1", 32)
    log = ed25519.Ed25519PrivateKey.from_private_bytes(key(b"log", 32))
    made["log_key"] = log.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    identity = ec.derive_private_key(int.from_bytes(key(b"identity", 48), "big"), ec.SECP384R1())
    made["identity_key"] = identity.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    model = given["model"]
    units = model["units"]
    fields = [
        (struct.pack(">I", i), u["file"].encode(), struct.pack(">Q", u["offset"]), struct.pack(">Q", u["length"]),
         u["group"].encode())
        for i, u in enumerate(units)
    ]
    plan = hashlib.sha256(b"weightvault/v1 plan\0" + b"".join(lv(*f) for f in fields)).digest()
    made["plan_digest"] = plan
    vault, publisher = raw("model", "vault"), raw("model", "publisher")
    names = lv(vault, model["model"].encode(), model["version"].encode())
    index, length = struct.pack(">I", 1), struct.pack(">Q", units[1]["length"])
    made["unit_key_1"] = expand(raw("model", "dek"), b"weightvault/v1 unit\0" + names + index + plan, 32)
    context = b"weightvault/v1 unit ctx\0" + names + index + plan + length
    made["unit_context_1"] = context
    made["dek_info"] = b"weightvault/v1 dek\0" + lv(
        vault, model["model"].encode(), model["version"].encode(), plan, publisher
    )
    made["dek_record_context"] = b"weightvault/v1 record\0" + lv(b"dek", plan, struct.pack(">I", 1), vault)
    made["head_record_context"] = b"weightvault/v1 record\0" + lv(b"head", b"", struct.pack(">I", 0), bytes(32))

    opened = cobblestone_open(made["unit_key_1"], context, raw("model", "sealed_unit_1"))
    assert opened == bytes(i % 251 for i in range(units[1]["length"])), "sealed unit 1"
    expected = {**given["keeper"], **given["model"]}
    for name, value in made.items():
        assert value.hex() == expected[name], name
    snp_vectors(given["snp"], vault)
    reseal_vectors(given["reseal"])
    join_vectors(given["join"], vault)
    escrow_vectors(given["escrow"], given["join"], vault)
    workload_vectors(given["workload"], vault)
    return b"agrees"


def snp_vectors(given, vault):
    """Ids of chips and clouds, a root that a chip has part in, and a load in which no endorsed TPM takes part."""
    raw = lambda name: bytes.fromhex(given[name])
    sha256 = lambda *fields: hashlib.sha256(lv(*fields)).digest()
    prk = hmac.digest(b"weightvault/v1 root\0", raw("derived_key") + raw("tpm_secret"), "sha512")
    units = struct.pack(">I", 0) + struct.pack(">I", 1)

    def load(ak_name):
        ids = [b"load", b"guest", b"\1" * 16, b"\2" * 32, vault, b"\4" * 32, b"\5" * 32, units]
        return lv(*ids, b"\x71" * 1665, b"\x70" * 32, ak_name, b"", b"")

    made = {
        "chip_platform_milan": sha256(b"weightvault/v1 chip", b"Milan", raw("chip_id")),
        "csp_platform": sha256(b"weightvault/v1 csp", given["csp_id"].encode()),
        "root": expand(prk, lv(given["seal_to"].encode(), raw("salt")), 64),
        "load_preimage": b"weightvault/v1 bind\0" + load(b""),
        "load_binding": hashlib.sha512(b"weightvault/v1 bind\0" + load(b"")).digest(),
        "load_binding_reported_ak": hashlib.sha512(b"weightvault/v1 bind\0" + load(raw("ak_name"))).digest(),
    }
    for name, value in made.items():
        assert value.hex() == given[name], name


def workload_vectors(given, vault):
    """What is started with the weights, and a load and renewals that claim it."""
    raw = lambda name: bytes.fromhex(given[name])
    listed = lambda name: [bytes.fromhex(field) for field in given[name]]
    sha256 = lambda tag, *fields: hashlib.sha256(tag + lv(*fields)).digest()
    program = sha256(b"weightvault/v1 script\0", raw("script"), raw("interpreter"))
    arguments = sha256(b"weightvault/v1 arguments\0", *listed("argv"))
    environment = sha256(b"weightvault/v1 environment\0", *sorted(listed("variables")))
    claims = lambda image: lv(b"workload", program, arguments, environment, image)
    bound = lambda *fields: hashlib.sha512(b"weightvault/v1 bind\0" + lv(*fields)).digest()
    ids = [b"guest", b"\1" * 16, b"\2" * 32, vault, b"\4" * 32]
    units = struct.pack(">I", 0) + struct.pack(">I", 1)
    loaded = [b"load", *ids, b"\5" * 32, units, b"\x71" * 1665, b"\x70" * 32, b"", b""]
    renewed = [b"renew", *ids, b"\6" * 32, b"\x70" * 32, b"", b""]
    made = {
        "program": program,
        "arguments": arguments,
        "environment": environment,
        "claims": claims(raw("image")),
        "claims_without_image": claims(b""),
        "load_binding": bound(*loaded, claims(raw("image"))),
        "renew_binding": bound(*renewed, claims(raw("image"))),
        "renew_binding_without_image": bound(*renewed, claims(b"")),
    }
    for name, value in made.items():
        assert value.hex() == given[name], name


def reseal_vectors(given):
    """A boot state of the keeper, by the object that approvals name and by its PCRs alone."""
    raw = lambda name: bytes.fromhex(given[name])
    pcrs = b"".join(struct.pack(">I", int(i)) + bytes.fromhex(given["pcrs"][i]) for i in sorted(given["pcrs"], key=int))
    sha256 = lambda tag, *fields: hashlib.sha256(tag + lv(*fields)).digest()
    named = lambda *rest: sha256(b"weightvault/v1 reseal\0", raw("instance"), raw("ak_name"), pcrs, *rest)
    assert named(b"") == raw("object_tpm") and named(raw("measurement")) == raw("object_snp_tpm"), "reseal"
    assert named(b"", (1).to_bytes(8, "big")) == raw("object_tpm_revision_1"), "reseal"
    assert sha256(b"weightvault/v1 boot state\0", pcrs) == raw("boot_state"), "boot state"


def times(a, b):
    """In GF(2^8) modulo x^8 + x^4 + x^3 + x + 1."""
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = (a << 1) ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def combined(shares):
    """The value at 0 of the polynomials through these points."""
    inverse = lambda a: next(b for b in range(1, 256) if times(a, b) == 1)
    out = []
    for place in range(1, len(shares[0])):
        value = 0
        for share in shares:
            factor = 1
            for other in shares:
                if other is not share:
                    factor = times(factor, times(other[0], inverse(other[0] ^ share[0])))
            value ^= times(share[place], factor)
        out.append(value)
    return bytes(out)


def escrow_vectors(given, join, vault):
    """Custodians and their shares, and a keeper in the place of a lost one."""
    raw = lambda name: bytes.fromhex(given[name])
    joined = lambda name: bytes.fromhex(join[name])
    sha256 = lambda tag, *fields: hashlib.sha256(b"weightvault/v1 " + tag + b"\0" + lv(*fields)).digest()
    be32, be64 = lambda n: struct.pack(">I", n), lambda n: struct.pack(">Q", n)
    number, epoch, threshold = be64(given["number"]), be32(given["epoch"]), be32(given["threshold"])
    custodians = b"".join(lv(id, bytes([key]) * 32) for id, key in [(b"notary", 0x51), (b"safe", 0x52), (b"sister", 0x53)])
    assert sha256(b"escrow", vault, number, epoch, threshold, custodians) == raw("object"), "escrow"
    assert sha256(b"escrow set", raw("object"), b"\x5e" * 32) == raw("set"), "set"
    assert b"weightvault/v1 record\0" + lv(b"escrow", raw("object"), epoch, vault) == raw("record_context"), "record"
    index, custodian = be32(given["index"]), given["custodian"].encode()
    info = lv(vault, epoch, number, threshold, index, custodian, raw("set"))
    assert b"weightvault/v1 escrow share\0" + info == raw("share_info"), "share"
    assert sha256(b"escrow check", raw("set"), index, b"\x55" * 32) == raw("share_check"), "check"
    pcrs = be32(4) + b"\x04" * 32 + be32(11) + b"\x0b" * 32
    hpke_key, name, count = b"\xa0" * 1665, joined("ak_name"), be64(17)
    at = be64(given["size"]), b"\x54" * 32
    fields = [vault, at[0], b"\x41" * 32, b"\x42" * 32, name, hashlib.sha256(hpke_key).digest(), name, count, pcrs, b""]
    joiner = sha256(b"keeper join", *fields)
    plan = lambda mode: sha256(b"recovery plan", mode, *at, raw("set"), b"accepted")
    named = lambda mode: sha256(b"recover", mode, joiner, plan(mode))
    assert plan(b"recover") == raw("plan") and named(b"recover") == raw("recover_object"), "recover"
    assert named(b"drill") == raw("drill_object"), "drill"
    given_to = b"weightvault/v1 contribution\0" + lv(raw("recover_object"), raw("set"), index)
    assert given_to == raw("contribution_info"), "contribution"
    asked = [b"\2" * 32, vault, b"\4" * 32, raw("plan"), b"\x41" * 32, hpke_key, name, count, name, b"\x43" * 32, b""]
    assert hashlib.sha512(b"weightvault/v1 recover evidence\0" + lv(*asked)).digest() == raw("binding"), "binding"
    assert combined([bytes.fromhex(share) for share in given["shares"]]) == raw("combined"), "shares"


def join_vectors(given, vault):
    """A keeper that asks to take over: what approvals name, what its hardware signs, what the keys are bound to."""
    raw = lambda name: bytes.fromhex(given[name])
    count, revision = struct.pack(">Q", given["counter"]), struct.pack(">Q", given["revision"])
    hpke_key, pcrs = b"\xa0" * 1665, b"\0\0\0\4" + b"\4" * 32 + b"\0\0\0\x0b" + b"\x0b" * 32
    machine = [raw("instance"), raw("platform"), raw("ak_name"), hashlib.sha256(hpke_key).digest()]

    def named(measurement):
        fields = [vault, revision, *machine, raw("counter_name"), count, pcrs, measurement]
        return hashlib.sha256(b"weightvault/v1 keeper join\0" + lv(*fields)).digest()

    assert named(b"") == raw("object") and named(b"\x66" * 48) == raw("object_snp_tpm"), "keeper join"
    run = [b"keeper-join", b"\1" * 16, b"\2" * 32, vault, b"\4" * 32]
    stated = [raw("instance"), hpke_key, raw("counter_name"), count, raw("ak_name"), b"\x43" * 32, b""]
    assert hashlib.sha512(b"weightvault/v1 bind\0" + lv(*run, *stated)).digest() == raw("binding"), "binding"
    ids = [b"keeper-join", vault, b"\1" * 16, b"\2" * 32, b"\3" * 32, b"\4" * 32, raw("instance")]
    info = b"weightvault/v1 hand-over\0" + lv(*ids, struct.pack(">Q", 16), b"\5" * 32)
    assert info == raw("hand_over_info"), "hand-over"


JOBS = {f.__name__: f for f in (cobblestone_seal, cobblestone_open, hpke_seal, hpke_open)}

answers = []
for job in json.load(sys.stdin):
    if job["job"] == "vectors":
        answer = vectors(job["path"])
    else:
        answer = JOBS[job["job"]](*(bytes.fromhex(job[field]) for field in ("key", "context", "data")))
    answers.append(answer.hex())
json.dump(answers, sys.stdout)
