#!/usr/bin/env python3
"""Reads a repository of format 1, from docs/format.md alone.
lifeboat_decoder.py REPOSITORY -i IDENTITY [--fingerprint HEX] info | list | check | ls SNAPSHOT | restore SNAPSHOT DIRECTORY
Exit code: 0 all verified, 1 findings were reported (void records, missing or damaged objects), 2 cannot be read.
"""
import argparse, collections, contextlib, fcntl, functools, os, re, stat, struct, sys
import pyrage
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
MIB = 1 << 20
OWNER, WRITER, MAINTAINER, READER = 4, 1, 2, 3

class Bad(Exception):
    """Something that does not verify."""
def need(ok, what):
    if not ok: raise Bad(what)
def H(x): return blake3(x).digest()
def KH(key, x): return blake3(x, key=key).digest()
def DK(context, x, n): return blake3(x, derive_key_context=context).digest(length=n)
def le(n, size): return n.to_bytes(size, "little")
def unseal_aead(key, nonce, aad, x, what):
    try: return ChaCha20Poly1305(key).decrypt(nonce, x, aad)
    except InvalidTag: raise Bad(f"{what}: authentication failed") from None
def padme(n):
    e = n.bit_length() - 1
    step = 1 << (e - e.bit_length())
    return (n + step - 1) // step * step
def ed25519_ok(public, signature, message):
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        return True
    except (InvalidSignature, ValueError): return False
def raw_public(private): return private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
# ---- CBOR (section 5)
def cbor(data, what):
    """The one value in data, deterministic encoding enforced."""
    pos = 0
    def take(n):
        nonlocal pos
        need(n <= len(data) - pos, f"{what}: CBOR ends early")
        pos += n
        return data[pos - n:pos]
    def item(depth):
        need(depth <= 16, f"{what}: CBOR nested too deep")
        first = take(1)[0]
        major, low = first >> 5, first & 31
        if major == 7:
            need(low in (20, 21), f"{what}: CBOR simple value {low}")
            return low == 21
        need(low <= 27, f"{what}: CBOR indefinite or reserved length")
        n = low
        if low >= 24:
            size = 1 << (low - 24)
            n = int.from_bytes(take(size), "big")
            need(n >= (24 if size == 1 else 1 << (4 * size)), f"{what}: CBOR integer not shortest")
        if major == 0: return n
        if major == 1: return -1 - n
        if major == 2: return take(n)
        if major == 3:
            try: return take(n).decode("utf-8")
            except UnicodeDecodeError: raise Bad(f"{what}: CBOR text is not UTF-8") from None
        if major == 4:
            need(n <= len(data) - pos, f"{what}: CBOR array longer than its bytes")
            return [item(depth + 1) for _ in range(n)]
        need(major == 5, f"{what}: CBOR tag")
        need(2 * n <= len(data) - pos, f"{what}: CBOR map longer than its bytes")
        result, last = {}, -1
        for _ in range(n):
            key = item(depth + 1)
            need(type(key) is int and key > last, f"{what}: CBOR map keys not unsigned and ascending")
            result[key] = item(depth + 1)
            last = key
        return result
    value = item(1)
    need(pos == len(data), f"{what}: bytes after the CBOR")
    return value
# Validators: functions of a value that say whether it is of the type.
def U(v, top=1 << 64): return type(v) is int and 0 <= v < top
def INT(v): return type(v) is int
def BYTES(v): return type(v) is bytes
def TEXT(v): return type(v) is str
def TRUE(v): return v is True
def BOOL(v): return type(v) is bool
def B(n): return lambda v: type(v) is bytes and len(v) == n
def ARR(of, key=None, least=0):
    """An array of `of`; strictly ascending by key where one is given."""
    def check(v):
        if type(v) is not list or len(v) < least or not all(of(x) for x in v): return False
        return key is None or all(key(a) < key(b) for a, b in zip(v, v[1:]))
    return check
def TUP(*of): return lambda v: type(v) is list and len(v) == len(of) and all(f(x) for f, x in zip(of, v))
def IDS(v): return type(v) is bytes and len(v) % 32 == 0
def TIME(v):
    if type(v) is int: return -1 << 63 <= v < 1 << 63
    return type(v) is list and len(v) == 2 and INT(v[0]) and U(v[1], 10**9)
def fields(m, spec, what, open_ended=False):
    """spec: key -> (validator, presence); presence is 1 required, 0 optional (and left out when empty), -1 optional, may be zero."""
    need(type(m) is dict, f"{what}: not a map")
    for k, v in m.items():
        if k in spec:
            need(spec[k][0](v), f"{what}: key {k} is malformed")
            need(spec[k][1] != 0 or v not in (0, "", b"", []), f"{what}: optional key {k} should have been left out")
        else: need(open_ended and k >= 64, f"{what}: unknown key {k}")
    for k, (_, presence) in spec.items(): need(presence != 1 or k in m, f"{what}: key {k} is missing")
    return m
SELF = lambda x: x
PAIRS = ARR(TUP(B(16), U), SELF, 1)
HEADS = ARR(TUP(B(16), U, B(32)), SELF)
PACKS = ARR(TUP(B(32), U, U), lambda p: p[0])
PACK_IDS = ARR(B(32), SELF)
SEALED = TUP(BYTES, U, U, U, U, BYTES)
KINDS = {
    0: {0: (B(32), 1)},
    1: {0: (B(32), 1), 1: (SEALED, 1), 2: (PACKS, 1), 3: (ARR(B(32)), 0), 4: (ARR(B(16)), 1)},
    2: {0: (PACKS, 1), 1: (TUP(B(32), SEALED), 0)},
    3: {0: (U, 1)},
    **dict.fromkeys((4, 5, 7), {0: (PAIRS, 1)}),
    6: {0: (PAIRS, 1), 1: (TEXT, 0)},
    8: {0: (B(32), 1), 1: (U, 1), 2: (TEXT, 1), 3: (ARR(B(16), SELF), 0), 4: (B(16), 0)},
    9: {0: (B(16), 1), 1: (U, 1)},
    10: {0: (U, 1), 1: (ARR(B(32), SELF), 1)},
    11: {0: (PACK_IDS, 1)},
    12: {0: (ARR(BYTES), 0), 1: (ARR(TUP(B(16), BOOL, PACKS)), 0), 2: (ARR(TUP(B(16), U, B(32)), lambda s: s[:2]), 0), 3: (HEADS, 0),
         4: (ARR(TUP(B(16), ARR(B(16))), lambda s: s[0]), 0), 5: (ARR(TUP(B(16), U, B(16), U, BOOL, TEXT), SELF), 0),
         6: (ARR(TUP(B(16), B(16), U, U), SELF), 0), 7: (PACK_IDS, 0), 8: (ARR(TUP(U, B(32)), SELF), 0)},
    13: {0: (B(16), 1), 1: (TRUE, 0), 2: (TEXT, 0), 3: (TEXT, 0)},
    14: {0: (ARR(B(32)), 1), 1: (PACK_IDS, 1)},
    15: {0: (PACK_IDS, 1), 1: (lambda v: type(v) is bytes and len(v) % 16 == 0, 1)},
}
RECORD = {0: (B(16), 1), 1: (U, 1), 2: (B(32), 0), 3: (INT, 1), 4: (HEADS, 0), 5: (U, 0), 6: (U, 1), 7: (lambda v: type(v) is dict, 1),
          8: (B(16), 0), 64: (B(16), 0)}
MAY = {0: {OWNER}, 8: {OWNER}, 9: {OWNER}, 10: {OWNER}, 13: {OWNER}, 1: {WRITER, OWNER}, 11: {READER, OWNER},
       2: {WRITER, MAINTAINER, OWNER}, 15: {MAINTAINER, READER, OWNER}, 6: {WRITER, MAINTAINER, READER, OWNER}}
MAY.update({12: {OWNER}, **{k: {MAINTAINER, OWNER} for k in (3, 4, 5, 7, 14)}})
SNAPSHOT = {0: (B(32), 1), 1: (TEXT, 1), 2: (B(32), 0), 3: (TEXT, 1), 4: (ARR(BYTES), 1), 5: (ARR(TEXT, str.encode), 0), 6: (TEXT, 0),
            7: (INT, 1), 8: (INT, 1), 9: (TUP(*[U] * 10), 1), 10: (ARR(TUP(BYTES, TEXT)), 0), 11: (U, 0), 12: (TEXT, 1), 13: (TEXT, 0),
            14: (TRUE, 0), 15: (ARR(TEXT), 0), 64: (lambda v: U(v, 1 << 63), 0)}
NODE = {0: (BYTES, 1), 1: (U, 1), 2: (lambda v: U(v, 0o10000), 1), 3: (U, 1), 4: (U, 1), 5: (BYTES, 0), 6: (BYTES, 0), 7: (TIME, 1),
        8: (TIME, -1), 9: (TIME, -1), 10: (TIME, -1), 11: (U, 0), 12: (IDS, -1), 13: (ARR(U), 0), 14: (TUP(U, B(32), U), 0),
        15: (ARR(U), 0), 16: (BYTES, 0), 17: (B(32), 0), 18: (TUP(U, U), 0), 19: (TUP(U, U), 0), 20: (ARR(BYTES), 0), 21: (U, 0), 22: (TRUE, 0)}
# ---- age (age-encryption.org/v1); pyrage opens the files
def age_stanzas(data):
    """The words of each recipient stanza; those of no recipient (grease) are left out."""
    need(data.startswith(b"age-encryption.org/v1\n") and b"\n--- " in data, "age: not an age file")
    words = [line[3:].split(b" ") for line in data[:data.index(b"\n--- ")].split(b"\n") if line.startswith(b"-> ")]
    return [w for w in words if not w[0].endswith(b"-grease")]
def age_open(data, identity, what):
    try: return pyrage.decrypt(data, [identity])
    except pyrage.DecryptError as e: raise Bad(f"{what}: {e}") from None
def age_x25519(data, identity, what):
    """Opens an age file of exactly one X25519 recipient."""
    need([w[0] for w in age_stanzas(data)] == [b"X25519"], f"{what}: age file not of one X25519 recipient")
    return age_open(data, identity, what)
def age_identity(text):
    try: return pyrage.x25519.Identity.from_str(text.strip())
    except pyrage.IdentityError as e: raise Bad(f"not an age identity: {e}") from None
def open_slot(data, identity_path):
    """The bundle's bytes, or Bad. Plugins are never run."""
    stanzas = age_stanzas(data)
    need(len(stanzas) == 1, "slot has not exactly one recipient")
    kind = stanzas[0][0]
    if kind == b"scrypt":
        need(re.fullmatch(rb"[1-9][0-9]?", stanzas[0][2]) and int(stanzas[0][2]) <= 22, "scrypt work factor over 22")
        need("LIFEBOAT_PASSPHRASE" in os.environ, "slot wants a passphrase (LIFEBOAT_PASSPHRASE)")
        try: return pyrage.passphrase.decrypt(data, os.environ["LIFEBOAT_PASSPHRASE"])
        except pyrage.DecryptError as e: raise Bad(f"slot: {e}") from None
    need(kind in (b"X25519", b"ssh-ed25519", b"ssh-rsa"), f"slot of a kind that is not opened here: {kind!r}")
    with open(identity_path, "rb") as f: text = f.read()
    if kind != b"X25519": return age_open(data, pyrage.ssh.Identity.from_buffer(text), "slot")
    error = Bad("no X25519 identity in the identity file")
    for line in text.decode("utf-8", "replace").splitlines():
        if line.startswith("AGE-SECRET-KEY-1"):
            try: return age_x25519(data, age_identity(line), "slot")
            except Bad as e: error = e
    raise error
# ---- the store
class Store:
    def __init__(self, root): self.root = root
    def path(self, name): return os.path.join(self.root, name)
    def get(self, name, limit):
        try:
            size = os.stat(self.path(name)).st_size
            need(size <= limit, f"{name}: {size} bytes are more than allowed")
            with open(self.path(name), "rb") as f: return f.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError): return None
    def hashed(self, name, limit):
        """An object named by its hash, from its place or from copies/; None if there is neither."""
        digest, error = bytes.fromhex(name.rpartition("/")[2]), None
        for place in (name, "copies/" + name):
            data = self.get(place, limit)
            if data is not None and H(data) == digest: return data
            error = error or (data is not None and f"{place}: bytes are not those of its name")
        need(not error, error)
        return None
    def names(self, folder, pattern):
        found = []
        for at, _, files in os.walk(self.path(folder)):
            found += [name for f in files if re.fullmatch(pattern, name := f"{os.path.relpath(at, self.root)}/{f}")]
        return sorted(found)
Block = collections.namedtuple("Block", "pack offset entry number type codec raw packed lengths prefixes")
Record = collections.namedtuple("Record", "client seq digest map")

class Repository:
    def __init__(self, root, identity_path, pin=None):
        self.store, self.findings = Store(root), []
        self.read_format(pin)
        self.read_bundle(identity_path)
        self.sessions, self.packs, self.where, self.numbers = {}, {}, collections.defaultdict(list), {}
        self.read_logs()
    @contextlib.contextmanager
    def guard(self, what=""):
        try: yield
        except Bad as e: self.find(what + str(e))
    def find(self, text):
        self.findings.append(text)
        print("finding:", text, file=sys.stderr)
    # -- section 2
    def read_format(self, pin):
        data = self.store.get("format/1", 65536)
        magic, texts = b"lifeboat repository format 1\n", ARR(TEXT)
        need(data is not None and data.startswith(magic), "format/1: missing, or not a repository of format 1")
        m = fields(cbor(data[len(magic):], "format/1"), {0: (B(16), 1), 1: (B(32), 1), 2: (TUP(*[U] * 5), 1), 3: (U, 1), 4: (U, 1),
                   5: (INT, 1), 6: (texts, 1), 7: (texts, 1), 8: (INT, 1)}, "format/1")
        kind, low, mid, high, norm = m[2]
        need(kind == 1, "format/1: unknown chunker")
        need(all(n and n & (n - 1) == 0 for n in (low, mid, high)) and 64 <= low <= mid <= high <= 4 * MIB and mid >= 256 and norm <= 3,
             "format/1: chunker out of limits")
        need(-7 <= m[5] <= 22 and 65536 <= m[3] <= 8 * MIB and MIB <= m[4] <= 128 * MIB, "format/1: out of limits")
        need(not m[6], f"format/1: features that this reader does not know: {m[6]}")
        self.format, self.id, self.owner_key, self.format_hash = m, m[0], m[1], H(data)
        self.fingerprint = H(self.owner_key + self.id + self.format_hash)[:16]
        need(pin is None or pin == self.fingerprint.hex(), "the fingerprint is not the expected one")
    # -- section 3.1
    def read_bundle(self, identity_path):
        slots, reasons = self.store.names("keys", r"keys/[0-9a-f]{32}\.age"), []
        for name in slots:
            try:
                self.bundle(cbor(open_slot(self.store.get(name, MIB), identity_path), name), name)
                return
            except Bad as e: reasons.append(f"{name}: {e}")
        raise Bad("no slot opens: " + "; ".join(reasons))
    def bundle(self, m, name):
        fields(m, {0: (lambda v: v in (1, 2, 3, 4), 1), 1: (B(16), 1), 2: (B(16), 1), 3: (B(32), 0), 4: (B(32), 0), 5: (ARR(B(32)), 0),
                   6: (ARR(lambda v: True, None, 1), 1)}, name, True)
        role = m[0]
        need(m[1] == self.id and m[2] == self.fingerprint, "bundle is of another repository")
        need((3 in m) or role == READER, "bundle has no signing seed")
        need((4 in m) == (role != MAINTAINER) and (5 in m) == (role == MAINTAINER), "bundle has not the keys of its role")
        if role == MAINTAINER:
            need(len(m[5]) == 4, "bundle: not four name keys")
            self.name_keys = dict(enumerate(m[5], 1))
        else: self.name_keys = {t: DK("lifeboat v1 chunk name", m[4] + bytes([t]), 32) for t in (1, 2, 3, 4)}
        held = {2: role != MAINTAINER, 4: role != MAINTAINER, 6: role in (READER, OWNER), 7: role != WRITER}
        self.generations, last = {}, 0
        for g in m[6]:
            spec = {0: (U, 1), 1: (B(32), 1), 2: (B(32), 0), 3: (B(32), 1), 4: (TEXT, 0), 5: (TEXT, 1), 6: (TEXT, 0), 7: (TEXT, 0)}
            fields(g, spec, name, True)
            need(g[0] > last, "bundle: generations do not ascend")
            for k, must in held.items(): need((k in g) == must, f"bundle: key {k} of a generation is not as its role has it")
            vaults = {}
            for cls, public, secret in ((1, 4, 6), (2, 5, 7)):
                if secret in g:
                    vaults[cls] = age_identity(g[secret])
                    need(g[public] == str(vaults[cls].to_public()), "bundle: vault identity and recipient differ")
            last = g[0]
            self.generations[last] = {"ix": g[1], "psk": {1: g.get(2), 2: g[3]}, "vault": vaults}
        self.role, self.slot = role, name
        public = raw_public(Ed25519PrivateKey.from_private_bytes(m[3])) if 3 in m else None
        need(role != OWNER or public == self.owner_key, "bundle: the owner's seed is not that of format/1")
    # -- section 3.3
    def header(self, data, kind, what):
        """(key, commit) of the sealed object that begins with this header."""
        need(len(data) >= 64 and data[:8] == bytes.fromhex("894C46420D0A1A0A"), f"{what}: not a sealed object")
        need(data[8] == kind and data[9] == 1 and data[10] == 1 and data[11] == 0 and not any(data[48:64]), f"{what}: bad header")
        gen = int.from_bytes(data[12:16], "little")
        need(gen in self.generations, f"{what}: sealed under generation {gen}, which the bundle lacks")
        both = DK("lifeboat v1 sealed object", self.generations[gen]["ix"] + self.id + data[:64], 64)
        return both[:32], both[32:]
    def unseal(self, key, data, what):
        count, out = max(1, -(-len(data) // 65552)), []
        for i in range(count):
            nonce = le(i, 8) + bytes([0, 0, 0, i == count - 1])
            out.append(unseal_aead(key, nonce, b"", data[i * 65552:(i + 1) * 65552], what))
        need(count == 1 or out[-1], f"{what}: empty last piece")
        return b"".join(out)
    def sealed_body(self, data, kind, what):
        key, commit = self.header(data, kind, what)
        need(data[64:96] == commit, f"{what}: commit differs")
        x = self.unseal(key, data[96:], what)
        need(len(x) >= 4, f"{what}: too short")
        n = int.from_bytes(x[:4], "little")
        need(n <= len(x) - 4 and padme(4 + n) == len(x) and not any(x[4 + n:]), f"{what}: wrong padding")
        return x[4:4 + n]
    # -- section 3.4
    def session(self, entry, what):
        """(session id, class, K_sess) of the bytes of a seal entry."""
        if entry not in self.sessions:
            need(len(entry) >= 56, f"{what}: seal entry too short")
            sid, cls, kind, gen, commit, n = struct.unpack_from("<16sBBI32sH", entry)
            need(cls in (1, 2) and kind == 1 and n <= 8192 and len(entry) == 56 + n, f"{what}: bad seal entry")
            need(gen in self.generations, f"{what}: session of generation {gen}, which the bundle lacks")
            g = self.generations[gen]
            if cls not in g["vault"]: self.sessions[entry] = (sid, cls, None)
            else:
                s = age_x25519(entry[56:], g["vault"][cls], what)
                need(len(s) == 32, f"{what}: session secret is not of 32 bytes")
                both = DK("lifeboat v1 session", s + g["psk"][cls] + self.id + sid + bytes([cls]) + le(gen, 4), 64)
                need(both[32:] == commit, f"{what}: commit of the session differs")
                self.sessions[entry] = (sid, cls, both[:32])
        return self.sessions[entry]
    # -- section 4
    def open_block(self, entry, number, type_, codec, raw, packed, lengths, prefixes, stored, what):
        need(type_ in (1, 2, 3, 4) and codec in (0, 1), f"{what}: unknown type or codec")
        need(lengths and raw <= 16 * MIB and packed <= 16 * MIB + 4096 and sum(lengths) == raw and (codec or packed == raw), f"{what}: bad lengths")
        need(len(stored) == -(-packed // 64) * 64 + 16, f"{what}: stored length differs")
        _, cls, k_sess = self.session(entry, what)
        need(cls == (1 if type_ == 1 else 2), f"{what}: type and class do not agree")
        need(k_sess, f"{what}: this role does not open blocks of class {cls}")
        digest = H(le(len(lengths), 4) + b"".join(le(n, 4) + p for n, p in zip(lengths, prefixes)))
        key = KH(k_sess, le(number, 8) + bytes([codec, type_]) + le(raw, 4) + le(packed, 4) + digest)
        plain = unseal_aead(key, bytes(12), self.id, stored, what)
        need(not any(plain[packed:]), f"{what}: padding is not zeros")
        if codec == 0: return plain[:packed]
        try:
            p = zstandard.get_frame_parameters(plain[:packed])
            need(p.content_size == raw and not p.has_checksum and not p.dict_id, f"{what}: zstd frame header is not as it must be")
            out = zstandard.ZstdDecompressor().decompress(plain[:packed], max_output_size=raw, allow_extra_data=False)
        except zstandard.ZstdError as e: raise Bad(f"{what}: {e}") from None
        need(len(out) == raw, f"{what}: decompressed length differs")
        return out
    def sealed_snapshot(self, sid, sealed, what):
        entry, number, codec, raw, packed, text = sealed
        data = self.open_block(entry, number, 4, codec, raw, packed, [raw], [sid[:16]], text, what)
        need(KH(self.name_keys[4], data) == sid, f"{what}: the snapshot is not that of its id")
        m = fields(cbor(data, what), SNAPSHOT, what, True)
        meta = m.get(15, [])
        need(len(meta) % 2 == 0 and all(a.encode() < b.encode() for a, b in zip(meta[::2], meta[2::2])), f"{what}: metadata not ascending")
        return m
    # -- section 8
    def record(self, cid, seq):
        """(bytes, map, signature, map bytes) of a record; map is None when it cannot be opened."""
        name = f"log/{cid.hex()}/{seq:016x}"
        try: data = self.store.get(name, 16 * MIB)
        except Bad as e: return self.find(f"{e} (the log is not read beyond it)")
        if data is None: return None
        try:
            body = self.sealed_body(data, 3, name)
            m = fields(cbor(body[64:], name), RECORD, name, True)
            need(m[0] == cid and m[1] == seq, f"{name}: names another place")
            return data, m, body[:64], body[64:], None
        except Bad as e: return data, None, None, None, str(e)
    def signed(self, name, kind, context):
        """(bytes, map) of an object that the owner signed."""
        data = self.store.get(name, 64 * MIB)
        body = self.sealed_body(data or b"", kind, name)
        need(ed25519_ok(self.owner_key, body[:64], DK(context, self.id + body[64:], 64)), f"{name}: not signed by the owner")
        return data, cbor(body[64:], name)
    def part(self, seq, digest):
        name = f"log/{self.owner.hex()}/{seq:016x}"
        data, m = self.signed(name, 3, "lifeboat v1 log record")
        need(H(data) == digest and m[6] == 12, f"{name}: not the checkpoint that was named")
        return fields(m[7], KINDS[12], name)
    def read_checkpoint(self):
        """The newest checkpoint that a plan of the owner puts in force: its floors, the records that stay, and its parts."""
        self.floors, self.staying, self.parts = {}, collections.defaultdict(list), []
        for name in reversed(self.store.names("gc", r"gc/[0-9a-f]{16}\.plan")):
            try:
                m = self.signed(name, 5, "lifeboat v1 prune object")[1]
                if 6 not in m or m[0] != self.owner or H(self.store.get(name[:-4] + "condemn", 64 * MIB) or b"") != m[5]: continue
            except Bad: continue
            whole = self.part(*m[6])
            if whole.get(3) != m[3]: continue
            self.parts = [whole] + [self.part(*place) for place in whole.get(8, [])]
            self.floors = {cid: (seq, digest) for cid, seq, digest in m[3]}
            return [self.staying[cid].append((seq, digest)) for cid, seq, digest in whole.get(2, [])]
    def cut_off(self, cid, seq): return cid in self.floors and seq < self.floors[cid][0]
    def read_log(self, cid, keys, roles, last):
        previous, end, out, stay = None, 0, [], list(self.staying[cid])
        if cid in self.floors:
            end, previous = self.floors[cid][0] + 1, self.floors[cid][1]
            self.heads[cid, end - 1] = previous
        while (got := self.record(cid, seq := stay[0][0] if stay else end)) is not None:
            data, m, signature, text, why = got
            stays, name = stay.pop(0) if stay else None, f"log/{cid.hex()}/{seq:016x}"
            self.heads[cid, seq] = digest = H(data)
            try:
                need(m is not None, f"{why}")
                signer = m.get(8, cid)
                need(8 not in m or (m[6] == 3 and signer != cid), f"{name}: signed by another, but not a fence")
                need(signer in keys, f"{name}: signed by a client that is not enrolled")
                need(ed25519_ok(keys[signer], signature, DK("lifeboat v1 log record", self.id + text, 64)), f"{name}: signature is wrong")
                need(digest == stays[1] if stays else m.get(2) == previous, f"{name}: does not follow the record before it")
                need(last is None or seq <= last, f"{name}: after the client was revoked")
                if m[6] not in KINDS: raise SystemExit(f"{name}: kind {m[6]} is unknown; cannot judge what was said")
                need(roles[signer] in MAY[m[6]], f"{name}: role {roles[signer]} may not write kind {m[6]}")
                fields(m[7], KINDS[m[6]], f"{name} body")
                need((m[6] == 0) == (seq == 0 and cid == self.owner), f"{name}: genesis out of place")
                if m[6] == 0: need(m[7][0] == self.format_hash, f"{name}: genesis of another format/1")
                out.append(Record(cid, seq, digest, m))
            except Bad as e:
                self.void += 1
                self.find(f"void record: {e}")
            if not stays: previous, end = digest, end + 1
        need(not stay, f"log/{cid.hex()}: a record is missing that a checkpoint says is there")
        for name in self.store.names(f"log/{cid.hex()}", rf"log/{cid.hex()}/[0-9a-f]{{16}}"):
            if int(name[-16:], 16) >= end: self.find(f"{name}: beyond the end of its log, where record {end} is missing")
        return out
    def read_logs(self):
        self.owner, self.heads, self.void = H(self.owner_key)[:16], {}, 0
        self.read_checkpoint()
        keys, roles, self.clients, revoked = {self.owner: self.owner_key}, {self.owner: OWNER}, {}, {}
        # Fences that somebody else signed in the owner's log need keys that the log itself gives: twice.
        for attempt in (0, 1):
            self.heads, self.void, keep = {}, 0, list(self.findings)
            own = self.read_log(self.owner, keys, roles, None)
            for r in own:
                if r.map[6] == 8:
                    cid = H(r.map[7][0])[:16]
                    if cid != self.owner:
                        keys[cid], roles[cid], self.clients[cid] = r.map[7][0], r.map[7][1], r.map[7][2]
                        revoked.pop(cid, None)
                elif r.map[6] == 9: revoked[r.map[7][0]] = r.map[7][1]
            if not self.void: break
            self.findings = keep if attempt == 0 else self.findings
        need(own and own[0].seq == 0, "the owner's log has no valid genesis")
        self.records = own
        for cid in sorted(self.clients): self.records = self.records + self.read_log(cid, keys, roles, revoked.get(cid))
        self.keys, self.roles = keys, roles
        for m in (fields(cbor(x, "carried record"), RECORD, "carried record") for part in self.parts for x in part.get(0, [])):
            self.records.append(Record(m[0], m[1], None, m))
        for r in self.records:
            for cid, seq, digest in r.map.get(4, []):
                if self.heads.get((cid, seq)) != digest and not self.cut_off(cid, seq):
                    self.find(f"log/{r.client.hex()}/{r.seq:016x} saw log/{cid.hex()}/{seq:016x} with a hash that it has not now")
    def snapshots(self):
        """Live snapshots: [(client, seq, id, map)], by start."""
        found, seen, gone, back = {}, {}, collections.defaultdict(list), collections.defaultdict(list)
        for r in self.records:
            for cid, seq, _ in r.map.get(4, []): seen[r.client, r.seq, cid] = max(seq, seen.get((r.client, r.seq, cid), -1))
            if r.map[6] == 1: found[r.client, r.seq] = (r.map[7][0], r.map[7][1])
            elif r.map[6] in (4, 5):
                for cid, seq in r.map[7][0]: (gone if r.map[6] == 4 else back)[cid, seq].append(r)
        def before(a, b):
            """a was known when b was written."""
            if a.client == b.client: return a.seq < b.seq
            return any(client == b.client and at <= b.seq and cid == a.client and seq >= a.seq for (client, at, cid), seq in seen.items())
        out = []
        for place, (sid, sealed) in found.items():
            # Forgotten unless each forget has an unforget that is not known to be older.
            if all(any(not before(u, f) for u in back[place]) for f in gone[place]):
                with self.guard(): out.append((*place, sid, self.sealed_snapshot(sid, sealed, f"snapshot {sid.hex()}")))
        return sorted(out, key=lambda s: s[3][7])
    # -- section 6
    def load_packs(self):
        self.prune()
        named, lost = {}, set()
        lists = [r.map[7][{1: 2, 2: 0}[r.map[6]]] for r in self.records if r.map[6] in (1, 2)]
        for packs in lists + [packs for part in self.parts for _, _, packs in part.get(1, [])]:
            for pid, size, toc in packs:
                if named.setdefault(pid, (size, toc)) != (size, toc): self.find(f"pack {pid.hex()}: records do not agree on its size")
        for r in self.records: lost |= set(r.map[7][0]) if r.map[6] == 15 else set()
        for pid, (size, toc) in sorted(named.items()):
            name = f"packs/{pid.hex()[:2]}/{pid.hex()}"
            with self.guard():
                data = self.store.hashed(name, 256 * MIB)
                if data is None:
                    if pid not in self.pruned and pid not in lost: self.find(f"{name}: missing")
                    continue
                need(len(data) == size, f"{name}: not of the size that the record says")
                self.read_pack(pid, data, toc, name)
    def read_pack(self, pid, data, toc_length, name):
        (key, commit), foot = self.header(data, 1, name), data[-40:]
        need(len(data) >= 64 + 2 + 40 and foot[:32] == commit and foot[36:] == b"LFBP", f"{name}: bad footer")
        sealed = int.from_bytes(foot[32:36], "little")
        need(sealed == toc_length and sealed <= 64 * MIB and sealed <= len(data) - 106, f"{name}: length of the table of contents differs")
        toc = self.unseal(key, data[-40 - sealed:-40], f"{name} table of contents")
        entries, pos, count = [], 66, int.from_bytes(data[64:66], "little")
        need(count <= 4096, f"{name}: too many seal entries")
        for _ in range(count):
            need(pos + 56 <= len(data), f"{name}: seal table ends early")
            end = pos + 56 + int.from_bytes(data[pos + 54:pos + 56], "little")
            need(end <= len(data), f"{name}: seal table ends early")
            entries.append(data[pos:end])
            pos = end
        at = 0
        def take(n):
            nonlocal at
            need(n <= len(toc) - at, f"{name}: table of contents ends early")
            at += n
            return toc[at - n:at]
        def varint():
            value, shift = 0, 0
            while True:
                b = take(1)[0]
                value |= (b & 127) << shift
                shift += 7
                if b < 128:
                    need((b or shift == 7) and value < 1 << 64, f"{name}: varint not shortest")
                    return value
                need(shift < 70, f"{name}: varint too long")
        first, padding, blocks = struct.unpack("<III", take(12))
        need(first == pos, f"{name}: the blocks do not begin where the seal table ends")
        classes, offset = set(), first
        for i in range(blocks):
            e, number, type_, codec, raw, packed, n = struct.unpack("<HQBBIII", take(24))
            need(e < len(entries) and 1 <= n <= len(toc) - at, f"{name}: block {i} is malformed")
            lengths = [varint() for _ in range(n)]
            prefixes = [take(16) for _ in range(n)]
            b = Block(pid, offset, entries[e], number, type_, codec, raw, packed, lengths, prefixes)
            need(sum(lengths) == raw and packed <= 16 * MIB + 4096, f"{name}: lengths of block {i} do not add up")
            sid, cls, _ = self.session(b.entry, f"{name} seal entry {e}")
            classes.add(cls)
            need(type_ in (1, 2, 3, 4) and cls == (1 if type_ == 1 else 2), f"{name}: type and class of block {i} do not agree")
            if self.numbers.setdefault((sid, cls, number), b[3:]) != b[3:]: self.find(f"{name}: number {number} is used twice in a session")
            offset += -(-packed // 64) * 64 + 16
            self.packs.setdefault(pid, []).append(b)
        need(at == len(toc), f"{name}: bytes after the table of contents")
        need(offset + padding + sealed + 40 == len(data), f"{name}: its parts do not add up to its length")
        need(len(classes) <= 1, f"{name}: blocks of more than one class")
        for i, b in enumerate(self.packs.get(pid, [])):
            for k, prefix in enumerate(b.prefixes): self.where[b.type, prefix].append((b, i, k))
        if len(data) != padme(len(data)) and len(data) % 65536: self.find(f"{name}: padded neither to 64 KiB nor to a Padmé length")
    @functools.lru_cache(maxsize=16)
    def read_block(self, pid, i):
        b = self.packs[pid][i]
        name = f"packs/{pid.hex()[:2]}/{pid.hex()}"
        length, error = -(-b.packed // 64) * 64 + 16, None
        for place in (name, "copies/" + name):
            try:
                with open(self.store.path(place), "rb") as f:
                    f.seek(b.offset)
                    return self.open_block(*b[2:], f.read(length), f"{place} block {i}")
            except (OSError, Bad) as e: error = error or e
        raise Bad(str(error))
    def chunk(self, type_, cid, length=None):
        error = f"chunk {cid.hex()} of type {type_} is in no pack"
        for b, i, k in self.where.get((type_, cid[:16]), []):
            try:
                start = sum(b.lengths[:k])
                data = self.read_block(b.pack, i)[start:start + b.lengths[k]]
                need(KH(self.name_keys[type_], data) == cid, f"chunk {cid.hex()}: hash differs")
                need(length is None or len(data) == length, f"chunk {cid.hex()}: length differs")
                return data
            except Bad as e: error = str(e)
        raise Bad(error)
    # -- section 7
    def references(self, depth, cid, total):
        """Data chunks (id, length) below a list page."""
        need(depth <= 8, "list page too deep")
        what, data = f"list page {cid.hex()}", self.chunk(3, cid)
        need(len(data) <= MIB, f"{what}: too large")
        m = fields(cbor(data, what), {0: (U, 0), 1: (IDS, 1), 2: (ARR(U), 1)}, what)
        need(m.get(0, 0) == depth and len(m[1]) == 32 * len(m[2]) and m[2] and sum(m[2]) == total and all(m[2]), f"{what}: malformed")
        for i, n in enumerate(m[2]):
            ref = m[1][32 * i:32 * i + 32]
            if depth: yield from self.references(depth - 1, ref, n)
            else: yield ref, n
    def content(self, node):
        total = node.get(11, 0) - sum(node.get(15, [])[1::2])
        need(14 not in node or node[14][2] == total, "content length differs from size less holes")
        if 14 in node: return self.references(node[14][0], node[14][1], total)
        ids = [node[12][i:i + 32] for i in range(0, len(node[12]), 32)]
        lengths = node.get(13, [total] if ids else [])
        need(len(lengths) == len(ids) and sum(lengths) == total and all(lengths), "content lengths do not add up")
        return zip(ids, lengths)
    def node(self, m, what):
        fields(m, NODE, what, True)
        name, kind = m[0], m[1]
        need(1 <= len(name) <= 65535 and b"/" not in name and b"\0" not in name and name not in (b".", b".."), f"{what}: bad name")
        what = f"{what} {name!r}"
        need(1 <= kind <= 7, f"{what}: unknown kind")
        need((kind == 1 and (12 in m) != (14 in m)) or (kind != 1 and not {11, 12, 13, 14, 15} & set(m)), f"{what}: content")
        need((16 in m) == (kind == 3) and (17 in m) == (kind == 2) and (18 in m) == (kind in (6, 7)), f"{what}: fields not of its kind")
        need(not (kind == 2 and 19 in m), f"{what}: a directory in a hard-link group")
        need(kind != 3 or len(m[16]) <= 65535 and b"\0" not in m[16], f"{what}: bad link target")
        if kind == 1:
            holes, end = m.get(15, []), -1
            need(len(holes) % 2 == 0, f"{what}: holes")
            for off, n in zip(holes[::2], holes[1::2]):
                need(n > 0 and off > end and off + n <= m.get(11, 0), f"{what}: holes")
                end = off + n
            need(len(m.get(12, b"")) <= 16 * 32 and (13 in m) == (len(m.get(12, b"")) > 32), f"{what}: content lengths")
            need(14 not in m or m[14][0] <= 8, f"{what}: content too deep")
        attrs = m.get(20, [])
        need(len(attrs) % 2 == 0 and all(attrs[::2]) and all(a < b for a, b in zip(attrs[::2], attrs[2::2])), f"{what}: attributes")
        need(all(len(v) <= 16 * MIB for v in attrs[1::2]), f"{what}: attribute too large")
        return m
    def directory(self, page, depth=None):
        """Nodes of a directory, in order."""
        what, data = f"page {page.hex()}", self.chunk(2, page)
        need(len(data) <= MIB, f"{what}: too large")
        m = cbor(data, what)
        need(type(m) is dict, f"{what}: not a map")
        d = m.get(0, 0)
        if d == 0:
            fields(m, {0: (U, 0), 1: (ARR(lambda v: True), 1)}, what)
            nodes = [self.node(n, what) for n in m[1]]
        else:
            fields(m, {0: (U, 0), 1: (IDS, 1), 2: (ARR(BYTES), 1), 3: (ARR(U), 1)}, what)
            need(d <= 8 and len(m[1]) == 32 * len(m[2]) == 32 * len(m[3]) and m[2], f"{what}: malformed")
            nodes = []
            for i, (first, count) in enumerate(zip(m[2], m[3])):
                below = self.directory(m[1][32 * i:32 * i + 32], d - 1)
                need(below and below[0][0] == first and len(below) == count, f"{what}: first name or count of page {i} differs")
                nodes += below
        need(depth is None or d == depth, f"{what}: depth differs")
        need(all(a[0] < b[0] for a, b in zip(nodes, nodes[1:])), f"{what}: names not ascending")
        return nodes
    def walk(self, page, at=b""):
        for n in self.directory(page):
            path = at + b"/" + n[0] if at else n[0]
            yield path, n
            if n[1] == 2: yield from self.walk(n[17], path)
    # -- sections 9, 10, 13: nothing of it is needed to restore
    def prune(self):
        """Verifies prune objects; what plans delete may be missing."""
        self.pruned, hashes_ = set(), {}
        for name in self.store.names("gc", r"gc/[0-9a-f]{16}\.(condemn|plan)"):
            kind, number = 4 if name.endswith("condemn") else 5, int(name[3:19], 16)
            with self.guard():
                hashes_[kind, number] = H(data := self.store.get(name, 64 * MIB))
                body = self.sealed_body(data, kind, name)
                m = fields(cbor(body[64:], name), {0: (B(16), 1), 1: (U, 1), 2: (IDS, 1), 3: (HEADS, 0), 4: (INT, 1), 5: (B(32), 0),
                           6: (TUP(U, B(32)), 0)}, name)
                need(m[1] == number, f"{name}: of another generation")
                need(self.roles.get(m[0]) in (MAINTAINER, OWNER), f"{name}: not by a maintainer or the owner")
                need(ed25519_ok(self.keys[m[0]], body[:64], DK("lifeboat v1 prune object", self.id + body[64:], 64)), f"{name}: signature")
                need(m.get(5) == (hashes_.get((5, number - 1)) if kind == 4 else hashes_.get((4, number))), f"{name}: chain")
                ids = [m[2][i:i + 32] for i in range(0, len(m[2]), 32)]
                need(all(a < b for a, b in zip(ids, ids[1:])), f"{name}: ids do not ascend")
                for cid, seq, digest in m.get(3, []):
                    need(self.heads.get((cid, seq)) == digest or self.cut_off(cid, seq), f"{name}: saw a log that is not so now")
                self.pruned |= set(ids) if kind == 5 else set()
    def check_indexes(self):
        named = {}
        for r in self.records:
            key = {1: 3, 14: 0}.get(r.map[6])
            for iid in r.map[7].get(key, []) if key is not None else []: named[iid] = r
        for iid in sorted(named):
            name = f"index/{iid.hex()}"
            with self.guard():
                data = self.store.hashed(name, 64 * MIB)
                if data is None:
                    need(iid in self.pruned, f"{name}: missing")
                    continue
                m = fields(cbor(self.sealed_body(data, 2, name), name), {0: (U, 1), 1: (IDS, 1), 2: (B(32), 1), 3: (BYTES, 1)}, name)
                packs = [m[1][i:i + 32] for i in range(0, len(m[1]), 32)]
                need(all(a < b for a, b in zip(packs, packs[1:])) and m[0] <= 1 and len(m[3]) % 28 == 0, f"{name}: malformed")
                last = None
                for i in range(0, len(m[3]), 28):
                    e = struct.unpack_from("<16sIII", m[3], i)
                    need(last is None or last < e, f"{name}: entries do not ascend")
                    need(m[2][:16] <= e[0] <= m[2][16:] and e[1] < len(packs), f"{name}: entry out of range")
                    last = e
                    blocks = self.packs.get(packs[e[1]])
                    if blocks is not None:
                        need(e[2] < len(blocks) and e[3] < len(blocks[e[2]].prefixes) and blocks[e[2]].prefixes[e[3]] == e[0],
                             f"{name}: an entry is not as the pack's table of contents has it")
    def check_parity(self):
        for name in self.store.names("parity", r"parity/[0-9a-f]{64}\.[0-9]+"):
            with self.guard():
                data, pid, k = self.store.get(name, 128 * MIB), bytes.fromhex(name[7:71]), int(name[72:])
                need(len(data) >= 64, f"{name}: too short")
                magic, version, k2, shard, length, n, m, share, zero, pack = struct.unpack_from("<8sHHIQHHHH32s", data)
                table = 64 + 32 * (n + m)
                need(magic == bytes.fromhex("894C46500D0A1A0A") and version == 1 and k2 == k and shard == 65536 and pack == pid and not zero
                     and 1 <= m <= n <= 640 and 1 <= share <= 1000 and len(data) == table + 32 + 65536 * m, f"{name}: bad header")
                need(H(data[:table]) == data[table:table + 32], f"{name}: hash of its head differs")
                body = self.store.get(f"packs/{pid.hex()[:2]}/{pid.hex()}", 256 * MIB)
                sums = [data[64 + 32 * i:96 + 32 * i] for i in range(n + m)]
                need(all(H(data[table + 32 + 65536 * i:table + 32 + 65536 * (i + 1)]) == sums[n + i] for i in range(m)), f"{name}: recovery shard")
                if body is not None:
                    need(len(body) == length, f"{name}: length of the pack differs")
                    for i in range(n):
                        part = body[(640 * k + i) * 65536:][:65536]
                        need(part and H(part.ljust(65536, b"\0")) == sums[i], f"{name}: shard {i} differs")
    def check(self):
        """Everything: all blocks and their chunks, indexes, parity, all trees of live snapshots and their content's presence."""
        self.check_indexes()
        self.check_parity()
        chunks = 0
        for pid, blocks in self.packs.items():
            for i, b in enumerate(blocks):
                if self.session(b.entry, "")[2] is None: continue
                with self.guard():
                    data, at = self.read_block(pid, i), 0
                    for n, prefix in zip(b.lengths, b.prefixes):
                        need(KH(self.name_keys[b.type], data[at:at + n])[:16] == prefix, f"pack {pid.hex()} block {i}: hash of a chunk differs")
                        at, chunks = at + n, chunks + 1
        for cid, seq, sid, m in self.snapshots():
            counts = [0] * 4
            with self.guard(f"snapshot {sid.hex()}: "):
                for path, n in self.walk(m[0]):
                    counts[0 if n[1] == 1 else 1 if n[1] == 2 else 2] += 1
                    counts[3] += n.get(11, 0)
                    for ref, _ in self.content(n) if n[1] == 1 else ():
                        need(self.role == MAINTAINER or (1, ref[:16]) in self.where, f"{path!r}: chunk {ref.hex()} is in no pack")
            print(f"snapshot {sid.hex()[:8]}: {counts}, says {m[9][:4]}")
        print(f"{len(self.records)} records, {self.void} void, {len(self.packs)} packs, {chunks} chunks, {len(self.findings)} findings")
# ---- restoring
def nanoseconds(t): return t if type(t) is int else t[0] * 10**9 + t[1]
def access_time(n):
    """atime, or mtime where none is kept; keys 8 to 10 hold a difference, or an array with the absolute time."""
    t = n.get(10, 0)
    return nanoseconds(n[7]) + t if type(t) is int else nanoseconds(t)

class Restore:
    def __init__(self, repository, flags=False): self.r, self.flags, self.groups, self.root = repository, flags, {}, os.geteuid() == 0
    def attempt(self, path, what, action, *args, **named):
        try: action(*args, **named)
        except OSError as e: self.r.find(f"{os.fsdecode(path)}: {what}: {e.strerror}")
    def metadata(self, n, path):
        kind, link = n[1], n[1] == 3
        if self.root: self.attempt(path, "owner", os.chown, path, n[3], n[4], follow_symlinks=False)
        attrs = n.get(20, [])
        for name, value in zip(attrs[::2], attrs[1::2]):
            self.attempt(path, "attribute", os.setxattr, path, name, value, follow_symlinks=False)
        if not link: self.attempt(path, "mode", os.chmod, path, n[2])
        if self.flags and 21 in n and kind in (1, 2):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            self.attempt(path, "flags", fcntl.ioctl, fd, 0x40086602, struct.pack("l", n[21]))
            os.close(fd)
        self.attempt(path, "times", os.utime, path, ns=(access_time(n), nanoseconds(n[7])), follow_symlinks=False)
    def file(self, n, path):
        size, holes = n.get(11, 0), n.get(15, [])
        gaps = list(zip(holes[::2], holes[1::2]))[::-1]
        with open(path, "xb") as f:
            os.ftruncate(f.fileno(), size)
            at = 0
            for ref, length in self.r.content(n):
                data, done = memoryview(self.r.chunk(1, ref, length)), 0
                while done < length:
                    while gaps and gaps[-1][0] == at: at += gaps.pop()[1]
                    part = min(length - done, gaps[-1][0] - at if gaps else length)
                    f.seek(at)
                    f.write(data[done:done + part])
                    at, done = at + part, done + part
            while gaps and gaps[-1][0] == at: at += gaps.pop()[1]
            need(at == size and not gaps, f"{path!r}: content does not fill the file")
    def one(self, n, path):
        kind = n[1]
        group = (*n[19], kind) if 19 in n else None
        if group in self.groups: return os.link(self.groups[group], path, follow_symlinks=False)
        if kind == 1: self.file(n, path)
        elif kind == 2:
            os.mkdir(path, 0o700)
            self.directory(n[17], path)
        elif kind == 3: os.symlink(n[16], path)
        else:
            device = os.makedev(*n[18]) if 18 in n else 0
            os.mknod(path, {4: stat.S_IFIFO, 5: stat.S_IFSOCK, 6: stat.S_IFCHR, 7: stat.S_IFBLK}[kind] | 0o600, device)
        self.metadata(n, path)
        if group: self.groups[group] = path
    def directory(self, page, path):
        for n in self.r.directory(page):
            try: self.one(n, path + b"/" + n[0])
            except (Bad, OSError) as e: self.r.find(f"{os.fsdecode(path)}/{os.fsdecode(n[0])}: {e}")
def main():
    p = argparse.ArgumentParser()
    p.add_argument("repository")
    p.add_argument("-i", "--identity", required=True)
    p.add_argument("--fingerprint")
    p.add_argument("--flags", action="store_true", help="restore inode flags too")
    p.add_argument("command", choices=("info", "list", "check", "ls", "restore"))
    for optional in ("snapshot", "directory"): p.add_argument(optional, nargs="?")
    a = p.parse_args()
    try:
        r = Repository(a.repository, a.identity, a.fingerprint)
        if a.command == "info":
            print(f"repository {r.id.hex()}\nfingerprint {r.fingerprint.hex()}\nrole {r.role}\nslot {r.slot}\nformat {r.format}")
            for rec in r.records: print(f"log/{rec.client.hex()}/{rec.seq:016x} kind {rec.map[6]} at {rec.map[3]}")
        elif a.command == "list":
            for cid, seq, sid, m in r.snapshots():
                paths = " ".join(os.fsdecode(x) for x in m[4])
                print(f"{sid.hex()} {cid.hex()}/{seq} {m[7]} {m[1]} {m[3]} {paths}{' checkpoint' if 14 in m else ''}{f' retained until {m[64]}' if 64 in m else ''}")
        else:
            r.load_packs()
            if a.command == "check": r.check()
            else:
                need(a.snapshot, "which snapshot?")
                chosen = [s for s in r.snapshots() if a.snapshot == "latest" or s[2].hex().startswith(a.snapshot)]
                need(chosen and (a.snapshot == "latest" or len({s[2] for s in chosen}) == 1), "not exactly one such snapshot")
                root = chosen[-1][3][0]
                if a.command == "ls":
                    for path, n in r.walk(root):
                        print(f"{n[1]} {n[2]:o} {n[3]}:{n[4]} {n.get(11, 0)} {nanoseconds(n[7])} {os.fsdecode(path)}")
                else:
                    need(a.directory, "where to?")
                    os.makedirs(a.directory, exist_ok=True)
                    need(not os.listdir(a.directory), "the directory to restore to is not empty")
                    Restore(r, a.flags).directory(root, os.fsencode(a.directory))
                    print(chosen[-1][2].hex())
    except Bad as e: return print("error:", e, file=sys.stderr) or 2
    return 1 if r.findings else 0

if __name__ == "__main__": sys.exit(main())
