-- The roles of whoever reads reports. Safe to run again. `mailing.cli migrate` runs it; where its role may not create roles, an
-- administrator runs it once (psql -f include/sql/roles.sql), and then migrates again.
--
-- mailing_reader logs in for a BI tool or a person. Nobody can before it has a password: \password mailing_reader
-- mailing_reader_pii is for granting to people's own roles: its members see whole phone numbers.
DO $$
DECLARE
    setting text;
BEGIN
    IF to_regrole('mailing_reader_pii') IS NULL THEN
        CREATE ROLE mailing_reader_pii NOLOGIN;
    END IF;
    IF to_regrole('mailing_reader') IS NULL THEN
        CREATE ROLE mailing_reader;
    END IF;
    -- Only at first: what an administrator sets later stays.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'mailing_reader' AND rolconfig IS NULL) THEN
        ALTER ROLE mailing_reader LOGIN CONNECTION LIMIT 20;
        -- What a reader that forgot itself costs those who send: a slot, and rows that cannot be vacuumed meanwhile. These are
        -- defaults, which a reader can undo; the number of connections it cannot (docs/reporting.md).
        FOREACH setting IN ARRAY ARRAY[
            'default_transaction_read_only = on', 'statement_timeout = ''60s''', 'lock_timeout = ''5s''',
            'idle_in_transaction_session_timeout = ''60s''', 'search_path = reporting'
        ] || CASE WHEN current_setting('server_version_num')::int >= 170000
                  THEN ARRAY['transaction_timeout = ''10min'''] ELSE '{}' END
        LOOP
            EXECUTE 'ALTER ROLE mailing_reader SET ' || setting;
        END LOOP;
    END IF;
END $$;
