"""Audit and evidence, JSON on standard input, as one HTML page that needs nothing else."""

import html
import json
import re
import sys

SEVERITIES = ["critical", "warning", "unknown", "info"]
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) } h3 { margin: 1.5rem 0 .5rem }
table { border-collapse: collapse; width: 100%; font-size: .9rem } caption { text-align: left; font-weight: 600; padding: .5rem 0 }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
th { background: var(--soft); overflow-wrap: normal } h2 .tag { font-size: .85rem; vertical-align: middle } .number { text-align: right; white-space: nowrap }
.statement { font-size: 1.15rem; padding: .8rem 1rem; border-left: .4rem solid; background: var(--soft); margin: .6rem 0 }
.good { border-color: #2a8a4a } .bad { border-color: #c22 } td .bad { color: #c22; font-weight: 600 }
.tag { white-space: nowrap; font-weight: 600; padding: .1rem .5rem; border-radius: .6rem; color: #fff }
.critical { background: #b3161b } .warning { background: #8a5a00 } .unknown { background: #555 } .info { background: #2b5c9b }
code { font-size: .9em; background: var(--soft); padding: .1rem .3rem; overflow-wrap: anywhere } details { margin: .8rem 0 }
.soft { opacity: .75 } @media print { body { max-width: none; margin: 0 } details > * { display: block } }
"""


def text(value):
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d+", value):
        value = re.sub(r"\.\d+", "", value.replace("T", " "))
    return html.escape(str(value) if not isinstance(value, (dict, list)) else json.dumps(value, ensure_ascii=False))


def table(head, rows, caption=None):
    numeric = [bool(rows) and all(isinstance(row[at], int) for row in rows) for at in range(len(head))]
    cell = lambda kind, at, inner: f"<{kind}{' class=number' if numeric[at] else ''}>{inner}</{kind}>"
    lines = [f"<caption>{text(caption)}</caption>" if caption else ""]
    lines.append("<tr>" + "".join(cell("th", at, text(name)) for at, name in enumerate(head)) + "</tr>")
    for row in rows:
        inner = [value.markup if isinstance(value, Markup) else text(value) for value in row]
        lines.append("<tr>" + "".join(cell("td", at, value) for at, value in enumerate(inner)) + "</tr>")
    return "<table>" + "".join(lines) + "</table>"


class Markup:
    """HTML that is not to be escaped again."""

    def __init__(self, markup):
        self.markup = markup


def findings(audit):
    if not audit:
        return "<p>No findings.</p>"
    audit = sorted(audit, key=lambda f: SEVERITIES.index(f["severity"]))
    rows = [
        (Markup(f'<span class="tag {text(f["severity"])}">{text(f["severity"])}</span>'), f["object"], f["finding"], f["what_to_do"])
        for f in audit
    ]
    return table(["severity", "object", "finding", "what to do"], rows)


def tally(audit):
    counts = {}
    for finding in audit:
        counts[finding["severity"]] = counts.get(finding["severity"], 0) + 1
    return " ".join(f'<span class="tag {severity}">{counts[severity]} {severity}</span>' for severity in SEVERITIES if severity in counts)


def problems(column):
    bad = [f for f in column["findings"] if f["result"] != "authentic" or f.get("finding")]
    rows = [(f["result"], f.get("number_of_values"), f.get("relation"), f.get("row_ctid"), f.get("keyring"), f.get("key_version"), f.get("finding")) for f in bad]
    return table(["result", "values", "table", "row (ctid)", "keyring", "key version", "finding"], rows) if rows else ""


def scan(found):
    if not found["done"]:
        return f"<p>Not done: {text(found['why'])}.</p>"
    rows = [
        (Markup(f"<code>{text(c['canary_sha256'])}</code>"), c["hits"],
         Markup(f'<span class="bad">{text(", ".join(f"{name} ({hits})" for name, hits in c["in"].items()))}</span>') if c["hits"] else "nowhere")
        for c in found["canaries"]
    ]
    return (
        f"<p>{text(found['bytes'])} bytes of {len(found['relations'])} relations were searched: {text(', '.join(found['relations']))}. "
        f"Control in a table of its own: {text(found['control'])}.</p>" + table(["SHA-256 of the canary", "times found", "where"], rows)
    )


def evidence(record):
    subject = record["subject"]
    parts = [f"<h3>{text(subject['table'])}</h3>"]
    for column in record["verify"]:
        good = "good" if column["all_authentic"] else "bad"
        checked = f" Contexts were checked by <code>{text(column['context'])}</code>." if column["context"] else ""
        parts.append(f'<p class="statement {good}"><code>{text(column["column"])}</code>: {text(column["statement"])}.{checked}</p>')
        parts.append(problems(column))
    usage = [
        (name, use["keyring"], use["key_version"], use["index_key_version"], use["number_of_values"])
        for name, uses in record["values_by_key"].items() for use in uses
    ]
    parts.append(table(["column", "keyring", "data key version", "index key version", "values"], usage, "Values by key"))
    keys = [
        (k["keyring"], k["purpose"], k["version"], k["state"], k["created"], k["retired"], k["kms_key"], k["kms_endpoint"])
        for k in record["wrapped_keys"]
    ]
    parts.append(table(["keyring", "purpose", "version", "state", "created", "retired", "key at the KMS", "KMS"], keys, "Keys, stored wrapped"))
    parts.append("<h3>Search of the files on disk</h3>" + scan(record["file_scan"]))
    parts.append("<h3>Not looked at</h3><ul>" + "".join(f"<li>{text(item)}</li>" for item in record["not_looked_at"]) + "</ul>")
    facts = [(name.replace("_", " "), value) for source in ("subject", "algorithms") for name, value in record[source].items()]
    parts.append("<details><summary>Server, time and algorithms</summary>" + table(["", ""], facts) + "</details>")
    parts.append("<details><summary>How to repeat it</summary><ul>" + "".join(f"<li><code>{text(item)}</code></li>" for item in record["how_to_repeat"]) + "</ul></details>")
    parts.append(f"<details><summary>The record as JSON</summary><pre><code>{html.escape(json.dumps(record, indent=2, ensure_ascii=False))}</code></pre></details>")
    return "".join(parts)


def page(collected):
    records = collected["evidence"]
    title = f"pgseal: evidence and audit of {text(collected['database'])}"
    body = "".join(evidence(record) for record in records) or "<p>No table has an encrypted column.</p>"
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
        f'<p class="soft">{text(collected["at"])}. Evidence is what was found at that time by this server; it is no proof against whoever runs it.</p>'
        f"<h2>Evidence</h2>{body}<h2>Audit {tally(collected['audit'])}</h2>{findings(collected['audit'])}</body></html>"
    )


print(page(json.load(sys.stdin)))
