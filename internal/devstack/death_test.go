package devstack_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

// TestMain is also a process that starts one server, says its process id and
// waits to be killed.
func TestMain(m *testing.M) {
	if server, dir := os.Getenv("DEVSTACK_TEST_SERVER"), os.Getenv("DEVSTACK_TEST_DIR"); server != "" {
		pid, err := startNamed(server, dir)
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("pid", pid)
		select {}
	}
	os.Exit(m.Run())
}

func startNamed(server, dir string) (int, error) {
	ctx := context.Background()
	switch server {
	case "postgres":
		p, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{Dir: dir, NoFsync: true})
		if err != nil {
			return 0, err
		}
		return p.PID, nil
	case "kafka":
		k, err := devstack.StartKafka(ctx, devstack.KafkaOptions{Dir: dir})
		if err != nil {
			return 0, err
		}
		return k.PID, nil
	default:
		m, err := devstack.StartMongo(ctx, devstack.MongoOptions{Dir: dir})
		if err != nil {
			return 0, err
		}
		return m.PID, nil
	}
}

func TestServersDieWithAKilledParent(t *testing.T) {
	skipShort(t)
	for _, server := range []string{"postgres", "kafka", "mongo"} {
		t.Run(server, func(t *testing.T) {
			dir := devstacktest.Dir(t)
			parent, pid := helper(t, server, dir, nil)
			if err := parent.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			gone(t, pid)
			// The next process finds the folder free, at once.
			parent, pid = helper(t, server, dir, nil)
			_ = parent.Process.Kill()
			gone(t, pid)
		})
	}
}

// TestPostgresUnderAPlainAccount runs everything as nobody, as on a
// developer's machine. Started by a plain account, all other tests do.
func TestPostgresUnderAPlainAccount(t *testing.T) {
	skipShort(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can become another account; the other tests run under a plain one already")
	}
	const nobody = 65534
	dir := filepath.Join(devstacktest.Dir(t), "own")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	parent, pid := helper(t, "postgres", filepath.Join(dir, "pg"), &syscall.Credential{Uid: nobody, Gid: nobody})
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !strings.Contains(string(status), "\nUid:\t65534\t") {
		t.Errorf("the server does not run as nobody: %v\n%s", err, status)
	}
	_ = parent.Process.Kill()
	gone(t, pid)
}

// helper runs TestMain's other half until it has started the server.
func helper(t *testing.T, server, dir string, as *syscall.Credential) (*exec.Cmd, int) {
	t.Helper()
	// A copy that any account may run: go test builds it in a folder of ours.
	program := filepath.Join(devstacktest.Dir(t), "helper")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Dir = filepath.Dir(program)
	cmd.Env = append(os.Environ(), "DEVSTACK_TEST_SERVER="+server, "DEVSTACK_TEST_DIR="+dir, "WALPOST_MONGO_URI=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(line), "pid ")
	pid, err := strconv.Atoi(text)
	if !ok || err != nil {
		t.Fatalf("the helper said %q, want a pid", line)
	}
	return cmd, pid
}
