"""Django's JSONField and TextField on encrypted columns.  Arguments: host, port, plain database, encrypted database."""

import sys

import django
from django.conf import settings
from django.db import connections, models, transaction
from django.db.backends.signals import connection_created
from django.db.models import Case, Count, F, Max, Min, OuterRef, Q, Subquery, Value, When
from django.db.models.fields.json import KT, KeyTextTransform, KeyTransform
from django.db.models.functions import Cast, Coalesce, Concat, Left, Length, Lower, Replace, Substr, Trim, Upper
from django.contrib.postgres.aggregates import ArrayAgg, JSONBAgg, StringAgg
from twins import PROTECTED, Cases

HOST, PORT, PLAIN, ENCRYPTED = sys.argv[1:5]
server = {"ENGINE": "django.db.backends.postgresql", "HOST": HOST, "PORT": PORT, "USER": "postgres"}
databases = {"default": {**server, "NAME": PLAIN}, "encrypted": {**server, "NAME": ENCRYPTED}}
settings.configure(DATABASES=databases, DEFAULT_AUTO_FIELD="django.db.models.AutoField", USE_TZ=True)
django.setup()

from pgvector.django import CosineDistance, L2Distance, VectorField  # noqa: E402, after the settings


# pgseal: begin
def reveal(connection, **_):
    if connection.alias == "encrypted":
        connection.cursor().execute("SET pgseal.reveal = on")


connection_created.connect(reveal)
# pgseal: end


class Author(models.Model):
    name = models.TextField()

    class Meta:
        app_label, db_table = "clients", "author"


class Note(models.Model):
    body = models.TextField(null=True)
    meta = models.JSONField(null=True)
    author = models.ForeignKey(Author, models.CASCADE, null=True)
    embedding = VectorField(dimensions=3, null=True)

    class Meta:
        app_label, db_table = "clients", "note"


TEXT = models.TextField()
NOTES = [
    ("Chest pain.", {"p": "John Smith", "age": 52, "n": {"c": "Oslo"}, "tags": ["a", "b"], "ok": True}, [1, 2, 3]),
    ("Asthma", {"p": "Mary Jones", "age": 34, "n": {"c": "Bergen"}, "tags": ["b"], "ok": False}, [3, 1, 2]),
    ("chest pain.", {"p": "John Smith", "age": 52.5, "ward": "B1", "tags": []}, [2, 2, 1]),
    ("O'Connor", {"p": "O'Connor", "age": 7, "n": None}, [1, 1, 1]),
    (None, None, None),
    ("Asthma", {}, [0, 1, 0]),
]


def fill(database):
    authors = [Author.objects.using(database).create(name=name) for name in ("Ann", "Bob")]
    for number, (body, meta, embedding) in enumerate(NOTES):
        Note.objects.using(database).create(body=body, meta=meta, embedding=embedding, author=authors[number % 2])


for database in ["default", "encrypted"] if PROTECTED else ["default"]:
    with connections[database].schema_editor() as editor:
        editor.create_model(Author)
        editor.create_model(Note)
if not PROTECTED:
    with connections["encrypted"].cursor() as cursor:
        cursor.execute("CREATE TABLE author (id serial PRIMARY KEY, name encrypted_text(clients))")
        cursor.execute(
            "CREATE TABLE note (id serial PRIMARY KEY, body encrypted_text(clients), meta encrypted_jsonb(clients),"
            " author_id int REFERENCES author, embedding encrypted_vector(clients, 3))"
        )
fill("default")
fill("encrypted")

cases = Cases("django")


def query(name, build, ordered=False):
    """Rows of a query, without an order of their own."""

    def run(database):
        rows = [repr(row if isinstance(row, (dict, tuple)) else getattr(row, "pk", row)) for row in build(Note.objects.using(database))]
        return rows if ordered else sorted(rows)

    cases.add(name, run)


def filtered(name, *conditions, **lookups):
    query(name, lambda notes: notes.filter(*conditions, **lookups))


def changed(name, change):
    """What `change` returns and leaves, undone afterwards."""

    def run(database):
        with transaction.atomic(using=database):
            returned = change(Note.objects.using(database))
            left = list(Note.objects.using(database).order_by("pk").values_list("body", "meta"))
            transaction.set_rollback(True, using=database)
        return repr(returned), left

    cases.add(name, run)


query("all", lambda n: n.order_by("pk").values("body", "meta"), True)
query("values_list", lambda n: n.values_list("body", "meta"))
query("iterator", lambda n: n.iterator(chunk_size=2))
query("get", lambda n: [n.get(pk=1).meta])
query("only", lambda n: [note.meta for note in n.only("meta") if note.meta])
query("select_related", lambda n: [(note.pk, note.author.name) for note in n.select_related("author")])
query("prefetch", lambda n: [(note.pk, note.author.name) for note in n.prefetch_related("author")])

filtered("key", meta__p="John Smith")
filtered("key_number", meta__age=52)
filtered("key_boolean", meta__ok=True)
filtered("key_null", meta__n=None)
filtered("key_object", meta__n={"c": "Oslo"})
filtered("key_list", meta__tags=["b"])
filtered("key_nested", meta__n__c="Oslo")
filtered("key_index", meta__tags__0="a")
filtered("key_gt", meta__age__gt=40)
filtered("key_lte", meta__age__lte=34)
filtered("key_text_gt", meta__p__gt="K")
filtered("key_range", meta__age__range=(30, 52))
filtered("key_in", meta__p__in=["John Smith", "O'Connor"])
filtered("key_isnull", meta__ward__isnull=True)
filtered("key_is_not_null", meta__ward__isnull=False)
filtered("key_iexact", meta__p__iexact="john smith")
filtered("key_contains_text", meta__p__contains="Smith")
filtered("key_icontains", meta__p__icontains="SMITH")
filtered("key_startswith", meta__p__startswith="John")
filtered("key_istartswith", meta__p__istartswith="john")
filtered("key_endswith", meta__p__endswith="Jones")
filtered("key_iendswith", meta__p__iendswith="JONES")
filtered("key_regex", meta__p__regex="^J.*h$")
filtered("key_iregex", meta__p__iregex="^j.*H$")
query("key_exclude", lambda n: n.exclude(meta__p="John Smith"))
filtered("key_and_or", Q(meta__p="John Smith") & (Q(meta__age=52) | Q(meta__ward="B1")))
filtered("key_not", ~Q(meta__p="John Smith"))
filtered("contains", meta__contains={"p": "John Smith"})
filtered("contains_nested", meta__contains={"n": {"c": "Oslo"}})
filtered("contained_by", meta__contained_by={"p": "O'Connor", "age": 7, "n": None, "x": 1})
filtered("has_key", meta__has_key="ward")
filtered("has_keys", meta__has_keys=["p", "ward"])
filtered("has_any_keys", meta__has_any_keys=["ward", "ok"])
filtered("has_key_nested", meta__n__has_key="c")
filtered("exact", meta={})
filtered("exact_in", meta__in=[{}, {"p": "x"}])
filtered("isnull", meta__isnull=True)
filtered("by_key_transform", meta__p=KeyTransform("p", "meta"))

filtered("text", body="Asthma")
filtered("text_in", body__in=["Asthma", "O'Connor"])
filtered("text_iexact", body__iexact="CHEST PAIN.")
filtered("text_contains", body__contains="pain")
filtered("text_icontains", body__icontains="PAIN")
filtered("text_startswith", body__startswith="Ch")
filtered("text_regex", body__regex="^[Cc]hest")
filtered("text_gt", body__gt="B")
filtered("text_isnull", body__isnull=True)
query("text_exclude", lambda n: n.exclude(body="Asthma"))
filtered("related", author__name="Ann")
filtered("related_icontains", author__name__icontains="an")

query("KT", lambda n: n.annotate(p=KT("meta__p")).values("pk", "p"))
query("KT_filter", lambda n: n.annotate(p=KT("meta__p")).filter(p="John Smith"))
query("KT_cast", lambda n: n.filter(meta__has_key="age").annotate(age=Cast(KT("meta__age"), models.FloatField())).filter(age__gt=40))
query("key_transform", lambda n: n.annotate(p=KeyTransform("n", "meta")).values("pk", "p"))
query("key_values", lambda n: n.values("pk", "meta__p", "meta__n__c"))
query("lower", lambda n: n.annotate(x=Lower("body")).values("pk", "x"))
query("lower_filter", lambda n: n.annotate(x=Lower(KeyTextTransform("p", "meta"))).filter(x="john smith"))
query("upper", lambda n: n.annotate(x=Upper("body")).values("pk", "x"))
query("length", lambda n: n.annotate(x=Length("body")).values("pk", "x"))
query("length_filter", lambda n: n.annotate(x=Length("body")).filter(x__gt=8))
query("substr", lambda n: n.annotate(x=Substr("body", 2, 3), y=Left("body", 2)).values("pk", "x", "y"))
query("replace_trim", lambda n: n.annotate(x=Replace("body", Value("a", TEXT), Value("b", TEXT)), y=Trim("body")).values("pk", "x", "y"))
query("concat", lambda n: n.annotate(x=Concat("body", Value("!", TEXT))).values("pk", "x"))
query("concat_filter", lambda n: n.annotate(x=Concat("body", Value("!", TEXT))).filter(x="Asthma!"))
query("coalesce", lambda n: n.annotate(x=Coalesce("body", Value("-", TEXT))).values("pk", "x"))
query("case", lambda n: n.annotate(x=Case(When(meta__p="John Smith", then=Value("him", TEXT)), default=F("body"))).values("pk", "x"))
query("subquery", lambda n: n.annotate(x=Subquery(Note.objects.using(n.db).filter(body=OuterRef("body")).order_by("pk").values("meta")[:1])).values("pk", "x"))
query("exists", lambda n: n.filter(pk__in=Note.objects.using(n.db).filter(meta__p="John Smith").values("pk")))
query("in_subquery", lambda n: n.filter(body__in=n.filter(pk=2).values("body")))

query("order_by_text", lambda n: n.order_by("body", "pk"), True)
query("order_by_text_desc", lambda n: n.order_by(F("body").desc(nulls_last=True), "pk"), True)
query("order_by_key", lambda n: n.order_by("meta__p", "pk"), True)
query("order_by_key_number", lambda n: n.order_by("meta__age", "pk"), True)
query("distinct_text", lambda n: n.values("body").distinct())
query("distinct_key", lambda n: n.values("meta__p").distinct())
query("distinct_rows", lambda n: n.distinct())
query("distinct_on", lambda n: n.order_by("body", "pk").distinct("body"))
query("group_by_text", lambda n: n.values("body").annotate(c=Count("pk")))
query("group_by_key", lambda n: n.values("meta__p").annotate(c=Count("pk")))
query("group_by_KT", lambda n: n.annotate(p=KT("meta__p")).values("p").annotate(c=Count("pk")).order_by("-c", "p"), True)
query("group_having", lambda n: n.values("meta__p").annotate(c=Count("pk")).filter(c__gt=1))
query("group_by_related", lambda n: n.values("author__name").annotate(c=Count("pk")))
query("aggregate_count", lambda n: [n.aggregate(c=Count("body"), d=Count("body", distinct=True))])
query("aggregate_max", lambda n: [n.aggregate(x=Max("body"), y=Min("body"))])
query("aggregate_max_number", lambda n: [n.filter(meta__has_key="age").aggregate(x=Max(Cast(KT("meta__age"), models.FloatField())))])
query("array_agg", lambda n: [n.aggregate(x=ArrayAgg("body", ordering="pk"))])
query("string_agg", lambda n: [n.aggregate(x=StringAgg("body", ",", ordering="pk"))])
query("jsonb_agg", lambda n: [n.aggregate(x=JSONBAgg("body", ordering="pk"))])
query("union", lambda n: n.filter(pk=1).values_list("body").union(n.filter(pk=2).values_list("body")))
query("union_all", lambda n: n.filter(pk=1).values_list("body", "meta").union(n.filter(pk__lt=3).values_list("body", "meta"), all=True))
query("count", lambda n: [(n.filter(meta__p="John Smith").count(),)])
query("exists_row", lambda n: [(n.filter(meta__p="nobody").exists(),)])

query("nearest", lambda n: n.exclude(embedding=None).order_by(L2Distance("embedding", [1, 2, 3]), "pk")[:3], True)
query("nearest_filtered", lambda n: n.filter(meta__p="John Smith").order_by(CosineDistance("embedding", [1, 2, 3]))[:3], True)
query("distance", lambda n: [(note.pk, round(note.d, 6)) for note in n.exclude(embedding=None).annotate(d=L2Distance("embedding", [1, 2, 3]))])
query("embedding", lambda n: [(note.pk, None if note.embedding is None else [float(x) for x in note.embedding]) for note in n.all()])

changed("create", lambda n: n.create(body="new", meta={"a": 1}).meta)
changed("save", lambda n: [(setattr(note, "meta", {**note.meta, "a": 1}), note.save()) for note in n.filter(pk=1)])
changed("update", lambda n: n.filter(meta__p="John Smith").update(body="x", meta={"a": 1}))
changed("update_from_key", lambda n: n.filter(pk=1).update(body=KT("meta__p")))
changed("update_upper", lambda n: n.filter(pk=1).update(body=Upper("body")))
changed("update_F", lambda n: n.filter(pk=1).update(body=Concat(F("body"), Value("!", TEXT))))
changed("update_case", lambda n: n.update(body=Case(When(pk=1, then=Value("one", TEXT)), default=F("body"))))
changed("bulk_create", lambda n: len(n.bulk_create([Note(body=f"n{i}", meta={"i": i}) for i in range(3)])))
changed("upsert", lambda n: len(n.bulk_create([Note(id=1, body="again", meta={})], update_conflicts=True, unique_fields=["id"], update_fields=["body", "meta"])))
changed("bulk_update", lambda n: n.bulk_update([Note(id=1, body="b1", meta={"a": 1}), Note(id=2, body="b2", meta={"a": 2})], ["body", "meta"]))
changed("get_or_create", lambda n: n.get_or_create(meta={"a": 1}, defaults={"body": "x"})[1])
changed("get_or_create_key", lambda n: n.get_or_create(meta__p="Mary Jones")[1])
changed("update_or_create", lambda n: n.update_or_create(body="O'Connor", defaults={"meta": {"z": 1}})[1])
changed("delete", lambda n: n.filter(meta__p="John Smith").delete())
changed("in_bulk", lambda n: {key: note.body for key, note in n.in_bulk([1, 2]).items()})

sys.exit(not cases.compare("default", "encrypted"))
