package main

import (
	"encoding/json"
	"fmt"
	"runtime/debug"

	"github.com/seed-048de892/walpost/internal/daemon"
)

type versionCommand struct {
	JSON bool `help:"Print a JSON object."`
}

// Run prints what this program was built from.
func (c *versionCommand) Run(out daemon.Output) error {
	v := struct {
		Version  string `json:"version"`
		Revision string `json:"revision,omitempty"`
		Go       string `json:"go"`
	}{Version: "(devel)"}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Version, v.Go = info.Main.Version, info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Revision = s.Value
			}
		}
	}
	var err error
	if c.JSON {
		err = json.NewEncoder(out.Stdout).Encode(v)
	} else {
		_, err = fmt.Fprintf(out.Stdout, "archive %s %s %s\n", v.Version, v.Revision, v.Go)
	}
	if err != nil {
		return fmt.Errorf("write version: %w", err)
	}
	return nil
}
