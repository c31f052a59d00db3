"""LangGraph's store and checkpointer on encrypted columns.  Argument: the database's URL, plain and encrypted."""

import sys
from operator import add
from typing import Annotated, TypedDict

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.store.postgres import PostgresStore
from psycopg.rows import dict_row
from twins import PROTECTED, Cases


class State(TypedDict):
    said: Annotated[list[str], add]
    turn: int


def embed(texts):
    return [[len(text) + 0.0, len(text) % 7 + 1.0, len(text) % 3 + 1.0] for text in texts]


class Subject:
    """A connection, with the store and the checkpointer on it, and a graph that uses both."""

    def __init__(self, url, encrypted):
        self.db = psycopg.connect(url, autocommit=True, prepare_threshold=0, row_factory=dict_row)
        self.store = PostgresStore(self.db, index={"dims": 3, "embed": embed, "fields": ["text"]})
        self.saver = PostgresSaver(self.db)
        self.store.setup()
        self.saver.setup()
        if encrypted:
            for column in [] if PROTECTED else [("store", "value"), ("checkpoints", "checkpoint"), ("checkpoints", "metadata")]:
                self.db.execute("CALL pgseal.encrypt_column(%s, %s, 'clients')", column)
            # pgseal: begin
            self.db.execute("SET pgseal.reveal = on")
            # pgseal: end
        for number, (patient, age) in enumerate([("John Smith", 52), ("Mary Jones", 34), ("O'Connor", 7)]):
            value = {"text": patient * (number + 1), "patient": patient, "age": age, "n": {"c": "Oslo"} if number else None}
            self.store.put(("notes", "ward" + str(number % 2)), f"n{number}", value)
        graph = StateGraph(State)
        graph.add_node("answer", lambda state: {"said": [f"turn {state['turn']}"], "turn": state["turn"] + 1})
        graph.add_edge(START, "answer")
        graph.add_edge("answer", END)
        self.graph = graph.compile(checkpointer=self.saver, store=self.store)


cases = Cases("langgraph")


def search(name, **arguments):
    def run(subject):
        found = subject.store.search(("notes",), **arguments)
        return [(item.key, item.value, item.score) for item in found] if "query" in arguments else sorted((item.key, str(item.value)) for item in found)

    cases.add(name, run)


@cases
def get(subject):
    return subject.store.get(("notes", "ward0"), "n0").value


search("search_all")
search("filter_equal", filter={"patient": "John Smith"})
search("filter_number", filter={"age": 34})
search("filter_object", filter={"n": {"$eq": {"c": "Oslo"}}})
search("filter_null", filter={"n": None})
search("filter_eq", filter={"patient": {"$eq": "O'Connor"}})
search("filter_ne", filter={"patient": {"$ne": "O'Connor"}})
search("filter_gt", filter={"age": {"$gt": 30}})
search("filter_gte", filter={"age": {"$gte": 34}})
search("filter_lt", filter={"age": {"$lt": 34}})
search("filter_lte", filter={"age": {"$lte": 34}})
search("filter_two", filter={"patient": "Mary Jones", "age": {"$gt": 30}})
search("limit", limit=2, offset=1)
search("nearest", query="John Smith", limit=2)
search("nearest_filtered", query="John Smith", filter={"age": {"$gt": 30}})


@cases
def namespaces(subject):
    return sorted(subject.store.list_namespaces(prefix=("notes",)))


@cases
def put_again(subject):
    subject.store.put(("notes", "ward0"), "n0", {"text": "x", "patient": "John Smith", "age": 53})
    return subject.store.get(("notes", "ward0"), "n0").value


@cases
def put_and_delete(subject):
    subject.store.put(("other",), "k", {"a": 1})
    subject.store.delete(("other",), "k")
    return subject.store.get(("other",), "k")


def thread(name):
    return {"configurable": {"thread_id": name}, "metadata": {"user": "u" + name}}


@cases
def invoke(subject):
    return subject.graph.invoke({"said": ["hello"], "turn": 1}, thread("1"))


@cases
def invoke_again(subject):
    return subject.graph.invoke({"said": ["more"]}, thread("1"))


@cases
def get_state(subject):
    return subject.graph.get_state(thread("1")).values


@cases
def history(subject):
    return [(state.values, state.metadata["step"], state.next) for state in subject.graph.get_state_history(thread("1"))]


@cases
def time_travel(subject):
    states = list(subject.graph.get_state_history(thread("1")))
    return subject.graph.get_state(states[2].config).values


@cases
def update_state(subject):
    subject.graph.update_state(thread("1"), {"said": ["by hand"]})
    return subject.graph.get_state(thread("1")).values


@cases
def list_filtered(subject):
    return [found.metadata["step"] for found in subject.saver.list(None, filter={"source": "loop"})]


@cases
def list_of_user(subject):
    subject.graph.invoke({"said": ["hi"], "turn": 1}, thread("2"))
    return [found.checkpoint["channel_values"].get("turn") for found in subject.saver.list(None, filter={"user": "u2"})]


@cases
def delete_thread(subject):
    subject.saver.delete_thread("1")
    return list(subject.graph.get_state_history(thread("1"))), subject.graph.get_state(thread("2")).values


sys.exit(not cases.compare(Subject(sys.argv[1], False), Subject(sys.argv[2], True)))
