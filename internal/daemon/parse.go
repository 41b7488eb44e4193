package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kong"
	kongyaml "github.com/alecthomas/kong-yaml"
)

// ErrHelp says that help was asked for and has been printed. It ends a program
// with success.
var ErrHelp = errors.New("help was printed")

// Parse fills the kong struct cli from args, the environment and the YAML
// files it names with a kong.ConfigFlag, in this order of precedence, and runs
// the selected command's Run method with ctx and the bound values.
//
// Wrong use gives an [*ExitError] with [ExitUsage] that says how to see the
// right one.
func Parse(ctx context.Context, name, description string, cli any, args []string, stdout, stderr io.Writer, bind ...any) error {
	helped := false
	parser, err := kong.New(cli,
		kong.Name(name), kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.Configuration(kongyaml.Loader),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(Output{Stdout: stdout, Stderr: stderr}),
		kong.Bind(bind...),
	)
	if err != nil {
		return fmt.Errorf("describe the flags of %s: %w", name, err)
	}
	selected, err := parser.Parse(args)
	if helped {
		return ErrHelp
	}
	if err != nil {
		return &ExitError{Code: ExitUsage, Err: fmt.Errorf("%w; see %s --help", err, name)}
	}
	return selected.Run()
}

// Output is where a command writes: results to Stdout, logs and progress to
// Stderr. [Parse] binds it for every Run method.
type Output struct {
	Stdout, Stderr io.Writer
}
