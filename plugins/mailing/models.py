"""The tables. One definition, from which the migrations and the admin pages follow.

All times are `timestamptz`. Rules that must hold whoever writes (API, page, psql) are constraints here, or triggers in
the first migration (revisions, known tags); rules that need the world around a row are in the noun's module.
"""

from __future__ import annotations

from datetime import datetime, time
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Time,
    UniqueConstraint,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

CAMPAIGN_STATUSES = ("scheduled", "running", "paused", "cancelled", "finished")
MESSAGE_STATES = ("pending", "sending", "sent", "failed", "unknown", "expired", "cancelled", "excluded")
OUTCOMES = ("open", *MESSAGE_STATES[2:])
"""States as counts by time and operator code have them: what is pending or sending is open."""

WEBHOOK_STATES = ("pending", "delivered", "given_up", "off")
BREAKER_STATES = ("closed", "open", "half_open")
MAX_TEXT = 255
MAX_REPLY = 1024
DEFAULT_GATEWAY = "default"
IS_A_LIMIT = "messages_per_second > 0 AND messages_per_second < 'NaN'"  # NaN is above every number to PostgreSQL


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class Base(DeclarativeBase):
    """Names every constraint, so that a migration can find it and an error can say which rule was broken."""

    metadata = MetaData(
        naming_convention={
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        }
    )
    type_annotation_map = {str: Text, datetime: DateTime(timezone=True), int: Integer}


class Timezone(Base):
    """One row per IANA zone that both PostgreSQL and Python know; filled by `mailing.cli migrate`."""

    __tablename__ = "timezones"

    name: Mapped[str] = mapped_column(primary_key=True)


client_tags = Table(
    "client_tags",
    Base.metadata,
    Column("client_id", ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id", ondelete="CASCADE"), primary_key=True),
    # Serves select_audience: all clients of a tag.
    Index(None, "tag_id", "client_id"),
)


class Tag(Base):
    """A label on clients, matched by filters.

    Never three digits: that is what an operator code looks like, and an operator code counts as a tag that is
    computed from the phone number.
    """

    __tablename__ = "tags"
    __table_args__ = (
        # The collation, not the server's locale, says what a letter is: any script's.
        CheckConstraint(r"name COLLATE pg_c_utf8 ~ '^[[:alpha:]0-9_-]{1,200}$'", name="name_form"),
        CheckConstraint(r"name !~ '^[0-9]{3}$'", name="not_an_operator_code"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Client(Base):
    """Somebody who can be messaged: a phone number of the form 7XXXXXXXXXX."""

    __tablename__ = "clients"
    __table_args__ = (
        CheckConstraint("phone_number ~ '^7[0-9]{10}$'", name="phone_number_form"),
        Index(None, "mobile_operator_code", "id"),  # select_audience by operator code; a page of those who have it
        Index(None, "timezone", "id"),  # a page of those who live there
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    phone_number: Mapped[str] = mapped_column(unique=True)
    mobile_operator_code: Mapped[str] = mapped_column(Computed("substr(phone_number, 2, 3)", persisted=True))
    timezone: Mapped[str] = mapped_column(ForeignKey("timezones.name"), server_default="UTC")
    created: Mapped[datetime] = mapped_column(server_default=func.now())

    tags: Mapped[list[Tag]] = relationship(secondary=client_tags, order_by="Tag.name")


class Gateway(Base):
    """A service that takes messages, reached through an Airflow HTTP connection whose password is the bearer token."""

    __tablename__ = "gateways"
    __table_args__ = (
        CheckConstraint("endpoint ~ '^/[^ ]*[{]id[}]'", name="endpoint_form"),
        CheckConstraint(IS_A_LIMIT, name="messages_per_second_positive"),
        CheckConstraint("requests_in_flight BETWEEN 1 AND 10000", name="requests_in_flight_range"),
        CheckConstraint("timeout_s > 0 AND timeout_s <= 300", name="timeout_s_range"),
        CheckConstraint(_one_of("breaker_state", BREAKER_STATES), name="breaker_state_known"),
        CheckConstraint("breaker_state = 'closed' OR breaker_probe_at IS NOT NULL", name="breaker_has_probe"),
        CheckConstraint("token_warning_s >= 0", name="token_warning_s_range"),
    )

    name: Mapped[str] = mapped_column(primary_key=True)
    connection_id: Mapped[str] = mapped_column(server_default="mailing_gateway")
    endpoint: Mapped[str] = mapped_column(server_default="/v1/send/{id}")
    messages_per_second: Mapped[Decimal | None] = mapped_column(Numeric(12, 3))  # NULL: as fast as it takes them
    requests_in_flight: Mapped[int] = mapped_column(server_default="100")  # by all tasks together
    timeout_s: Mapped[Decimal] = mapped_column(Numeric(6, 3), server_default="10")
    repeat_codes: Mapped[list[int]] = mapped_column(ARRAY(Integer), server_default="{}")  # reply codes to try again
    # The breaker, shared by all tasks. Open: nobody claims; half open: one task probes.
    breaker_state: Mapped[str] = mapped_column(server_default="closed")
    breaker_reason: Mapped[str | None]  # of the last failure: a reason of messages
    breaker_failures: Mapped[int] = mapped_column(server_default="0")  # in a row, of all tasks
    breaker_probes: Mapped[int] = mapped_column(server_default="0")  # that failed since it opened
    breaker_changed_at: Mapped[datetime | None]
    breaker_probe_at: Mapped[datetime | None]  # open: the next probe; half open: when its task is given up
    last_slot_at: Mapped[datetime | None]  # the throttle: the last slot that was booked
    token_expires_at: Mapped[datetime | None]  # as the connection's JWT says
    token_warning_s: Mapped[int] = mapped_column(server_default="86400")  # how long before that to warn


class Campaign(Base):
    """A text for an audience, sent while `sending_start <= now < sending_stop`.

    The filter stands in the row itself, so that no reader can ever see a campaign without its filter (and message
    everybody). `filter_tags`: a client needs all of them; `filter_operator_codes`: any one of them; both apply.
    """

    __tablename__ = "campaigns"
    __table_args__ = (
        CheckConstraint(f"char_length(text) BETWEEN 1 AND {MAX_TEXT}", name="text_length"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
        CheckConstraint("sending_stop > sending_start", name="window_order"),
        CheckConstraint(
            # PostgreSQL knows infinity and the year 200000; neither Airflow nor Python can hold them.
            "sending_start >= '2000-01-01 00:00Z' AND sending_stop < '9999-01-01 00:00Z'",
            name="window_range",
        ),
        CheckConstraint(
            r"array_to_string(filter_operator_codes, ',', '?') ~ '^([0-9]{3}(,[0-9]{3})*)?$'",
            name="filter_operator_codes_form",
        ),
        CheckConstraint(_one_of("audience", ("snapshot", "live")), name="audience_known"),
        CheckConstraint(_one_of("on_doubt", ("hold", "resend")), name="on_doubt_known"),
        CheckConstraint("(local_from IS NULL) = (local_to IS NULL)", name="local_hours_both_ends"),
        CheckConstraint("local_from <> local_to", name="local_hours_not_empty"),
        CheckConstraint("local_from < '24:00' AND local_to < '24:00'", name="local_hours_in_a_day"),
        CheckConstraint(IS_A_LIMIT, name="messages_per_second_positive"),
        CheckConstraint(_one_of("status", CAMPAIGN_STATUSES), name="status_known"),
        CheckConstraint("(status IN ('cancelled', 'finished')) = (finished_at IS NOT NULL)", name="ended_has_time"),
        # overdue_campaigns: those that are finished are nearly all, and never are.
        Index(None, "status", "sending_stop", postgresql_where=text("status <> 'finished'")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    name: Mapped[str | None]
    text: Mapped[str]
    sending_start: Mapped[datetime]
    sending_stop: Mapped[datetime] = mapped_column(index=True)  # which rows become DAGs; what is overdue
    filter_tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    filter_operator_codes: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    audience: Mapped[str] = mapped_column(server_default="snapshot")
    on_doubt: Mapped[str] = mapped_column(server_default="hold")
    local_from: Mapped[time | None] = mapped_column(Time)
    local_to: Mapped[time | None] = mapped_column(Time)
    messages_per_second: Mapped[Decimal | None] = mapped_column(Numeric(12, 3))  # NULL: the gateway's limit alone
    gateway: Mapped[str] = mapped_column(
        ForeignKey("gateways.name", onupdate="CASCADE"), server_default=DEFAULT_GATEWAY
    )
    status: Mapped[str] = mapped_column(server_default="scheduled")
    revision: Mapped[int] = mapped_column(server_default="1")  # kept by a trigger
    wake_at: Mapped[datetime | None]  # when its DAG is to run once more (extended, reopened, widened)
    audience_stale: Mapped[bool] = mapped_column(server_default=false())  # the filter changed: nothing is claimed until
    # the audience followed; set by a trigger
    refiltered: Mapped[bool] = mapped_column(server_default=false())  # the filter was edited since the campaign opened:
    # what had expired and comes back must match it; set by a trigger
    mapped_at: Mapped[datetime | None]  # for which moment the latest scheduled run stands that named what is to be sent
    opened_at: Mapped[datetime | None]  # its audience was selected
    finished_at: Mapped[datetime | None]  # or cancelled; kept by a trigger where plain SQL cancels
    archived_at: Mapped[datetime | None]  # its messages were dropped, its counts are kept; nothing changes any more
    created: Mapped[datetime] = mapped_column(server_default=func.now())
    updated: Mapped[datetime] = mapped_column(server_default=func.now())  # kept by a trigger


class CampaignRevision(Base):
    """One row per campaign and revision: what its text, filter and window were. Written by a trigger only."""

    __tablename__ = "campaign_revisions"

    campaign_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("campaigns.id", ondelete="CASCADE"), primary_key=True
    )
    revision: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    filter_tags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    filter_operator_codes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    sending_start: Mapped[datetime]
    sending_stop: Mapped[datetime]
    created: Mapped[datetime] = mapped_column(server_default=func.now())


class Batch(Base):
    """One row per batch of a campaign: the range of message ids that one mapped task sends.

    Ranges of campaigns that open at the same moment may interleave, so a reader tests the campaign as well.
    """

    __tablename__ = "batches"
    __table_args__ = (
        CheckConstraint("first_id <= last_id", name="range_order"),
        CheckConstraint("size >= 0", name="size_not_negative"),  # 0: all of it was removed by hand
    )

    campaign_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("campaigns.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)  # from 1
    first_id: Mapped[int] = mapped_column(BigInteger)
    last_id: Mapped[int] = mapped_column(BigInteger)
    size: Mapped[int]
    is_late: Mapped[bool] = mapped_column(server_default=false())  # latecomers: follow_audience sends it


class Lease(Base):
    """One row per task that is sending now. Its key is the fencing token that the messages it claims carry.

    A lease belongs to the task, not to each message: staying alive is one small UPDATE however many are in flight.
    """

    __tablename__ = "leases"

    token: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    campaign_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("campaigns.id", ondelete="CASCADE"), index=True)
    batch: Mapped[int]
    holder: Mapped[str]  # host:pid, for people
    taken_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class LeaseReturn(Base):
    """How many leases of dead tasks were ever recovered: the sum of a few rows, so that writers need not wait."""

    __tablename__ = "lease_returns"

    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    count: Mapped[int] = mapped_column(BigInteger)


class Message(Base):
    """The ledger: one row per campaign and client. Its id is the gateway's `msgId` on every attempt.

    Partitioned by ranges of campaigns (`LedgerPart`): old ones are dropped at once. No index touches a column that
    changes while sending, and half of each page is left free (in the partitions), so that the two updates of a message
    (claim, outcome) stay inside its page (HOT): see docs/decisions/0002-ledger-layout.md.

    What its statements change is added to the counts below by triggers, in the same transaction. No foreign key to
    campaigns: a trigger keeps those that have messages from being deleted.
    """

    __tablename__ = "messages"
    __table_args__ = (
        # One message per client and campaign, for good; also all lists by campaign, and (skip scan) by client.
        UniqueConstraint("campaign_id", "client_id"),
        CheckConstraint(_one_of("state", MESSAGE_STATES), name="state_known"),
        CheckConstraint("state IN ('pending', 'sending', 'sent') OR reason IS NOT NULL", name="end_has_reason"),
        CheckConstraint("(state = 'sent') = (sent_at IS NOT NULL)", name="sent_has_time"),
        CheckConstraint("state NOT IN ('sending', 'sent') OR (token IS NOT NULL AND revision IS NOT NULL)",
                        name="claimed_has_token"),
        {"postgresql_partition_by": "RANGE (campaign_id)"},
    )  # fmt: skip

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    campaign_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    # No foreign key: the ledger outlives the client. One that is gone before the claim ends as excluded.
    client_id: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[datetime] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    state: Mapped[str] = mapped_column(server_default="pending")
    reason: Mapped[str | None]
    token: Mapped[int | None] = mapped_column(BigInteger)  # the lease that claimed it last
    revision: Mapped[int | None]  # of the campaign, as it was claimed
    in_doubt: Mapped[bool] = mapped_column(server_default=false())  # an attempt may have been taken, unsaid
    claimed_at: Mapped[datetime | None]  # when the last request began: it is posted as soon as it is claimed
    not_before: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    mobile_operator_code: Mapped[str | None]  # of the client when it was chosen; NULL: before 0006, and it was gone


class Attempt(Base):
    """One row per attempt that failed or is in doubt: the evidence. An attempt that went well leaves none."""

    __tablename__ = "attempts"
    __table_args__ = (
        CheckConstraint(f"char_length(reply) <= {MAX_REPLY}", name="reply_length"),
        # All attempts of a campaign, or of one message of it.
        Index(None, "campaign_id", "message_id"),
        {"postgresql_partition_by": "RANGE (campaign_id)"},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    campaign_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    message_id: Mapped[int] = mapped_column(BigInteger)
    attempt: Mapped[int] = mapped_column(SmallInteger)  # from 1; one that was not the message's fault is not counted
    state: Mapped[str]  # what it made of the message
    reason: Mapped[str]
    ended_at: Mapped[datetime]
    duration_ms: Mapped[int | None]  # None: nobody knows, its task died
    status_code: Mapped[int | None] = mapped_column(SmallInteger)
    error: Mapped[str | None]
    reply: Mapped[str | None]


class LedgerPart(Base):
    """One row per partition of messages and attempts: messages_<first_campaign_id> and attempts_<first_campaign_id>.

    Made by the function ledger_part, before a campaign's first message is written.
    """

    __tablename__ = "ledger_parts"
    __table_args__ = (CheckConstraint("first_campaign_id < end_campaign_id", name="range_order"),)

    first_campaign_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    end_campaign_id: Mapped[int] = mapped_column(BigInteger)  # the first one that does not go into it
    created: Mapped[datetime] = mapped_column(server_default=func.now())
    dropped_at: Mapped[datetime | None]


class _Count(Base):
    """Some messages of a campaign, counted by a trigger in the transaction that changes them.

    A figure is the sum over its shards, of which single ones may be negative. Writers of one moment have a shard each,
    so that nobody waits for anybody; `runs.fold_counts` puts them together in shard 0.
    """

    __abstract__ = True

    campaign_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)


class StateCount(_Count):
    """One row per campaign, state and reason (and shard)."""

    __tablename__ = "state_counts"
    __table_args__ = ({"postgresql_with": {"fillfactor": 50}},)

    state: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(primary_key=True)  # '': none
    count: Mapped[int] = mapped_column(BigInteger)
    first_claimed_at: Mapped[datetime | None]  # of all that ever counted here
    first_sent_at: Mapped[datetime | None]
    last_sent_at: Mapped[datetime | None]


class TimeCount(_Count):
    """One row per campaign, outcome and span of time in which the request began that brought it (and shard)."""

    __tablename__ = "time_counts"
    __table_args__ = (
        Index(None, "campaign_id", postgresql_where=text("shard > 0")),  # campaigns_to_fold
        {"postgresql_with": {"fillfactor": 50}},
    )

    since: Mapped[datetime] = mapped_column(primary_key=True)  # 5 s, once folded up to 15 min; -infinity: no request
    outcome: Mapped[str] = mapped_column(primary_key=True)  # a state; open: pending or sending
    count: Mapped[int] = mapped_column(BigInteger)


class OperatorCount(_Count):
    """One row per campaign, operator code and outcome (and shard)."""

    __tablename__ = "operator_counts"
    __table_args__ = ({"postgresql_with": {"fillfactor": 50}},)

    mobile_operator_code: Mapped[str] = mapped_column(primary_key=True)  # '': not known
    outcome: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class Throttle(Base):
    """One row per campaign that is limited, or sends through a limited gateway: its place in the queue for slots."""

    __tablename__ = "throttles"

    campaign_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("campaigns.id", ondelete="CASCADE"), primary_key=True
    )
    last_slot_at: Mapped[datetime | None]  # by its own limit
    share_slot_at: Mapped[datetime | None]  # by its share of the gateway's limit
    hungry_at: Mapped[datetime | None]  # when it last wanted more than the gateway's limit let it have


class Launch(Base):
    """One row per key under which a pipeline launched a campaign: kept as long as the campaign is."""

    __tablename__ = "launches"
    __table_args__ = (CheckConstraint("char_length(key) BETWEEN 1 AND 1000", name="key_length"),)

    key: Mapped[str] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("campaigns.id", ondelete="CASCADE"), index=True)
    request: Mapped[dict[str, Any]] = mapped_column(JSONB)  # what was asked, without what was left to its default
    created: Mapped[datetime] = mapped_column(server_default=func.now())


class Finish(Base):
    """One row per time that a campaign ended (finished, or cancelled with nothing left in flight), as it ended.

    Written with the end itself, so none is lost. What is still to be told of it is in the row, too: to Airflow's
    assets, and to the webhook.
    """

    __tablename__ = "finishes"
    __table_args__ = (
        UniqueConstraint("campaign_id", "finished_at"),
        CheckConstraint(_one_of("webhook_state", WEBHOOK_STATES), name="webhook_state_known"),
        Index(None, "announced_at", postgresql_where=text("NOT is_confirmed")),  # finishes_to_confirm
        Index(None, "webhook_at", postgresql_where=text("webhook_state = 'pending'")),  # webhooks_due
    )

    campaign_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("campaigns.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)  # from 1; one that is opened again finishes again
    finished_at: Mapped[datetime]
    figures: Mapped[dict[str, Any]] = mapped_column(JSONB)  # what the events hold
    # Of what expired, was cancelled or excluded, how many by state and reason: {"expired window": 5}.
    not_requested: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    created: Mapped[datetime] = mapped_column(server_default=func.now())
    announced_at: Mapped[datetime | None]  # when a task took it upon itself to emit the asset events
    is_confirmed: Mapped[bool] = mapped_column(server_default=false())  # the events were seen in Airflow
    webhook_state: Mapped[str] = mapped_column(server_default="pending")  # off: there was no webhook
    webhook_attempts: Mapped[int] = mapped_column(server_default="0")
    webhook_at: Mapped[datetime] = mapped_column(
        server_default=func.now()
    )  # pending: of the next try; else of the last
    webhook_error: Mapped[str | None]  # of the last attempt that failed


class AuditEntry(Base):
    """One row per decision of a person (or a program for them): who did what, and when."""

    __tablename__ = "audit_log"
    __table_args__ = (
        CheckConstraint("char_length(actor) BETWEEN 1 AND 200", name="actor_length"),
        Index(None, "campaign_id", "message_id"),  # the history of one message of a campaign
        Index(None, "campaign_id", "at"),  # trail: a campaign's decisions, each of one moment
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    actor: Mapped[str]
    action: Mapped[str]  # pause, resume, edit; enrol, postpone, remove, resend; send_again; change_gateway; and so on
    campaign_id: Mapped[int | None] = mapped_column(BigInteger)
    message_id: Mapped[int | None] = mapped_column(BigInteger)
    detail: Mapped[dict[str, Any] | None] = mapped_column(JSONB)


class IdempotencyKey(Base):
    """One row per request that may be repeated: what was asked, and what was answered."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (CheckConstraint("char_length(key) BETWEEN 1 AND 200", name="key_length"),)

    actor: Mapped[str] = mapped_column(primary_key=True)
    route: Mapped[str] = mapped_column(primary_key=True)  # method and path
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]  # SHA-256 of the body
    status: Mapped[int | None] = mapped_column(SmallInteger)  # NULL until the work is done
    response: Mapped[Any | None] = mapped_column(JSONB)
    created: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)  # forget_keys


class TestSend(Base):
    """One row per message that was sent to try a campaign out: to given clients, and outside all statistics.

    Its id is drawn from the same sequence as those of messages, so that the gateway never sees one twice.
    """

    __tablename__ = "test_sends"
    __table_args__ = (
        CheckConstraint(_one_of("state", ("sending", "sent", "failed", "unknown")), name="state_known"),
        CheckConstraint(f"char_length(reply) <= {MAX_REPLY}", name="reply_length"),
    )

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    campaign_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("campaigns.id", ondelete="CASCADE"), index=True)
    client_id: Mapped[int] = mapped_column(BigInteger)
    actor: Mapped[str]
    created: Mapped[datetime] = mapped_column(server_default=func.now())
    state: Mapped[str] = mapped_column(server_default="sending")  # it stays so only if the server died meanwhile
    reason: Mapped[str | None]
    status_code: Mapped[int | None] = mapped_column(SmallInteger)
    error: Mapped[str | None]
    reply: Mapped[str | None]
