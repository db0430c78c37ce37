#!/usr/bin/env python3
"""A second reader of the repository format; it shares no code with the program, only docs/format.md.

    lifeboat_decoder.py REPOSITORY IDENTITY [SNAPSHOT] --to DIRECTORY

REPOSITORY is a directory, IDENTITY a file that `age -d -i` takes, SNAPSHOT the beginning of an id or `latest`.
Everything that is read is verified: names, commitments, signatures, tags, hashes, and the form of every structure.
Needs Python 3.9, the packages of requirements.txt, and the program `age`.
"""
import argparse
import errno
import fcntl
import os
import resource
import stat
import struct
import subprocess
import sys
import tempfile
from collections import OrderedDict

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

FORMAT_MAGIC = b"lifeboat repository format 1\n"
OBJECT_MAGIC = bytes.fromhex("894c46420d0a1a0a")
FOOTER_MAGIC = bytes.fromhex("4c464250")
KIND_PACK, KIND_LOG = 1, 3
DATA, TREE, LIST, SNAPSHOT = 1, 2, 3, 4
FILE, DIRECTORY, SYMLINK, FIFO, SOCKET, CHARACTER, BLOCK = 1, 2, 3, 4, 5, 6, 7
WRITER, MAINTAINER, READER, OWNER = 1, 2, 3, 4
OWNER_ONLY = {0, 8, 9, 10, 13}
MAINTAINER_ONLY = {3, 4, 5, 7, 12, 14}
MIB = 1 << 20
FS_IOC_SETFLAGS = 0x40086602

class Bad(Exception):
    """Bytes that are not what the format says."""

def need(condition, what):
    if not condition:
        raise Bad(what)

def plain_hash(data):
    return blake3(data).digest()

def derive(context, data, length=32):
    return blake3(data, derive_key_context=context).digest(length=length)

def keyed(key, data):
    return blake3(data, key=key).digest()

def aead_open(key, nonce, bound, sealed, what):
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, sealed, bound)
    except (InvalidTag, ValueError):
        raise Bad(what + ": the tag does not fit") from None

# Section 5: deterministic CBOR.

class Cbor:
    """Reads deterministic CBOR; refuses everything that would not encode back to the same bytes."""

    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def fail(self, why):
        raise Bad(f"{self.what}: {why} at byte {self.at}")

    def take(self, length):
        if length > len(self.data) - self.at:
            self.fail("cut off")
        taken = self.data[self.at : self.at + length]
        self.at += length
        return taken

    def head(self):
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info
        if info > 27 or major == 7:
            self.fail("a length or simple value that is not used")
        width = 1 << (info - 24)
        value = int.from_bytes(self.take(width), "big")
        if value < (24, 1 << 8, 1 << 16, 1 << 32)[info - 24]:
            self.fail("an integer that is not in its shortest form")
        return major, value

    def value(self, depth=0):
        if depth >= 16:
            self.fail("nested too deeply")
        major, value = self.head()
        if major == 0:
            return value
        if major == 1:
            return -1 - value
        if major == 2:
            return bytes(self.take(value))
        if major == 3:
            try:
                return bytes(self.take(value)).decode("utf-8")
            except UnicodeDecodeError:
                self.fail("text that is not UTF-8")
        if major in (4, 5) and value > len(self.data) - self.at:
            self.fail("more values than bytes")
        if major == 4:
            return [self.value(depth + 1) for _ in range(value)]
        if major == 5:
            result, last = {}, -1
            for _ in range(value):
                key_major, key = self.head()
                if key_major != 0 or key <= last:
                    self.fail("map keys that do not ascend")
                last = key
                result[key] = self.value(depth + 1)
            return result
        if major == 7 and value in (20, 21):
            return value == 21
        self.fail("a value of a kind that is not used")

def fields(value, what, schema, extensible=False):
    """Checks a map: schema has for each key its type (a length for byte strings), or a tuple of it and None if optional."""
    need(isinstance(value, dict), what + ": no map")
    for key, kind in schema.items():
        optional = isinstance(kind, tuple)
        kind = kind[0] if optional else kind
        if key not in value:
            need(optional, f"{what}: field {key} is missing")
            continue
        found = value[key]
        if isinstance(kind, int) and not isinstance(kind, bool):
            need(isinstance(found, bytes) and len(found) == kind, f"{what}: field {key} is not {kind} bytes")
        elif kind is not None:
            need(type(found) is kind, f"{what}: field {key} is no {kind.__name__}")
    for key in value:
        need(key in schema or (extensible and key >= 64), f"{what}: field {key} is not known")
    return value

def decode_map(data, what, schema, extensible=False):
    reader = Cbor(data, what)
    value = reader.value()
    need(reader.at == len(data), what + ": bytes behind the end")
    return fields(value, what, schema, extensible)

def array_of(value, kind, what):
    need(isinstance(value, list), what + ": no array")
    for item in value:
        fits = isinstance(item, bytes) and len(item) == kind if isinstance(kind, int) else type(item) is kind
        need(fits, what + ": an item of a wrong type")
    return value

def ascending(items, what):
    need(all(a < b for a, b in zip(items, items[1:])), what + ": not ascending")
    return items

def split_ids(joined, what, length=32):
    need(len(joined) % length == 0, what + ": ids of a wrong length")
    return [joined[at : at + length] for at in range(0, len(joined), length)]

class Fixed:
    """Fixed-width little-endian fields."""

    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def take(self, length):
        need(length <= len(self.data) - self.at, self.what + ": cut off")
        self.at += length
        return bytes(self.data[self.at - length : self.at])

    def number(self, length):
        return int.from_bytes(self.take(length), "little")

    def varint(self):
        value = 0
        for shift in range(0, 35, 7):
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                need(byte > 0 or shift == 0, self.what + ": a length that is not in its shortest form")
                need(value < 1 << 32, self.what + ": a length that is too long")
                return value
        raise Bad(self.what + ": a length that is too long")

# Section 3: keys and sealed objects.

def age(identity_path, data, what):
    """Opens an age file with the real program; None if the identity does not fit."""
    with tempfile.NamedTemporaryFile() as sealed:
        sealed.write(data)
        sealed.flush()
        done = subprocess.run(["age", "-d", "-i", identity_path, sealed.name], capture_output=True, check=False)
    if done.returncode == 0:
        return done.stdout
    if b"no identity matched" in done.stderr or b"passphrase" in done.stderr:
        return None
    raise Bad(f"{what}: {done.stderr.decode(errors='replace').strip()}")

def age_with_text(identity, data, what):
    with tempfile.NamedTemporaryFile() as file:  # mode 0600
        file.write(identity.encode() + b"\n")
        file.flush()
        return age(file.name, data, what)

def padme(length):
    exponent = length.bit_length() - 1
    kept = exponent.bit_length()
    mask = (1 << max(exponent - kept, 0)) - 1
    return (length + mask) & ~mask

def open_pieces(key, sealed, what):
    need(sealed, what + ": empty")
    size = 65536 + 16
    count = -(-len(sealed) // size)
    plain = []
    for number in range(count):
        last = number + 1 == count
        nonce = struct.pack("<Q", number) + bytes([0, 0, 0, last])
        piece = aead_open(key, nonce, b"", bytes(sealed[number * size : (number + 1) * size]), what)
        need(piece or number == 0, what + ": an empty last piece")
        plain.append(piece)
    return b"".join(plain)

def decode_header(data, kind, what):
    reader = Fixed(data[:64], what)
    need(reader.take(8) == OBJECT_MAGIC, what + ": no object of this format")
    need(reader.number(1) == kind, what + ": an object of another kind")
    need(reader.take(3) == bytes([1, 1, 0]), what + ": version, suite, or flags that are not known")
    generation = reader.number(4)
    reader.take(32)
    need(reader.take(16) == bytes(16), what + ": fields that are not zero")
    return generation

def decode_seal(reader):
    entry = {"session": reader.take(16), "class": reader.number(1)}
    need(reader.number(1) == 1, "seal: a type that is not known")
    need(entry["class"] in (1, 2), "seal: a class that is not known")
    entry["generation"] = reader.number(4)
    entry["commit"] = reader.take(32)
    length = reader.number(2)
    need(length <= 8192, "seal: too long")
    entry["age"] = reader.take(length)
    return entry

GENERATION = {0: int, 1: 32, 2: (32, None), 3: (32, None), 4: (str, None), 5: (str, None), 6: (str, None), 7: (str, None)}
BUNDLE = {0: int, 1: 16, 2: 16, 3: (32, None), 4: (32, None), 5: (list, None), 6: list}

class Keys:
    def __init__(self, bundle):
        decoded = decode_map(bundle, "bundle", BUNDLE, True)
        need(decoded[0] in (READER, OWNER), "bundle: this role cannot read; use the slot of a reader or of the owner")
        need(4 in decoded, "bundle: no domain key")
        self.repository, self.fingerprint = decoded[1], decoded[2]
        self.names = {kind: derive("lifeboat v1 chunk name", decoded[4] + bytes([kind])) for kind in (1, 2, 3, 4)}
        numbers = [fields(entry, "generation", GENERATION, True)[0] for entry in decoded[6]]
        need(numbers and numbers[0] >= 1, "bundle: no generations")
        ascending(numbers, "generations")
        self.generations = dict(zip(numbers, decoded[6]))
        self.sessions = {}

    def generation(self, number):
        need(number in self.generations, f"key generation {number}: not in the bundle")
        return self.generations[number]

    def object_key(self, header, generation):
        secret = self.generation(generation)[1] + self.repository + header
        both = derive("lifeboat v1 sealed object", secret, 64)
        return both[:32], both[32:]

    def open_object(self, data, kind, what):
        generation = decode_header(data, kind, what)
        key, commit = self.object_key(data[:64], generation)
        need(data[64:96] == commit, what + ": another commitment")
        padded = open_pieces(key, data[96:], what)
        length = int.from_bytes(padded[:4], "little")
        need(len(padded) >= 4 + length and len(padded) == padme(4 + length), what + ": a wrong length")
        need(not any(padded[4 + length :]), what + ": padding that is not zero")
        return padded[4 : 4 + length]

    def session_key(self, seal):
        if seal["commit"] in self.sessions:
            return self.sessions[seal["commit"]]
        generation = self.generation(seal["generation"])
        psk, identity = (2, 6) if seal["class"] == 1 else (3, 7)
        secret = age_with_text(generation[identity], seal["age"], "seal")
        need(secret is not None and len(secret) == 32, "seal: not sealed to the vault, or of a wrong length")
        mixed = secret + generation[psk] + self.repository + seal["session"]
        both = derive("lifeboat v1 session", mixed + bytes([seal["class"]]) + struct.pack("<I", seal["generation"]), 64)
        need(both[32:] == seal["commit"], "seal: another commitment")
        self.sessions[seal["commit"]] = both[:32]
        return both[:32]

    def open_block(self, seal, row, chunks, stored):
        """Section 4. The row is (number, type, codec, raw_len, packed_len)."""
        number, kind, codec, raw_len, packed_len = row
        table = struct.pack("<I", len(chunks)) + b"".join(struct.pack("<I", size) + prefix for size, prefix in chunks)
        bound = struct.pack("<QBBII", number, codec, kind, raw_len, packed_len) + plain_hash(table)
        key = keyed(self.session_key(seal), bound)
        padded = aead_open(key, bytes(12), self.repository, bytes(stored), "block")
        need(len(padded) == -(-packed_len // 64) * 64, "block: a wrong length")
        need(not any(padded[packed_len:]), "block: padding that is not zero")
        packed = padded[:packed_len]
        if codec == 0:
            raw = packed
        else:
            parameters = zstandard.get_frame_parameters(packed)
            need(parameters.content_size == raw_len, "block: a frame of another size")
            need(not parameters.has_checksum and parameters.dict_id == 0, "block: a frame with checksum or dictionary")
            raw = zstandard.ZstdDecompressor().decompress(packed, max_output_size=raw_len)
        need(len(raw) == raw_len, "block: a wrong raw length")
        return raw

    def verify_chunk(self, kind, chunk_id, data):
        need(keyed(self.names[kind], data) == chunk_id, f"chunk {chunk_id.hex()}: other bytes")
        return data

def check_row(row, seal_class):
    _, kind, codec, raw_len, packed_len = row
    need(kind in (DATA, TREE, LIST, SNAPSHOT), "block: a type that is not known")
    need((seal_class == 1) == (kind == DATA), "block: a type of the other class")
    need(codec in (0, 1) and raw_len <= 16 * MIB and packed_len <= 16 * MIB + 4096, "block: lengths that cannot be")
    need(codec == 1 or raw_len == packed_len, "block: a raw block of two lengths")

# Sections 2, 6, and 8: the repository, its packs, its log.

RECORD = {0: 16, 1: int, 2: (32, None), 3: int, 4: (list, None), 5: (int, None), 6: int, 7: dict}
FORMAT = {0: 16, 1: 32, 2: list, 3: int, 4: int, 5: int, 6: list, 7: list, 8: int}
SNAPSHOT_FIELDS = {
    0: 32, 1: str, 2: (32, None), 3: str, 4: list, 5: (list, None), 6: (str, None), 7: int, 8: int, 9: list,
    10: (list, None), 11: (int, None), 12: str, 13: (str, None), 14: (bool, None), 15: (list, None),
}  # fmt: skip

class Repository:
    def __init__(self, path, identity):
        self.path = path
        encoded = self.read("format/1")
        need(encoded.startswith(FORMAT_MAGIC), "format/1: not a repository of this format")
        self.format = decode_map(encoded[len(FORMAT_MAGIC) :], "format/1", FORMAT)
        need(not self.format[6], f"format/1: needs features that are not known: {self.format[6]}")
        self.id, self.owner = self.format[0], self.format[1]
        self.fingerprint = plain_hash(self.owner + self.id + plain_hash(encoded))[:16]
        self.keys = self.open_slot(identity)
        self.packs, self.chunks, self.blocks = {}, {}, OrderedDict()
        self.snapshots, self.forgotten, self.warnings = {}, set(), []
        self.read_logs(plain_hash(encoded))

    def read(self, name, limit=64 * MIB):
        path = os.path.join(self.path, name)
        need(os.stat(path).st_size <= limit, name + ": too long")
        with open(path, "rb") as file:
            return file.read()

    def open_slot(self, identity):
        for name in sorted(os.listdir(os.path.join(self.path, "keys"))):
            if not name.endswith(".age"):
                continue
            plain = age(identity, self.read("keys/" + name, 2 * MIB), "keys/" + name)
            if plain is None:
                continue
            keys = Keys(plain)
            need(keys.repository == self.id and keys.fingerprint == self.fingerprint, name + ": another repository's")
            return keys
        raise Bad("no key slot opens with this identity")

    def read_logs(self, format_hash):
        owner_id = plain_hash(self.owner)[:16]
        clients = OrderedDict({owner_id: {"key": self.owner, "role": OWNER, "last": None}})
        read = set()
        while read != set(clients):
            for client in [client for client in clients if client not in read]:
                read.add(client)
                self.read_log(client, clients, owner_id, format_hash)

    def read_log(self, client, clients, owner_id, format_hash):
        previous, seq = None, 0
        while True:
            name = f"log/{client.hex()}/{seq:016x}"
            if not os.path.exists(os.path.join(self.path, name)):
                need(seq > 0 or client != owner_id, "the owner's log has no first record")
                return
            last = clients[client]["last"]
            if last is not None and seq > last:
                return
            data = self.read(name, 16 * MIB)
            try:
                record = self.open_record(data, client, clients[client], seq, previous)
                if seq == 0 and client == owner_id:
                    need(record[6] == 0 and record[7] == {0: format_hash}, "the first record names another format/1")
                self.apply(record, client, clients)
            except Bad as error:
                self.warnings.append(f"{name} is void: {error}")
            previous, seq = plain_hash(data), seq + 1

    def open_record(self, data, client, known, seq, previous):
        body = self.keys.open_object(data, KIND_LOG, "log record")
        signature, encoded = body[:64], body[64:]
        try:
            message = derive("lifeboat v1 log record", self.id + encoded, 64)
            Ed25519PublicKey.from_public_bytes(known["key"]).verify(signature, message)
        except InvalidSignature:
            raise Bad("the signature is not this client's") from None
        record = decode_map(encoded, "log record", RECORD, True)
        need(record[0] == client and record[1] == seq and record.get(2) == previous, "out of place in its chain")
        need(record[6] not in OWNER_ONLY or known["role"] == OWNER, "only the owner may write this kind")
        need(record[6] not in MAINTAINER_ONLY or known["role"] in (MAINTAINER, OWNER), "only maintainers may write this kind")
        return record

    def apply(self, record, client, clients):
        kind, body = record[6], record[7]
        if kind == 1:
            fields(body, "snapshot record", {0: 32, 1: list, 2: list, 3: (list, None), 4: list})
            self.add_packs(body[2])
            self.snapshots[(client, record[1])] = (body[0], self.open_snapshot(body[0], body[1]))
        elif kind == 2:
            self.add_packs(fields(body, "claim", {0: list, 1: (list, None)})[0])
        elif kind in (4, 5):
            for pair in fields(body, "forget", {0: list})[0]:
                (self.forgotten.add if kind == 4 else self.forgotten.discard)((pair[0], pair[1]))
        elif kind == 8:
            fields(body, "enrol", {0: 32, 1: int, 2: str, 3: (list, None), 4: (16, None)})
            clients[plain_hash(body[0])[:16]] = {"key": body[0], "role": body[1], "last": None}
        elif kind == 9:
            fields(body, "revoke", {0: 16, 1: int})
            need(body[0] in clients, "revoke: a client that was not enrolled")
            clients[body[0]]["last"] = body[1]
        elif kind == 12:
            fields(body, "checkpoint", {0: list, 1: list, 2: (list, None), 3: (list, None)})
            self.add_packs(body[1])
            for author, seq, snapshot, sealed in body[0]:
                self.snapshots[(author, seq)] = (snapshot, self.open_snapshot(snapshot, sealed))
        elif kind > 15:
            sys.exit(f"error: a record of kind {kind} is not known: a newer version wrote it")

    def add_packs(self, packs):
        for entry in packs:
            need(isinstance(entry, list) and len(entry) == 3, "pack reference: not three values")
            pack, size, toc_len = entry
            need(type(pack) is bytes and len(pack) == 32 and type(size) is int and type(toc_len) is int, "pack reference")
        for pack, size, toc_len in packs:
            if pack not in self.packs:
                try:
                    self.packs[pack] = self.open_pack(pack, size, toc_len)
                except (Bad, FileNotFoundError) as error:
                    self.packs[pack] = None
                    self.warnings.append(f"pack {pack.hex()}: {error}")

    def open_snapshot(self, snapshot, sealed):
        need(isinstance(sealed, list) and len(sealed) == 6, "sealed snapshot: not six values")
        entry, number, codec, raw_len, packed_len, ciphertext = sealed
        reader = Fixed(entry, "seal")
        seal = decode_seal(reader)
        need(reader.at == len(entry), "seal: too long")
        row = (number, SNAPSHOT, codec, raw_len, packed_len)
        check_row(row, seal["class"])
        raw = self.keys.open_block(seal, row, [(raw_len, snapshot[:16])], ciphertext)
        return decode_snapshot(self.keys.verify_chunk(SNAPSHOT, snapshot, raw))

    def open_pack(self, pack, size, toc_len):
        name = f"packs/{pack.hex()[:2]}/{pack.hex()}"
        data = self.read(name, 256 * MIB)
        need(len(data) == size and plain_hash(data) == pack, name + ": not the bytes that its name says")
        generation = decode_header(data, KIND_PACK, name)
        reader = Fixed(memoryview(data), name)
        reader.take(64)
        seals = [decode_seal(reader) for _ in range(reader.number(2))]
        first = reader.at
        key, commit = self.keys.object_key(data[:64], generation)
        footer = data[-40:]
        need(footer[:32] == commit and footer[36:] == FOOTER_MAGIC, name + ": another commitment, or no footer")
        need(struct.unpack("<I", footer[32:36])[0] == toc_len <= 64 * MIB, name + ": another table of contents")
        toc = open_pieces(key, data[-40 - toc_len : -40], name)
        end = self.read_toc(pack, toc, seals, first, name)
        need(end + toc_len + 40 == size, name + ": parts that do not add up")
        return data

    def read_toc(self, pack, toc, seals, first, name):
        reader = Fixed(toc, name)
        offset, padding, count = reader.number(4), reader.number(4), reader.number(4)
        need(offset == first, name + ": the first block is elsewhere")
        classes = set()
        for _ in range(count):
            position = reader.number(2)
            need(position < len(seals), name + ": a block without a seal")
            seal, number = seals[position], reader.number(8)
            row = (number, reader.number(1), reader.number(1), reader.number(4), reader.number(4))
            check_row(row, seal["class"])
            classes.add(seal["class"])
            chunk_count = reader.number(4)
            need(0 < chunk_count <= len(toc), name + ": more chunks than bytes, or none")
            lengths = [reader.varint() for _ in range(chunk_count)]
            chunks = [(length, reader.take(16)) for length in lengths]
            need(sum(lengths) == row[3], name + ": chunks that do not fill their block")
            stored = -(-row[4] // 64) * 64 + 16
            at = 0
            for length, prefix in chunks:
                self.chunks.setdefault((row[1], prefix), (pack, offset, stored, seal, row, chunks, at, length))
                at += length
            offset += stored
        need(reader.at == len(toc), name + ": bytes behind the table of contents")
        need(len(classes) <= 1, name + ": blocks of both classes")
        return offset + padding

    def chunk(self, kind, chunk_id):
        place = self.chunks.get((kind, chunk_id[:16]))
        need(place is not None, f"chunk {chunk_id.hex()}: in no pack")
        pack, offset, stored, seal, row, chunks, at, length = place
        raw = self.blocks.get((pack, offset))
        if raw is None:
            raw = self.keys.open_block(seal, row, chunks, self.packs[pack][offset : offset + stored])
            self.blocks[(pack, offset)] = raw
            if len(self.blocks) > 32:
                self.blocks.popitem(last=False)
        return self.keys.verify_chunk(kind, chunk_id, raw[at : at + length])

# Section 7: trees.

NODE = {
    0: bytes, 1: int, 2: int, 3: int, 4: int, 5: (bytes, None), 6: (bytes, None), 7: None, 8: (None, None),
    9: (None, None), 10: (None, None), 11: (int, None), 12: (bytes, None), 13: (list, None), 14: (list, None),
    15: (list, None), 16: (bytes, None), 17: (32, None), 18: (list, None), 19: (list, None), 20: (list, None),
    21: (int, None), 22: (bool, None),
}  # fmt: skip

def decode_snapshot(data):
    snapshot = decode_map(data, "snapshot", SNAPSHOT_FIELDS, True)
    array_of(snapshot[4], bytes, "paths")
    ascending(array_of(snapshot.get(5, []), str, "tags"), "tags")
    need(len(array_of(snapshot[9], int, "counts")) == 10, "snapshot: counts that are not ten")
    metadata = array_of(snapshot.get(15, []), str, "metadata")
    need(len(metadata) % 2 == 0, "metadata: not pairs")
    ascending(metadata[::2], "metadata")
    for key in (5, 6, 10, 11, 13, 14, 15):
        need(key not in snapshot or snapshot[key], f"snapshot: field {key} is empty and should be left out")
    return snapshot

def fits64(value):
    return -(1 << 63) <= value < 1 << 63

def decode_time(value, base=None):
    """Nanoseconds since 1970; relative to `base` where there is one."""
    if type(value) is int:
        need(fits64(value), "time: over 64 bits")
        return value + (base or 0)
    need(isinstance(value, list) and len(value) == 2 and all(type(part) is int for part in value), "time: not two integers")
    seconds, nanoseconds = value
    need(fits64(seconds) and 0 <= nanoseconds < 1_000_000_000, "time: out of range")
    total = seconds * 1_000_000_000 + nanoseconds
    need(not fits64(total - (base or 0)), "time: not in its shortest form")
    return total

def valid_name(name):
    return 0 < len(name) <= 65535 and name not in (b".", b"..") and b"/" not in name and b"\0" not in name

def decode_node(value):
    node = fields(value, "node", NODE, True)
    kind = node[1]
    need(valid_name(node[0]), "node: a name that no directory can hold")
    need(kind in range(1, 8) and 0 <= node[2] <= 0o7777, "node: a kind or mode that is not known")
    need(0 <= node[3] < 1 << 32 and 0 <= node[4] < 1 << 32, "node: an owner over 32 bits")
    for key in (5, 6, 11, 15, 16, 20, 21, 22):
        need(key not in node or node[key], f"node: field {key} is empty and should be left out")
    times = {7: decode_time(node[7])}
    for key in (8, 9, 10):
        if key in node:
            times[key] = decode_time(node[key], times[7])
    node["times"] = times
    is_file = kind == FILE
    need(((12 in node) != (14 in node)) == is_file and (is_file or not {11, 12, 13, 14, 15} & set(node)), "node: content")
    need((16 in node) == (kind == SYMLINK) and (17 in node) == (kind == DIRECTORY), "node: target or page")
    need((18 in node) == (kind in (CHARACTER, BLOCK)) and not (19 in node and kind == DIRECTORY), "node: device or link")
    for key in (18, 19):
        need(key not in node or len(array_of(node[key], int, "node")) == 2, f"node: field {key} is no pair")
    xattrs = array_of(node.get(20, []), bytes, "xattrs")
    need(len(xattrs) % 2 == 0 and all(name and b"\0" not in name for name in xattrs[::2]), "xattrs: not pairs with names")
    ascending(xattrs[::2], "xattrs")
    if is_file:
        decode_content(node)
    return node

def decode_content(node):
    size, holes = node.get(11, 0), array_of(node.get(15, []), int, "holes")
    need(len(holes) % 2 == 0, "holes: not pairs")
    holes = list(zip(holes[::2], holes[1::2]))
    free = -1
    for offset, length in holes:
        need(offset > free and offset >= 0 and length > 0, "holes: touching, overlapping, or empty")
        free = offset + length
    need(free <= size, "holes: behind the end of the file")
    data = size - sum(length for _, length in holes)
    node["holes"], node["data"] = holes, data
    if 14 in node:
        need(len(node[14]) == 3, "node: a list that is not three values")
        depth, page, length = node[14]
        need(type(depth) is int and 0 <= depth <= 8 and len(page) == 32 and length == data, "node: a list that does not fit")
        return
    ids = split_ids(node[12], "content")
    need(len(ids) <= 16 and (13 in node) == (len(ids) > 1), "node: too many chunks, or lengths missing")
    lengths = array_of(node[13], int, "lengths") if 13 in node else [data] * len(ids)
    need(len(lengths) == len(ids) and all(length > 0 for length in lengths), "node: a length that cannot be")
    need(sum(lengths) == data, "node: lengths that are not the file's")
    node["chunks"] = list(zip(ids, lengths))

def directory(repository, page_id, above=9):
    """The nodes of a directory in order."""
    data = repository.chunk(TREE, page_id)
    need(len(data) <= MIB, "page: too long")
    page = decode_map(data, "page", {0: (int, None), 1: None, 2: (list, None), 3: (list, None)})
    depth = page.get(0, 0)
    need(0 <= depth < above and (depth > 0 or 0 not in page), "page: a depth that cannot be")
    if depth == 0:
        need(2 not in page and 3 not in page and isinstance(page[1], list), "page: not a leaf")
        nodes = [decode_node(value) for value in page[1]]
        ascending([node[0] for node in nodes], "names")
        yield from nodes
        return
    need(isinstance(page[1], bytes) and page[1] and 2 in page and 3 in page, "page: no references")
    ids = split_ids(page[1], "page")
    firsts, counts = array_of(page[2], bytes, "first names"), array_of(page[3], int, "counts")
    need(len(ids) == len(firsts) == len(counts), "page: not one name and count for each reference")
    ascending(firsts, "first names")
    last = None
    for child, first, count in zip(ids, firsts, counts):
        nodes = list(directory(repository, child, depth))
        need(len(nodes) == count and nodes[0][0] == first, "page: not what its reference says")
        need(last is None or last < first, "page: out of order")
        last = nodes[-1][0]
        yield from nodes

def content(repository, node):
    """The data of a file, chunk by chunk."""
    if 14 in node:
        yield from list_content(repository, *node[14])
        return
    for chunk_id, length in node["chunks"]:
        data = repository.chunk(DATA, chunk_id)
        need(len(data) == length, "chunk: another length than its reference says")
        yield data

def list_content(repository, depth, page_id, length):
    data = repository.chunk(LIST, page_id)
    need(len(data) <= MIB, "list page: too long")
    page = decode_map(data, "list page", {0: (int, None), 1: bytes, 2: list})
    need(page.get(0, 0) == depth and (depth > 0 or 0 not in page), "list page: another depth")
    ids, lengths = split_ids(page[1], "list page"), array_of(page[2], int, "list page")
    need(0 < len(ids) <= 1024 and len(ids) == len(lengths) and sum(lengths) == length, "list page: lengths that do not fit")
    for child, size in zip(ids, lengths):
        if depth > 0:
            yield from list_content(repository, depth - 1, child, size)
        else:
            chunk = repository.chunk(DATA, child)
            need(len(chunk) == size, "chunk: another length than its reference says")
            yield chunk

# Putting it back.

class Restore:
    def __init__(self, repository, target):
        self.repository, self.links, self.flags, self.problems, self.count = repository, {}, [], [], 0
        os.makedirs(target, exist_ok=True)
        self.root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)

    def open_directory(self, path):
        here = os.dup(self.root)
        for name in path:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        return here

    def tree(self, page, parent, path=()):
        for node in directory(self.repository, page):
            self.count += 1
            try:
                self.entry(node, parent, path)
            except OSError as error:
                self.problems.append(f"{os.fsdecode(b'/'.join(path + (node[0],)))}: {error.strerror}")

    def entry(self, node, parent, path):
        name, kind = node[0], node[1]
        if kind == DIRECTORY:
            os.mkdir(name, 0o700, dir_fd=parent)
            here = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            try:
                self.tree(node[17], here, path + (name,))
                self.metadata(node, parent, here, path)
            finally:
                os.close(here)
            return
        group = tuple(node[19]) if 19 in node else None
        if group in self.links:
            above, first = self.links[group]
            source = self.open_directory(above)
            try:
                os.link(first, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(source)
            return
        opened = None
        if kind == FILE:
            opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
            self.write(node, opened)
        elif kind == SYMLINK:
            os.symlink(node[16], name, dir_fd=parent)
        else:
            kinds = {FIFO: stat.S_IFIFO, SOCKET: stat.S_IFSOCK, CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK}
            device = os.makedev(*node[18]) if 18 in node else 0
            os.mknod(name, kinds[kind] | 0o600, device, dir_fd=parent)
        if group is not None:
            self.links[group] = (path, name)
        try:
            self.metadata(node, parent, opened, path)
        finally:
            if opened is not None:
                os.close(opened)

    def write(self, node, opened):
        """Data goes around the holes; these are left unwritten."""
        holes = node["holes"] + [(node.get(11, 0), 0)]
        offset, at = 0, 0
        for data in content(self.repository, node):
            data = memoryview(data)
            while data:
                while offset >= holes[at][0]:
                    offset, at = max(offset, holes[at][0] + holes[at][1]), at + 1
                step = data[: holes[at][0] - offset]
                written = os.pwrite(opened, step, offset)
                offset, data = offset + written, data[written:]
        os.ftruncate(opened, node.get(11, 0))

    def metadata(self, node, parent, opened, path_above):
        name, symlink, root = node[0], node[1] == SYMLINK, os.geteuid() == 0
        path = b"/proc/self/fd/%d/" % parent + name
        if root:
            os.chown(name, node[3], node[4], dir_fd=parent, follow_symlinks=False)
        if not symlink:
            os.chmod(path, node[2])
        values = node.get(20, [])
        for attribute, value in zip(values[::2], values[1::2]):
            try:
                os.setxattr(path, attribute, value, follow_symlinks=False)
            except OSError as error:
                self.problems.append(f"{os.fsdecode(name)}: {os.fsdecode(attribute)}: {error.strerror}")
        times = node["times"]
        os.utime(name, ns=(times.get(10, times[7]), times[7]), dir_fd=parent, follow_symlinks=False)
        if 21 in node and opened is not None:
            self.flags.append((path_above, name, node[21]))

    def set_flags(self):
        """Comes last: an immutable file takes no more links, an immutable directory no more entries."""
        for above, name, flags in reversed(self.flags):
            here = self.open_directory(above)
            opened = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=here)
            try:
                fcntl.ioctl(opened, FS_IOC_SETFLAGS, struct.pack("@l", flags))
            except OSError as error:
                if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
                    self.problems.append(f"{os.fsdecode(name)}: inode flags: {error.strerror}")
            os.close(opened)
            os.close(here)

def choose(repository, wanted):
    live = [pair for place, pair in repository.snapshots.items() if place not in repository.forgotten]
    need(live, "the repository has no snapshots")
    if wanted == "latest":
        return max(live, key=lambda pair: (pair[1][8], pair[0]))
    found = [pair for pair in live if pair[0].hex().startswith(wanted)]
    need(len(found) == 1, f"{len(found)} snapshots begin with {wanted}")
    return found[0]

def main():
    parser = argparse.ArgumentParser(description="restores a snapshot, reading by docs/format.md alone")
    parser.add_argument("repository")
    parser.add_argument("identity")
    parser.add_argument("snapshot", nargs="?", default="latest")
    parser.add_argument("--to", required=True, metavar="DIRECTORY")
    options = parser.parse_args()
    sys.setrecursionlimit(100_000)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        repository = Repository(options.repository, options.identity)
        snapshot_id, snapshot = choose(repository, options.snapshot)
        restore = Restore(repository, options.to)
        restore.tree(snapshot[0], restore.root)
        restore.set_flags()
    except (Bad, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for problem in repository.warnings + restore.problems:
        print(f"warning: {problem}", file=sys.stderr)
    print(f"restored {restore.count} entries of {snapshot_id.hex()} ({snapshot[1]} of {snapshot[3]})")
    return 3 if repository.warnings or restore.problems else 0

if __name__ == "__main__":
    sys.exit(main())
