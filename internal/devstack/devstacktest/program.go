package devstacktest

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// Build builds programs of this module, "cmd/relay", and gives the folder
// they are in. The working folder is two below the module's, as in a test of
// internal/….
func Build(t testing.TB, packages ...string) string {
	t.Helper()
	bin := t.TempDir()
	args := []string{"build", "-o", bin}
	for _, p := range packages {
		args = append(args, "../../"+p)
	}
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("build %v: %v\n%s", packages, err, out)
	}
	return bin
}

// A Program is a program that is started, killed and started again. It dies
// with the test process, and is killed at the end of the test. It is for one
// goroutine.
type Program struct {
	t    testing.TB
	args []string
	out  io.Writer
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// NewProgram gives a program that is not started. What it says goes to out,
// and to the test's output where out is nil.
func NewProgram(t testing.TB, out io.Writer, args ...string) *Program {
	if out == nil {
		out = t.Output()
	}
	p := &Program{t: t, args: args, out: out}
	t.Cleanup(func() {
		if p.cmd != nil {
			p.End(syscall.SIGKILL)
		}
	})
	return p
}

// Start starts the program; one that was started before must have ended.
func (p *Program) Start() {
	p.t.Helper()
	cmd := exec.Command(p.args[0], p.args[1:]...) //nolint:noctx // ended by the test's cleanup
	cmd.Stdout, cmd.Stderr = p.out, p.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		// The signal comes when the thread that started the process ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // who ended it knows how
		}
	}()
	if err := <-started; err != nil {
		p.t.Fatal(err)
	}
	p.cmd, p.done = cmd, done
}

// Kill ends the program as kill -9 does. It must still run: to have ended by
// itself fails the test.
func (p *Program) Kill() {
	p.t.Helper()
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Signal sends a signal to the program, which must still run.
func (p *Program) Signal(sig syscall.Signal) {
	p.t.Helper()
	select {
	case <-p.done:
		p.t.Fatalf("%v ended by itself: %v", p.args[:2], p.cmd.ProcessState)
	default:
		_ = p.cmd.Process.Signal(sig) // it fails where the process has just ended
	}
}

// End sends a signal, and gives how the program ended, by it or before.
func (p *Program) End(sig syscall.Signal) *os.ProcessState {
	_ = p.cmd.Process.Signal(sig) // it fails where the process has ended
	<-p.done
	return p.cmd.ProcessState
}

// Done is closed when the program started last has ended.
func (p *Program) Done() <-chan struct{} { return p.done }
