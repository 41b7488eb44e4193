package deadletters_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

// A command is the built program inbox.
type command struct {
	t      *testing.T
	binary string
	env    []string
	stdin  string
}

func buildCommand(t *testing.T, env ...string) *command {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "inbox")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../../cmd/inbox")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return &command{t: t, binary: binary, env: env}
}

// run runs the program and gives what it wrote and its exit code.
func (c *command) run(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), c.binary, args...)
	var out, diagnostics bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Stdin = &out, &diagnostics, strings.NewReader(c.stdin)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "INBOX_") }), c.env...)
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), diagnostics.String(), exit.ExitCode()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return out.String(), diagnostics.String(), 0
}

// ok runs the program, which must succeed, and gives what it wrote.
func (c *command) ok(args ...string) string {
	c.t.Helper()
	stdout, stderr, code := c.run(args...)
	if code != 0 {
		c.t.Fatalf("inbox %q ended with %d: %s", args, code, stderr)
	}
	return stdout
}

// object runs the program, which must succeed, and reads one JSON object.
func (c *command) object(args ...string) map[string]any {
	c.t.Helper()
	out := c.ok(args...)
	var v map[string]any
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		c.t.Fatalf("inbox %q wrote %q: %v", args, out, err)
	}
	return v
}

// TestCommand takes an operator's way with the built program: look, mend,
// redrive, drop.
func TestCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.plan.fail(2, 1)
	w.start(w.config())
	broken := w.event("a", 0)
	broken.Value = []byte(`{"n":"zero"}`)
	broken.Headers = append(broken.Headers, kgo.RecordHeader{Key: "binary", Value: []byte{0xff}})
	w.produce(broken, w.event("a", 1), w.event("b", 2))
	w.settled(3)
	c := buildCommand(t, "INBOX_POSTGRES="+w.dsn, "INBOX_GROUP="+w.group)
	first := w.list(inbox.Filter{OrderingKey: "thing/a"})
	id, waiting := strconv.FormatInt(first[0].ID, 10), strconv.FormatInt(first[1].ID, 10)
	last := strconv.FormatInt(w.list(inbox.Filter{OrderingKey: "thing/b"})[0].ID, 10)

	if out := c.ok("dead", "list"); strings.Count(out, "\n") != 4 || !strings.Contains(out, "thing/a") {
		t.Errorf("list in text:\n%s\nwant a heading and 3 letters", out)
	}
	out, stderr, _ := c.run("dead", "list", "--json", "--limit", "2")
	if strings.Count(out, "\n") != 2 || !strings.Contains(stderr, "go on with --after ") {
		t.Errorf("list of 2 = %s, and %q", out, stderr)
	}
	listed := c.object("dead", "list", "--json", "--state", "dead", "--key", "thing/a", "--older-than", "1ms", "--younger-than", "1h", "--error", "UNDECODABLE")
	for field, want := range map[string]any{
		"key": "thing/a", "state": "dead", "type": "Moved", "topic": w.topic, "behind": 1.0, "recordKey": "a", "payloadBytes": float64(len(broken.Value)),
	} {
		if listed[field] != want {
			t.Errorf("list --json: %s = %v, want %v", field, listed[field], want)
		}
	}
	if listed["headers"] != nil || listed["payload"] != nil {
		t.Error("a list holds headers and payloads")
	}
	if out, stderr, code := c.run("dead", "list", "--key", "thing/none"); out != "" || code != 0 || !strings.Contains(stderr, "no dead letters") {
		t.Errorf("an empty list = %q, %q, exit %d", out, stderr, code)
	}

	shown := c.object("dead", "show", id, "--json")
	if shown["payload"] != `{"n":"zero"}` || shown["originalPayload"] != nil {
		t.Errorf("show --json: payload %v, original %v", shown["payload"], shown["originalPayload"])
	}
	headers, _ := shown["headers"].([]any)
	if len(headers) != len(broken.Headers) {
		t.Fatalf("show --json: %d headers, want %d", len(headers), len(broken.Headers))
	}
	if h, _ := headers[len(headers)-1].(map[string]any); h["name"] != "binary" || h["valueBase64"] != "/w==" {
		t.Errorf("the header that is no text = %v", h)
	}
	if out := c.ok("dead", "show", id); !strings.Contains(out, "ce_id: "+string(broken.Headers[1].Value)) || !strings.Contains(out, "1 waiting behind") {
		t.Errorf("show in text:\n%s", out)
	}
	if out := c.ok("dead", "show", id, "--payload"); out != `{"n":"zero"}` {
		t.Errorf("show --payload = %q", out)
	}

	wrong := []struct {
		name string
		args []string
		code int
		says string
	}{
		{"edit of nothing", []string{"dead", "edit", id}, 2, "inbox dead edit --help"},
		{"edit of the id", []string{"dead", "edit", id, "--header", "ce_id=1"}, 1, "drop the letter"},
		{"header without value", []string{"dead", "edit", id, "--header", "x"}, 2, "name=value"},
		{"edit without file", []string{"dead", "edit", id, "--payload", "/nonexistent/payload"}, 1, "/nonexistent/payload"},
		{"no such letter", []string{"dead", "show", "999999"}, 1, "inbox dead list"},
		{"redrive of nothing", []string{"dead", "redrive"}, 2, "inbox dead redrive --help"},
		{"redrive of all and one", []string{"dead", "redrive", "--all", "--id", id}, 2, "--all"},
		{"redrive of one that waits", []string{"dead", "redrive", "--id", waiting}, 1, `inbox dead list --state dead --key "thing/a"`},
		{"redrive of none", []string{"dead", "redrive", "--id", "999999"}, 1, "inbox dead list"},
		{"rate below zero", []string{"dead", "redrive", "--all", "--rate=-1"}, 2, "--rate"},
		{"drop without reason", []string{"dead", "drop", "--id", id}, 2, "--reason"},
		{"drop of nothing", []string{"dead", "drop", "--reason", "x"}, 2, "inbox dead drop --help"},
		{"drop of none", []string{"dead", "drop", "--id", "999999", "--reason", "x"}, 1, "inbox dead list"},
		{"a state that is none", []string{"dead", "list", "--state", "lost"}, 2, "inbox --help"},
		{"no database", []string{"dead", "list", "--postgres", "postgres://127.0.0.1:1/none"}, 1, "--postgres"},
		{"a database without tables", []string{"dead", "list", "--postgres", devstacktest.Database(t)}, 1, "goose up"},
	}
	for _, tt := range wrong {
		out, stderr, code := c.run(tt.args...)
		if code != tt.code || !strings.Contains(stderr, tt.says) || strings.Contains(out, "thing/") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q; want exit %d and %q", tt.name, code, out, stderr, tt.code, tt.says)
		}
	}

	c.stdin = `{"n":0}`
	edited := c.object("dead", "edit", id, "--payload", "-", "--header", "by=hand", "--remove-header", "binary", "--json")
	c.stdin = ""
	if edited["payload"] != `{"n":0}` || edited["originalPayload"] != `{"n":"zero"}` || edited["editedAt"] == nil {
		t.Errorf("edit --json = %v", edited)
	}

	would := c.object("dead", "redrive", "--id", id, "--dry-run", "--json")
	if would["dryRun"] != true || would["count"] != 1.0 || would["behind"] != 1.0 || w.is("select exists (select from inbox_dead where redrive_at is not null)") {
		t.Errorf("redrive --dry-run --json = %v, and it must change nothing", would)
	}
	did := c.object("dead", "redrive", "--id", id, "--rate", "10", "--json")
	if did["dryRun"] != false || did["count"] != 1.0 || did["behind"] != 1.0 || did["matched"] != 1.0 {
		t.Errorf("redrive --json = %v", did)
	}
	w.settled(3)
	equal(t, "effects of a", w.effects("a"), []int{0, 1})

	would = c.object("dead", "drop", "--all", "--reason", "test", "--dry-run", "--json")
	if would["count"] != 1.0 || len(w.list(inbox.Filter{})) != 1 {
		t.Errorf("drop --dry-run --json = %v, and it must change nothing", would)
	}
	gone := c.object("dead", "drop", "--id", last, "--reason", "ops: not needed", "--json")
	letters, _ := gone["letters"].([]any)
	if len(letters) != 1 {
		t.Fatalf("drop --json = %v, want one letter", gone)
	}
	if l, _ := letters[0].(map[string]any); l["payload"] != `{"n":2}` || l["headers"] == nil {
		t.Errorf("drop --json tells %v, want the payload and headers", l)
	}
	w.settled(3)
	equal(t, "effects of b", w.effects("b"), nil)

	if out := c.ok("dead", "list", "--help"); !strings.Contains(out, "--limit=100") || !strings.Contains(out, "$INBOX_GROUP") || !strings.Contains(out, "$INBOX_POSTGRES") {
		t.Errorf("help does not say defaults and variables:\n%s", out)
	}
	if out := c.ok("version"); strings.TrimSpace(out) == "" {
		t.Error("version prints nothing")
	}
}
