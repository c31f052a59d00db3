#!/usr/bin/env python3
"""What a sealed index tells a thief of the disk about its rows: leakage.py INDEX_FILE LABELS [NEIGHBOURS]

Reads the pages of the file of a sealed_ivf index (pg_relation_filepath) without any key, as somebody does who has the disk.
LABELS has a line for each row: its ctid and its topic, tab between them. The thief knows the topic of some rows, picked at
random, and guesses every other row's from those that share its list: the commonest among the known ones, or the commonest
of all known rows where the list has none. NEIGHBOURS has pairs of ctids that are near each other.

One JSON object: how many rows, lists and pages; "by list" and "by page" the share of unknown rows that is guessed rightly,
for several numbers of known rows, and "blind", which is the same without the index; "purity", the share of rows whose topic
is the commonest of their list; "neighbours", the share of pairs in one list.
"""

import json
import random
import struct
import sys
from collections import Counter, defaultdict

# As src/core/ivf/layout.rs has it.
PAGE, SPECIAL = 8192, 8160
DATA, SALT = 24, 12
MAGIC = 0x56534750
LIST = 2
DIMENSIONS = DATA + 20  # of the first page
KNOWN = (40, 0.01, 0.1)  # rows, or their share
ROUNDS = 5


def capacity(dimensions):
    """Rows of a list page: room for their addresses before the first segment."""
    code = -(-dimensions // 8)
    row = 4 + 2 + 2 + code

    def rows(width):
        tail = min(max(1536 // row, 1), 32)
        found = 0
        while True:
            more = found + width
            if DATA + SALT + -(-more // 8) + 6 * more + -(-more // tail) * 28 + more * row > SPECIAL:
                return found
            found = more

    least = rows(8)
    return next((rows(width) for width in (32, 16) if 6 * rows(width) >= 5 * least), least)


def places(file, dimensions):
    """(ctid, list, page) of every row that is not marked dead."""
    room = capacity(dimensions)
    for number in range(1, len(file) // PAGE):
        page = file[number * PAGE : (number + 1) * PAGE]
        _, of_list, _, rows, _, kind = struct.unpack_from("<IIIHHB", page, SPECIAL)
        if struct.unpack_from("<I", page, PAGE - 4)[0] != MAGIC or kind != LIST:
            continue
        dead, tids = DATA + SALT, DATA + SALT + -(-room // 8)
        for row in range(rows):
            if not page[dead + row // 8] >> row % 8 & 1:
                block, item = struct.unpack_from("<IH", page, tids + 6 * row)
                yield f"({block},{item})", of_list, number


def guessed(topics, group, known):
    """The share of the rows not in `known` whose topic is guessed from their group; `group` may be None for all."""
    common = Counter(topics[row] for row in known).most_common(1)[0][0]
    mates = defaultdict(Counter)
    for row in known:
        mates[group and group[row]][topics[row]] += 1
    unknown = topics.keys() - set(known)
    guess = {key: counts.most_common(1)[0][0] for key, counts in mates.items()}
    return sum(guess.get(group and group[row], common) == topics[row] for row in unknown) / len(unknown)


def main():
    file = open(sys.argv[1], "rb").read()
    with open(sys.argv[2], encoding="utf-8") as lines:
        labels = dict(line.rstrip("\n").split("\t") for line in lines)
    rows = [(ctid, *place) for ctid, *place in places(file, struct.unpack_from("<H", file, DIMENSIONS)[0]) if ctid in labels]
    topics = {ctid: labels[ctid] for ctid, _, _ in rows}
    lists, pages = ({row[0]: row[at] for row in rows} for at in (1, 2))
    sizes = Counter((lists[row], topic) for row, topic in topics.items())
    best = defaultdict(int)
    for (number, _), size in sizes.items():
        best[number] = max(best[number], size)
    result = {"rows": len(rows), "lists": len(set(lists.values())), "pages": len(set(pages.values())), "topics": len(set(topics.values()))}
    result["largest topic"] = max(Counter(topics.values()).values()) / len(rows)
    result["purity"] = sum(best.values()) / len(rows)
    dice = random.Random(13)
    for share in KNOWN:
        many = share if isinstance(share, int) else max(int(share * len(rows)), 1)
        picks = [dice.sample(sorted(topics), many) for _ in range(ROUNDS)]
        mean = lambda group: sum(guessed(topics, group, known) for known in picks) / ROUNDS
        result[f"{many} known"] = {"by list": mean(lists), "by page": mean(pages), "blind": mean(None)}
    if len(sys.argv) > 3:
        with open(sys.argv[3], encoding="utf-8") as lines:
            pairs = [line.split() for line in lines]
        result["neighbours"] = sum(lists.get(a) == lists.get(b) for a, b in pairs) / len(pairs)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
