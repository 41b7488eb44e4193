package aggregatetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/seed-048de892/walpost/outbox"
)

// eventLines shows events one below the other.
func eventLines(events []outbox.Event) []string {
	var all []string
	for i := range events {
		e := &events[i]
		body := lines(e.Payload)
		all = append(all, fmt.Sprintf("%d %s %s", e.AggregateVersion, e.Type, body[0]))
		all = append(all, body[1:]...)
	}
	return all
}

// lines shows JSON with a member a line, and anything else quoted.
func lines(b []byte) []string {
	var indented bytes.Buffer
	if err := json.Indent(&indented, b, "", "  "); err != nil {
		return []string{fmt.Sprintf("%q", b)}
	}
	return strings.Split(indented.String(), "\n")
}

// diff marks with - what only want has, and with + what only got has, by a
// longest common subsequence.
func diff(want, got []string) string {
	// common[i][j] is the length of that of want[i:] and got[j:].
	common := make([][]int, len(want)+1)
	common[len(want)] = make([]int, len(got)+1)
	for i := len(want) - 1; i >= 0; i-- {
		common[i] = make([]int, len(got)+1)
		for j := len(got) - 1; j >= 0; j-- {
			if want[i] == got[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var b strings.Builder
	i, j := 0, 0
	for i < len(want) || j < len(got) {
		switch {
		case i < len(want) && j < len(got) && want[i] == got[j]:
			fmt.Fprintf(&b, "    %s\n", want[i])
			i, j = i+1, j+1
		case j == len(got) || i < len(want) && common[i+1][j] >= common[i][j+1]:
			fmt.Fprintf(&b, "  - %s\n", want[i])
			i++
		default:
			fmt.Fprintf(&b, "  + %s\n", got[j])
			j++
		}
	}
	return b.String()
}
