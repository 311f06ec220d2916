# SPDX-License-Identifier: Apache-2.0
"""Prints what an agent tried, what was expected of it and what was seen.

Usage: table.py TIER RESULTS LOG COLOR NAME=OBJECT...

RESULTS is what agent.sh wrote, LOG the events of its session as `bailiff tail -o
json` prints them, COLOR yes or no. OBJECT is what the log calls the thing that
the attempt NAME is about. An attempt counts as denied when it failed and, where
this tier tells of it, the log holds a denial of just that object.

Exit status: 0 all as expected, 1 not so.
"""

import json
import sys

TITLES = {
    "clone": "clone the repository",
    "fetch": "fetch over HTTP from an allowed server",
    "edit": "fix the bug",
    "tests": "run the tests",
    "commit": "commit",
    "key": "read an SSH key",
    "env": "read .env",
    "hook": "plant a git hook",
    "address": "connect to a forbidden address",
    "socket": "open a forbidden Unix socket",
}
# Landlock knows no deny inside what is allowed, and may not know Unix sockets.
NOT_ON_BASIC = ("env", "hook", "socket")
# Only the programs tell: Landlock denies in silence.
TOLD_ON_BASIC = ("address",)


def read_results(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        rows = [line.rstrip("\n").split("\t") for line in f]
    return {row[1]: (row[0], int(row[2]), row[3]) for row in rows if len(row) == 4}


def read_denials(path):
    with open(path, encoding="utf-8") as f:
        events = [json.loads(line) for line in f]
    return [e for e in events if e.get("kind") == "action" and e.get("verdict") == "deny"]


def is_about(event, wanted):
    o = event.get("object", {})
    seen = o.get("path") or "%s:%s" % (o.get("address"), o.get("port"))
    return seen == wanted or seen.startswith(wanted + "/")


def decided_by(event):
    rule = event.get("rule")
    why = "rule " + rule if rule else "no rule allows it" if event.get("reason") == "default" else event.get("reason", "?")
    return "%s (%s)" % (why, event["operation"])


def judge(tier, name, result, denial):
    """Returns expected, seen, how it was stopped, and whether that is right."""
    if result is None:
        return "tried", "not tried", "", False
    kind, status, message = result
    if kind == "work":
        return "works", "works" if status == 0 else "fails", "" if status == 0 else message, status == 0
    basic = tier == "basic"
    expected = "not enforced" if basic and name in NOT_ON_BASIC else "denied"
    if status == 0:
        return expected, "got through", "", expected != "denied"
    if denial:
        return expected, "denied", decided_by(denial), True
    if basic and name not in TOLD_ON_BASIC:
        return expected, "denied", "Landlock (tells no rule)", "ermission denied" in message
    return expected, "failed", "no denial in the log: " + message, False


def paint(text, code, color):
    return "\x1b[%sm%s\x1b[0m" % (code, text) if color else text


def main():
    tier, results, log, color = sys.argv[1], read_results(sys.argv[2]), read_denials(sys.argv[3]), sys.argv[4] == "yes"
    objects = dict(pair.split("=", 1) for pair in sys.argv[5:])
    layout = "%-38s  %-12s  %s  %s"
    wrong = open_rows = 0
    print(paint(layout % ("WHAT THE AGENT DID", "EXPECTED", "%-11s" % "SEEN", "STOPPED BY"), 1, color))
    for name, title in TITLES.items():
        denial = next((e for e in log if name in objects and is_about(e, objects[name])), None)
        expected, seen, why, right = judge(tier, name, results.get(name), denial)
        wrong += not right
        open_rows += expected == "not enforced"
        code = "31" if not right else "33" if expected == "not enforced" else "32"
        print((layout % (title, expected, paint("%-11s" % seen, code, color), why if right else "<-- WRONG  " + why)).rstrip())
    print()
    if wrong:
        print(paint("%d of %d are not as expected" % (wrong, len(TITLES)), "1;31", color))
    else:
        print("all %d as expected%s" % (len(TITLES), "; not enforced: no part of the basic tier" if open_rows else ""))
    sys.exit(wrong > 0)


main()
