package daemon

import (
	"io"
	"log/slog"
	"os"
)

// LogFlags are the logging flags of a daemon, for embedding in its kong
// struct. Give them an envprefix to name their variables.
type LogFlags struct {
	LogLevel  slog.Level `help:"Least level to log: debug, info, warn or error." default:"info" env:"LOG_LEVEL"`
	LogFormat string     `help:"auto writes text on a terminal and JSON elsewhere." enum:"auto,text,json" default:"auto" env:"LOG_FORMAT"`
}

// Logger gives a logger that writes to w.
func (f LogFlags) Logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.LogLevel}
	if f.LogFormat == "text" || f.LogFormat != "json" && isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
