package write_test

import "testing"

func interleaved(t *testing.T, w *world) {}
