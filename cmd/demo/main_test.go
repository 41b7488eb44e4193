package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

// TestMain is also the program itself.
func TestMain(m *testing.M) {
	if os.Getenv("DEMO_TEST_PROGRAM") != "" {
		os.Exit(daemon.Main(run))
	}
	os.Exit(m.Run())
}

func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: this test needs real servers")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), "DEMO_TEST_PROGRAM=1")
	cmd.Stderr = os.Stderr
	return cmd
}

func TestOnceJSON(t *testing.T) {
	t.Parallel()
	stdout, err := program(t, "--once", "--json").Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stdout)
	}
	summary := decode(t, stdout)
	if summary["ok"] != true {
		t.Errorf("ok = %v", summary["ok"])
	}
	for path, want := range map[string]float64{
		"counts.rowsCommitted": 8, "counts.recordsPublished": 8, "counts.documentsArchived": 8,
		"requests.accepted": 6, "requests.refused": 6,
		"latency.commitToKafkaAcknowledgedMs.count": 8, "latency.commitToArchivedAtMs.count": 8,
	} {
		if got := number(t, summary, path); got != want {
			t.Errorf("%s = %v, want %v", path, got, want)
		}
	}
	for _, path := range []string{
		"latency.commitToKafkaAcknowledgedMs.p50", "latency.commitToKafkaAcknowledgedMs.p99", "latency.commitToKafkaAcknowledgedMs.max",
		"latency.commitToArchivedAtMs.max", "latency.insertDurableMeanMs",
		"startup.serversReadyMs", "startup.programsReadyMs", "startup.firstArchivedMs",
	} {
		if got := number(t, summary, path); got <= 0 {
			t.Errorf("%s = %v, want more than 0", path, got)
		}
	}
	users, _ := summary["users"].([]any)
	if len(users) != 2 {
		t.Fatalf("users = %v", summary["users"])
	}
	for _, u := range users {
		u := u.(map[string]any)
		row, replayed := u["row"].(map[string]any), u["replayed"].(map[string]any)
		if u["equal"] != true || row["id"] != u["id"] || replayed["id"] != u["id"] || replayed["version"] != u["events"] {
			t.Errorf("user = %v", u)
		}
	}
}

// decode reads the one object that stdout must be.
func decode(t *testing.T, stdout []byte) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(stdout, &object); err != nil {
		t.Fatalf("standard output is not one JSON object: %v\n%s", err, stdout)
	}
	return object
}

// number gives the number at a path of members.
func number(t *testing.T, object map[string]any, path string) float64 {
	t.Helper()
	var v any = object
	for name := range strings.SplitSeq(path, ".") {
		members, _ := v.(map[string]any)
		v = members[name]
	}
	n, ok := v.(float64)
	if !ok {
		t.Fatalf("%s = %v, want a number", path, v)
	}
	return n
}

func TestIncompleteRoundExitsWithWhatIsMissing(t *testing.T) {
	t.Parallel()
	cmd := program(t, "--once", "--json", "--timeout", "1ms", "--dir", devstacktest.Dir(t))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != daemon.ExitPromise {
		t.Fatalf("error = %v, want exit code %d", err, daemon.ExitPromise)
	}
	summary := decode(t, stdout)
	missing, _ := summary["missing"].([]any)
	if summary["ok"] != false || len(missing) != 1 {
		t.Fatalf("ok = %v, missing %v", summary["ok"], missing)
	}
	what, _ := missing[0].(string)
	if !strings.Contains(what, "is not ready after 1ms") || !strings.Contains(stderr.String(), what) {
		t.Errorf("missing %q, error %q", what, stderr.String())
	}
	if servers, ok := summary["servers"].(map[string]any); !ok || servers["dir"] == "" || servers["postgresPid"] == 0.0 {
		t.Errorf("the folder with the logs is not named: %v", summary["servers"])
	}
}

// TestStopLeavesNothing ends the program, once events flow, as Ctrl-C, an init
// system, a terminal that closes and a reader that goes do.
func TestStopLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			stopBy(t, func(p *os.Process, _ io.Closer) error { return p.Signal(signal) })
		})
	}
	t.Run("closed pipe", func(t *testing.T) {
		t.Parallel()
		stopBy(t, func(_ *os.Process, stdout io.Closer) error { return stdout.Close() })
	})
}

func stopBy(t *testing.T, stop func(*os.Process, io.Closer) error) {
	cmd := program(t, "--rate", "50")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	var servers []string
	flowing := false
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, "logs "); ok {
			dir = filepath.Dir(strings.TrimSpace(rest))
			servers = working(t, dir)
		}
		if strings.HasPrefix(line, "rows=") && !strings.Contains(line, "archived=0 ") && !flowing {
			flowing = true
			if err := stop(cmd.Process, stdout); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !flowing {
		t.Fatalf("ended with %v; events flowed: %t", err, flowing)
	}
	if len(servers) == 0 {
		t.Errorf("no server was found to work in %q", dir)
	}
	if left := working(t, dir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("folder %s is still there: %v", dir, err)
	}
}

// working gives the processes whose working folder is below dir.
func working(t *testing.T, dir string) []string {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(processes) == 0 || dir == "" {
		t.Fatalf("list processes in %q: %v, found %d", dir, err, len(processes))
	}
	return slices.DeleteFunc(processes, func(process string) bool {
		wd, err := os.Readlink(filepath.Join(process, "cwd")) // none: it has ended, or is somebody else's
		return err != nil || !strings.HasPrefix(wd, dir+"/")
	})
}

func TestWrongUse(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--json"}, {"--rate", "-1"}, {"--once", "--timeout", "-1s"}, {"--unknown"}, {"--dir", "."}} {
		var stdout, stderr bytes.Buffer
		err := run(t.Context(), args, &stdout, &stderr)
		if exit, ok := errors.AsType[*daemon.ExitError](err); !ok || exit.Code != daemon.ExitUsage {
			t.Errorf("%v: %v, want wrong use", args, err)
		}
		if stdout.Len() > 0 {
			t.Errorf("%v: prints %q", args, &stdout)
		}
	}
}
