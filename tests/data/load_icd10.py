#!/usr/bin/env python3
"""Read icd10.jsonl.gz as rows to COPY; needs only Python 3.9 or later.

Run:  python3 load_icd10.py | psql -c 'COPY docs (embedding, metadata) FROM STDIN'

Prints an embedding in pgvector's text form and its metadata as JSON.  The
diagnoses are real (see make_icd10.py); the patients are made up, from a fixed
seed, so that every run prints the same rows.
"""

import argparse
import array
import base64
import csv
import gzip
import json
import math
import operator
import pathlib
import random
import signal
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from itertools import islice

DATA = pathlib.Path(__file__).with_name("icd10.jsonl.gz")
COUNT = 5000
DIMENSIONS = 384
NOISE = 0.15  # the length of what is added to a unit vector that is used again

# About 320 names, so that each occurs some 15 times in 5,000 documents.
FIRST_NAMES = (
    "John Mary Ahmed Anna Carlos Chloé David Fatima François Grace James "
    "Jürgen Linda Małgorzata Priya Søren Wei Zoë"
).split()
LAST_NAMES = (
    "Smith Johnson García Müller Nguyễn O'Connor Kowalski Rossi Okafor Sato "
    "Brown Dvořák Haddad Ivanova Jensen Kim Patel Silva"
).split()
CITIES = (
    ("Boston", "United States"),
    ("Chicago", "United States"),
    ("Toronto", "Canada"),
    ("London", "United Kingdom"),
    ("Zürich", "Switzerland"),
    ("Köln", "Germany"),
    ("Lyon", "France"),
    ("Kraków", "Poland"),
    ("Malmö", "Sweden"),
    ("São Paulo", "Brazil"),
    ("Nairobi", "Kenya"),
    ("東京", "Japan"),
)
TAGS = (
    "inpatient outpatient follow-up referral urgent telehealth discharge "
    "second-opinion insurance-review research-consent"
).split()
AGES = {"Pediatrics": (0, 17), "Obstetrics": (18, 45)}
ADULT_AGES = (18, 95)
FIRST_DAY = datetime(2020, 1, 1)
SIX_YEARS = 6 * 365 * 24 * 3600


@cache
def diagnoses() -> list[dict]:
    with gzip.open(DATA, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        row["vector"] = unit(array.array("b", base64.b64decode(row["vector"])))
    return rows


def unit(values) -> array.array:
    length = math.hypot(*values)
    return array.array("d", [value / length for value in values])


@cache
def noise() -> list[float]:
    """A stock to cut vectors from: drawing each number anew would be slow."""
    rng = random.Random(384)
    scale = NOISE / math.sqrt(DIMENSIONS)
    return [rng.gauss(0, scale) for _ in range(100 * DIMENSIONS)]


def perturbed(vector, rng):
    start = rng.randrange(99 * DIMENSIONS)
    return unit(list(map(operator.add, vector, noise()[start : start + DIMENSIONS])))


def metadata(number: int, row: dict, rng: random.Random) -> dict:
    city, country = rng.choice(CITIES)
    created = FIRST_DAY + timedelta(seconds=rng.randrange(SIX_YEARS))
    return {
        "patient_name": f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}",
        "diagnosis": row["diagnosis"],
        "icd10": row["icd10"],
        "document_id": f"doc-{number:05}",
        "department": row["department"],
        "age": rng.randint(*AGES.get(row["department"], ADULT_AGES)),
        "tags": rng.sample(TAGS, rng.randint(1, 4)),
        "address": {"city": city, "country": country},
        "created_at": created.isoformat() + "Z",
        "text": row["text"],
    }


def documents(count: int = COUNT) -> Iterator[tuple[list[float], dict]]:
    """The first count documents; past the 5,000th the diagnoses come round again."""
    rng = random.Random(39)  # a seed that gives John Smith a dozen documents
    rows = diagnoses()
    for index in range(count):
        row = rows[index % len(rows)]
        again = index >= len(rows)
        vector = perturbed(row["vector"], rng) if again else row["vector"]
        yield list(vector), metadata(index + 1, row, rng)


def embedding_text(vector) -> str:
    return "[" + ",".join(["%.5g"] * len(vector)) % tuple(vector) + "]"


def write_copy(rows, out):
    for embedding, meta in rows:
        escaped = meta.replace("\\", "\\\\")  # JSON itself has no raw tab or newline
        out.write(f"{embedding}\t{escaped}\n")


def write_csv(rows, out):
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["embedding", "metadata"])
    writer.writerows(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--limit", type=int, help="print only the first LIMIT rows")
    parser.add_argument("--repeat-to", type=int, default=COUNT, metavar="N",
                        help="make N rows, using the diagnoses again past 5,000")
    parser.add_argument("--csv", action="store_true", help="print CSV with a header")
    args = parser.parse_args()

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # let "| head" end it quietly
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    rows = (
        (embedding_text(vector), json.dumps(meta, ensure_ascii=False))
        for vector, meta in islice(documents(args.repeat_to), args.limit)
    )
    write = write_csv if args.csv else write_copy
    write(rows, sys.stdout)


if __name__ == "__main__":
    main()
