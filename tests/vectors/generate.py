#!/usr/bin/env python3
"""Writes the golden vectors beside it. An implementation of the frame apart from the library's, from the text alone."""

import base64
import json
import os
import struct
import sys

KINDS = "hello request reply error event data credit cancel ping pong bye mark".split()
PRIORITIES = "critical high normal low".split()
FLAGS = {"retain": 1, "redelivered": 2, "ack_wanted": 4, "more": 0x100, "open": 0x200, "trace": 0x400,
         "crc": 0x800, "delegate": 0x1000, "nested": 0x2000}
BUS, STOR, CULE = b"BUS\0", b"STOR", b"CULE"
OPS = {(BUS, 0x300): "publish", (BUS, 0x301): "subscribe", (BUS, 0x303): "deliver", (BUS, 0x304): "ack",
       (STOR, 3): "read", (CULE, 1): "info"}
TOPIC_OPS = (0x300, 0x303, 0x309)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def frame(kind, payload=b"", flags="", priority="normal", service=b"", op=0, id=0, source=0, deadline_ms=0, arg0=0,
          arg1=0, cap=0, nfds=0, extra=0, nested=False, **wrong):
    """The bytes of a frame; `wrong` overrides header fields after the fact, with the check made right again."""
    bits = sum(FLAGS[name] for name in flags.split()) | extra
    values = {"magic": b"cu" if nested else b"CU", "version": 1, "kind": KINDS.index(kind) + 1,
              "priority": PRIORITIES.index(priority), "nfds": nfds, "flags": bits, "length": len(payload)}
    values.update(wrong)
    header = struct.pack("<2sBBBBH4sIQIIIIQQQ", values["magic"], values["version"], values["kind"],
                         values["priority"], values["nfds"], values["flags"], service, op, id, values["length"], 0,
                         source, deadline_ms, arg0, arg1, cap)
    header = header[:28] + struct.pack("<I", crc32c(header)) + header[32:]
    padded = payload + bytes(-len(payload) % 8)
    return header + padded + (struct.pack("<I", crc32c(padded)) if bits & FLAGS["crc"] else b"")


def split(data, magic=b"CU"):
    """The frames in the bytes as (header tuple, payload); None where they are not whole frames."""
    frames = []
    while data:
        if len(data) < 64 or data[:2] != magic:
            return None
        h = struct.unpack("<2sBBBBH4sIQIIIIQQQ", data[:64])
        end = 64 + h[9] + -h[9] % 8 + (4 if h[5] & FLAGS["crc"] else 0)
        if crc32c(data[:28] + bytes(4) + data[32:64]) != h[10] or len(data) < end:
            return None
        frames.append((h, data[64:64 + h[9]]))
        data = data[end:]
    return frames


def is_utf8(data):
    try:
        data.decode()
        return True
    except UnicodeDecodeError:
        return False


def mirror(h, payload):
    """The JSON object of a frame, keys in the order in which the library writes them."""
    _, _, kind, priority, nfds, flags, service, op, id, _, _, source, deadline_ms, arg0, arg1, cap = h
    out = {"kind": KINDS[kind - 1]}
    if priority != 2:
        out["priority"] = PRIORITIES[priority]
    names = [name for name, bit in FLAGS.items() if flags & bit]
    rest = flags & ~sum(FLAGS.values())
    if flags:
        out["flags"] = names + ([rest] if rest else [])
    if any(service):
        text = "".join(chr(b) if 0x20 <= b < 0x7F and b != 0x5C else "\\x%02x" % b for b in service.rstrip(b"\0"))
        out["service"] = "\\x62us" if text == "bus" else text
    if op:
        out["op"] = op
        name = {0x8000: "ok", 0x8001: "error"}.get(op) or OPS.get((service, op))
        if name:
            out["op_name"] = name
    trace, body = (payload[:32].hex(), payload[32:]) if flags & FLAGS["trace"] else ("", payload)
    topic = body[:arg0] if service == BUS and op in TOPIC_OPS and 0 < arg0 <= len(body) else b""
    if not is_utf8(topic) or any(b < 0x20 or b == 0x7F for b in topic):
        topic = b""
    fields = {"id": str(id), "source": source, "deadline_ms": deadline_ms, "arg0": "0" if topic else str(arg0),
              "arg1": str(arg1), "cap": str(cap), "nfds": nfds}
    out.update({k: v for k, v in fields.items() if v not in (0, "0")})
    if trace:
        out["trace"] = "-".join((trace[:32], trace[32:48], trace[48:]))
    if topic:
        out["topic"], body = topic.decode(), body[arg0:]
    inner = split(body, b"cu") if flags & FLAGS["nested"] else None
    if body and inner is not None:
        out["payload_frames"] = [mirror(*f) for f in inner]
    elif body[:1] in (b"{", b"[") and plain_json(body):
        out["payload_json"] = json.loads(body)
    elif body and is_utf8(body):
        out["payload_text"] = body.decode()
    elif body:
        out["payload_b64"] = base64.b64encode(body).decode()
    return out


def dump(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("\x7f", "\\u007f")


def plain_json(body):
    """Python's compact form agrees with the rule but for what is excluded here."""
    try:
        value = json.loads(body)
    except ValueError:
        return False
    text = dump(value)
    return text == body.decode() and "\\u007f" not in text and not any(long_number(n) for n in numbers(value))


def numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [n for v in value for n in numbers(v)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def long_number(n):
    text = repr(n)
    return "e" in text or text.endswith(".0") or sum(c.isdigit() for c in text) > 15


TRACE = bytes(range(16)) + bytes(range(0xA0, 0xA8)) + b"\1" + bytes(7)


def valid():
    for kind in KINDS:
        yield "kind-" + kind, frame(kind)
    for priority in PRIORITIES:
        yield "priority-" + priority, frame("event", priority=priority)
    for flag in FLAGS:
        if flag != "trace":
            yield "flag-" + flag, frame("data", flags=flag)
    yield "flag-unknown-low-bits", frame("event", extra=0xF8)
    yield "flags-all", frame("request", TRACE, flags=" ".join(FLAGS), extra=0xF8)
    for n in (1, 7, 8, 9, 16):
        yield "payload-%d-bytes" % n, frame("data", b"abcdefghijklmnop"[:n])
    yield "hello", frame("hello", b"sensor", id=0, arg0=1, arg1=16 << 20)
    yield "request", frame("request", b"/etc/hostname", service=STOR, op=3, id=1, deadline_ms=250, arg0=4, arg1=4096)
    yield "reply", frame("reply", b'{"name":"cule-ipc","pid":42}', service=CULE, op=0x8000, id=1)
    yield "reply-opens-a-stream", frame("reply", flags="open", service=STOR, op=0x8000, id=3)
    yield "error", frame("error", b"no such file", service=STOR, op=0x8001, id=5, arg0=16, arg1=2)
    yield "cancel", frame("cancel", priority="critical", id=7)
    yield "ping", frame("ping", id=9, arg0=123456789)
    yield "bye", frame("bye", b"draining")
    yield "mark", frame("mark", arg0=1700000000123456789, arg1=3)
    yield "credit-link", frame("credit", priority="high", arg0=64, arg1=1048576)
    yield "credit-stream", frame("credit", id=3, arg1=65536)
    yield "capability-presented", frame("request", service=STOR, op=3, id=11, cap=7 | 2 << 32 | 5 << 48)
    yield "capability-given", frame("reply", flags="delegate", op=0x8000, id=11, cap=0xFFFFFFFFFFFFFFFF)
    yield "descriptors", frame("reply", op=0x8000, id=13, nfds=253)
    yield "notification", frame("event", service=b"my", op=0x4000, arg0=1)
    yield "every-field", frame("request", b"x", "open crc", "low", BUS, 0xFFFFFFFF, 2**64 - 1, 2**32 - 1, 2**32 - 1,
                               2**64 - 1, 2**64 - 1, 2**64 - 1, 1)
    yield "crc-empty-payload", frame("data", flags="crc")
    yield "crc-check-value", frame("data", b"123456789", flags="crc")
    yield "trace-alone", frame("request", TRACE, flags="trace", id=1)
    yield "trace-and-text", frame("request", TRACE + b"hello", flags="trace crc", id=1)
    yield "bus-publish", frame("request", b"sensor/a21.5", "retain ack_wanted", service=BUS, op=0x300, id=15, arg0=8)
    yield "bus-publish-one-way", frame("event", b"t", service=BUS, op=0x300, arg0=1)
    yield "bus-subscribe", frame("request", b'{"topic":"sensor/+","group":"g"}', service=BUS, op=0x301, id=17)
    yield "bus-deliver", frame("event", b'sensor/a{"temp":21.5,"ok":true}', service=BUS, op=0x303, source=4, arg0=8,
                               arg1=77)
    yield "bus-redelivered", frame("event", b"jobs\xff\x00", "redelivered ack_wanted", service=BUS, op=0x303, arg0=4,
                                   arg1=78)
    yield "bus-ack", frame("event", service=BUS, op=0x304, arg0=2, arg1=78)
    yield "bus-topic-longer-than-payload", frame("event", b"abc", service=BUS, op=0x300, arg0=4)
    yield "bus-topic-not-text", frame("event", b"a\nbody", service=BUS, op=0x300, arg0=2)
    yield "bus-traced", frame("event", TRACE + b"tbody", "trace", service=BUS, op=0x303, arg0=1)
    inner = frame("mark", arg0=5, nested=True) + frame("event", b"abc", "crc", id=2, nested=True)
    yield "nested-two", frame("data", inner, flags="nested", id=19)
    yield "nested-twice", frame("data", frame("data", inner, flags="nested", nested=True), flags="nested crc")
    yield "nested-cut", frame("data", inner[:-1], flags="nested")
    yield "nested-not-frames", frame("data", b"text", flags="nested")
    yield "nested-behind-topic", frame("event", b"tap" + inner, "nested", service=BUS, op=0x303, arg0=3)
    yield "service-user", frame("event", service=b"abcd")
    yield "service-user-spells-a-name", frame("event", service=b"bus")
    yield "service-not-printable", frame("event", service=b"\1\\\xff\"")
    yield "service-inner-nul", frame("event", service=b"a\0b\0")
    for name, text in (
            ("object", '{"a":[1,-2,0.5,21.25],"b":{"c":null,"d":true},"":""}'), ("array", "[]"),
            ("escapes", '["\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f/é😀"]'), ("digits-15", "[999999999999999,0.001]")):
        yield "json-" + name, frame("data", text.encode())
    for name, text in (
            ("scalar", "42"), ("spaces", '{"a": 1}'), ("newline", "[1]\n"), ("twice", '{"a":1,"a":1}'),
            ("digits-16", "[1234567890123456]"), ("exponent", "[1e3]"), ("trailing-zero", "[1.0]"),
            ("minus-zero", "[-0]"), ("small", "[0.00001]"), ("slash", '["\\/"]'), ("needless-escape", '["\\u0041"]'),
            ("upper-hex", '["\\u001F"]'), ("delete", '["\x7f"]'), ("delete-escaped", '["\\u007f"]'),
            ("broken", '{"a":}')):
        yield "text-json-" + name, frame("data", text.encode())
    yield "text-utf8", frame("data", "naïve — 😀".encode())
    yield "text-controls", frame("data", b"a\0b\x1b[31m\r\n\t\x7f\"\\")
    yield "b64-not-utf8", frame("data", bytes(range(0x78, 0x88)))
    yield "b64-surrogate", frame("data", b"\xed\xa0\x80")


def lines():
    yield "numbers-for-names", '{"kind":2,"priority":0,"service":"STOR","op":3}', frame(
        "request", priority="critical", service=STOR, op=3)
    yield "names-for-numbers", '{"kind":"request","service":"stor","op":"read"}', frame("request", service=STOR, op=3)
    yield "op-in-hex", '{"kind":"event","op":"0x4001"}', frame("event", op=0x4001)
    yield "op-name-alone", '{"op_name":"read","service":"stor","kind":"request"}', frame("request", service=STOR, op=3)
    yield "op-before-op-name", '{"kind":"event","op":5,"op_name":"no such name"}', frame("event", op=5)
    yield "integers-as-numbers", '{"kind":"ping","id":9007199254740993,"arg0":"0xff"}', frame(
        "ping", id=9007199254740993, arg0=255)
    yield "defaults", ('{"kind":"data","priority":"normal","flags":[],"service":"","op":0,"id":"0","source":0,'
                       '"deadline_ms":0,"arg0":"0","arg1":"0","cap":"0","nfds":0,"payload_text":""}'), frame("data")
    yield "what-follows", '{"magic":"CU","version":1,"kind":"data","length":2,"check":7,"payload_text":"ab"}', frame(
        "data", b"ab")
    yield "flags-as-number", '{"kind":"data","flags":513}', frame("data", flags="open retain")
    yield "trace-implied", '{"kind":"data","trace":"' + "0" * 32 + "-" + "0" * 16 + "-" + "0" * 16 + '"}', frame(
        "data", bytes(32), flags="trace")
    yield "json-spread-out", '{ "kind" : "data" , "payload_json" : { "a" : [ 1 , "\\u0041\\/" , { } ] , "b":1.0 } }', \
        frame("data", b'{"a":[1,"A/",{}],"b":1.0}')
    yield "json-scalar", '{"kind":"data","payload_json":"x"}', frame("data", b'"x"')
    yield "text-escaped", '{"kind":"data","payload_text":"\\u00e9\\ud83d\\ude00\\/"}', frame("data", "é😀/".encode())
    yield "b64-escaped", '{"kind":"data","payload_b64":"\\/w=="}', frame("data", b"\xff")
    yield "topic-and-arg0", '{"kind":"event","service":"bus","op":"publish","arg0":1,"topic":"t"}', frame(
        "event", b"t", service=BUS, op=0x300, arg0=1)
    yield "frames-imply-nested", '{"kind":"data","payload_frames":[{"kind":"ping"}]}', frame(
        "data", frame("ping", nested=True), flags="nested")
    yield "frames-none", '{"kind":"data","payload_frames":[]}', frame("data", flags="nested")


def badlines():
    yield "not-json", "{kind}", "key in quotes"
    yield "not-an-object", "[1]", "must be an object"
    yield "no-kind", '{"id":"1"}', "'kind' is missing"
    yield "unknown-kind", '{"kind":"telegram"}', "'kind'"
    yield "kind-0", '{"kind":0}', "'kind'"
    yield "unknown-key", '{"kind":"data","colour":"red"}', "unknown key 'colour'"
    yield "key-twice", '{"kind":"data","id":"1","id":"1"}', "repeated key 'id'"
    yield "id-too-large", '{"kind":"data","id":"18446744073709551616"}', "'id'"
    yield "id-negative", '{"kind":"data","id":-1}', "'id'"
    yield "id-fraction", '{"kind":"data","id":1.5}', "'id'"
    yield "priority-4", '{"kind":"data","priority":4}', "'priority'"
    yield "nfds-254", '{"kind":"data","nfds":254}', "'nfds'"
    yield "flag-unknown", '{"kind":"data","flags":["loud"]}', "'flags'"
    yield "flag-high-bit", '{"kind":"data","flags":[16384]}', "'flags'"
    yield "flag-phase", '{"kind":"data","flags":32768}', "'flags'"
    yield "service-too-long", '{"kind":"data","service":"abcde"}', "'service'"
    yield "op-unknown", '{"kind":"data","service":"bus","op":"frobnicate"}', "'op'"
    yield "two-payloads", '{"kind":"data","payload_text":"a","payload_b64":"YQ=="}', "second payload"
    yield "b64-unpadded", '{"kind":"data","payload_b64":"YQ"}', "base64"
    yield "text-number", '{"kind":"data","payload_text":1}', "must be a string"
    yield "trace-short", '{"kind":"data","trace":"00-00-00"}', "'trace'"
    yield "trace-missing", '{"kind":"data","flags":["trace"]}', "'trace' is missing"
    yield "topic-elsewhere", '{"kind":"event","service":"stor","op":3,"topic":"t"}', "'topic'"
    yield "topic-length", '{"kind":"event","service":"bus","op":"publish","arg0":"3","topic":"t"}', "'arg0'"
    yield "length-wrong", '{"kind":"data","length":3,"payload_text":"ab"}', "'length'"
    yield "version-2", '{"kind":"data","version":2}', "'version'"
    yield "magic-wrong", '{"kind":"data","magic":"cu"}', "'magic'"
    yield "nested-broken", '{"kind":"data","payload_frames":[{"kind":"data"},{"id":"1"}]}', "'kind' is missing"


def invalid():
    good = frame("event", b"good", id=1)
    yield "magic", frame("event", magic=b"XX"), "malformed", "header"
    yield "magic-of-nested", frame("event", nested=True), "malformed", "header"
    yield "text", b"GET / HTTP/1.1\r\n", "malformed", "header"
    yield "version-0", frame("event", version=0), "version", "header"
    yield "version-2", frame("event", version=2), "version", "header"
    yield "check", good[:20] + b"\xff" + good[21:], "check", "header"
    yield "kind-0", patched(3, 0), "malformed", "header"
    yield "kind-13", patched(3, 13), "malformed", "header"
    yield "priority-4", patched(4, 4), "malformed", "header"
    yield "nfds-254", frame("event", nfds=254), "malformed", "header"
    yield "flag-14", frame("event", extra=0x4000), "malformed", "header"
    yield "flag-phase", frame("event", extra=0x8000), "malformed", "header"
    yield "length-65537", frame("event", length=65537), "malformed", "header"
    yield "length-huge", frame("event", length=0xFFFFFFFF), "malformed", "header"
    yield "padding", good[:-1] + b"\1", "malformed", "body"
    crc = frame("event", b"good", flags="crc", id=1)
    yield "payload-crc", crc[:-1] + bytes([crc[-1] ^ 1]), "check", "body"
    yield "payload-flipped", crc[:64] + b"G" + crc[65:], "check", "body"
    yield "trace-no-room", frame("event", bytes(31), flags="trace"), "malformed", "body"
    yield "cut-in-header", good[:63], "truncated", "end"
    yield "cut-in-payload", good[:66], "truncated", "end"
    yield "cut-in-padding", good[:71], "truncated", "end"
    yield "cut-in-crc", crc[:-1], "truncated", "end"
    yield "first-byte-alone", b"C", "truncated", "end"


def patched(offset, value):
    header = bytearray(frame("event"))
    header[offset] = value
    header[28:32] = bytes(4)
    header[28:32] = struct.pack("<I", crc32c(bytes(header)))
    return bytes(header)


def messages():
    def message(parts, **fields):
        flags = fields.pop("flags", "")
        last = fields.pop("last", "")
        data = b"".join(
            frame(payload=p, flags=(flags if i == 0 else flags.replace("trace", "")) +
                  (" more" if i < len(parts) - 1 else last), **fields) for i, p in enumerate(parts))
        whole = frame(payload=b"".join(parts), flags=flags + last, **fields)
        return data, dump(mirror(*split(whole)[0]))

    yield ("two-frames", *message([b"hello ", b"world"], kind="reply", op=0x8000, id=1))
    yield ("three-frames-then-open", *message([b"a", b"b", b"c"], kind="request", id=3, last=" open"))
    yield ("empty-last", *message([b"all", b""], kind="data", id=5))
    yield ("empty-first", *message([b"", b"all"], kind="data", id=5))
    yield ("traced", *message([TRACE + b"x", b"y"], kind="request", id=7, flags="trace"))
    yield ("json-cut-in-the-middle", *message([b'{"a":[1', b',2]}'], kind="reply", op=0x8000, id=9))
    yield ("character-cut-in-the-middle", *message([b"\xc3", b"\xa9"], kind="event", id=11))


def resync():
    one, two, three = (frame("event", b"payload", "crc", id=i) for i in (1, 2, 3))
    size = len(one)
    broken = two[:20] + b"\xff" + two[21:]
    yield "clean", one + two, "frame 1, frame 2"
    yield "garbage-first", b"garbage" + one, "gap 7@0, frame 1"
    yield "garbage-between", one + b"CU" + two, "frame 1, gap 2@%d, frame 2" % size
    yield "garbage-last", one + b"more", "frame 1, gap 4@%d" % size
    yield "bad-header", one + broken + three, "frame 1, gap %d@%d, frame 3" % (size, size)
    yield "bad-body", one + two[:65] + b"?" + two[66:] + three, "frame 1, body 2, frame 3"
    yield "unknown-version", one + frame("event", id=2, version=9) + three, "frame 1, gap 64@%d, frame 3" % size
    yield "header-that-leads-nowhere", b"x" + frame("event", id=9, length=100) + one + two, "gap 65@0, frame 1, frame 2"
    yield "cut-at-the-end", one + two[:70], "frame 1, truncated"
    yield "gap-before-the-end", b"x" + one + two[:70], "gap 1@0, frame 1, truncated"
    yield "not-confirmed", b"x" + one + b"y", "gap %d@0" % (size + 2)
    yield "nothing-but-garbage", b"xCUCUCU", "gap 7@0"
    yield "beginning-of-a-header", b"CUCUCU", "truncated"


def table(rows):
    return "".join("\t".join(c.hex() if isinstance(c, bytes) else c for c in row) + "\n" for row in rows)


def main():
    files = {
        "frames.tsv": table((n, f, dump(mirror(*split(f)[0]))) for n, f in valid()),
        "lines.tsv": table(lines()), "badlines.tsv": table(badlines()), "invalid.tsv": table(invalid()),
        "messages.tsv": table(messages()), "resync.tsv": table(resync())}
    here = os.path.dirname(os.path.abspath(__file__))
    stale = []
    for name, text in files.items():
        path = os.path.join(here, name)
        if "--check" in sys.argv:
            with open(path, encoding="utf-8") as f:
                stale += [name] if f.read() != text else []
        else:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
    if stale:
        sys.exit("generate.py: not what it would write: " + " ".join(stale))


main()
