//! What whoever may create in a schema can plant there.

use crate::Session;

/// Fills the schema, which is made where it is not there: each operator between two of many types, and each function of `pg_catalog`, raises an error.
pub fn plant(superuser: &mut Session, schema: &str) {
    superuser.exec(
        &r#"CREATE SCHEMA IF NOT EXISTS planted; GRANT USAGE ON SCHEMA planted TO PUBLIC;
        DO $$
        DECLARE
            types CONSTANT text[] := ARRAY['bool', 'int2', 'int4', 'int8', 'oid', 'xid', 'regclass', 'text', 'varchar', 'name', '"char"', 'float8', 'numeric',
                'jsonb', 'timestamptz', 'interval', 'text[]', 'int8[]', 'oid[]'];
            operators CONSTANT text[] := ARRAY['=', '<>', '<', '>', '<=', '>=', '+', '-', '*', '/', '||', '~~', '~', '@>', '?'];
            body CONSTANT text := 'RETURNS bool LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION ''''shadowed''''; END''';
            one text; other text; operator text; function record;
        BEGIN
            FOREACH one IN ARRAY types LOOP
                FOREACH other IN ARRAY types LOOP
                    EXECUTE format('CREATE FUNCTION planted.shadow(%s, %s) ' || body, one, other);
                    FOREACH operator IN ARRAY operators LOOP
                        EXECUTE format('CREATE OPERATOR planted.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = planted.shadow)', operator, one, other);
                    END LOOP;
                END LOOP;
            END LOOP;
            FOR function IN
                SELECT proname AS name, oidvectortypes(proargtypes) AS arguments FROM pg_proc
                WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND pronargs > 0 AND NOT EXISTS (
                    SELECT FROM unnest(proargtypes) AS argument JOIN pg_type ON pg_type.oid = argument WHERE typtype = 'p')
                UNION SELECT name, repeat(kind || ', ', count - 1) || kind
                FROM unnest(ARRAY['format', 'concat', 'concat_ws', 'jsonb_build_object', 'jsonb_build_array', 'array_length', 'array_append',
                        'left', 'right', 'replace', 'split_part']) AS name,
                    unnest(ARRAY['text', 'name']) AS kind, generate_series(1, 6) AS count
                UNION VALUES ('array_length', 'text[], int4'), ('generate_subscripts', 'text[], int4'), ('left', 'name, int4'),
                    ('has_function_privilege', 'text, oid, varchar'), ('unnest', 'text[]'), ('unnest', 'int8[]'), ('unnest', 'oid[]'),
                    ('array_agg', 'oid'), ('row_to_json', 'text'), ('to_jsonb', 'text')
            LOOP
                BEGIN
                    EXECUTE format('CREATE FUNCTION planted.%I(%s) ' || body, function.name, function.arguments);
                EXCEPTION WHEN duplicate_function THEN NULL;
                END;
            END LOOP;
        END $$"#
            .replace("planted", schema),
    );
    let error = superuser.error(&format!("SET search_path = {schema}, pg_catalog; SELECT NULLIF(1, 2)"));
    assert_eq!(error.message, "shadowed");
    superuser.exec("RESET search_path");
}
