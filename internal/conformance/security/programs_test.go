package security

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/internal/daemon/kafkaflags"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
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
	with := func(variables ...string) []string { return append(slices.Clip(base), variables...) }
	fails(t, archive, daemon.ExitFailed, with("ARCHIVE_KAFKA_CA_FILE="+w.ca.File, "ARCHIVE_KAFKA_PASSWORD=wrong"), []string{"run"}, "SASL_AUTHENTICATION_FAILED", "kafka-configs.sh")
	fails(t, archive, daemon.ExitFailed, with("ARCHIVE_KAFKA_CA_FILE="+w.stranger.File, "ARCHIVE_KAFKA_PASSWORD="+passwords[tester]), []string{"run"}, "--kafka-ca-file")
	fails(t, archive, daemon.ExitUsage, with("ARCHIVE_KAFKA_PASSWORD="+passwords[tester]), []string{"run", "--kafka-password=" + passwords[relayUser]}, "refused on the command line")
}

// The relay program publishes over TLS to both servers, with its connection
// string and its passwords in files, and none of them shows in its arguments
// or its log.
func TestTheRelayProgramPublishesFromFiles(t *testing.T) {
	t.Parallel()
	w := theWorld(t)
	conn := w.database(t, "programs")
	migrate(t, conn)
	execute(t, conn, `create role programs login replication password '`+passwords[tester]+`'; grant select on outbox to programs;
		create publication outbox for table outbox with (publish = 'insert', publish_via_partition_root = true)`)
	path := build(t, "relay")
	dsn := strings.Replace(w.dsn(t, conn, "programs", "sslcert", w.client.CertFile, "sslkey", w.client.KeyFile, "channel_binding", "require"), "programs:@", "programs:"+passwords[tester]+"@", 1)
	variables := []string{
		"RELAY_POSTGRES_FILE=" + secret(t, dsn), "RELAY_OPS_LISTEN=127.0.0.1:0", "RELAY_LOG_LEVEL=debug", "RELAY_POSITIONS_TOPIC=_programs.positions",
		"RELAY_BROKERS=" + w.kafka.Secure.SASL[0], "RELAY_KAFKA_TLS=true", "RELAY_KAFKA_CA_FILE=" + w.ca.File,
		"RELAY_KAFKA_SASL=SCRAM-SHA-512", "RELAY_KAFKA_USER=" + tester,
	}
	with := func(more ...string) []string { return append(slices.Clip(variables), more...) }
	cmd, out := program(t, path, with("RELAY_KAFKA_PASSWORD_FILE="+secret(t, passwords[tester])), "run")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	devstacktest.Wait(t, "the slot to stream", 30*time.Second, func() bool {
		var streams bool // a slot that is being made is active too
		err := conn.QueryRow(t.Context(), `select exists (select from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid
			where s.slot_name = 'outbox_programs' and r.state in ('catchup', 'streaming'))`).Scan(&streams)
		return err != nil || streams
	})
	write(t, conn, "programs.created", "1")
	read(t, &kafkaflags.Flags{Brokers: w.kafka.Brokers}, "programs.created", 1)
	for _, file := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", cmd.Process.Pid, file))
		if err != nil || bytes.Contains(b, []byte(passwords[tester])) {
			t.Errorf("%v, or the password is in the process's %s", err, file)
		}
	}
	if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
		t.Errorf("%v, want a clean stop:\n%s", err, out)
	}
	(&journal{buf: *out}).holdsNoSecret(t)

	fails(t, path, daemon.ExitFailed, with("RELAY_KAFKA_PASSWORD=wrong"), []string{"run"}, "SASL_AUTHENTICATION_FAILED", "kafka-configs.sh")
	fails(t, path, daemon.ExitFailed, with("RELAY_KAFKA_PASSWORD="+passwords[tester], "RELAY_KAFKA_CA_FILE="+w.stranger.File), []string{"run"}, "--kafka-ca-file")
	wrong := secret(t, strings.Replace(dsn, passwords[tester], "wrong", 1))
	fails(t, path, daemon.ExitFailed, with("RELAY_KAFKA_PASSWORD="+passwords[tester], "RELAY_POSTGRES_FILE="+wrong), []string{"run"}, "28P01", "PGPASSFILE")
	fails(t, path, daemon.ExitUsage, with("RELAY_KAFKA_PASSWORD="+passwords[tester], "RELAY_KAFKA_TLS=false", "RELAY_POSTGRES="+dsn), []string{"run"},
		"--postgres-file: set together", "--kafka-ca-file")
}
