-- +goose Up
-- Append-only: rows are never updated, and dropped by the partition. The table
-- has no index, since nothing reads it by key: the relay reads the write-ahead
-- log. The default partition takes every row for which no partition was made.
-- Rows stay whole up to the page: decoding puts what was moved out of a row
-- together again, which costs more than all the rest of a packed row of 3 KB.
create table outbox (
    id                uuid        not null,
    topic             text        not null,
    aggregate_type    text        not null,
    aggregate_id      text        not null,
    aggregate_version bigint,
    type              text        not null,
    payload           bytea       not null,
    headers           jsonb,
    created_at        timestamptz not null default now()
) partition by range (created_at);

create table outbox_default partition of outbox default with (toast_tuple_target = 8160);

comment on table outbox is 'Events to be published to Kafka, written in the transaction that caused them.';

-- +goose Down
drop table outbox;
