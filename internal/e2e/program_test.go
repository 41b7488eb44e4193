package e2e

import (
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// A program is one of ours as a process that is started and killed again.
type program struct {
	t    *testing.T
	args []string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func (p *program) start() {
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Stdout, cmd.Stderr = p.t.Output(), p.t.Output()
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

// kill ends the process as kill -9 does. The process must still run: one that
// has ended by itself is an error.
func (p *program) kill() {
	select {
	case <-p.done:
		p.t.Errorf("%v ended by itself: %v", p.args[:2], p.cmd.ProcessState)
		return
	default:
	}
	p.end(syscall.SIGKILL)
}

// end sends sig, and returns when the process has ended.
func (p *program) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig) // it fails where the process has ended
	<-p.done
}
