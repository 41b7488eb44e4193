package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// load reads docker-compose.yml as Docker does, the schema checked. Variables
// of the environment must not be needed: there is no .env to go with it.
func load(t *testing.T) *types.Project {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  root,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(root, "docker-compose.yml")}},
	})
	if err != nil {
		t.Fatalf("docker-compose.yml: %v", err)
	}
	return project
}

// ours are the services that are built here.
func ours(t *testing.T, project *types.Project) []types.ServiceConfig {
	t.Helper()
	var built []types.ServiceConfig
	for _, s := range project.Services {
		if s.Build != nil {
			built = append(built, s)
		}
	}
	if len(built) == 0 {
		t.Fatal("docker-compose.yml builds no service")
	}
	return built
}

// stages gives the named stages of the Dockerfile and what each begins with.
func stages(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^FROM (\S+) AS (\S+)$`).FindAllStringSubmatch(string(text), -1) {
		found[m[2]] = m[1]
	}
	return found
}

func TestServices(t *testing.T) {
	t.Parallel()
	want := []string{"archive", "kafka", "kafka-ui", "mongo", "postgres", "redis", "user", "user-migrate", "user-relay", "user-relay-streams"}
	got := load(t).ServiceNames()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("services are %q, want %q", got, want)
	}
}

func TestBuildTargetsExist(t *testing.T) {
	t.Parallel()
	targets := stages(t)
	for _, s := range ours(t, load(t)) {
		if _, ok := targets[s.Build.Target]; !ok {
			t.Errorf("service %s builds target %q, the Dockerfile has %v", s.Name, s.Build.Target, targets)
		}
	}
}

// TestOurImagesHaveNoRootAndNoShell: distroless, as a user without rights, on
// a file system that cannot be written to.
func TestOurImagesHaveNoRootAndNoShell(t *testing.T) {
	t.Parallel()
	from := stages(t)
	for _, s := range ours(t, load(t)) {
		base := s.Build.Target
		for from[base] != "" {
			base = from[base]
		}
		if !strings.Contains(base, "/distroless/static-") || !strings.HasSuffix(base, ":nonroot") {
			t.Errorf("service %s is made from %s, want distroless/static … :nonroot", s.Name, base)
		}
		if s.User != "65532:65532" || !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") {
			t.Errorf("service %s: user %q, read_only %t, cap_drop %q; want 65532:65532, true, [ALL]", s.Name, s.User, s.ReadOnly, s.CapDrop)
		}
	}
}

// TestEnvironmentIsKnown asks each program for its flags: a variable it does
// not print would be ignored without a word.
func TestEnvironmentIsKnown(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./cmd/relay", "./cmd/archive", "./cmd/user")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	commands := map[string]string{"relay": "run", "archive": "run", "user": "serve"} // as in the Dockerfile
	variable := regexp.MustCompile(`\$([A-Z][A-Z0-9_]*)`)
	for _, s := range ours(t, load(t)) {
		program := s.Build.Target
		command := commands[program]
		if len(s.Command) > 0 {
			command = s.Command[0]
		}
		help, err := exec.CommandContext(t.Context(), filepath.Join(bin, program), command, "--help").CombinedOutput()
		if err != nil {
			t.Errorf("service %s: %s %s --help: %v\n%s", s.Name, program, command, err, help)
			continue
		}
		var known []string
		for _, m := range variable.FindAllStringSubmatch(string(help), -1) {
			known = append(known, m[1])
		}
		if len(s.Environment) == 0 {
			t.Errorf("service %s is given no environment", s.Name)
		}
		for name := range s.Environment {
			if !slices.Contains(known, name) {
				t.Errorf("service %s sets %s, %s %s knows %q", s.Name, name, program, command, known)
			}
		}
	}
}

// TestImagesArePinned: at least to a major version.
func TestImagesArePinned(t *testing.T) {
	t.Parallel()
	pinned := regexp.MustCompile(`:v?[0-9]+[0-9.]*$`)
	for _, s := range load(t).Services {
		if s.Build == nil && !pinned.MatchString(s.Image) {
			t.Errorf("service %s has image %s, want a version", s.Name, s.Image)
		}
	}
	if from := stages(t)["build"]; !pinned.MatchString(from) {
		t.Errorf("the Dockerfile builds with %s, want a version", from)
	}
}

// TestPortsAreLocal: the servers ask for no password.
func TestPortsAreLocal(t *testing.T) {
	t.Parallel()
	for _, s := range load(t).Services {
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("service %s publishes port %d on %q, want 127.0.0.1", s.Name, p.Target, p.HostIP)
			}
		}
	}
}

// TestUserStartsBehindItsRelay: rows written before the slot exists are never
// delivered.
func TestUserStartsBehindItsRelay(t *testing.T) {
	t.Parallel()
	services := load(t).Services
	wait := services["user"].DependsOn["user-relay-streams"]
	if wait.Condition != types.ServiceConditionCompletedSuccessfully {
		t.Errorf("user waits for user-relay-streams with %q, want %q", wait.Condition, types.ServiceConditionCompletedSuccessfully)
	}
	if _, ok := services["user-relay-streams"].DependsOn["user-relay"]; !ok {
		t.Error("user-relay-streams does not wait for user-relay")
	}
}

// TestPostgresDecodes: the relay needs logical decoding, and a slot that is
// left behind must not fill the disk.
func TestPostgresDecodes(t *testing.T) {
	t.Parallel()
	command := load(t).Services["postgres"].Command
	for _, want := range []string{"wal_level=logical", "max_slot_wal_keep_size=4GB"} {
		if !slices.Contains(command, want) {
			t.Errorf("postgres runs with %q, want %s", command, want)
		}
	}
}
