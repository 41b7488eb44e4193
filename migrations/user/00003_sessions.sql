-- +goose Up
create table sessions (
    id         uuid        primary key,
    user_id    uuid        not null references users (id),
    issued_at  timestamptz not null,
    expires_at timestamptz not null,
    revoked_at timestamptz
);
create index sessions_user_id_idx on sessions (user_id);
create index sessions_expires_at_idx on sessions (expires_at);

-- The Ed25519 keys that sign sessions where no key file is configured, shared
-- by all replicas. The newest signs; all of them verify.
create table signing_keys (
    id         text        primary key,
    seed       bytea       not null,
    created_at timestamptz not null default now()
);

-- +goose Down
drop table signing_keys;
drop table sessions;
