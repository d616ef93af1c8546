package pgtest

import (
	"os"
	"os/exec"
	"runtime"
	"time"
)

// process is one child process with the goroutine that waits for it.
type process struct {
	os    *os.Process
	ended chan struct{} // closed when the process is gone
}

// spawn starts a command. The goroutine that starts it keeps its thread until the process is gone, because on Linux
// the child is told to die with the thread that made it: no server outlives a test binary that was killed.
func spawn(cmd *exec.Cmd) (*process, error) {
	started := make(chan error, 1)
	p := &process{ended: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		dieWithParent(cmd)
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.os = cmd.Process
		started <- nil
		_ = cmd.Wait() // how it ended does not matter: it was told to
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// end asks for an immediate shutdown and waits until the process is gone, with a kill when patience is over.
func (p *process) end(patience time.Duration) {
	if err := p.os.Signal(immediate); err != nil {
		_ = p.os.Kill() // a system without signals
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.os.Kill()
		<-p.ended
	}
}
