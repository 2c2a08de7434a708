"""Counts for the demo: a request a line in, an answer a line out, as cule-ipc serve --lines has it.

{"kind":"request","id":"7",…,"payload_text":"file lib/base/buf.c"}  ->  {"id":"7","payload_text":"file 98 310 2603 lib/base/buf.c"}
"""
import json, re, subprocess, sys

def content(what, name):
    if what == "commit":
        return subprocess.run(["git", "log", "-1", "--format=%B", name], check=True, stdout=subprocess.PIPE).stdout
    with open(name, "rb") as f:
        return f.read()

for line in sys.stdin:
    request = json.loads(line)
    answer = {"id": request["id"]}
    try:
        what, name = request["payload_text"].split(" ", 1)
        data = content(what, name)
        words = len(re.findall(rb"[A-Za-z]+", data))
        answer["payload_text"] = f"{what} {data.count(10)} {words} {len(data)} {name}"
    except (KeyError, ValueError, OSError, subprocess.CalledProcessError) as e:
        answer["error"] = f"cannot count: {e}"
    print(json.dumps(answer), flush=True)
