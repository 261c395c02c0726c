"""The ledger's promises, whatever anybody does in whatever order: a model in Python beside a real database.

Three workers, a person at the buttons, upkeep and time itself act at random on two campaigns; every act is one
transaction. After each the model says which rows have changed, and how; everything else must be as it was. A worker
that got a claim and did not give it back has posted it: the worst case.

`MAILING_MODEL_EXAMPLES=1000 pytest tests/test_ledger_model.py` looks longer.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from psycopg.rows import dict_row

from mailing import campaigns, db, enrolment, gateways, messages, recount, runs, verdicts
from mailing.breaker import TOLERANCE, Report
from mailing.errors import Conflict, InvalidInput, MailingError, NotFinished
from mailing.local_hours import LocalHours, spans
from mailing.messages import Batch, Outcome, Terms
from mailing.models import MESSAGE_STATES
from tests.builders import HOUR, a_campaign, an_open_campaign, now

EXAMPLES = int(os.environ.get("MAILING_MODEL_EXAMPLES", "30"))
STEPS = 50
BATCH_SIZE = 7
ACTOR = "model"
UNTOUCHED = ("expired", "cancelled", "excluded")  # "this client has got nothing of it"
OVER = ("finished", "cancelled")

WORDS = {
    "sent": ("sent", None, True),
    "failed": ("failed", "http_400", True),
    "repeat": ("pending", "http_503", True),
    "in doubt": ("unknown", "no_answer", True),
    "unauthorized": ("pending", "http_401", False),
    "too late": ("pending", "too_late", False),
}
"""What a task may have to say of a claim: the outcome's state and reason, and whether the attempt counts."""

FOLLOWED = {("pending", "excluded"), ("pending", "unknown"), ("excluded", "pending"), (None, "pending")}
RECOVERED = {("sending", "unknown"), ("sending", "pending")}
MAY = {
    "select": FOLLOWED,
    "follow": FOLLOWED,
    "begin": RECOVERED,
    "recover": RECOVERED,
    "claim": {("pending", "sending"), ("pending", "excluded"), ("pending", "unknown")},
    "record": {
        *((was, word) for was in ("sending", "unknown", "pending") for word in ("sent", "failed")),
        ("sending", "pending"), ("sending", "unknown"), ("sending", "cancelled"),
    },
    "return": {("sending", "pending"), ("sending", "cancelled"), ("sending", "unknown")},
    "hours": {("pending", "expired"), ("pending", "unknown"), ("pending", "pending")},
    "close": {
        (None, "expired"), ("sending", "unknown"), ("sending", "pending"),
        ("pending", "expired"), ("pending", "cancelled"), ("pending", "unknown"),
    },
    "settle": {("unknown", "pending"), ("unknown", "sent"), ("unknown", "failed")},
    "edit": {("expired", "pending"), ("expired", "excluded")},
    "wait": {("pending", "pending")},
    "enrol": {(None, "pending")},
    "postpone": {("pending", "pending")},
    "resend": {("failed", "pending"), ("unknown", "pending")},
}  # fmt: skip
"""Who may change a message, from which state to which (None: it was not there). Nobody leads out of sent or cancelled;
nobody but one who sends again out of failed; nobody but an edit out of expired; nobody but one who follows the filter
out of excluded. Only who removes a message takes it away."""

LOOK = {
    "messages": "SELECT * FROM messages ORDER BY id",
    "campaigns": (
        "SELECT *, sending_start <= clock_timestamp() AND clock_timestamp() < sending_stop AS is_open,"
        " sending_stop <= clock_timestamp() AS is_over, clock_timestamp() AS at FROM campaigns ORDER BY id"
    ),
    "live": "SELECT token FROM leases WHERE expires_at > clock_timestamp()",
    "batches": "SELECT campaign_id, first_id, last_id, size FROM batches ORDER BY campaign_id, number",
    "gateways": "SELECT * FROM gateways",
    "clients": (
        "SELECT c.id, c.mobile_operator_code AS code, c.timezone,"
        " ARRAY(SELECT t.name FROM client_tags ct JOIN tags t ON t.id = ct.tag_id WHERE ct.client_id = c.id) AS tags"
        " FROM clients c"
    ),
    "attempts": "SELECT message_id, attempt, state, reason FROM attempts ORDER BY id",
    "audit": "SELECT action, campaign_id, message_id FROM audit_log WHERE actor = 'model'",
    "statistics": "SELECT * FROM reporting.campaign_statistics",
}

EMPTY = """
    TRUNCATE messages, attempts, leases, batches, throttles, audit_log, campaign_revisions, campaigns, client_tags,
        clients, tags, state_counts, time_counts, operator_counts RESTART IDENTITY CASCADE;
    DELETE FROM gateways;
    INSERT INTO gateways (name) VALUES ('default'), ('other');
    INSERT INTO tags (name) VALUES ('vip'), ('new');
"""

ZONES = ("UTC", "Europe/Moscow", "Asia/Vladivostok")  # without daylight saving: what is open is so in any season
FILTERS = (((), ()), (("vip",), ()), ((), ("900",)), ((), ("900", "901")), (("new", "vip"), ()), (("vip",), ("901",)))


@dataclass
class Ledger:
    """All rows, as of one moment."""

    messages: dict[int, dict[str, Any]]
    campaigns: dict[int, dict[str, Any]]
    live: set[int]  # tokens
    batches: dict[int, list[Batch]]
    gateways: dict[str, dict[str, Any]]
    clients: dict[int, dict[str, Any]]
    attempts: list[dict[str, Any]]
    audit: list[dict[str, Any]]
    statistics: dict[int, dict[str, Any]]

    @classmethod
    def look(cls, connection: db.Connection) -> Ledger:
        with connection.pipeline():
            cursors = {name: connection.execute(statement) for name, statement in LOOK.items()}
            rows = {name: cursor.fetchall() for name, cursor in cursors.items()}
        batches = defaultdict(list)
        for row in rows["batches"]:
            batches[row["campaign_id"]].append(Batch(row["first_id"], row["last_id"], row["size"], 1))
        return cls(
            messages={row["id"]: row for row in rows["messages"]},
            campaigns={row["id"]: row for row in rows["campaigns"]},
            live={row["token"] for row in rows["live"]},
            batches=batches,
            gateways={row["name"]: row for row in rows["gateways"]},
            clients={row["id"]: row for row in rows["clients"]},
            attempts=rows["attempts"],
            audit=rows["audit"],
            statistics={row["campaign_id"]: row for row in rows["statistics"]},
        )

    def of(self, campaign_id: int, batch: Batch | None = None) -> list[dict[str, Any]]:
        return [
            row for row in self.messages.values()
            if row["campaign_id"] == campaign_id and (batch is None or batch.first_id <= row["id"] <= batch.last_id)
        ]  # fmt: skip

    def matches(self, campaign_id: int, client_id: int) -> bool:
        campaign, client = self.campaigns[campaign_id], self.clients.get(client_id)
        return (
            client is not None
            and (not campaign["filter_operator_codes"] or client["code"] in campaign["filter_operator_codes"])
            and set(campaign["filter_tags"]) <= set(client["tags"])
        )

    def hours(self, campaign_id: int) -> LocalHours | None:
        campaign = self.campaigns[campaign_id]
        return LocalHours(campaign["local_from"], campaign["local_to"]) if campaign["local_from"] else None


@dataclass(eq=False)
class Post:
    """A claim that was granted and not given back. `word`: what the ledger was told, and believed, of it."""

    message_id: int
    token: int
    attempt: int
    word: str | None = None  # sent, failed, untaken, doubt
    is_waived: bool = False  # in doubt, and a person or the policy said: again, all the same


@dataclass
class Worker:
    """A task: what it holds, and what it believes."""

    connection: db.Connection
    campaign_id: int = 0
    batch: Batch | None = None
    token: int = 0
    terms: Terms | None = None
    zones: dict[str, Any] | None = None
    is_probe: bool = False
    held: list[Post] = field(default_factory=list)  # of which it has not spoken yet, also under older tokens


WORKER = st.integers(0, 2)
CAMPAIGN = st.integers(1, 2)
PICK = st.integers(0, 30)
SPEECH = st.lists(st.sampled_from([*WORDS, "sent", "in doubt", "repeat"]), min_size=1, max_size=6)
EDITS = st.one_of(
    st.tuples(st.just("filter"), st.sampled_from(FILTERS)),
    st.tuples(st.just("stop"), st.sampled_from([0.5, 1.0, 1.0, 40.0])),
    st.tuples(st.just("hours"), st.sampled_from([None, 2, 6])),
    st.tuples(st.just("text"), st.sampled_from(["Hello", "Good day"])),
    st.tuples(st.just("start"), st.sampled_from([-0.1, -0.1, -0.1, 0.2])),
    st.tuples(st.just("on_doubt"), st.sampled_from(["hold", "resend"])),
    st.tuples(st.just("audience"), st.sampled_from(["snapshot", "live"])),
    st.tuples(st.just("gateway"), st.sampled_from(["default", "default", "other"])),
    st.tuples(st.just("rate"), st.sampled_from([None, 5.0])),
)


def changes_of(edits: list[tuple[str, Any]]) -> dict[str, Any]:
    """The edits as columns; hours of a window and of local hours count from now."""
    columns: dict[str, Any] = {}
    for name, value in edits:
        if name == "filter":
            columns |= {"filter_tags": value[0], "filter_operator_codes": value[1]}
        elif name in ("start", "stop"):
            columns[f"sending_{name}"] = now() + value * HOUR
        elif name == "hours":
            ends = (None, None) if value is None else (now() - value * HOUR, now() + value * HOUR)
            columns |= {"local_from": ends[0] and ends[0].time(), "local_to": ends[1] and ends[1].time()}
        else:
            columns["messages_per_second" if name == "rate" else name] = value
    return columns


@dataclass(frozen=True)
class Act:
    """Something that somebody may do: how often among all the others, with what, and when it makes sense."""

    name: str
    weight: int
    arguments: dict[str, st.SearchStrategy[Any]]
    when: Callable[[LedgerMachine], Any]


ACTS: list[Act] = []


def act(weight: int, when: Callable[[LedgerMachine], Any] = lambda _: True, **arguments: Any) -> Callable[..., Any]:
    """Register a method. Not hypothesis's own `rule`, which takes half of the rules out of each example: here nearly
    every promise needs many hands."""

    def register(method: Callable[..., None]) -> Callable[..., None]:
        ACTS.extend([Act(method.__name__, weight, arguments, when)] * weight)
        return method

    return register


def has_tasks(machine: LedgerMachine) -> bool:
    return bool(machine.seated)


def has_claims(machine: LedgerMachine) -> bool:
    return any(worker.held for worker in machine.workers)


def has_messages(machine: LedgerMachine) -> bool:
    return bool(machine.ledger.messages)


def has_ends(machine: LedgerMachine) -> bool:
    return any(row["state"] in verdicts.RESENDABLE for row in machine.ledger.messages.values())


def has_doubts(machine: LedgerMachine) -> bool:
    return any(row["state"] == "unknown" for row in machine.ledger.messages.values())


def has_waits(machine: LedgerMachine) -> bool:
    return any(row["not_before"] for row in machine.ledger.messages.values())


def has_open_breaker(machine: LedgerMachine) -> bool:
    return has_tasks(machine) and any(row["breaker_state"] != "closed" for row in machine.ledger.gateways.values())


def has_probe(machine: LedgerMachine) -> bool:
    return any(worker.is_probe for worker in machine.workers)


class LedgerMachine(RuleBasedStateMachine):
    """Everybody's acts, what the ledger must be after each, and what it must never be."""

    def __init__(self, connections: list[db.Connection]) -> None:
        super().__init__()
        self.observer, self.desk, *others = connections
        self.workers = [Worker(connection) for connection in others]
        self.posts: dict[int, list[Post]] = defaultdict(list)
        self.counted: Counter[int] = Counter()  # attempts that count, by message
        self.evidence: dict[int, list[tuple[int, str, str]]] = defaultdict(list)
        self.decided: Counter[tuple[str, int, int | None]] = Counter()
        self.followed: dict[int, tuple[list[str], list[str]]] = {}  # the filter that the audience was brought after
        self.admitted: dict[int, set[int]] = defaultdict(set)  # clients who matched when they joined, and since then
        self.history: dict[int, list[str]] = defaultdict(list)

    # -- the frame

    def do(self, action: str, work: Callable[..., Any], *, by: Worker | None = None, campaign_id: int = 0) -> Any:
        """What `work` returns, or the error that refused it: one transaction, after which only what may differ does."""
        self.before = self.ledger
        connection = by.connection if by else self.desk
        try:
            with connection.transaction():
                result = work(connection)
        except MailingError as error:
            result = error
        self.ledger = Ledger.look(self.observer)
        self._check_changes(action, campaign_id)
        if isinstance(result, MailingError):
            assert self.ledger.messages == self.before.messages, "a refusal wrote something"
        self._note_filter()
        return result

    def _check_changes(self, action: str, campaign_id: int) -> None:
        self.changed: dict[int, str] = {}
        self.gone = self.before.messages.keys() - self.ledger.messages.keys()
        assert not self.gone or action == "remove", "a message vanished"
        for id_, row in self.ledger.messages.items():
            old = self.before.messages.get(id_)
            if row == old:
                continue
            step = (old["state"] if old else None, row["state"])
            self.history[id_].append(f"{action}: {row['state']} ({row['reason']}), token {row['token']}")
            assert step in MAY.get(action, ()), f"{action} made {step} of {self.tell(id_)}"
            assert campaign_id in (0, row["campaign_id"]), f"{action} changed another campaign: {self.tell(id_)}"
            assert old is None or old["client_id"] == row["client_id"]
            if step[0] != step[1]:
                self.changed[id_] = row["state"]

    def _note_filter(self) -> None:
        for id_, campaign in self.ledger.campaigns.items():
            old = self.before.campaigns[id_]
            if (old["opened_at"] is None and campaign["opened_at"]) or (
                old["audience_stale"] and not campaign["audience_stale"]
            ):
                self.followed[id_] = (campaign["filter_tags"], campaign["filter_operator_codes"])
                there = {row["client_id"] for row in self.ledger.of(id_)}
                self.admitted[id_] = {client_id for client_id in there if self.ledger.matches(id_, client_id)}
        for id_ in self.ledger.messages.keys() - self.before.messages.keys():
            self._admit(id_)

    def _admit(self, id_: int) -> None:
        row = self.ledger.messages[id_]
        self.admitted[row["campaign_id"]].add(row["client_id"])

    def tell(self, id_: int) -> str:
        return f"message {id_} ({'; '.join(self.history[id_])}; {self.posts[id_]})"

    def expect(self, expected: dict[int, str]) -> None:
        """Exactly these messages are in another state than before (beside those who have just joined)."""
        changed = {id_: state for id_, state in self.changed.items() if id_ in self.before.messages}
        wrong = {id_ for id_ in changed.keys() | expected.keys() if changed.get(id_) != expected.get(id_)}
        assert changed == expected, [self.tell(id_) for id_ in sorted(wrong)]

    @property
    def seated(self) -> list[Worker]:
        """Who has a task, be its lease alive or not."""
        return [worker for worker in self.workers if worker.terms]

    def seat(self, pick: int) -> Worker:
        return self.seated[pick % len(self.seated)]

    def pick_batch(self, campaign_id: int, pick: int) -> tuple[int, Batch] | None:
        known = self.ledger.batches[campaign_id]
        return (pick % len(known) + 1, known[pick % len(known)]) if known else None

    # -- the beginning

    @initialize(is_live=st.booleans(), is_open=st.sampled_from([True, True, False]))
    def begin_with_two_campaigns(self, is_live: bool, is_open: bool) -> None:
        """One holds what is in doubt, the other sends it again; one takes a snapshot, the other is live."""
        self.observer.execute(EMPTY)
        with self.observer.pipeline():
            for n in range(20):
                self._insert_client(self.observer, n)
        for on_doubt, audience in (("hold", is_live), ("resend", not is_live)):
            a_campaign(self.observer, on_doubt=on_doubt, audience="live" if audience else "snapshot")
        self.before = self.ledger = Ledger.look(self.observer)
        if is_open:
            self.select_audience(1, False)
            self.select_audience(2, False)

    def _insert_client(self, connection: db.Connection, n: int) -> None:
        connection.execute(
            "WITH client AS (INSERT INTO clients (phone_number, timezone)"
            " SELECT '7' || %(code)s::text || lpad((coalesce(max(id), 0) + 1)::text, 7, '0'), %(zone)s"
            " FROM clients RETURNING id)"
            " INSERT INTO client_tags SELECT client.id, tags.id FROM client, tags WHERE tags.name = ANY (%(tags)s)",
            {
                "code": ("900", "901", "902")[n % 3],
                "zone": ZONES[n % 7 % 3],
                "tags": [tag for tag, each in (("vip", 2), ("new", 4)) if n % each == 0],
            },
        )

    @rule(data=st.data())
    def somebody_acts(self, data: st.DataObject) -> None:
        act = st.sampled_from(ACTS).filter(lambda each: each.when(self))
        name, arguments = data.draw(
            act.flatmap(lambda each: st.tuples(st.just(each.name), st.fixed_dictionaries(each.arguments)))
        )
        getattr(self, name)(**arguments)
        self._check_promises()

    # -- the run of a campaign

    @act(10, worker=WORKER, campaign_id=CAMPAIGN, pick=PICK, limit=st.integers(1, 8), words=SPEECH)
    def work(self, worker: int, campaign_id: int, pick: int, limit: int, words: list[str]) -> None:
        """What goes on by itself: a run takes the audience or follows its filter, a task begins, claims and speaks."""
        campaign, me = self.ledger.campaigns[campaign_id], self.workers[worker]
        if campaign["opened_at"] is None or campaign["audience_stale"]:
            self.select_audience(campaign_id, False)
        if me.token not in self.ledger.live or me.campaign_id != campaign_id:
            self.take_lease(worker, campaign_id, pick, limit)
        elif me.terms.local_hours != self.ledger.hours(campaign_id):
            self.renew_lease(self.seated.index(me))
            self.follow_local_hours(self.seated.index(me))
        else:
            self._claim(me, limit)
        if me.held and words[1:]:
            self._record(me, pick, words[1:])

    @act(1, campaign_id=CAMPAIGN, newcomers=st.booleans())
    def select_audience(self, campaign_id: int, newcomers: bool) -> None:
        old = self.ledger.campaigns[campaign_id]
        self.do(
            "select",
            lambda c: runs.select_audience(c, campaign_id, batch_size=BATCH_SIZE, newcomers=newcomers),
            campaign_id=campaign_id,
        )
        acts = old["sending_start"] <= old["at"] and old["status"] != "cancelled"
        acts = acts and (old["status"] != "paused" or old["is_over"])
        grows = old["opened_at"] is None or (not old["is_over"] and (newcomers or old["audience"] == "live"))
        self._expect_followed(campaign_id, follows=acts and old["audience_stale"], enrols=acts and grows)
        assert not acts or self.ledger.campaigns[campaign_id]["opened_at"], "its audience was taken, so it is open"

    @act(1, campaign_id=CAMPAIGN)
    def follow_audience(self, campaign_id: int) -> None:
        old = self.ledger.campaigns[campaign_id]
        self.do("follow", lambda c: runs.follow_audience(c, campaign_id), campaign_id=campaign_id)
        acts = old["audience"] == "live" and old["status"] == "running" and not old["is_over"]
        self._expect_followed(campaign_id, follows=acts and old["audience_stale"], enrols=acts)

    @act(1, campaign_id=CAMPAIGN)
    def follow_filter(self, campaign_id: int) -> None:
        old = self.ledger.campaigns[campaign_id]
        self.do("follow", lambda c: runs.follow_filter(c, campaign_id), campaign_id=campaign_id)
        follows = old["audience_stale"] and old["status"] not in OVER and not self._is_any_on_its_way(campaign_id)
        self._expect_followed(campaign_id, follows=follows, enrols=False)

    def _is_any_on_its_way(self, campaign_id: int) -> bool:
        return any(row["state"] == "sending" for row in self.before.of(campaign_id))

    def _expect_followed(self, campaign_id: int, *, follows: bool, enrols: bool) -> None:
        expected = {}
        for row in self.before.of(campaign_id) if follows else ():
            is_wanted = self.before.matches(campaign_id, row["client_id"])
            if row["state"] == "pending" and not is_wanted:
                expected[row["id"]] = "unknown" if row["in_doubt"] else "excluded"
            elif is_wanted and (row["state"], row["reason"]) == ("excluded", "filter"):
                expected[row["id"]] = "pending"
        self.expect(expected)
        joined = {self.ledger.messages[id_]["client_id"] for id_ in self.changed if id_ not in self.before.messages}
        there = {row["client_id"] for row in self.before.of(campaign_id)}
        matching = {id_ for id_ in self.before.clients if self.before.matches(campaign_id, id_)}
        assert joined == (matching - there if follows or enrols else set())

    @act(1, campaign_id=CAMPAIGN)
    def fold_counts(self, campaign_id: int) -> None:
        self.do("fold", lambda c: runs.fold_counts(c, campaign_id))
        assert self.ledger.statistics == self.before.statistics

    @act(3, campaign_id=CAMPAIGN, commits=st.booleans())
    def close(self, campaign_id: int, commits: bool) -> None:
        """`commits`: what was settled on the way is kept although the campaign is not finished."""
        old = self.ledger.campaigns[campaign_id]

        def work(connection: db.Connection) -> Any:
            try:
                return runs.close(connection, campaign_id)
            except NotFinished as error:
                if not commits:
                    raise
                return [error]

        result = self.do("close", work, campaign_id=campaign_id)
        if isinstance(result, NotFinished):
            return
        self._note_recovered(expected := self._recovered(campaign_id))
        self._sweep(campaign_id, expected)
        self.expect(expected)
        new = self.ledger.campaigns[campaign_id]
        left = {row["state"] for row in self.ledger.of(campaign_id)} & {"pending", "sending"}
        waits = new["opened_at"] is None and old["sending_start"] > old["at"]
        assert isinstance(result, list) == (bool(left) or not (new["status"] in OVER or waits))
        assert not (old["is_over"] and not left) or new["status"] in OVER, "nothing keeps it from being finished"

    def _sweep(self, campaign_id: int, expected: dict[int, str]) -> None:
        campaign = self.before.campaigns[campaign_id]
        if not campaign["is_over"] and campaign["status"] != "cancelled":
            return
        for row in self.before.of(campaign_id):
            if expected.get(row["id"], row["state"]) == "pending":
                is_in_doubt = row["in_doubt"] or row["state"] == "sending"
                swept = "cancelled" if campaign["status"] == "cancelled" else "expired"
                expected[row["id"]] = "unknown" if is_in_doubt else swept

    # -- the tasks

    @act(3, worker=WORKER, campaign_id=CAMPAIGN, pick=PICK, limit=st.integers(0, 8))
    def take_lease(self, worker: int, campaign_id: int, pick: int, limit: int) -> None:
        """As a task begins: it recovers, takes a lease, learns the terms, and claims."""
        if not (found := self.pick_batch(campaign_id, pick)):
            return
        me, (number, batch) = self.workers[worker], found

        def work(connection: db.Connection) -> tuple[int, Terms | None]:
            messages.recover_claims(connection, campaign_id, batch)
            token = messages.take_lease(connection, campaign_id, number, f"worker {worker}")
            return token, messages.renew_lease(connection, token)

        me.token, me.terms = self.do("begin", work, by=me, campaign_id=campaign_id)
        me.campaign_id, me.batch, me.zones, me.is_probe = campaign_id, batch, None, False
        assert me.terms is not None
        self._expect_recovered(campaign_id, batch)
        if limit:
            self._claim(me, limit)

    @act(1, has_tasks, pick=PICK)
    def renew_lease(self, pick: int) -> None:
        me = self.seat(pick)
        terms = self.do("renew", lambda c: messages.renew_lease(c, me.token), by=me)
        assert (terms is not None) == (me.token in self.before.live), "a lease that ran out stays so"
        me.terms = terms or me.terms

    @act(2, has_tasks, pick=PICK)
    def follow_local_hours(self, pick: int) -> None:
        me = self.seat(pick)

        def work(connection: db.Connection) -> None:
            hours, me.zones = me.terms.local_hours, None
            if hours:
                at, zones = messages.zones_of_batch(connection, me.campaign_id, me.batch)
                me.zones = spans(hours, zones, at)
            messages.follow_local_hours(connection, me.campaign_id, me.batch, me.terms, me.zones)

        self.do("hours", work, by=me, campaign_id=me.campaign_id)
        campaign, hours = self.before.campaigns[me.campaign_id], self.before.hours(me.campaign_id)
        expected = {}
        for row in self.before.of(me.campaign_id, me.batch):
            client = self.before.clients.get(row["client_id"])
            if row["state"] != "pending" or not client or not hours or hours != me.terms.local_hours:
                continue  # what a task believes of hours that were changed since must not cost anybody the message
            opens_at = hours.span(client["timezone"], campaign["at"]).opens_at
            if opens_at > campaign["at"] and opens_at >= campaign["sending_stop"]:
                expected[row["id"]] = "unknown" if row["in_doubt"] else "expired"
            elif row["reason"] == "postponed" and (opens_at <= campaign["at"] or opens_at <= row["not_before"]):
                assert self.ledger.messages[row["id"]] == row, "a person's moment was forgotten"
        self.expect(expected)

    @act(4, has_tasks, pick=PICK, limit=st.integers(1, 8))
    def claim(self, pick: int, limit: int) -> None:
        self._claim(self.seat(pick), limit)

    def _claim(self, me: Worker, limit: int) -> None:
        claims = self.do(
            "claim",
            lambda c: messages.claim(
                c, me.campaign_id, me.token, me.terms, from_id=me.batch.first_id, last_id=me.batch.last_id,
                limit=limit, zones=me.zones, is_probe=me.is_probe,
            ),
            by=me,
            campaign_id=me.campaign_id,
        )  # fmt: skip
        found = self._due(me)[:limit] if self._may_claim(me) else []
        gone = {row["id"]: row for row in found if row["client_id"] not in self.before.clients}
        expected = {id_: "unknown" if row["in_doubt"] else "excluded" for id_, row in gone.items()}
        granted = [row["id"] for row in found if row["id"] not in gone]
        self.expect(expected | dict.fromkeys(granted, "sending"))
        assert [claim.id for claim in claims] == granted
        for claim in claims:
            self._note_claim(me, claim)

    def _may_claim(self, me: Worker) -> bool:
        campaign, terms = self.before.campaigns[me.campaign_id], me.terms
        gateway = self.before.gateways[campaign["gateway"]]
        is_paced = gateway["messages_per_second"] is not None or campaign["messages_per_second"] is not None
        return (
            campaign["status"] == "running"
            and campaign["is_open"]
            and not campaign["audience_stale"]
            and me.token in self.before.live
            and terms.gateway == gateway["name"]
            and (terms.is_paced or not is_paced)
            and terms.local_hours == self.before.hours(me.campaign_id)
            and (gateway["breaker_state"] == "closed" or (me.is_probe and gateway["breaker_state"] == "half_open"))
        )

    def _due(self, me: Worker) -> list[dict[str, Any]]:
        at, hours = self.before.campaigns[me.campaign_id]["at"], self.before.hours(me.campaign_id)
        due = []
        for row in self.before.of(me.campaign_id, me.batch):
            client = self.before.clients.get(row["client_id"])
            waits = row["not_before"] and row["not_before"] > at
            if hours and client:  # a zone that the task has not looked at yet is closed to it
                zone = client["timezone"]
                waits = waits or zone not in (me.zones or {}) or not hours.is_open(zone, at)
            if row["state"] == "pending" and not waits:
                due.append(row)
        return due

    def _note_claim(self, me: Worker, claim: messages.Claim) -> None:
        row, campaign = self.ledger.messages[claim.id], self.before.campaigns[me.campaign_id]
        for post in self.posts[claim.id]:
            assert post.word == "untaken" or post.is_waived, f"posted again, unasked: {self.tell(claim.id)}"
        assert self.followed[me.campaign_id] == (campaign["filter_tags"], campaign["filter_operator_codes"])
        assert row["client_id"] in self.admitted[me.campaign_id], f"left out by the filter: {self.tell(claim.id)}"
        assert (row["token"], row["attempts"], row["revision"]) == (me.token, claim.attempts, campaign["revision"])
        assert claim.text == campaign["text"]
        post = Post(claim.id, me.token, claim.attempts)
        self.posts[claim.id].append(post)
        self.counted[claim.id] += 1
        me.held.append(post)

    @act(
        6,
        has_claims,
        pick=PICK,
        words=SPEECH,
        wait_s=st.sampled_from([0.0, 0.0, 60.0]),
        again=st.booleans(),
    )
    def record(self, pick: int, words: list[str], wait_s: float, again: bool) -> None:
        """What a task has to say of some of its claims, soon or late. `again`: it did not hear that it was written."""
        holders = [worker for worker in self.workers if worker.held]
        self._record(holders[pick % len(holders)], pick, words, wait_s, again=again)

    def _record(self, me: Worker, pick: int, words: list[str], wait_s: float = 0.0, *, again: bool = False) -> None:
        token = me.held[pick % len(me.held)].token
        spoken = list(zip([post for post in me.held if post.token == token], words, strict=False))
        outcomes = [self._outcome(post, word, wait_s) for post, word in spoken]
        campaign_id = self.ledger.messages[spoken[0][0].message_id]["campaign_id"]
        counted = self.do(
            "record", lambda c: messages.record(c, campaign_id, token, outcomes), by=me, campaign_id=campaign_id
        )
        expected = {}
        for (post, word), outcome in zip(spoken, outcomes, strict=True):
            me.held.remove(post)
            if state := self._settled(self.before.messages[post.message_id], token, outcome):
                expected[post.message_id] = state
                self._note_word(post, word, outcome, state)
        assert counted == len(expected)
        self.expect({id_: state for id_, state in expected.items() if self.before.messages[id_]["state"] != state})
        if again:
            assert self.do("record again", lambda c: messages.record(c, campaign_id, token, outcomes), by=me) == 0

    def _outcome(self, post: Post, word: str, wait_s: float) -> Outcome:
        state, reason, burn = WORDS[word]
        waits = wait_s if state in ("pending", "unknown") else None
        return Outcome(post.message_id, post.attempt, state, reason, age_s=0.1, wait_s=waits, burn=burn)

    def _settled(self, row: dict[str, Any], token: int, outcome: Outcome) -> str | None:
        """The state that an outcome makes of a row; None where it comes too late to change it."""
        campaign = self.before.campaigns[row["campaign_id"]]
        if (row["token"], row["attempts"]) != (token, outcome.attempt):
            return None
        if outcome.state in ("sent", "failed"):
            return outcome.state if row["state"] in ("sending", "unknown", "pending") else None
        if row["state"] != "sending":
            return None
        if campaign["status"] == "cancelled":
            in_doubt = outcome.state == "unknown" or row["in_doubt"]
            return "unknown" if in_doubt else "cancelled"
        return "pending" if campaign["on_doubt"] == "resend" else outcome.state

    def _note_word(self, post: Post, word: str, outcome: Outcome, state: str) -> None:
        post.word = {"pending": "untaken", "unknown": "doubt"}.get(outcome.state, outcome.state)
        post.is_waived = post.word == "doubt" and state == "pending"
        self.counted[post.message_id] -= not outcome.burn
        if word != "sent":
            self.evidence[post.message_id].append((outcome.attempt, state, outcome.reason))

    @act(3, has_tasks, pick=PICK, knows=st.integers(0, 4))
    def return_unposted(self, pick: int, knows: int) -> None:
        """A task knows of a few that it holds: the answer to its claims was lost, and it posted none of the others."""
        me = self.seat(pick)
        mine = [post for post in me.held if post.token == me.token]
        known, lost = mine[:knows], mine[knows:]
        self.do(
            "return",
            lambda c: messages.return_unposted(c, me.campaign_id, me.token, me.batch, [p.message_id for p in known]),
            by=me,
            campaign_id=me.campaign_id,
        )
        expected, is_cancelled = {}, self.before.campaigns[me.campaign_id]["status"] == "cancelled"
        for post in lost:
            me.held.remove(post)
            row = self.before.messages[post.message_id]
            if (row["state"], row["token"]) == ("sending", me.token):
                expected[row["id"]] = "pending" if not is_cancelled else "unknown" if row["in_doubt"] else "cancelled"
                self.posts[row["id"]].remove(post)
                self.counted[row["id"]] -= 1
        self.expect(expected)

    @act(2, has_tasks, pick=PICK, leave=st.sampled_from([messages.release_lease, messages.end_lease]))
    def leave(self, pick: int, leave: Callable[[db.Connection, int], None]) -> None:
        me = self.seat(pick)
        self.do("leave", lambda c: leave(c, me.token), by=me)
        assert me.token not in self.ledger.live

    # -- upkeep

    @act(4, campaign_id=CAMPAIGN, pick=PICK, forgets=st.booleans())
    def recover(self, campaign_id: int, pick: int, forgets: bool) -> None:
        if not (found := self.pick_batch(campaign_id, pick)):
            return
        number, batch = found
        self.do(
            "recover",
            lambda c: (
                runs.recover(c, campaign_id, number) if forgets else messages.recover_claims(c, campaign_id, batch)
            ),
            campaign_id=campaign_id,
        )
        self._expect_recovered(campaign_id, batch)

    def _expect_recovered(self, campaign_id: int, batch: Batch | None) -> None:
        expected = self._recovered(campaign_id, batch)
        self._note_recovered(expected)
        self.expect(expected)

    def _recovered(self, campaign_id: int, batch: Batch | None = None) -> dict[int, str]:
        campaign = self.before.campaigns[campaign_id]
        state = "pending" if campaign["on_doubt"] == "resend" and campaign["status"] != "cancelled" else "unknown"
        dead = [row for row in self.before.of(campaign_id, batch) if row["token"] not in self.before.live]
        return {row["id"]: state for row in dead if row["state"] == "sending"}

    def _note_recovered(self, recovered: dict[int, str]) -> None:
        for id_, state in recovered.items():
            post = self.posts[id_][-1]
            post.word, post.is_waived = "doubt", state == "pending"
            self.evidence[id_].append((post.attempt, state, "task_died"))

    @act(1, campaign_id=CAMPAIGN)
    def wake(self, campaign_id: int) -> None:
        self.do("wake", lambda c: runs.wake(c, campaign_id))
        old, new = self.before.campaigns[campaign_id], self.ledger.campaigns[campaign_id]
        assert (new["wake_at"] != old["wake_at"]) == (old["status"] in ("scheduled", "running") and not old["is_over"])

    # -- time

    @act(4, worker=st.none() | WORKER)
    def let_leases_run_out(self, worker: int | None) -> None:
        token = None if worker is None else self.workers[worker].token
        statement = "UPDATE leases SET expires_at = now() WHERE token = %(token)s OR %(token)s::bigint IS NULL"
        self.do("time", lambda c: c.execute(statement, {"token": token}))

    @act(2, campaign_id=CAMPAIGN)
    def let_the_window_pass(self, campaign_id: int) -> None:
        statement = (
            "UPDATE campaigns SET sending_start = sending_start - interval '50 hours',"
            " sending_stop = clock_timestamp() - interval '1 second' WHERE id = %s AND sending_stop > now()"
        )
        self.do("time", lambda c: c.execute(statement, (campaign_id,)))

    @act(2, has_waits)
    def let_retries_become_due(self) -> None:
        self.do(
            "wait",
            lambda c: c.execute(
                "UPDATE messages SET not_before = now() - interval '1 second' WHERE state = 'pending'"
                " AND not_before > now() AND reason IS DISTINCT FROM 'local_hours'"
            ),
        )

    # -- people

    @act(
        4,
        campaign_id=CAMPAIGN,
        button=st.sampled_from(["resume", "pause", "resume", "pause", "resume", "pause", "resume", "cancel"]),
    )
    def press(self, campaign_id: int, button: str) -> None:
        result = self.do(button, lambda c: getattr(campaigns, button)(c, campaign_id, actor=ACTOR))
        old, new = self.before.campaigns[campaign_id], self.ledger.campaigns[campaign_id]
        before, opened = old["status"], "running" if old["opened_at"] else "scheduled"
        to = {"pause": "paused", "cancel": "cancelled", "resume": opened}[button]
        done = before == to or (button == "resume" and before in ("scheduled", "running"))
        refused = before in OVER or (button == "resume" and old["is_over"] and before == "paused")
        assert isinstance(result, Conflict) == (refused and not done)
        assert new["status"] == (before if done or refused else to)
        self.decided[(button, campaign_id, None)] += not done and not refused

    @act(6, campaign_id=CAMPAIGN, edits=st.lists(EDITS, min_size=1, max_size=3))
    def edit(self, campaign_id: int, edits: list[tuple[str, Any]]) -> None:
        changes = changes_of(edits)
        result = self.do(
            "edit", lambda c: campaigns.edit(c, campaign_id, actor=ACTOR, **changes), campaign_id=campaign_id
        )
        old, new = self.before.campaigns[campaign_id], self.ledger.campaigns[campaign_id]
        if isinstance(result, MailingError):
            assert isinstance(result, InvalidInput) or old["status"] in OVER
            return
        self.decided[("edit", campaign_id, None)] += 1
        assert old["status"] != "cancelled"
        hours = ("local_from", "local_to")
        reopens = new["sending_stop"] > old["sending_stop"] or any(new[end] != old[end] for end in hours)
        filter_ = (new["filter_tags"], new["filter_operator_codes"])
        must_match = new["refiltered"] and filter_ == (old["filter_tags"], old["filter_operator_codes"])
        assert new["refiltered"] or not old["opened_at"] or self.followed[campaign_id] == filter_
        expected = {}
        for row in self.before.of(campaign_id) if reopens and not new["is_over"] else ():
            if row["state"] == "expired":
                is_wanted = not must_match or self.before.matches(campaign_id, row["client_id"])
                expected[row["id"]] = "pending" if is_wanted else "excluded"
                if is_wanted and must_match:
                    self._admit(row["id"])
        self.expect(expected)
        is_left_behind = bool(new["opened_at"]) and self.followed[campaign_id] != filter_
        assert not is_left_behind or new["audience_stale"], "a filter was edited that the audience will not follow"
        is_to_run = "pending" in self.changed.values() or new["audience_stale"]
        assert not (is_to_run and not new["is_over"]) or new["status"] != "finished", "it has something to do again"

    @act(4, has_doubts, pick=PICK, verdict=st.sampled_from(verdicts.VERDICTS))
    def settle(self, pick: int, verdict: str) -> None:
        """A person's word on one message, most often on one that is waiting for it."""
        unknown = [id_ for id_, row in self.ledger.messages.items() if row["state"] == "unknown" or pick > 25]
        id_ = unknown[pick % len(unknown)]
        result = self.do("settle", lambda c: verdicts.settle(c, id_, verdict, actor=ACTOR))
        row = self.before.messages[id_]
        may = row["state"] == "unknown" and self._may_settle(row["campaign_id"], verdict)
        assert isinstance(result, Conflict) == (not may)
        self._expect_verdict([id_] if may else [], verdict)

    @act(
        2,
        has_doubts,
        campaign_id=CAMPAIGN,
        verdict=st.sampled_from(verdicts.VERDICTS),
        reason=st.sampled_from([None, "task_died"]),
    )
    def settle_all(self, campaign_id: int, verdict: str, reason: str | None) -> None:
        result = self.do(
            "settle",
            lambda c: verdicts.settle_all(c, campaign_id, verdict, actor=ACTOR, reason=reason),
            campaign_id=campaign_id,
        )
        unknown = [row for row in self.before.of(campaign_id) if row["state"] == "unknown"]
        ids = [row["id"] for row in unknown if reason in (None, row["reason"])]
        may = self._may_settle(campaign_id, verdict) or not ids
        assert result == len(ids) if may else isinstance(result, Conflict)
        self._expect_verdict(ids if may else [], verdict)

    def _may_settle(self, campaign_id: int, verdict: str) -> bool:
        campaign = self.before.campaigns[campaign_id]
        return verdict != "send_again" or (campaign["status"] != "cancelled" and campaign["is_open"])

    def _expect_verdict(self, ids: list[int], verdict: str) -> None:
        state = {"send_again": "pending", "assume_sent": "sent", "give_up": "failed"}[verdict]
        self.expect(dict.fromkeys(ids, state))
        for id_ in ids:
            campaign_id = self.ledger.messages[id_]["campaign_id"]
            self.decided[(verdict, campaign_id, id_)] += 1
            if verdict == "send_again":
                assert self.ledger.campaigns[campaign_id]["status"] in ("running", "paused")
                self._admit(id_)  # whatever the filter says by now
                for post in self.posts[id_]:
                    post.is_waived = True

    @act(2, campaign_id=CAMPAIGN, n=PICK, is_sensible=st.sampled_from([True, True, False]))
    def enrol(self, campaign_id: int, n: int, is_sensible: bool) -> None:
        """A person adds a client; mostly one who is not there and may be."""
        campaign, there = self.ledger.campaigns[campaign_id], {row["client_id"] for row in self.ledger.of(campaign_id)}
        fit = [id_ for id_ in self.ledger.clients if id_ not in there and self.ledger.matches(campaign_id, id_)]
        ids = fit if fit and is_sensible else [*sorted(self.ledger.clients), 1_000]
        client_id = ids[n % len(ids)]
        result = self.do(
            "enrol", lambda c: enrolment.enrol(c, campaign_id, client_id, actor=ACTOR), campaign_id=campaign_id
        )
        self.expect({})
        if not (client_id in fit and campaign["opened_at"] and self._sends(campaign)):
            assert isinstance(result, MailingError)
            return
        assert self.ledger.messages.keys() - self.before.messages.keys() == {result}
        assert self.ledger.messages[result]["client_id"] == client_id
        is_woken = self.ledger.campaigns[campaign_id]["wake_at"] != campaign["wake_at"]
        assert is_woken == campaign["is_open"], "a window that was moved has a run of its own"
        self.decided[("enrol", campaign_id, result)] += 1

    def _sends(self, campaign: dict[str, Any]) -> bool:
        return campaign["status"] in ("running", "paused") and not campaign["is_over"]

    @act(2, has_messages, pick=PICK, hours=st.sampled_from([None, 0.1, 0.1, 0.4, 0.9, -1.0, 50.0]))
    def postpone(self, pick: int, hours: float | None) -> None:
        pending = [id_ for id_, row in self.ledger.messages.items() if row["state"] == "pending" or pick > 25]
        if not pending:
            return
        id_, at = pending[pick % len(pending)], None if hours is None else now() + hours * HOUR
        result = self.do("postpone", lambda c: enrolment.postpone(c, id_, at, actor=ACTOR))
        self.expect({})
        row = self.before.messages[id_]
        campaign = self.before.campaigns[row["campaign_id"]]
        if row["state"] != "pending" or not self._sends(campaign):
            assert isinstance(result, Conflict)
        elif not self._can_be_sent_after(at, campaign, row):
            assert isinstance(result, InvalidInput)
        else:
            assert result is None
            new = self.ledger.messages[id_]
            assert (new["not_before"], new["reason"]) == (at, at and "postponed")
            self.decided[("postpone", campaign["id"], id_)] += 1

    def _can_be_sent_after(self, at: Any, campaign: dict[str, Any], row: dict[str, Any]) -> bool:
        hours, client = self.before.hours(campaign["id"]), self.before.clients.get(row["client_id"])
        return at is None or (
            campaign["sending_start"] <= at < campaign["sending_stop"]
            and not (hours and client and hours.span(client["timezone"], at).opens_at >= campaign["sending_stop"])
        )

    @act(1, has_messages, pick=PICK)
    def remove(self, pick: int) -> None:
        fit = [id_ for id_, row in self.ledger.messages.items() if self._is_untried(row) or pick > 20]
        if not fit:
            return
        id_ = fit[pick % len(fit)]
        result = self.do("remove", lambda c: enrolment.remove(c, id_, actor=ACTOR))
        self.expect({})
        row = self.before.messages[id_]
        campaign = self.before.campaigns[row["campaign_id"]]
        joins_again = campaign["audience"] == "live" and self._sends(campaign)
        joins_again = joins_again and self.before.matches(campaign["id"], row["client_id"])
        may = self._is_untried(row) and not joins_again
        assert isinstance(result, Conflict) == (not may)
        assert self.gone == ({id_} if may else set())
        if may:
            assert all(post.word == "untaken" for post in self.posts[id_]), self.tell(id_)
            self.decided[("remove", campaign["id"], id_)] += 1

    def _is_untried(self, row: dict[str, Any]) -> bool:
        return row["state"] in ("pending", *UNTOUCHED) and row["attempts"] == 0 and not self.evidence[row["id"]]

    @act(2, has_ends, campaign_id=CAMPAIGN, which=st.sampled_from([("failed",), ("unknown",), ("unknown", "failed")]))
    def resend(self, campaign_id: int, which: tuple[str, ...]) -> None:
        result = self.do(
            "resend", lambda c: verdicts.resend(c, campaign_id, which, actor=ACTOR), campaign_id=campaign_id
        )
        rows = [row for row in self.before.of(campaign_id) if row["state"] in which]
        if rows and not self._may_settle(campaign_id, "send_again"):
            assert isinstance(result, Conflict)
            return
        counts = Counter(row["state"] for row in rows)
        assert result == {state: counts[state] for state in which}
        self.expect({row["id"]: "pending" for row in rows})
        assert not rows or self.ledger.campaigns[campaign_id]["status"] in ("running", "paused")
        for row in rows:
            self.decided[("resend", campaign_id, row["id"])] += 1
            self._admit(row["id"])
            for post in self.posts[row["id"]]:
                post.is_waived = True

    @act(3, n=PICK, act=st.sampled_from(["add", "delete", "retag"]))
    def change_clients(self, n: int, act: str) -> None:
        ids = sorted(self.ledger.clients)
        if act == "add" or not ids:
            self.do("clients", lambda c: self._insert_client(c, n))
        elif act == "delete":
            self.do("clients", lambda c: c.execute("DELETE FROM clients WHERE id = %s", (ids[n % len(ids)],)))
        else:
            toggle = (
                "WITH gone AS (DELETE FROM client_tags WHERE client_id = %(id)s RETURNING tag_id)"
                " INSERT INTO client_tags SELECT %(id)s, id FROM tags WHERE id NOT IN (SELECT tag_id FROM gone)"
            )
            self.do("clients", lambda c: c.execute(toggle, {"id": ids[n % len(ids)]}))

    # -- the gateway

    @act(
        2,
        has_tasks,
        pick=PICK,
        settled=st.booleans(),
        failures=st.sampled_from([0, 0, 1, 9, 10]),
        refused=st.booleans(),
    )
    def report(self, pick: int, settled: bool, failures: int, refused: bool) -> None:
        """What a task met; more often the one that probes."""
        me, met = next((worker for worker in self.workers if worker.is_probe), self.seat(pick)), Report()
        if settled:
            met.settled()
        for _ in range(failures):
            met.failed("http_401" if refused else "http_503", None, refused)
        name = me.terms.gateway
        self.do("report", lambda c: gateways.report(c, name, met, is_probe=me.is_probe), by=me)
        old, new = self.before.gateways[name], self.ledger.gateways[name]
        in_a_row = failures + (0 if settled else old["breaker_failures"])
        state = old["breaker_state"]
        if state == "closed" and failures and (in_a_row >= TOLERANCE or refused):
            state = "open"
        elif state == "half_open" and me.is_probe and (failures or settled):
            state = "open" if failures else "closed"
        assert new["breaker_state"] == state
        me.is_probe = me.is_probe and state == "half_open"

    @act(
        2,
        has_open_breaker,
        pick=PICK,
        is_time=st.sampled_from([True, True, False]),
    )
    def take_probe(self, pick: int, is_time: bool) -> None:
        me = self.seat(pick)
        if is_time:
            self.observer.execute("UPDATE gateways SET breaker_probe_at = now() WHERE breaker_state <> 'closed'")
            self.ledger = Ledger.look(self.observer)
        taken = self.do("probe", lambda c: gateways.take_probe(c, me.terms.gateway), by=me)
        old = self.before.gateways[me.terms.gateway]
        assert taken == (old["breaker_state"] != "closed" and is_time or self._is_probe_due(old))
        me.is_probe = me.is_probe or taken

    def _is_probe_due(self, gateway: dict[str, Any]) -> bool:
        return gateway["breaker_state"] != "closed" and gateway["breaker_probe_at"] <= self.before.campaigns[1]["at"]

    @act(1, has_probe)
    def return_probe(self) -> None:
        me = next(worker for worker in self.workers if worker.is_probe)
        self.do("probe", lambda c: gateways.return_probe(c, me.terms.gateway), by=me)
        me.is_probe = False

    @act(1, rate=st.sampled_from([None, None, 10.0]))
    def limit(self, rate: float | None) -> None:
        self.do("limit", lambda c: gateways.change(c, "default", actor=ACTOR, messages_per_second=rate))
        self.decided[("change_gateway", 0, None)] += 1

    # -- what holds at every moment

    def _check_promises(self) -> None:
        self._each_client_has_one_message_per_campaign_and_the_states_add_up()
        self._a_finished_campaign_has_nothing_left_to_do()
        self._every_end_has_its_reason_and_no_doubt_is_hidden()
        self._attempts_are_counted_and_each_that_was_not_good_left_its_evidence()
        self._every_decision_is_in_the_audit_log()
        assert recount.differences(self.observer) == []

    def _each_client_has_one_message_per_campaign_and_the_states_add_up(self) -> None:
        rows = self.ledger.messages.values()
        assert len({(row["campaign_id"], row["client_id"]) for row in rows}) == len(rows)
        for campaign_id, statistics in self.ledger.statistics.items():
            counts = Counter(row["state"] for row in self.ledger.of(campaign_id))
            batches = self.ledger.batches[campaign_id]
            assert sum(batch.size for batch in batches) == counts.total()
            assert all(len(self.ledger.of(campaign_id, batch)) == batch.size for batch in batches)
            progress = campaigns.progress(self.observer, campaign_id)
            assert statistics["audience"] == progress.audience == counts.total()
            assert progress.counts == {"audience": counts.total()} | counts
            assert all(statistics[state] == getattr(progress, state) for state in MESSAGE_STATES)

    def _a_finished_campaign_has_nothing_left_to_do(self) -> None:
        for id_, campaign in self.ledger.campaigns.items():
            if campaign["status"] == "finished":
                left = [row for row in self.ledger.of(id_) if row["state"] in ("pending", "sending")]
                assert not left, [self.tell(row["id"]) for row in left]
                assert campaign["finished_at"]

    def _every_end_has_its_reason_and_no_doubt_is_hidden(self) -> None:
        for id_, row in self.ledger.messages.items():
            assert row["reason"] or row["state"] in ("pending", "sending", "sent")
            assert row["in_doubt"] or row["state"] != "unknown", self.tell(id_)
            if row["state"] in UNTOUCHED:
                assert all(post.word in ("untaken", "failed") for post in self.posts[id_]), self.tell(id_)

    def _attempts_are_counted_and_each_that_was_not_good_left_its_evidence(self) -> None:
        left = defaultdict(list)
        for row in self.ledger.attempts:
            left[row["message_id"]].append((row["attempt"], row["state"], row["reason"]))
        for id_, row in self.ledger.messages.items():
            assert row["attempts"] == self.counted[id_] >= 0, self.tell(id_)
            assert left[id_] == self.evidence[id_], self.tell(id_)

    def _every_decision_is_in_the_audit_log(self) -> None:
        kept = Counter((row["action"], row["campaign_id"] or 0, row["message_id"]) for row in self.ledger.audit)
        assert kept == +self.decided


@pytest.fixture(scope="module")
def model_url(server, migrated) -> Iterator[str]:
    """A database for all the examples: each empties it, which is ten times faster than a clone."""
    name = f"test_{os.getpid()}_model"
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {migrated} OWNER mailing")
        yield server.url(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def connect(url: str) -> db.Connection:
    return psycopg.connect(url, autocommit=True, row_factory=dict_row, options="-c timezone=UTC")


@pytest.fixture
def model_connections(model_url) -> Iterator[list[db.Connection]]:
    """An observer's, a person's, and three workers'."""
    opened = [connect(model_url) for _ in range(5)]
    yield opened
    for connection in opened:
        connection.close()


def test_the_ledger_keeps_its_promises_whatever_is_done_in_whatever_order(model_connections):
    run_state_machine_as_test(
        lambda: LedgerMachine(model_connections),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


# All at once: what a model of single acts cannot see


FOR_S = 5.0
CLIENTS = 300


class Rival(threading.Thread):
    """A task that claims, speaks, falls silent and recovers as the dice say, beside others on the same batch."""

    def __init__(self, connection: db.Connection, campaign_id: int, seed: int) -> None:
        super().__init__()
        self.connection, self.campaign_id, self.dice = connection, campaign_id, random.Random(seed)
        self.batch = messages.batch(connection, campaign_id, 1)
        self.posts: list[Post] = []
        self.held: list[Post] = []
        self.deadlocks = 0
        self.error: BaseException | None = None
        self._begin()

    def run(self) -> None:
        until = time.monotonic() + FOR_S
        acts = {
            self._claim: 5, self._speak: 8, self._return: 1, self._renew: 2, self._let_run_out: 1, self._recover: 2,
            self._settle: 3,
        }  # fmt: skip
        try:
            while time.monotonic() < until:
                [act] = self.dice.choices(list(acts), list(acts.values()))
                try:
                    act()
                except psycopg.errors.DeadlockDetected:
                    self.deadlocks += 1
        except BaseException as error:
            self.error = error

    def _begin(self) -> None:
        messages.plan_for_sending(self.connection)  # as a task does
        self.token = messages.take_lease(self.connection, self.campaign_id, 1, self.name)
        self.terms = messages.renew_lease(self.connection, self.token)

    def _claim(self) -> None:
        claims = messages.claim(
            self.connection, self.campaign_id, self.token, self.terms,
            from_id=self.batch.first_id, last_id=self.batch.last_id, limit=self.dice.randint(1, 12),
        )  # fmt: skip
        posts = [Post(claim.id, self.token, claim.attempts) for claim in claims]
        self.posts += posts
        self.held += posts

    def _speak(self) -> None:
        """About some of what it holds, of one lease, in any order."""
        if not self.held:
            return
        token = self.dice.choice(self.held).token
        spoken = [post for post in self.held if post.token == token]
        spoken = self.dice.sample(spoken, self.dice.randint(1, len(spoken)))
        for post in spoken:
            post.word = self.dice.choice(["sent", "failed", "pending", "pending", "pending", "pending", "unknown"])
        outcomes = [
            Outcome(post.message_id, post.attempt, post.word, f"word of {token}", wait_s=0.0) for post in spoken
        ]
        messages.record(self.connection, self.campaign_id, token, outcomes)
        self.held = [post for post in self.held if post not in spoken]

    def _return(self) -> None:
        """All but what it knows of was never posted, if the ledger still says that it is this task's."""
        mine = [post for post in self.held if post.token == self.token]
        known, lost = mine[: len(mine) // 2], mine[len(mine) // 2 :]
        with self.connection.transaction():
            still = self.connection.execute(
                "SELECT id FROM messages WHERE token = %s AND state = 'sending' ORDER BY id FOR UPDATE", (self.token,)
            ).fetchall()
            messages.return_unposted(
                self.connection, self.campaign_id, self.token, self.batch, [post.message_id for post in known]
            )
        returned = [post for post in lost if post.message_id in {row["id"] for row in still}]
        self.posts = [post for post in self.posts if post not in returned]
        self.held = [post for post in self.held if post not in lost]

    def _renew(self) -> None:
        if messages.renew_lease(self.connection, self.token) is None:
            self._begin()

    def _let_run_out(self) -> None:
        self.connection.execute("UPDATE leases SET expires_at = now() WHERE token = %s", (self.token,))

    def _recover(self) -> None:
        messages.recover_claims(self.connection, self.campaign_id, self.batch)

    def _settle(self) -> None:
        unknown = self.connection.execute("SELECT id FROM messages WHERE state = 'unknown'").fetchall()
        if unknown:
            with suppress(Conflict):  # somebody was faster
                verdicts.settle(self.connection, self.dice.choice(unknown)["id"], "send_again", actor=ACTOR)


@pytest.fixture
def fought(model_connections) -> tuple[list[Rival], Ledger]:
    """Four rivals after five seconds, their leases recovered, and what they left."""
    observer, *others = model_connections
    observer.execute(EMPTY)
    campaign_id, _ = an_open_campaign(observer, clients=CLIENTS)
    rivals = [Rival(connection, campaign_id, seed) for seed, connection in enumerate(others)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()
    assert [rival.error for rival in rivals] == [None] * len(rivals)
    observer.execute("UPDATE leases SET expires_at = now()")
    runs.recover(observer, campaign_id, 1)
    return rivals, Ledger.look(observer)


def test_workers_who_fall_over_each_other_send_nothing_twice(fought):
    rivals, ledger = fought
    posts = defaultdict(list)
    for post in (post for rival in rivals for post in rival.posts):
        posts[post.message_id].append(post)
    evidence = Counter((row["message_id"], row["attempt"], row["state"], row["reason"]) for row in ledger.attempts)
    again = Counter(row["message_id"] for row in ledger.audit)
    assert sum(again.values()) > 10 < sum(len(each) > 1 for each in posts.values()), "they hardly met"

    assert set(evidence.values()) == {1}
    for id_, row in ledger.messages.items():
        told = f"{row}: {posts[id_]}"
        assert sorted(post.attempt for post in posts[id_]) == list(range(1, row["attempts"] + 1)), told
        believed = {post for post in posts[id_] if evidence[id_, post.attempt, post.word, f"word of {post.token}"]}
        maybe_taken = [post for post in posts[id_] if post.word != "pending" or post not in believed]
        assert len(maybe_taken) <= 1 + again[id_], told
        assert row["state"] != "sending", told
        if row["state"] == "failed":
            assert any(post.word == "failed" for post in believed), told
        if row["state"] == "sent":
            assert [post.word for post in posts[id_] if post.token == row["token"]][-1] == "sent", told


def test_workers_who_fall_over_each_other_lose_no_time_in_deadlocks(fought):
    rivals, _ = fought
    assert sum(rival.deadlocks for rival in rivals) == 0
