package e2e

import (
	"os/exec"
	"syscall"
	"testing"
)

// A program is one of ours as a process that is started and killed again.
type program struct {
	t    *testing.T
	args []string
	cmd  *exec.Cmd
}

func (p *program) start() {
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p.t.Output(), p.t.Output()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// kill ends the process as kill -9 does, and waits for it.
func (p *program) kill() {
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Error(err)
	}
	_ = p.cmd.Wait() // its error is the kill
}
