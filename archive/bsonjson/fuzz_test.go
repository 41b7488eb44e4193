package bsonjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/seed-048de892/walpost/archive/bsonjson"
)

// FuzzAgainstEncodingJSON asks that what is accepted is JSON and reads back as
// the same value, and that what is refused is not JSON or holds one of the
// things that the package documents.
func FuzzAgainstEncodingJSON(f *testing.F) {
	for _, seed := range []string{
		"null", "[1,2.5,-0,1e400,0.30000000000000002]", `{"a":{"b":[true,false,null]},"c":"\ud83d\udc18"}`,
		`{"a":1,"a":2}`, `{"a\u0000":1}`, `"\ud83d"`, "\"\xff\"", "123456789012345678901234567890123456", "1e7000", sample,
		"9007199254740993", "0.1e-5", "[[[[]]]]", "1.7976931348623159e308", "1000000000000000000000000000000000000000000",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		raw, ok := convert(t, new(bsonjson.Converter), string(src))
		switch {
		case ok && !json.Valid(src):
			t.Fatalf("accepted %q, which is not JSON", src)
		case ok:
			if err := same(raw.Lookup("v"), src); err != nil {
				t.Fatalf("%q became %v: %v", src, raw, err)
			}
		case json.Valid(src):
			if why := holdable(src); why == "" {
				t.Fatalf("refused %q for no documented reason", src)
			}
		}
	})
}

// same compares the value with what encoding/json reads.
func same(got bson.RawValue, src []byte) error {
	d := json.NewDecoder(bytes.NewReader(src))
	d.UseNumber()
	var want any
	if err := d.Decode(&want); err != nil {
		return err
	}
	return equal(got, want)
}

func equal(got bson.RawValue, want any) error {
	switch want := want.(type) {
	case nil:
		if got.Type != bson.TypeNull {
			return fmt.Errorf("got %v, want null", got)
		}
	case bool:
		if b, ok := got.BooleanOK(); !ok || b != want {
			return fmt.Errorf("got %v, want %t", got, want)
		}
	case string:
		if s, ok := got.StringValueOK(); !ok || s != want {
			return fmt.Errorf("got %v, want %q", got, want)
		}
	case json.Number:
		return equalNumber(got, string(want))
	case []any:
		array, ok := got.ArrayOK()
		if !ok {
			return fmt.Errorf("got %v, want an array", got)
		}
		elements, err := bson.Raw(array).Elements() // Values would not check the names
		if err != nil || len(elements) != len(want) {
			return fmt.Errorf("got %d elements, want %d (%w)", len(elements), len(want), err)
		}
		for i, e := range elements {
			if e.Key() != strconv.Itoa(i) {
				return fmt.Errorf("element %d is named %q", i, e.Key())
			}
			if err := equal(e.Value(), want[i]); err != nil {
				return err
			}
		}
	case map[string]any:
		document, ok := got.DocumentOK()
		if !ok {
			return fmt.Errorf("got %v, want a document", got)
		}
		elements, err := document.Elements()
		if err != nil || len(elements) != len(want) {
			return fmt.Errorf("got %d members, want %d (%w)", len(elements), len(want), err)
		}
		for _, e := range elements {
			value, ok := want[e.Key()]
			if !ok {
				return fmt.Errorf("member %q is new", e.Key())
			}
			if err := equal(e.Value(), value); err != nil {
				return err
			}
		}
	}
	return nil
}

// equalNumber compares numbers as they are written, or would be shortest.
func equalNumber(got bson.RawValue, want string) error {
	var text string
	switch got.Type {
	case bson.TypeInt32:
		text = strconv.FormatInt(int64(got.Int32()), 10)
	case bson.TypeInt64:
		text = strconv.FormatInt(got.Int64(), 10)
		if got.Int64() == int64(int32(got.Int64())) {
			return errors.New("an int64 that fits an int32")
		}
	case bson.TypeDouble:
		text = strconv.FormatFloat(got.Double(), 'e', -1, 64)
		if strings.HasPrefix(want, "-") != strings.HasPrefix(text, "-") {
			return fmt.Errorf("got %s, want %s", text, want)
		}
	case bson.TypeDecimal128:
		d := got.Decimal128()
		text = d.String()
	default:
		return fmt.Errorf("got %v, want the number %s", got, want)
	}
	// Exponents are bounded here: decimal128 ends at 6144, and what is
	// accepted beyond that can only be zero.
	if zero(want) {
		if !zero(text) {
			return fmt.Errorf("got %s, want %s", text, want)
		}
		return nil
	}
	a, ok1 := new(big.Rat).SetString(text)
	b, ok2 := new(big.Rat).SetString(want)
	if !ok1 || !ok2 || a.Cmp(b) != 0 {
		return fmt.Errorf("got %s, want %s", text, want)
	}
	return nil
}

func zero(number string) bool {
	digits, _, _ := strings.Cut(strings.ToLower(number), "e")
	return !strings.ContainsAny(digits, "123456789")
}

// holdable says which documented reason keeps the JSON text src from BSON, ""
// where there is none. It knows nothing of how the converter works.
func holdable(src []byte) (why string) {
	if !utf8.Valid(src) {
		return "not UTF-8"
	}
	d := json.NewDecoder(bytes.NewReader(src))
	d.UseNumber()
	type level struct {
		names  map[string]bool // nil in an array
		isName bool            // whether the next string is a name
	}
	var levels []level
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "deeper than encoding/json reads: " + err.Error()
		}
		top := len(levels) - 1
		named := top >= 0 && levels[top].names != nil
		switch token := token.(type) {
		case json.Delim:
			switch token {
			case '{', '[':
				if named {
					levels[top].isName = true // after this value
				}
				levels = append(levels, level{isName: true})
				if token == '{' {
					levels[len(levels)-1].names = map[string]bool{}
				}
				if len(levels) > bsonjson.MaxDepth {
					return "too deep"
				}
			default:
				levels = levels[:top]
			}
			continue
		case string:
			// The decoder puts this character where a surrogate stood alone.
			if strings.ContainsRune(token, utf8.RuneError) {
				return "perhaps a lone surrogate"
			}
			if named && levels[top].isName {
				if strings.ContainsRune(token, 0) {
					return "NUL in a name"
				}
				if levels[top].names[token] {
					return "a name twice"
				}
				levels[top].names[token] = true
				levels[top].isName = false
				continue
			}
		case json.Number:
			if why := numberReason(string(token)); why != "" {
				return why
			}
		}
		if named {
			levels[top].isName = true
		}
	}
	return ""
}

func numberReason(n string) string {
	digits, exponent, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(n, "-")), "e")
	whole, fraction, _ := strings.Cut(digits, ".")
	significant := strings.Trim(whole+fraction, "0")
	if len(significant) > 34 {
		return "more than 34 digits"
	}
	e, err := strconv.Atoi("0" + strings.TrimLeft(exponent, "+-"))
	if err != nil || e > 6000 || len(digits) > 6000 {
		return "perhaps beyond decimal128"
	}
	return ""
}
