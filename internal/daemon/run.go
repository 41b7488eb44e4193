package daemon

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Run runs parts side by side until ctx ends or one of them returns, then ends
// the context of the others, and returns after all have returned, with the
// first error. A part that returns nil before ctx ends stops the others too:
// a daemon has no part it can do without.
//
// An error that comes after ctx has ended is given as well: a stop that was
// not clean is worth knowing. Parts return nil when they stop because ctx did.
func Run(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for _, part := range parts {
		group.Go(func() error {
			defer cancel()
			return part(ctx)
		})
	}
	return group.Wait()
}
