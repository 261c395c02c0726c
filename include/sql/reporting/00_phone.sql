-- What the views stand on. A phone number is shown to those who are granted mailing_reader_pii, and masked for all others.
CREATE OR REPLACE FUNCTION reporting.phone(phone_number text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN to_regrole('mailing_reader_pii') IS NOT NULL
                     AND pg_has_role(current_user, to_regrole('mailing_reader_pii')::oid, 'USAGE')
                THEN phone_number
                ELSE substr(phone_number, 1, 4) || '*****' || right(phone_number, 2) END
$$;

COMMENT ON FUNCTION reporting.phone(text) IS
    'A phone number as its reader may see it: whole for members of mailing_reader_pii, else 7XXX*****XX.';
