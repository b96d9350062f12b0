#!/usr/bin/env python3
"""Records assets/tour.cast (asciinema's text format) from frames that igq draws by itself: python3 examples/tour.py target/release/igq"""

import json
import subprocess
import sys

SIZE = (110, 32)
SECONDS = 4.0
# A view and the commands that lead to what it shows.
FRAMES = [
    ("overview", []),
    ("groups", []),
    ("groups", ["groups 2"]),
    ("groups", ["compare 4"]),
    ("distribution", []),
    ("distribution", ["method layer"]),
    ("attention", []),
    ("attention", ["left heads"]),
    ("lens", ["bits 3"]),
    ("budget", []),
    ("learn", []),
    ("overview", ["bits 3", "method layer"]),
    ("overview", ["bits 3", "method igq-token"]),
]


def frame(igq, view, commands):
    """One frame with its colours, a line a row."""
    words = [igq, "snapshot", "--view", view, "--size", f"{SIZE[0]}x{SIZE[1]}", "--format", "ansi", "--theme", "dark"]
    for command in commands:
        words += ["--do", command]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.rstrip("\n").split("\n")


def main():
    igq = sys.argv[1] if len(sys.argv) > 1 else "target/release/igq"
    header = {"version": 2, "width": SIZE[0], "height": SIZE[1], "title": "igq"}
    with open("assets/tour.cast", "w", encoding="utf-8") as out:
        out.write(json.dumps(header) + "\n")
        for index, (view, commands) in enumerate(FRAMES):
            drawn = "\x1b[0m\x1b[2J\x1b[H" + "\r\n".join(frame(igq, view, commands))
            out.write(json.dumps([round(index * SECONDS, 1), "o", drawn], ensure_ascii=False) + "\n")
        out.write(json.dumps([round(len(FRAMES) * SECONDS, 1), "o", ""]) + "\n")


main()
