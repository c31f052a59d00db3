"""Runs named cases on plain and on encrypted columns and compares what they return."""

import sys
from pathlib import Path

# The database encrypts what the client makes (pgseal.protect).
PROTECTED = sys.argv[-1] == "protected"
REFUSED = Path(__file__).with_name("refused.txt").read_text().splitlines()


class Cases:
    """Functions of what the suite of this name works on, by name."""

    def __init__(self, suite):
        self.suite, self.cases = suite + ", protected" * PROTECTED, {}

    def __call__(self, function):
        self.add(function.__name__, function)
        return function

    def add(self, name, function):
        assert name not in self.cases, name
        self.cases[name] = function

    def compare(self, plain, encrypted):
        """Prints what differs. Returns whether nothing does but the ones in refused.txt, which may be errors."""
        refused = {name.strip() for suite, name in (line.split(":") for line in REFUSED) if suite == self.suite}
        wrong, works, same = [], [], 0
        for name, case in self.cases.items():
            one, other = answer(case, plain), answer(case, encrypted)
            same += one == other
            if isinstance(one, Exception):
                wrong.append(f"{name}: on plain columns: {one!r}")
            elif isinstance(other, Exception):
                wrong += [] if name in refused else [f"{name}: {type(other).__name__}: {str(other):.300}"]
            elif one != other:
                wrong.append(f"{name}: SILENT: {other!r}, not {one!r}")
            elif name in refused:
                works.append(f"{name}: works, take it out of refused.txt")
        wrong += [f"{name}: no such case" for name in refused if name not in self.cases]
        print(f"{self.suite}: {same} of {len(self.cases)} answers as on plain columns", *works, *wrong, sep="\n")
        return not wrong


def answer(case, subject):
    try:
        return case(subject)
    except Exception as error:
        return error
