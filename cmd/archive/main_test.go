package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/archive"
	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

func TestWrongUse(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"no command":           {},
		"unknown flag":         {"run", "--nope"},
		"run without brokers":  {"run", "--mongo", "mongodb://127.0.0.1:1"},
		"no MongoDB":           {"run", "--brokers", "127.0.0.1:1"},
		"two MongoDBs":         {"state", "user/42", "--mongo", "mongodb://127.0.0.1:1", "--mongo-file", "/none"},
		"no such file":         {"state", "user/42", "--mongo-file", "/none"},
		"password shown":       {"run", "--brokers", "127.0.0.1:1", "--mongo", "mongodb://127.0.0.1:1", "--kafka-sasl=PLAIN", "--kafka-user=u", "--kafka-password=p", "--kafka-tls"},
		"CA without TLS":       {"run", "--brokers", "127.0.0.1:1", "--mongo", "mongodb://127.0.0.1:1", "--kafka-ca-file=/none"},
		"no aggregate":         {"state", "--mongo", "mongodb://127.0.0.1:1"},
		"aggregate without id": {"state", "user", "--mongo", "mongodb://127.0.0.1:1"},
		"bad version":          {"state", "user/42", "--version=-1", "--mongo", "mongodb://127.0.0.1:1"},
		"bad time":             {"state", "user/42", "--at", "today", "--mongo", "mongodb://127.0.0.1:1"},
		"bad from":             {"events", "--aggregate", "user/42", "--from-version", "0", "--mongo", "mongodb://127.0.0.1:1"},
		"bad topics":           {"run", "--brokers", "127.0.0.1:1", "--topics", "(", "--mongo", "mongodb://127.0.0.1:1"},
	} {
		var out bytes.Buffer
		err := run(t.Context(), args, &out, &out)
		if exit, ok := errors.AsType[*daemon.ExitError](err); !ok || exit.Code != daemon.ExitUsage {
			t.Errorf("%s: %v, want an error of wrong use", name, err)
		}
	}
}

func TestUnreachableMongoSaysWhatToTypeNext(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := run(t.Context(), []string{"state", "user/42", "--mongo", "mongodb://me:secret@127.0.0.1:1/"}, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "mongosh") || !strings.Contains(err.Error(), "--mongo") || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v, want a hint at mongosh and --mongo, and no password", err)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), []string{"version"}, &out, t.Output()); err != nil || out.Len() == 0 {
		t.Errorf("version = %q, %v; want one", out.String(), err)
	}
}

// The whole command line on real servers.
func TestArchivedAndReadBack(t *testing.T) {
	t.Parallel()
	brokers := devstacktest.Kafka(t)
	uri, database := devstacktest.Mongo(t)
	topic := devstacktest.Name(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 1, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	for n, data := range []string{`{"email":"a","balance":1.10}`, `{"email":"b"}`} {
		event := cloudevent.Event{
			ID: fmt.Sprintf("%s-%d", topic, n+1), Source: topic, Type: "UserChanged", Subject: "4/2",
			Time: time.Date(2026, 1, 1, 0, 0, n, 0, time.UTC), AggregateType: "user", AggregateVersion: int64(n + 1), Data: []byte(data),
		}
		if err := client.ProduceSync(t.Context(), cloudevent.Record(topic, &event)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{
			"run", "--brokers", strings.Join(brokers, ","), "--mongo", uri, "--database", database, "--group", topic, "--topics", "^" + topic + "$",
			"--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0",
		}, t.Output(), t.Output())
	}()

	read := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := run(t.Context(), append(args, "--mongo", uri, "--database", database), &out, t.Output())
		return out.String(), err
	}
	deadline := time.After(time.Minute)
	for {
		out, err := read("state", "user/4/2", "--json")
		if err == nil && strings.Contains(out, `"version":2`) {
			if !strings.Contains(out, `"state":{"balance":1.10,"email":"b"}`) {
				t.Errorf("state = %s", out)
			}
			break
		}
		if err != nil && !errors.Is(err, archive.ErrNotFound) {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Fatalf("run ended: %v", err)
		case <-deadline:
			t.Fatalf("the events do not arrive: %s, %v", out, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if out, err := read("state", "user/4/2", "--at", "2026-01-01T00:00:00Z"); err != nil || out != "{\n  \"balance\": 1.10,\n  \"email\": \"a\"\n}\n" {
		t.Errorf("state at the first event = %q, %v", out, err)
	}
	if out, err := read("events", "--aggregate", "user/4/2", "--from-version", "2", "--json"); err != nil || strings.Count(out, "\n") != 1 || !strings.Contains(out, `"eventData":{"email":"b"}`) {
		t.Errorf("events from version 2 = %q, %v", out, err)
	}
	if out, err := read("events", "--aggregate", "user/4/2", "--limit", "1"); err != nil || strings.Count(out, "\n") != 2 || !strings.Contains(out, `{"email":"a","balance":1.10}`) {
		t.Errorf("one event in a table = %q, %v", out, err)
	}
	if _, err := read("events", "--aggregate", "user/none"); !errors.Is(err, archive.ErrNotFound) {
		t.Errorf("events of nobody: %v, want ErrNotFound", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run = %v, want nil after its context ended", err)
	}
}
