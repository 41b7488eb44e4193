package security

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-048de892/walpost/internal/daemon"
)

// build gives the path of one of our programs, built for the test.
func build(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../../../cmd/"+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return path
}

// program prepares a program with nothing in its environment but variables.
func program(t *testing.T, path string, variables []string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 15 * time.Second
	cmd.Env = variables
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd, &out
}

// fails runs a program that is to fail for what its environment says, and
// checks its exit code and what it says.
func fails(t *testing.T, path string, code int, variables []string, args []string, want ...string) {
	t.Helper()
	cmd, out := program(t, path, variables, args...)
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != code {
		t.Errorf("%v, want exit code %d:\n%s", err, code, out)
	}
	for _, w := range want {
		if !strings.Contains(out.String(), w) {
			t.Errorf("it says not %q:\n%s", w, out)
		}
	}
	(&journal{buf: *out}).holdsNoSecret(t)
}

// The archive ends with what to do where Kafka refuses it or it Kafka.
func TestTheArchiveEndsWhereKafkaRefuses(t *testing.T) {
	t.Parallel()
	w := theWorld(t)
	archive := build(t, "archive")
	base := []string{
		"ARCHIVE_BROKERS=" + w.kafka.Secure.SASL[0], "ARCHIVE_KAFKA_TLS=true", "ARCHIVE_KAFKA_SASL=SCRAM-SHA-512", "ARCHIVE_KAFKA_USER=" + tester,
		"ARCHIVE_MONGO_FILE=" + secret(t, "mongodb://127.0.0.1:1"), "ARCHIVE_LISTEN=127.0.0.1:0", "ARCHIVE_OPS_LISTEN=127.0.0.1:0",
	}
	with := func(variables ...string) []string { return append(base[:len(base):len(base)], variables...) }
	fails(t, archive, daemon.ExitFailed, with("ARCHIVE_KAFKA_CA_FILE="+w.ca.File, "ARCHIVE_KAFKA_PASSWORD=wrong"), []string{"run"}, "SASL_AUTHENTICATION_FAILED", "kafka-configs.sh")
	fails(t, archive, daemon.ExitFailed, with("ARCHIVE_KAFKA_CA_FILE="+w.stranger.File, "ARCHIVE_KAFKA_PASSWORD="+passwords[tester]), []string{"run"}, "--kafka-ca-file")
	fails(t, archive, daemon.ExitUsage, with("ARCHIVE_KAFKA_PASSWORD="+passwords[tester]), []string{"run", "--kafka-password=" + passwords[relayUser]}, "refused on the command line")
}
