"""The tables, and the triggers that keep revisions and known tags true whoever writes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TRIGGERS = (
    """
    CREATE FUNCTION campaigns_before_write() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        unknown text[];
    BEGIN
        NEW.filter_tags := ARRAY(SELECT DISTINCT unnest(NEW.filter_tags) ORDER BY 1);
        NEW.filter_operator_codes := ARRAY(SELECT DISTINCT unnest(NEW.filter_operator_codes) ORDER BY 1);
        NEW.updated := now();
        IF TG_OP = 'INSERT' THEN
            NEW.revision := 1;
        ELSIF (NEW.text, NEW.filter_tags, NEW.filter_operator_codes, NEW.sending_start, NEW.sending_stop)
            IS DISTINCT FROM (OLD.text, OLD.filter_tags, OLD.filter_operator_codes, OLD.sending_start, OLD.sending_stop)
        THEN
            NEW.revision := OLD.revision + 1;
        ELSE
            NEW.revision := OLD.revision;
        END IF;
        IF TG_OP = 'INSERT' OR NEW.filter_tags IS DISTINCT FROM OLD.filter_tags THEN
            -- FOR KEY SHARE: a tag that a filter is about to name cannot be deleted or renamed meanwhile.
            PERFORM FROM tags WHERE name = ANY (NEW.filter_tags) FOR KEY SHARE;
            unknown := ARRAY(SELECT unnest(NEW.filter_tags) EXCEPT SELECT name FROM tags ORDER BY 1);
            IF cardinality(unknown) > 0 THEN
                RAISE EXCEPTION 'campaign %: filter_tags: no such tag: %',
                    NEW.id, array_to_string(unknown, ', ', 'NULL')
                    USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'campaigns_filter_tags_known',
                          HINT = 'Operator codes go into filter_operator_codes.';
            END IF;
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER campaigns_before_write BEFORE INSERT OR UPDATE ON campaigns
        FOR EACH ROW EXECUTE FUNCTION campaigns_before_write()
    """,
    """
    CREATE FUNCTION campaigns_keep_revision() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO campaign_revisions
            (campaign_id, revision, text, filter_tags, filter_operator_codes, sending_start, sending_stop)
        VALUES (NEW.id, NEW.revision, NEW.text, NEW.filter_tags, NEW.filter_operator_codes,
                NEW.sending_start, NEW.sending_stop)
        ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER campaigns_keep_revision AFTER INSERT OR UPDATE ON campaigns
        FOR EACH ROW EXECUTE FUNCTION campaigns_keep_revision()
    """,
    """
    CREATE FUNCTION tags_guard_filters() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        campaign bigint;
    BEGIN
        SELECT id INTO campaign FROM campaigns
        WHERE OLD.name = ANY (filter_tags) AND status IN ('scheduled', 'running', 'paused') LIMIT 1;
        IF campaign IS NOT NULL THEN
            RAISE EXCEPTION 'tag %: the filter of campaign % names it, so it cannot be renamed or deleted',
                OLD.name, campaign
                USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'campaigns_filter_tags_known';
        END IF;
        RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    END $$
    """,
    """
    CREATE TRIGGER tags_guard_deletion BEFORE DELETE ON tags
        FOR EACH ROW EXECUTE FUNCTION tags_guard_filters()
    """,
    """
    CREATE TRIGGER tags_guard_renaming BEFORE UPDATE ON tags
        FOR EACH ROW WHEN (NEW.name IS DISTINCT FROM OLD.name) EXECUTE FUNCTION tags_guard_filters()
    """,
)


def upgrade() -> None:
    op.create_table(
        "gateways",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("connection_id", sa.Text(), server_default="mailing_gateway", nullable=False),
        sa.Column("endpoint", sa.Text(), server_default="/v1/send/{id}", nullable=False),
        sa.Column("messages_per_second", sa.Numeric(precision=12, scale=3), nullable=True),
        sa.Column("requests_in_flight", sa.Integer(), server_default="100", nullable=False),
        sa.Column("timeout_s", sa.Numeric(precision=6, scale=3), server_default="10", nullable=False),
        sa.Column("repeat_codes", sa.ARRAY(sa.Integer()), server_default="{}", nullable=False),
        sa.Column("breaker_state", sa.Text(), server_default="closed", nullable=False),
        sa.Column("breaker_changed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("breaker_probe_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "breaker_state IN ('closed', 'open', 'half_open')", name=op.f("gateways_breaker_state_known_check")
        ),
        sa.CheckConstraint("endpoint ~ '^/[^ ]*[{]id[}]'", name=op.f("gateways_endpoint_form_check")),
        sa.CheckConstraint("messages_per_second > 0", name=op.f("gateways_messages_per_second_positive_check")),
        sa.CheckConstraint(
            "requests_in_flight BETWEEN 1 AND 10000", name=op.f("gateways_requests_in_flight_range_check")
        ),
        sa.CheckConstraint("timeout_s > 0 AND timeout_s <= 300", name=op.f("gateways_timeout_s_range_check")),
        sa.PrimaryKeyConstraint("name", name=op.f("gateways_pkey")),
    )
    op.create_table(
        "tags",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.CheckConstraint("name !~ '^[0-9]{3}$'", name=op.f("tags_not_an_operator_code_check")),
        sa.CheckConstraint("name COLLATE pg_c_utf8 ~ '^[[:alpha:]0-9_-]{1,200}$'", name=op.f("tags_name_form_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("tags_pkey")),
        sa.UniqueConstraint("name", name=op.f("tags_name_key")),
    )
    op.create_table(
        "timezones",
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("timezones_pkey")),
    )
    op.create_table(
        "campaigns",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("sending_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sending_stop", sa.DateTime(timezone=True), nullable=False),
        sa.Column("filter_tags", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("filter_operator_codes", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("audience", sa.Text(), server_default="snapshot", nullable=False),
        sa.Column("on_doubt", sa.Text(), server_default="hold", nullable=False),
        sa.Column("local_from", sa.Time(), nullable=True),
        sa.Column("local_to", sa.Time(), nullable=True),
        sa.Column("messages_per_second", sa.Numeric(precision=12, scale=3), nullable=True),
        sa.Column("gateway", sa.Text(), server_default="default", nullable=False),
        sa.Column("status", sa.Text(), server_default="scheduled", nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("wake_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "array_to_string(filter_operator_codes, ',', '?') ~ '^([0-9]{3}(,[0-9]{3})*)?$'",
            name=op.f("campaigns_filter_operator_codes_form_check"),
        ),
        sa.CheckConstraint("audience IN ('snapshot', 'live')", name=op.f("campaigns_audience_known_check")),
        sa.CheckConstraint("on_doubt IN ('hold', 'resend')", name=op.f("campaigns_on_doubt_known_check")),
        sa.CheckConstraint(
            "status <> 'finished' OR finished_at IS NOT NULL", name=op.f("campaigns_finished_has_time_check")
        ),
        sa.CheckConstraint(
            "status IN ('scheduled', 'running', 'paused', 'cancelled', 'finished')",
            name=op.f("campaigns_status_known_check"),
        ),
        sa.CheckConstraint(
            "(local_from IS NULL) = (local_to IS NULL)", name=op.f("campaigns_local_hours_both_ends_check")
        ),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("campaigns_name_length_check")),
        sa.CheckConstraint("char_length(text) BETWEEN 1 AND 255", name=op.f("campaigns_text_length_check")),
        sa.CheckConstraint(
            "sending_start >= '2000-01-01 00:00Z' AND sending_stop < '9999-01-01 00:00Z'",
            name=op.f("campaigns_window_range_check"),
        ),
        sa.CheckConstraint("local_from <> local_to", name=op.f("campaigns_local_hours_not_empty_check")),
        sa.CheckConstraint("messages_per_second > 0", name=op.f("campaigns_messages_per_second_positive_check")),
        sa.CheckConstraint("sending_stop > sending_start", name=op.f("campaigns_window_order_check")),
        sa.ForeignKeyConstraint(
            ["gateway"], ["gateways.name"], name=op.f("campaigns_gateway_fkey"), onupdate="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("campaigns_pkey")),
    )
    op.create_index(op.f("campaigns_sending_stop_idx"), "campaigns", ["sending_stop"], unique=False)
    op.create_table(
        "clients",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("phone_number", sa.Text(), nullable=False),
        sa.Column(
            "mobile_operator_code", sa.Text(), sa.Computed("substr(phone_number, 2, 3)", persisted=True), nullable=False
        ),
        sa.Column("timezone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("phone_number ~ '^7[0-9]{10}$'", name=op.f("clients_phone_number_form_check")),
        sa.ForeignKeyConstraint(["timezone"], ["timezones.name"], name=op.f("clients_timezone_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("clients_pkey")),
        sa.UniqueConstraint("phone_number", name=op.f("clients_phone_number_key")),
    )
    op.create_index(op.f("clients_mobile_operator_code_idx"), "clients", ["mobile_operator_code"], unique=False)
    op.create_table(
        "batches",
        sa.Column("campaign_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("first_id", sa.BigInteger(), nullable=False),
        sa.Column("last_id", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.CheckConstraint("first_id <= last_id", name=op.f("batches_range_order_check")),
        sa.CheckConstraint("size > 0", name=op.f("batches_size_positive_check")),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name=op.f("batches_campaign_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("campaign_id", "number", name=op.f("batches_pkey")),
    )
    op.create_table(
        "campaign_revisions",
        sa.Column("campaign_id", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("filter_tags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("filter_operator_codes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("sending_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sending_stop", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name=op.f("campaign_revisions_campaign_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("campaign_id", "revision", name=op.f("campaign_revisions_pkey")),
    )
    op.create_table(
        "client_tags",
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("tag_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.id"], name=op.f("client_tags_client_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["tag_id"], ["tags.id"], name=op.f("client_tags_tag_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("client_id", "tag_id", name=op.f("client_tags_pkey")),
    )
    op.create_index(op.f("client_tags_tag_id_client_id_idx"), "client_tags", ["tag_id", "client_id"], unique=False)
    op.create_table(
        "leases",
        sa.Column("token", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("campaign_id", sa.BigInteger(), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name=op.f("leases_campaign_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token", name=op.f("leases_pkey")),
    )
    op.create_index(op.f("leases_campaign_id_idx"), "leases", ["campaign_id"], unique=False)
    op.create_table(
        "messages",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("campaign_id", sa.BigInteger(), nullable=False),
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("token", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=True),
        sa.Column("in_doubt", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("status_code", sa.SmallInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("reply", sa.Text(), nullable=True),
        sa.CheckConstraint("(state = 'sent') = (sent_at IS NOT NULL)", name=op.f("messages_sent_has_time_check")),
        sa.CheckConstraint(
            "state IN ('pending', 'sending', 'sent') OR reason IS NOT NULL", name=op.f("messages_end_has_reason_check")
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'sending', 'sent', 'failed', 'unknown', 'expired', 'cancelled', 'excluded')",
            name=op.f("messages_state_known_check"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('sending', 'sent') OR (token IS NOT NULL AND revision IS NOT NULL)",
            name=op.f("messages_claimed_has_token_check"),
        ),
        sa.CheckConstraint("char_length(reply) <= 1024", name=op.f("messages_reply_length_check")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("messages_campaign_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("messages_pkey")),
        sa.UniqueConstraint("campaign_id", "client_id", name=op.f("messages_campaign_id_client_id_key")),
        postgresql_with={"fillfactor": 50},
    )

    op.execute("INSERT INTO gateways (name) VALUES ('default')")
    for statement in TRIGGERS:
        op.execute(statement)


def downgrade() -> None:
    for function in ("tags_guard_filters", "campaigns_keep_revision", "campaigns_before_write"):
        op.execute(f"DROP FUNCTION {function}() CASCADE")
    op.drop_table("messages")
    op.drop_index(op.f("leases_campaign_id_idx"), table_name="leases")
    op.drop_table("leases")
    op.drop_index(op.f("client_tags_tag_id_client_id_idx"), table_name="client_tags")
    op.drop_table("client_tags")
    op.drop_table("campaign_revisions")
    op.drop_table("batches")
    op.drop_index(op.f("clients_mobile_operator_code_idx"), table_name="clients")
    op.drop_table("clients")
    op.drop_index(op.f("campaigns_sending_stop_idx"), table_name="campaigns")
    op.drop_table("campaigns")
    op.drop_table("timezones")
    op.drop_table("tags")
    op.drop_table("gateways")
