package devstack

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// dependencyPlugin is pinned: which version Maven takes by itself depends on
// the Maven.
const dependencyPlugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:"

// has tells whether every program is on the PATH.
func has(programs ...string) bool {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return false
		}
	}
	return true
}

// runClient runs a package client in dir to its end; an error has the end of
// what it said.
func runClient(ctx context.Context, dir, program string, args ...string) error {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Clients start children (mvn is a script around java): end the group.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		text := strings.TrimSpace(out.String())
		return fmt.Errorf("%s %s: %w\n%s", program, args[0], err, text[max(0, len(text)-2000):])
	}
	return nil
}
