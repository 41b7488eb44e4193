package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: this test needs real servers")
	}
	for _, variable := range []string{"WALPOST_TEST_POSTGRES", "WALPOST_TEST_KAFKA", "WALPOST_TEST_MONGO"} {
		t.Setenv(variable, "")
	}
	t.Run("the command finds the servers, which are gone afterwards", func(t *testing.T) {
		var stdout, stderr bytes.Buffer
		code, err := run(t.Context(), []string{
			"--", "sh", "-c",
			`echo $WALPOST_TEST_POSTGRES; echo $WALPOST_TEST_KAFKA; echo $WALPOST_TEST_MONGO; exit 7`,
		},
			make(chan os.Signal), &stdout, &stderr)
		if code != 7 || err != nil {
			t.Fatalf("code %d, %v, want 7\n%s", code, err, &stderr)
		}
		lines := strings.Fields(stdout.String())
		for i, want := range []string{"postgres://postgres:", "127.0.0.1:", "mongodb://"} {
			if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
				t.Fatalf("the command saw %q, want line %d to begin with %s", lines, i, want)
			}
		}
		if conn, err := net.Dial("tcp", lines[1]); err == nil {
			_ = conn.Close()
			t.Error("Kafka still runs")
		}
	})
	t.Run("signals go to the command and come back as its code", func(t *testing.T) {
		signals := make(chan os.Signal, 1)
		started := notifyOnWrite{text: "started", f: func() { signals <- syscall.SIGTERM }}
		code, err := run(t.Context(), []string{"sh", "-c", "echo started; exec sleep 60"}, signals, &started, t.Output())
		if want := 128 + int(syscall.SIGTERM); code != want || err != nil {
			t.Errorf("code %d, %v, want %d", code, err, want)
		}
	})
	t.Run("a signal during the start ends it", func(t *testing.T) {
		signals := make(chan os.Signal, 1)
		signals <- os.Interrupt
		code, err := run(t.Context(), []string{"true"}, signals, t.Output(), t.Output())
		if code != 1 || err == nil || !strings.Contains(err.Error(), "interrupt") {
			t.Errorf("code %d, %v, want 1 and the signal's name", code, err)
		}
	})
	t.Run("fetch", func(t *testing.T) {
		if code, err := run(t.Context(), []string{"--fetch"}, nil, t.Output(), t.Output()); code != 0 || err != nil {
			t.Errorf("code %d, %v", code, err)
		}
	})
}

func TestServersThatAreGivenAreNotStarted(t *testing.T) {
	t.Setenv("WALPOST_TEST_POSTGRES", "postgres://given")
	t.Setenv("WALPOST_TEST_KAFKA", "given:1")
	t.Setenv("WALPOST_TEST_MONGO", "mongodb://given")
	var stdout bytes.Buffer
	code, err := run(t.Context(), []string{"sh", "-c", "echo $WALPOST_TEST_POSTGRES $WALPOST_TEST_KAFKA $WALPOST_TEST_MONGO"},
		make(chan os.Signal), &stdout, t.Output())
	if want := "postgres://given given:1 mongodb://given\n"; code != 0 || err != nil || stdout.String() != want {
		t.Errorf("code %d, %v, the command saw %q, want %q", code, err, &stdout, want)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"--"}, {"--fetch", "ls"}} {
		if code, err := run(context.Background(), args, nil, nil, nil); code != 2 || err == nil {
			t.Errorf("run %q: code %d, %v, want 2 and the usage", args, code, err)
		}
	}
}

// notifyOnWrite calls f when text is written.
type notifyOnWrite struct {
	text string
	f    func()
}

func (n *notifyOnWrite) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(n.text)) {
		n.f()
	}
	return len(b), nil
}
