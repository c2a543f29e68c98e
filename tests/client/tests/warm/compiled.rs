//! Compiled and planned state stays in a process: functions, saved plans, expressions in caches. It depends on the settings, roles and
//! names that were in force when it was made: those of the session, those that the job sets for a while, or those of a function.
//!
//! Expressions in a cache are folded there. `float8::text` can show that: PostgreSQL declares it immutable, yet it depends on
//! `extra_float_digits`, so `0.1 + 0.2` has 3 or 19 characters.

use harness::order::Step::{Admin, Connect, Job, Session};
use harness::order::{Order, Step, agree};

use crate::{alice, cleared, left, run_in, silent};

const SETUP: &str = r"
    SET check_function_bodies = off;
    CREATE ROLE alice LOGIN;
    CREATE ROLE bob;
    GRANT bob TO alice;
    GRANT pgbackground_role TO alice, bob;
    GRANT CREATE ON SCHEMA public TO alice;
    CREATE EXTENSION pg_trgm;

    CREATE FUNCTION width() RETURNS int IMMUTABLE LANGUAGE sql AS
        $$ SELECT length((0.1::float8 + 0.2::float8)::text) $$;

    CREATE TABLE ev (at timestamptz);
    INSERT INTO ev VALUES ('2023-12-31 22:00Z'), ('2024-01-01 02:00Z'), ('2024-01-01 08:00Z');
    CREATE FUNCTION since() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN (SELECT count(*) FROM ev WHERE at >= '2024-01-01 00:00'); END $$;
    CREATE FUNCTION since_in_sql() RETURNS text LANGUAGE sql AS
        $$ SELECT count(*)::text FROM ev WHERE at >= '2024-01-01 00:00' $$;
    CREATE FUNCTION midnight() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT timestamptz '2024-01-01 00:00' $$;
    CREATE FUNCTION since_inlined() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN (SELECT count(*) FROM ev WHERE at >= midnight()); END $$;
    CREATE FUNCTION since_by_cursor() RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE c CURSOR FOR SELECT count(*) FROM ev WHERE at >= '2024-01-01 00:00'; n int;
           BEGIN OPEN c; FETCH c INTO n; CLOSE c; RETURN n; END $$;
    CREATE FUNCTION since_by_query() RETURNS SETOF text LANGUAGE plpgsql AS
        $$ BEGIN RETURN QUERY SELECT count(*)::text FROM ev WHERE at >= '2024-01-01 00:00'; END $$;
    CREATE FUNCTION since_by_loop() RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE r record; n int := 0;
           BEGIN FOR r IN SELECT FROM ev WHERE at >= '2024-01-01 00:00' LOOP n := n + 1; END LOOP; RETURN n; END $$;
    CREATE FUNCTION since_any(kind anyelement) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN pg_typeof(kind)::text || (SELECT count(*) FROM ev WHERE at >= '2024-01-01 00:00'); END $$;
    CREATE PROCEDURE since_called(INOUT n text) LANGUAGE plpgsql AS
        $$ BEGIN n := (SELECT count(*) FROM ev WHERE at >= '2024-01-01 00:00'); END $$;
    CREATE FUNCTION since_by_call() RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE n text; BEGIN CALL since_called(n); RETURN n; END $$;
    CREATE FUNCTION since_in_tokyo() RETURNS text LANGUAGE plpgsql SET timezone = 'Asia/Tokyo' AS
        $$ BEGIN RETURN since() || since_inlined(); END $$;
    CREATE FUNCTION since_in_tokyo_for_a_while() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('timezone', 'Asia/Tokyo', true); RETURN since(); END $$;
    CREATE FUNCTION since_in_tokyo_and_error() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN SET LOCAL timezone = 'Asia/Tokyo'; PERFORM since(); RAISE division_by_zero;
           EXCEPTION WHEN OTHERS THEN RETURN current_setting('timezone'); END $$;
    CREATE VIEW since_seen AS SELECT since() AS n;
    CREATE FUNCTION is_now() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN (timestamptz 'now' = now())::text; END $$;

    CREATE FUNCTION month_of() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN extract(month FROM date '01/02/2024'); END $$;
    CREATE FUNCTION seconds_of() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN extract(epoch FROM interval '-1 2:03:04'); END $$;
    CREATE FUNCTION abbreviated() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN extract(epoch FROM timestamptz '2024-01-01 00:00 IST'); END $$;
    CREATE FUNCTION nulls_of() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN array_position('{1,NULL}'::text[], NULL); END $$;
    CREATE FUNCTION is_null(x int) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN coalesce((x = NULL)::text, 'unknown'); END $$;
    CREATE FUNCTION is_null_in_sql(x int) RETURNS text LANGUAGE sql AS
        $$ SELECT coalesce((x = NULL)::text, 'unknown') $$;
    CREATE FUNCTION backslashes() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN length('a\\b'); END $$;
    CREATE FUNCTION backslashes_declared() RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE x text := 'a\\b'; BEGIN RAISE NOTICE 'a\\b'; RETURN length(x); END $$;
    CREATE FUNCTION markup() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN xmlserialize(CONTENT '<a/>b'::xml AS text); END $$;
    CREATE FUNCTION digits() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN (0.1::float8 + 0.2::float8)::text; END $$;
    CREATE FUNCTION spelled() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN interval '1 day 2 hours'::text; END $$;
    CREATE FUNCTION identifier() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN quote_ident('a'); END $$;
    CREATE FUNCTION lexemes() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN to_tsvector('the running dogs')::text || ('dogs' @@ 'dog')::text; END $$;
    CREATE FUNCTION amount() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN '12.34'::money; END $$;
    CREATE FUNCTION bytes() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN '\x0a61'::bytea; END $$;
    CREATE FUNCTION day() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN date '2024-02-01'; END $$;
    CREATE FUNCTION failing() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN 1 / 0; END $$;
    CREATE TABLE unordered (n int);
    INSERT INTO unordered VALUES (3), (1), (2);
    CREATE INDEX ON unordered (n);
    CREATE FUNCTION in_order() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN (SELECT array_agg(n) FROM unordered WHERE n > 0); END $$;
    CREATE FUNCTION ambiguous() RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE n int := 5; BEGIN RETURN (SELECT n FROM (VALUES (7)) v (n)); END $$;
    CREATE FUNCTION shadowed() RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE n int := 5; BEGIN DECLARE n int := 6; BEGIN RETURN n; END; END $$;
    CREATE FUNCTION asserted() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN ASSERT false, 'not so'; RETURN 'passed'; END $$;
    CREATE FUNCTION of_a_setting() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT current_setting('app.tenant', true) $$;
    CREATE FUNCTION tenant() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN coalesce(of_a_setting(), 'none'); END $$;

    CREATE TABLE owned (tenant text, n int);
    INSERT INTO owned VALUES ('7', 7), ('8', 80), ('', 900);
    ALTER TABLE owned ENABLE ROW LEVEL SECURITY;
    CREATE POLICY by_tenant ON owned USING (tenant = current_setting('app.tenant', true));
    GRANT SELECT ON owned TO PUBLIC;
    CREATE FUNCTION owned_sum() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN coalesce((SELECT sum(n) FROM owned)::text, 'nothing'); END $$;
    CREATE TABLE owned_folded (tenant text, n int);
    INSERT INTO owned_folded SELECT * FROM owned;
    ALTER TABLE owned_folded ENABLE ROW LEVEL SECURITY;
    CREATE POLICY by_tenant ON owned_folded USING (tenant = of_a_setting());
    GRANT SELECT ON owned_folded TO PUBLIC;
    CREATE FUNCTION owned_folded_sum() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN coalesce((SELECT sum(n) FROM owned_folded)::text, 'nothing'); END $$;

    CREATE SCHEMA tenant_a;
    CREATE SCHEMA tenant_b;
    GRANT USAGE ON SCHEMA tenant_a, tenant_b TO PUBLIC;
    CREATE TABLE tenant_a.item (id int, name text);
    CREATE TABLE tenant_b.item (name text, price numeric, id int);
    INSERT INTO tenant_a.item VALUES (1, 'a');
    INSERT INTO tenant_b.item VALUES ('b', 2.5, 2);
    CREATE TYPE tenant_a.color AS ENUM ('red', 'green');
    CREATE TYPE tenant_b.color AS ENUM ('green', 'blue');
    CREATE DOMAIN tenant_a.short AS text CHECK (length(value) < 3);
    CREATE DOMAIN tenant_b.short AS text CHECK (length(value) < 9);
    CREATE FUNCTION tenant_a.who() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'a' $$;
    CREATE FUNCTION tenant_b.who() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'b' $$;
    CREATE OPERATOR tenant_a.&&& (FUNCTION = textcat, LEFTARG = text, RIGHTARG = text);
    CREATE FUNCTION tenant_b.other_way(text, text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT $2 || $1 $$;
    CREATE OPERATOR tenant_b.&&& (FUNCTION = tenant_b.other_way, LEFTARG = text, RIGHTARG = text);
    CREATE FUNCTION of_row() RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE r item%ROWTYPE; BEGIN SELECT * INTO r FROM item; RETURN r; END $$;
    CREATE FUNCTION of_named_row() RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE r item; BEGIN SELECT * INTO r FROM item; RETURN r; END $$;
    CREATE FUNCTION of_rows() RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE r item[]; BEGIN r := ARRAY(SELECT i FROM item i); RETURN r; END $$;
    CREATE FUNCTION of_column() RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE i item.id%TYPE := 1; c color; BEGIN c := 'green'; RETURN c > 'green' OR c = enum_first(c); END $$;
    CREATE FUNCTION of_enum(x text) RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE c color; BEGIN c := x; RETURN c; END $$;
    CREATE FUNCTION of_domain(x text) RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE d short; BEGIN d := x; RETURN d; END $$;
    CREATE FUNCTION of_cursor(x text) RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE c CURSOR (p short) FOR SELECT p; r text; BEGIN OPEN c(x); FETCH c INTO r; CLOSE c; RETURN r; END $$;
    CREATE FUNCTION of_function() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN who() || ('x' &&& 'y'); END $$;
    CREATE FUNCTION of_class() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN (SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
           WHERE c.oid = 'item'::regclass); END $$;
    CREATE FUNCTION of_type_in_sql() RETURNS text LANGUAGE sql AS $$ SELECT i::text || who() FROM item i $$;
    CREATE FUNCTION of_a_first() RETURNS text LANGUAGE plpgsql SET search_path = tenant_a, public AS
        $$ BEGIN RETURN of_row(); END $$;
    CREATE FUNCTION of_row_or_error() RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE r item%ROWTYPE; BEGIN SELECT * INTO r FROM item; RETURN r;
           EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
    CREATE FUNCTION of_b_first(x text) RETURNS text LANGUAGE plpgsql SET search_path = tenant_b, public AS
        $$ BEGIN RETURN of_domain(x); END $$;
    CREATE FUNCTION of_b_then_a(x text) RETURNS text LANGUAGE plpgsql SET search_path = tenant_b, public AS
        $$ BEGIN PERFORM set_config('search_path', 'tenant_a, public', true); RETURN of_domain(x); END $$;
    CREATE FUNCTION of_b_or(path text, x text) RETURNS text LANGUAGE plpgsql SET search_path = tenant_b, public AS
        $$ BEGIN PERFORM set_config('search_path', path, true); RETURN of_domain(x); END $$;
    CREATE FUNCTION path_is(path text) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN set_config('search_path', path, true); END $$;
    CREATE FUNCTION path_is_in_sql(path text) RETURNS text LANGUAGE sql AS
        $$ SELECT set_config('search_path', path, true) $$;
    CREATE FUNCTION act_as(name text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('role', name, true) $$;
    CREATE FUNCTION any_of_domain(kind anyelement, x text) RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE d short; BEGIN d := x; RETURN pg_typeof(kind)::text || d; END $$;
    CREATE FUNCTION any_of_b_first(x text) RETURNS text LANGUAGE plpgsql SET search_path = tenant_b, public AS
        $$ BEGIN RETURN any_of_domain(1::int, x); END $$;
    CREATE ROLE carol;
    CREATE ROLE dave;
    CREATE SCHEMA carol AUTHORIZATION carol;
    CREATE SCHEMA dave AUTHORIZATION dave;
    CREATE DOMAIN carol.own AS text CHECK (value <> 'abcdef');
    CREATE DOMAIN dave.own AS text;
    CREATE FUNCTION of_own(x text) RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE d own; BEGIN d := x; RETURN current_user || d; END $$;
    CREATE FUNCTION of_own_as_owner(x text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN RETURN of_own(x); END $$;
    GRANT CREATE ON SCHEMA public TO dave;
    ALTER FUNCTION of_own_as_owner OWNER TO dave;
    CREATE TABLE watched (n int);
    CREATE TABLE tenant_a.log (n int, seen text DEFAULT 'a');
    CREATE TABLE tenant_b.log (seen text DEFAULT 'b', n int);
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS
        $$ DECLARE l log%ROWTYPE; BEGIN l.n := NEW.n; l.seen := 'seen'; INSERT INTO log SELECT l.*; RETURN NEW; END $$;
    CREATE TRIGGER watch AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION watch();

    CREATE DOMAIN narrow AS text CHECK (length(value) < length((0.1::float8 + 0.2::float8)::text));
    CREATE FUNCTION narrow_in_few() RETURNS text LANGUAGE plpgsql SET extra_float_digits = 0 AS
        $$ BEGIN RETURN 'ab'::narrow; END $$;
    CREATE FUNCTION of_who() RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN who(); END $$;
    CREATE DOMAIN whose AS text CHECK (value = of_who());
    CREATE FUNCTION whose_of_a() RETURNS text LANGUAGE plpgsql SET search_path = tenant_a, public AS
        $$ BEGIN RETURN 'a'::whose; END $$;
    CREATE FUNCTION column_is() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN set_config('plpgsql.variable_conflict', 'use_column', true); END $$;
    CREATE FUNCTION ambiguous_within() RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE n int := 5; BEGIN RETURN (SELECT n FROM (VALUES (7)) v (n)); END $$;
    CREATE FUNCTION column_is_and_error() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN PERFORM column_is() || ambiguous_within(); RAISE division_by_zero;
           EXCEPTION WHEN division_by_zero THEN RETURN SQLSTATE; END $$;
    CREATE FUNCTION ambiguous_after() RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE n int := 5; BEGIN RETURN (SELECT n FROM (VALUES (7)) v (n)); END $$;
    CREATE FUNCTION column_is_for_itself() RETURNS text LANGUAGE plpgsql SET plpgsql.variable_conflict = use_variable AS
        $$ BEGIN RETURN column_is() || ambiguous_after(); END $$;
    CREATE FUNCTION variable_is() RETURNS text LANGUAGE plpgsql SET plpgsql.variable_conflict = use_variable AS
        $$ BEGIN RETURN ambiguous_after(); END $$;
    CREATE TABLE narrow_table (x narrow);
    CREATE TYPE narrow_pair AS (x narrow, n int);
    CREATE TABLE remainders (n int);
    CREATE UNIQUE INDEX remainder ON remainders ((n % length((0.1::float8 + 0.2::float8)::text)));
    CREATE TABLE below (n int);
    CREATE UNIQUE INDEX below_width ON below ((n - n)) WHERE n < length((0.1::float8 + 0.2::float8)::text);
    CREATE TABLE parted (n int) PARTITION BY LIST ((n % length((0.1::float8 + 0.2::float8)::text)));
    CREATE TABLE parted_0 PARTITION OF parted FOR VALUES IN (0);
    CREATE TABLE parted_more PARTITION OF parted DEFAULT;
    CREATE TABLE generated (n int, wide text GENERATED ALWAYS AS ((0.1::float8 + n)::text) STORED, CHECK (n < width()));
    CREATE TABLE referenced (x text PRIMARY KEY);
    INSERT INTO referenced VALUES ('0.3'), ('0.30000000000000004'), ('one'), ('two');
    CREATE TABLE referring (x text DEFAULT (0.1::float8 + 0.2::float8)::text REFERENCES referenced ON DELETE SET DEFAULT);
    CREATE VIEW widths AS SELECT (0.1::float8 + 0.2::float8)::text AS x;
    CREATE FUNCTION viewed() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT x FROM widths); END $$;
    CREATE FUNCTION digits_of(interval) RETURNS float8 IMMUTABLE LANGUAGE sql AS $$ SELECT width()::float8 $$;
    CREATE CAST (interval AS float8) WITH FUNCTION digits_of(interval);
    CREATE FUNCTION cast_to() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN (interval '1 day')::float8; END $$;
    CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE NOTICE '% % %', tg_tag, digits(), (0.1::float8 + 0.2::float8)::text; END $$;

    -- What only its owner may execute.
    CREATE FUNCTION secret() RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 'the secret'; END $$;
    CREATE FUNCTION secret_in_sql() RETURNS text STABLE LANGUAGE sql AS $$ SELECT 'the secret'::text $$;
    CREATE FUNCTION secret_rows() RETURNS SETOF text STABLE LANGUAGE sql AS $$ SELECT 'the secret'::text $$;
    REVOKE EXECUTE ON FUNCTION secret(), secret_in_sql(), secret_rows() FROM PUBLIC;
    CREATE FUNCTION reveal() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN secret(); END $$;
    CREATE FUNCTION reveal_in_sql() RETURNS text LANGUAGE sql AS $$ SELECT secret() $$;
    CREATE FUNCTION reveal_inlined() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN secret_in_sql(); END $$;
    CREATE FUNCTION reveal_rows() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN (SELECT string_agg(x, ',') FROM secret_rows() x); END $$;
    CREATE FUNCTION reveal_as_owner() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN RETURN reveal() || reveal_inlined() || reveal_rows(); END $$;
    CREATE DOMAIN guarded AS text CHECK (value <> secret());
    CREATE TABLE guarded_index (n int);
    CREATE INDEX ON guarded_index ((n + length(secret())));
    CREATE TABLE guarded_predicate (n int);
    CREATE INDEX ON guarded_predicate (n) WHERE n < length(secret());
    CREATE TABLE guarded_parts (n int) PARTITION BY RANGE ((n + length(secret())));
    CREATE TABLE guarded_part PARTITION OF guarded_parts DEFAULT;
    GRANT ALL ON guarded_index, guarded_predicate, guarded_parts TO PUBLIC;
    CREATE DOMAIN guarded_in_sql AS text CHECK (value <> secret_in_sql());
    CREATE FUNCTION guarded_as_owner() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN RETURN 'x'::guarded || 'x'::guarded_in_sql; END $$;
    CREATE TABLE told (n int);
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '%', secret(); RETURN NEW; END $$;
    CREATE TRIGGER tell BEFORE INSERT ON told FOR EACH ROW EXECUTE FUNCTION tell();
    GRANT ALL ON told TO PUBLIC;
    CREATE FUNCTION run_as_owner(statement text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN RETURN (SELECT state || coalesce(sqlstate, '') FROM pg_background_run(statement)); END $$;
    CREATE TABLE mine (owner name, n int);
    INSERT INTO mine VALUES ('postgres', 1), ('alice', 10), ('bob', 100);
    ALTER TABLE mine ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON mine USING (owner = current_user);
    GRANT SELECT ON mine TO alice, bob;
    CREATE FUNCTION me() RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN current_user; END $$;
    CREATE FUNCTION mine_sum() RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN coalesce((SELECT sum(n) FROM mine)::text, 'nothing') || me(); END $$;
";

fn run(orders: &[Order]) {
    run_in(SETUP, orders);
}

/// An order that sets standard_conforming_strings to off, which version 19 does not have any more.
fn strings(order: Order) -> Order {
    let version = harness::pg_config("version");
    let major: String = version.chars().filter(char::is_ascii_digit).take(2).collect();
    if major.parse::<u32>().is_ok_and(|major| major >= 19) {
        silent(order)
    } else {
        order
    }
}

/// The same job under one state of the session and then under another one.
macro_rules! then {
    ($name:expr, $first:expr, $job:expr, $second:expr) => {
        left($name, &[Session($first), Job($job), Session($second), Job($job)])
    };
}

/// A job that changes a setting for itself and resets it, then the job.
macro_rules! inside {
    ($name:expr, $before:expr, $job:expr) => {
        left($name, &[Job($before), Job($job)])
    };
}

const UTC: &str = "SET timezone = 'UTC'";
const NEW_YORK: &str = "SET timezone = 'America/New_York'";

#[test]
fn literals() {
    run(&[
        then!("timezone", UTC, "SELECT since()", NEW_YORK),
        silent(then!("timezone, in SQL", UTC, "SELECT since_in_sql()", NEW_YORK)),
        then!("timezone, inlined", UTC, "SELECT since_inlined()", NEW_YORK),
        then!("timezone, by a cursor", UTC, "SELECT since_by_cursor()", NEW_YORK),
        then!("timezone, by RETURN QUERY", UTC, "SELECT since_by_query()", NEW_YORK),
        then!("timezone, by a loop", UTC, "SELECT since_by_loop()", NEW_YORK),
        then!("timezone, polymorphic", UTC, "SELECT since_any(1)", NEW_YORK),
        then!("timezone, by CALL", UTC, "CALL since_called('')", NEW_YORK),
        then!(
            "timezone, by CALL in a function",
            UTC,
            "SELECT since_by_call()",
            NEW_YORK
        ),
        then!("timezone, by a view", UTC, "SELECT n FROM since_seen", NEW_YORK),
        silent(then!(
            "timezone, in a block",
            UTC,
            "DO $$ BEGIN RAISE NOTICE '%', since(); END $$",
            NEW_YORK
        )),
        silent(left(
            "timezone, there and back",
            &[
                Session(UTC),
                Job("SELECT since()"),
                Session(NEW_YORK),
                Job("SELECT since()"),
                Job("SELECT since()"),
                Session(UTC),
                Job("SELECT since()"),
                Session("RESET timezone"),
                Job("SELECT since()"),
            ],
        )),
        silent(left(
            "timezone, of one session and another",
            &[
                Session(UTC),
                Job("SELECT since()"),
                Connect("postgres"),
                Session(NEW_YORK),
                Job("SELECT since()"),
                Connect("postgres"),
                Job("SELECT since()"),
            ],
        )),
        silent(left(
            "timezone, of the role",
            &[
                Job("SELECT since()"),
                Admin("ALTER ROLE postgres SET timezone = 'America/New_York'"),
                Connect("postgres"),
                Job("SELECT since()"),
                Admin("ALTER ROLE postgres RESET timezone"),
                Connect("postgres"),
                Job("SELECT since()"),
            ],
        )),
        silent(left(
            "timezone, of the session's transaction",
            &[
                Session(UTC),
                Job("SELECT since()"),
                Session("BEGIN; SET LOCAL timezone = 'America/New_York'"),
                Job("SELECT since()"),
                Session("COMMIT"),
                Job("SELECT since()"),
            ],
        )),
        then!(
            "DateStyle",
            "SET datestyle = mdy",
            "SELECT month_of()",
            "SET datestyle = dmy"
        ),
        then!(
            "IntervalStyle",
            "SET intervalstyle = postgres",
            "SELECT seconds_of()",
            "SET intervalstyle = sql_standard"
        ),
        silent(then!(
            "IntervalStyle of what is put out",
            "SET intervalstyle = postgres",
            "SELECT spelled()",
            "SET intervalstyle = iso_8601"
        )),
        then!(
            "timezone_abbreviations",
            "RESET timezone_abbreviations",
            "SELECT abbreviated()",
            "SET timezone_abbreviations = 'India'"
        ),
        then!(
            "array_nulls",
            "SET array_nulls = on",
            "SELECT nulls_of()",
            "SET array_nulls = off"
        ),
        then!(
            "transform_null_equals",
            "SET transform_null_equals = off",
            "SELECT is_null(1)",
            "SET transform_null_equals = on"
        ),
        silent(then!(
            "transform_null_equals, in SQL",
            "SET transform_null_equals = off",
            "SELECT is_null_in_sql(1)",
            "SET transform_null_equals = on"
        )),
        strings(then!(
            "standard_conforming_strings",
            "SET standard_conforming_strings = on",
            "SELECT backslashes()",
            "SET standard_conforming_strings = off"
        )),
        strings(then!(
            "standard_conforming_strings, declared",
            "SET standard_conforming_strings = on",
            "SELECT backslashes_declared()",
            "SET standard_conforming_strings = off"
        )),
        silent(then!(
            "xmloption",
            "SET xmloption = content",
            "SELECT markup()",
            "SET xmloption = document"
        )),
        silent(then!(
            "xmloption, the other way",
            "SET xmloption = document",
            "SELECT markup()",
            "SET xmloption = content"
        )),
        then!(
            "extra_float_digits",
            "SET extra_float_digits = 0",
            "SELECT digits()",
            "RESET extra_float_digits"
        ),
        then!(
            "quote_all_identifiers",
            "SET quote_all_identifiers = off",
            "SELECT identifier()",
            "SET quote_all_identifiers = on"
        ),
        silent(then!(
            "default_text_search_config",
            "SET default_text_search_config = 'simple'",
            "SELECT lexemes()",
            "SET default_text_search_config = 'english'"
        )),
        silent(then!(
            "lc_monetary",
            "SET lc_monetary = 'C'",
            "SELECT amount()",
            "SET lc_monetary = 'C.UTF-8'"
        )),
        silent(then!(
            "bytea_output",
            "SET bytea_output = hex",
            "SELECT bytes()",
            "SET bytea_output = escape"
        )),
        silent(then!(
            "DateStyle of what is put out",
            "SET datestyle = iso",
            "SELECT day()",
            "SET datestyle = german"
        )),
        then!(
            "enable_seqscan",
            "SET enable_seqscan = on",
            "SELECT in_order()",
            "SET enable_seqscan = off; SET enable_bitmapscan = off"
        ),
        then!(
            "a custom setting that a function declared immutable looks at",
            "SET app.tenant = '7'",
            "SELECT tenant()",
            "SET app.tenant = '8'"
        ),
    ]);
}

/// The settings are equal, and yet the literal differs.
#[test]
fn literals_of_the_time() {
    run(&[silent(left(
        "the time",
        &[Job("SELECT is_now()"), Job("SELECT is_now()"), Job("SELECT is_now()")],
    ))]);
}

#[test]
fn settings_of_plpgsql() {
    run(&[
        then!(
            "variable_conflict",
            "SET plpgsql.variable_conflict = 'use_variable'",
            "SELECT ambiguous()",
            "SET plpgsql.variable_conflict = 'use_column'"
        ),
        silent(then!(
            "variable_conflict, an error first",
            "SET plpgsql.variable_conflict = 'error'",
            "SELECT ambiguous()",
            "SET plpgsql.variable_conflict = 'use_column'"
        )),
        silent(then!(
            "extra_errors",
            "SET plpgsql.extra_errors = 'none'",
            "SELECT shadowed()",
            "SET plpgsql.extra_errors = 'shadowed_variables'"
        )),
        silent(then!(
            "extra_warnings",
            "SET plpgsql.extra_warnings = 'shadowed_variables'",
            "SELECT shadowed()",
            "SET plpgsql.extra_warnings = 'none'"
        )),
        silent(then!(
            "check_asserts",
            "SET plpgsql.check_asserts = off",
            "SELECT asserted()",
            "SET plpgsql.check_asserts = on"
        )),
        inside!(
            "variable_conflict, for one transaction",
            "SELECT ambiguous() FROM set_config('plpgsql.variable_conflict', 'use_variable', true)",
            "SELECT ambiguous()"
        ),
    ]);
}

#[test]
fn settings_within_a_job() {
    run(&[
        inside!(
            "SET LOCAL",
            "SET LOCAL timezone = 'Asia/Tokyo'; SELECT since()",
            "SELECT since()"
        ),
        silent(inside!(
            "SET and RESET",
            "SET timezone = 'Asia/Tokyo'; SELECT since(); RESET timezone",
            "SELECT since()"
        )),
        silent(inside!(
            "SET and SET back, in blocks",
            "BEGIN; SET timezone = 'Asia/Tokyo'; SELECT since(); COMMIT; BEGIN; SET timezone = 'UTC'; COMMIT; RESET timezone",
            "SELECT since()"
        )),
        silent(inside!(
            "SET and ROLLBACK",
            "BEGIN; SET timezone = 'Asia/Tokyo'; SELECT since(); ROLLBACK",
            "SELECT since()"
        )),
        silent(inside!(
            "SET and an error",
            "SET timezone = 'Asia/Tokyo'; SELECT since(); SELECT 1 / 0",
            "SELECT since()"
        )),
        inside!(
            "a function with a SET clause that calls the function",
            "SELECT since_in_tokyo()",
            "SELECT since() || since_inlined()"
        ),
        inside!(
            "a function that sets",
            "SELECT since_in_tokyo_for_a_while()",
            "SELECT since()"
        ),
        inside!(
            "a function that sets and fails within",
            "SELECT since_in_tokyo_and_error()",
            "SELECT since()"
        ),
        inside!(
            "a block that sets",
            "DO $$ BEGIN SET LOCAL extra_float_digits = 0; PERFORM digits(); END $$",
            "SELECT digits()"
        ),
        silent(inside!(
            "the job's own setting stays to its end",
            "SET timezone = 'Asia/Tokyo'; SELECT since()",
            "SELECT since()"
        )),
        silent(left(
            "a literal is compiled in, then a setting of a job",
            &[
                Job("SELECT since()"),
                Job("SET timezone = 'Asia/Tokyo'; SELECT since()"),
                Job("SET LOCAL timezone = 'Asia/Tokyo'; SELECT since()"),
                Job("SELECT since()"),
                Job("SELECT since_in_tokyo()"),
                Job("SELECT since()"),
            ],
        )),
        inside!(
            "a search path, for one transaction",
            "SET LOCAL search_path = tenant_a, public; SELECT of_row()",
            "SELECT of_row() FROM set_config('search_path', 'tenant_b, public', true)"
        ),
        silent(inside!(
            "a search path that the job keeps",
            "SET search_path = tenant_a, public; SELECT of_row()",
            "SET search_path = tenant_b, public; SELECT of_row()"
        )),
        inside!(
            "a search path of a function",
            "SELECT of_a_first()",
            "SELECT of_row() FROM set_config('search_path', 'tenant_b, public', true)"
        ),
        inside!(
            "a strange search path, and the error is caught",
            "SELECT of_a_first()",
            "SELECT of_row_or_error() || of_row() FROM set_config('search_path', 'tenant_b, public', true)"
        ),
        strings(inside!(
            "strings, for one transaction",
            "SET LOCAL standard_conforming_strings = off; SELECT backslashes()",
            "SELECT backslashes()"
        )),
        inside!(
            "a setting of PL/pgSQL, by a function",
            "SELECT column_is() || ambiguous()",
            "SELECT ambiguous()"
        ),
        left(
            "a setting of PL/pgSQL, in the first job of a process",
            &[
                Job("CREATE TEMP TABLE ends_this_worker ()"),
                Job("SELECT set_config('plpgsql.variable_conflict', 'use_column', true) || ambiguous()"),
                Job("SELECT ambiguous()"),
            ],
        ),
        inside!(
            "a setting of PL/pgSQL, by a function that fails within",
            "SELECT column_is_and_error()",
            "SELECT ambiguous_within()"
        ),
        silent(left(
            "a setting of PL/pgSQL, by a function with a SET clause",
            &[Job("SELECT column_is_for_itself()"), Job("SELECT variable_is()")],
        )),
        inside!(
            "the planner's settings, for one transaction",
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SELECT in_order()",
            "SELECT in_order()"
        ),
        inside!(
            "a custom setting, for one transaction",
            "SET LOCAL app.tenant = '7'; SELECT tenant()",
            "SELECT tenant()"
        ),
    ]);
}

const A: &str = "SET search_path = tenant_a, public";
const B: &str = "SET search_path = tenant_b, public";

#[test]
fn names() {
    run(&[
        then!("%ROWTYPE", A, "SELECT of_row()", B),
        then!("%ROWTYPE, the other way", B, "SELECT of_row()", A),
        then!("a row type's name", A, "SELECT of_named_row()", B),
        then!("an array of rows", A, "SELECT of_rows()", B),
        silent(then!("%TYPE and an enumeration", A, "SELECT of_column()", B)),
        then!("a label of an enumeration", A, "SELECT of_enum('red')", B),
        then!("a label of another enumeration", A, "SELECT of_enum('blue')", B),
        then!("a domain", A, "SELECT of_domain('abcdef')", B),
        then!("a domain, the other way", B, "SELECT of_domain('abcdef')", A),
        then!("a cursor's argument", B, "SELECT of_cursor('abcdef')", A),
        silent(then!("a function and an operator", A, "SELECT of_function()", B)),
        silent(then!("a relation's number", A, "SELECT of_class()", B)),
        silent(then!("in SQL", A, "SELECT of_type_in_sql()", B)),
        then!(
            "a trigger",
            A,
            "INSERT INTO watched VALUES (1); SELECT string_agg(l::text, ' ') FROM log l",
            B
        ),
        silent(inside!(
            "the name of a function in the context of its error",
            "SELECT failing()",
            "SET LOCAL search_path = tenant_a; SELECT public.failing()"
        )),
        silent(then!(
            "the same, with everything quoted",
            "RESET search_path; RESET quote_all_identifiers",
            "SELECT failing()",
            "SET quote_all_identifiers = on"
        )),
        silent(left(
            "tenants take turns",
            &[
                Session(A),
                Job("SELECT of_row() || of_function() || of_class()"),
                Session(B),
                Job("SELECT of_row() || of_function() || of_class()"),
                Session(A),
                Job("SELECT of_row() || of_function() || of_class()"),
                Connect("postgres"),
                Session(B),
                Job("SELECT of_row() || of_function() || of_class()"),
                Job("SELECT of_domain('abcdef')"),
                Connect("alice"),
                Session(A),
                Job("SELECT of_domain('abcdef')"),
                Job("SELECT of_enum('red')"),
            ],
        )),
        silent(left(
            "a schema that comes before",
            &[
                Session(B),
                Job("SELECT of_domain('abcdef')"),
                Session("SET search_path = tenant_a, tenant_b, public"),
                Job("SELECT of_domain('abcdef')"),
            ],
        )),
        silent(left(
            "functions are replaced and dropped",
            &[
                Admin(
                    "CREATE FUNCTION said() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN 'one'; END $$;
                     CREATE FUNCTION says() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN said(); END $$",
                ),
                Job("SELECT says()"),
                Admin(
                    "CREATE OR REPLACE FUNCTION said() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN 'two'; END $$",
                ),
                Job("SELECT says()"),
                Admin("CREATE OR REPLACE FUNCTION said() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'three' $$"),
                Job("SELECT says()"),
                Admin("CREATE OR REPLACE FUNCTION said() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'four' $$"),
                Job("SELECT says()"),
                Admin(
                    "DROP FUNCTION said(); CREATE FUNCTION said(x int DEFAULT 5) RETURNS int LANGUAGE sql AS 'SELECT x'",
                ),
                Job("SELECT says()"),
                Admin("DROP FUNCTION said(int)"),
                Job("SELECT says()"),
                Admin("CREATE FUNCTION said() RETURNS text LANGUAGE sql AS $$ SELECT 'six' $$"),
                Job("SELECT says()"),
                Admin("DROP FUNCTION said(), says()"),
                Job("SELECT says()"),
            ],
        )),
    ]);
}

/// A function is compiled in another state than that of its job, and yet the process is reused.
#[test]
fn states_of_functions() {
    run(&[
        silent(cleared(
            "compiled, then called by a function with a search path",
            &[
                Session(A),
                Job("SELECT of_domain('ab')"),
                Job("SELECT of_b_first('abcdef')"),
                Job("SELECT of_domain('abcdef')"),
                Job("SELECT of_b_first('abcdef')"),
            ],
        )),
        silent(cleared(
            "a search path that is set between look-up and call",
            &[
                Session(A),
                Job("SELECT of_domain('ab')"),
                Job("SELECT path_is('tenant_b, public') || of_domain('abcdef')"),
                Job("SELECT of_domain('abcdef')"),
                Job("SELECT path_is_in_sql('tenant_b, public') || of_domain('abcdef')"),
                Job("SELECT of_domain('ab') || of_domain('abcdef')"),
            ],
        )),
        silent(cleared(
            "a search path that is set between two calls",
            &[
                Session(A),
                Job("SELECT of_domain('ab')"),
                Job(
                    "DO $$ DECLARE r text; BEGIN FOR i IN 1..2 LOOP r := of_domain('ab'); RAISE NOTICE '%', r;
                         PERFORM set_config('search_path', 'tenant_b, public', true); END LOOP;
                         r := of_domain('abcdef'); RAISE NOTICE '%', r; END $$",
                ),
                Job("SELECT of_domain('ab') || path_is('tenant_b, public') || of_domain('abcdef')"),
                Job("SELECT of_domain(x) || path_is('tenant_b, public') FROM (VALUES ('ab'), ('abcdef')) v (x)"),
                Job("SELECT path_is('tenant_b, public') || of_domain(x) FROM (VALUES ('ab'), ('abcdef')) v (x)"),
                Job("SELECT of_domain('abcdef')"),
            ],
        )),
        silent(cleared(
            "a function that leaves its own search path",
            &[
                Session(A),
                Job("SELECT of_b_then_a('ab')"),
                Job("SELECT of_b_first('abcdef')"),
                Job("SELECT of_b_then_a('abcdef')"),
                Job("SELECT of_b_or('tenant_a, public', 'ab')"),
                Job("SELECT of_b_or('tenant_b, public', 'abcdef')"),
                Job("SELECT of_b_or('tenant_a, public', 'abcdef')"),
            ],
        )),
        silent(cleared(
            "compiled for other arguments in another state",
            &[
                Session(A),
                Job("SELECT any_of_domain('x'::text, 'ab') || any_of_b_first('abcdef')"),
                Job("SELECT any_of_domain(1::int, 'abcdef')"),
                Job("SELECT any_of_domain(1::int, 'ab')"),
            ],
        )),
        silent(cleared(
            "a role that is set between look-up and call",
            &[
                Job("SELECT act_as('carol'), of_own('ab')"),
                Job("SELECT act_as('dave') || of_own('abcdef')"),
                Job("SELECT act_as('carol') || of_own('abcdef')"),
                Job("SELECT act_as('dave') || of_own_as_owner('abcdef')"),
                Job("SELECT of_own_as_owner('abcdef')"),
                Job("SELECT act_as('carol') || of_own('abcdef')"),
            ],
        )),
        silent(cleared(
            "created and called under different paths",
            &[
                Session(A),
                Job("CREATE FUNCTION public.young(x text) RETURNS text LANGUAGE plpgsql AS
                         $$ DECLARE d short; BEGIN d := x; RETURN d; END $$;
                     SET LOCAL search_path = tenant_b, public; SELECT young('ab')"),
                Session(B),
                Job("SELECT young('abcdef')"),
                Session(A),
                Job("SELECT young('abcdef')"),
                Session("DROP FUNCTION public.young(text)"),
            ],
        )),
    ]);
}

/// The meaning of a name has changed since the function was compiled.
#[test]
fn names_that_change() {
    run(&[
        silent(cleared(
            "a type that comes before",
            &[
                Session("SET search_path = tenant_c, tenant_a, public"),
                Admin("CREATE SCHEMA tenant_c; GRANT USAGE ON SCHEMA tenant_c TO PUBLIC"),
                Job("SELECT of_domain('abcdef')"),
                Admin("CREATE DOMAIN tenant_c.short AS text"),
                Job("SELECT of_domain('abcdef')"),
                Admin("ALTER SCHEMA tenant_c RENAME TO tenant_d"),
                Job("SELECT of_domain('abcdef')"),
                Admin("ALTER SCHEMA tenant_d RENAME TO tenant_c"),
                Job("SELECT of_domain('abcdef')"),
                Admin("REVOKE USAGE ON SCHEMA tenant_c FROM PUBLIC; DROP SCHEMA tenant_c CASCADE"),
                Job("SELECT of_domain('abcdef')"),
            ],
        )),
        silent(cleared(
            "a type is dropped and made again",
            &[
                Admin("CREATE DOMAIN passing AS int; CREATE FUNCTION of_passing() RETURNS text LANGUAGE plpgsql AS
                           $$ DECLARE d passing := 1.4; BEGIN RETURN d; END $$"),
                Job("SELECT of_passing()"),
                Admin("DROP DOMAIN passing; CREATE DOMAIN passing AS numeric"),
                Job("SELECT of_passing()"),
                Admin("DROP DOMAIN passing"),
                Job("SELECT of_passing()"),
                Admin("CREATE TYPE passing AS ENUM ('1.4')"),
                Job("SELECT of_passing()"),
                Admin("DROP TYPE passing; DROP FUNCTION of_passing()"),
            ],
        )),
        silent(cleared(
            "a column gets another type",
            &[
                Admin("CREATE TABLE changing (c int); CREATE FUNCTION of_changing() RETURNS text LANGUAGE plpgsql AS
                           $$ DECLARE d changing.c%TYPE := 1.4; BEGIN RETURN d; END $$"),
                Job("SELECT of_changing()"),
                Admin("ALTER TABLE changing ALTER c TYPE numeric"),
                Job("SELECT of_changing()"),
                Admin("DROP TABLE changing; CREATE TABLE changing (c text)"),
                Job("SELECT of_changing()"),
                Admin("DROP TABLE changing; DROP FUNCTION of_changing()"),
            ],
        )),
        alice(silent(cleared(
            "a schema that may be used no more, by what a role is a member of",
            &[
                Admin("CREATE SCHEMA shut; CREATE DOMAIN shut.short AS text; CREATE ROLE keyholder; GRANT USAGE ON SCHEMA shut TO keyholder;
                       GRANT keyholder TO alice"),
                Session("SET search_path = shut, tenant_a, public"),
                Job("SELECT of_domain('abcdef')"),
                Admin("REVOKE keyholder FROM alice"),
                Job("SELECT of_domain('abcdef')"),
                Admin("GRANT keyholder TO alice"),
                Job("SELECT of_domain('abcdef')"),
                Admin("DROP SCHEMA shut CASCADE; DROP ROLE keyholder"),
            ],
        ))),
        silent(cleared(
            "a collation is dropped and made again",
            &[
                Admin("CREATE COLLATION sorted FROM \"C\"; CREATE FUNCTION of_sorted() RETURNS text LANGUAGE plpgsql AS
                           $$ DECLARE x text COLLATE sorted := 'a'; BEGIN RETURN x < 'B'; END $$"),
                Job("SELECT of_sorted()"),
                Admin("DROP COLLATION sorted; CREATE COLLATION sorted (provider = icu, locale = 'und')"),
                Job("SELECT of_sorted()"),
                Admin("DROP COLLATION sorted"),
                Job("SELECT of_sorted()"),
                Admin("DROP FUNCTION of_sorted()"),
            ],
        )),
        silent(left(
            "a temporary table of the job's",
            &[
                Job("CREATE TEMP TABLE item (name text); INSERT INTO item VALUES ('temporary'); SELECT of_row()"),
                Session(A),
                Job("SELECT of_row()"),
                Job("CREATE TEMP TABLE item (a text, b text); INSERT INTO item VALUES ('t', 'u'); SELECT of_row()"),
                Job("SELECT of_row()"),
            ],
        )),
    ]);
}

/// What an expression in a cache calls has changed since it was folded, or how a cached function is called.
#[test]
fn functions_that_change() {
    run(&[
        silent(left(
            "a domain's check",
            &[
                Admin("CREATE FUNCTION has_mark(text) RETURNS bool IMMUTABLE LANGUAGE sql AS $$ SELECT $1 LIKE '%@%' $$;
                       CREATE DOMAIN marked AS text CHECK (has_mark(value))"),
                Job("SELECT 'a@b'::marked::text"),
                Admin("CREATE OR REPLACE FUNCTION has_mark(text) RETURNS bool IMMUTABLE LANGUAGE sql AS $$ SELECT $1 LIKE '%@%.%' $$"),
                Job("SELECT 'a@b'::marked::text"),
                Job("CREATE OR REPLACE FUNCTION has_mark(text) RETURNS bool IMMUTABLE LANGUAGE sql AS $$ SELECT $1 LIKE '%' $$"),
                Job("SELECT 'ab'::marked::text"),
            ],
        )),
        silent(cleared(
            "a domain's check, by a function without arguments",
            &[
                Admin("CREATE FUNCTION most() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 5'; CREATE DOMAIN few AS int CHECK (value < most())"),
                Job("SELECT 6::few::text"),
                Admin("CREATE OR REPLACE FUNCTION most() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 10'"),
                Job("SELECT 6::few::text"),
                Job("CREATE OR REPLACE FUNCTION most() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 4'"),
                Job("SELECT 6::few::text"),
            ],
        )),
        alice(silent(cleared(
            "a domain's check, and what it calls may be called no more",
            &[
                Admin("GRANT EXECUTE ON FUNCTION secret_in_sql() TO alice"),
                Job("SELECT 'x'::guarded_in_sql::text"),
                Admin("REVOKE EXECUTE ON FUNCTION secret_in_sql() FROM alice"),
                Job("SELECT 'x'::guarded_in_sql::text"),
                Admin("CREATE ROLE clerk; GRANT EXECUTE ON FUNCTION secret_in_sql() TO clerk; GRANT clerk TO alice"),
                Job("SELECT 'x'::guarded_in_sql::text"),
                Admin("REVOKE clerk FROM alice"),
                Job("SELECT 'x'::guarded_in_sql::text"),
                Admin("REVOKE EXECUTE ON FUNCTION secret_in_sql() FROM clerk; DROP ROLE clerk"),
            ],
        ))),
        silent(left(
            "an index expression and a predicate",
            &[
                Admin("CREATE FUNCTION rest(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; CREATE TABLE rests (n int);
                       CREATE UNIQUE INDEX ON rests ((rest(n))) WHERE n > rest(0)"),
                Job("DELETE FROM rests; INSERT INTO rests VALUES (1), (2); SELECT count(*)::text FROM rests"),
                Admin("CREATE OR REPLACE FUNCTION rest(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 % 1'"),
                Job("DELETE FROM rests; INSERT INTO rests VALUES (1), (2); SELECT count(*)::text FROM rests"),
                Admin("CREATE OR REPLACE FUNCTION rest(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 5'"),
                Job("DELETE FROM rests; INSERT INTO rests VALUES (1), (2); SELECT count(*)::text FROM rests"),
            ],
        )),
        silent(left(
            "a partition key",
            &[
                Admin("CREATE FUNCTION shifted(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; CREATE TABLE shifts (n int) PARTITION BY LIST ((shifted(n)));
                       CREATE TABLE shifts_1 PARTITION OF shifts FOR VALUES IN (1); CREATE TABLE shifts_2 PARTITION OF shifts FOR VALUES IN (2)"),
                Job("INSERT INTO shifts VALUES (1) RETURNING tableoid::regclass::text"),
                Admin("CREATE OR REPLACE FUNCTION shifted(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1'"),
                Job("INSERT INTO shifts VALUES (1) RETURNING tableoid::regclass::text"),
            ],
        )),
        silent(left(
            "the comparison of a type, in another language",
            &[
                Admin("CREATE TYPE sized AS (n int);
                       CREATE FUNCTION lt(sized, sized) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1.n < $2.n';
                       CREATE FUNCTION le(sized, sized) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1.n <= $2.n';
                       CREATE FUNCTION eq(sized, sized) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1.n = $2.n';
                       CREATE FUNCTION ge(sized, sized) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1.n >= $2.n';
                       CREATE FUNCTION gt(sized, sized) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1.n > $2.n';
                       CREATE FUNCTION cmp(sized, sized) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1.n - $2.n';
                       CREATE OPERATOR <<< (LEFTARG = sized, RIGHTARG = sized, FUNCTION = lt);
                       CREATE OPERATOR <<== (LEFTARG = sized, RIGHTARG = sized, FUNCTION = le);
                       CREATE OPERATOR === (LEFTARG = sized, RIGHTARG = sized, FUNCTION = eq);
                       CREATE OPERATOR >>== (LEFTARG = sized, RIGHTARG = sized, FUNCTION = ge);
                       CREATE OPERATOR >>> (LEFTARG = sized, RIGHTARG = sized, FUNCTION = gt);
                       CREATE OPERATOR CLASS by_size DEFAULT FOR TYPE sized USING btree AS
                           OPERATOR 1 <<<, OPERATOR 2 <<==, OPERATOR 3 ===, OPERATOR 4 >>==, OPERATOR 5 >>>, FUNCTION 1 cmp(sized, sized)"),
                Job("SELECT (ARRAY[row(1)::sized] < ARRAY[row(2)::sized])::text"),
                Admin("CREATE OR REPLACE FUNCTION cmp(sized, sized) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $2.n - $1.n; END'"),
                Job("SELECT (ARRAY[row(1)::sized] < ARRAY[row(2)::sized])::text"),
                Session("SET search_path = pg_catalog, public"),
                Job("SELECT (ARRAY[row(1)::sized] < ARRAY[row(2)::sized])::text"),
                Admin("CREATE OR REPLACE FUNCTION cmp(sized, sized) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 0'"),
                Job("SELECT (ARRAY[row(1)::sized] < ARRAY[row(2)::sized])::text"),
                Job("CREATE OR REPLACE FUNCTION cmp(sized, sized) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN -1; END'"),
                Job("SELECT (ARRAY[row(1)::sized] < ARRAY[row(2)::sized])::text"),
            ],
        )),
        silent(left(
            "the cast of a reference",
            &[
                Admin("CREATE TYPE code AS ENUM ('1', '2'); CREATE TABLE numbered (n int PRIMARY KEY); INSERT INTO numbered VALUES (1), (2);
                       CREATE FUNCTION number_of(code) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1::text::int';
                       CREATE FUNCTION another_of(code) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
                       CREATE CAST (code AS int) WITH FUNCTION another_of(code) AS IMPLICIT;
                       CREATE TABLE coded (c code REFERENCES numbered); INSERT INTO coded VALUES ('1')"),
                Job("UPDATE coded SET c = '1' RETURNING c::text"),
                Admin("ALTER TABLE coded DROP CONSTRAINT coded_c_fkey; DROP CAST (code AS int);
                       CREATE CAST (code AS int) WITH FUNCTION number_of(code) AS IMPLICIT;
                       ALTER TABLE coded ADD FOREIGN KEY (c) REFERENCES numbered; DELETE FROM numbered WHERE n = 2"),
                Job("UPDATE coded SET c = '2' RETURNING c::text"),
                Admin("DROP TABLE coded, numbered; DROP CAST (code AS int)"),
            ],
        )),
        silent(cleared(
            "functions that no job has called",
            &[
                Job("SELECT is_null(1) || since_any(1)"),
                Admin("CREATE FUNCTION unrelated(int) RETURNS int LANGUAGE sql AS 'SELECT 1'"),
                Job("SELECT is_null(1) || since_any(1)"),
                Admin("CREATE OR REPLACE FUNCTION unrelated(int) RETURNS int LANGUAGE sql AS 'SELECT 2'; DROP FUNCTION unrelated(int)"),
                Job("SELECT is_null(1) || since_any(1)"),
            ],
        )),
    ]);
}

const FEW: &str = "SET extra_float_digits = 0";
const MANY: &str = "RESET extra_float_digits";

#[test]
fn folded_in_caches() {
    run(&[
        then!("a domain's check", MANY, "SELECT 'abcdef'::narrow::text", FEW),
        then!(
            "a domain's check, the other way",
            FEW,
            "SELECT 'abcdef'::narrow::text",
            MANY
        ),
        then!(
            "a column of the domain",
            MANY,
            "INSERT INTO narrow_table VALUES ('abcdef') RETURNING x::text",
            FEW
        ),
        then!(
            "a row with the domain",
            MANY,
            "SELECT '(abcdef,1)'::narrow_pair::text",
            FEW
        ),
        then!("an array of the domain", MANY, "SELECT '{abcdef}'::narrow[]::text", FEW),
        inside!(
            "a domain's check, for one transaction",
            "SET LOCAL extra_float_digits = 0; SELECT 'ab'::narrow::text",
            "SELECT 'abcdef'::narrow::text"
        ),
        left(
            "a domain's check, within a function's setting",
            &[
                Session("SET timezone = 'Asia/Tokyo'"),
                Job("SELECT narrow_in_few()"),
                Job("SELECT 'abcdef'::narrow::text"),
            ],
        ),
        left(
            "a domain's check, within a function's search path",
            &[
                Session("SET search_path = tenant_b, public"),
                Job("SELECT whose_of_a()"),
                Job("SELECT 'b'::whose::text"),
            ],
        ),
        then!(
            "an index expression",
            MANY,
            "DELETE FROM remainders; INSERT INTO remainders VALUES (1), (4); SELECT count(*)::text FROM remainders",
            FEW
        ),
        then!(
            "an index predicate",
            MANY,
            "DELETE FROM below; INSERT INTO below VALUES (1), (4); SELECT count(*)::text FROM below",
            FEW
        ),
        then!(
            "a partition key",
            FEW,
            "DELETE FROM parted; INSERT INTO parted VALUES (3), (19); SELECT string_agg(n || tableoid::regclass::text, ' ') FROM parted",
            MANY
        ),
        silent(then!(
            "a generated column and a check",
            MANY,
            "INSERT INTO generated VALUES (2) RETURNING wide",
            FEW
        )),
        then!(
            "a reference that is set to its default",
            MANY,
            "DELETE FROM referring; INSERT INTO referenced VALUES ('one') ON CONFLICT DO NOTHING;
             INSERT INTO referring VALUES ('one'); DELETE FROM referenced WHERE x = 'one'; SELECT x FROM referring",
            FEW
        ),
        silent(then!("a view", MANY, "SELECT x FROM widths", FEW)),
        then!("a view in a function", MANY, "SELECT viewed()", FEW),
        then!("a cast", MANY, "SELECT cast_to()", FEW),
        silent(left(
            "an event trigger",
            &[
                Admin("CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION noted()"),
                Session(MANY),
                Job("CREATE TABLE eventful (n int); DROP TABLE eventful"),
                Session(FEW),
                Job("CREATE TABLE eventful (n int); DROP TABLE eventful"),
                Admin("DROP EVENT TRIGGER noted"),
                Job("CREATE TABLE eventful (n int); DROP TABLE eventful"),
            ],
        )),
    ]);
}

const AS_ALICE: &str = "SET ROLE alice";

#[test]
fn privileges() {
    run(&[
        silent(alice(left(
            "the owner's job, then the caller's",
            &[
                Job("SELECT reveal()"),
                Session("SELECT run_as_owner('SELECT reveal()')"),
                Job("SELECT reveal()"),
            ],
        ))),
        silent(alice(left(
            "the owner's job, then the caller's: inlined",
            &[
                Session("SELECT run_as_owner('SELECT reveal_inlined()')"),
                Job("SELECT reveal_inlined()"),
                Session("SELECT run_as_owner('SELECT reveal_rows()')"),
                Job("SELECT reveal_rows()"),
                Session("SELECT run_as_owner('SELECT reveal_in_sql()')"),
                Job("SELECT reveal_in_sql()"),
            ],
        ))),
        alice(inside!(
            "a function of the owner's within a job",
            "SELECT reveal_as_owner()",
            "SELECT reveal()"
        )),
        alice(inside!(
            "a function of the owner's within a job: inlined",
            "SELECT reveal_as_owner()",
            "SELECT reveal_inlined()"
        )),
        alice(inside!(
            "a function of the owner's within a job: rows",
            "SELECT reveal_as_owner()",
            "SELECT reveal_rows()"
        )),
        alice(inside!(
            "a function of the owner's within a job: a domain's check",
            "SELECT guarded_as_owner()",
            "SELECT 'x'::guarded::text"
        )),
        alice(inside!(
            "a function of the owner's within a job: a domain's check, inlined",
            "SELECT guarded_as_owner()",
            "SELECT 'x'::guarded_in_sql::text"
        )),
        then!("a role, then another", "RESET ROLE", "SELECT reveal()", AS_ALICE),
        then!(
            "a role, then another: inlined",
            "RESET ROLE",
            "SELECT reveal_inlined()",
            AS_ALICE
        ),
        silent(then!(
            "a role, then another: in SQL",
            "RESET ROLE",
            "SELECT reveal_in_sql()",
            AS_ALICE
        )),
        silent(then!(
            "an authorization, then another",
            "RESET SESSION AUTHORIZATION",
            "SELECT reveal()",
            "SET SESSION AUTHORIZATION alice"
        )),
        inside!(
            "a role within the job",
            "SELECT reveal()",
            "SET LOCAL ROLE alice; SELECT reveal()"
        ),
        silent(left(
            "a role within the job, first and later",
            &[
                Job("SET ROLE alice; SELECT reveal()"),
                Job("SELECT reveal()"),
                Job("SET ROLE alice; SELECT reveal()"),
                Job("SET SESSION AUTHORIZATION bob; SELECT reveal()"),
                Job("SELECT reveal()"),
            ],
        )),
        silent(then!(
            "a trigger",
            "RESET ROLE",
            "INSERT INTO told VALUES (1)",
            AS_ALICE
        )),
        then!("a domain's check", "RESET ROLE", "SELECT 'x'::guarded::text", AS_ALICE),
        silent(then!(
            "an index expression",
            "RESET ROLE",
            "INSERT INTO guarded_index VALUES (1)",
            AS_ALICE
        )),
        silent(then!(
            "an index predicate",
            "RESET ROLE",
            "INSERT INTO guarded_predicate VALUES (1)",
            AS_ALICE
        )),
        silent(then!(
            "a partition key",
            "RESET ROLE",
            "INSERT INTO guarded_parts VALUES (1)",
            AS_ALICE
        )),
        silent(left(
            "one session, then another",
            &[
                Job("SELECT reveal()"),
                Job("SELECT 'x'::guarded::text"),
                Connect("alice"),
                Job("SELECT reveal()"),
                Job("SELECT 'x'::guarded::text"),
                Connect("postgres"),
                Job("SELECT reveal()"),
            ],
        )),
        silent(left(
            "what alice may no longer",
            &[
                Admin("GRANT EXECUTE ON FUNCTION secret() TO alice"),
                Session(AS_ALICE),
                Job("SELECT reveal()"),
                Admin("REVOKE EXECUTE ON FUNCTION secret() FROM alice"),
                Job("SELECT reveal()"),
            ],
        )),
        silent(then!(
            "what a function knows of the user",
            "RESET ROLE",
            "SELECT mine_sum()",
            AS_ALICE
        )),
        silent(left(
            "row level security by roles and settings",
            &[
                Session("SET ROLE alice; SET app.tenant = '7'"),
                Job("SELECT owned_sum()"),
                Session("SET app.tenant = '8'"),
                Job("SELECT owned_sum()"),
                Session("RESET app.tenant"),
                Job("SELECT owned_sum()"),
                Session("RESET ROLE"),
                Job("SELECT owned_sum()"),
                Session("SET row_security = off; SET ROLE bob"),
                Job("SELECT owned_sum()"),
                Session("SET row_security = on"),
                Job("SELECT owned_sum()"),
                Job("SET ROLE alice; SELECT owned_sum()"),
                Job("SET LOCAL app.tenant = '7'; SELECT owned_sum()"),
                Job("SELECT owned_sum()"),
            ],
        )),
        left(
            "row level security by a function declared immutable",
            &[
                Session("SET ROLE alice; SET app.tenant = '7'"),
                Job("SELECT owned_folded_sum()"),
                Session("SET app.tenant = '8'"),
                Job("SELECT owned_folded_sum()"),
            ],
        ),
    ]);
}

#[test]
fn settings_that_cannot_be_taken_on() {
    run(&[
        silent(left(
            "a setting of a prefix that a library reserves",
            &[
                Session("SET pg_trgm.tenant = '7'"),
                Job("SELECT similarity('a', 'b')::text"),
                Job("SELECT similarity('a', 'b')::text"),
                Job("SELECT coalesce(current_setting('pg_trgm.tenant', true), 'none')"),
                Session("RESET pg_trgm.tenant"),
                Job("SELECT coalesce(current_setting('pg_trgm.tenant', true), 'none')"),
            ],
        )),
        silent(left(
            "a setting of PL/pgSQL's prefix",
            &[
                Session("SET plpgsql.x = '7'"),
                Job("SELECT since()"),
                Job("SELECT 'fine'"),
                Job("SELECT coalesce(current_setting('plpgsql.x', true), 'none')"),
            ],
        )),
        silent(left(
            "a library that another session's job has loaded",
            &[
                Job("SELECT similarity('a', 'b')::text || since()"),
                Connect("postgres"),
                Session("SET pg_trgm.tenant = '7'; SET plpgsql.x = '7'"),
                Job("SELECT 'fine'"),
                Job("SELECT coalesce(current_setting('plpgsql.x', true), 'none')"),
                Connect("postgres"),
                Session("SET pg_trgm.similarity_threshold = 0.5"),
                Job("SELECT show_limit()::text || ('word' % 'words')"),
                Session("RESET pg_trgm.similarity_threshold"),
                Job("SELECT show_limit()::text || ('word' % 'words')"),
            ],
        )),
        silent(left(
            "a text search configuration that is gone",
            &[
                Admin(
                    "CREATE TEXT SEARCH CONFIGURATION public.gone (COPY = english);
                     ALTER ROLE alice SET default_text_search_config = 'public.gone'",
                ),
                Connect("alice"),
                Job("SELECT lexemes()"),
                Admin("DROP TEXT SEARCH CONFIGURATION public.gone"),
                Job("SELECT 'fine'"),
                Connect("alice"),
                Job("SELECT 'fine'"),
                Job("SELECT 'fine'"),
                Admin("ALTER ROLE alice RESET default_text_search_config"),
                Connect("alice"),
                Job("SELECT lexemes()"),
            ],
        )),
        silent(left(
            "our own settings, read as parameters",
            &[
                Job("SELECT 'fine'"),
                Session("SELECT state FROM pg_background_run('SELECT 1')"),
                Job("SELECT current_setting(name) FROM (VALUES ('pg_back' || 'ground.max_workers')) v (name)"),
                Job("SELECT current_setting(name) FROM (VALUES ('pg_back' || 'ground.max_workers')) v (name)"),
                Job("SELECT count(*)::text FROM pg_settings WHERE name LIKE 'pg\\_backgro%'"),
                Job("SELECT count(*)::text FROM pg_settings WHERE name LIKE 'pg\\_backgro%'"),
            ],
        )),
        silent(left(
            "a setting that may no longer be set",
            &[
                Admin("CREATE DOMAIN later AS int"),
                Session("SET search_path = public, tenant_z"),
                Job("SELECT 'fine'"),
                Session("SET temp_tablespaces = ''; SET default_tablespace = ''"),
                Job("SELECT 'fine'"),
                Admin("DROP DOMAIN later"),
            ],
        )),
    ]);
}

/// A job answers as its session does, whatever worker it has.
#[test]
fn as_the_session_answers() {
    const TENANT: &str = "SELECT coalesce(current_setting('app.tenant', true), 'none') || owned_sum()";
    const STEPS: [&[Step]; 6] = [
        &[Job(TENANT)],
        &[Session("BEGIN; SET LOCAL app.tenant = '7'; COMMIT"), Job(TENANT)],
        &[
            Session("SET app.tenant = '7'"),
            Session("RESET app.tenant"),
            Job(TENANT),
        ],
        &[Session("SET app.tenant = '7'; RESET ALL"), Job(TENANT)],
        &[Session("BEGIN; SET app.tenant = '7'; ROLLBACK"), Job(TENANT)],
        &[
            Session("SET app.tenant = '7'; SET app.tenant = DEFAULT"),
            Job(TENANT),
            Job(TENANT),
        ],
    ];
    let [warm, fresh, plain] = crate::clusters(SETUP);
    agree(
        &warm,
        &fresh,
        &plain,
        &STEPS.map(|steps| alice(left("a setting that was taken back", steps))),
    );
}
