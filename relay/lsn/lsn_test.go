package lsn_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/relay/lsn"
)

func TestParse(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		in      string
		want    lsn.Pos
		wantErr bool
	}{
		"zero":           {in: "0/0", want: 0},
		"both halves":    {in: "16/B374D848", want: 0x16_B374D848},
		"lower case":     {in: "16/b374d848", want: 0x16_B374D848},
		"leading zeros":  {in: "00000016/0000000A", want: 0x16_0000000A},
		"largest":        {in: "FFFFFFFF/FFFFFFFF", want: 1<<64 - 1},
		"empty":          {in: "", wantErr: true},
		"no slash":       {in: "16B374D848", wantErr: true},
		"empty half":     {in: "16/", wantErr: true},
		"trailing text":  {in: "16/B374D848 oops", wantErr: true},
		"a third number": {in: "16/B3/1", wantErr: true},
		"sign":           {in: "+1/2", wantErr: true},
		"nine digits":    {in: "0/000000001", wantErr: true},
		"underscore":     {in: "1_0/1", wantErr: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := lsn.Parse(tt.in)
			if gotErr := err != nil; gotErr != tt.wantErr {
				t.Fatalf("Parse(%q) error = %v, want error: %t", tt.in, err, tt.wantErr)
			}
			if got != tt.want {
				t.Errorf("Parse(%q) = %v, want %v", tt.in, got, tt.want)
			}
		})
	}
}

func TestStringIsPostgreSQLsAndReadsBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := lsn.Pos(rapid.Uint64().Draw(t, "pos"))
		if got, want := p.String(), fmt.Sprintf("%X/%X", uint32(p>>32), uint32(p)); got != want {
			t.Fatalf("String() = %q, want %q", got, want)
		}
		back, err := lsn.Parse(p.String())
		if err != nil || back != p {
			t.Fatalf("Parse(%q) = %v, %v, want %v", p.String(), back, err, p)
		}
	})
}
