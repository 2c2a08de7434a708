#!/usr/bin/env python3
"""Cule's frames in Python, written from cule-frame(5) alone: calls a service, and serves one.

usage: cule_frame.py call SOCKET SERVICE OP TEXT     cule_frame.py serve SOCKET     (answers in upper case)
"""
import socket, struct, sys

HELLO, REQUEST, REPLY, ERROR, EVENT, DATA, CREDIT, CANCEL, PING, PONG, BYE = range(1, 12)
HEADER = struct.Struct("<2sBBBBH4sIQIIIIQQQ")  # magic ... cap, 64 bytes
MORE, OPEN, LARGEST = 1 << 8, 1 << 9, 65536

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF

def frame(kind, service=b"", op=0, id=0, payload=b"", flags=0, priority=2, arg0=0, arg1=0):
    def head(check):
        return HEADER.pack(b"CU", 1, kind, priority, 0, flags, service, op, id, len(payload), check, 0, 0, arg0, arg1, 0)
    return head(crc32c(head(0))) + payload + bytes(-len(payload) % 8)

class Link:
    def __init__(self, sock, name):
        self.sock = sock
        sock.sendall(frame(HELLO, payload=name.encode(), arg1=16 << 20))

    def messages(self):
        """Whole messages of the peer's: (kind, priority, service, op, id, flags, arg0, payload). The link's own frames are dealt with."""
        parts = {}
        while len(head := self.sock.recv(64, socket.MSG_WAITALL)) == 64:
            magic, version, kind, priority, _, flags, service, op, id, length, check, _, _, arg0, arg1, _ = HEADER.unpack(head)
            if magic != b"CU" or version != 1 or crc32c(head[:28] + bytes(4) + head[32:]) != check:
                raise ValueError("bad header")
            payload = self.sock.recv(length + -length % 8, socket.MSG_WAITALL)[:length] if length else b""
            if kind == PING:
                self.sock.sendall(frame(PONG, id=id, payload=payload, priority=0, arg0=arg0, arg1=arg1))
            elif kind == BYE:
                return
            elif kind not in (HELLO, CREDIT, PONG):
                body = parts.pop((kind, id), b"") + payload
                if flags & MORE:
                    parts[kind, id] = body
                else:
                    yield kind, priority, service, op, id, flags, arg0, body

    def send(self, kind, payload, **fields):  # no credit was granted by us, so the peer's answers are not held up
        for at in range(0, max(len(payload), 1), LARGEST):
            more = MORE if at + LARGEST < len(payload) else 0
            self.sock.sendall(frame(kind, payload=payload[at:at + LARGEST], flags=more, **fields))

def call(path, service, op, text):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    link = Link(sock, "python")
    link.send(REQUEST, text.encode(), service=service.encode(), op=int(op, 0), id=1)
    for kind, _, _, _, id, flags, code, body in link.messages():
        if id == 1:
            sys.stdout.write(body.decode())
            if kind == ERROR or not flags & OPEN:
                return code if kind == ERROR else 0
    return 4

def serve(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    while True:
        link = Link(listener.accept()[0], "python")
        for kind, priority, _, op, id, _, _, body in link.messages():
            if kind == REQUEST:
                link.send(REPLY, body.upper(), op=0x8000, id=id, priority=priority)

if __name__ == "__main__":
    sys.exit(call(*sys.argv[2:6]) if sys.argv[1:2] == ["call"] else serve(sys.argv[2]))
