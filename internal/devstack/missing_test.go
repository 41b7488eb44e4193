package devstack_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-048de892/walpost/internal/devstack"
)

func TestMissingProgramsNameTheCommandThatInstallsThem(t *testing.T) {
	tests := map[string]struct {
		programs []string // that are there
		start    func(t *testing.T, dir string) error
		want     string
	}{
		"nothing to fetch PostgreSQL with": {
			start: func(t *testing.T, dir string) error {
				_, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Dir: dir, Version: "18"})
				return err
			},
			want: "apt-get install postgresql-18",
		},
		"no java": {
			programs: []string{"mvn"},
			start:    startKafka,
			want:     "apt-get install default-jre-headless maven",
		},
		"no mvn": {
			programs: []string{"java"},
			start:    startKafka,
			want:     "apt-get install maven",
		},
		"no pgbouncer": {
			start: func(t *testing.T, dir string) error {
				_, err := devstack.StartPgbouncer(t.Context(), devstack.PgbouncerOptions{Dir: dir, Postgres: "postgres://u:p@127.0.0.1:1/d"})
				return err
			},
			want: "apt-get install pgbouncer",
		},
		"no mongod and no python": {
			start: func(t *testing.T, dir string) error {
				_, err := devstack.StartMongo(t.Context(), devstack.MongoOptions{Dir: dir})
				return err
			},
			want: "apt-get install python3-venv",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			for _, p := range tt.programs {
				if err := os.WriteFile(filepath.Join(bin, p), []byte("#!/bin/sh\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cache := t.TempDir()
			t.Setenv("PATH", bin)
			t.Setenv("JAVA_HOME", "")
			t.Setenv("WALPOST_CACHE", cache)
			t.Setenv("WALPOST_MONGO_URI", "")
			t.Setenv("WALPOST_POSTGRES_BIN", "")
			err := tt.start(t, t.TempDir())
			missing, ok := errors.AsType[*devstack.MissingError](err)
			if !ok {
				t.Fatalf("error = %v, want a MissingError", err)
			}
			if !strings.HasPrefix(missing.Install, tt.want) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want it to say %q", err, tt.want)
			}
			if left, _ := filepath.Glob(filepath.Join(cache, "*.partial")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func startKafka(t *testing.T, dir string) error {
	_, err := devstack.StartKafka(t.Context(), devstack.KafkaOptions{Dir: dir})
	return err
}

func onPath(t *testing.T, program string) bool {
	t.Helper()
	_, err := exec.LookPath(program)
	return err == nil
}

// pathOf makes a PATH with these programs only.
func pathOf(t *testing.T, programs ...string) string {
	t.Helper()
	bin := t.TempDir()
	for _, p := range programs {
		path, err := exec.LookPath(p)
		if err == nil {
			err = os.Symlink(path, filepath.Join(bin, p))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return bin
}
