-- +goose Up
-- outbox_emit writes an event from SQL: the row that the Go library writes,
-- with its checks, in the transaction that calls it. It gives the event's id.
--
-- The functions are made in the schema of the table that "outbox" is now, and
-- name that table with its schema: a caller with another search_path, or with
-- a temporary table of that name, still writes where the relay reads. They run
-- with the caller's rights, who needs to insert into the table: as definer's
-- functions, which everybody may execute at first, they would let everybody
-- publish events.
-- +goose StatementBegin
do $do$
declare
    home constant text := (
        select quote_ident(n.nspname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = 'outbox'::regclass
    );
begin
    execute replace($create$
create function @schema@.outbox_emit(
    topic text, aggregate_type text, aggregate_id text, aggregate_version bigint, type text, payload bytea, headers jsonb default null
) returns uuid language plpgsql as $function$
declare
    -- Lengths are those of the record, whatever the database's encoding.
    bytes_type constant bytea := convert_to(aggregate_type, 'UTF8');
    bytes_id constant bytea := convert_to(aggregate_id, 'UTF8');
    bytes_what constant bytea := convert_to(type, 'UTF8');
    -- Control characters: 00 to 1f, 7f and, as two bytes, 80 to 9f.
    control constant text := '[\x01-\x1f\x7f]|\\302\\2[0-3]';
    name_hint constant text := 'use 1 to 512 bytes without control characters';
    max_bytes constant text := coalesce(nullif(current_setting('outbox.max_bytes', true), ''), '1000000');
    size bigint := octet_length(bytes_type) + octet_length(bytes_id) + octet_length(bytes_what) + octet_length(payload);
    problems text[] := '{}';
    hints text[] := '{}';
    field text; -- the first one refused
    header record;
    microseconds bigint;
    new_id uuid;
begin
    if max_bytes collate "C" !~ '^[0-9]{1,9}$' then
        raise exception using
            errcode = 'invalid_parameter_value', message = 'setting outbox.max_bytes ' || quote_literal(max_bytes) || ' is no number of bytes',
            hint = 'set the largest size of an event in bytes: alter database name set outbox.max_bytes = 1000000';
    end if;
    -- Collations are named, as those of the arguments may differ from each
    -- other or know no patterns.
    if topic collate "C" ~ '^(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}$' is not true then
        field := coalesce(field, 'topic');
        problems := problems || ('topic ' || coalesce(quote_literal(left(topic, 64)), 'is null'));
        hints := hints || text 'topic: use 1 to 249 letters, digits, dots, underscores and dashes';
    end if;
    if (octet_length(bytes_type) between 1 and 512 and encode(bytes_type, 'escape') collate "C" !~ control and strpos(aggregate_type collate "C", '/') = 0) is not true then
        field := coalesce(field, 'aggregate_type');
        problems := problems || ('aggregate_type ' || coalesce(quote_literal(left(aggregate_type, 64)), 'is null'));
        hints := hints || ('aggregate_type: ' || name_hint || ' or slashes');
    end if;
    if (octet_length(bytes_id) between 1 and 512 and encode(bytes_id, 'escape') collate "C" !~ control) is not true then
        field := coalesce(field, 'aggregate_id');
        problems := problems || ('aggregate_id ' || coalesce(quote_literal(left(aggregate_id, 64)), 'is null'));
        hints := hints || ('aggregate_id: ' || name_hint);
    end if;
    if aggregate_version < 0 then
        field := coalesce(field, 'aggregate_version');
        problems := problems || ('aggregate_version ' || aggregate_version);
        hints := hints || text 'aggregate_version: count versions from 1, or give null or 0 for none';
    end if;
    if (octet_length(bytes_what) between 1 and 512 and encode(bytes_what, 'escape') collate "C" !~ control) is not true then
        field := coalesce(field, 'type');
        problems := problems || ('type ' || coalesce(quote_literal(left(type, 64)), 'is null'));
        hints := hints || ('type: ' || name_hint);
    end if;
    if payload is null then
        field := coalesce(field, 'payload');
        problems := problems || text 'payload is null';
        hints := hints || text 'payload: give '''' for an event that has none';
    end if;
    if jsonb_typeof(headers) <> 'object' then
        field := coalesce(field, 'headers');
        problems := problems || ('headers ' || left(headers::text, 64));
        hints := hints || text 'headers: give a JSON object of strings, or null for none';
    elsif headers is not null then
        for header in select h.key as name, h.value, h.value #>> '{}' as text, jsonb_typeof(h.value) as kind from jsonb_each(headers) as h loop
            size := size + octet_length(convert_to(header.name, 'UTF8')) + octet_length(convert_to(coalesce(header.text, ''), 'UTF8'));
            if header.name collate "C" !~ '^(?![cC][eE]_)[!-~]+$' or length(header.name) > 512 then
                field := coalesce(field, 'headers[' || header.name || ']');
                problems := problems || ('headers[' || left(header.name, 64) || ']');
                hints := hints || ('headers[' || left(header.name, 64) || ']: name it in printable ASCII without spaces, not beginning with ce_, which CloudEvents owns');
            end if;
            if header.kind <> 'string' then
                field := coalesce(field, 'headers[' || header.name || ']');
                problems := problems || ('headers[' || left(header.name, 64) || '] ' || left(header.value::text, 64));
                hints := hints || ('headers[' || left(header.name, 64) || ']: give a JSON string');
            end if;
        end loop;
    end if;
    if size > max_bytes::integer then
        field := coalesce(field, 'payload');
        problems := problems || ('payload: the event has ' || size || ' bytes');
        hints := hints || ('payload: the event must be at most ' || max_bytes || ' bytes with its names and headers; store a large payload elsewhere and send a reference, or raise the setting outbox.max_bytes together with the topic''s max.message.bytes');
    end if;
    if field is not null then
        raise exception using
            errcode = 'invalid_parameter_value', column = field,
            message = 'outbox_emit refuses the event: ' || array_to_string(problems, '; '), hint = array_to_string(hints, E'\n');
    end if;

    -- A UUID of version 7: 48 bits of milliseconds, then 12 of their fraction
    -- in steps of a 4096th, then the variant and 62 random bits of a version 4.
    microseconds := extract(epoch from clock_timestamp()) * 1000000;
    new_id := lpad(to_hex(microseconds / 1000), 12, '0') || '7' || lpad(to_hex(mod(microseconds, 1000) * 4096 / 1000), 3, '0')
        || right(gen_random_uuid()::text, 17);
    insert into @schema@.outbox (id, topic, aggregate_type, aggregate_id, aggregate_version, type, payload, headers)
        values (new_id, topic, aggregate_type, aggregate_id, nullif(aggregate_version, 0), type, payload, nullif(headers, '{}'));
    return new_id;
end
$function$;

-- A literal is taken for text, as of psql and of drivers that leave types to
-- the server. Text and json go out as they stand, jsonb as PostgreSQL prints it.
create function @schema@.outbox_emit(
    topic text, aggregate_type text, aggregate_id text, aggregate_version bigint, type text, payload text, headers jsonb default null
) returns uuid language sql
return @schema@.outbox_emit(topic, aggregate_type, aggregate_id, aggregate_version, type, convert_to(payload, 'UTF8'), headers);

create function @schema@.outbox_emit(
    topic text, aggregate_type text, aggregate_id text, aggregate_version bigint, type text, payload json, headers jsonb default null
) returns uuid language sql
return @schema@.outbox_emit(topic, aggregate_type, aggregate_id, aggregate_version, type, convert_to(payload::text, 'UTF8'), headers);

create function @schema@.outbox_emit(
    topic text, aggregate_type text, aggregate_id text, aggregate_version bigint, type text, payload jsonb, headers jsonb default null
) returns uuid language sql
return @schema@.outbox_emit(topic, aggregate_type, aggregate_id, aggregate_version, type, convert_to(payload::text, 'UTF8'), headers);

comment on function @schema@.outbox_emit(text, text, text, bigint, text, bytea, jsonb)
    is 'Writes an event into the outbox in this transaction and gives its id.';
$create$, '@schema@', home);
end
$do$;
-- +goose StatementEnd

-- +goose Down
drop function outbox_emit(text, text, text, bigint, text, jsonb, jsonb);
drop function outbox_emit(text, text, text, bigint, text, json, jsonb);
drop function outbox_emit(text, text, text, bigint, text, text, jsonb);
drop function outbox_emit(text, text, text, bigint, text, bytea, jsonb);
