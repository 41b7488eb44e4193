package devstacktest

import (
	"os"
	"sync"
	"testing"

	"github.com/seed-048de892/walpost/internal/devstack"
)

// Dir is t.TempDir for a server's data: see [devstack.TempDir] for why that
// takes a folder of its own. It is removed at the end of the test; stop the
// server before.
func Dir(t testing.TB) string {
	t.Helper()
	parent, err := processDir()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(parent, "t") //nolint:usetesting // servers run as another account, to which t.TempDir is closed
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the test's folder: %v", err)
		}
	})
	return dir
}

// processDir is this process's folder. The process's servers, which nothing
// stops before its end, are in it, so it is left to a later process.
var processDir = sync.OnceValues(func() (string, error) {
	dir, _, err := devstack.TempDir()
	return dir, err
})
