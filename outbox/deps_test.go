package outbox_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestDependencies holds the promise that importing the library brings pgx and
// franz-go and nothing else.
func TestDependencies(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	allowed := []string{
		"github.com/seed-048de892/walpost/outbox",
		"github.com/jackc/pgx/v5", "github.com/jackc/puddle/v2", "golang.org/x/sync", "github.com/jackc/pgpassfile", "github.com/jackc/pgservicefile", "golang.org/x/text",
		"github.com/twmb/franz-go", "github.com/twmb/franz-go/pkg/kmsg", "github.com/klauspost/compress", "github.com/pierrec/lz4/v4",
	}
	seen := make(map[string]bool)
	for module := range strings.FieldsSeq(string(out)) {
		seen[module] = true
	}
	for _, module := range allowed {
		delete(seen, module)
	}
	for module := range seen {
		t.Errorf("outbox now depends on %s", module)
	}
}
