package daemon

import (
	"fmt"
	"runtime/debug"
)

// VersionCommand prints the version the program was built from.
type VersionCommand struct{}

// Run prints it.
func (VersionCommand) Run(out Output) error {
	_, err := fmt.Fprintln(out.Stdout, Version())
	return err
}

// Version is the version of the main module, "(devel)" for a build from a
// checkout.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}
