-- +goose Up
-- The first answer to a request that carried an Idempotency-Key, written in
-- the transaction of its effect. request is a SHA-256 of what was asked
-- without any password.
create table idempotency_keys (
    operation  text        not null,
    key        text        not null,
    request    bytea       not null,
    answer     jsonb       not null,
    expires_at timestamptz not null,
    primary key (operation, key)
);
create index idempotency_keys_expires_at_idx on idempotency_keys (expires_at);

-- +goose Down
drop table idempotency_keys;
