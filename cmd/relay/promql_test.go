package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// A selector is a metric in an expression of PromQL, and the labels that are
// asked of it.
type selector struct {
	metric string
	labels []string
}

// selectors finds the metrics of an expression, and the labels that it groups
// or joins by. It knows the tokens of PromQL and not its grammar: enough to
// say which names an expression rests on.
func selectors(expression string) (metrics []selector, grouped []string, err error) {
	tokens, err := tokenize(expression)
	if err != nil {
		return nil, nil, err
	}
	at := func(i int) string {
		if i < len(tokens) {
			return tokens[i]
		}
		return ""
	}
	names := func(i int, closing string, each func(i int)) (int, error) {
		for ; at(i) != closing; i++ {
			if i >= len(tokens) {
				return i, fmt.Errorf("%s is missing", closing)
			}
			each(i)
		}
		return i, nil
	}
	depth := 0
	for i := 0; i < len(tokens); i++ {
		token := tokens[i]
		switch {
		case token == "(":
			depth++
		case token == ")":
			if depth--; depth < 0 {
				return nil, nil, fmt.Errorf("a ) too many in %s", expression)
			}
		case token == "{":
			if len(metrics) == 0 || tokens[i-1] != metrics[len(metrics)-1].metric {
				return nil, nil, fmt.Errorf("a { without a metric in %s", expression)
			}
			m := &metrics[len(metrics)-1]
			i, err = names(i+1, "}", func(i int) {
				if isName(tokens[i]) && slices.Contains([]string{"=", "!=", "=~", "!~"}, at(i+1)) {
					m.labels = append(m.labels, tokens[i])
				}
			})
		case token == "[":
			i, err = names(i+1, "]", func(int) {})
		case slices.Contains([]string{"by", "without", "on", "ignoring", "group_left", "group_right"}, token):
			if at(i+1) != "(" {
				continue
			}
			i, err = names(i+2, ")", func(i int) {
				if isName(tokens[i]) {
					grouped = append(grouped, tokens[i])
				}
			})
		case slices.Contains([]string{"and", "or", "unless", "bool", "offset"}, token), !isName(token), at(i+1) == "(":
		case slices.Contains(aggregations(), token) && at(i+1) == "by": // sum by (…) (…)
		default:
			metrics = append(metrics, selector{metric: token})
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", expression, err)
		}
	}
	if depth != 0 {
		return nil, nil, fmt.Errorf("a ( too many in %s", expression)
	}
	if len(metrics) == 0 {
		return nil, nil, fmt.Errorf("no metric in %q", expression)
	}
	return metrics, grouped, nil
}

func aggregations() []string { return []string{"sum", "min", "max", "count", "avg"} }

// tokenize cuts an expression into names, numbers with their units, strings
// and operators.
func tokenize(s string) (tokens []string, err error) {
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		n := 1
		switch c := rune(s[0]); {
		case c == '"' || c == '\'':
			n = strings.IndexRune(s[1:], c) + 2
			if n == 1 {
				return nil, fmt.Errorf("a string without an end: %s", s)
			}
		case c == '$' || isNameRune(c) || c == '.':
			for n < len(s) && (isNameRune(rune(s[n])) || s[n] == '.') {
				n++
			}
		case strings.ContainsRune("=!<>", c) && len(s) > 1 && strings.ContainsRune("=~", rune(s[1])):
			n = 2
		case !strings.ContainsRune("(){}[],+-*/%^=<>", c):
			return nil, fmt.Errorf("%q is not PromQL", c)
		}
		tokens = append(tokens, s[:n])
		s = s[n:]
	}
	return tokens, nil
}

func isNameRune(c rune) bool {
	return c == '_' || c == ':' || c < unicode.MaxASCII && (unicode.IsLetter(c) || unicode.IsDigit(c))
}

func isName(token string) bool {
	return token != "" && isNameRune(rune(token[0])) && !unicode.IsDigit(rune(token[0]))
}

func TestSelectors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		in      string
		want    string // metrics with their labels, then what is grouped by
		wantErr bool
	}{
		"alone":              {in: `up`, want: "[{up []}] []"},
		"compared":           {in: `relay_streaming == 0`, want: "[{relay_streaming []}] []"},
		"matched":            {in: `a{b="x", c=~"y|z"} > 1e9`, want: "[{a [b c]}] []"},
		"ranged":             {in: `rate(a_total{b!="x"}[5m]) > bool .5`, want: "[{a_total [b]}] []"},
		"grouped in front":   {in: `sum by (job, le) (a)`, want: "[{a []}] [job le]"},
		"grouped behind":     {in: `max(a) without (x)`, want: "[{a []}] [x]"},
		"joined":             {in: `a * on (i) group_left (s) b unless c offset 15m`, want: "[{a []} {b []} {c []}] [i s]"},
		"a function of time": {in: `time() - a and b`, want: "[{a []} {b []}] []"},
		"of a dashboard":     {in: `rate(a{job=~"$job"}[$__rate_interval])`, want: "[{a [job]}] []"},
		"no metric":          {in: `1 + 1`, wantErr: true},
		"not closed":         {in: `sum(a`, wantErr: true},
		"closed too often":   {in: `a)`, wantErr: true},
		"labels not closed":  {in: `a{b="c"`, wantErr: true},
		"no string":          {in: `a{b="c}`, wantErr: true},
		"not PromQL":         {in: `a ? b`, wantErr: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			metrics, grouped, err := selectors(tt.in)
			if (err != nil) != tt.wantErr {
				t.Fatalf("selectors(%q) error = %v, want error: %t", tt.in, err, tt.wantErr)
			}
			if got := fmt.Sprint(metrics, " ", grouped); err == nil && got != tt.want {
				t.Errorf("selectors(%q) = %s, want %s", tt.in, got, tt.want)
			}
		})
	}
}
