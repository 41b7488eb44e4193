package devstack

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// secantusVersion is the version that mongo_requirements.txt pins.
const secantusVersion = "0.7.0b3"

//go:embed mongo_requirements.txt
var secantusRequirements []byte

// findSecantus gives the folder of SecantusDB's virtual environment in the
// cache, making it on first use.
func findSecantus(ctx context.Context, progress io.Writer) (string, error) {
	dir, err := download{
		name: "secantusdb-" + secantusVersion, title: "SecantusDB " + secantusVersion, size: "about 45 MB", fetch: fetchSecantus,
	}.get(ctx, progress)
	if err != nil {
		return "", err
	}
	// The environment runs on the Python it was made with.
	if !exists(filepath.Join(dir, "bin", "python")) {
		return "", fmt.Errorf("the Python that %s was made with is gone; run: rm -r %s", dir, dir)
	}
	return dir, nil
}

func fetchSecantus(ctx context.Context, dir string) error {
	missing := &MissingError{
		Programs: "mongod, or python3 with venv,", For: "MongoDB",
		Install: "apt-get install python3-venv (or set WALPOST_MONGO_URI to a server that runs)",
	}
	if !has("python3") {
		return missing
	}
	requirements := filepath.Join(dir, "requirements.txt")
	if err := os.WriteFile(requirements, secantusRequirements, 0o644); err != nil {
		return err
	}
	if err := runClient(ctx, dir, "python3", "-m", "venv", dir); err != nil {
		return fmt.Errorf("%w\n%w", missing, err)
	}
	// By python -m: a program in bin names the interpreter by a path that
	// ends with the rename of the folder.
	return runClient(ctx, dir, filepath.Join(dir, "bin", "python"), "-m", "pip", "install",
		"--quiet", "--disable-pip-version-check", "--no-cache-dir", "-r", requirements)
}
