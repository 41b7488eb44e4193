package bsonjson_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"github.com/seed-048de892/walpost/archive/bsonjson"
)

// convert gives the document {v: value of src}.
func convert(t testing.TB, c *bsonjson.Converter, src string) (bson.Raw, bool) {
	t.Helper()
	start, b := bsoncore.AppendDocumentStart(nil)
	before := len(b)
	b, ok := c.AppendElement(b, "v", []byte(src))
	if !ok && len(b) != before {
		t.Fatalf("AppendElement(%q) = false, but %d bytes were appended", src, len(b)-before)
	}
	b, err := bsoncore.AppendDocumentEnd(b, start)
	if err != nil {
		t.Fatal(err)
	}
	raw := bson.Raw(b)
	if err := raw.Validate(); err != nil {
		t.Fatalf("AppendElement(%q) gives invalid BSON: %v", src, err)
	}
	return raw, ok
}

func decimal(t testing.TB, s string) bson.Decimal128 {
	t.Helper()
	d, err := bson.ParseDecimal128(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestValues(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		in   string
		want any
	}{
		"null":                      {"null", nil},
		"true":                      {"true", true},
		"false":                     {" \t\r\nfalse ", false},
		"zero":                      {"0", int32(0)},
		"largest int32":             {"2147483647", int32(math.MaxInt32)},
		"beyond int32":              {"2147483648", int64(math.MaxInt32 + 1)},
		"smallest int32":            {"-2147483648", int32(math.MinInt32)},
		"largest int64":             {"9223372036854775807", int64(math.MaxInt64)},
		"smallest int64":            {"-9223372036854775808", int64(math.MinInt64)},
		"round int64":               {"1000000000000000000", int64(1e18)},
		"beyond int64, exact":       {"9223372036854775808", decimal(t, "9223372036854775808")},
		"beyond int64, a double":    {"10000000000000000000000", 1e22},
		"tenth":                     {"0.1", 0.1},
		"whole with fraction":       {"1.0", 1.0},
		"exponent":                  {"1e3", 1000.0},
		"capital exponent":          {"1E+3", 1000.0},
		"minus zero":                {"-0", math.Copysign(0, -1)},
		"zero to any power":         {"0e999999999999", 0.0},
		"17 digits that survive":    {"0.30000000000000004", 0.30000000000000004},
		"17 digits that do not":     {"0.30000000000000002", decimal(t, "0.30000000000000002")},
		"largest double":            {"1.7976931348623157e308", math.MaxFloat64},
		"smallest double":           {"5e-324", 5e-324},
		"beyond double":             {"1e400", decimal(t, "1E400")},
		"below double":              {"-25e-400", decimal(t, "-25E-400")},
		"34 digits":                 {"1234567890123456789012345678901234", decimal(t, "1234567890123456789012345678901234")},
		"money of 34 digits":        {"-12345678901234567890123456789012.34", decimal(t, "-12345678901234567890123456789012.34")},
		"decimal128's largest":      {"9.999999999999999999999999999999999e6144", decimal(t, "9.999999999999999999999999999999999E6144")},
		"decimal128's smallest":     {"1e-6176", decimal(t, "1E-6176")},
		"decimal128 clamped":        {"1e6112", decimal(t, "10E6111")},
		"empty string":              {`""`, ""},
		"plain string":              {`"walpost"`, "walpost"},
		"UTF-8":                     {`"Zürich 🐘"`, "Zürich 🐘"},
		"escapes":                   {`"\"\\\/\b\f\n\r\t\u00e9"`, "\"\\/\b\f\n\r\té"},
		"surrogate pair":            {`"\ud83d\uDC18"`, "🐘"},
		"NUL in a string":           {`"a\u0000b"`, "a\x00b"},
		"empty array":               {"[ ]", bson.A{}},
		"array":                     {"[1 , \"a\",[null]]", bson.A{int32(1), "a", bson.A{nil}}},
		"empty object":              {"{ }", bson.D{}},
		"object keeps its order":    {`{"b":1, "a" : {"c":2.5}}`, bson.D{{Key: "b", Value: int32(1)}, {Key: "a", Value: bson.D{{Key: "c", Value: 2.5}}}}},
		"odd names":                 {`{"":1,"a.b":2,"$c":3}`, bson.D{{Key: "", Value: int32(1)}, {Key: "a.b", Value: int32(2)}, {Key: "$c", Value: int32(3)}}},
		"one name in two objects":   {`{"a":{"a":1},"b":{"a":1}}`, bson.D{{Key: "a", Value: bson.D{{Key: "a", Value: int32(1)}}}, {Key: "b", Value: bson.D{{Key: "a", Value: int32(1)}}}}},
		"array of more than ten":    {"[0,1,2,3,4,5,6,7,8,9,10]", bson.A{int32(0), int32(1), int32(2), int32(3), int32(4), int32(5), int32(6), int32(7), int32(8), int32(9), int32(10)}},
		"replacement char as input": {"\"\uFFFD\"", "\uFFFD"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, err := bson.Marshal(bson.D{{Key: "v", Value: tt.want}})
			if err != nil {
				t.Fatal(err)
			}
			got, ok := convert(t, new(bsonjson.Converter), tt.in)
			if !ok || !bytes.Equal(got, want) {
				t.Errorf("convert %q = %v, %t; want %v", tt.in, got, ok, bson.Raw(want))
			}
		})
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	many := `{"k":0`
	for i := range 40 {
		many += `,"k` + strings.Repeat("x", i+1) + `":0`
	}
	tests := map[string]string{
		"nothing":                     "",
		"space":                       " ",
		"two values":                  "1 2",
		"bare word":                   "nul",
		"longer word":                 "nulll",
		"leading zero":                "01",
		"plus":                        "+1",
		"no digits":                   "-",
		"no fraction":                 "1.",
		"no whole":                    ".5",
		"no exponent":                 "1e",
		"35 digits":                   "12345678901234567890123456789012345",
		"beyond decimal128":           "1e6145",
		"below decimal128":            "1e-6177",
		"huge exponent":               "1e99999999999999999999",
		"open string":                 `"a`,
		"control character":           "\"a\nb\"",
		"unknown escape":              `"\x"`,
		"cut escape":                  `"\`,
		"cut unicode":                 `"\u12`,
		"bad unicode":                 `"\u12g4"`,
		"high surrogate alone":        `"\ud83d"`,
		"high surrogate and another":  `"\ud83d\ud83d"`,
		"low surrogate alone":         `"\udc18"`,
		"invalid UTF-8":               "\"\xff\"",
		"invalid UTF-8 before escape": "\"\xc3\\n\"",
		"name with NUL":               `{"a\u0000":1}`,
		"name twice":                  `{"a":1,"a":2}`,
		"name twice, written apart":   `{"a":1,"\u0061":2}`,
		"name twice among many":       many + `,"kxxx":1}`,
		"trailing comma":              "[1,]",
		"trailing comma in object":    `{"a":1,}`,
		"missing colon":               `{"a" 1}`,
		"name is no string":           "{1:1}",
		"open array":                  "[1",
		"open object":                 `{"a":1`,
		"brackets that do not match":  "[}",
		"too deep":                    strings.Repeat("[", bsonjson.MaxDepth+1) + strings.Repeat("]", bsonjson.MaxDepth+1),
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, ok := convert(t, new(bsonjson.Converter), in); ok {
				t.Errorf("convert %q = %v, want it refused", in, got)
			}
		})
	}
	deepest := strings.Repeat("[", bsonjson.MaxDepth) + strings.Repeat("]", bsonjson.MaxDepth)
	if _, ok := convert(t, new(bsonjson.Converter), deepest); !ok {
		t.Errorf("an array %d deep is refused", bsonjson.MaxDepth)
	}
	if _, ok := convert(t, new(bsonjson.Converter), many+"}"); !ok {
		t.Error("an object of 41 different names is refused")
	}
}

func TestRefusedLeavesTheConverterUsable(t *testing.T) {
	t.Parallel()
	var c bsonjson.Converter
	if _, ok := convert(t, &c, `{"a":{"b":1,"c":`); ok {
		t.Fatal("an open object is accepted")
	}
	if _, ok := convert(t, &c, `{"b":1}`); !ok {
		t.Error("an object is refused after another one was cut")
	}
}

const sample = `{"id":"0190163d-8694-739b-aea5-966c26f8ad91","email":"ada@example.org","name":"Ada Lovelace","age":36,
"balance":1234.56,"active":true,"tags":["a","b","c"],"address":{"street":"St James's Square 12","city":"London","zip":"SW1Y 4JH"},
"createdAt":"2026-01-31T12:00:00.123456Z","note":"Analytical \"Engine\"","manager":null,"score":0.87}`

func TestConvertingAllocatesNothing(t *testing.T) {
	var c bsonjson.Converter
	src, dst := []byte(sample), make([]byte, 0, 4096)
	got := testing.AllocsPerRun(100, func() {
		if _, ok := c.AppendElement(dst, "v", src); !ok {
			t.Fatal("the sample is refused")
		}
	})
	if got != 0 {
		t.Errorf("%v allocations, want none", got)
	}
}

func BenchmarkAppendElement(b *testing.B) {
	var c bsonjson.Converter
	src, dst := []byte(sample), make([]byte, 0, 4096)
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := c.AppendElement(dst, "v", src); !ok {
			b.Fatal("the sample is refused")
		}
	}
}
