package mergepatch_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/archive/mergepatch"
)

func apply(t rapid.TB, patches ...string) string {
	t.Helper()
	var d mergepatch.Document
	for _, p := range patches {
		if err := d.Apply([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := json.Marshal(&d)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// The examples of RFC 7396, appendix A, and what the appendix leaves open.
func TestApply(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ target, patch, want string }{
		"replace a member":            {`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		"add a member":                {`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		"remove the only member":      {`{"a":"b"}`, `{"a":null}`, `{}`},
		"remove one of two":           {`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		"array by string":             {`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		"string by array":             {`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		"nested":                      {`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		"array of objects":            {`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		"array by array":              {`["a","b"]`, `["c","d"]`, `["c","d"]`},
		"object by array":             {`{"a":"b"}`, `["c"]`, `["c"]`},
		"object by null":              {`{"a":"foo"}`, `null`, `null`},
		"object by string":            {`{"a":"foo"}`, `"bar"`, `"bar"`},
		"null stays in the target":    {`{"e":null}`, `{"a":1}`, `{"a":1}`},
		"array by object":             {`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		"nothing by nested null":      {`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		"null in an array stays":      {`{}`, `{"a":[null]}`, `{"a":[null]}`},
		"numbers keep their digits":   {`{"a":1.10}`, `{"b":12345678901234567890.123456789e2}`, `{"a":1.10,"b":12345678901234567890.123456789e2}`},
		"characters are not escaped":  {`{"a":"<&>"}`, `{}`, `{"a":"<&>"}`},
		"the last of two names count": {`{}`, `{"a":1,"a":2}`, `{"a":2}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d mergepatch.Document
			for _, p := range []string{tt.target, tt.patch} {
				if err := d.Apply([]byte(p)); err != nil {
					t.Fatal(err)
				}
			}
			got, err := d.MarshalJSON()
			if err != nil || string(got) != tt.want {
				t.Errorf("%s patched by %s = %s, %v; want %s", tt.target, tt.patch, got, err, tt.want)
			}
		})
	}
}

func TestBadPatchChangesNothing(t *testing.T) {
	t.Parallel()
	var d mergepatch.Document
	if !d.IsZero() {
		t.Error("the zero document has a value")
	}
	if err := d.Apply([]byte(`{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", `{"a":2`, `{"a":2} {}`, "nope"} {
		if err := d.Apply([]byte(bad)); err == nil {
			t.Errorf("patch %q is accepted", bad)
		}
	}
	if got, err := d.MarshalJSON(); err != nil || string(got) != `{"a":1}` {
		t.Errorf("after bad patches the document is %s, %v; want what it was", got, err)
	}
}

// value draws a JSON value from few names, so that patches meet.
func value(depth int, nulls bool) *rapid.Generator[any] {
	leaves := []*rapid.Generator[any]{
		rapid.Just[any]("x"), rapid.Just[any](json.Number("1.50")), rapid.Just[any](true), rapid.Just[any]([]any{nil, "y"}),
	}
	if nulls {
		leaves = append(leaves, rapid.Just[any](nil))
	}
	if depth > 0 {
		leaves = append(leaves, object(depth-1, nulls).AsAny())
	}
	return rapid.OneOf(leaves...)
}

func object(depth int, nulls bool) *rapid.Generator[map[string]any] {
	return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c"}), value(depth, nulls), 0, 3)
}

func text(t *rapid.T, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// diff is the patch that makes b of a, both objects without nulls.
func diff(a, b map[string]any) map[string]any {
	patch := map[string]any{}
	for name := range a {
		if _, ok := b[name]; !ok {
			patch[name] = nil
		}
	}
	for name, to := range b {
		from, ok := a[name]
		if ok && cmp.Equal(from, to) {
			continue
		}
		fromObject, ok1 := from.(map[string]any)
		toObject, ok2 := to.(map[string]any)
		if ok1 && ok2 {
			patch[name] = diff(fromObject, toObject)
		} else {
			patch[name] = to
		}
	}
	return patch
}

func TestLaws(t *testing.T) {
	t.Parallel()
	t.Run("a patch twice is a patch once", rapid.MakeCheck(func(t *rapid.T) {
		target, patch := text(t, object(2, false).Draw(t, "target")), text(t, value(2, true).Draw(t, "patch"))
		once, twice := apply(t, target, patch), apply(t, target, patch, patch)
		if once != twice {
			t.Fatalf("once %s, twice %s", once, twice)
		}
	}))
	t.Run("an empty object changes no object", rapid.MakeCheck(func(t *rapid.T) {
		target := text(t, object(2, false).Draw(t, "target"))
		if got := apply(t, target, `{}`); got != apply(t, target) {
			t.Fatalf("got %s, want %s", got, target)
		}
	}))
	t.Run("the difference makes the one of the other", rapid.MakeCheck(func(t *rapid.T) {
		a, b := object(2, false).Draw(t, "a"), object(2, false).Draw(t, "b")
		if got, want := apply(t, text(t, a), text(t, diff(a, b))), text(t, b); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}))
	t.Run("states written whole or as differences come to the same", rapid.MakeCheck(func(t *rapid.T) {
		states := rapid.SliceOfN(object(2, false), 1, 6).Draw(t, "states")
		patches := []string{text(t, states[0])}
		for i := 1; i < len(states); i++ {
			patches = append(patches, text(t, diff(states[i-1], states[i])))
		}
		if got, want := apply(t, patches...), text(t, states[len(states)-1]); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}))
}
