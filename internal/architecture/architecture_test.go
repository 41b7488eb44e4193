package architecture_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/seed-048de892/walpost/"

// A listed package is one line of go list.
type listed struct {
	ImportPath string
	Deps       []string // through every layer, without tests
}

// list gives the packages of the module in dir.
func list(t *testing.T, dir string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Deps", "./...")
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list in %s: %v\n%s", dir, err, stderr.String())
	}
	var packages []listed
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("read the output of go list: %v", err)
		}
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		t.Fatalf("go list found no package in %s", dir)
	}
	return packages
}

// within reports whether the package path is in one of rooms, or below it.
func within(path string, rooms ...string) bool {
	return slices.ContainsFunc(rooms, func(room string) bool {
		return path == module+room || strings.HasPrefix(path, module+room+"/")
	})
}

// TestImportDirections checks the dependencies of each room through every
// layer: what a room may not import, nothing it imports may bring.
func TestImportDirections(t *testing.T) {
	t.Parallel()
	packages := list(t, filepath.Join("..", ".."))

	// What of this repository a room may know, itself aside. cmd and
	// internal/devstack may know all, so they stand in no row.
	rooms := []struct {
		room string
		may  []string
	}{
		{"relay", []string{"outbox"}},
		{"archive", []string{"outbox"}},
		{"services", []string{"outbox", "migrations", "internal/daemon"}},
		{"migrations", []string{"outbox/schema"}},
		{"internal/daemon", nil},
	}
	for _, r := range rooms {
		found := false
		for _, p := range packages {
			if !within(p.ImportPath, r.room) {
				continue
			}
			found = true
			for _, dep := range p.Deps {
				if strings.HasPrefix(dep, module) && !within(dep, r.room) && !within(dep, r.may...) {
					t.Errorf("%s depends on %s: %s may know itself and %q", p.ImportPath, dep, r.room, r.may)
				}
			}
		}
		if !found {
			t.Errorf("room %s has no package: rename it here too", r.room)
		}
	}
}

// TestServicesDoNotKnowEachOther: each owns its database, and learns of the
// others from Kafka. What they share is services/web.
func TestServicesDoNotKnowEachOther(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, filepath.Join("..", "..")) {
		if !within(p.ImportPath, "services") {
			continue
		}
		service, _, _ := strings.Cut(strings.TrimPrefix(p.ImportPath, module+"services/"), "/")
		for _, dep := range p.Deps {
			if within(dep, "services") && !within(dep, "services/"+service, "services/web") {
				t.Errorf("%s depends on %s: services share services/web only", p.ImportPath, dep)
			}
		}
	}
}

// TestNoTestCodeInPrograms keeps the servers of demo and tests out of what is
// deployed.
func TestNoTestCodeInPrograms(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, filepath.Join("..", "..")) {
		if !within(p.ImportPath, "cmd/relay", "cmd/archive", "cmd/user", "cmd/inbox") {
			continue
		}
		for _, dep := range p.Deps {
			if dep == "testing" || within(dep, "internal/devstack") {
				t.Errorf("%s depends on %s, which is for the demo and tests", p.ImportPath, dep)
			}
		}
	}
}

// TestOutboxStaysLight: a service that imports the library gets pgx and the
// Kafka client's record type, with what these bring, and nothing else.
func TestOutboxStaysLight(t *testing.T) {
	t.Parallel()
	allowed := []string{
		module + "outbox",
		"github.com/jackc/pgx/v5", "github.com/jackc/puddle/v2", "golang.org/x/sync", "github.com/jackc/pgpassfile", "github.com/jackc/pgservicefile",
		"github.com/twmb/franz-go", "github.com/klauspost/compress", "github.com/pierrec/lz4/v4",
		"golang.org/x/text", "golang.org/x/crypto",
	}
	for _, p := range list(t, filepath.Join("..", "..", "outbox")) {
		for _, dep := range p.Deps {
			first, _, _ := strings.Cut(dep, "/")
			standard := !strings.Contains(first, ".")
			ok := standard || slices.ContainsFunc(allowed, func(a string) bool { return dep == a || strings.HasPrefix(dep, a+"/") })
			if !ok {
				t.Errorf("%s now depends on %s", p.ImportPath, dep)
			}
		}
	}
}
