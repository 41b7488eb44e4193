package devstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A command describes a server program to run.
type command struct {
	path    string
	args    []string
	env     []string // beyond our own environment
	dir     string   // working folder, private to this server: see vacant
	log     string   // file that output is appended to
	account *syscall.Credential
	death   syscall.Signal // what the server gets when we die
}

// A process is a running server program. It dies with this process.
type process struct {
	// PID is the server's process id.
	PID int

	proc *os.Process
	log  string
	done chan struct{} // closed once the process is reaped
	err  error         // how it ended; read after done
}

func (c command) start(h *home) (*process, error) {
	if err := os.MkdirAll(filepath.Dir(c.log), 0o755); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(c.path, c.args...) //nolint:noctx // outlives the context of its start
	cmd.Dir, cmd.Env = c.dir, append(os.Environ(), c.env...)
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own: Ctrl-C in a terminal is for us, and we stop the
	// servers in the right order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: c.death, Credential: c.account}
	p := &process{log: c.log, done: make(chan struct{})}
	started := make(chan error)
	go p.supervise(cmd, h, started)
	if err := <-started; err != nil {
		return nil, err
	}
	p.PID, p.proc = cmd.Process.Pid, cmd.Process
	return p, nil
}

// supervise starts cmd and waits for its end, which every Stop and Kill brings
// about; h is released then. The goroutine keeps its thread for that long,
// since the parent-death signal fires when the forking thread ends, not the
// process; it never unlocks it, so the runtime ends the thread as well.
func (p *process) supervise(cmd *exec.Cmd, h *home, started chan<- error) {
	runtime.LockOSThread()
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	started <- nil
	p.err = cmd.Wait()
	h.release()
	close(p.done)
}

// Done is closed when the server has ended, for whatever reason.
func (p *process) Done() <-chan struct{} { return p.done }

// Kill ends the server at once with SIGKILL, as a crash would, and returns
// when it is gone. Killing an ended server does nothing.
func (p *process) Kill() error {
	if err := p.proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	<-p.done
	return nil
}

// Pause stops the server as it stands, with SIGSTOP: its connections stay open
// and get no answer. Of PostgreSQL only the postmaster stands still, which
// takes new connections; the others have process ids of their own.
func (p *process) Pause() error { return p.signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (p *process) Resume() error { return p.signal(syscall.SIGCONT) }

func (p *process) signal(sig syscall.Signal) error {
	if err := p.proc.Signal(sig); err != nil {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// stop sends the signals one after the other, the next one when the server is
// still there at the end of ctx and then every five seconds, and SIGKILL last.
func (p *process) stop(ctx context.Context, signals ...syscall.Signal) error {
	for _, sig := range signals {
		if err := p.proc.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("signal process %d: %w", p.PID, err)
		}
		select {
		case <-p.done:
			return nil
		case <-ctx.Done():
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout( //nolint:fatcontext // two rounds at most
				context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
		}
	}
	return p.Kill()
}

// await returns when probe says the server is ready. If the server ends first,
// or ctx does, the server is gone when await returns.
func (p *process) await(ctx context.Context, probe func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !probe(ctx) {
		select {
		case <-p.done:
			return fmt.Errorf("it ended before it was ready: %w", cmp.Or(p.err, errors.New("exit status 0")))
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("not ready in time: %w", ctx.Err()), p.Kill())
		case <-tick.C:
		}
	}
	return nil
}

// startError wraps err with what the operator needs next.
func startError(server, dir, log string, err error) error {
	if err == nil {
		return nil
	}
	e := &StartError{Server: server, Dir: dir, Err: err, Log: tail(log)}
	if e.Log != "" {
		e.Hint = "less +G " + log
	}
	return e
}

// tail gives the end of a log file, whole lines, or nothing.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	lines = lines[max(0, len(lines)-20):]
	text := strings.Join(lines, "\n")
	return text[max(0, len(text)-4000):]
}

// vacant waits until no process works in dir. A server that was killed, or
// whose parent was, can need a moment to go, and so can the children of a
// killed one: they hold its files and shared memory. Every server has its own
// dir as working folder, which is how they are told apart; as root the servers
// of every account can be seen, else only our own, which are the ones meant.
func vacant(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		pids := working(dir)
		if len(pids) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("a server that this process did not start still runs there as process %s",
				strings.Join(pids, ", "))
		}
	}
}

func working(dir string) []string {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	return slices.DeleteFunc(procs, func(proc string) bool {
		wd, err := os.Readlink(filepath.Join(proc, "cwd"))
		return err != nil || wd != dir
	})
}
