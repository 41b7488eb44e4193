-- +goose Up
-- One row is one user's state; the events of the user, folded, give the same.
-- version counts its changes, and each change is one event of that version.
create table users (
    id                    uuid        primary key,
    username              text        not null,
    email                 text        not null,
    full_name             text        not null,
    date_of_birth         date,
    password_hash         text        not null,
    status                text        not null check (status in ('active', 'deactivated')),
    login_count           bigint      not null default 0,
    last_login_at         timestamptz,
    last_login_ip         text,
    last_login_user_agent text,
    version               bigint      not null check (version > 0),
    created_at            timestamptz not null,
    updated_at            timestamptz not null
);

-- These decide between requests that race for a name.
create unique index users_username_key on users (lower(username));
create unique index users_email_key on users (lower(email));

-- Failed log-ins by the SHA-256 of the name that was typed, whether or not a
-- user has it: so a lock-out does not tell which names exist.
create table login_attempts (
    login        bytea       primary key,
    failures     integer     not null,
    last_at      timestamptz not null,
    locked_until timestamptz
);
create index login_attempts_last_at_idx on login_attempts (last_at);

-- +goose Down
drop table login_attempts;
drop table users;
