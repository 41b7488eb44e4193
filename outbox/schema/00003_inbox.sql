-- +goose Up
-- One row for each event that was handled, committed together with what its
-- handler did. event_time is the event's own time, ce_time, which is the same
-- in every redelivery: so a redelivered event meets its row although the key
-- of a partitioned table must hold the partition key. An event without a time
-- of its own has 1970-01-01 here, so that its id alone tells it.
-- Ids and keys are compared byte by byte, whatever the database's locale.
-- The default partition takes every row for which no partition was made.
create table inbox (
    consumer_group text collate "C" not null,
    event_id       text collate "C" not null,
    event_time     timestamptz      not null,
    topic          text             not null,
    partition      integer          not null,
    "offset"       bigint           not null,
    handled_at     timestamptz      not null default now(),
    dropped        text, -- why an operator gave the event up; null: it was handled
    primary key (event_id, consumer_group, event_time)
) partition by range (event_time);

create table inbox_default partition of inbox default;

comment on table inbox is 'Events that were handled: their effects and these rows were committed together.';

-- Dead letters, and the events that wait behind them because they have the
-- same ordering key. Of one key, id is the order of arrival and of handling.
create table inbox_dead (
    id               bigint           generated always as identity primary key,
    consumer_group   text collate "C" not null,
    ordering_key     text collate "C" not null,
    state            text             not null check (state in ('dead', 'waiting')),
    event_id         text collate "C" not null,
    event_time       timestamptz      not null,
    type             text             not null,
    topic            text             not null,
    partition        integer          not null,
    "offset"         bigint           not null,
    record_time      timestamptz      not null,
    key              bytea,
    header_names     text[]           not null,
    header_values    bytea[]          not null,
    payload          bytea,
    original_payload bytea,
    edited_at        timestamptz,
    error            text,
    attempts         integer          not null default 0,
    failed_at        timestamptz      not null default now(),
    redrive_at       timestamptz,                         -- when it is to be handled again; null: not at all
    starts           integer          not null default 0, -- how often a redrive of it has begun since redrive_at was set
    unique (event_id, consumer_group)
);

-- Asked for every event before it is handled: is its key blocked?
create index inbox_dead_by_key on inbox_dead (consumer_group, ordering_key, id);
create index inbox_dead_due on inbox_dead (consumer_group, redrive_at) where redrive_at is not null;

comment on table inbox_dead is 'Dead letters, and the events of the same ordering keys that wait behind them.';

-- +goose Down
drop table inbox_dead;
drop table inbox;
