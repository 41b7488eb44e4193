package write_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
)

// emitted writes one event with the function and gives its payload.
func emitted(t *testing.T, conn *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	var id outbox.ID
	must(t, conn.QueryRow(t.Context(), sql, args...).Scan(&id))
	var payload []byte
	must(t, conn.QueryRow(t.Context(), `select payload from outbox where id = $1`, id).Scan(&payload))
	return string(payload)
}

func refusal(t *testing.T, conn *pgx.Conn, sql string, args ...any) *pgconn.PgError {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql, args...)
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		t.Fatalf("%s: %v, want PostgreSQL's error", sql, err)
	}
	return refused
}

func emptyOutbox(t *testing.T) *pgx.Conn {
	t.Helper()
	conn := connect(t, devstacktest.Database(t))
	applySchema(t, conn)
	return conn
}

// TestPayloadsOfEmit writes what psql users write: literals, JSON made by
// functions, bytes.
func TestPayloadsOfEmit(t *testing.T) {
	conn := emptyOutbox(t)
	const call = `select outbox_emit('t', 'a', '1', 1, 'T', `
	for payload, want := range map[string]string{
		`'{"a": "ü\\"}')`:            `{"a": "ü\\"}`,
		`'\x00')`:                    `\x00`,
		`'')`:                        ``,
		`'\x00ff'::bytea)`:           "\x00\xff",
		`'{"b":1,  "a":2}'::json)`:   `{"b":1,  "a":2}`,
		`'{"b":1,  "a":2}'::jsonb)`:  `{"a": 2, "b": 1}`,
		`json_build_object('a', 1))`: `{"a" : 1}`,
		`jsonb_build_object('a', 1), '{"x":"y"}')`:  `{"a": 1}`,
		`payload => 'named', headers => '{}')`:      `named`,
		`row_to_json(r)) from (select 1 as a) as r`: `{"a":1}`,
	} {
		if got := emitted(t, conn, call+payload); got != want {
			t.Errorf("outbox_emit(… %s wrote %q, want %q", payload, got, want)
		}
	}
	// An untyped parameter is text, a cast one bytes.
	if got := emitted(t, conn, call+`$1)`, `\x00`); got != `\x00` {
		t.Errorf("an untyped parameter wrote %q", got)
	}
	if got := emitted(t, conn, call+`$1::bytea)`, []byte{0}); got != "\x00" {
		t.Errorf("a parameter cast to bytea wrote %q", got)
	}
}

// TestEmitTellsEveryProblem also asks for NULL, which Go has not.
func TestEmitTellsEveryProblem(t *testing.T) {
	conn := emptyOutbox(t)
	refused := refusal(t, conn, `select outbox_emit(null, null, null, -7, null, null::bytea, '[1]')`)
	want := `outbox_emit refuses the event: topic is null; aggregate_type is null; aggregate_id is null; aggregate_version -7; type is null; payload is null; headers [1]`
	if refused.Message != want || strings.Count(refused.Hint, "\n") != 6 || refused.ColumnName != "topic" {
		t.Errorf("message %q\nwant    %q\nhint %q, column %q", refused.Message, want, refused.Hint, refused.ColumnName)
	}
	for headers, want := range map[string]string{`"a"`: "headers", `null`: "headers", `{"a":1}`: "headers[a]", `{"a":null}`: "headers[a]", `{"a":{}}`: "headers[a]"} {
		refused := refusal(t, conn, `select outbox_emit('t', 'a', '1', 1, 'T', '', $1)`, headers)
		if refused.Code != "22023" || refused.ColumnName != want {
			t.Errorf("headers %s: SQLSTATE %s, column %q, want 22023 and %q", headers, refused.Code, refused.ColumnName, want)
		}
	}
	var rows int
	must(t, conn.QueryRow(t.Context(), `select count(*) from outbox`).Scan(&rows))
	if rows != 0 {
		t.Errorf("refused events left %d rows", rows)
	}
}

// TestLimitOfEmit raises the limit for a transaction, as for a database.
func TestLimitOfEmit(t *testing.T) {
	conn := emptyOutbox(t)
	const call = `select outbox_emit('t', 'a', '1', 1, 'T', repeat('x', 1500000))`
	for _, set := range []string{`set outbox.max_bytes = 1500003`, `set outbox.max_bytes = 1500002`, `reset outbox.max_bytes`} {
		_, err := conn.Exec(t.Context(), set)
		must(t, err)
		_, err = conn.Exec(t.Context(), call)
		if wantErr := set != `set outbox.max_bytes = 1500003`; (err != nil) != wantErr {
			t.Errorf("after %s: %v, want an error: %t", set, err, wantErr)
		}
	}
}

func TestABadLimitOfEmitIsNamed(t *testing.T) {
	conn := emptyOutbox(t)
	for _, value := range []string{"1MB", "-1", "1e6", "10000000000"} {
		_, err := conn.Exec(t.Context(), `select set_config('outbox.max_bytes', $1, false)`, value)
		must(t, err)
		refused := refusal(t, conn, `select outbox_emit('t', 'a', '1', 1, 'T', '')`)
		if refused.Code != "22023" || !strings.Contains(refused.Message, "outbox.max_bytes '"+value+"'") || refused.Hint == "" {
			t.Errorf("with %s: SQLSTATE %s, message %q, hint %q", value, refused.Code, refused.Message, refused.Hint)
		}
	}
}

// TestIDsOfEmit holds an id to the time of its call.
func TestIDsOfEmit(t *testing.T) {
	conn := emptyOutbox(t)
	rows, err := conn.Query(t.Context(), `select outbox_emit('t', 'a', '1', 1, 'T', ''), extract(epoch from clock_timestamp()) * 1000000 from generate_series(1, 2000)`)
	must(t, err)
	var id, last outbox.ID
	var micros int64
	seen := make(map[outbox.ID]bool)
	var fractions [4]int // of a millisecond, by quarters
	_, err = pgx.ForEachRow(rows, []any{&id, &micros}, func() error {
		if seen[id] || id[6]>>4 != 7 || id[8]>>6 != 0b10 {
			return fmt.Errorf("id %s came before, or is not of version 7", id)
		}
		seen[id] = true
		if late := micros/1000 - id.Time().UnixMilli(); late < 0 || late > 1000 {
			return fmt.Errorf("id %s was made %d ms before its call ended", id, late)
		}
		// 60 bits of time: later in the microsecond is later in the id.
		if bytes.Compare(id[:8], last[:8]) < 0 {
			return fmt.Errorf("id %s came behind %s", id, last)
		}
		last = id
		fractions[id[6]&0x0f>>2]++
		return nil
	})
	must(t, err)
	for i, n := range fractions {
		if n == 0 {
			t.Errorf("of 2000 ids none is of the quarter %d of a millisecond", i)
		}
	}
}

// TestEmitWritesIntoItsOwnSchema: a caller's search path or temporary table
// must not lead an event to where no relay reads it.
func TestEmitWritesIntoItsOwnSchema(t *testing.T) {
	conn := emptyOutbox(t)
	exec := func(sql string) {
		t.Helper()
		_, err := conn.Exec(t.Context(), sql)
		must(t, err)
	}
	exec(`create schema "Other one"; set search_path = "Other one", public`)
	applySchema(t, conn)
	exec(`create temporary table outbox (like public.outbox)`)
	for _, path := range []string{`public`, `"Other one"`, `''`, `pg_temp, public`} {
		exec(`set search_path = ` + path)
		exec(`select public.outbox_emit('t', 'a', '1', 1, 'T', '')`)
	}
	exec(`select "Other one".outbox_emit('t', 'a', '1', 1, 'T', '{}'::jsonb)`)
	var public, other, temporary int
	must(t, conn.QueryRow(t.Context(), `select (select count(*) from public.outbox), (select count(*) from "Other one".outbox), (select count(*) from pg_temp.outbox)`).Scan(&public, &other, &temporary))
	if public != 4 || other != 1 || temporary != 0 {
		t.Errorf("%d rows in public, %d in the other schema, %d in the temporary table, want 4, 1 and 0", public, other, temporary)
	}
	exec(`alter schema "Other one" rename to renamed`)
	if refused := refusal(t, conn, `select renamed.outbox_emit('t', 'a', '1', 1, 'T', '')`); refused.Code != "42P01" {
		t.Errorf("in a renamed schema: SQLSTATE %s, want 42P01, never another table", refused.Code)
	}
}

// TestRightsForEmit: whoever may insert may emit, nobody else.
func TestRightsForEmit(t *testing.T) {
	conn := emptyOutbox(t)
	role := devstacktest.Name(t)
	exec := func(sql string) {
		t.Helper()
		_, err := conn.Exec(context.WithoutCancel(t.Context()), strings.ReplaceAll(sql, "$role", role)) // also at the end of the test
		must(t, err)
	}
	exec(`create role $role`)
	t.Cleanup(func() { exec(`reset role; drop owned by $role; drop role $role`) })
	const call = `select outbox_emit('t', 'a', '1', 1, 'T', '')`
	exec(`set role $role`)
	if refused := refusal(t, conn, call); refused.Code != "42501" {
		t.Errorf("without rights: SQLSTATE %s, want 42501", refused.Code)
	}
	exec(`reset role; grant insert on outbox to $role; set role $role`)
	exec(call)
}

// TestCollationsAndEncodingsOfEmit: checks must not depend on them.
func TestCollationsAndEncodingsOfEmit(t *testing.T) {
	conn := emptyOutbox(t)
	exec := func(conn *pgx.Conn, sql string) {
		t.Helper()
		_, err := conn.Exec(context.WithoutCancel(t.Context()), sql) // also at the end of the test
		must(t, err)
	}
	exec(conn, `create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`)
	exec(conn, `create table names (a text collate blind, b text collate "C", c text)`)
	exec(conn, `insert into names values ('user', '42', 'T')`)
	// The bytea form, as the others do not pass a collation on.
	exec(conn, `select outbox_emit(a, b, c, 1, a, ''::bytea), outbox_emit(a, a, a, 1, a, ''::bytea) from names`)
	if refused := refusal(t, conn, `select outbox_emit(a || ' ', a, a, 1, a || '/', ''::bytea) from names`); refused.ColumnName != "topic" {
		t.Errorf("column %q at fault, want topic", refused.ColumnName)
	}

	for _, encoding := range []string{"LATIN1", "WIN1252", "SQL_ASCII"} {
		name := devstacktest.Name(t)
		exec(conn, `create database `+name+` encoding '`+encoding+`' locale 'C' template template0`)
		t.Cleanup(func() { exec(conn, `drop database `+name+` with (force)`) })
		config := conn.Config().Copy()
		config.Database = name
		other, err := pgx.ConnectConfig(t.Context(), config)
		must(t, err)
		t.Cleanup(func() { _ = other.Close(context.Background()) })
		exec(other, `set client_encoding = 'UTF8'`)
		applySchema(t, other)
		// 256 times two bytes in UTF-8, whatever they are here.
		id := strings.Repeat("é", 256)
		if got := emitted(t, other, `select outbox_emit('t', 'a', $1, 1, 'T', $2::text)`, id, "é"); got != "é" {
			t.Errorf("%s: payload %q, want é in UTF-8", encoding, got)
		}
		if refused := refusal(t, other, `select outbox_emit('t', 'a', $1, 1, 'T', '')`, id+"x"); refused.ColumnName != "aggregate_id" {
			t.Errorf("%s: column %q, want aggregate_id", encoding, refused.ColumnName)
		}
		if encoding == "WIN1252" { // one byte of the range that other encodings have control characters in
			emitted(t, other, `select outbox_emit('t', 'a', '€', 1, 'T', '')`)
		}
	}
}

// TestSQLOfTheDocs runs the statements of docs/formats/outbox.md.
func TestSQLOfTheDocs(t *testing.T) {
	text, err := os.ReadFile("../../../docs/formats/outbox.md")
	must(t, err)
	_, section, _ := strings.Cut(string(text), "\n## From SQL\n")
	section, _, _ = strings.Cut(section, "\n## ")
	conn := emptyOutbox(t)
	_, err = conn.Exec(t.Context(), `create table users (id int primary key, email text, version bigint, password text); insert into users values (42, 'old', 7, 'secret')`)
	must(t, err)
	statements := 0
	for {
		var block string
		var found bool
		if _, section, found = strings.Cut(section, "```sql\n"); !found {
			break
		}
		block, section, _ = strings.Cut(section, "```")
		if _, err := conn.Exec(t.Context(), block); err != nil {
			t.Fatalf("%s\n%v", block, err)
		}
		statements++
	}
	_, err = conn.Exec(t.Context(), `update users set version = 9`)
	must(t, err)
	var payloads string
	must(t, conn.QueryRow(t.Context(), `select string_agg(convert_from(payload, 'UTF8'), ' ' order by aggregate_version) from outbox`).Scan(&payloads))
	want := `{"email":"ada@example.org"} {"id": 42, "email": "ada@example.org", "version": 9}`
	if statements != 2 || payloads != want {
		t.Errorf("%d blocks wrote %s, want 2 and %s", statements, payloads, want)
	}
}
