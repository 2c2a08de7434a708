"""Takes the literal blocks out of a manual page's EXAMPLES.

    manblocks.py PAGE DIR

Each ".Bd -literal" block and each ".Dl" line of the section becomes DIR/NN.sh and DIR/NN.expect where it has a line
that begins with "$ ": such lines, without it, are the commands (a command goes on after a backslash at the end, in
lines that begin with "> " or stand as they are), the others are what the commands print. A line "..." stands for any
lines. Other blocks, such as listings of files, are left out. Prints the names, one on a line.
"""
import os
import re
import sys

ESCAPES = {r"\e": "\\", r"\(aq": "'", r"\(dq": '"', r"\(ga": "`", r"\-": "-", r"\&": "", r"\(ti": "~", r"\(ha": "^",
           r"\(rs": "\\", r"\(bu": "*", r"\ ": " "}


def plain(line):
    if line.startswith(r"\&."):
        line = line[2:]
    return re.sub(r"\\(\(..|.)", lambda m: ESCAPES.get(m.group(0), m.group(0)), line)


def blocks(page):
    section, block = "", None
    for line in open(page, encoding="utf-8"):
        line = line.rstrip("\n")
        if line.startswith(".Sh "):
            section = line[4:]
        elif section != "EXAMPLES":
            continue
        elif line.startswith(".Dl "):
            yield [plain(line[4:])]
        elif re.match(r"\.Bd .*-literal", line):
            block = []
        elif line.startswith(".Ed") and block is not None:
            yield block
            block = None
        elif block is not None and not line.startswith(".\\\""):
            block.append(plain(line))


def split(block):
    commands, output, goes_on = [], [], False
    for line in block:
        if goes_on:
            commands.append(line[2:] if line.startswith("> ") else line)
        elif line.startswith("$ "):
            commands.append(line[2:])
        else:
            output.append(line)
            continue
        goes_on = commands[-1].endswith("\\")
    return commands, output


def main():
    page, directory = sys.argv[1:]
    n = 0
    for block in blocks(page):
        commands, output = split(block)
        if not commands:
            continue
        n += 1
        with open(os.path.join(directory, f"{n:02}.sh"), "w", encoding="utf-8") as f:
            f.write("\n".join(commands) + "\n")
        with open(os.path.join(directory, f"{n:02}.expect"), "w", encoding="utf-8") as f:
            f.write("".join(line + "\n" for line in output))
        print(f"{n:02}")


def matches(expect, got):
    """Whether got is expect, in which a line "..." stands for any number of lines."""
    if not expect:
        return not got
    if expect[0] == "...":
        return any(matches(expect[1:], got[i:]) for i in range(len(got) + 1))
    return bool(got) and got[0] == expect[0] and matches(expect[1:], got[1:])


if __name__ == "__main__":
    if sys.argv[1] == "--match":
        lines = [open(p, encoding="utf-8", errors="replace").read().splitlines() for p in sys.argv[2:4]]
        sys.exit(0 if matches(*lines) else 1)
    main()
