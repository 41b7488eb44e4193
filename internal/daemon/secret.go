package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"github.com/alecthomas/kong"
)

// A Secret is a flag that the environment or the YAML file sets, never the
// command line, which every account of the machine can read. It prints as
// "[secret]" in logs, errors and JSON; string(s) is what it holds.
type Secret string

// BeforeApply refuses the command line. Kong calls it.
func (Secret) BeforeApply(ctx *kong.Context, trace *kong.Path) error {
	if !slices.Contains(ctx.Path, trace) || trace.Resolved {
		return nil
	}
	return fmt.Errorf("--%s: refused on the command line, which other accounts can read; use --%[1]s-file or a variable (change the secret: it has been seen)", trace.Flag.Name)
}

const hidden = "[secret]"

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue is String, for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String, for JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the secret as it is.
func (s *Secret) UnmarshalText(b []byte) error {
	*s = Secret(b)
	return nil
}

// maxSecret is far beyond any password, token or connection string, and stops
// a path that names something else.
const maxSecret = 1 << 20

// ReadSecret gives what the file holds, without the line break at its end.
// Errors name the file and never what is in it.
func ReadSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	switch {
	case err != nil:
		return "", err
	case len(b) == 0:
		err = errors.New("is empty")
	case len(b) > maxSecret:
		err = fmt.Errorf("has more than %d bytes", maxSecret)
	case bytes.ContainsAny(b, "\n\x00"):
		err = errors.New("holds more than one line")
	default:
		return string(b), nil
	}
	return "", fmt.Errorf("%s %w", path, err)
}
