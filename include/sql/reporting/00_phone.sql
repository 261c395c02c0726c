-- What the views stand on. A phone number is shown to those who are granted mailing_reader_pii, and masked for all others.
CREATE OR REPLACE FUNCTION reporting.sees_phones() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT to_regrole('mailing_reader_pii') IS NOT NULL
           AND pg_has_role(current_user, to_regrole('mailing_reader_pii')::oid, 'USAGE')
$$;

CREATE OR REPLACE FUNCTION reporting.phone(phone_number text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN reporting.sees_phones() THEN phone_number
                ELSE substr(phone_number, 1, 4) || '*****' || right(phone_number, 2) END
$$;

-- What others wrote (a gateway's reply) may hold a phone number anywhere: as people write them, and as plain digits, of
-- which any ten in a row may be one. Other long numbers are masked with them.
CREATE OR REPLACE FUNCTION reporting.words(said text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN reporting.sees_phones() THEN said
                ELSE regexp_replace(
                         regexp_replace(
                             said,
                             '([78][-\s.(]{0,2}[0-9]{3})[-\s.)]{0,2}[0-9]{3}[-\s.]?[0-9]{2}[-\s.]?([0-9]{2})',
                             '\1*****\2', 'g'),
                         '([0-9]{3,4})[0-9]{5}([0-9]{2})', '\1*****\2', 'g') END
$$;

COMMENT ON FUNCTION reporting.sees_phones() IS 'Whether its caller is a member of mailing_reader_pii.';
COMMENT ON FUNCTION reporting.phone(text) IS
    'A phone number as its reader may see it: whole for members of mailing_reader_pii, else 7XXX*****XX.';
COMMENT ON FUNCTION reporting.words(text) IS
    'A text as its reader may see it: as it is for members of mailing_reader_pii, else with whatever may be a phone number in it as 7XXX*****XX.';
